"""Networks as they come from the field: checkpoints with other tensors, ONNX of other inputs, records of the crop."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listed import samples_of, with_samples
from made_up_features import make
from made_up_networks import pictures, weights, write_clone
from PIL import Image
from torch import nn

from ig3d.errors import ModelError, UsageError
from ig3d.features.samples import Listing
from ig3d.learn.intermediate import checkpoint
from ig3d.learn.intermediate.table import load_feature_table
from ig3d.networks.load import NetworkSpec, load_network
from ig3d.networks.logits import LogitsConfig, write_logits

CPU = torch.device("cpu")
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Listing:
    return pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clone(tmp_path_factory.mktemp("clone"))


def prefixed(prefix: str, state: State | None = None) -> State:
    return {f"{prefix}{name}": value for name, value in (state or weights()).items()}


def loaded(clone: Path, content: object, tmp_path: Path, key: str = "") -> Any:
    torch.save(content, tmp_path / "w.pth")
    spec = NetworkSpec(
        f"{clone}:Net", weights=tmp_path / "w.pth", key=key, classes="affectnet8", columns="0:8", size=16
    )
    return load_network(spec, device=CPU)


ONE, SEVEN = torch.zeros(1), torch.ones(7)


@pytest.mark.parametrize(
    ("content", "unused"),
    [
        ({"state_dict": prefixed("model.") | {"criterion.weight": SEVEN}, "epoch": 3}, "criterion.weight"),
        (prefixed("model._orig_mod.") | {"loss_fn.pos_weight": ONE}, "loss_fn.pos_weight"),
        (prefixed("net.") | {"val_acc.tp": SEVEN, "val_acc.fp": SEVEN}, "val_acc.tp, val_acc.fp"),
        (prefixed("module.") | {"n_averaged": torch.tensor(5)}, "n_averaged"),
        (weights() | {"criterion.weight": SEVEN, "train_f1.total": ONE}, "criterion.weight, train_f1.total"),
        (weights() | {"body.total_ops": ONE, "total_params": ONE}, "body.total_ops, total_params"),
        (prefixed("student.") | prefixed("projector."), "projector.body.weight"),
        ([weights(), {"epoch": 3}], ""),
        (weights() | {"epoch": 3, "arch": "Net", "best": 0.5}, ""),
    ],
)
def test_tensors_beside_the_network_are_named_and_not_used(
    clone: Path, tmp_path: Path, content: Any, unused: str
) -> None:
    network = loaded(clone, content, tmp_path)
    state = network.opened.module.state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights().items())
    notes = [note for note in network.opened.notes if "not used" in note]
    assert len(notes) == bool(unused) and all(unused in note for note in notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({n: v for n, v in prefixed("model.").items() if "fc.bias" not in n}, r"1 missing \(fc.bias\)"),
        (prefixed("model.") | {"model.attention2.weight": ONE}, r"1 unknown \(attention2.weight\)"),
        (weights() | {"decoder.weight": ONE}, r"1 unknown \(decoder.weight\)"),
    ],
)
def test_a_layer_that_is_missing_or_unknown_is_still_an_error(
    clone: Path, tmp_path: Path, content: State, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        loaded(clone, content, tmp_path)


def test_two_different_copies_of_the_weights_are_chosen_by_key(clone: Path, tmp_path: Path) -> None:
    averaged = {name: value + 1 for name, value in weights().items()}
    both = prefixed("model.") | prefixed("ema_model.", averaged)
    with pytest.raises(
        ModelError, match=r"2 different sets .* \(model, ema_model\); choose with --key model"
    ):
        loaded(clone, both, tmp_path)
    network = loaded(clone, both, tmp_path, key="ema_model")
    assert torch.equal(network.opened.module.state_dict()["fc.bias"], averaged["fc.bias"])


# --- ONNX and other one-channel inputs ---


def mean_network(path: Path, shape: tuple[Any, ...], kind: str = "FLOAT", rank: int = 2) -> Path:
    """The mean of each channel of the input, repeated to three outputs."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    last = shape[3] in (1, 3)
    channels = shape[3] if last else shape[1]
    arrays = {
        "axes": np.array([1, 2] if last else [2, 3], np.int64),
        "repeat": np.ones((1, 3), np.float32) if channels == 1 else np.eye(3, dtype=np.float32),
        "form": np.array([-1, 3, 1, 1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "repeat"], ["y" if rank == 2 else "z"]),
    ]
    if rank == 4:
        nodes.append(helper.make_node("Reshape", ["z", "form"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("x", getattr(TensorProto, kind), shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def grey_means(samples: Listing) -> np.ndarray:
    """(n,) mean luma, 0 to 255, of the images."""
    images = [Image.open(Path(samples.root) / sample.path).convert("L") for sample in samples_of(samples)]
    return np.array([np.asarray(image, np.float64).mean() for image in images])


def outputs(samples: Listing, spec: NetworkSpec, tmp_path: Path) -> np.ndarray:
    write_logits(samples, spec, tmp_path / "x.npz", LogitsConfig(device="cpu"))
    with np.load(tmp_path / "x.npz") as arrays:
        return np.asarray(arrays["logits"])


@pytest.mark.parametrize("shape", [("n", 1, 16, 16), (1, 1, 16, 16), ("n", 16, 16, 1), (2, 16, 16, 1)])
def test_a_one_channel_network_is_fed_grey_values_from_0_to_1(
    samples: Listing, tmp_path: Path, shape: tuple[Any, ...]
) -> None:
    path = mean_network(tmp_path / "grey.onnx", shape)
    spec = NetworkSpec(str(path), classes="dataset")
    expected = np.repeat(grey_means(samples)[:, None], 3, axis=1) / 255
    np.testing.assert_allclose(outputs(samples, spec, tmp_path), expected, atol=1e-5)
    bytes_of = replace(spec, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    np.testing.assert_allclose(outputs(samples, bytes_of, tmp_path), 255 * expected, rtol=1e-4)
    zoo = replace(spec, preset="ferplus", classes="anger,happy,sad")
    np.testing.assert_allclose(outputs(samples, zoo, tmp_path), 255 * expected, rtol=1e-4)
    with pytest.raises(UsageError, match=r"colour: grey.onnx accepts only grey, not rgb"):
        load_network(replace(spec, colour="rgb"), device=CPU)
    with pytest.raises(
        UsageError, match=r"mean, std: grey\.onnx has one grey channel and needs one number each"
    ):
        load_network(replace(spec, mean=(0.1, 0.2, 0.3)), device=CPU)


def test_a_network_of_bytes_is_fed_bytes(samples: Listing, tmp_path: Path) -> None:
    path = mean_network(tmp_path / "bytes.onnx", ("n", 3, 16, 16), "UINT8")
    spec = NetworkSpec(str(path), classes="dataset")
    pixels = [
        np.asarray(Image.open(Path(samples.root) / one.path), np.float64) for one in samples_of(samples)
    ]
    expected = np.stack(pixels).mean((1, 2))
    np.testing.assert_allclose(outputs(samples, spec, tmp_path), expected, rtol=1e-5)
    with pytest.raises(UsageError, match=r"std: bytes.onnx accepts only"):
        load_network(replace(spec, std=(0.5,) * 3), device=CPU)


def test_outputs_with_axes_of_one_are_a_row_of_numbers(samples: Listing, tmp_path: Path) -> None:
    path = mean_network(tmp_path / "map.onnx", ("n", 3, 16, 16), rank=4)
    network = load_network(
        NetworkSpec(str(path), classes="dataset"), device=CPU, dataset_classes=samples.classes
    )
    assert network(torch.ones(2, 3, 16, 16)).logits.tolist() == [[1.0] * 3] * 2
    # a position names an output that has its own name
    assert load_network(
        NetworkSpec(str(path), classes="dataset", output="0"), device=CPU, dataset_classes=samples.classes
    ).columns.outputs == ("y",)


class Grey(nn.Module):
    """Three times the mean of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.conv.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean((2, 3)).expand(-1, 3)


def traced(path: Path) -> None:
    torch.jit.save(torch.jit.trace(Grey().eval(), torch.zeros(2, 1, 16, 16)), path)


def exported(path: Path) -> None:
    shapes = ({0: torch.export.Dim("n")},)
    torch.export.save(
        torch.export.export(Grey().eval(), (torch.zeros(2, 1, 16, 16),), dynamic_shapes=shapes), path
    )


@pytest.mark.parametrize(("name", "write"), [("net.pt", traced), ("net.pt2", exported)])
@pytest.mark.filterwarnings("ignore")
def test_one_channel_torch_files_are_fed_grey(
    samples: Listing, tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    write(tmp_path / name)
    got = outputs(samples, NetworkSpec(str(tmp_path / name), classes="dataset", size=16), tmp_path)
    np.testing.assert_allclose(got[:, 0], grey_means(samples) / 255, atol=1e-5)


# --- records of crop and pre-processing ---


def test_made_by_records_the_crop(samples: Listing, clone: Path, tmp_path: Path) -> None:
    boxed = with_samples(samples, [replace(one, box=(2.0, 2.0, 12.0, 12.0)) for one in samples_of(samples)])
    spec = NetworkSpec(f"{clone}:Net(3)", classes="dataset", size=16, features="auto")
    found = {}
    for crop, scale in ((None, 1.0), (None, 1.5), ("whole", 1.0)):
        config = LogitsConfig(device="cpu", crop=crop, crop_scale=scale)
        write_logits(boxed, spec, tmp_path / "x.npz", config)
        with np.load(tmp_path / "x.npz") as arrays:
            made_by = json.loads(str(arrays["made_by"]))
            found[made_by["crop"], made_by["crop_scale"]] = str(arrays["feature_network"])
        assert made_by["input"]["size"] == 16
    assert set(found) == {("dataset", 1.0), ("dataset", 1.5), ("whole", 1.0)}


def record(path: Path, network: str, **changes: Any) -> None:
    """Give a file of features the record of ``ig3d logits``."""
    made_by = {
        "network": "net.pt",
        "sha256": "a" * 64,
        "input": {"size": 64},
        "crop": "dataset",
        "crop_scale": 1.0,
    }
    with np.load(path) as arrays:
        content = dict(arrays)
    content |= {"made_by": np.array(json.dumps(made_by | changes)), "feature_network": np.array(network)}
    np.savez(path, **content)


def test_fuse_features_warns_of_another_crop_and_refuses_another_network(
    ig3d: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path / "a", 120)
    record(made.features, "net.pt pre_logits 0000000000000000")
    common = ("fuse-features", "--features", made.features, "--3d-store", made.store)
    ended = ig3d(
        *common,
        "--module",
        "linear",
        "--epochs",
        1,
        "--no-controls",
        "--draws",
        100,
        "--out",
        tmp_path / "run",
    )
    assert ended.returncode == 0, ended.stderr
    apply = (*common, "--apply", tmp_path / "run/codes-0.safetensors", "--out", tmp_path / "y.npz")
    assert "WARNING the module" not in ig3d(*apply).stderr
    record(made.features, "net.pt pre_logits 1111111111111111", crop_scale=1.5)
    ended = ig3d(*apply)
    assert ended.returncode == 0, ended.stderr
    warning = "WARNING the module was trained with another input of the 2D network:"
    assert f"{warning} crop_scale 1, now crop_scale 1.5." in " ".join(ended.stderr.split())
    record(made.features, "net.pt pre_logits 2222222222222222", input={"size": 96})
    ended = ig3d(*apply)
    assert ended.returncode == 0 and f"{warning} size 64, now size 96." in " ".join(ended.stderr.split())

    def stop(text: str) -> None:
        raise KeyboardInterrupt(text)

    loaded = checkpoint.load_module(tmp_path / "run/codes-0.safetensors")
    features = load_feature_table(made.features, made.store)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt, match="now size 96"):
        patched.setattr(checkpoint, "predict_new_rows", lambda *_: pytest.fail("the warning comes too late"))
        checkpoint.apply_module(loaded, features, notify=stop)
    record(made.features, "net.pt pre_logits 3333333333333333", sha256="b" * 64)
    ended = ig3d(*apply)
    assert ended.returncode == 1 and "those of the training of net.pt" in ended.stderr
    record(made.features, "net.pt layer4 1111111111111111", crop_scale=1.5)
    assert ig3d(*apply).returncode == 1, "another layer is another feature with any crop"
