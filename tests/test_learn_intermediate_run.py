"""Whole runs: who sees which rows, what is written, going on, applying, figures by hand, bad input in one line."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas
import pytest
from made_up_features import CLASSES, make
from sklearn.metrics import accuracy_score, log_loss

from ig3d.errors import Ig3dError, ModelError, PredictionsError, ProtocolError, RunError, UsageError
from ig3d.features.predictions import load_predictions, log_softmax
from ig3d.features.samples import Split
from ig3d.learn.evaluate.counts import confusion_table, reliability_table
from ig3d.learn.evaluate.figures import COLUMNS, figure, figures_of
from ig3d.learn.evaluate.predictors import Predictor
from ig3d.learn.evaluate.tables import read_table
from ig3d.learn.fuse import fuse_predictions
from ig3d.learn.intermediate import run as running
from ig3d.learn.intermediate.checkpoint import apply_module, load_module
from ig3d.learn.intermediate.config import IntermediateConfig
from ig3d.learn.intermediate.plan import plan_modules
from ig3d.learn.intermediate.run import IntermediateResult, fuse_features
from ig3d.learn.intermediate.table import load_feature_table
from ig3d.learn.report import read_run
from ig3d.learn.report.page import page_html
from ig3d.learn.training import loop
from ig3d.learn.training.state import Epoch

QUICK = IntermediateConfig(
    module="linear", epochs=6, batch_size=32, width=8, lr=1e-2, dropout=0.1, draws=200, seeds=(0, 1)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two seeds with its input beside it."""
    folder = tmp_path_factory.mktemp("run")
    made = make(folder, missing=(2, 3, 8))
    fuse_features(load_feature_table(made.features, made.store), QUICK, folder / "out")
    return folder


def again(
    folder: Path, config: IntermediateConfig = QUICK, out: str = "out", **options
) -> IntermediateResult:
    table = load_feature_table(folder / "features.npz", folder / "3d.h5")
    return fuse_features(table, config, folder / out, **options)


def test_predictions_are_of_rows_it_was_not_fitted_on(folder: Path) -> None:
    table = load_feature_table(folder / "features.npz", folder / "3d.h5").table
    wanted = table.id[np.isin(table.split, [Split.val, Split.test])]
    for name in ("codes-0", "codes-1", "null-input-0", "null-input-1", "permuted-0", "permuted-1"):
        written = load_predictions(folder / "out" / f"{name}.npz")
        assert written.ids is not None
        np.testing.assert_array_equal(written.ids, wanted)
        assert written.columns == CLASSES
        assert load_module(folder / "out" / f"{name}.safetensors").info.training["condition"] == name[:-2]


def test_figures_are_means_over_seeds_of_metrics_by_scikit_learn(folder: Path) -> None:
    result = again(folder)
    table = result.table
    rows = np.flatnonzero(table.split == Split.test)
    truth = table.labels[rows]
    by_hand: dict[str, list[tuple[float, float]]] = {}
    for arm in ("codes", "null-input", "permuted"):
        for seed in (0, 1):
            written = load_predictions(folder / "out" / f"{arm}-{seed}.npz")
            assert written.ids is not None
            values = log_softmax(written.values[np.isin(written.ids, table.id[rows])])
            scores = (accuracy_score(truth, values.argmax(1)), log_loss(truth, np.exp(values)))
            by_hand.setdefault(arm, []).append(scores)
    figures = result.figures["classes"]
    assert set(figures["rows"]) == {"all", "covered"}
    keys = {
        "codes": ("intermediate", "real"),
        "null-input": ("null-input", "real"),
        "permuted": ("intermediate", "permuted"),
    }
    for arm, seeds in by_hand.items():
        name, condition = keys[arm]
        accuracy, loss = np.array(seeds).T
        assert repeats_of(figures, name, condition) == pytest.approx(accuracy)
        assert figure(figures, name, "accuracy", condition=condition).value == pytest.approx(accuracy.mean())
        assert figure(figures, name, "log_loss", condition=condition).value == pytest.approx(loss.mean())
    codes, masked, permuted = (np.array(by_hand[arm])[:, 0] for arm in ("codes", "null-input", "permuted"))
    for key, other in ((keys["null-input"], masked), (keys["permuted"], permuted)):
        gain = figure(figures, "intermediate", "accuracy", versus=key[0], versus_condition=key[1])
        assert gain.value == pytest.approx((codes - other).mean())
        assert repeats_of(figures, "intermediate", "real", *key) == pytest.approx(codes - other)
        assert 0 < gain.low < gain.value < gain.high and gain.p < 0.05
    assert figure(figures, "intermediate", "accuracy", condition="permuted", versus="null-input").low <= 0
    two_d = accuracy_score(truth, table.two_d[rows].argmax(1))
    assert figure(figures, "2d", "accuracy").value == pytest.approx(two_d)
    assert repeats_of(figures, "intermediate", "real", "2d", "real") == pytest.approx(codes - two_d)
    written = read_table(folder / "out/figures.csv", COLUMNS)
    pandas.testing.assert_frame_equal(written, figures, check_exact=True)


