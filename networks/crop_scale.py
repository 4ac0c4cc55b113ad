"""Choose the scale of the face crop by the loss of the network on labelled rows that are not reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import DatasetError, UsageError, none_of, plural
from ..features.predictions import PROBABILITY_FLOOR, log_softmax, scores_of_outputs
from ..features.samples import Listing, Split
from .crop import Crops
from .images import batched, normalise, read_pictures
from .load import UserNetwork

SCALES = (0.8, 1.0, 1.25, 1.5, 2.0)
# Largest number of rows for the choice; of more rows, a random choice that does not divide groups.
MAX_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class ScaleChoice:
    """The chosen scale, and the losses by which it was chosen.

    Attributes
    ----------
    scale : float
    metric : ``log_loss``, or ``rmse`` of valence and arousal for a network without classes
    losses : scale -> mean loss over the rows
    split : str
        Split of the rows.
    rows : int
        Number of rows.
    """

    scale: float
    metric: str
    losses: dict[float, float]
    split: str
    rows: int

    @property
    def record(self) -> dict[str, Any]:
        """JSON record, for ``made_by``."""
        losses = {f"{scale:g}": round(loss, 6) for scale, loss in self.losses.items()}
        return {"metric": self.metric, "split": self.split, "rows": self.rows, "losses": losses}

    @property
    def note(self) -> str:
        """One line for the user."""
        losses = ", ".join(f"{scale:g}: {loss:.4f}" for scale, loss in self.losses.items())
        return (
            f"crop scale {self.scale:g}: smallest {self.metric.replace('_', ' ')} on {plural(self.rows, 'row')} of the "
            f"{self.split} split ({losses}); do not report these rows"
        )


def choose_scale(
    listing: Listing,
    network: UserNetwork,
    crops: Crops,
    *,
    batch_size: int = 64,
    jobs: int | None = None,
    advance: Callable[[int, int], object] | None = None,
) -> ScaleChoice:
    """Choose the scale of :data:`SCALES` with the smallest loss of the outputs of the network.

    Parameters
    ----------
    listing : Listing
    network : UserNetwork
    crops : Crops
    batch_size : int
    jobs : int, optional
        Reading threads.
    advance : function ``(done, total)``, optional
        Called with the number of rows since its last call, and the number of all rows.

    Raises
    ------
    UsageError : the images have no face boxes, or no train or val row that is not reported has a label and a box.
    DatasetError : no image of these rows can be read.
    """
    if crops.source == "whole":
        raise UsageError(
            "crop-scale: auto needs face boxes, and these images have none; pass --crop STORE, or leave it out"
        )
    truth, labelled = truth_of(listing, network)
    rows, split = rows_to_choose_by(listing, labelled, np.isfinite(crops.boxes).all(axis=1))
    boxes = np.stack([crops.scaled(scale).boxes for scale in SCALES], axis=1)
    read, outputs = [], []
    pictures = read_pictures(listing, rows, view=network.input, boxes=boxes, jobs=jobs)
    for batch in batched(pictures, max(1, batch_size // len(SCALES))):
        pixels = [picture.pixels.transpose(0, 3, 1, 2) for picture in batch if picture.pixels is not None]
        if pixels:
            images = torch.from_numpy(np.concatenate(pixels)).to(network.device)
            result = network(normalise(images, network.input.mean, network.input.std))
            values = (
                result.logits if result.va is None or result.logits is not None else result.va.clamp(-1, 1)
            )
            assert values is not None  # a network gives one of them
            outputs.append(values.cpu().numpy().reshape(len(pixels), len(SCALES), -1))
        read += [picture.row for picture in batch if picture.pixels is not None]
        if advance is not None:
            advance(len(batch), len(rows))
    if not read:
        raise DatasetError(
            f"{listing.dataset}: crop-scale auto found no readable image of "
            f"{plural(len(rows), f'{split} row')}"
        )
    metric, losses = _losses(np.concatenate(outputs), truth[read], classes=bool(network.columns.logits))
    by_scale = dict(zip(SCALES, losses.tolist(), strict=True))
    # on ties, the scale nearest to 1
    best = min(SCALES, key=lambda scale: (by_scale[scale], abs(np.log(scale))))
    return ScaleChoice(best, metric, by_scale, split, len(read))


def truth_of(listing: Listing, network: UserNetwork) -> tuple[np.ndarray, np.ndarray]:
    """Truth of each sample, for the columns of the network.

    Returns
    -------
    truth : (n,) int64 column of the class, -1 if missing or without a column; or (n, 2) float64 valence and arousal for
        a network without classes
    labelled : (n,) bool, samples with a truth
    """
    if not network.columns.logits:
        values = listing.samples[["valence", "arousal"]].to_numpy(np.float64)
        return values, np.asarray(np.isfinite(values).all(axis=1))
    column = {name: index for index, name in enumerate(network.columns.classes)}
    translated = np.array([*(column.get(name, -1) for name in listing.classes), -1])
    truth = translated[listing.labels]
    return truth, np.asarray(truth >= 0)


def rows_to_choose_by(listing: Listing, labelled: np.ndarray, boxed: np.ndarray) -> tuple[np.ndarray, str]:
    """Rows by which the scale is chosen, and their split: val if it is not reported, else train.

    Groups with a row in a reported split are left out. Of more than :data:`MAX_ROWS` rows, groups are drawn with a
    fixed seed.

    Parameters
    ----------
    listing : Listing
    labelled, boxed : (n,) bool
        Rows with truth, and rows with a face box.

    Raises
    ------
    UsageError : there are no such rows.
    """
    splits = listing.splits
    reported = np.isin(splits, [Split.test, Split.none])
    if not (labelled & (splits == Split.test)).any():
        reported |= splits == Split.val  # without a test split, ig3d fuse reports val
    names = listing.samples["group"].to_numpy(dtype="U")
    in_reported_group = (names != "") & np.isin(names, names[reported])
    usable = labelled & boxed & ~reported & ~in_reported_group
    for split in (Split.val, Split.train):
        rows = np.flatnonzero(usable & (splits == split))
        if len(rows):
            break
    else:
        raise UsageError(
            f"crop-scale: auto needs labelled rows with a face box in a train or val split that is not reported, "
            f"and {none_of(len(listing), 'row', 'is')} one; pass a number, or separate train or val rows (ig3d split)"
        )
    if len(rows) > MAX_ROWS:
        # The prefixes distinguish the name of a group from the number of a row without a group.
        keys = np.where(names[rows] != "", np.char.add("g", names[rows]), np.char.add("i", rows.astype(str)))
        groups, group = np.unique(keys, return_inverse=True)
        order = np.random.default_rng(0).permutation(len(groups))
        cumulative = np.bincount(group)[order].cumsum()
        rows = rows[np.isin(group, order[: max(1, int((cumulative <= MAX_ROWS).sum()))])]
    return rows, split.name


def _losses(outputs: np.ndarray, truth: np.ndarray, *, classes: bool) -> tuple[str, np.ndarray]:
    """Name of the loss, and its mean (s,) for each scale; ``outputs`` is (n, s, k), ``truth`` that of the n rows."""
    n, s, k = outputs.shape
    if not classes:
        return "rmse", np.sqrt(((outputs - truth[:, None]) ** 2).mean(axis=(0, 2)))
    scores = scores_of_outputs(outputs.reshape(n * s, k), Path("outputs")).reshape(n, s, k)
    log_p = np.take_along_axis(log_softmax(scores), truth[:, None, None], axis=2)[..., 0]
    return "log_loss", -np.maximum(log_p, np.log(PROBABILITY_FLOOR)).mean(axis=0)
