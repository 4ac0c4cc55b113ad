"""Summary of a store as plain values, and the tables that ``ig3d inspect`` prints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import listed, plural
from ..pose import ANGLES, store_degrees
from ..samples import Split
from ..values import Status
from .reader import CodeStore

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Number of reasons of rows without codes that are listed.
_REASONS = 5
# Columns of blocks up to this width are summarised apart if they have names, such as scale and tx, ty of a camera.
_SMALL = 3


def summarise(store: CodeStore) -> dict[str, Any]:
    """Summarise a store: dataset, regressor, rows by split, class and status, and statistics of each block.

    Returns
    -------
    dict of JSON values
        ``rows``, ``status``, ``reasons`` (see :func:`reasons`), ``splits`` (split -> class -> number of rows),
        ``groups``, ``blocks`` (name -> width, unit, basis, min, mean, max, std over the rows with status ``ok``, and
        ``columns``: the same for each column of a small block), ``pose_degrees`` (yaw, pitch, roll -> min, mean, max,
        std; empty without a pose), ``valence_arousal`` (number of rows with both), and the attributes of the store.
    """
    samples, info, statuses = store.samples, store.info, store.status
    split, label = (samples[name].cat.codes.to_numpy() for name in ("split", "label"))
    splits = count_classes(split, label, info.classes)
    has_va = samples["valence"].notna() & samples["arousal"].notna()
    return {
        "store": str(store.path),
        "rows": len(store),
        "dataset": info.dataset,
        "root": info.root,
        "created": info.created,
        "ig3d_version": info.ig3d_version,
        "content_sha256": store.content_sha256,
        "classes": list(info.classes),
        "regressor": info.regressor,
        "detector": info.detector,
        "crop": info.crop,
        "status": {status.name: int((statuses == status).sum()) for status in Status if status},
        "reasons": reasons(store),
        "splits": splits,
        "groups": samples["group"][samples["group"] != ""].nunique(),
        "valence_arousal": int(has_va.sum()),
        "several_faces": samples["path"][store.column("face/count") > 1].nunique(),
        "blocks": {name: _range(store, name) for name in store.blocks},
        "pose_degrees": _pose(store),
    }


def reasons(store: CodeStore) -> list[str]:
    """Why rows have no codes: status, number of rows, the first ids and the first reason; the most common ones first.

    Reasons that differ only in numbers are counted together.
    """
    status, messages, ids = (store.column(f"sample/{name}") for name in ("status", "message", "id"))
    rows_of: dict[tuple[int, str], list[int]] = {}
    for row in np.flatnonzero(status != Status.ok).tolist():
        rows_of.setdefault((int(status[row]), re.sub(r"\d+", "N", messages[row])), []).append(row)
    most_common = sorted(rows_of.items(), key=lambda item: -len(item[1]))
    lines = []
    for (code, _), rows in most_common[:_REASONS]:
        examples = listed([ids[row] for row in rows[:3]] + [""] * (len(rows) - 3), 3)
        reason = messages[rows[0]] or "no reason"
        lines.append(f"{Status(code).name}: {plural(len(rows), 'row')} ({examples}): {reason}")
    if (others := len(most_common) - _REASONS) > 0:
        lines.append(f"and {plural(others, 'other reason')}; ig3d export --csv lists the reason of every row")
    return lines


def count_classes(
    splits: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]
) -> dict[str, dict[str, int]]:
    """Split -> class -> number of rows, for splits with rows; rows without a class are counted as ``no label``.

    Parameters
    ----------
    splits : (n,) codes of :class:`~.samples.Split`
    labels : (n,) indices into ``classes``, -1 if missing
    """
    result = {}
    for split in Split:
        rows = splits == split
        if rows.any():
            columns = np.where(labels[rows] < 0, len(classes), labels[rows])
            counts = np.bincount(columns, minlength=len(classes) + 1).tolist()
            result[split.name] = dict(zip((*classes, "no label"), counts, strict=True))
    return result


def class_table(splits: dict[str, dict[str, int]]) -> Table:
    """Table of the counts of :func:`count_classes`, one line per class."""
    from rich.table import Table

    table = Table("class", box=None, header_style="bold")
    for split in splits:
        table.add_column("no split" if split == Split.none.name else split, justify="right")
    for name in next(iter(splits.values()), {}):
        if name != "no label" or any(counts[name] for counts in splits.values()):
            table.add_row(name, *(str(counts[name]) for counts in splits.values()))
    table.add_row("rows", *(str(sum(counts.values())) for counts in splits.values()), style="bold")
    return table


def _range(store: CodeStore, name: str) -> dict[str, Any]:
    block = store.blocks[name]
    values = store.codes(name)[store.ok].astype(np.float64)
    apart = block.columns if block.width <= _SMALL and block.unit != "rad" else ()
    return {
        "width": block.width,
        "unit": block.unit,
        "basis": block.basis,
        **_statistics(values),
        "columns": {column: _statistics(values[:, k]) for k, column in enumerate(apart)},
        "description": block.description,
    }


def _pose(store: CodeStore) -> dict[str, dict[str, float]]:
    """Angle -> statistics over the ok rows, degrees; empty if the store has no pose that can be converted."""
    degrees = store_degrees(store)
    if degrees is None:
        return {}
    return {angle: _statistics(values) for angle, values in zip(ANGLES, degrees[store.ok].T, strict=True)}


def _statistics(values: np.ndarray) -> dict[str, float]:
    if not values.size:
        return {}
    return {
        "min": float(values.min()),
        "mean": float(values.mean()),
        "max": float(values.max()),
        "std": float(values.std()),
    }


def print_summary(summary: dict[str, Any], console: Console) -> None:
    """Print the result of :func:`summarise`, as ``ig3d inspect`` does."""
    from rich.table import Table

    regressor = summary["regressor"]
    console.print(
        f"{summary['store']}: {plural(summary['rows'], 'row')} of {summary['dataset']} ({summary['root']})"
    )
    console.print(
        f"regressor {regressor.get('name')} (version {regressor.get('version', '?')}), detector "
        f"{summary['detector'].get('name')}; written {summary['created']} by ig3d {summary['ig3d_version']}"
    )
    if summary["groups"]:
        console.print(f"{plural(summary['groups'], 'group')} (persons or videos)")
    if summary["valence_arousal"]:
        console.print(f"{plural(summary['valence_arousal'], 'row')} with valence and arousal")
    status = " · ".join(f"{name} {count}" for name, count in summary["status"].items() if count)
    console.print(f"status: {status}; images with several faces: {summary['several_faces']}")
    for line in summary["reasons"]:
        console.print(line)
    console.print(class_table(summary["splits"]))
    blocks = Table(
        "block", "width", "unit", "min", "mean", "max", "std", "basis", box=None, header_style="bold"
    )
    for name, block in summary["blocks"].items():
        figures = [""] * 4 if block["columns"] else _figures(block)
        blocks.add_row(name, str(block["width"]), block["unit"], *figures, block["basis"])
        for column, values in block["columns"].items():
            blocks.add_row(f"  {column}", "1", block["unit"], *_figures(values), "")
    for angle, values in summary["pose_degrees"].items():
        blocks.add_row(angle, "1", "degrees", *_figures(values), "from pose")
    console.print(blocks)
    console.print(f"content sha256 {summary['content_sha256']}")


def _figures(values: dict[str, Any]) -> list[str]:
    return [f"{values[key]:.4g}" if key in values else "-" for key in ("min", "mean", "max", "std")]
