"""The training loop: seeds, masks, resuming to the bit, losses, and what a baseline may know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_features import make
from sklearn.metrics import log_loss

from ig3d.errors import ModelError, UsageError
from ig3d.features.predictions import log_softmax
from ig3d.learn.intermediate.config import IntermediateConfig
from ig3d.learn.intermediate.fit import FeatureRoute, TrainingData, fit, mask_blocks, predict, training_data
from ig3d.learn.intermediate.plan import codes_of, plan_modules
from ig3d.learn.intermediate.table import load_feature_table
from ig3d.learn.training import loop
from ig3d.learn.training.loop import seeded
from ig3d.learn.training.state import Epoch

CPU = torch.device("cpu")
QUICK = IntermediateConfig(module="gate", epochs=4, batch_size=16, width=8, lr=2e-2, dropout=0.1, draws=100)


@pytest.fixture(scope="module")
def route(tmp_path_factory: pytest.TempPathFactory) -> FeatureRoute:
    made = make(tmp_path_factory.mktemp("fit"), missing=(0, 5, 7))
    return FeatureRoute(load_feature_table(made.features, made.store), CPU)


def data_of(route: FeatureRoute, arm: str = "codes", config: IntermediateConfig = QUICK) -> TrainingData:
    plan = plan_modules(route.table, route.has_input, config, input_name="features")
    return training_data(route, plan, arm, 0)


def train(
    route: FeatureRoute, config: IntermediateConfig = QUICK, *, arm: str = "codes", seed: int = 0, **options
):
    data = data_of(route, arm, config)
    with seeded(seed, CPU):
        model = route.build(data, config)
        return fit(model, route.groups(model, config), data, config, seed=seed, device=CPU, **options)


def stop_in(number: int):
    """Watch that interrupts a training at the end of an epoch."""

    def watch(done: float, epoch: Epoch | None) -> None:
        if epoch is not None and epoch.number == number:
            raise KeyboardInterrupt

    return watch


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_same_seed_gives_the_same_weights_and_leaves_torch_alone(route: FeatureRoute) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = train(route)
    assert torch.equal(torch.get_rng_state(), before)
    assert equal(first.model, train(route).model)
    assert not equal(first.model, train(route, seed=1).model)


@pytest.mark.parametrize("module", ["gate", "attention"])
def test_an_interrupted_training_ends_with_the_same_bytes(
    route: FeatureRoute, tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0)
    config = replace(QUICK, module=module)
    whole = train(route, config)
    unfinished = tmp_path / "unfinished.safetensors"

    with pytest.raises(KeyboardInterrupt):
        train(route, config, unfinished=unfinished, watch=stop_in(3))
    assert unfinished.is_file()
    done: list[float] = []
    again = train(route, config, unfinished=unfinished, watch=lambda epochs, epoch: done.append(epochs))
    # finished epochs are reported at once, then every batch
    assert done[:2] == [1, 2] and done[-1] == 4
    assert done == sorted(done) and len(done) > 2 + 2 * 10
    assert again.history == whole.history
    assert equal(again.model, whole.model)
    assert not unfinished.exists()


def test_what_is_kept_of_another_module_is_refused(
    route: FeatureRoute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0)
    unfinished = tmp_path / "unfinished.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(route, unfinished=unfinished, watch=stop_in(2))
    with pytest.raises(ModelError, match="the unfinished training has other options"):
        train(route, replace(QUICK, width=4), unfinished=unfinished)
    unfinished.write_bytes(unfinished.read_bytes()[:100])
    with pytest.raises(ModelError, match="--restart"):
        train(route, unfinished=unfinished)


def test_a_module_learns_from_codes_and_never_reads_masked_codes(route: FeatureRoute, tmp_path: Path) -> None:
    config = replace(QUICK, epochs=8)
    fitted, data = train(route, config), data_of(route, config=config)
    other = make(tmp_path, missing=(0, 5, 7), code_seed=2)
    elsewhere = FeatureRoute(load_feature_table(other.features, other.store), CPU)
    masked, masked_elsewhere = (train(where, config, arm="null-input") for where in (route, elsewhere))
    outputs, rows = {}, data.validation
    for name, model, seen in (
        ("codes", fitted.model, data),
        ("masked", masked.model, data_of(route, "null-input", config)),
        ("elsewhere", masked_elsewhere.model, data_of(elsewhere, "null-input", config)),
    ):
        outputs[name] = predict(model, seen, rows, device=CPU)
    truth = data.labels[rows].numpy()
    accuracy = {name: float((values.argmax(1) == truth).mean()) for name, values in outputs.items()}
    assert accuracy["codes"] > 0.9 > accuracy["masked"] + 0.1
    # predictions of the baseline do not depend on the codes
    np.testing.assert_array_equal(outputs["masked"], outputs["elsewhere"])


def test_rows_without_a_face_are_predicted_and_teach(route: FeatureRoute) -> None:
    data = data_of(route)
    assert not data.present[[0, 5, 7]].any()
    assert {0, 5} <= set(data.train.tolist())
    outputs = predict(train(route).model, data, torch.tensor([0, 7, 8]), device=CPU)
    assert np.isfinite(outputs).all()


def test_permuted_codes_change_places_within_each_part(route: FeatureRoute) -> None:
    table = route.table
    parts = [np.flatnonzero(table.split == split) for split in (0, 1, 2)]
    codes, covered = codes_of(table, "permuted", parts, seed=0)
    assert table.codes is not None
    np.testing.assert_array_equal(covered, table.covered)
    assert np.isnan(codes[[0, 5, 7]]).all()
    for part in parts:
        there = part[covered[part]]
        moved = (codes[there] != table.codes[there]).any(axis=1)
        assert moved.mean() > 0.9
        np.testing.assert_array_equal(np.sort(codes[there], axis=0), np.sort(table.codes[there], axis=0))
    again, _ = codes_of(table, "permuted", parts, seed=0)
    np.testing.assert_array_equal(codes, again)
    assert (codes_of(table, "permuted", parts, seed=1)[0][1] != codes[1]).any()


def test_masks_come_as_often_as_said() -> None:
    generator = torch.Generator().manual_seed(0)
    present = torch.ones((20000, 3), dtype=torch.bool)
    present[:100] = False
    kept = mask_blocks(present, 0.2, generator)
    assert not kept[:100].any()
    # a row is lost with .2; else each block with .2
    assert float(kept[100:].float().mean()) == pytest.approx(0.8 * 0.8, abs=0.01)
    assert float((~kept[100:].any(1)).float().mean()) == pytest.approx(0.2 + 0.8 * 0.2**3, abs=0.01)
    assert torch.equal(mask_blocks(present, 0.0, generator), present)
    assert not mask_blocks(present, 1.0, generator).any()


@pytest.mark.parametrize(("task", "outputs"), [("classes", 3), ("va", 2), ("both", 5)])
def test_each_task_learns(tmp_path: Path, task: str, outputs: int) -> None:
    made = make(tmp_path, va=True)
    config = replace(QUICK, module="linear", task=task, epochs=8)
    route = FeatureRoute(load_feature_table(made.features, made.store, task=task), CPU)
    fitted = train(route, config)
    data = data_of(route, config=config)
    assert predict(fitted.model, data, data.validation, device=CPU).shape[1] == outputs == data.outputs
    best = fitted.best.scores
    if task != "va":
        assert best["accuracy"] > 0.85
    if task != "classes":
        assert best["ccc_valence"] > 0.6 and best["ccc_arousal"] > 0.6
    expected = {
        "classes": lambda: best["macro_f1"],
        "va": lambda: best["ccc_joint"],
        "both": lambda: (best["macro_f1"] + best["ccc_joint"]) / 2,
    }[task]()
    assert fitted.best.selection == pytest.approx(expected)


def test_the_best_epoch_is_kept_and_patience_ends(route: FeatureRoute) -> None:
    config = replace(QUICK, epochs=40, patience=2)
    fitted = train(route, config)
    best = max(fitted.history, key=lambda epoch: epoch.selection)
    assert fitted.best == best
    assert len(fitted.history) == best.number + 2 < 40
    data = data_of(route, config=config)
    logs = log_softmax(predict(fitted.model, data, data.validation, device=CPU).astype(np.float64))
    truth = data.labels[data.validation].numpy()
    assert log_loss(truth, np.exp(logs)) == pytest.approx(best.scores["log_loss"], rel=1e-5)


def test_divergence_is_one_line(route: FeatureRoute) -> None:
    with pytest.raises(ModelError, match="use a lower learning rate"):
        train(route, replace(QUICK, module="linear", lr=1e30))


@pytest.mark.parametrize(
    "changes",
    [{"module": "sum"}, {"task": "age"}, {"seeds": ()}, {"seeds": (1, 1)}, {"masking": 2.0}, {"epochs": 0},
     {"lr": 0.0}, {"validation": 0.9}, {"width": 0}, {"dropout": 1.0}, {"report": "train"}],
)  # fmt: skip
def test_impossible_choices_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"out of range|does not exist|is not"):
        IntermediateConfig(**changes)  # type: ignore[arg-type]


@pytest.mark.gpu
def test_mixed_precision_learns_as_well(tmp_path: Path) -> None:
    made = make(tmp_path)
    device = torch.device("cuda")
    route = FeatureRoute(load_feature_table(made.features, made.store), device)
    config = replace(QUICK, epochs=8, module="attention")
    data = data_of(route, config=config)
    with seeded(0, device):
        model = route.build(data, config)
        fitted = fit(model, route.groups(model, config), data, config, seed=0, device=device)
    assert fitted.best.scores["accuracy"] > 0.85
