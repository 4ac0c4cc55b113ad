"""What a person wants to know of a store, as plain values for printing and for scripts."""

from __future__ import annotations

from typing import Any

import numpy as np

from .store import CodeStore
from .values import Split, Status


def summarise(store: CodeStore) -> dict[str, Any]:
    """Dataset, regressor, rows by split, class and status, and the range of each block over its ok rows.

    Returns
    -------
    dict of JSON values: ``rows``, ``status``, ``splits`` (split -> class -> rows), ``groups``, ``blocks`` (name ->
    width, unit, basis, min, mean, max, std), ``valence_arousal`` (rows with both), and the store's attributes.
    """
    samples, info = store.samples, store.info
    names = (*info.classes, "no label")
    splits = {}
    for split in Split:
        here = samples.split == split
        if here.any():
            counts = np.bincount(np.where(samples.label[here] < 0, len(info.classes), samples.label[here]))
            splits[split.name] = {
                name: int(counts[label]) if label < len(counts) else 0 for label, name in enumerate(names)
            }
    known = np.isfinite(samples.valence) & np.isfinite(samples.arousal)
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
        "status": {status.name: int((samples.status == status).sum()) for status in Status if status},
        "splits": splits,
        "groups": len(np.unique(samples.group[samples.group != ""])),
        "valence_arousal": int(known.sum()),
        "several_faces": int((store.faces.count > 1).sum()),
        "blocks": {name: _range(store, name) for name in store.blocks},
    }


def _range(store: CodeStore, name: str) -> dict[str, Any]:
    block = store.blocks[name]
    found: dict[str, Any] = {"width": block.width, "unit": block.unit, "basis": block.basis}
    values = store.codes(name)[store.samples.ok].astype(np.float64)
    if values.size:
        found |= {
            "min": float(values.min()),
            "mean": float(values.mean()),
            "max": float(values.max()),
            "std": float(values.std()),
        }
    return found | {"description": block.description}
