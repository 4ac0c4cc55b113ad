"""Codes that people already have, made into a store: JSON per image, EMOCA's folders of .npy, CSV columns.

Each source is a function from the samples to ``row -> block -> values``; rows that it has nothing for keep their
place, with the status of an exported table, else ``failed``. Codes are joined to a dataset by id or file name,
never by order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..errors import DatasetError, UsageError, number, some
from ..features.samples import SampleList
from ..features.store.format import StoreInfo
from ..features.store.writer import StoreWriter
from ..features.values import Block, Rows, Status
from .import_table import Found, read_code_table, share_words

FLAME = "flame-2020"
# SMIRK's names, as If3d's script writes them, and EMOCA's; each with where its numbers go.
_SMIRK = {
    "pose_params": ("pose",),
    "cam": ("camera",),
    "shape_params": ("shape",),
    "expression_params": ("expression",),
    "eyelid_params": ("eyelid",),
    "jaw_params": ("jaw",),
}
_EMOCA = {
    "exp": ("expression",),
    "pose": ("pose", "jaw"),  # six numbers: global rotation, then jaw
    "shape": ("shape",),
    "cam": ("camera",),
    "tex": ("texture",),
    "lightcode": ("light",),
    "detail": ("detail",),
}
# A row that a source does not have.
_NOTHING = (Status.failed, "no codes in the source")
_UNITS = {"pose": "rad", "jaw": "rad"}
_FLAME_BLOCKS = frozenset({"expression", "shape", "pose", "jaw"})


def import_codes(
    samples: SampleList,
    kind: str,
    source: str | Path,
    out: str | Path,
    *,
    columns: str | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, int]:
    """Make a store of codes that lie in files.

    Parameters
    ----------
    samples : SampleList
    kind : ``smirk-json``, ``emoca-npy`` or ``csv``
    source : folder of the files, or the table
    out : path of the store
    columns : str, optional
        Of a CSV without block names: ``expression:50,pose:3,jaw:3``, the numeric columns in order.
    say : function of a line of text, optional

    Returns
    -------
    status name -> rows

    Raises
    ------
    UsageError : no such kind.
    DatasetError : nothing there fits the dataset, or widths differ between rows.
    """
    if kind not in SOURCES:
        raise UsageError(f"import: expected --from {', '.join(SOURCES)}, got {kind!r}")
    if not Path(source).exists():
        raise DatasetError(f"import: expected codes at {source}, found nothing")
    found = SOURCES[kind](samples, Path(source), columns)
    if say:
        for note in found.notes:
            say(note)
    if not found.codes and found.without:
        (status, message), count = Counter(found.without.values()).most_common(1)[0]
        raise DatasetError(
            f"import: expected codes for some of the {len(samples)} samples in {source}, got "
            f"{number(len(found.without), 'row')} without valid codes, {count} of them {status.name}: {message}"
        )
    if not found.codes:
        raise DatasetError(
            f"import: expected codes for some of the {len(samples)} samples in {source}, got none that fits an id or "
            f"file name (the first id is {samples.samples[0].id})"
        )
    blocks = _blocks(found)
    rows = _rows(len(samples), found, blocks)
    info = StoreInfo(
        dataset=samples.dataset,
        root=str(Path(samples.root).resolve()),
        classes=samples.classes,
        regressor={"name": found.regressor, "version": "imported", "source": kind},
        detector={"name": "unknown"},
    )
    with StoreWriter(out, info, samples.samples, blocks) as writer:
        writer.write(0, rows)
    return dict(Counter(Status(int(code)).name for code in rows.status))


def _blocks(found: Found) -> dict[str, Block]:
    """The blocks that all rows have, with their one width."""
    widths: dict[str, Counter[int]] = {}
    for codes in found.codes.values():
        for name, values in codes.items():
            widths.setdefault(name, Counter())[len(values)] += 1
    for name, counts in widths.items():
        if len(counts) > 1 or sum(counts.values()) != len(found.codes):
            there = ", ".join(
                f"{number(count, 'row')} of width {width}" for width, count in counts.most_common()
            )
            raise DatasetError(
                f"import: expected {name} of one width in all {len(found.codes)} rows, got {there}; "
                "import files of one regressor at a time"
            )
    return {
        name: Block(
            width=next(iter(counts)),
            unit=_UNITS.get(name, "1"),
            basis=FLAME if name in _FLAME_BLOCKS else f"{found.regressor}-imported",
            description=f"{name} of {found.regressor}, imported.",
        )
        for name, counts in widths.items()
    }


def _rows(n: int, found: Found, blocks: dict[str, Block]) -> Rows:
    rows = Rows.pending(n, blocks)
    for row in range(n):
        rows.status[row], rows.message[row] = found.without.get(row, _NOTHING)
    for row, codes in found.codes.items():
        bad = [name for name, values in codes.items() if not np.isfinite(values).all()]
        if bad:
            rows.status[row], rows.message[row] = Status.failed, f"not finite: {', '.join(bad)}"
            continue
        rows.status[row], rows.message[row] = Status.ok, ""
        for name, values in codes.items():
            rows.codes[name][row] = values
    return rows


def _renamed(record: Mapping[str, np.ndarray], table: Mapping[str, tuple[str, ...]]) -> dict[str, np.ndarray]:
    """The source's names as block names, in the table's order; EMOCA's pose of six is parted in two."""
    named: dict[str, np.ndarray] = {}
    for key, targets in table.items():
        if key in record:
            parts = np.split(np.asarray(record[key], np.float32).ravel(), len(targets))
            named.update(zip(targets, parts, strict=True))
    return named


