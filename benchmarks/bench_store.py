"""Benchmark of reading a store against JSON files, npz and Parquet.

Rows of SMIRK's full set of codes, 361 columns in six blocks. JSON files are read for a part of the rows, and the time
is scaled up. All files are in the page cache, so that the disk does not matter. Figures are CPU times, the minimum
over rounds in which the formats take turns.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ig3d import CodeStore
from ig3d.features.samples import sample_table
from ig3d.features.store.format import StoreInfo
from ig3d.features.store.writer import StoreWriter
from ig3d.features.values import Block, Rows, Status

BLOCKS = {"expression": 50, "pose": 3, "jaw": 3, "eyelid": 2, "shape": 300, "camera": 3}
SLICE = 1000
STEP = 4096


def best(call: Callable[[], object], rounds: int = 3) -> float:
    return in_turns([call], rounds)[0]


def in_turns(calls: list[Callable[[], object]], rounds: int = 3) -> list[float]:
    """Minimum CPU time of each call in seconds."""
    times = [math.inf] * len(calls)
    for _ in range(rounds):
        for index, call in enumerate(calls):
            start = time.process_time()
            call()
            times[index] = min(times[index], time.process_time() - start)
    return times


def write_store(path: Path, ids: list[str], codes: dict[str, np.ndarray]) -> None:
    blocks = {name: Block(width, "1", "made up", "numbers") for name, width in BLOCKS.items()}
    samples = sample_table({"id": ids, "path": [f"{name}.jpg" for name in ids]})
    with StoreWriter(path, StoreInfo("made up", "", ()), samples, blocks) as writer:
        for start in range(0, len(ids), STEP):
            rows = Rows.pending(min(STEP, len(ids) - start), {})
            rows.status[:] = Status.ok
            writer.write(
                start,
                Rows(
                    *(getattr(rows, name) for name in Rows.__slots__ if name != "codes"),
                    codes={name: values[start : start + STEP] for name, values in codes.items()},
                ),
            )


def write_others(work: Path, ids: list[str], codes: dict[str, np.ndarray], json_rows: int) -> None:
    (work / "json").mkdir()
    for row in range(json_rows):
        record = {name: values[row].tolist() for name, values in codes.items()}
        (work / "json" / f"{row:06d}.json").write_text(json.dumps(record))
    np.savez(work / "codes.npz", ids=np.array(ids), **codes)
    columns = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        for name, values in codes.items()
    }
    pq.write_table(pa.table({"id": ids, **columns}), work / "codes.parquet", row_group_size=STEP)


def read_json(folder: Path) -> dict[str, np.ndarray]:
    records = [json.loads(path.read_text()) for path in sorted(folder.iterdir())]
    return {name: np.array([record[name] for record in records], np.float32) for name in BLOCKS}


def read_store(path: Path, blocks: list[str], rows: slice = slice(None)) -> list[np.ndarray]:
    with CodeStore(path) as store:
        return [store.codes(name, rows) for name in blocks]


def read_npz(path: Path, blocks: list[str], rows: slice = slice(None)) -> list[np.ndarray]:
    with np.load(path) as stored:
        return [stored[name][rows] for name in blocks]


def read_parquet(path: Path, blocks: list[str], rows: slice = slice(None)) -> list[np.ndarray]:
    file = pq.ParquetFile(path)
    if rows == slice(None):
        table, first = file.read(columns=blocks, use_threads=False), 0
    else:
        groups = range(rows.start // STEP, -(-rows.stop // STEP))
        table, first = file.read_row_groups(list(groups), columns=blocks, use_threads=False), groups[0] * STEP
        table = table.slice(rows.start - first, rows.stop - rows.start)
    flat = [table[name].combine_chunks().flatten().to_numpy() for name in blocks]
    return [values.reshape(len(table), -1) for values in flat]


def formats(work: Path, rows: int, json_rows: int) -> None:
    """Print the time of reading by format."""
    every, middle = list(BLOCKS), slice(rows // 2, rows // 2 + SLICE)
    readers = {"h5": read_store, "npz": read_npz, "parquet": read_parquet}
    files = [(read, work / f"codes.{suffix}") for suffix, read in readers.items()]
    for read, path in files:
        for values, wanted in zip(
            read(path, every, middle), read_npz(work / "codes.npz", every, middle), strict=True
        ):
            assert np.array_equal(values, wanted), path.name
    plain, *full = in_turns(
        [lambda: read_json(work / "json"), *(partial(read, path, every) for read, path in files)]
    )
    plain *= rows / json_rows
    block = in_turns([partial(read, path, ["expression"]) for read, path in files])
    part = in_turns([partial(read, path, every, middle) for read, path in files])
    print(f"JSON per image, all {rows:,} rows (scaled up from {json_rows:,}): {plain:.1f} s")
    print(f"{'':10} {'all blocks':>14} {'one block':>14} {f'{SLICE} rows':>14}   against JSON (all blocks)")
    for name, *times in zip(readers, full, block, part, strict=True):
        shown = " ".join(f"{seconds * 1e3:11.1f} ms" for seconds in times)
        print(f"{name:10} {shown}   {plain / times[0]:8.0f} times as fast")
    print(f"open: {best(lambda: CodeStore(work / 'codes.h5').close()) * 1e3:.1f} ms", end=", ")
    print(f"with ids and labels: {best(lambda: read_ids(work / 'codes.h5')) * 1e3:.1f} ms\n")


def read_ids(path: Path) -> None:
    with CodeStore(path) as store:
        _ = store.samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="number of rows; AffectNet has 290000")
    parser.add_argument("--json", type=int, default=1000, help="number of rows written as JSON files")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    codes = {name: rng.standard_normal((args.rows, width), np.float32) for name, width in BLOCKS.items()}
    ids = [f"train_set/images/{row:06d}" for row in range(args.rows)]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_store(work / "codes.h5", ids, codes)
        write_others(work, ids, codes, min(args.json, args.rows))
        formats(work, args.rows, min(args.json, args.rows))


if __name__ == "__main__":
    main()
