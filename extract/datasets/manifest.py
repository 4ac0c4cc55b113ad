"""``manifest``: a CSV or Parquet table that lists images and what is known of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ...errors import DatasetError, require
from ...features.classes import canonical, canonical_all
from ...features.values import Sample, SampleList, Split
from . import DatasetOptions
from .files import groups_of, listing, missing_note, natural, sample_id, size_of, split_named

_COLUMNS = ("path", "id", "label", "split", "valence", "arousal", "group")
_EMPTY = ("", "none", "nan", "null")


class ManifestDataset:
    """A table with a column ``path`` (under the root), and any of id, label, split, valence, arousal, group."""

    name = "manifest"
    layout = (
        "manifest expects ROOT/manifest.csv or manifest.parquet (or --manifest FILE) with a column path and any of "
        "id, label, split, valence, arousal, group"
    )

    def __call__(self, root: Path, options: DatasetOptions) -> SampleList:
        table = _read(_locate(root, options.manifest, self.layout))
        texts = {name: [_text(cell) for cell in table[name]] for name in _COLUMNS if name in table}
        paths = texts["path"]
        bad = [path for path in paths if not path or Path(path).is_absolute() or ".." in Path(path).parts]
        if bad:
            raise DatasetError(
                f"manifest: expected paths under the root, got {len(bad)} that are empty, absolute or lead out "
                f"({', '.join(repr(path) for path in bad[:5])})"
            )
        ids = texts.get("id") or [sample_id(path) for path in paths]
        labels, classes = _labels(texts.get("label", [""] * len(paths)))
        groups = texts.get("group") or groups_of(ids, options.group_pattern)
        values = {name: _numbers(texts, name, ids) for name in ("valence", "arousal")}
        sizes = [size_of(root / path) for path in paths]
        samples = tuple(
            Sample(*row)
            for row in zip(
                ids,
                paths,
                labels,
                _splits(texts.get("split", [""] * len(paths)), ids),
                values["valence"],
                values["arousal"],
                groups,
                sizes,
                strict=True,
            )
        )
        unknown = [str(name) for name in table if name not in _COLUMNS]
        notes = (f"columns left unread: {', '.join(unknown)}",) if unknown else ()
        return SampleList(self.name, str(root), classes, samples, notes + missing_note(paths, sizes))


def _locate(root: Path, given: str | None, layout: str) -> Path:
    candidates = [Path(given)] if given else [root / "manifest.csv", root / "manifest.parquet"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    wanted = given or "manifest.csv or manifest.parquet"
    raise DatasetError(
        f"manifest: expected {wanted}, found {listing(root)} in {root}; {layout} (docs/datasets.md)"
    )


def _read(path: Path) -> dict[str, list[Any]]:
    pandas = require("pandas", wanted_by="manifest")
    try:
        if path.suffix.lower() == ".parquet":
            require("pyarrow", wanted_by=f"manifest {path.name}")
            frame = pandas.read_parquet(path)
        else:
            # read as text: an id 007 stays 007, and an empty cell stays empty
            frame = pandas.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError, pandas.errors.ParserError) as exc:  # a UnicodeDecodeError is a ValueError
        raise DatasetError(f"manifest: expected a table in {path}, got {str(exc).splitlines()[0]}") from exc
    frame.columns = [str(name).strip().lower() for name in frame.columns]
    if "path" not in frame.columns:
        raise DatasetError(f"manifest: expected a column path in {path}, got {', '.join(frame.columns)}")
    return {str(name): frame[name].tolist() for name in frame.columns}


def _text(cell: Any) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def _labels(cells: list[str]) -> tuple[list[int], tuple[str, ...]]:
    """Label indices and class names; names are put in natural order, bare numbers are names as well."""
    names = sorted(
        {canonical(cell) for cell in cells if cell.lower() not in _EMPTY and cell != "-1"}, key=natural
    )
    index = {name: label for label, name in enumerate(canonical_all(names))}
    return [index.get(canonical(cell), -1) for cell in cells], tuple(index)


def _splits(cells: list[str], ids: list[str]) -> list[Split]:
    splits = [split_named(cell) if cell.lower() not in _EMPTY else Split.none for cell in cells]
    unknown = [
        f"{cell!r} ({where})" for cell, split, where in zip(cells, splits, ids, strict=True) if split is None
    ]
    if unknown:
        raise DatasetError(
            f"manifest: expected split train, val, test or empty, got {len(unknown)} others: {', '.join(unknown[:5])}"
        )
    return [split for split in splits if split is not None]


def _numbers(texts: dict[str, list[str]], name: str, ids: list[str]) -> list[float]:
    """Valence or arousal in [-1, 1]; an empty cell or -2 (AffectNet's mark) is none."""
    numbers, bad = [], []
    for cell, where in zip(texts.get(name, [""] * len(ids)), ids, strict=True):
        try:
            value = float(cell) if cell.lower() not in _EMPTY else math.nan
        except ValueError:
            value = math.inf
        value = math.nan if value == -2 else value
        if value > 1 or value < -1:
            bad.append(f"{cell!r} ({where})")
        numbers.append(value)
    if bad:
        raise DatasetError(
            f"manifest: expected {name} in [-1, 1], -2 or empty, got {len(bad)} others: {', '.join(bad[:5])}"
        )
    return numbers