def repeats_of(
    figures: pandas.DataFrame, name: str, condition: str, versus: str = "", versus_condition: str = ""
) -> list[float]:
    """Accuracy of each training, or its differences, on all rows."""
    of = figures[(figures["predictor"] == name) & (figures["condition"] == condition)]
    of = of[(of["versus"] == versus) & (of["versus_condition"] == versus_condition)]
    of = of[(of["metric"] == "accuracy") & (of["rows"] == "all") & of["repeat"].notna()]
    return [float(value) for value in of.sort_values("repeat")["value"]]


def toy_arms(seeds: tuple[int, int] = (3, 3)) -> tuple[np.ndarray, list[Predictor]]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 60)
    made = [
        [log_softmax(rng.normal(size=(60, 2)) + np.eye(2)[truth] * of) for _ in range(n)]
        for of, n in zip((1, 0.5), seeds, strict=True)
    ]
    return truth, [
        Predictor(name, role, True, first, repeats=tuple(others), trained=bool(others))
        for (first, *others), name, role in zip(made, ("codes", "masked"), ("rule", "reference"), strict=True)
    ]


def figures_of_toys(
    truth: np.ndarray, arms: list[Predictor], groups: np.ndarray | None = None, draws: int = 4000
) -> pandas.DataFrame:
    return figures_of(
        arms, truth, np.ones(60, bool), groups, task="classes", draws=draws, seed=0, references=("masked",)
    )


@pytest.mark.parametrize("seeds", [(3, 3), (3, 1), (2, 3)])
def test_intervals_and_tests_are_of_the_mean_over_seeds(seeds: tuple[int, int]) -> None:
    truth, arms = toy_arms(seeds)
    rng = np.random.default_rng(1)
    gain = figure(figures_of_toys(truth, arms), "codes", "accuracy", versus="masked")
    right = [np.mean([array.argmax(1) == truth for array in arm.every], axis=0) for arm in arms]
    difference = right[0] - right[1]
    # rows and trainings are resampled, trainings of as many seeds together
    counts = {n: rng.multinomial(n, np.full(n, 1 / n), 4000) for n in set(seeds)}
    rows, drawn = rng.integers(0, 60, (4000, 60)), 0.0
    for sign, arm, n in zip((1, -1), arms, seeds, strict=True):
        each = np.stack([(array.argmax(1) == truth)[rows].mean(1) for array in arm.every], axis=1)
        spread = np.sqrt(n / (n - 1)) if n > 1 else 0.0
        drawn = drawn + sign * (each * (1 / n + (counts[n] - 1) / n * spread)).sum(1)
    flipped = (rng.choice((-1, 1), (20000, 60)) * difference).mean(1)
    assert gain.value == pytest.approx(difference.mean())
    assert [gain.low, gain.high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.02)
    assert gain.p == pytest.approx(np.mean(np.abs(flipped) >= abs(difference.mean()) - 1e-9), abs=0.03)
    assert 0.001 < gain.p < 0.5, "toys that tell a right p from a wrong one"


def test_a_training_twice_is_a_training_once() -> None:
    truth, arms = toy_arms((1, 1))
    twice = [replace(arm, repeats=(arm.values,), trained=True) for arm in arms]
    groups = np.arange(60) // 2
    once, again = (figures_of_toys(truth, of, groups, draws=500) for of in (arms, twice))
    again = again[again["repeat"].isna()].reset_index(drop=True)
    pandas.testing.assert_frame_equal(once, again, rtol=1e-9)
    every = np.ones(60, bool)
    counts = [confusion_table(of, truth, every, ("a", "b"))["count"].tolist() for of in (arms, twice)]
    assert counts[0] == counts[1]
    bins = [reliability_table(of, truth, every) for of in (arms, twice)]
    pandas.testing.assert_frame_equal(*bins)


