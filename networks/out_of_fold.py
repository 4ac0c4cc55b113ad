"""``ig3d train-2d --out-of-fold K``: honest predictions of the train split.

A network is over-confident on what it was trained on. So K more networks are trained, each without one fold of the
train rows, and each predicts the fold that it never saw; every other row is predicted by the network trained on all
of them. The file says ``out_of_fold``: such train rows can fit a fusion.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import DatasetError, UsageError
from ..extract.engine import exact_arithmetic
from ..features.device import choose_device
from ..features.samples import Listing, Split
from ..learn.protocol.folds import folds_of, strata_of
from .checkpoint import check_place, hash_contents, normalisation
from .crop import choose_crops
from .fit import Fitted, predict
from .images import Pictures
from .load import NetworkSpec, load_network
from .logits import LogitsConfig, run_network
from .plan import Plan, hold_out, plan_training
from .train import TrainConfig, describe_epoch, read_planned, train_one
from .written import write_npz


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """What was written.

    Attributes
    ----------
    path : Path
    rows : int
        Rows of the train split that a network predicted which had not seen them.
    others : int
        Rows that the network trained on the whole train split predicted.
    notes : tuple of str
    """

    path: Path
    rows: int
    others: int
    notes: tuple[str, ...]


def write_out_of_fold(
    listing: Listing,
    config: TrainConfig,
    network: str | Path,
    out: str | Path,
    *,
    folds: int,
    progress: bool = False,
) -> OutOfFold:
    """Write predictions of every row by a network that did not learn from it.

    Parameters
    ----------
    samples, config : as the network was trained with
    network : checkpoint of :func:`ig3d.networks.train.train_2d`, for the rows outside of the train split
    out : path of the ``.npz``: ``ids``, ``logits`` and ``classes`` (or ``va``), ``fold`` (-1 for the other rows), and
        ``out_of_fold``
    folds : int
        Stratified; groups are kept whole, and so are images of the same content.

    Raises
    ------
    UsageError : less than two folds, or no place for the file.
    DatasetError : fewer independent train rows than folds.
    ModelError : a training diverged, or the checkpoint cannot be read.
    """
    check_folds(folds)
    check_place(out, suffix=".npz")
    device = choose_device(config.device)
    plan = plan_training(listing, task=config.task, fraction=config.validation, seed=config.seed)
    plan, pictures = read_planned(listing, plan, config, progress=progress)
    mine = np.sort(np.concatenate([plan.train, plan.validation]))
    mine = mine[listing.splits[mine] == Split.train]
    fold = _folds(listing, plan, mine, pictures, folds, config.seed)
    said, notes = np.empty((len(mine), len(plan.columns)), np.float32), []
    for number in range(folds):
        part = _without(listing, plan, mine, fold != number, config)
        seeded = replace(config, seed=config.seed + 1 + number)
        fitted = train_one(
            part, pictures, seeded, device=device, progress=progress, said=f"fold {number + 1} of {folds}"
        )
        said[fold == number] = _predict(fitted, pictures, mine[fold == number], device)
        notes.append(f"fold {number + 1}: {describe_epoch(fitted.best)} on its validation rows")
    if plan.task == "va":
        said = np.clip(said, -1, 1)
    others = np.setdiff1d(np.arange(len(listing)), mine)
    crops = choose_crops(listing)
    with exact_arithmetic(device):
        whole = load_network(NetworkSpec(str(network)), device=device)
        run = run_network(
            listing,
            whole,
            others,
            LogitsConfig(jobs=config.jobs),  # leaves out copies of images that the network was trained on
            crops,
            spool=None,
            progress=progress,
        )
    read = np.array([picture.row for picture in run.pictures if not picture.problem], np.int64)
    rows, values = (
        np.concatenate([mine, read]),
        np.concatenate([said, run.va if plan.task == "va" else run.logits]),
    )
    order = np.argsort(rows)
    write_npz(
        out,
        {
            "ids": listing.samples["id"].to_numpy(dtype="U")[rows[order]],
            **_named(plan, values[order]),
            "fold": np.concatenate([fold, np.full(len(read), -1)])[order].astype(np.int16),
            "out_of_fold": np.array(True),
            "made_by": np.array(json.dumps({**whole.identity, **crops.identity}, sort_keys=True)),
        },
    )
    return OutOfFold(Path(out), len(mine), len(read), tuple(notes))


def check_folds(folds: int) -> None:
    """Refuse a number of folds that leaves nothing to train on.

    Raises
    ------
    UsageError : less than two.
    """
    if folds < 2:
        raise UsageError(f"out of fold: expected 2 folds or more, got {folds}")


def _named(plan: Plan, values: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs under the keys that predictions are read by."""
    if plan.task == "va":
        return {"va": values, "columns": np.array(plan.columns)}
    return {"logits": values, "classes": np.array(plan.columns)}


def _folds(
    listing: Listing, plan: Plan, rows: np.ndarray, pictures: Pictures, folds: int, seed: int
) -> np.ndarray:
    """(n,) fold of each row: rows of one group, or of one content, are in one fold."""
    kept = np.isin(pictures.rows, rows)
    order = np.argsort(pictures.rows[kept])
    content = hash_contents(pictures.digests[kept][order])
    group = [group or f"\0{row}" for row, group in listing.samples["group"].iloc[rows].items()]
    parts = tied([np.asarray(group), content])
    count = len(np.unique(parts))
    if count < folds:
        raise DatasetError(
            f"{listing.dataset}: expected {folds} independent parts of the train rows, one for each fold, got {count}; "
            "use fewer folds"
        )
    return folds_of(strata_of(plan.targets[rows], plan.task), parts, folds, seed)


def tied(keys: list[np.ndarray]) -> np.ndarray:
    """(n,) int number of the part each row belongs to: rows that share any of the keys are in one part.

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


def _without(listing: Listing, plan: Plan, mine: np.ndarray, kept: np.ndarray, config: TrainConfig) -> Plan:
    """The plan of one fold's network: it neither learns from the fold nor chooses its epoch by it."""
    rest = mine[kept]
    on_val = listing.splits[plan.validation] != Split.train
    if on_val.all():
        return replace(plan, train=rest)
    strata = strata_of(plan.targets, plan.task)
    groups = listing.samples["group"].tolist()
    train, validation = hold_out(rest, strata, groups, config.validation, config.seed)
    return replace(plan, train=train, validation=validation)


def _predict(fitted: Fitted, pictures: Pictures, rows: np.ndarray, device: torch.device) -> np.ndarray:
    """(n, k) float32 outputs of a fold's network for pictures that were decoded already."""
    place = {int(row): index for index, row in enumerate(pictures.rows)}
    index = torch.tensor([place[int(row)] for row in rows])
    module = fitted.module.to(device)
    mean, std = normalisation(module)
    parts = [
        predict(module, pictures.pixels[part], mean=mean, std=std, device=device) for part in index.split(64)
    ]
    return np.concatenate(parts)
