"""Heads drawn over faces: the shading of a mesh, and the sheet of a store with FLAME codes."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import ClassVar

import flame_made_up as made_up
import numpy as np
import pytest
from conftest import colour_folder
from PIL import Image
from scipy.spatial import ConvexHull

import ig3d
from ig3d.errors import WeightsError
from ig3d.extract.config import ExtractConfig
from ig3d.extract.datasets import list_samples
from ig3d.extract.meshes import image_meshes
from ig3d.extract.preview import preview
from ig3d.extract.regressors import Regressor
from ig3d.extract.run import extract_codes
from ig3d.faces.render import Mesh, shaded
from ig3d.features.store import CodeStore
from ig3d.features.values import Block, CropSpec, FaceBatch

REGRESSOR = f"{Path(__file__).stem}:Heads"
CAMERA = (6.0, 0.01, 0.02)


class Heads(Regressor):
    """The mean head of FLAME for every face, turned by 0.3 rad, seen by one camera."""

    name = "heads"
    needs = CropSpec(size=224, scale=1.4)
    detectors = ("ig3d.extract.fakes:FakeDetector",)
    blocks: ClassVar = {
        "shape": Block(5, "1", "flame-2020", ""),
        "expression": Block(5, "1", "flame-2020", ""),
        "pose": Block(3, "rad", "axis-angle", ""),
        "jaw": Block(3, "rad", "flame-2020", ""),
        "eyelid": Block(2, "1", "flame-2020", ""),
        "camera": Block(3, "1", "weak-perspective-crop", ""),
    }

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        codes = {name: np.zeros((len(faces), block.width), np.float32) for name, block in self.blocks.items()}
        codes["pose"][:, 1] = 0.3
        codes["camera"][:] = CAMERA
        return codes


@pytest.fixture
def store_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IG3D_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "none"))
    (tmp_path / "weights/FLAME2020").mkdir(parents=True)
    samples = list_samples(colour_folder(tmp_path / "data", 2), "folder")
    extract_codes(samples, tmp_path / "heads.h5", ExtractConfig(regressor=REGRESSOR), jobs=1)
    return tmp_path / "heads.h5"


def with_flame(folder: Path) -> None:
    made_up.write_python2(folder / "FLAME2020/generic_model.pkl", made_up.model(), chumpy=("shapedirs",))


def test_a_ball_is_round_and_lit_from_the_upper_left() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(800, 3))
    points /= np.linalg.norm(points, axis=1)[:, None]
    hull = ConvexHull(points)
    inward = (np.cross(*(points[hull.simplices[:, k]] - points[hull.simplices[:, 0]] for k in (1, 2)))
              * points[hull.simplices[:, 0]]).sum(1) < 0  # fmt: skip
    triangles = np.where(inward[:, None], hull.simplices[:, ::-1], hull.simplices)
    black = np.zeros((100, 120, 3), np.uint8)
    part = np.zeros(len(triangles), int)
    drawn = shaded(black, Mesh(points * 40 + (60, 50, 0), triangles, part), opaque=True)
    seen = drawn.any(-1)
    assert abs(seen.sum() - np.pi * 40**2) < 0.02 * np.pi * 40**2
    assert not black.any()
    y, x = np.mgrid[:100, :120]
    distance = np.hypot(x + 0.5 - 60, y + 0.5 - 50)
    assert seen[distance < 38].all()
    assert not seen[distance > 41].any()
    assert drawn[30, 45, 0] > drawn[50, 60, 0] > drawn[70, 75, 0] > 0
    turned = shaded(black, Mesh(points * 40 + (60, 50, 0), triangles[:, ::-1], part), opaque=True)
    assert turned[30, 45, 0] < drawn[30, 45, 0]  # inside out: the far side is seen, away from the light


def test_a_head_stands_where_its_camera_puts_it(store_path: Path, tmp_path: Path) -> None:
    with_flame(tmp_path / "weights")
    with CodeStore(store_path) as store:
        found = image_meshes(store, np.arange(len(store)))
        assert sorted(found) == list(range(len(store)))
        head = found[0]
        # the crop of the fake detector's middle box, by hand
        x0, y0, x1, y1 = store.column("face/box")[0]
    side = int(((x1 - x0) + (y1 - y0)) / 2 * 1.4)
    turn = np.array([[np.cos(0.3), 0, np.sin(0.3)], [0, 1, 0], [-np.sin(0.3), 0, np.cos(0.3)]])
    template, root = made_up.model()["v_template"], made_up.model()["J"][0]
    turned = (template - root) @ turn.T + root
    seen = CAMERA[0] * (turned[:, :2] + CAMERA[1:]) * (1, -1)
    pixels = (seen * 112 + 112) * side / 223 + ((x0 + x1) / 2 - side / 2, (y0 + y1) / 2 - side / 2)
    # the root carries all other joints, which rest
    assert np.allclose(head.points[:, :2], pixels, atol=1e-3)


def test_the_sheet_shows_heads_where_flame_is_there(
    store_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with CodeStore(store_path) as store, caplog.at_level(logging.WARNING):
        preview(store, tmp_path / "bare.png", count=4)
        assert "FLAME's model file is missing" in caplog.text
        caplog.clear()
        with_flame(tmp_path / "weights")
        preview(store, tmp_path / "heads.png", count=4)
        assert not caplog.text
    bare, heads = (np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in ("bare", "heads"))
    changed = (bare != heads).any(-1)
    bluer = heads[..., 2] - heads[..., 0] > bare[..., 2] - bare[..., 0] + 10
    assert 0.1 < changed.mean() < 0.7
    assert (changed & bluer).sum() > 0.7 * changed.sum()


def test_another_file_in_flames_place_is_one_line(store_path: Path, tmp_path: Path) -> None:
    made_up.write_python2(tmp_path / "weights/FLAME2020/generic_model.pkl", {"nose": np.arange(3)})
    with (
        CodeStore(store_path) as store,
        pytest.raises(WeightsError, match="not a FLAME model: v_template is missing"),
    ):
        preview(store, tmp_path / "heads.png", count=4)


def test_the_example_of_the_docs_runs(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(ig3d.__file__).parent / "docs/detectors.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    made_up.write_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    with CodeStore(store_path) as store:
        names = {"store": store}
        exec(code, names)
        assert names["vertices"].shape == (len(store), 5023, 3)
        assert np.allclose(
            names["vertices"].numpy().mean(1), made_up.model()["v_template"].mean(0), atol=0.05
        )
        box = store.column("face/box")[0]
    middle = np.median(names["pixels"][0, :, :2], axis=0)
    inside = (middle > box[:2]) & (middle < box[2:])
    assert inside.all()