def test_fuse_takes_the_predictions_like_any_others(folder: Path, tmp_path: Path) -> None:
    from ig3d.features.inputs import Inputs
    from ig3d.features.join import load_table
    from ig3d.learn.config import FuseConfig

    config = FuseConfig(rules=("mean",), draws=100, controls=False, model=False)
    table = load_table(Inputs(folder / "out/codes-0.npz", folder / "3d.h5"))
    assert figure(fuse_predictions(table, config).figures, "2d", "accuracy").value > 0.8


def test_finished_trainings_are_not_repeated_and_seeds_can_be_added(folder: Path) -> None:
    watched: list[tuple[str, int]] = []

    def watch(condition: str, seed: int, done: float, epoch: Epoch | None) -> None:
        watched.append((condition, seed))

    result = again(folder, watch=watch)
    assert watched == []
    shutil.copytree(folder / "out", folder / "more")
    more = again(folder, replace(QUICK, seeds=(0, 1, 2), draws=100), "more", watch=watch)
    assert set(watched) == {("codes", 2), ("null-input", 2), ("permuted", 2)}
    for one, other in zip(result.trained, more.trained, strict=False):
        np.testing.assert_array_equal(one.values, other.values)


def test_a_resumed_run_writes_the_same_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0)

    def stop(condition: str, seed: int, done: float, epoch: Epoch | None) -> None:
        if (condition, seed) == ("null-input", 1) and done > 3.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again(folder, out="stopped", watch=stop)
    assert not (folder / "stopped/null-input-1.safetensors").exists()
    assert (folder / "stopped/null-input-1.unfinished.safetensors").exists()
    again(folder, out="stopped")
    for path in (folder / "out").iterdir():
        if path.suffix != ".npz":  # archives contain a date
            assert path.read_bytes() == (folder / "stopped" / path.name).read_bytes(), path.name
    assert sorted(path.name for path in (folder / "out").iterdir()) == sorted(
        path.name for path in (folder / "stopped").iterdir()
    )


