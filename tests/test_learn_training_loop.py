"""The training loop with a learner whose validation scores are scripted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ig3d.errors import ModelError, UsageError
from ig3d.learn.training import loop
from ig3d.learn.training.loop import Schedule, arithmetic, train

CPU = torch.device("cpu")


class Scripted:
    """One weight that moves by its learning rate in each step, and validation scores from a list."""

    def __init__(self, scores: list[float], batches: int = 2) -> None:
        self.model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.model.weight)
        self.generator = torch.Generator().manual_seed(0)
        self.scores, self.count, self.modes = iter(scores), batches, []

    def batches(self) -> list[int]:
        return list(range(self.count))

    def forward(self, rows: int) -> torch.Tensor:
        self.modes.append(self.model.training)
        return self.model(torch.ones(1, 1))

    def loss(self, outputs: torch.Tensor, rows: int) -> torch.Tensor:
        return outputs.sum()

    def validate(self) -> np.ndarray:
        assert not self.model.training
        self.current = next(self.scores, None)
        return np.empty((0, 1)) if self.current is None else np.full((3, 1), self.current)

    def score(self, outputs: np.ndarray) -> tuple[float, dict[str, float]]:
        return float(outputs[0, 0]), {"score": float(outputs[0, 0])}


def run(learner: Scripted, epochs: int = 4, patience: int = 2, rate=lambda step: 1.0, **options):
    optimiser = torch.optim.SGD(learner.model.parameters(), lr=1.0)
    return train(learner, optimiser, Schedule(epochs, patience, rate), device=CPU, **options)


def test_the_best_epoch_is_restored_and_the_earlier_of_equal_ones() -> None:
    fitted = run(Scripted([0.1, 0.9, 0.9, 0.2, 0.95]), epochs=9)
    assert fitted.best.number == 2 and len(fitted.history) == 4
    # two batches of step 1 for each epoch
    assert fitted.model.weight.item() == -4
    assert not fitted.model.training


def test_without_validation_rows_all_epochs_run_and_the_last_is_kept() -> None:
    fitted = run(Scripted([]), epochs=5, patience=1)
    assert fitted.best.number == 5 and fitted.model.weight.item() == -10


def test_rates_are_relative_to_the_peak_of_each_step() -> None:
    fitted = run(Scripted([1.0, 2.0], batches=3), epochs=2, rate=lambda step: step / 10)
    assert fitted.model.weight.item() == pytest.approx(-(0 + 1 + 2 + 3 + 4 + 5) / 10)


def test_the_gradient_is_clipped() -> None:
    learner = Scripted([1.0], batches=1)
    optimiser = torch.optim.SGD(learner.model.parameters(), lr=1.0)
    fitted = train(learner, optimiser, Schedule(1, 1, lambda step: 1.0, clip=0.25), device=CPU)
    assert fitted.model.weight.item() == pytest.approx(-0.25, rel=1e-5)


def test_progress_counts_batches_and_names_the_latest_epoch() -> None:
    seen = []
    run(Scripted([1.0, 2.0]), epochs=2, watch=lambda done, epoch: seen.append((done, epoch and epoch.number)))
    assert seen == [(0.5, None), (1.0, None), (1, 1), (1.5, 1), (2.0, 1), (2, 2)]


def test_an_interrupted_training_continues_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0)
    unfinished = tmp_path / "unfinished.safetensors"

    def stop(done: float, epoch: object) -> None:
        if done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Scripted([0.1, 0.9, 0.3]), unfinished=unfinished, watch=stop)
    second = Scripted([0.3, 0.4])
    fitted = run(second, unfinished=unfinished)
    assert [epoch.selection for epoch in fitted.history] == [0.1, 0.9, 0.3, 0.4]
    assert len(second.modes) == 4 and fitted.model.weight.item() == -4
    assert not unfinished.exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_end_the_training(value: float) -> None:
    with pytest.raises(ModelError, match="not finite after epoch 2; use a lower learning rate"):
        run(Scripted([1.0, value]))


def test_arithmetic_of_a_precision() -> None:
    cuda = torch.device("cuda")
    assert arithmetic("auto", CPU) == arithmetic("fp32", cuda) == torch.float32
    assert arithmetic("bf16", CPU) == torch.bfloat16 and arithmetic("fp16", cuda) == torch.float16
    for precision in ("fp16", "int8"):
        with pytest.raises(UsageError, match="precision"):
            arithmetic(precision, CPU)
