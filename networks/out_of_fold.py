"""``ig3d train-2d --out-of-fold K``: predictions of the train split by networks that were not trained on them.

A network is over-confident on its training rows. Therefore K more networks are trained, each without one fold of the
train rows, and each predicts its fold. Other rows are predicted by the network trained on all train rows. The file is
marked as ``out_of_fold``, so that a fusion can be fitted on its train rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import DatasetError, Terminated, UsageError, plural
from ..extract.runtime import exact_arithmetic
from ..features.content import hash_contents
from ..features.samples import Listing, Split
from ..learn.folds import folds_of, strata_of
from ..learn.training.loop import Fitted
from .checkpoint import check_place, check_replaceable, normalisation
from .fit import predict
from .images import Pictures
from .load import load_network
from .logits import run_network
from .options import LogitsConfig, NetworkSpec
from .plan import Plan, hold_out
from .train import Prepared, TrainResult, describe_epoch, prepare, train_2d, train_one
from .train_config import TrainConfig
from .written import write_npz


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """Summary of the file that was written.

    Attributes
    ----------
    path : Path
    rows : int
        Rows of the train split, predicted by networks that were not trained on them.
    others : int
        Other rows, predicted by the network trained on all train rows.
    notes : tuple of str
    """

    path: Path
    rows: int
    others: int
    notes: tuple[str, ...]


def train_out_of_fold(
    listing: Listing, config: TrainConfig, out: str | Path, *, folds: int, progress: bool = False
) -> tuple[TrainResult, OutOfFold]:
    """Train a 2D network, and write predictions out of fold to ``out`` with the suffix ``.npz``.

    Parameters and errors are those of :func:`ig3d.networks.train.train_2d` and :func:`write_out_of_fold`. The number of
    folds is checked before the training. An earlier file of predictions is deleted when its network is replaced.
    """
    predictions = Path(out).with_suffix(".npz")
    check_folds(folds)
    check_place(out, suffix=".safetensors")
    check_place(predictions, suffix=".npz")
    check_replaceable(out)
    prepared = prepare(listing, config, progress=progress)
    _choose_folds(listing, prepared, config, folds)
    result = train_2d(listing, config, out, prepared=prepared, progress=progress)
    predictions.unlink(missing_ok=True)
    try:
        made = write_out_of_fold(
            listing, config, result.path, predictions, folds=folds, prepared=prepared, progress=progress
        )
    except (KeyboardInterrupt, Terminated) as interruption:
        interruption.add_note(
            f"{result.path} is complete, {predictions} is not written; ig3d logits runs the network, or repeat the "
            "command, which trains all networks again"
        )
        raise
    return result, made


def write_out_of_fold(
    listing: Listing,
    config: TrainConfig,
    network: str | Path,
    out: str | Path,
    *,
    folds: int,
    prepared: Prepared | None = None,
    progress: bool = False,
) -> OutOfFold:
    """Write predictions of every row by a network that was not trained on it.

    Parameters
    ----------
    listing, config : those of the training of ``network``
    network : checkpoint of :func:`ig3d.networks.train.train_2d`, for rows outside of the train split
    out : path of the ``.npz``: ``ids``, ``logits`` and ``classes`` (or ``va``), ``fold`` (-1 for the other rows), and
        ``out_of_fold``
    folds : int
        Number of folds; stratified, without dividing groups or copies of an image.
    prepared : rows and images of the training, optional

    Raises
    ------
    UsageError : ``folds`` is below two, the path cannot be written, or the network from which the training starts was
        trained on train rows.
    DatasetError : fewer independent train rows than folds.
    ModelError : a training diverged, or the checkpoint cannot be read.
    """
    check_folds(folds)
    check_place(out, suffix=".npz")
    prepared = prepared or prepare(listing, config, progress=progress)
    plan, pictures, device, crops = prepared.plan, prepared.pictures, prepared.device, prepared.crops
    train_rows, fold = _choose_folds(listing, prepared, config, folds)
    predicted, notes = np.empty((len(train_rows), len(plan.columns)), np.float32), []
    for number in range(folds):
        part = _without(listing, plan, train_rows, fold != number, config)
        seeded = replace(config, seed=config.seed + 1 + number)
        fitted = train_one(
            part, pictures, seeded, device=device, progress=progress, title=f"fold {number + 1} of {folds}"
        )
        predicted[fold == number] = _predict(fitted, pictures, train_rows[fold == number], device)
        notes.append(f"fold {number + 1}: {describe_epoch(fitted.best)} on its validation rows")
    if plan.task == "va":
        predicted = np.clip(predicted, -1, 1)
    others = np.setdiff1d(np.arange(len(listing)), train_rows)
    with exact_arithmetic():
        full = load_network(NetworkSpec(str(network)), device=device)
        run = run_network(
            listing,
            full,
            others,
            LogitsConfig(jobs=config.jobs),  # leaves out copies of its training images
            crops,
            spool=None,
            progress=progress,
        )
    read = np.array([picture.row for picture in run.pictures if not picture.problem], np.int64)
    rows, values = (
        np.concatenate([train_rows, read]),
        np.concatenate([predicted, run.va if plan.task == "va" else run.logits]),
    )
    order = np.argsort(rows)
    write_npz(
        out,
        {
            "ids": listing.samples["id"].to_numpy(dtype="U")[rows[order]],
            **_named(plan, values[order]),
            "fold": np.concatenate([fold, np.full(len(read), -1)])[order].astype(np.int16),
            "out_of_fold": np.array(True),
            "made_by": np.array(json.dumps({**full.identity, **crops.identity}, sort_keys=True)),
        },
    )
    return OutOfFold(Path(out), len(train_rows), len(read), tuple(notes))


def check_folds(folds: int) -> None:
    """Refuse less than two folds.

    Raises
    ------
    UsageError : ``folds`` is below two.
    """
    if folds < 2:
        raise UsageError(f"out-of-fold is {folds}; give 2 folds or more")


def _choose_folds(
    listing: Listing, prepared: Prepared, config: TrainConfig, folds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the train split, ascending, and their folds."""
    plan = prepared.plan
    rows = np.sort(np.concatenate([plan.train, plan.validation]))
    rows = rows[listing.splits[rows] == Split.train]
    if before := prepared.trained_before(rows):
        raise UsageError(
            f"out of fold: {config.weights} was trained on the images of {before} of {len(rows)} train rows, so that "
            "their predictions would not be out of fold; leave out --weights or --out-of-fold"
        )
    return rows, _folds(listing, plan, rows, prepared.pictures, folds, config.seed)


