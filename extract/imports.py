"""Import codes of other programs into a store: a JSON file per image, EMOCA's folders of .npy files, CSV columns.

Each source is a function from the samples to ``row -> block -> values``. A row without codes gets the status that an
exported table has for it, else ``failed``. Codes are aligned with the samples by id or file name, never by order.
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
from .import_table import ImportedCodes, read_code_table, share_words
from .regressors import REGRESSORS, find_regressor

FLAME = "flame-2020"
# Names in the files of SMIRK (as If3d's script writes them) and of EMOCA -> blocks that get the numbers.
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
# Names in the files of EMICA (inferno): as EMOCA's, with two files for the pose.
_EMICA = {
    **{key: targets for key, targets in _EMOCA.items() if key not in ("pose", "detail")},
    "globalpose": ("pose",),
    "jawpose": ("jaw",),
}
# Status and message of a row without codes in the source.
_NO_CODES = (Status.failed, "no codes in the source")
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
    """Write a store of codes that another program has computed.

    Parameters
    ----------
    listing : Listing
    kind : {"smirk-json", "emoca-npy", "emica-npy", "csv"}
        Format of the source; ``emica-npy`` is that of inferno.
    source : path of the folder of the files, or of the table
    out : path of the store
    columns : str, optional
        Blocks and widths of the numeric columns of a table, in order, if their names do not contain the block:
        ``expression:50,pose:3,jaw:3``.
    notify : function of a line of text, optional
        Called with notes on the alignment.

    Returns
    -------
    dict of status name to number of rows

    Raises
    ------
    UsageError : there is no such kind.
    DatasetError : the source does not exist or has no codes for the samples, or widths differ between rows.
    """
    if kind not in SOURCES:
        raise UsageError(f"import: unknown source {kind!r}; use --from {', '.join(SOURCES)}")
    if not Path(source).exists():
        raise DatasetError(f"import: {source} does not exist; check the path")
    imported = SOURCES[kind](listing, Path(source), columns)
    if notify:
        for note in imported.notes:
            notify(note)
    if not imported.codes and imported.without:
        (status, message), count = Counter(imported.without.values()).most_common(1)[0]
        raise DatasetError(
            f"import: {source} has no codes for any of {plural(len(listing), 'sample')}: "
            f"{plural(len(imported.without), 'row')} without valid codes, {count} of them {status.name}: {message}"
        )
    if not imported.codes:
        raise DatasetError(
            f"import: nothing in {source} matches the id or file name of any of {plural(len(listing), 'sample')}; name "
            f"the codes by id, such as {listing.samples['id'].iat[0]}"
        )
    blocks = _blocks(imported)
    rows = _rows(len(listing), imported, blocks)
    info = StoreInfo(
        dataset=listing.dataset,
        root=str(Path(listing.root).resolve()),
        classes=listing.classes,
        regressor={
            "name": imported.regressor,
            "version": "imported",
            "source": kind,
            "sets": _sets(imported.regressor, blocks),
        },
        detector={"name": "unknown"},
    )
    with StoreWriter(out, info, listing.samples, blocks) as writer:
        writer.write(0, rows)
    return dict(Counter(Status(int(code)).name for code in rows.status))


def _blocks(imported: ImportedCodes) -> dict[str, Block]:
    """Blocks of the codes; each must be in all rows, with the same width."""
    widths: dict[str, Counter[int]] = {}
    for codes in imported.codes.values():
        for name, values in codes.items():
            widths.setdefault(name, Counter())[len(values)] += 1
    for name, counts in widths.items():
        if len(counts) > 1 or sum(counts.values()) != len(imported.codes):
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
            basis=FLAME if name in _FLAME_BLOCKS else f"{imported.regressor}-imported",
            description=f"{name} of {imported.regressor}, imported.",
        )
        for name, counts in widths.items()
    }


def _sets(regressor: str, blocks: dict[str, Block]) -> dict[str, list[str]]:
    """Named sets of the regressor for which the source has all blocks."""
    declared = find_regressor(regressor).sets if regressor in REGRESSORS else {}
    return {name: list(of) for name, of in declared.items() if set(of) <= set(blocks)}


def _rows(n: int, imported: ImportedCodes, blocks: dict[str, Block]) -> Rows:
    rows = Rows.pending(n, blocks)
    for row in range(n):
        rows.status[row], rows.message[row] = imported.without.get(row, _NO_CODES)
    for row, codes in imported.codes.items():
        bad = [name for name, values in codes.items() if not np.isfinite(values).all()]
        if bad:
            rows.status[row], rows.message[row] = Status.failed, f"not finite: {', '.join(bad)}"
            continue
        rows.status[row], rows.message[row] = Status.ok, ""
        for name, values in codes.items():
            rows.codes[name][row] = values
    return rows


def _renamed(record: Mapping[str, np.ndarray], table: Mapping[str, tuple[str, ...]]) -> dict[str, np.ndarray]:
    """Codes by block name, in the order of ``table``; EMOCA's pose (6 numbers) is split into pose and jaw."""
    named: dict[str, np.ndarray] = {}
    for key, targets in table.items():
        if key in record:
            parts = np.split(np.asarray(record[key], np.float32).ravel(), len(targets))
            named.update(zip(targets, parts, strict=True))
    return named


