"""Loading of all kinds of networks: equal outputs, and one-line errors for networks and options that do not fit."""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from listed import samples_of
from made_up_networks import features_by_formula, outputs_by_formula, pictures, weights, write_clone
from safetensors.torch import save_file
from torch import nn

from ig3d.errors import Ig3dError, MissingExtra, ModelError, UsageError
from ig3d.features.predictions import load_predictions
from ig3d.features.samples import Listing
from ig3d.networks.load import NetworkSpec, load_network
from ig3d.networks.load.python_file import parse
from ig3d.networks.load.state import read_state
from ig3d.networks.logits import LogitsConfig, write_logits

CPU = torch.device("cpu")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
AFFECTNET = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Listing:
    return pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``net.py`` of a clone, with ``net.pth`` beside it."""
    path = write_clone(tmp_path_factory.mktemp("clone"))
    torch.save(
        {"epoch": 3, "model_state_dict": weights(), "optimizer": {"lr": 0.1}}, path.with_suffix(".pth")
    )
    return path


def spec(clone: Path, call: str = "Net", **options: Any) -> NetworkSpec:
    """The clone's network as a user would name it."""
    known = {
        "classes": "affectnet8", "columns": "0:8", "va": "8,9", "size": 16, "mean": MEAN, "std": STD,
        "weights": clone.with_suffix(".pth"), "key": "model_state_dict",
    }  # fmt: skip
    return NetworkSpec(f"{clone}:{call}", **(known | options))


def written(samples: Listing, network: Any, tmp_path: Path, **config: Any) -> dict[str, np.ndarray]:
    write_logits(samples, network, tmp_path / "x.npz", LogitsConfig(device="cpu", **config))
    with np.load(tmp_path / "x.npz") as file:
        return {name: file[name] for name in file.files}


def expected(samples: Listing) -> np.ndarray:
    return outputs_by_formula(features_by_formula(samples, MEAN, STD))


# --- each kind ---


def the_module() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 10)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            feat = self.body(x).mean((2, 3))
            return self.fc(feat), feat

    net = Net().eval()
    net.load_state_dict({name: value for name, value in weights().items() if "attention" not in name})
    return net


def torchscript(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(the_module(), torch.zeros(2, 3, 16, 16)), path / "net.pt")
    return path / "net.pt"


