"""End to end: both parts learn, from the network's own 2D weights, by the same protocol; bad input is one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from listed import Sample, listing_of, samples_of, with_samples
from PIL import Image

from ig3d.errors import DatasetError, ModelError, PredictionsError, ProtocolError, UsageError
from ig3d.features.inputs import Inputs
from ig3d.features.join import load_table
from ig3d.features.predictions import load_predictions
from ig3d.features.samples import Listing, Split
from ig3d.features.store.format import StoreInfo
from ig3d.features.store.writer import StoreWriter
from ig3d.features.values import Block, Rows, Status
from ig3d.learn.config import FuseConfig
from ig3d.learn.evaluate.figures import figure
from ig3d.learn.intermediate.checkpoint import check_fits, load_module, save_module
from ig3d.learn.intermediate.config import IntermediateConfig
from ig3d.learn.intermediate.fit import training_data
from ig3d.learn.intermediate.plan import plan_modules
from ig3d.learn.intermediate.run import train_route
from ig3d.learn.plan import plan_fusion
from ig3d.networks.joint import JointConfig, JointNetwork, apply_joint, open_route
from ig3d.networks.joint_start import load_joint
from ig3d.networks.load import NetworkSpec
from ig3d.networks.logits import LogitsConfig, write_logits
from ig3d.networks.train import train_2d
from ig3d.networks.train_config import TrainConfig

CLASSES = ("happy", "sad", "fear")
QUICK = IntermediateConfig(module="linear", epochs=8, batch_size=16, width=8, lr=1e-2, draws=100, mixed=False)
SPLITS = (Split.train, Split.train, Split.val, Split.test)


def pictures(root: Path, n: int = 160) -> Listing:
    """Dataset in which brightness shows happy or not, and only the codes distinguish sad from fear."""
    rng = np.random.default_rng(0)
    samples = []
    for row in range(n):
        label = int(rng.integers(0, 3))
        base = 170 if label == 0 else 90
        pixels = np.clip(rng.normal(base, 40, (24, 24, 3)), 0, 255).astype(np.uint8)
        path = f"{row:04d}.png"
        Image.fromarray(pixels).save(root / path)
        samples.append(
            Sample(
                f"{row:04d}", path, label, SPLITS[row % 4], valence=(label - 1) / 2, arousal=(1 - label) / 2
            )
        )
    return listing_of("made-up", str(root), CLASSES, tuple(samples))


def store_of(samples: Listing, path: Path, *, missing: tuple[int, ...] = ()) -> Path:
    rng = np.random.default_rng(1)
    n = len(samples)
    codes = {"expression": rng.normal(0, 0.5, (n, 4)).astype(np.float32)}
    codes["expression"][np.arange(n), samples.labels] += 3
    codes["jaw"] = rng.normal(0, 0.1, (n, 3)).astype(np.float32)
    for block in codes.values():
        block[list(missing)] = np.nan
    status = np.full(n, Status.ok, np.int8)
    status[list(missing)] = Status.no_face
    pending = Rows.pending(n, {})
    fields = {name: getattr(pending, name) for name in Rows.__slots__}
    blocks = {"expression": Block(4, "1", "toy-1", "four"), "jaw": Block(3, "rad", "toy-1", "three")}
    with StoreWriter(path, StoreInfo("made-up", "/data", CLASSES), samples.samples, blocks) as writer:
        writer.write(0, Rows(**fields | {"status": status, "codes": codes}))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Listing, Path]:
    """Pictures, and in one folder their store, a 2D network, and its predictions."""
    folder = tmp_path_factory.mktemp("joint")
    (folder / "pictures").mkdir()
    samples = pictures(folder / "pictures")
    store_of(samples, folder / "3d.h5", missing=(1,))
    train_2d(samples, TrainConfig(size=32, epochs=10, device="cpu", jobs=1), folder / "2d.safetensors")
    write_logits(
        samples, folder / "2d.safetensors", folder / "2d.npz",
        LogitsConfig(splits=("val", "test"), device="cpu", jobs=1),
    )  # fmt: skip
    return samples, folder


def route_of(made: tuple[Listing, Path], **options):
    samples, folder = made
    spec = NetworkSpec(str(options.pop("network", folder / "2d.safetensors")))
    inputs = Inputs(folder / "2d.npz", options.pop("store", folder / "3d.h5"))
    # the store has another block, which a checkpoint does not ask for
    return open_route(samples, spec, inputs, device="cpu", **{"blocks": "expression"} | options)


@pytest.mark.parametrize("module", ["linear", "attention"])
def test_both_parts_are_in_the_optimiser_and_learn(made, module: str) -> None:
    route = route_of(made)
    config = IntermediateConfig(module=module, width=8)
    data = training_data(
        route, plan_modules(route.table, route.has_input, config, input_name="image"), "codes", 0
    )
    model = route.build(data, config)
    assert isinstance(model, JointNetwork)
    # it starts from the 2D network's own weights
    start = route.start.module.state_dict()
    assert all(torch.equal(value, start[name]) for name, value in model.network.state_dict().items())
    groups = route.groups(model, config)
    optimised = {id(parameter) for group in groups for parameter in group["params"]}  # type: ignore[attr-defined]
    assert optimised == {id(parameter) for parameter in model.parameters()}
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    assert {rates[id(p)] for p in model.network.parameters()} == {1e-4}
    assert {rates[id(p)] for p in model.fusion.parameters()} == {1e-3}
    rows = data.train[:8]
    pixels = data.inputs(rows, None)
    assert model.fusion.spec.shape == ((96,) if module == "linear" else (96, 1, 1))
    model(pixels, data.codes[rows], data.blocks_present(rows)).square().sum().backward()
    for part in (model.network, model.fusion):
        moved = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in part.parameters()]
        assert sum(moved) > 0.9 * len(moved)


def test_codes_add_what_only_they_tell_and_the_rest_is_the_same_protocol(made, tmp_path: Path) -> None:
    samples, folder = made
    result = train_route(route_of(made), replace(QUICK, epochs=25, width=32), tmp_path / "out")
    figures = result.figures["classes"]
    assert figure(figures, "intermediate", "accuracy", versus="null-input").low > 0
    assert figure(figures, "intermediate", "accuracy", condition="permuted", versus="null-input").low <= 0
    written = load_predictions(tmp_path / "out/codes-0.npz")
    assert written.ids is not None
    assert written.ids.tolist() == [
        sample.id for sample in samples_of(samples) if sample.split != Split.train
    ]
    # the trained network went elsewhere than it began
    loaded, start = load_joint(tmp_path / "out/codes-0.safetensors")
    before = route_of(made).start.module.state_dict()
    name = next(name for name, _ in start.module.named_parameters())
    assert not torch.equal(start.module.state_dict()[name], before[name])
    # and gives the predictions that were written
    applied = apply_joint(
        tmp_path / "out/codes-0.safetensors",
        samples,
        Inputs(folder / "2d.npz", folder / "3d.h5"),
        device="cpu",
    )
    assert applied.ids.tolist() == written.ids.tolist()
    np.testing.assert_allclose(applied.values, written.values, rtol=1e-4, atol=1e-5)
    assert loaded.info.training["condition"] == "codes"
    # it remembers what either part learnt from
    assert set(route_of(made).start.seen) <= set(loaded.train)
    assert applied.notes[0].startswith("80 rows left out")


def test_the_same_seed_gives_the_same_bytes_also_when_interrupted(made, tmp_path: Path) -> None:
    config = replace(QUICK, controls=False, seeds=(0, 1), epochs=2)

    def stop(arm: str, seed: int, done: float, epoch: object) -> None:
        if seed == 1:
            raise KeyboardInterrupt

    train_route(route_of(made), config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_route(route_of(made), config, tmp_path / "parts", watch=stop)
    train_route(route_of(made), config, tmp_path / "parts")
    for name in ("codes-0.safetensors", "codes-1.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_rows_that_the_2d_network_learnt_from_are_never_reported(made, tmp_path: Path) -> None:
    route = route_of(made)
    assert (route.row >= 0).all()
    samples, folder = made
    # the same pictures listed anew: what was train is test
    other = {Split.train: Split.test, Split.test: Split.train, Split.val: Split.train}
    turned = [
        Sample(s.id, s.path, s.label, other[s.split], s.valence, s.arousal) for s in samples_of(samples)
    ]
    listed = listing_of("turned", samples.root, CLASSES, tuple(turned))
    store = store_of(listed, tmp_path / "3d.h5")
    spec = NetworkSpec(str(folder / "2d.safetensors"))
    turned_route = open_route(listed, spec, Inputs(folder / "2d.npz", store), device="cpu")
    assert not turned_route.has_input[turned_route.table.split == Split.test].any()
    assert turned_route.has_input[turned_route.table.split == Split.train].all()
    assert turned_route.table.notes[-1].endswith("on their images: 80 test rows")


def test_predictions_of_another_network_are_refused_unless_forced(made, tmp_path: Path) -> None:
    samples, folder = made
    other = tmp_path / "other.safetensors"
    train_2d(samples, TrainConfig(size=32, epochs=1, seed=5, device="cpu", jobs=1), other)
    with pytest.raises(PredictionsError, match=r"2d\.npz: .* not of the network that is trained.*--force$"):
        route_of(made, network=other)
    route = route_of(made, network=other, force=True)
    assert any(note.startswith("WARNING 2d.npz: the predictions are of") for note in route.table.notes)
    # a file that does not say what made it is taken
    with np.load(folder / "2d.npz") as arrays:
        kept = {name: arrays[name] for name in arrays.files if name != "made_by"}
    np.savez(tmp_path / "2d.npz", **kept)
    inputs = Inputs(tmp_path / "2d.npz", folder / "3d.h5")
    route = open_route(samples, NetworkSpec(str(other)), inputs, device="cpu")
    assert not any("WARNING" in note for note in route.table.notes)


def test_predictions_of_training_images_are_not_accepted_as_out_of_fold(made, tmp_path: Path) -> None:
    samples, folder = made
    every = LogitsConfig(splits=("train", "val", "test"), device="cpu", jobs=1)
    write_logits(samples, folder / "2d.safetensors", tmp_path / "all.npz", every)
    table = load_table(Inputs(tmp_path / "all.npz", folder / "3d.h5"))
    plan_fusion(table, FuseConfig())
    with pytest.raises(ProtocolError, match=r"2d-out-of-fold: .*all\.npz records .* images of 80 rows"):
        plan_fusion(table, FuseConfig(two_d_out_of_fold=True))
    assert load_table(Inputs(folder / "2d.npz", folder / "3d.h5")).two_d_training_rows == 0


def test_bad_input_is_one_line(made, tmp_path: Path) -> None:
    samples, folder = made
    (tmp_path / "net.onnx").write_bytes(b"")
    with pytest.raises(UsageError, match="ig3d fuse-features"):
        route_of(made, network=tmp_path / "net.onnx")
    renamed = listing_of(
        "other",
        samples.root,
        CLASSES,
        tuple(Sample(f"x{s.id}", s.path, s.label, s.split) for s in samples_of(samples)),
    )
    with pytest.raises(DatasetError, match=r"is in 3d\.h5 \(0000, 0001 and 158 more\)"):
        route_of((renamed, folder))
    with pytest.raises(UsageError, match="network-lr"):
        JointConfig(network_lr=0)
    train_route(route_of(made), replace(QUICK, epochs=1, controls=False), tmp_path / "out")
    module = load_module(tmp_path / "out/codes-0.safetensors")
    assert module.info.joint["architecture"] == "test_resnet"
    with pytest.raises(ModelError, match="apply it with ig3d train-joint --apply"):
        check_fits(module, route_of(made).table, network="any", shape=module.info.spec.shape)

    none = np.zeros(0, np.int64)
    save_module(
        tmp_path / "features.safetensors",
        module.module,
        replace(module.info, joint={}),
        train=none,
        validation=none,
    )
    with pytest.raises(ModelError, match="apply it with ig3d fuse-features"):
        load_joint(tmp_path / "features.safetensors")
    described = replace(module.info, joint=module.info.joint | {"architecture": "test_vit"})
    save_module(
        tmp_path / "wrong.safetensors",
        module.module,
        described,
        train=none,
        validation=none,
        network=module.network,
    )
    with pytest.raises(ModelError, match="the weights do not fit test_vit"):
        load_joint(tmp_path / "wrong.safetensors")


def test_the_command(ig3d, made, tmp_path: Path) -> None:
    samples, folder = made
    table = "path,label,split,valence,arousal\n" + "".join(
        f"{s.path},{CLASSES[s.label]},{s.split.name},{s.valence},{s.arousal}\n" for s in samples_of(samples)
    )
    (folder / "pictures/manifest.csv").write_text(table)
    common = [
        "train-joint", folder / "pictures", "--dataset", "manifest", "--2d-logits", folder / "2d.npz", "--3d-store",
        folder / "3d.h5", "--device", "cpu",
    ]  # fmt: skip
    network = ("--network", folder / "2d.safetensors")
    # splits are those of the store
    ended = ig3d(*common, *network, "--split", "0.6,0.2,0.2", "--out", tmp_path / "out")
    assert ended.returncode == 2 and "--split" in ended.stderr
    ended = ig3d(*common, "--out", tmp_path / "out")
    assert ended.returncode == 2 and "network: pass --network" in ended.stderr
    ended = ig3d(
        *common, *network, "--module", "gate", "--epochs", 1, "--width", 4, "--draws", 100, "--no-controls", "--out",
        tmp_path / "out", "--blocks", "expression",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "40 rows of" in ended.stdout and "gate trained 1 time on" in ended.stdout
    apply = ("--apply", tmp_path / "out/codes-0.safetensors", "--out", tmp_path / "again.npz")
    ended = ig3d(*common, *network, *apply)
    assert ended.returncode == 2 and "leave out --network" in ended.stderr
    assert not (tmp_path / "again.npz").exists()
    ended = ig3d(*common, *apply)
    assert ended.returncode == 0, ended.stderr
    assert "80 rows, predicted by gate" in ended.stdout
    assert "it is replaced" not in ended.stderr
    assert "again.npz: exists; it is replaced" in ig3d(*common, *apply).stderr


def test_another_crop_than_that_of_the_training_is_reported_before_the_images_are_read(
    made, tmp_path: Path
) -> None:
    samples, folder = made
    warning = "WARNING test_resnet was trained with another input: crop whole, now crop dataset"
    assert not any("WARNING" in note for note in route_of(made).table.notes)
    boxed = with_samples(samples, [replace(one, box=(2.0, 2.0, 20.0, 20.0)) for one in samples_of(samples)])
    assert any(warning in note for note in route_of((boxed, folder)).table.notes)

    def stop(text: str) -> None:  # called before the store and the images are read
        raise KeyboardInterrupt(text)

    with pytest.raises(KeyboardInterrupt, match=warning):
        route_of((boxed, folder), store=tmp_path / "none.h5", notify=stop)
    train_route(route_of(made), replace(QUICK, epochs=1, controls=False), tmp_path / "out")
    checkpoint, inputs = tmp_path / "out/codes-0.safetensors", Inputs(folder / "2d.npz", folder / "3d.h5")
    applied = apply_joint(checkpoint, boxed, inputs, device="cpu")
    assert warning in applied.notes[0]
    assert not any("WARNING" in note for note in apply_joint(checkpoint, samples, inputs, device="cpu").notes)
    with pytest.raises(KeyboardInterrupt, match=warning):
        apply_joint(checkpoint, boxed, Inputs(folder / "2d.npz", tmp_path / "none.h5"), notify=stop)


def test_valence_and_arousal_from_a_network_for_them(made, tmp_path: Path) -> None:
    samples, folder = made
    train_2d(
        samples, TrainConfig(size=32, epochs=1, task="va", device="cpu", jobs=1), tmp_path / "va.safetensors"
    )
    splits = LogitsConfig(splits=("val", "test"), device="cpu", jobs=1)
    write_logits(samples, tmp_path / "va.safetensors", tmp_path / "va.npz", splits)
    inputs = Inputs(tmp_path / "va.npz", folder / "3d.h5")
    route = open_route(samples, NetworkSpec(str(tmp_path / "va.safetensors")), inputs, device="cpu")
    result = train_route(route, replace(QUICK, epochs=14, controls=False), tmp_path / "out")
    assert figure(result.figures["va"], "intermediate", "ccc_joint", versus="2d").low > 0
    written = load_predictions(tmp_path / "out/codes-0.npz")
    assert written.kind == "va" and np.abs(written.values).max() <= 1


@pytest.mark.gpu
def test_mixed_precision_end_to_end(made, tmp_path: Path) -> None:
    samples, folder = made
    inputs = Inputs(folder / "2d.npz", folder / "3d.h5")
    route = open_route(samples, NetworkSpec(str(folder / "2d.safetensors")), inputs, device="cuda")
    result = train_route(route, replace(QUICK, mixed=True, module="attention", epochs=4), tmp_path / "out")
    assert figure(result.figures["classes"], "intermediate", "accuracy", versus="null-input").value > 0.1
