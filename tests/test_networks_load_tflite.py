"""``ig3d logits --network x.tflite``: the graph's numbers, grey images for one channel, one line for what fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Ended
from listed import samples_of
from made_up_networks import features_by_formula, outputs_by_formula, pictures, weights
from made_up_tflite import Maker, classifier
from PIL import Image

from ig3d.errors import ModelError, UsageError
from ig3d.features.samples import Listing
from ig3d.networks.load import NetworkSpec, load_network
from ig3d.networks.logits import LogitsConfig, write_logits

CPU = torch.device("cpu")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
NAMES = "anger,happy,sad"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Listing:
    return pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def mean_colours(
    shape: Sequence[int], *, matrix: np.ndarray, bias: np.ndarray, four: bool = False, **quantised: Any
) -> bytes:
    """Mean colours, then a dense layer; its outputs may be a map of one cell."""
    made = Maker()
    images = made.tensor(shape, **quantised)
    places = [1, 2] if shape[3] in (1, 3) else [2, 3]
    means = made.op("MEAN", [images, made.constant(places, np.int32)], [1, matrix.shape[1]], KeepDims=False)
    logits = made.op("FULLY_CONNECTED", [means, made.constant(matrix), made.constant(bias)], [1, len(matrix)])
    if four:
        cell = [1, 1, 1, len(matrix)]
        logits = made.op("RESHAPE", [logits, made.constant(cell, np.int32)], cell, NewShape=cell)
    return made.write([images], [logits])


@pytest.mark.parametrize("shape", [(1, 16, 16, 3), (1, 3, 16, 16)])
@pytest.mark.parametrize("four", [False, True])
def test_logits_are_those_of_the_formula(
    samples: Listing, tmp_path: Path, shape: tuple[int, ...], four: bool
) -> None:
    state = {name: tensor.numpy() for name, tensor in weights(3).items()}
    body, last = state["body.weight"][:, :, 0, 0], state["fc.weight"]
    content = mean_colours(
        shape, matrix=last @ body, bias=last @ state["body.bias"] + state["fc.bias"], four=four
    )
    (tmp_path / "net.tflite").write_bytes(content)
    network = NetworkSpec(str(tmp_path / "net.tflite"), classes=NAMES, mean=MEAN, std=STD)
    for batch_size in (1, 5):
        write_logits(samples, network, tmp_path / "x.npz", LogitsConfig(device="cpu", batch_size=batch_size))
        with np.load(tmp_path / "x.npz") as file:
            expected = outputs_by_formula(features_by_formula(samples, MEAN, STD, 3), 3)
            np.testing.assert_allclose(file["logits"], expected, atol=1e-5)


def test_a_graph_of_one_channel_gets_grey_images(
    ig3d: Callable[..., Ended], samples: Listing, tmp_path: Path
) -> None:
    matrix, bias = np.array([[1.0], [-2.0], [0.5]]), np.array([0.0, 1.0, 2.0])
    (tmp_path / "net.tflite").write_bytes(mean_colours((1, 16, 16, 1), matrix=matrix, bias=bias))
    for row, sample in enumerate(samples_of(samples)):
        place = tmp_path / "faces" / NAMES.split(",")[row % 3] / sample.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(Path(samples.root, sample.path).read_bytes())
    ended = ig3d(
        "logits", tmp_path / "faces", "--dataset", "folder", "--network", tmp_path / "net.tflite", "--classes", NAMES,
        "--mean", "0.5", "--std", "0.25", "--device", "cpu", "--out", tmp_path / "x.npz",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    with np.load(tmp_path / "x.npz") as file:
        assert len(file["ids"]) == len(samples_of(samples))
        for sample_id, logits in zip(file["ids"], file["logits"], strict=True):
            grey = np.asarray(Image.open(tmp_path / "faces" / f"{sample_id}.png").convert("L"), float).mean()
            np.testing.assert_allclose(logits, (grey / 255 - 0.5) / 0.25 * matrix[:, 0] + bias, atol=1e-5)


def test_the_input_of_the_file_overrides_options(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(classifier(side=16, channels=1))
    given = {"classes": "rafdb"}
    assert load_network(NetworkSpec(str(tmp_path / "net.tflite"), **given), device=CPU).input.size == 16
    with pytest.raises(UsageError, match=r"size: net\.tflite accepts only 16, not 32"):
        load_network(NetworkSpec(str(tmp_path / "net.tflite"), size=32, **given), device=CPU)
    with pytest.raises(UsageError, match=r"colour: net\.tflite accepts only grey, not bgr"):
        load_network(NetworkSpec(str(tmp_path / "net.tflite"), colour="bgr", **given), device=CPU)


@pytest.mark.parametrize(("dtype", "lowest"), [("uint8", 0), ("int8", -128)])
def test_a_graph_of_integers_gets_the_grey_levels(
    samples: Listing, tmp_path: Path, dtype: str, lowest: int
) -> None:
    content = mean_colours(
        (1, 16, 16, 3),
        matrix=np.eye(3),
        bias=np.zeros(3),
        dtype=dtype,
        scale=(0.02,),
        zero_point=(lowest + 100,),
    )
    (tmp_path / "net.tflite").write_bytes(content)
    network = NetworkSpec(str(tmp_path / "net.tflite"), classes=NAMES)
    write_logits(samples, network, tmp_path / "x.npz", LogitsConfig(device="cpu"))
    with np.load(tmp_path / "x.npz") as file:
        for sample, logits in zip(samples_of(samples), file["logits"], strict=True):
            pixels = np.asarray(Image.open(Path(samples.root, sample.path)), float)
            np.testing.assert_allclose(logits, 0.02 * (pixels.mean((0, 1)) - 100), atol=1e-5)


def with_two_inputs() -> bytes:
    made = Maker()
    both = [made.tensor([1, 16, 16, 3]) for _ in range(2)]
    return made.write(both, [made.op("ADD", both, [1, 16, 16, 3])])


def with_input(*shape: int) -> bytes:
    made = Maker()
    x = made.tensor(shape)
    return made.write([x], [made.op("RELU", [x], shape)])


def with_custom_operator() -> bytes:
    made = Maker()
    x = made.tensor([1, 16, 16, 3])
    return made.write([x], [made.op("CUSTOM", [x], [1, 7], custom="MaxPoolingWithArgmax2D")])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a .tflite file"),
        (b"\x89PNG" + bytes(300), "not a .tflite file"),
        (classifier()[:900], "damaged .tflite file"),
        (with_custom_operator(), "CUSTOM 'MaxPoolingWithArgmax2D'"),
        (with_two_inputs(), "one input of images"),
        (with_input(1, 16), "one input of images"),
        (with_input(1, 16, 16, 4), "one input of images"),
        (with_input(8, 16, 16, 3), "an input of shape (8, 16, 16, 3); export the network with fixed sizes"),
        (with_input(1, 16, 12, 3), "16 by 12 pixels"),
    ],
)
def test_what_cannot_be_run_is_one_line(
    ig3d: Callable[..., Ended], samples: Listing, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "net.tflite").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_network(NetworkSpec(str(tmp_path / "net.tflite"), classes="rafdb"), device=CPU)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(tmp_path / "net.tflite") in str(caught.value)