def exported(path: Path, *, rows: int | None = None) -> Path:
    shapes = None if rows else ({0: torch.export.Dim("n")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            the_module(), (torch.zeros(rows or 2, 3, 16, 16),), dynamic_shapes=shapes
        )
        torch.export.save(program, path / "net.pt2")
    return path / "net.pt2"


def exported_for_three(path: Path) -> Path:
    return exported(path, rows=3)


def onnx_file(path: Path, *, shape: tuple[Any, ...] = ("n", 3, 16, 16), nan: bool = False) -> Path:
    """Mean colours, then one linear layer of the product of both of ``Net``'s."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    state = {name: tensor.numpy() for name, tensor in weights().items()}
    last = shape[3] == 3
    body = state["body.weight"][:, :, 0, 0]
    arrays = {
        "b": body.T, "c": state["body.bias"], "w": state["fc.weight"].T,
        "d": state["fc.bias"] + (np.nan if nan else 0), "axes": np.array([1, 2] if last else [2, 3], np.int64),
    }  # fmt: skip
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
        helper.make_node("Gemm", ["means", "b", "c"], ["features"]),
        helper.make_node("Gemm", ["features", "w", "d"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, (shape[0], 10)),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, (shape[0], 4)),
        ],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path / "net.onnx")
    return path / "net.onnx"


def onnx_channels_last_one_by_one(path: Path) -> Path:
    return onnx_file(path, shape=(1, 16, 16, 3))


KINDS = [torchscript, exported, exported_for_three, onnx_file, onnx_channels_last_one_by_one]


@pytest.mark.parametrize("make", KINDS)
def test_exported_networks_give_the_outputs_of_the_formula(
    samples: Listing, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)
    size = 16 if path.suffix == ".pt" else None  # the other files say it themselves
    output = "logits" if path.suffix == ".onnx" else "0"
    features = "output:features" if path.suffix == ".onnx" else "output:1"
    network = NetworkSpec(
        str(path), classes="affectnet8", output=output, columns="0:8", va="8,9", size=size, mean=MEAN, std=STD,
        features=features,
    )  # fmt: skip
    for batch_size in (1, 4, 64):
        got = written(samples, network, tmp_path, batch_size=batch_size)
        assert got["ids"].tolist() == [sample.id for sample in samples_of(samples)]
        np.testing.assert_allclose(got["logits"], expected(samples)[:, :8], atol=1e-5)
        np.testing.assert_allclose(got["va"], np.clip(expected(samples)[:, 8:], -1, 1), atol=1e-5)
        np.testing.assert_allclose(got["features"], features_by_formula(samples, MEAN, STD), atol=1e-5)
    with pytest.raises(UsageError, match=r"features: layers of net.* cannot be accessed .*output:NAME"):
        load_network(replace(network, features="auto"), device=CPU)
    if path.suffix != ".pt":
        with pytest.raises(UsageError, match=r"size: net.* accepts only 16, not 32"):
            load_network(replace(network, size=32), device=CPU)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_class_in_a_python_file_gives_the_outputs_of_the_formula(
    samples: Listing, clone: Path, tmp_path: Path, batch_size: int
) -> None:
    path = list(sys.path)
    got = written(samples, spec(clone, "Net(form='triple')", output="0"), tmp_path, batch_size=batch_size)
    np.testing.assert_allclose(got["logits"], expected(samples)[:, :8], atol=1e-5)
    np.testing.assert_allclose(got["va"], np.clip(expected(samples)[:, 8:], -1, 1), atol=1e-5)
    assert got["classes"].tolist() == list(AFFECTNET)
    assert sys.path == path and "net" not in sys.modules
    assert load_predictions(tmp_path / "x.npz").columns == AFFECTNET
    va = load_predictions(tmp_path / "x.npz", task="va")
    np.testing.assert_allclose(va.values, got["va"])


def test_a_file_in_the_middle_of_a_package_finds_its_neighbours(
    samples: Listing, clone: Path, tmp_path: Path
) -> None:
    for folder, factor in (("a", 1), ("b", 2)):
        write_clone(tmp_path / folder)
        (tmp_path / folder / "layers.py").write_text(
            f"def pooled(maps):\n    return {factor} * maps.mean((2, 3))\n"
        )
        source = (tmp_path / folder / "net.py").read_text().replace("from layers", "from .layers")
        (tmp_path / folder / "net.py").write_text(source)
    files = [
        written(
            samples,
            replace(spec(clone), network=f"{tmp_path / folder / 'net.py'}:Net", features="auto"),
            tmp_path,
        )
        for folder in ("a", "b")
    ]
    np.testing.assert_allclose(files[0]["logits"], expected(samples)[:, :8], atol=1e-5)
    np.testing.assert_allclose(files[1]["features"], 2 * files[0]["features"], atol=1e-5)
    assert str(files[0]["feature_network"]) != str(files[1]["feature_network"])


def test_a_note_reports_that_a_python_file_was_executed(
    samples: Listing, clone: Path, tmp_path: Path
) -> None:
    result = write_logits(samples, spec(clone), tmp_path / "x.npz")
    assert any(str(note).startswith(f"{clone} was executed") for note in result.notes)
    assert any("does not record its training images" in note for note in result.notes)


def test_a_function_without_weights_may_return_any_callable(
    samples: Listing, clone: Path, tmp_path: Path
) -> None:
    plain = NetworkSpec(f"{clone}:plain", classes="dataset", size=16, mean=MEAN, std=STD)
    got = written(samples, plain, tmp_path)
    assert got["classes"].tolist() == ["anger", "happy", "sad"]
    assert got["logits"].shape == (7, 3)
    with pytest.raises(UsageError, match="weights: --weights needs a torch module, but plain returns"):
        load_network(replace(plain, weights=clone.with_suffix(".pth")), device=CPU)


@pytest.fixture(scope="module")
def timm_state() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model("test_byobnet.r160_in1k", num_classes=7).state_dict()


def timm_spec(path: Path, **options: Any) -> NetworkSpec:
    return NetworkSpec(
        "timm:test_byobnet.r160_in1k", weights=path, **({"classes": "rafdb", "size": 32} | options)
    )


def test_timm_architectures_take_their_input_and_width_from_timm_and_the_weights(
    samples: Listing, timm_state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(
        {"state_dict": {f"model.{name}": value for name, value in timm_state.items()}}, tmp_path / "w.ckpt"
    )
    network = load_network(timm_spec(tmp_path / "w.ckpt", size=None), device=CPU)
    config = timm.data.resolve_model_data_config(network.opened.module)
    assert (network.input.size, network.input.mean, network.input.std) == (
        config["input_size"][1], config["mean"], config["std"]
    )  # fmt: skip
    assert network.input.interpolation == config["interpolation"]
    module = timm.create_model("test_byobnet.r160_in1k", num_classes=7).eval()
    module.load_state_dict(timm_state)
    images = torch.randn((4, 3, 160, 160), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(network(images).logits, module(images))
    assert any("removed the prefix 'model.'" in note for note in network.opened.notes)


# --- weights ---


class Whole(nn.Module):
    """Saved whole, as some repositories do."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
        self.register_buffer("apart", torch.zeros(1), persistent=False)


def test_weights_are_found_in_all_their_wrappings(tmp_path: Path) -> None:
    whole, path = Whole(), tmp_path / "w.pth"
    state = whole.state_dict()

    def read(content: object, key: str = "") -> dict[str, np.ndarray]:
        torch.save(content, path)
        return read_state(path, key)

    parallel = {f"module.{name}": value for name, value in state.items()}
    for found in (
        read(state), read(whole), read({"net": whole, "epoch": 1}), read({"a": {"b": state}, "c": state}, "a.b"),
        read({"model_state_dict": state, "optimizer": {"state": {}, "lr": [1]}}),
    ):  # fmt: skip
        assert list(found) == list(state)
        assert all(np.array_equal(found[name], state[name].numpy()) for name in state)
    assert list(read(parallel)) == list(parallel)
    save_file(state, tmp_path / "w.safetensors")
    assert set(read_state(tmp_path / "w.safetensors", "")) == set(state)
    for content, key, message in (
        (
            {"model": state, "ema": state},
            "",
            r"several entries have weights \(ema, model\); choose with --key",
        ),
        ({"model": state}, "state_dict", r"the entry 'state_dict' .* does not exist; there are model"),
        ({"epoch": 3}, "", "no entry has named weights .entries: epoch"),
    ):
        with pytest.raises(ModelError, match=message):
            read(content, key)


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, ("exploded",)


def test_foreign_objects_in_a_checkpoint_are_never_built(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"args": Bomb(), "model_state_dict": weights()}, tmp_path / "w.pth")
    load_network(spec(clone, weights=tmp_path / "w.pth"), device=CPU)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: weights(7), r"2 of another shape \(fc.weight \(7, 4\), not \(10, 4\), fc.bias"),
        (lambda state: {**state, "head.w": torch.zeros(1)}, r"1 unknown \(head.w\)"),
        (
            lambda state: {name: value for name, value in state.items() if "fc" not in name},
            r"the 6 tensors of the network: 2 missing \(fc.weight, fc.bias\)",
        ),
        (lambda state: {"a.b.c": torch.zeros(1)}, "6 missing .* and 3 more"),
    ],
)
def test_weights_that_do_not_fit_are_counted(
    clone: Path, tmp_path: Path, change: Callable[..., Any], message: str
) -> None:
    torch.save(change(weights()), tmp_path / "w.pth")
    with pytest.raises(ModelError, match=message) as caught:
        load_network(spec(clone, weights=tmp_path / "w.pth", key=""), device=CPU)
    assert "\n" not in str(caught.value)


