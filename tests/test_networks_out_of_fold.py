"""Out-of-fold predictions: no row is predicted by a network that saw it, or its copy, or its group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from listed import samples_of, with_samples
from made_up_networks import pictures

from ig3d.errors import DatasetError, UsageError
from ig3d.features.predictions import load_predictions
from ig3d.features.samples import Listing, Split
from ig3d.learn.training.loop import Fitted
from ig3d.learn.training.state import Epoch
from ig3d.networks import out_of_fold, train
from ig3d.networks.augment import Augmentation
from ig3d.networks.out_of_fold import tied, train_out_of_fold, write_out_of_fold
from ig3d.networks.plan import Plan
from ig3d.networks.train import train_2d
from ig3d.networks.train_config import TrainConfig

TINY = TrainConfig(network="test_byobnet", size=32, epochs=1, batch_size=8, device="cpu", jobs=1)
COPIES = {3: 0, 9: 6}  # rows that hold the image of another
GROUPS = {1: "p", 12: "p", 13: "p"}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Listing:
    """30 pictures: 24 train, 6 test, of which one is a copy of a train picture."""
    listed = pictures(tmp_path_factory.mktemp("pictures"), 30)
    rows = [
        replace(
            sample,
            split=Split.train if row < 24 else Split.test,
            path=samples_of(listed)[COPIES.get(row, 5 if row == 25 else row)].path,
            group=GROUPS.get(row, ""),
            label=row // 2 % 3,
            valence=(row % 7 - 3) / 4,
            arousal=(row % 5 - 2) / 4,
        )
        for row, sample in enumerate(samples_of(listed))
    ]
    return with_samples(listed, tuple(rows))


@pytest.fixture(scope="module")
def trained(samples: Listing, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_2d(samples, TINY, tmp_path_factory.mktemp("net") / "net.safetensors").path


class Constant(torch.nn.Module):
    """Network whose output is the number of its fold."""

    def __init__(self, fold: int) -> None:
        super().__init__()
        self.fold = fold
        self.pretrained_cfg = timm.get_pretrained_cfg("test_byobnet").to_dict()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x), 3), float(self.fold))


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that the folds' networks are trained with, which say the number of their plan."""
    seen: list[Plan] = []

    def train_one(plan: Plan, *unused: Any, **named: Any) -> Fitted:
        seen.append(plan)
        epoch = Epoch(1, 0.0, {}, 0.0)
        return Fitted(Constant(len(seen) - 1), epoch, (epoch,))

    monkeypatch.setattr(out_of_fold, "train_one", train_one)
    return seen


def test_every_train_row_is_predicted_by_a_network_that_never_saw_it(
    samples: Listing, trained: Path, plans: list[Plan], tmp_path: Path
) -> None:
    result = write_out_of_fold(samples, TINY, trained, tmp_path / "x.npz", folds=4)
    with np.load(tmp_path / "x.npz") as file:
        arrays = {name: file[name] for name in file.files}
    assert bool(arrays["out_of_fold"]) and arrays["out_of_fold"].shape == ()
    # the copy of a train picture among the test rows is left out, as the network was trained on it
    ids = [sample.id for row, sample in enumerate(samples_of(samples)) if row != 25]
    assert arrays["ids"].tolist() == ids and (result.rows, result.others) == (24, 5)
    fold = dict(zip(arrays["ids"].tolist(), arrays["fold"].tolist(), strict=True))
    assert [fold[name] for name in ids[24:]] == [-1] * 5
    predicted = dict(zip(ids, arrays["logits"][:, 0].tolist(), strict=True))
    contents = {row: COPIES.get(row, row) for row in range(24)}
    for row in range(24):
        name = f"{row:02d}"
        assert predicted[name] == fold[name]
        learnt = {*plans[fold[name]].train.tolist(), *plans[fold[name]].validation.tolist()}
        assert contents[row] not in {contents[other] for other in learnt}, "a copy was learnt from"
        assert not GROUPS.get(row) or not {1, 12, 13} & learnt, "its group was learnt from"
    for number, plan in enumerate(plans):
        assert len(set(plan.train) & set(plan.validation)) == 0 and len(plan.validation)
        left = [row for row in range(24) if fold[f"{row:02d}"] == number]
        assert sorted([*plan.train, *plan.validation, *left]) == list(range(24))
    sizes = np.bincount([value for value in fold.values() if value >= 0])
    assert len(sizes) == 4 and sizes.min() >= 4
    assert load_predictions(tmp_path / "x.npz").columns == samples.classes


def test_the_val_split_chooses_the_epochs_where_there_is_one(
    samples: Listing, trained: Path, plans: list[Plan], tmp_path: Path
) -> None:
    split = [Split.val if 18 <= row < 24 else sample.split for row, sample in enumerate(samples_of(samples))]
    changed = tuple(
        replace(sample, split=part) for sample, part in zip(samples_of(samples), split, strict=True)
    )
    write_out_of_fold(with_samples(samples, changed), TINY, trained, tmp_path / "x.npz", folds=2)
    assert [plan.validation.tolist() for plan in plans] == [list(range(18, 24))] * 2
    assert sorted([*plans[0].train, *plans[1].train]) == list(range(18))


