"""Codes of the default regressor, on photographs and on points whose pose is known."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Ended
from PIL import Image
from scipy.spatial.transform import Rotation
from skimage.data import astronaut

from ig3d.extract.config import ExtractConfig
from ig3d.extract.datasets import list_samples
from ig3d.extract.regressors import load_regressor
from ig3d.extract.regressors.facemesh import FaceMeshCodes, axis_angle, eye_openness, project
from ig3d.extract.run import extract_codes
from ig3d.faces import model
from ig3d.features.store import CodeStore
from ig3d.features.values import FaceBatch


def batch(points: np.ndarray, size_wh: tuple[int, int]) -> FaceBatch:
    n = len(points)
    boxes = np.concatenate([points[..., :2].min(1), points[..., :2].max(1)], axis=1)
    scores = np.zeros((n, 52), np.float32)
    return FaceBatch(np.tile(size_wh, (n, 1)), boxes, points, None, np.full((n, 4), np.nan), scores)


@pytest.mark.parametrize("seed", range(5))
def test_a_known_head_comes_back_as_its_pose_and_camera(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mean = model.load().mean
    pose = rng.uniform(-0.8, 0.8, (6, 3))
    camera = np.column_stack([rng.uniform(5, 20, 6), rng.uniform(-0.5, 0.5, (6, 2))])
    size_wh = (640, 400)
    points = project(np.repeat(mean[None], 6, axis=0), pose, camera, np.tile(size_wh, (6, 1)))
    # by hand for one of them: turn in FLAME's axes (y up, z to the viewer), then scale and shift in the image
    turned = Rotation.from_rotvec(pose[0]).apply(mean * [1, -1, -1]) * [1, -1, -1]
    by_hand = turned[:, :2] * camera[0, 0] * 320 + camera[0, 1:] * 320 + (320, 200)
    assert np.allclose(points[0, :, :2], by_hand)
    codes = load_regressor("facemesh", ["landmarks"])(batch(points, size_wh))
    assert np.allclose(codes["pose"], pose, atol=1e-4)
    assert np.allclose(codes["camera"], camera, atol=1e-4)
    assert np.allclose(codes["landmarks"].reshape(6, 478, 3), mean, atol=1e-5)


def test_signs_of_the_pose() -> None:
    """A head that turns to the image's right shows yaw > 0, one that looks down pitch > 0 (axes y up, z to viewer)."""
    mean = model.load().mean
    nose = mean[1] - mean.mean(0)
    straight = np.array([[0.0, 0, 0]])
    right = np.array([[0.0, 0.4, 0]])
    down = np.array([[0.4, 0, 0]])
    one, size = np.array([[10.0, 0, 0]]), np.array([[200, 200]])
    place = {name: project(nose[None, None], pose, one, size)[0, 0, :2] for name, pose in
             {"straight": straight, "right": right, "down": down}.items()}  # fmt: skip
    assert place["right"][0] > place["straight"][0] + 1
    assert place["down"][1] > place["straight"][1] + 1


def test_eyelids_open_and_closed() -> None:
    points = np.zeros((1, 478, 3))
    for outer, inner, lids in (
        (33, 133, (160, 144, 159, 145, 158, 153)),
        (263, 362, (387, 373, 386, 374, 385, 380)),
    ):
        points[0, outer, 0], points[0, inner, 0] = 0, 10
        for place, lid in enumerate(lids):
            points[0, lid] = (5, (1.5 if place % 2 else -1.5) if outer == 33 else 0, 0)
    assert np.allclose(eye_openness(points), [[0.3, 0.0]])


def test_a_degenerate_face_is_not_finite_and_so_never_ok() -> None:
    codes = FaceMeshCodes()(batch(np.zeros((2, 478, 3), np.float32), (100, 100)))
    assert np.isnan(codes["pose"]).all()


def photographs(root: Path) -> Path:
    """Photographs made from the astronaut: as it is, mirrored, turned by 20 degrees, dark; and one without a face."""
    (root / "happy").mkdir(parents=True)
    picture = astronaut()[:300, 80:380]
    for name, pixels in {
        "straight": picture,
        "mirrored": picture[:, ::-1],
        "rolled": np.asarray(Image.fromarray(picture).rotate(20, Image.Resampling.BICUBIC)),
        "dark": picture // 8,
        "wall": np.full_like(picture, 130),
    }.items():
        Image.fromarray(np.ascontiguousarray(pixels)).save(root / "happy" / f"{name}.jpg", quality=92)
    return root