# --- refusals ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": "0:11"}, r"columns: '0:11' must contain existing columns, each once; .* 10 \(0 to 9\)"),
        ({"columns": "0:8,0"}, "columns: .* each once"),
        ({"columns": "-1,2"}, "columns: .* each once"),
        ({"columns": "first"}, "columns: 'first' is not a list of columns"),
        ({"va": "8"}, "va: '8' must be two columns"),
        ({"va": "7,8"}, r"columns, va: columns \[7\] are in both"),
        ({"classes": "rafdb"}, r"8 columns, not 7 classes \(surprise.*neutral\)"),
        (
            {"classes": "", "columns": "", "va": ""},
            "classes: no names for 10 columns of net.py:Net; pass --classes",
        ),
        ({"output": "1"}, r"output: the network has no output 1; choose from 0 \(3, 10\)"),
        ({"preset": "resnet"}, "preset: 'resnet' is unknown; choose one of ddamfn"),
        ({"classes": "dataset"}, "classes: --classes dataset needs a dataset with classes"),
        (
            {"features": "fc2"},
            r"features: net.py:Net has no layer 'fc2'.* one of body, attention, fc",
        ),
        ({"features": "output:1"}, "features: there is no output:1; choose output:0"),
        (
            {"features": "auto", "feature_maps": True},
            "features: auto does not work with net.py:Net .for maps",
        ),
        (
            {"features": "fc", "feature_maps": True},
            r"features: the shape is \(3, 10\) .*, not maps \(n, c, h, w\)",
        ),
        ({"feature_maps": True}, "feature maps: --feature-maps needs --features"),
        ({"size": 4}, "size.* 8 to 2048"),
        ({"std": (0.1, 0.0, 1.0)}, "std: .*numbers above 0"),
        ({"mean": (0.5,)}, "mean, std: .*three numbers each"),
        ({"colour": "cmyk"}, "colour: .*one of rgb, bgr, grey"),
        ({"interpolation": "area"}, "interpolation: .*one of bilinear, bicubic"),
    ],
)
def test_what_does_not_fit_the_network_is_a_usage_error(
    clone: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_network(spec(clone, **options), device=CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            "Net(form='triple')",
            "the network has 2 outputs .* 0 .3, 10., 1 .3, 4, 16, 16..; choose with --output",
        ),
        ("Batchy", "of an image change by"),
        ("Random", "of an image change by"),
        ("nan", "outputs are not finite"),
        ("broken", "broken failed with RuntimeError: no such file: pretrained.pth;"),
        ("missing", "net.py has no missing; it defines .*Net, .*Batchy"),
        ("Net(rows=3)", "TypeError: .*unexpected keyword argument 'rows'"),
        ("Net(open('x'))", "not of the form file.py:name or file.py:name"),
        ("os.getcwd", "not of the form file.py:name"),
        ("Settings", "Settings returns Settings, not a network"),
    ],
)
def test_networks_of_a_clone_that_cannot_be_are_refused_in_one_line(
    clone: Path, call: str, message: str
) -> None:
    network = NetworkSpec(f"{clone}:{call}", classes="anger,happy,sad", size=16)
    with pytest.raises(Ig3dError, match=message) as caught:
        load_network(network, device=CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "noise"])