def test_another_run_in_the_folder_is_refused_unless_restarted(folder: Path, tmp_path: Path) -> None:
    config = replace(QUICK, seeds=(0,), controls=False, epochs=2)
    again(folder, config, "restarted")
    with pytest.raises(RunError, match=r"different: lr, masking; choose another --out, or --restart"):
        again(folder, replace(config, lr=1e-3, masking=0.5), "restarted")
    again(folder, replace(config, lr=1e-3), "restarted", restart=True)
    foreign = folder / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match=r"has other files \(thesis\.tex\)"):
        again(folder, config, "foreign", restart=True)
    assert (foreign / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("fewer", [{"seeds": (0,)}, {"controls": False}])
def test_further_trainings_in_the_folder_are_reported(folder: Path, fewer: dict[str, object]) -> None:
    before = (folder / "out/record.json").read_bytes()
    with pytest.raises(RunError, match=r"further trainings \((codes|null-input)-\d, .*\); include them"):
        again(folder, replace(QUICK, **fewer))
    assert (folder / "out/record.json").read_bytes() == before


def test_versions_are_recorded(folder: Path) -> None:
    recorded = json.loads((folder / "out/run.json").read_text())
    assert recorded["versions"]["torch"] == metadata.version("torch")


def test_the_order_of_rows_in_a_file_does_not_matter(folder: Path, tmp_path: Path) -> None:
    with np.load(folder / "features.npz") as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    order = np.random.default_rng(3).permutation(len(kept["ids"]))
    kept |= {name: array[order] for name, array in kept.items() if len(np.atleast_1d(array)) == len(order)}
    np.savez(tmp_path / "features.npz", **kept)
    table = load_feature_table(folder / "features.npz", folder / "3d.h5")
    assert load_feature_table(tmp_path / "features.npz", folder / "3d.h5").digest == table.digest
    kept["features"] = kept["features"][::-1]
    np.savez(tmp_path / "features.npz", **kept)
    assert load_feature_table(tmp_path / "features.npz", folder / "3d.h5").digest != table.digest


@pytest.mark.parametrize(
    ("option", "value"),
    [("lr", -1.0), ("lr", float("nan")), ("weight_decay", -1.0), ("va_weight", -0.5), ("draws", 99)],
)
def test_the_error_of_a_wrong_option_names_only_this_option(option: str, value: float) -> None:
    with pytest.raises(
        UsageError, match=rf"^{option.replace('_', '-')}: {value} is out of range; choose [a-z0-9. ]+$"
    ):
        replace(QUICK, **{option: value})


def test_a_checkpoint_repeats_the_written_predictions(folder: Path) -> None:
    loaded = load_module(folder / "out/codes-0.safetensors")
    features = load_feature_table(folder / "features.npz", folder / "3d.h5")
    applied = apply_module(loaded, features)
    written = load_predictions(folder / "out/codes-0.npz")
    np.testing.assert_array_equal(applied.ids, written.ids)
    np.testing.assert_allclose(applied.values, written.values, rtol=1e-5, atol=1e-6)
    assert applied.notes[0].startswith("160 rows left out")
    assert applied.notes[1].startswith("80 rows chose the module's epoch")


def test_images_of_the_training_are_left_out_under_any_id(folder: Path, tmp_path: Path) -> None:
    # another dataset without splits holds the same images
    other = make(tmp_path, splits=[Split.none] * 320)
    applied = apply_module(
        load_module(folder / "out/codes-0.safetensors"), load_feature_table(other.features, other.store)
    )
    assert applied.ids.tolist() == other.ids[np.arange(320) % 4 > 1].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"network": "toy features 1234567890abcdef"},
            "of the network toy features 1234567890ab, those of the training of toy features 0;",
        ),
        ({"shape": (5,)}, "features have shape 5, those of the training 6"),
        ({"shape": (6, 2, 2)}, "features have shape 6 × 2 × 2, those of the training 6"),
        (
            {"basis": "toy-2"},
            r"the code blocks are expression \(4, toy-2\).*of the training expression \(4, toy-1\)",
        ),
    ],
)
def test_a_checkpoint_refuses_features_and_codes_of_other_kinds(
    folder: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    other = make(tmp_path, **changes)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=message):
        apply_module(
            load_module(folder / "out/codes-0.safetensors"), load_feature_table(other.features, other.store)
        )


def test_damaged_and_foreign_checkpoints_are_refused(folder: Path, tmp_path: Path) -> None:
    good = (folder / "out/codes-0.safetensors").read_bytes()
    for content, message in (
        (good[:-8], "damaged or of another kind"),
        (good[:-8] + bytes(8), "the file is damaged"),
        (good.replace(b"ig3d-fusion-module", b"ig3d-fusion-other!"), "this safetensors file is not a module"),
        (b"", "damaged or of another kind"),
    ):
        path = tmp_path / "some.safetensors"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=message):
            load_module(path)
    with pytest.raises(ModelError, match="the file does not exist"):
        load_module(tmp_path / "none.safetensors")


