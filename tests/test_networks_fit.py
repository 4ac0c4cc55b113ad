"""Losses, sampling and scores of the training loop against formulas and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics

from ig3d.errors import ModelError
from ig3d.learn.training.loop import seeded
from ig3d.learn.training.losses import concordance, va_loss
from ig3d.networks import fit as fitting
from ig3d.networks.fit import Data, fit, scores_of
from ig3d.networks.train_config import TrainConfig


def options(**changes: float) -> TrainConfig:
    settings = {
        "epochs": 1, "patience": 1, "batch_size": 32, "lr": 1e-3, "weight_decay": 0.0, "smoothing": 0.0,
        "balance": 1.0, "seed": 0,
    }  # fmt: skip
    return TrainConfig(**(settings | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_concordance_is_lins_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(50, 2))
    predicted = 0.5 * truth + rng.normal(0.2, 0.7, size=(50, 2))
    expected = [
        2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
        for x, y in zip(predicted.T, truth.T, strict=True)
    ]
    np.testing.assert_allclose(
        concordance(torch.from_numpy(predicted), torch.from_numpy(truth)), expected, rtol=1e-12
    )


def test_concordance_of_special_cases() -> None:
    truth = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
    variance = 2 / 3
    for predicted, expected in [
        (truth, 1.0),
        (-truth, -1.0),
        (torch.zeros_like(truth), 0.0),
        (truth + 1, 2 * variance / (2 * variance + 1)),
        (truth * 2, 4 * variance / (5 * variance)),
    ]:
        assert concordance(predicted, truth).item() == pytest.approx(expected)
    assert concordance(truth * 0, truth * 0).item() == 0


def test_va_loss_is_zero_at_the_truth_and_has_finite_gradients() -> None:
    truth = torch.rand((8, 2), generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert va_loss(truth, truth).item() == pytest.approx(0, abs=1e-6)
    constant = torch.zeros((8, 2), requires_grad=True)
    va_loss(constant, truth).backward()
    assert constant.grad is not None and constant.grad.isfinite().all() and constant.grad.abs().sum() > 0


def test_class_scores_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 200)
    logits = rng.normal(size=(200, 5)) + 1.5 * np.eye(5)[truth]
    scores, predicted = scores_of(logits, truth), logits.argmax(1)
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    # class 4 does not occur in the truth: it has no recall, and its F1 is 0 because it is predicted
    assert scores["balanced_accuracy"] == pytest.approx(
        metrics.recall_score(truth, predicted, labels=range(4), average="macro")
    )
    assert scores["macro_f1"] == pytest.approx(
        metrics.f1_score(truth, predicted, average="macro", zero_division=0)
    )


def test_va_scores_are_valence_then_arousal() -> None:
    truth = np.random.default_rng(0).uniform(-1, 1, (60, 2)).astype(np.float32)
    predicted = np.stack([truth[:, 0], np.zeros(60, np.float32)], 1)
    scores = scores_of(predicted, truth)
    assert scores["ccc_valence"] == pytest.approx(1)
    assert scores["ccc_arousal"] == pytest.approx(0, abs=1e-9)
    assert scores["rmse_joint"] == pytest.approx(
        metrics.root_mean_squared_error(truth.ravel(), predicted.ravel()), rel=1e-6
    )


NORMAL = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
CPU = torch.device("cpu")


def noise(rows: int = 24) -> Data:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (rows, 3, 16, 16), generator=random, dtype=torch.uint8)
    return Data(pixels, torch.arange(rows), torch.arange(rows) % 2)


def linear(value: float = 0.0) -> torch.nn.Module:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 256, 2))
    for parameter in module.parameters():
        torch.nn.init.constant_(parameter, value)
    return module


def test_the_weights_of_the_best_epoch_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = iter([0.1, 0.9, 0.9, 0.2])
    monkeypatch.setattr(fitting, "scores_of", lambda logits, truth: {"macro_f1": next(scripted)})
    module, after = linear(), []
    fitted = fit(
        module, noise(), noise(), options(epochs=9, patience=2), **NORMAL, device=CPU,
        watch=lambda done, epoch: (
            after.append(module.get_parameter("1.weight").detach().clone()) if epoch and epoch.number == done else None
        ),
    )  # fmt: skip
    assert (fitted.best.number, len(fitted.history)) == (2, 4)
    kept = fitted.model.get_parameter("1.weight")
    assert [torch.equal(kept, weights) for weights in after] == [False, True, False, False]


def test_the_training_depends_only_on_the_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        settings = options(seed=seed, epochs=2, batch_size=8)
        done: list[float] = []
        fitted = fit(
            linear(),
            noise(),
            noise(),
            settings,
            **NORMAL,
            device=CPU,
            watch=lambda epochs, _: done.append(epochs),
        )
        assert done == pytest.approx([n / 3 for n in (1, 2, 3, 3, 4, 5, 6, 6)])
        assert len(fitted.history) == 2
        return fitted.model.get_parameter("1.weight").detach()

    first, again, other = weights(0), weights(0), weights(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_diverging_training_gives_a_one_line_error() -> None:
    with pytest.raises(ModelError, match="the loss is nan in epoch 1; use a lower learning rate"):
        fit(linear(math.nan), noise(4), noise(4), options(), **NORMAL, device=CPU)


def test_seeded_sets_and_restores_the_random_state() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with seeded(1, CPU):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    with seeded(1, CPU):
        assert torch.equal(torch.rand(3), first)
    with seeded(2, CPU):
        assert not torch.equal(torch.rand(3), first)