def test_the_main_job_on_photographs(tmp_path: Path) -> None:
    samples = list_samples(photographs(tmp_path / "data"), "folder")
    for jobs in (1, 2):
        extract_codes(samples, tmp_path / f"{jobs}.h5", ExtractConfig(), jobs=jobs)
    with CodeStore(tmp_path / "1.h5") as store, CodeStore(tmp_path / "2.h5") as other:
        assert store.content_sha256 == other.content_sha256
        row = {identifier.split("/")[1]: index for index, identifier in enumerate(store.samples.id)}
        assert store.status[row["wall"]] == 2
        assert store.ok[[row["straight"], row["mirrored"], row["dark"]]].all()
        pose = store.codes("pose")
        # a mirror turns yaw and roll round and swaps the eyes; the picture's turn is the head's roll
        assert np.allclose(pose[row["straight"]], pose[row["mirrored"]] * (1, -1, -1), atol=0.06)
        assert np.allclose(pose[row["rolled"], 2] - pose[row["straight"], 2], np.radians(20), atol=0.05)
        lids = store.codes("eyelid")
        assert np.allclose(lids[row["straight"]], lids[row["mirrored"]][::-1], atol=0.08)
        block = store.blocks["blendshapes"]
        assert (block.width, block.basis, block.columns[25]) == (52, "arkit-52", "jawOpen")
        scores = dict(zip(block.columns, store.codes("blendshapes")[row["straight"]], strict=True))
        assert min(scores["mouthSmileLeft"], scores["mouthSmileRight"]) > 0.5 > scores["jawOpen"]
        assert len(store.info.regressor["face_model"]) > 10
        assert len(store.info.detector["weights_sha256"]) == 64


@pytest.mark.parametrize("also", [(), ("landmarks",)], ids=["decoded", "landmarks"])
def test_the_sheet_shows_faces_and_marks_rows_without(
    ig3d: Callable[..., Ended], tmp_path: Path, also: tuple[str, ...]
) -> None:
    samples = list_samples(photographs(tmp_path / "data"), "folder")
    extract_codes(samples, tmp_path / "a.h5", ExtractConfig(also=also), jobs=1)
    ended = ig3d("preview", tmp_path / "a.h5", "--out", tmp_path / "sheet.png", "--count", 9)
    assert ended.stdout == f"{tmp_path / 'sheet.png'}: 4 faces, 1 row without codes\n"
    drawn = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    green = (drawn[..., 1] - drawn[..., 0] > 100) & (drawn[..., 2] > 90)
    red = (drawn[..., 0] > 180) & (drawn[..., 1] < 60) & (drawn[..., 2] < 60)
    assert green.sum() > 300
    assert red.sum() > 300


def test_a_run_prints_its_own_lines_only(tmp_path: Path) -> None:
    root = photographs(tmp_path / "data")
    command = [
        sys.executable,
        "-m",
        "ig3d",
        "extract",
        str(root),
        "--out",
        str(tmp_path / "a.h5"),
        "--jobs",
        "2",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "W0000" not in ended.stderr
    assert "TensorFlow" not in ended.stderr
    assert ended.stdout == f"{tmp_path / 'a.h5'}: 5 rows (ok 4 · no_face 1)\n"


def test_rotation_vectors_are_those_of_scipy() -> None:
    angle = np.concatenate([[0.0], 10.0 ** -np.arange(1, 17), np.pi - 10.0 ** -np.arange(1, 17), [np.pi]])
    axis = np.random.default_rng(0).normal(size=(len(angle), 3))
    vectors = axis / np.linalg.norm(axis, axis=1, keepdims=True) * angle[:, None]
    matrices = np.concatenate(
        [Rotation.random(500, random_state=0).as_matrix(), Rotation.from_rotvec(vectors).as_matrix()]
    )
    assert np.allclose(axis_angle(matrices), Rotation.from_matrix(matrices).as_rotvec(), atol=1e-12)
    assert axis_angle(matrices[:0]).shape == (0, 3)