def test_networks_are_trained_and_valence_arousal_stays_in_range(samples: Listing, tmp_path: Path) -> None:
    config = replace(TINY, task="va")
    whole = train_2d(samples, config, tmp_path / "net.safetensors").path
    result = write_out_of_fold(samples, config, whole, tmp_path / "x.npz", folds=2)
    read = load_predictions(tmp_path / "x.npz")
    assert read.kind == "va" and np.abs(read.values).max() <= 1 and len(read) == result.rows + result.others
    first = (tmp_path / "x.npz").read_bytes()
    write_out_of_fold(samples, config, whole, tmp_path / "x.npz", folds=2)
    assert (tmp_path / "x.npz").read_bytes() == first


def test_the_program_writes_both_files(ig3d: Callable[..., Any], samples: Listing, tmp_path: Path) -> None:
    for name in ("happy", "sad"):
        pictures(tmp_path / "images" / name, 12)
    out = tmp_path / "net.safetensors"
    options = ("--network", "test_byobnet", "--size", 32, "--epochs", 1, "--batch-size", 8, "--device", "cpu")
    ended = ig3d("train-2d", tmp_path / "images", *options, "--out-of-fold", 2, "--out", out)
    assert ended.returncode == 0, ended.stderr
    assert "train rows, predicted out of fold" in ended.stdout
    with np.load(tmp_path / "net.npz") as file:
        assert bool(file["out_of_fold"]) and set(file["fold"].tolist()) == {-1, 0, 1}
    assert "it is replaced" not in ended.stderr
    ended = ig3d("train-2d", tmp_path / "images", *options, "--out-of-fold", 2, "--out", out)
    assert "net.safetensors: exists; it is replaced" in ended.stderr
    assert "net.npz: exists; it is replaced" in ended.stderr
    ended = ig3d("train-2d", tmp_path / "images", *options, "--split", "0.8,0,0.2", "--out", out)
    assert " held-out train rows (optimistic: they chose the epoch)" in ended.stdout
    assert "net.npz: probably predictions of the network that is replaced" in ended.stderr
    for folds in (1, -2):
        ended = ig3d("train-2d", tmp_path / "images", *options, "--out-of-fold", folds, "--out", out)
        assert ended.returncode == 2 and f"out-of-fold is {folds}; give 2 folds or more" in ended.stderr


def test_folds_are_checked_before_the_training(samples: Listing, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    with pytest.raises(DatasetError, match="only 20 independent groups for 21 folds"):
        train_out_of_fold(samples, TINY, out, folds=21)
    with pytest.raises(
        UsageError, match=r"net\.safetensors was trained on the images of 24 of 24 train rows"
    ):
        train_out_of_fold(samples, replace(TINY, weights=trained), out, folds=2)
    assert not out.exists()


def test_an_interruption_leaves_no_predictions_of_an_earlier_network(
    samples: Listing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "net.safetensors"
    train_out_of_fold(samples, TINY, out, folds=2)
    first, predictions = out.read_bytes(), out.with_suffix(".npz")
    assert predictions.exists()

    def interrupted(*unused: Any, **named: Any) -> Fitted:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # in the training of the network: both files remain
        patch.setattr(train, "train_one", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_out_of_fold(samples, replace(TINY, seed=1), out, folds=2)
    assert out.read_bytes() == first and predictions.exists()
    monkeypatch.setattr(out_of_fold, "train_one", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:  # in a fold: the network is new
        train_out_of_fold(samples, replace(TINY, seed=1), out, folds=2)
    assert out.read_bytes() != first and not predictions.exists()
    assert "trains all networks again" in caught.value.__notes__[0]


def test_folds_that_cannot_be(samples: Listing, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="out-of-fold is 1; give 2 folds or more"):
        write_out_of_fold(samples, TINY, trained, tmp_path / "x.npz", folds=1)
    # 24 rows, two of them copies, three of one group
    with pytest.raises(DatasetError, match=r"only 20 independent groups for 21 folds"):
        write_out_of_fold(samples, TINY, trained, tmp_path / "x.npz", folds=21)
    with pytest.raises(UsageError, match=r"out: the name must end in \.npz"):
        write_out_of_fold(samples, TINY, trained, tmp_path / "x.csv", folds=2)


@pytest.mark.parametrize("seed", range(3))
def test_ties_are_transitive(seed: int) -> None:
    rng = np.random.default_rng(seed)
    keys = [rng.integers(0, 40, 50), rng.integers(0, 60, 50)]
    parts = np.arange(50)  # the naive twin: the smaller number spreads until nothing changes
    for _ in range(50):
        for key in keys:
            for value in np.unique(key):
                parts[key == value] = parts[key == value].min()
    assert np.array_equal(tied(keys)[:, None] == tied(keys), parts[:, None] == parts)


def test_half_precision_learns_other_weights_in_full_precision_files(
    samples: Listing, tmp_path: Path
) -> None:
    full = train_2d(samples, TINY, tmp_path / "a.safetensors")
    half = train_2d(samples, replace(TINY, precision="bf16"), tmp_path / "b.safetensors")
    assert full.path.stat().st_size == pytest.approx(half.path.stat().st_size, rel=0.01)
    assert full.history[0].loss != half.history[0].loss
    assert full.history[0].loss == pytest.approx(half.history[0].loss, rel=0.05)


def test_strength_of_the_augmentation() -> None:
    assert Augmentation().scaled(1) == Augmentation()
    assert Augmentation().scaled(0) == Augmentation(0, 0, (1, 1), 0, 0)
    double = Augmentation().scaled(2)
    assert (double.flip, double.degrees, double.light) == (0.5, 20, 0.5)
    assert double.zoom == pytest.approx((0.6, 1.1))
    with pytest.raises(UsageError, match=r"augment: 3\.0 is out of range; choose 0 to 2"):
        TrainConfig(augment=3)
