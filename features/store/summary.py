"""Summary of a store as plain values, and the tables that ``ig3d inspect`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..pose import ANGLES, store_degrees
from ..samples import Split
from ..values import Status
from .reader import CodeStore

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def summarise(store: CodeStore) -> dict[str, Any]:
    """Summarise a store: dataset, regressor, rows by split, class and status, and statistics of each block.

    Returns
    -------
    dict of JSON values
        ``rows``, ``status``, ``splits`` (split -> class -> number of rows), ``groups``, ``blocks`` (name -> width,
        unit, basis, min, mean, max, std over the rows with status ``ok``), ``pose_degrees`` (yaw, pitch, roll -> min,
        mean, max, std; empty without a pose), ``valence_arousal`` (number of rows with both), and the attributes of the
        store.
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
        "splits": splits,
        "groups": samples["group"][samples["group"] != ""].nunique(),
        "valence_arousal": int(has_va.sum()),
        "several_faces": int((store.column("face/count") > 1).sum()),
        "blocks": {name: _range(store, name) for name in store.blocks},
        "pose_degrees": _pose(store),
    }


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
        table.add_column(split, justify="right")
    for name in next(iter(splits.values()), {}):
        if name != "no label" or any(counts[name] for counts in splits.values()):
            table.add_row(name, *(str(counts[name]) for counts in splits.values()))
    table.add_row("rows", *(str(sum(counts.values())) for counts in splits.values()), style="bold")
    return table


def _range(store: CodeStore, name: str) -> dict[str, Any]:
    block = store.blocks[name]
    values = store.codes(name)[store.ok].astype(np.float64)
    return {
        "width": block.width,
        "unit": block.unit,
        "basis": block.basis,
        **_statistics(values),
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
    console.print(f"{summary['store']}: {summary['rows']} rows of {summary['dataset']} ({summary['root']})")
    console.print(
        f"regressor {regressor.get('name')} (version {regressor.get('version', '?')}), detector "
        f"{summary['detector'].get('name')}; written {summary['created']} by ig3d {summary['ig3d_version']}"
    )
    if summary["groups"]:
        console.print(f"{summary['groups']} groups (persons or videos)")
    if summary["valence_arousal"]:
        console.print(f"{summary['valence_arousal']} rows with valence and arousal")
    status = " · ".join(f"{name} {count}" for name, count in summary["status"].items() if count)
    console.print(f"status: {status}; images with several faces: {summary['several_faces']}")
    console.print(class_table(summary["splits"]))
    blocks = Table(
        "block", "width", "unit", "min", "mean", "max", "std", "basis", box=None, header_style="bold"
    )
    for name, block in summary["blocks"].items():
        blocks.add_row(name, str(block["width"]), block["unit"], *_figures(block), block["basis"])
    for angle, values in summary["pose_degrees"].items():
        blocks.add_row(angle, "1", "degrees", *_figures(values), "from pose")
    console.print(blocks)
    console.print(f"content sha256 {summary['content_sha256']}")


def _figures(values: dict[str, Any]) -> list[str]:
    return [f"{values[key]:.4g}" if key in values else "-" for key in ("min", "mean", "max", "std")]
