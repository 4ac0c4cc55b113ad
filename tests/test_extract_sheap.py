"""SHeaP's regressor with a TorchScript network that stands in for the authors' file: the same inputs and outputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Ended, colour_folder

from ig3d.errors import WeightsError
from ig3d.extract.crop import square_box
from ig3d.extract.regressors import load_regressor
from ig3d.extract.regressors.sheap import Sheap
from ig3d.extract.weights import check_weights
from ig3d.extract.weights_add import add_weights
from ig3d.features.codes import read_codes
from ig3d.features.store import CodeStore
from ig3d.features.values import Face, FaceBatch

torch = pytest.importorskip("torch")

WIDTHS = {
    "shape_from_facenet": 300,
    "expr": 100,
    "eyelids": 2,
    "cam_trans": 3,
    **dict.fromkeys(("torso_pose", "neck_pose", "jaw_pose", "eye_l_pose", "eye_r_pose"), 3),
}


class StandIn(torch.nn.Module):
    """Outputs of SHeaP's names and widths: multiples of the mean colour of a crop in [0, 1]."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        mean = images.mean(dim=(1, 2, 3))[:, None]
        assert images.shape[1:] == (3, 224, 224)
        out = {}
        for number, (name, width) in enumerate(WIDTHS.items()):
            out[name] = (number + 1) * mean.repeat(1, width)
        return out


def script(module: torch.nn.Module, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(2, 3, 224, 224)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch recommends torch.export
        torch.jit.trace(module, example, strict=False).save(path)
    return path


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights folder with the network that stands in, added by its name."""
    monkeypatch.setenv("IG3D_WEIGHTS", str(tmp_path / "weights"))
    add_weights(script(StandIn(), tmp_path / "download" / "model_expressive.pt"))
    return tmp_path / "weights"


def test_the_outputs_become_blocks(weights: Path) -> None:
    regressor = load_regressor("sheap", device="cpu")
    crops = np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3), np.uint8)
    faces = FaceBatch(np.full((5, 2), 224), np.zeros((5, 4)), None, crops, np.zeros((5, 4)))
    codes = regressor(faces)
    assert {name: array.shape for name, array in codes.items()} == {
        name: (5, block.width) for name, block in regressor.blocks.items()
    }
    mean = crops.mean(axis=(1, 2, 3)) / 255
    numbers = {name: number + 1 for number, name in enumerate(WIDTHS)}
    assert np.allclose(codes["expression"], numbers["expr"] * mean[:, None], atol=1e-5)
    assert np.allclose(codes["eyes"][:, :3], numbers["eye_l_pose"] * mean[:, None], atol=1e-5)
    assert np.allclose(codes["eyes"][:, 3:], numbers["eye_r_pose"] * mean[:, None], atol=1e-5)
    assert np.array_equal(regressor(FaceBatch(*(part[:1] if part is not None else None for part in (
        faces.size_wh, faces.xyxy, None, crops, faces.crop_boxes))))["shape"], codes["shape"][:1])  # fmt: skip


def test_the_crop_is_that_of_the_video_demo() -> None:
    # half the longer extent is 40: the half side is 1.9 times that, and the centre half of it higher
    points = np.array([[60, 100], [120, 180]], np.float32)
    for face in (Face(np.zeros(4, np.float32), landmarks=points), Face(points.ravel())):
        assert square_box(face, Sheap.needs).tolist() == [90 - 76, 140 - 20 - 76, 90 + 76, 140 - 20 + 76]


def test_a_store_with_its_named_sets(ig3d: Callable[..., Ended], weights: Path, tmp_path: Path) -> None:
    root, out = colour_folder(tmp_path / "data", 3), tmp_path / "a.h5"
    options = ("--regressor", "sheap", "--detector", "none", "--jobs", 1, "--device", "cpu")
    ended = ig3d("extract", root, "--out", out, *options)
    assert ended.returncode == 0, ended.stderr
    with CodeStore(out) as store:
        assert store.ok.all()
        assert store.info.regressor["runtime"].startswith("torch ")
        assert store.named_sets["short"] == ("expression", "pose", "jaw", "shape")
    for blocks, width in (
        ("short", 406),
        ("full", 408),
        ("expression", 100),
        ("expression+pose", 103),
        ("expression+jaw", 103),
        ("short,eyelid", 408),
    ):
        assert read_codes([out], blocks=blocks)[1].values.shape == (6, width)


def test_the_file_is_recognised_and_others_are_refused(weights: Path, tmp_path: Path) -> None:
    status = check_weights("sheap")
    assert status.state == "other" and "CC BY-NC" in status.entry.licence  # not the published hash
    with pytest.raises(WeightsError, match=r"^sheap_paper: found no SHeaP/model_paper.pt .*ig3d weights get"):
        load_regressor("sheap_paper", device="cpu")
    add_weights(script(StandIn(), tmp_path / "x" / "net.pt"), name="sheap_paper")
    assert load_regressor("sheap_paper", device="cpu").name == "sheap_paper"
    with pytest.raises(WeightsError, match="pass --as with one of sheap, sheap_paper"):
        add_weights(tmp_path / "x" / "net.pt")
    torch.save({"a": torch.zeros(2)}, weights / "SHeaP" / "model_expressive.pt")
    (weights / "SHeaP" / "model_expressive.pt.ig3d.json").unlink()
    with pytest.raises(
        WeightsError, match=r"sheap \(model_expressive.pt\): the file is no TorchScript network"
    ):
        load_regressor("sheap", device="cpu")


def test_a_network_with_other_outputs_is_refused(weights: Path) -> None:
    class Other(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"expr": images.mean(dim=(2, 3))}

    file = script(Other(), weights / "SHeaP" / "model_expressive.pt")
    file.with_name(file.name + ".ig3d.json").unlink()
    regressor = load_regressor("sheap", device="cpu")
    crops = np.zeros((1, 224, 224, 3), np.uint8)
    faces = FaceBatch(np.full((1, 2), 224), np.zeros((1, 4)), None, crops, np.zeros((1, 4)))
    with pytest.raises(WeightsError, match="the network's output has no cam_trans, eye_l_pose"):
        regressor(faces)
