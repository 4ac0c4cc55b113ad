"""``manifest``: a CSV or Parquet table that lists images and what is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import DatasetError, LayoutError, number, require, some
from ...features.samples import SampleList
from ...features.tables import say_columns
from ..sources import parts_of
from . import DatasetOptions
from .files import listing, sample_id, size_of
from .table import COLUMNS, OTHER_NAMES, from_table, text_of


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
        paths = [text_of(cell) for cell in table["path"]]
        bad = [path for path in paths if not path or Path(path).is_absolute() or ".." in Path(path).parts]
        if bad:
            raise DatasetError(
                f"manifest: expected paths under the root, got {number(len(bad), 'other')} (empty, "
                f"absolute or leading out): {some([repr(path) for path in bad])}"
            )
        table.setdefault("id", [sample_id(path) for path in paths])
        unknown = [str(name) for name in table if name not in COLUMNS]
        if unknown:
            notes += (f"columns left unread: {', '.join(unknown)}",)
        sizes = [size_of(root / parts_of(path)[0]) for path in paths]
        return from_table(self.name, str(root), table, sizes, options, notes=notes)


def _locate(root: Path, given: str | None, layout: str) -> Path:
    candidates = [Path(given)] if given else [root / "manifest.csv", root / "manifest.parquet"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    wanted = given or "manifest.csv or manifest.parquet"
    raise LayoutError(
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
    for wanted, others in OTHER_NAMES.items():
        other = next((name for name in others if name in frame.columns), None)
        if wanted not in frame.columns and other is not None:
            frame = frame.rename(columns={other: wanted})
            notes.append(f"column {other} of {path.name} read as {wanted}")
    if "path" not in frame.columns:
        raise DatasetError(
            f"manifest: expected a column path in {path}, got {say_columns(list(frame.columns))}"
        )
    return {str(name): frame[name].tolist() for name in frame.columns}, tuple(notes)