def _smirk_json(listing: Listing, source: Path, columns: str | None) -> ImportedCodes:
    """Codes of ``<id>.json`` or ``<path>.json``, in the folder ``source`` or in sub-folders."""
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
            problem = f"no known name of codes among {', '.join(sorted(record)[:6])}"
            without[row] = Status.failed, f"{path.name}: {problem}"
    regressor = "smirk" if keys & set(_SMIRK) - {"cam"} else "emoca"
    notes = (alignment.report("JSON files", listing.dataset), share_words("a JSON file", codes, listing))
    return ImportedCodes(regressor, codes, notes, without)


def _folders_of_npy(
    listing: Listing,
    source: Path,
    columns: str | None,
    *,
    regressor: str,
    table: Mapping[str, tuple[str, ...]],
) -> ImportedCodes:
    """Codes of folders ``<stem>00/exp.npy``, ... of EMOCA or inferno; the stem is the file name up to its first dot."""
    folders: dict[str, list[Path]] = {}
    for path in sorted(source.rglob("exp.npy")):
        folders.setdefault(path.parent.name, []).append(path.parent)
    notes = []
    # EMOCA's script writes the codes of all images without a face to folders with a name of one character
    odd = sorted(name for name in folders if len(name) == 1)
    if odd:
        notes.append(
            f"folders with names of one character are left out: EMOCA writes images without a face to them "
            f"({listed(odd)})"
        )
    repeated = sorted(name for name, paths in folders.items() if len(paths) > 1)
    if repeated:
        notes.append(f"{plural(len(repeated), 'name')} of several folders left out: {listed(repeated)}")
    once = [
        paths[0] for name, paths in folders.items() if len(paths) == 1 < len(name) and name.endswith("00")
    ]
    stems = [folder.name.removesuffix("00") for folder in once]
    first_stems = [path.rpartition("/")[2].partition(".")[0] for path in listing.samples["path"]]
    rows, several = find_rows(stems, first_stems)
    collide = sorted(np.array(stems, dtype=str)[several].tolist())
    if collide:
        notes.append(f"{plural(len(collide), 'name')} of several images left out: {listed(collide)}")
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
    return ImportedCodes(regressor, codes, tuple(notes), without)


SOURCES: Mapping[str, Callable[[Listing, Path, str | None], ImportedCodes]] = {
    "smirk-json": _smirk_json,
    "emoca-npy": partial(_folders_of_npy, regressor="emoca", table=_EMOCA),
    "emica-npy": partial(_folders_of_npy, regressor="emica", table=_EMICA),
    "csv": read_code_table,
}
