"""Pose in degrees: against rotation matrices made by hand, SciPy, and the true pose of synthetic faces."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Ended
from scipy.spatial.transform import Rotation

from ig3d.extract.config import ExtractConfig
from ig3d.extract.datasets import list_samples
from ig3d.extract.run import extract_codes
from ig3d.faces.synth import SynthConfig, synthesize
from ig3d.features.pose import pose_degrees
from ig3d.features.store import CodeStore

COLUMNS = ["yaw_degrees", "pitch_degrees", "roll_degrees"]


def about(axis: int, degrees: float) -> np.ndarray:
    """Rotation matrix by the right-hand rule about x (0), y (1) or z (2)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix[first, first] = matrix[second, second] = c
    matrix[second, first], matrix[first, second] = s, -s
    return matrix


def test_angles_of_composed_rotations_come_back() -> None:
    rng = np.random.default_rng(0)
    angles = rng.uniform([-89, -179, -179], [89, 179, 179], (200, 3))
    matrices = np.array([about(2, roll) @ about(1, yaw) @ about(0, pitch) for yaw, pitch, roll in angles])
    vectors = Rotation.from_matrix(matrices).as_rotvec()
    assert np.allclose(pose_degrees(vectors), angles, atol=1e-6)
    assert pose_degrees(vectors[3]).shape == (3,)


def test_signs() -> None:
    """The nose (0, 0, 1) moves to the image's right with yaw and down with pitch; roll lifts the image's right."""
    for axis, column, point, coordinate, sign in ((1, 0, 2, 0, 1), (0, 1, 2, 1, -1), (2, 2, 0, 1, 1)):
        vector = np.zeros(3)
        vector[axis] = np.radians(20)
        angles = pose_degrees(vector)
        assert angles[column] == pytest.approx(20)
        assert np.abs(np.delete(angles, column)).max() < 1e-9
        moved = Rotation.from_rotvec(vector).apply(np.eye(3)[point])
        assert np.sign(moved[coordinate]) == sign


def test_rows_without_codes_and_profile_views_give_no_warning() -> None:
    vectors = np.array([[np.nan, np.nan, np.nan], [0, np.pi / 2, 0], [0, 0, 0]])
    angles = pose_degrees(vectors)
    assert np.isnan(angles[0]).all()
    assert angles[1, 0] == pytest.approx(90)
    assert angles[2].tolist() == [0, 0, 0]
    assert np.isnan(pose_degrees(vectors[:1])).all()


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faces") / "faces"
    synthesize(root, SynthConfig(count=12, seed=3))
    return root


@pytest.fixture
def store(faces: Path, tmp_path: Path) -> Path:
    extract_codes(list_samples(faces, "rafdb"), tmp_path / "a.h5", ExtractConfig(), jobs=1)
    return tmp_path / "a.h5"


def test_degrees_in_export_and_inspect_agree_with_the_true_pose(
    ig3d: Callable[..., Ended], faces: Path, store: Path, tmp_path: Path
) -> None:
    out = {suffix: tmp_path / f"a.{suffix}" for suffix in ("csv", "parquet", "npz")}
    for suffix, path in out.items():
        assert ig3d("export", store, f"--{suffix}", path).returncode == 0
    with np.load(out["npz"]) as file:
        degrees, pose = file["pose_degrees"], file["pose"].astype(float)
    with CodeStore(store) as opened:
        ok, ids = opened.ok, opened.samples["id"].tolist()
    assert ok.sum() >= 10
    expected = Rotation.from_rotvec(pose[ok]).as_euler("ZYX", degrees=True)[:, [1, 2, 0]]
    assert np.allclose(degrees[ok], expected, atol=1e-3)
    assert np.array_equal(pd.read_csv(out["csv"])[COLUMNS].to_numpy(np.float32), degrees, equal_nan=True)
    assert np.array_equal(pd.read_parquet(out["parquet"])[COLUMNS].to_numpy(), degrees, equal_nan=True)
    # the true pose of each face, in the store's axes
    with (faces / "codes.csv").open() as file:
        rows = {row["id"]: [float(row[f"pose:{axis}"]) for axis in "xyz"] for row in csv.DictReader(file)}
    truth = pose_degrees(np.array([rows[sample] for sample in ids]))
    assert np.abs(degrees - truth)[ok].max() < 8
    assert np.corrcoef(degrees[ok, 0], truth[ok, 0])[0, 1] > 0.95
    summary = json.loads(ig3d("inspect", store, "--json").stdout)["pose_degrees"]
    assert summary["yaw"]["max"] == pytest.approx(degrees[ok, 0].max(), abs=1e-3)
    assert set(summary) == {"yaw", "pitch", "roll"}
    assert "degrees" in ig3d("inspect", store).stdout
    only = tmp_path / "only.csv"
    assert ig3d("export", store, "--csv", only, "--blocks", "expression").returncode == 0
    assert "yaw" not in only.read_text().splitlines()[0]


def test_the_pose_of_an_imported_table_is_not_converted(
    ig3d: Callable[..., Ended], faces: Path, store: Path, tmp_path: Path
) -> None:
    assert ig3d("export", store, "--csv", tmp_path / "a.csv").returncode == 0
    again = tmp_path / "b.h5"
    table = tmp_path / "a.csv"
    arguments = ("import", faces, "--dataset", "rafdb", "--from", "csv", "--codes", table, "--out", again)
    assert ig3d(*arguments).returncode == 0
    assert json.loads(ig3d("inspect", again, "--json").stdout)["pose_degrees"] == {}