def _smirk_json(samples: SampleList, source: Path, columns: str | None) -> Found:
    """``<id>.json``, ``<path>.json`` under the source, or by file name where that is one-to-one."""
    by_name: dict[str, list[Path]] = {}
    for file in sorted(source.rglob("*.json")):
        by_name.setdefault(file.name, []).append(file)
    stems = Counter(Path(sample.path).stem for sample in samples.samples)
    codes: dict[int, dict[str, np.ndarray]] = {}
    without: dict[int, tuple[Status, str]] = {}
    keys: set[str] = set()
    for row, sample in enumerate(samples.samples):
        name = Path(sample.path).name
        near = [source / f"{sample.id}.json", source / f"{sample.path}.json"]
        path = next((path for path in near if path.is_file()), None)
        if path is None and stems[Path(name).stem] == 1:
            alike = by_name.get(f"{name}.json", []) + by_name.get(f"{Path(name).stem}.json", [])
            path = alike[0] if len(alike) == 1 else None
        if path is None:
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(record, dict):
                raise ValueError("expected a JSON object")
            keys |= set(record)
            named = _renamed(record, _SMIRK) or _renamed(record, _EMOCA)
        except Exception as exc:  # one bad file does not end the others
            without[row] = Status.failed, f"{path.name}: {exc}"
            continue
        if named:
            codes[row] = named
        else:
            known = f"none of the known names among {', '.join(sorted(record)[:6])}"
            without[row] = Status.failed, f"{path.name}: {known}"
    regressor = "smirk" if keys & set(_SMIRK) - {"cam"} else "emoca"
    return Found(regressor, codes, (share_words("a JSON file", codes, samples),), without)


def _emoca_npy(samples: SampleList, source: Path, columns: str | None) -> Found:
    """EMOCA's and inferno's folders ``<stem>00/exp.npy`` ...; the stem is the file's name up to its first dot."""
    folders: dict[str, list[Path]] = {}
    for path in sorted(source.rglob("exp.npy")):
        folders.setdefault(path.parent.name, []).append(path.parent)
    notes = []
    # EMOCA's script puts the codes of every picture without a face into a folder named by one character.
    odd = sorted(name for name in folders if len(name) == 1)
    if odd:
        notes.append(f"folders of one character are left out, they hold pictures without a face: {some(odd)}")
    stems = Counter(_first_stem(sample.path) for sample in samples.samples)
    collide = sorted(stem for stem, count in stems.items() if count > 1 and f"{stem}00" in folders)
    if collide:
        notes.append(f"{number(len(collide), 'stem')} of several pictures left out: {some(collide)}")
    twice = sorted(name for name, paths in folders.items() if len(paths) > 1)
    if twice:
        notes.append(f"{number(len(twice), 'folder')} there more than once left out: {some(twice)}")
    codes, without = {}, {}
    for row, sample in enumerate(samples.samples):
        stem = _first_stem(sample.path)
        paths = folders.get(f"{stem}00", [])
        if len(paths) != 1 or stems[stem] > 1 or len(paths[0].name) == 1:
            continue
        try:
            record = {
                key: np.load(paths[0] / f"{key}.npy", allow_pickle=False)
                for key in _EMOCA
                if (paths[0] / f"{key}.npy").is_file()
            }
            codes[row] = _renamed(record, _EMOCA)
        except Exception as exc:  # one bad file does not end the others
            without[row] = Status.failed, f"{paths[0].name}: {exc}"
    notes.append(share_words("a folder of codes", codes, samples))
    return Found("emoca", codes, tuple(notes), without)


def _first_stem(path: str) -> str:
    return Path(path).name.split(".")[0]


SOURCES: Mapping[str, Callable[[SampleList, Path, str | None], Found]] = {
    "smirk-json": _smirk_json,
    "emoca-npy": _emoca_npy,
    "csv": read_code_table,
}
