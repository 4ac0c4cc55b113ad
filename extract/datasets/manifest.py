"""``manifest``: a CSV or Parquet table that lists images and what is known of them."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from ...errors import DatasetError, require
from ...features.classes import canonical
from ...features.values import Sample, SampleList, Split
from . import DatasetOptions
from .files import listing, sample_id, size_of, split_named
from .labels import digit_notes, read_labels

_BOX = ("x0", "y0", "x1", "y1")
_COLUMNS = ("path", "id", "label", "split", "valence", "arousal", "group", *_BOX)
# Other names of columns, in lower case, as tables that come with datasets have them; used where the name itself is not.
_OTHER_NAMES = {
    "path": ("image_path", "filename", "file", "image", "pth", "subdirectory_filepath", "name"),
    "label": ("expression", "emotion", "class"),
}
_EMPTY = ("", "none", "nan", "null")


class ManifestDataset:
    """A table with a column ``path`` (under the root), and any of the other columns."""

    name = "manifest"
    layout = (
        "manifest expects ROOT/manifest.csv or manifest.parquet (or --manifest FILE) with a column path and any of "
        "id, label, split, valence, arousal, group, x0, y0, x1, y1"
    )
    maps_labels = True

    def __call__(self, root: Path, options: DatasetOptions) -> SampleList:
        table, notes = _read(_locate(root, options.manifest, self.layout))
        texts = {name: [_text(cell) for cell in table[name]] for name in _COLUMNS if name in table}
        paths = texts["path"]
        bad = [path for path in paths if not path or Path(path).is_absolute() or ".." in Path(path).parts]
        if bad:
            raise DatasetError(
                f"manifest: expected paths under the root, got {len(bad)} that are empty, absolute or lead out "
                f"({', '.join(repr(path) for path in bad[:5])})"
            )
        empty = [""] * len(paths)
        ids = texts.get("id") or [sample_id(path) for path in paths]
        cells = [
            "" if cell.lower() in _EMPTY or cell == "-1" else canonical(cell)
            for cell in texts.get("label", empty)
        ]
        labels = read_labels({cell for cell in cells if cell}, options.label_map)
        samples = tuple(
            Sample(*row)
            for row in zip(
                ids,
                paths,
                (labels.index.get(cell, -1) for cell in cells),
                _splits(texts.get("split", empty), ids),
                _numbers(texts, "valence", ids),
                _numbers(texts, "arousal", ids),
                texts.get("group", empty),
                (size_of(root / path) for path in paths),
                _boxes(texts, ids),
                strict=True,
            )
        )
        counts = {"all": Counter(cell for cell in cells if cell)}
        notes += labels.notes
        notes += tuple(digit_notes(counts, labels.classes if options.label_map else ()))
        unknown = [str(name) for name in table if name not in _COLUMNS]
        if unknown:
            notes += (f"columns left unread: {', '.join(unknown)}",)
        return SampleList(self.name, str(root), labels.classes, samples, notes)


def _locate(root: Path, given: str | None, layout: str) -> Path:
    candidates = [Path(given)] if given else [root / "manifest.csv", root / "manifest.parquet"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    wanted = given or "manifest.csv or manifest.parquet"
    raise DatasetError(
        f"manifest: expected {wanted}, found {listing(root)} in {root}; {layout} (docs/datasets.md)"
    )


def _read(path: Path) -> tuple[dict[str, list[Any]], tuple[str, ...]]:
    """Columns by name, and notes on those that have another name."""
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
    notes = []
    for wanted, others in _OTHER_NAMES.items():
        other = next((name for name in others if name in frame.columns), None)
        if wanted not in frame.columns and other is not None:
            frame = frame.rename(columns={other: wanted})
            notes.append(f"column {other} of {path.name} read as {wanted}")
    if "path" not in frame.columns:
        raise DatasetError(f"manifest: expected a column path in {path}, got {', '.join(frame.columns)}")
    return {str(name): frame[name].tolist() for name in frame.columns}, tuple(notes)


def _text(cell: Any) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


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


def _boxes(texts: dict[str, list[str]], ids: list[str]) -> list[tuple[float, float, float, float] | None]:
    """Face boxes from the columns x0, y0, x1, y1 in pixels; None where all four cells are empty."""
    present = [name for name in _BOX if name in texts]
    if not present:
        return [None] * len(ids)
    if len(present) < len(_BOX):
        raise DatasetError(
            f"manifest: expected the columns {', '.join(_BOX)} for boxes, got {', '.join(present)} only"
        )
    boxes: list[tuple[float, float, float, float] | None] = []
    bad = []
    for where, *cells in zip(ids, *(texts[name] for name in _BOX), strict=True):
        if all(cell.lower() in _EMPTY for cell in cells):
            boxes.append(None)
            continue
        try:
            x0, y0, x1, y1 = (float(cell) for cell in cells)
        except ValueError:
            x0 = x1 = y0 = y1 = math.nan
        if not (x1 > x0 and y1 > y0 and math.isfinite(x1 - x0) and math.isfinite(y1 - y0)):
            bad.append(f"{','.join(cells)} ({where})")
        boxes.append((x0, y0, x1, y1))
    if bad:
        raise DatasetError(
            f"manifest: expected boxes x0 < x1, y0 < y1 in pixels, got {len(bad)} others: {', '.join(bad[:5])}"
        )
    return boxes