def test_files_without_code_are_not_given_to_torchscript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "x.pt"
    if kind in ("zip", "legacy"):
        torch.save(weights(), path, _use_new_zipfile_serialization=kind == "zip")
    else:
        path.write_bytes(pickle.dumps(Bomb()) if kind == "pickle" else bytes(range(256)))
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("torch.jit.load was called"))
    with pytest.raises(ModelError, match="no TorchScript network"):
        load_network(NetworkSpec(str(path), classes="rafdb"), device=CPU)


def test_networks_that_are_not_there_or_another_thing(tmp_path: Path, clone: Path) -> None:
    state = tmp_path / "state.pth"
    torch.save(weights(), state)
    (tmp_path / "p.pt").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "e.pt2").write_bytes(b"PK\x03\x04 nothing")
    for name, message in (
        (tmp_path / "no.pt", "the file does not exist"),
        (tmp_path / "net.h5", r"network: .* is not a file .* timm:NAME, file.py:build or fer"),
        (
            state,
            "it contains weights, not a network; pass --network timm:NAME or file.py:build with --weights",
        ),
        (tmp_path / "p.pt", "no TorchScript network"),
        (tmp_path / "e.pt2", "torch.export cannot read this file"),
        ("no/net.py:Net", "the Python file .* does not exist"),
        ("timm:nix", "timm has no network 'nix'; names are, for example, resnet18"),
        ("timm:resnet19", "timm has no network 'resnet19'; similar names: resnet"),
        ("timm:resnet18", "pass its trained weights with --weights"),
    ):
        with pytest.raises(Ig3dError, match=message) as caught:
            load_network(NetworkSpec(str(name), classes="rafdb"), device=CPU)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"no.pth: the checkpoint does not exist"):
        load_network(spec(clone, weights=tmp_path / "no.pth"), device=CPU)
    with pytest.raises(UsageError, match="--weights and --key are only for timm:NAME"):
        load_network(NetworkSpec(str(state), weights=state), device=CPU)


def test_onnx_files_that_cannot_be_run(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    options = {"classes": "affectnet8", "columns": "0:8", "output": "logits"}
    with pytest.raises(ModelError, match="outputs are not finite"):
        load_network(NetworkSpec(str(onnx_file(tmp_path, nan=True)), **options), device=CPU)
    onnx = pytest.importorskip("onnx")
    given, got = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("n", 4, 16, 16))
        for name in ("x", "y")
    )
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "four", [given], [got])
    onnx.save(onnx.helper.make_model(graph, ir_version=9), tmp_path / "four.onnx")
    with pytest.raises(ModelError, match=r"4, 16, 16.*; one input of floats"):
        load_network(NetworkSpec(str(tmp_path / "four.onnx"), **options), device=CPU)
    content = onnx_file(tmp_path).read_bytes()
    for name in (b"logits", b"images", b"features", b"ReduceMean"):
        (tmp_path / "bytes.onnx").write_bytes(content.replace(name, b"\x80" * len(name)))
        with pytest.raises(ModelError, match=r"bytes.onnx: onnxruntime cannot read"):
            load_network(NetworkSpec(str(tmp_path / "bytes.onnx"), **options), device=CPU)
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"bad.onnx: onnxruntime cannot read"):
        load_network(NetworkSpec(str(tmp_path / "bad.onnx"), **options), device=CPU)


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        MissingExtra,
        match=r"needs the package 'onnxruntime', which is not installed; pip install 'ig3d\[onnx\]'",
    ):
        load_network(NetworkSpec(str(tmp_path / "net.onnx")), device=CPU)


def test_arguments_of_a_builder_are_plain_values() -> None:
    path, name, arguments, named = parse("a b/net.py:Net(8, heads=[1, 2], pretrained=False)")
    assert (str(path), name, arguments) == ("a b/net.py", "Net", (8,))
    assert named == {"heads": [1, 2], "pretrained": False}