def _named(plan: Plan, values: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs under the keys of prediction files."""
    if plan.task == "va":
        return {"va": values, "columns": np.array(plan.columns)}
    return {"logits": values, "classes": np.array(plan.columns)}


def _folds(
    listing: Listing, plan: Plan, rows: np.ndarray, pictures: Pictures, folds: int, seed: int
) -> np.ndarray:
    """(n,) fold of each row; a group, and copies of an image, are in one fold."""
    kept = np.isin(pictures.rows, rows)
    order = np.argsort(pictures.rows[kept])
    content = hash_contents(pictures.digests[kept][order])
    group = [group or f"\0{row}" for row, group in listing.samples["group"].iloc[rows].items()]
    parts = tied([np.asarray(group), content])
    count = len(np.unique(parts))
    if count < folds:
        raise DatasetError(
            f"{listing.dataset}: the train rows have only {plural(count, 'independent group')} for {folds} folds; use "
            "fewer folds"
        )
    return folds_of(strata_of(plan.targets[rows], plan.task), parts, folds, seed)


def tied(keys: list[np.ndarray]) -> np.ndarray:
    """(n,) int number of the part of each row; rows that share any key are in one part.

    >>> tied([np.array([0, 0, 1, 2]), np.array([5, 6, 6, 7])]).tolist()
    [0, 0, 0, 1]
    """
    n, first, ends = len(keys[0]), len(keys[0]), []
    for key in keys:
        _, number = np.unique(key, return_inverse=True)
        ends.append(first + number)
        first += int(number.max()) + 1
    starts = np.tile(np.arange(n), len(keys))
    edges = coo_array((np.ones(len(starts)), (starts, np.concatenate(ends))), shape=(first, first))
    return np.unique(connected_components(edges, directed=False)[1][:n], return_inverse=True)[1]


def _without(
    listing: Listing, plan: Plan, train_rows: np.ndarray, kept: np.ndarray, config: TrainConfig
) -> Plan:
    """Plan of a network without one fold, which is used neither for training nor to choose the epoch."""
    rest = train_rows[kept]
    on_val = listing.splits[plan.validation] != Split.train
    if on_val.all():
        return replace(plan, train=rest)
    strata = strata_of(plan.targets, plan.task)
    groups = listing.samples["group"].tolist()
    train, validation = hold_out(rest, strata, groups, config.validation, config.seed)
    return replace(plan, train=train, validation=validation)


def _predict(fitted: Fitted, pictures: Pictures, rows: np.ndarray, device: torch.device) -> np.ndarray:
    """(n, k) float32 outputs of the network of a fold for decoded images."""
    index_of = {int(row): index for index, row in enumerate(pictures.rows)}
    index = torch.tensor([index_of[int(row)] for row in rows])
    module = fitted.model.to(device)
    mean, std = normalisation(module)
    parts = [
        predict(module, pictures.pixels[part], mean=mean, std=std, device=device) for part in index.split(64)
    ]
    return np.concatenate(parts)
