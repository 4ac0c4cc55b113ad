"""Schedule of a training: rows of an epoch, learning rates, weight decay."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from ig3d.learn.training.schedule import (
    batches_per_epoch,
    draw_batches,
    parameter_groups,
    triangle,
    warmup_cosine,
)


def epoch_of(
    rows: int, labels: torch.Tensor | None, *, batch_size: int = 32, balance: float = 1.0
) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return draw_batches(rows, labels, batch_size=batch_size, balance=balance, generator=generator)


@pytest.mark.parametrize(("balance", "share"), [(1.0, 0.5), (0.5, 1 / (1 + 3)), (0.0, 0.1)])
def test_rare_classes_are_drawn_as_often_as_said(balance: float, share: float) -> None:
    # 10 % and 90 %: n^(1 - balance) gives 1 : 1, 1 : 3 and 1 : 9
    labels = torch.tensor([0] * 1000 + [1] * 9000)
    batches = epoch_of(10000, labels, batch_size=100, balance=balance)
    assert [len(batch) for batch in batches] == [100] * 100
    assert float((labels[torch.cat(batches)] == 0).float().mean()) == pytest.approx(share, abs=0.02)


def test_batches_are_of_one_size_and_unbalanced_ones_visit_each_row_once() -> None:
    batches = epoch_of(96, torch.zeros(96, dtype=torch.int64), balance=0)
    assert [len(batch) for batch in batches] == [32, 32, 32]
    assert sorted(torch.cat(batches).tolist()) == list(range(96))
    values = epoch_of(70, None)
    assert [len(batch) for batch in values] == [32, 32]
    assert len(set(torch.cat(values).tolist())) == 64
    assert [len(batch) for batch in epoch_of(3, torch.zeros(3, dtype=torch.int64))] == [3]
    assert batches_per_epoch(70, 32) == 2 and batches_per_epoch(3, 32) == 1


def test_the_rate_rises_for_a_tenth_of_the_steps_and_falls_to_zero() -> None:
    shares = [warmup_cosine(step, 100) for step in range(101)]
    assert shares[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert shares[55] == pytest.approx(0.5)
    assert shares[100] == pytest.approx(0)
    assert all(one >= other for one, other in pairwise(shares[9:]))
    assert warmup_cosine(0, 1) == 1


def test_the_triangular_rate_goes_up_and_down_between_its_bounds() -> None:
    rates = [triangle(position, 0.1) for position in (0, 0.5, 1, 1.5, 2, 3)]
    assert rates == pytest.approx([0.1, 0.55, 1, 0.55, 0.1, 1])


def test_weight_decay_is_for_matrices_that_are_not_excepted() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Embedding(4, 2))
    decayed, others = parameter_groups(module, lr=0.1, weight_decay=0.5, no_decay=("missing",))
    assert [len(group["params"]) for group in (decayed, others)] == [2, 1]  # type: ignore[arg-type]
    assert (decayed["weight_decay"], others["weight_decay"], others["lr"]) == (0.5, 0.0, 0.1)
    decayed, others = parameter_groups(module, lr=0.1, weight_decay=0.5, no_decay=("weight",))
    assert [len(group["params"]) for group in (decayed, others)] == [0, 3]  # type: ignore[arg-type]