def test_missing_blocks_and_features_of_other_rows_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="eyelid"):
        load_feature_table(folder / "features.npz", folder / "3d.h5", blocks="expression,eyelid")
    with pytest.raises(PredictionsError, match="is a store of codes, not features") as refused:
        load_feature_table(folder / "3d.h5", folder / "3d.h5")
    assert "\n" not in str(refused.value)
    with np.load(folder / "features.npz") as arrays:
        other = {name: arrays[name] for name in arrays.files}
    other["ids"] = np.char.replace(other["ids"], "img_", "face_")
    np.savez(tmp_path / "other.npz", **other)
    with pytest.raises(PredictionsError, match=r"ids cannot be matched to the \d+ samples of"):
        load_feature_table(tmp_path / "other.npz", folder / "3d.h5")
    del other["features"]
    np.savez(tmp_path / "plain.npz", **other)
    with pytest.raises(PredictionsError, match="write the file with ig3d logits --features"):
        load_feature_table(tmp_path / "plain.npz", folder / "3d.h5")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": [Split.test] * 320}, "none of 320 rows is of a train split"),
        ({"rows": np.arange(320)[np.arange(320) % 4 > 1]}, r"ig3d logits --splits all"),
        ({"splits": [Split.train] * 320}, "reported rows: the test or val split has no labelled rows"),
        ({"missing": tuple(range(320))}, r"no train row of \d+ has 3D codes"),
    ],
)
def test_unusable_rows_are_reported_in_one_line(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    made = make(tmp_path, **options)  # type: ignore[arg-type]
    with pytest.raises(Ig3dError, match=message) as caught:
        fuse_features(load_feature_table(made.features, made.store), QUICK)
    assert "\n" not in str(caught.value)


def test_without_a_val_split_the_epoch_is_chosen_on_whole_groups_of_train_rows(tmp_path: Path) -> None:
    splits = [Split.test if row % 16 >= 12 else Split.train for row in range(320)]
    made = make(tmp_path, splits=splits, groups=True)
    table = load_feature_table(made.features, made.store).table
    plan = plan_modules(table, np.ones(320, bool), QUICK, input_name="features")
    groups = table.group_codes
    assert not np.intersect1d(groups[plan.train], groups[plan.validation]).size
    assert not np.intersect1d(np.union1d(plan.train, plan.validation), plan.reported).size
    assert 0.1 < len(plan.validation) / 240 < 0.2
    with pytest.raises(ProtocolError, match="val"):
        plan_modules(table, np.ones(320, bool), replace(QUICK, report="val"), input_name="features")


def test_the_terminal_and_the_page_state_the_rows_of_training_epoch_and_report(ig3d, tmp_path: Path) -> None:
    splits = [Split.test if row % 4 == 3 else Split.train for row in range(320)]
    made = make(tmp_path, splits=splits)
    files = ["--features", made.features, "--3d-store", made.store, "--out", tmp_path / "o"]
    quick = ["--module", "gate", "--epochs", 1, "--width", 4, "--draws", 100, "--device", "cpu"]
    ended = ig3d("fuse-features", *files, *quick, "--no-controls")
    assert ended.returncode == 0, ended.stderr
    rows = " ".join(ended.stdout.split("\n\n")[0].split())
    match = re.match(
        r"Reported: 80 rows of the test split, 80 with 3D codes; gate trained 1 time on (\d+) train rows, its epoch "
        r"chosen on (\d+) held-out train rows\.",
        rows,
    )
    assert match and int(match[1]) + int(match[2]) == 240
    run = read_run(tmp_path / "o")
    assert f"the epoch is chosen on {match[2]} held-out train rows, which" in page_html([run])
    del run.record["protocol"]["fits"]["validation_split"]
    assert f"chosen on {match[2]} rows, which" in page_html([run])


def test_the_command_for_classes_and_for_va(ig3d, tmp_path: Path) -> None:
    made = make(tmp_path, va=True)
    quick = ["--module", "gate", "--epochs", 2, "--width", 4, "--draws", 100, "--device", "cpu"]
    common = ["fuse-features", "--features", made.features, "--3d-store", made.store]
    ended = ig3d(*common, *quick, "--seeds", 2, "--out", tmp_path / "c", "--task", "classes")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(
        "Reported: 80 rows of the test split, 80 with 3D codes; gate trained 2 times on "
    )
    assert "on 160 train rows, its epoch chosen on 80 val rows." in ended.stdout
    assert "means over 2 trainings" in ended.stdout
    for name in ("2d", "intermediate", "null-input"):
        assert f"\n{name}" in ended.stdout
    # the difference of each training, by scikit-learn
    test = np.arange(3, 320, 4)
    seeds: dict[str, list[float]] = {"codes": [], "permuted": []}
    for condition, gains in seeds.items():
        for seed in (0, 1):
            names = (condition, "null-input")
            files = [load_predictions(tmp_path / f"c/{name}-{seed}.npz") for name in names]
            right = [
                accuracy_score(made.labels[test], file.values[np.isin(file.ids, made.ids[test])].argmax(1))
                for file in files
            ]
            gains.append(100 * (right[0] - right[1]))
    figures = read_table(tmp_path / "c/figures.csv", COLUMNS)
    for condition, gains in (("real", seeds["codes"]), ("permuted", seeds["permuted"])):
        found = repeats_of(figures, "intermediate", condition, "null-input", "real")
        assert 100 * np.array(found) == pytest.approx(gains)
    ended = ig3d(*common, *quick, "--out", tmp_path / "v", "--task", "va", "--no-controls")
    assert ended.returncode == 0, ended.stderr
    assert "CCC VA" in ended.stdout and "\nnull-input" not in ended.stdout
    assert "no null-input baseline was trained" in ended.stdout
    figures = read_table(tmp_path / "v/figures.csv", COLUMNS)
    assert f"{figure(figures, 'intermediate', 'ccc_joint').value:.4f}" in ended.stdout
    assert load_predictions(tmp_path / "v/codes-0.npz").kind == "va"
    ended = ig3d(*common, *quick, "--out", tmp_path / "b", "--task", "both", "--no-controls", "--seeds", "2")
    assert ended.returncode == 0, ended.stderr
    assert load_predictions(tmp_path / "b/codes-0-va.npz").kind == "va"
    with np.load(made.features) as file:
        np.savez(tmp_path / "va.npz", **{name: file[name] for name in file.files if name != "logits"})
    va = ["fuse-features", "--features", tmp_path / "va.npz", "--3d-store", made.store, *quick]
    ended = ig3d(*va, "--out", tmp_path / "n", "--task", "both")
    assert ended.returncode == 1 and "the file has no class logits; use --task va" in ended.stderr
    ended = ig3d(*common, "--apply", tmp_path / "v/codes-0.safetensors", "--out", tmp_path / "a.npz")
    assert ended.returncode == 0, ended.stderr
    assert "160 rows, predicted by gate" in ended.stdout
    few = [*common, *quick, "--no-controls", "--task", "classes", "--blocks", "expression"]
    assert ig3d(*few, "--out", tmp_path / "few").returncode == 0
    other = make(tmp_path / "unlabelled", labelled=False)
    ended = ig3d(
        "fuse-features", "--features", other.features, "--3d-store", other.store, "--apply",
        tmp_path / "few/codes-0.safetensors", "--out", tmp_path / "f.npz",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    written, applied = load_predictions(tmp_path / "few/codes-0.npz"), load_predictions(tmp_path / "f.npz")
    np.testing.assert_allclose(applied.values, written.values, rtol=1e-5, atol=1e-6)
    ended = ig3d(*common, "--module", "sum", "--out", tmp_path / "x")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    ended = ig3d(*common, *quick, "--report", "val", "--masking", 0.3, "--out", tmp_path / "c")
    assert ended.returncode == 1 and "different: masking, report, task" in ended.stderr
    assert ended.stderr.count("\n") == 1, "no progress before a refusal"


def test_an_interruption_says_how_to_go_on(ig3d, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(tmp_path)
    whole = running.fit

    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    files = ["--features", made.features, "--3d-store", made.store]
    command = ["fuse-features", *files, "--epochs", 1, "--draws", 100, "--device", "cpu"]
    monkeypatch.setattr(running, "fit", stop)
    ended = ig3d(*command, "--out", tmp_path / "out")
    assert ended.returncode == 130
    assert "finished trainings are kept" in ended.stderr
    monkeypatch.setattr(running, "fit", whole)
    ended = ig3d(*command, "--out", tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    assert "epochs" in ended.stderr and "had finished before" not in ended.stderr
    ended = ig3d(*command, "--out", tmp_path / "out")
    assert "3 of 3 trainings had finished before" in ended.stderr


def test_a_training_that_stops_early_is_reported(ig3d, tmp_path: Path) -> None:
    made = make(tmp_path)
    command = [
        "fuse-features",
        "--features",
        made.features,
        "--3d-store",
        made.store,
        "--no-controls",
        "--width",
        4,
    ]
    quick = ["--draws", 100, "--device", "cpu", "--lr", 1e-9, "--out", tmp_path / "out"]
    ended = ig3d(*command, *quick, "--epochs", 20)
    assert ended.returncode == 0, ended.stderr
    note = re.search(r"stopped before epoch 20, .* did not improve: codes 0 after (\d+)", ended.stderr)
    assert note and 11 <= int(note[1]) < 20
    assert "epochs ━━━━━━━━━━━━━━━━━━━━ 20/20" in ended.stderr
    ended = ig3d(*command, *quick, "--epochs", 5, "--seed", 1)
    assert "different: epochs, seed;" in ended.stderr
