"""Parts of a dataset, made apart, join to the store of one run, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import FAKE, Ended, colour_folder, content
from listed import Sample, table_of

from ig3d.errors import RunError, StoreError, UsageError
from ig3d.extract import run
from ig3d.extract.config import ExtractConfig
from ig3d.extract.datasets import list_samples
from ig3d.extract.join import join_parts
from ig3d.extract.run import extract_codes
from ig3d.features.store import CodeStore

CONFIG = ExtractConfig(regressor=FAKE, batch_size=8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, the store of one run, and those of three parts."""
    place = tmp_path_factory.mktemp("join")
    root = colour_folder(place / "data", 100)
    (root / "sad" / "text.png").write_text("no image")
    samples = list_samples(root, "folder")
    extract_codes(samples, place / "one.h5", CONFIG, jobs=1)
    for k in (1, 2, 3):
        extract_codes(samples, place / f"{k}.h5", CONFIG, jobs=1, part=(k, 3))
    return place


def test_parts_in_any_order_join_to_the_store_of_one_run(
    made: Path, tmp_path: Path, ig3d: Callable[..., Ended]
) -> None:
    ended = ig3d("join", made / "3.h5", made / "1.h5", made / "2.h5", "--out", tmp_path / "a.h5")
    assert (ended.returncode, ended.stdout) == (0, f"{tmp_path / 'a.h5'}: 201 rows (ok 200 · unreadable 1)\n")
    assert content(tmp_path / "a.h5") == content(made / "one.h5")
    assert [len(CodeStore(made / f"{k}.h5")) for k in (1, 2, 3)] == [67, 67, 67]
    with CodeStore(made / "2.h5") as part:
        assert part.info.config["part"] == "2/3"
    # the joined store is the run's own
    again = ig3d("extract", made / "data", "--out", tmp_path / "a.h5", "--regressor", FAKE, "--batch-size", 8)
    assert "the store of this run is already complete" in again.stderr


def test_a_part_from_the_command_line(made: Path, tmp_path: Path, ig3d: Callable[..., Ended]) -> None:
    def part(which: str) -> Ended:
        return ig3d(
            "extract", made / "data", "--out", tmp_path / "2.h5", "--regressor", FAKE, "--batch-size", 8,
            "--jobs", 1, "--part", which,
        )  # fmt: skip

    ended = part("2/3")
    assert (ended.returncode, ended.stdout) == (0, f"{tmp_path / '2.h5'}: 67 rows (ok 67)\n")
    assert part("2/3").stdout == ended.stdout, "already complete: the part's rows again"
    assert content(tmp_path / "2.h5") == content(made / "2.h5")
    assert "part: 2/3 -> 3/3" in part("3/3").stderr
    for wrong, message in (
        ("0/3", "1 <= K <= N"),
        ("4/3", "1 <= K <= N"),
        ("x", "write K/N"),
        ("1/999", "<= 201"),
    ):
        ended = part(wrong)
        assert ended.returncode == 2 and message in ended.stderr


def test_shards_of_an_interrupted_run_are_joined_when_all_are_there(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, parts = tmp_path / "a.h5", tmp_path / "a.h5.parts"
    samples = list_samples(made / "data", "folder")

    def stop(done: dict[str, int]) -> None:
        if list(parts.glob("00001*.h5")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_codes(samples, out, CONFIG, jobs=1, progress=stop)
    with pytest.raises(StoreError, match="the run has 201 samples, the stores have 128"):
        join_parts([parts], tmp_path / "b.h5")
    assert not (tmp_path / "b.h5").exists()

    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "write_joined", stopped)
    with pytest.raises(KeyboardInterrupt):
        extract_codes(samples, out, CONFIG, jobs=1)
    join_parts([parts], tmp_path / "b.h5")
    assert content(tmp_path / "b.h5") == content(made / "one.h5")


def test_the_joined_stores_folder_is_made_or_named(
    made: Path, tmp_path: Path, ig3d: Callable[..., Ended]
) -> None:
    parts = [made / f"{k}.h5" for k in (1, 2, 3)]
    out = tmp_path / "new" / "deep" / "a.h5"
    assert ig3d("join", *parts, "--out", out).returncode == 0
    assert content(out) == content(made / "one.h5")
    ended = ig3d("join", *parts, "--out", out / "b.h5")  # a file where the folder is to be
    assert ended.returncode == 1
    assert "is a file, not a folder; choose another path" in ended.stderr
    assert "free the disk" not in ended.stderr


def test_what_does_not_join_is_refused(made: Path, tmp_path: Path) -> None:
    one, two, three = (made / f"{k}.h5" for k in (1, 2, 3))
    out = tmp_path / "a.h5"
    with pytest.raises(StoreError, match=r"the stores have 134 \(parts 1/3, 3/3\); pass"):
        join_parts([one, three], out)
    with pytest.raises(StoreError, match="67 ids also in"):
        join_parts([one, two, three, two], out)
    samples = list_samples(made / "data", "folder")
    extract_codes(samples, tmp_path / "other.h5", replace(CONFIG, batch_size=4), jobs=1, part=(2, 3))
    with pytest.raises(StoreError, match=r"same run .* \(options\.batch_size: 8 -> 4\)"):
        join_parts([one, tmp_path / "other.h5", three], out)
    with pytest.raises(RunError, match="the file exists, and join replaces no file"):
        join_parts([one, two, three], made / "one.h5")
    with pytest.raises(UsageError, match="has no shards"):
        join_parts([made / "data"], out)
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(two.read_bytes())
    with h5py.File(damaged, "r+") as file:
        file["codes/colour"][3] = np.float32(0.5)
    with pytest.raises(StoreError, match=r"damaged\.h5: not a sound store.*bytes were changed"):
        join_parts([one, damaged, three], out)
    assert not out.exists()


def test_joining_takes_no_more_memory_for_more_rows(tmp_path: Path) -> None:
    import tracemalloc

    from ig3d.extract.join import write_joined
    from ig3d.features.store.format import StoreInfo
    from ig3d.features.store.writer import StoreWriter
    from ig3d.features.values import Block, Rows, Status

    blocks = {"wide": Block(500, "1", "x", "Many columns.")}
    info = StoreInfo("x", "/", ())
    peaks = []
    for parts in (2, 5):
        samples = table_of(Sample(f"{i:06d}", f"{i:06d}.png") for i in range(parts * 4096))
        paths = [tmp_path / f"{parts}-{k}.h5" for k in range(parts)]
        for k, path in enumerate(paths):
            mine = samples[k * 4096 : (k + 1) * 4096]
            rows = Rows.pending(4096, blocks)
            rows.status[:] = Status.ok
            rows.codes["wide"][:] = k
            with StoreWriter(path, info, mine, blocks) as writer:
                writer.write(0, rows)
        tracemalloc.start()
        write_joined(tmp_path / f"{parts}.h5", info, samples, blocks, paths)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 4096 * 500 * 4  # less than one part more, for three parts more
