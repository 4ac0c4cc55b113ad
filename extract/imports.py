"""Codes that people already have, made into a store: JSON per image, EMOCA's folders of .npy, CSV columns.

Each source is a function from the samples to ``row -> block -> values``; rows that it has nothing for keep their
place, with the status that an exported table says, else ``failed``. Codes are joined to a dataset by id or file name,
never by order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import DatasetError, UsageError, number, require, some
from ..features.samples import SampleList
from ..features.store_format import StoreInfo
from ..features.store_writer import StoreWriter
from ..features.values import Block, Rows, Status
from .datasets.files import sample_id

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
# A row that a source says nothing of.
_NOTHING = (Status.failed, "no codes in the source")
_UNITS = {"pose": "rad", "jaw": "rad"}
# Columns of an exported table that say how it went, and what the first may say of a row without codes.
_OUTCOME = ("status", "message")
_WITHOUT = {status.name for status in Status} - {"pending", "ok"}
_FLAME_BLOCKS = frozenset({"expression", "shape", "pose", "jaw"})


@dataclass(frozen=True, slots=True)
class Found:
    """What a source holds for a dataset.

    Attributes
    ----------
    regressor : str
        Whose codes they are, as far as the files tell.
    codes : row of the sample list -> block -> values
    notes : what was odd, for the user
    without : row -> status and message of one that has no codes
    """

    regressor: str
    codes: dict[int, dict[str, np.ndarray]]
    notes: tuple[str, ...] = ()
    without: dict[int, tuple[Status, str]] = field(default_factory=dict)


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
            keys |= set(record)
            named = _renamed(record, _SMIRK) or _renamed(record, _EMOCA)
        except (ValueError, TypeError, OSError) as exc:
            without[row] = Status.failed, f"{path.name}: {exc}"
            continue
        if named:
            codes[row] = named
        else:
            known = f"none of the known names among {', '.join(sorted(record)[:6])}"
            without[row] = Status.failed, f"{path.name}: {known}"
    regressor = "smirk" if keys & set(_SMIRK) - {"cam"} else "emoca"
    return Found(regressor, codes, (_share("a JSON file", codes, samples),), without)


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
        except (ValueError, OSError, EOFError) as exc:
            without[row] = Status.failed, f"{paths[0].name}: {exc}"
    notes.append(_share("a folder of codes", codes, samples))
    return Found("emoca", codes, tuple(notes), without)


def _share(what: str, codes: Mapping[int, object], samples: SampleList) -> str:
    return f"{what} for {len(codes)} of {number(len(samples), 'sample')}"


def _first_stem(path: str) -> str:
    return Path(path).name.split(".")[0]


def _csv(samples: SampleList, source: Path, columns: str | None) -> Found:
    """Columns ``expression:0`` ... as ``ig3d export`` writes them, or consecutive ones named by ``columns``."""
    pandas = require("pandas", wanted_by="import")
    try:
        header = [str(name) for name in pandas.read_csv(source, nrows=0).columns]
        key = next((name for name in ("id", "path", "image", "name", "number") if name in header), None)
        if key is None:
            raise DatasetError(
                f"import: expected a column id, path, image, name or number, got {some(header)}"
            )
        # as they stand: an id NA is no empty cell
        words = {name: str for name in (key, *_OUTCOME) if name in header}
        table = pandas.read_csv(source, converters=words)
    except (ValueError, OSError, pandas.errors.ParserError) as exc:
        raise DatasetError(f"import: expected a table in {source}, got {str(exc).splitlines()[0]}") from exc
    places = _named_columns(header) if columns is None else _given_columns(header, key, columns)
    numbers = {
        name: table.iloc[:, at].apply(pandas.to_numeric, errors="coerce").to_numpy(np.float32)
        for name, at in places.items()
    }
    keys = table[key].tolist()
    outcome = zip(*(table[name] if name in header else [""] * len(keys) for name in _OUTCOME), strict=True)
    rows, counts = _match(set(keys), samples), Counter(keys)
    codes: dict[int, dict[str, np.ndarray]] = {}
    without: dict[int, tuple[Status, str]] = {}
    for line, (name, (status, message)) in enumerate(zip(keys, outcome, strict=True)):
        if name not in rows or counts[name] > 1:
            continue
        if any(np.isfinite(values[line]).any() for values in numbers.values()):
            codes[rows[name]] = {block: values[line] for block, values in numbers.items()}
        elif status in _WITHOUT:  # a row without a single number is a sample without codes
            without[rows[name]] = Status[status], message
    notes = [_share("a row of codes", codes, samples)]
    if many := [name for name, count in counts.items() if count > 1]:
        notes.append(f"{number(len(many), 'id')} there more than once left out: {some(many)}")
    return Found("unknown", codes, tuple(notes), without)


def _named_columns(header: list[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, name in enumerate(header):
        block, _, column = name.removeprefix("code:").rpartition(":")
        if block and column.isdigit():
            places.setdefault(block, []).append(place)
    if not places:
        raise DatasetError(
            f"import: expected columns like expression:0, got {some(header)}; say what the columns are with "
            "--columns expression:50,pose:3,..."
        )
    return places


def _given_columns(header: list[str], key: str, columns: str) -> dict[str, list[int]]:
    try:
        widths = {
            name.strip(): int(width) for name, width in (part.split(":") for part in columns.split(","))
        }
    except ValueError as exc:
        raise UsageError(f"columns: expected block:width by comma, got {columns!r}") from exc
    left = [
        i
        for i, name in enumerate(header)
        if name not in (key, "exp", "val", "aro", "label", "split", "group", *_OUTCOME)
    ]
    if sum(widths.values()) != len(left):
        raise UsageError(
            f"columns: expected widths that sum to the {len(left)} columns beside {key} and labels, got "
            f"{sum(widths.values())}"
        )
    ends = np.cumsum([0, *widths.values()])
    return {name: left[ends[i] : ends[i + 1]] for i, name in enumerate(widths)}


def _match(keys: set[str], samples: SampleList) -> dict[str, int]:
    """Key of the table -> row, by id, path, file name or stem: the first of these that is unique and fits any."""

    def forms() -> Iterator[list[str]]:
        yield [sample.id for sample in samples.samples]
        yield [sample.path for sample in samples.samples]
        yield [Path(sample.path).name for sample in samples.samples]
        yield [sample_id(Path(sample.path).name) for sample in samples.samples]

    for names in forms():
        if len(set(names)) == len(names) and keys & set(names):
            return {name: row for row, name in enumerate(names) if name in keys}
    return {}


SOURCES: Mapping[str, Callable[[SampleList, Path, str | None], Found]] = {
    "smirk-json": _smirk_json,
    "emoca-npy": _emoca_npy,
    "csv": _csv,
}
