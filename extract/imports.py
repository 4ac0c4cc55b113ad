"""Codes that people already have, made into a store: JSON per image, EMOCA's folders of .npy, CSV columns.

Each source is a function from the samples to ``row -> block -> values``; rows that it has nothing for keep their
place, with the status of an exported table, else ``failed``. Codes are joined to a dataset by id or file name,
never by order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import DatasetError, UsageError, listed, plural
from ..features.align import align, find_rows
from ..features.samples import Listing
from ..features.store.format import StoreInfo
from ..features.store.writer import StoreWriter
from ..features.values import Block, Rows, Status
from .import_table import Found, read_code_table, share_words
from .regressors import REGRESSORS, find_regressor

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
# EMICA's in inferno: the pose of EMOCA in two files, 100 expression and 300 shape codes.
_EMICA = {
    **{key: targets for key, targets in _EMOCA.items() if key not in ("pose", "detail")},
    "globalpose": ("pose",),
    "jawpose": ("jaw",),
}
# A row that a source does not have.
_NOTHING = (Status.failed, "no codes in the source")
_UNITS = {"pose": "rad", "jaw": "rad"}
_FLAME_BLOCKS = frozenset({"expression", "shape", "pose", "jaw"})


def import_codes(
    listing: Listing,
    kind: str,
    source: str | Path,
    out: str | Path,
    *,
    columns: str | None = None,
    notify: Callable[[str], None] | None = None,
) -> dict[str, int]:
    """Make a store of codes that lie in files.

    Parameters
    ----------
    listing : Listing
    kind : ``smirk-json``, ``emoca-npy``, ``emica-npy`` (inferno) or ``csv``
    source : folder of the files, or the table
    out : path of the store
    columns : str, optional
        Of a CSV without block names: ``expression:50,pose:3,jaw:3``, the numeric columns in order.
    notify : function of a line of text, optional

    Returns
    -------
    status name -> rows

    Raises
    ------
    UsageError : no such kind.
    DatasetError : nothing there fits the dataset, or widths differ between rows.
    """
    if kind not in SOURCES:
        raise UsageError(f"import: unknown source {kind!r}; use --from {', '.join(SOURCES)}")
    if not Path(source).exists():
        raise DatasetError(f"import: {source} does not exist; check the path")
    found = SOURCES[kind](listing, Path(source), columns)
    if notify:
        for note in found.notes:
            notify(note)
    if not found.codes and found.without:
        (status, message), count = Counter(found.without.values()).most_common(1)[0]
        raise DatasetError(
            f"import: {source} has no codes for the {len(listing)} samples: "
            f"{plural(len(found.without), 'row')} without valid codes, {count} of them {status.name}: {message}"
        )
    if not found.codes:
        raise DatasetError(
            f"import: nothing in {source} matches the id or file name of any of the {len(listing)} samples; name the "
            f"codes by id, such as {listing.samples['id'].iat[0]}"
        )
    blocks = _blocks(found)
    rows = _rows(len(listing), found, blocks)
    info = StoreInfo(
        dataset=listing.dataset,
        root=str(Path(listing.root).resolve()),
        classes=listing.classes,
        regressor={
            "name": found.regressor,
            "version": "imported",
            "source": kind,
            "sets": _sets(found.regressor, blocks),
        },
        detector={"name": "unknown"},
    )
    with StoreWriter(out, info, listing.samples, blocks) as writer:
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
            sizes = ", ".join(
                f"{plural(count, 'row')} of width {width}" for width, count in counts.most_common()
            )
            raise DatasetError(
                f"import: the width of {name} differs between rows ({sizes}); import files of one regressor at a time"
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


def _sets(regressor: str, blocks: dict[str, Block]) -> dict[str, list[str]]:
    """Named sets of the regressor whose blocks the source has."""
    declared = find_regressor(regressor).sets if regressor in REGRESSORS else {}
    return {name: list(of) for name, of in declared.items() if set(of) <= set(blocks)}


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
    """The source's names as block names, in the table's order; EMOCA's pose of six is split in two."""
    named: dict[str, np.ndarray] = {}
    for key, targets in table.items():
        if key in record:
            parts = np.split(np.asarray(record[key], np.float32).ravel(), len(targets))
            named.update(zip(targets, parts, strict=True))
    return named


def _smirk_json(listing: Listing, source: Path, columns: str | None) -> Found:
    """``<id>.json`` or ``<path>.json`` under the source, or files of such names in other folders."""
    files = sorted(source.rglob("*.json"))
    names = [file.relative_to(source).as_posix().removesuffix(".json") for file in files]
    alignment = align(names, listing.samples)
    codes: dict[int, dict[str, np.ndarray]] = {}
    without: dict[int, tuple[Status, str]] = {}
    keys: set[str] = set()
    for path, row in zip(files, alignment.rows.tolist(), strict=True):
        if row < 0:
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(record, dict):
                raise ValueError("not a JSON object")
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
    notes = (alignment.report("JSON files", listing.dataset), share_words("a JSON file", codes, listing))
    return Found(regressor, codes, notes, without)


def _folders_of_npy(
    listing: Listing,
    source: Path,
    columns: str | None,
    *,
    regressor: str,
    table: Mapping[str, tuple[str, ...]],
) -> Found:
    """EMOCA's and inferno's folders ``<stem>00/exp.npy`` ...; the stem is the file's name up to its first dot."""
    folders: dict[str, list[Path]] = {}
    for path in sorted(source.rglob("exp.npy")):
        folders.setdefault(path.parent.name, []).append(path.parent)
    notes = []
    # EMOCA's script puts the codes of every picture without a face into a folder named by one character.
    odd = sorted(name for name in folders if len(name) == 1)
    if odd:
        notes.append(
            f"folders of one character are left out, they hold pictures without a face: {listed(odd)}"
        )
    repeated = sorted(name for name, paths in folders.items() if len(paths) > 1)
    if repeated:
        notes.append(f"{plural(len(repeated), 'folder')} there more than once left out: {listed(repeated)}")
    once = [
        paths[0] for name, paths in folders.items() if len(paths) == 1 < len(name) and name.endswith("00")
    ]
    stems = [folder.name.removesuffix("00") for folder in once]
    first_stems = [path.rpartition("/")[2].partition(".")[0] for path in listing.samples["path"]]
    rows, several = find_rows(stems, first_stems)
    collide = sorted(np.array(stems, dtype=str)[several].tolist())
    if collide:
        notes.append(f"{plural(len(collide), 'stem')} of several pictures left out: {listed(collide)}")
    codes, without = {}, {}
    for folder, row in zip(once, rows.tolist(), strict=True):
        if row < 0:
            continue
        try:
            record = {
                key: np.load(folder / f"{key}.npy", allow_pickle=False)
                for key in table
                if (folder / f"{key}.npy").is_file()
            }
            codes[row] = _renamed(record, table)
        except Exception as exc:  # one bad file does not end the others
            without[row] = Status.failed, f"{folder.name}: {exc}"
    notes.append(share_words("a folder of codes", codes, listing))
    return Found(regressor, codes, tuple(notes), without)


SOURCES: Mapping[str, Callable[[Listing, Path, str | None], Found]] = {
    "smirk-json": _smirk_json,
    "emoca-npy": partial(_folders_of_npy, regressor="emoca", table=_EMOCA),
    "emica-npy": partial(_folders_of_npy, regressor="emica", table=_EMICA),
    "csv": read_code_table,
}
