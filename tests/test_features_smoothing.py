"""Smoothing over time within a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ig3d.errors import UsageError
from ig3d.features.predictions import load_predictions
from ig3d.features.samples import sample_table
from ig3d.features.smoothing import smooth
from ig3d.features.store.format import StoreInfo
from ig3d.features.store.writer import StoreWriter
from ig3d.features.values import Block, Rows, Status


def direct(values: np.ndarray, seconds: np.ndarray, video: np.ndarray, width: float) -> np.ndarray:
    """The same by the definition, without a limit of the reach."""
    result = values.copy()
    good = np.isfinite(values).all(1) & np.isfinite(seconds)
    for row in np.flatnonzero(good):
        weight = np.exp(-0.5 * ((seconds - seconds[row]) / width) ** 2) * (video == video[row]) * good
        weight = np.where(good, weight, 0)
        result[row] = weight @ np.where(good[:, None], values, 0) / weight.sum()
    return result


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_gaussian_average_within_a_video(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, video = rng.normal(size=(60, 3)), rng.integers(0, 3, 60)
    seconds = rng.uniform(0, 4, 60)
    values[5], seconds[9] = np.nan, np.nan
    result = smooth(values, seconds, video, 0.3)
    np.testing.assert_allclose(result, direct(values, seconds, video, 0.3), atol=5e-3)
    np.testing.assert_array_equal(result[[5, 9]], values[[5, 9]])


@pytest.mark.parametrize("width", [0, -1, np.nan, np.inf])
def test_a_width_that_is_none_is_refused(width: float) -> None:
    with pytest.raises(UsageError, match="width"):
        smooth(np.zeros((2, 1)), np.arange(2.0), np.zeros(2), width)


def write_store(path: Path, *, times: bool = True, second_face: bool = False) -> np.ndarray:
    """Store of 30 frames of two videos, in one of them optionally with a second face; returns the codes."""
    rng = np.random.default_rng(0)
    rows = [
        {"id": f"{name}#{k:06d}", "path": f"{name}.mp4#{k:06d}", "label": k % 2, "group": name}
        | ({"time": k / 10} if times else {})
        for name in ("a", "b")
        for k in range(15)
    ]
    if second_face:
        rows.append({**rows[7], "id": f"{rows[7]['id']}@1"})
    table = sample_table(rows, classes=("happy", "sad"))
    blocks = {"pose": Block(3, "rad", "axis-angle", "")}
    outcome = Rows.pending(len(rows), blocks)
    outcome.status[:] = Status.ok
    outcome.codes["pose"][:] = rng.normal(0, 0.2, (len(rows), 3))
    outcome.status[4], outcome.codes["pose"][4] = Status.no_face, np.nan
    with StoreWriter(path, StoreInfo("folder", ".", ("happy", "sad")), table, blocks) as writer:
        writer.write(0, outcome)
    return outcome.codes["pose"]


def test_predictions_are_smoothed_by_the_times_of_a_store(ig3d, tmp_path: Path) -> None:
    write_store(tmp_path / "x.h5")
    rng = np.random.default_rng(1)
    ids = np.array([f"{name}#{k:06d}" for name in ("b", "a") for k in range(15)])
    logits = rng.normal(size=(30, 2))
    np.savez(tmp_path / "x.npz", ids=ids, logits=logits, classes=np.array(["happy", "sad"]))
    ended = ig3d(
        "predictions", "smooth", tmp_path / "x.npz", "--3d-store", tmp_path / "x.h5", "--seconds", 0.2,
        "--out", tmp_path / "s.npz",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    smoothed = load_predictions(tmp_path / "s.npz")
    assert smoothed.ids.tolist() == ids.tolist() and smoothed.columns == ("happy", "sad")
    seconds, video = np.tile(np.arange(15) / 10, 2), np.repeat([0, 1], 15)
    np.testing.assert_allclose(smoothed.values, direct(logits, seconds, video, 0.2), atol=5e-3)


def test_frames_with_several_faces_are_not_smoothed(ig3d, tmp_path: Path) -> None:
    store, logits = tmp_path / "x.h5", tmp_path / "x.npz"
    write_store(store, second_face=True)
    ids = np.array(["a#000007", "a#000007@1", "a#000008"])
    np.savez(logits, ids=ids, logits=np.eye(3, 2), classes=np.array(["happy", "sad"]))
    for command in (
        ("export", store, "--csv", tmp_path / "out.csv", "--smooth", 0.2),
        ("predictions", "smooth", logits, "--3d-store", store, "--out", tmp_path / "out.npz"),
    ):
        ended = ig3d(*command)
        assert ended.returncode == 2, ended.stderr
        assert "several faces in 1 frame" in ended.stderr and "--faces largest" in ended.stderr
        assert not list(tmp_path.glob("out*"))
    assert ig3d("export", store, "--csv", tmp_path / "out.csv").returncode == 0


def test_a_store_of_images_is_not_smoothed(ig3d, tmp_path: Path) -> None:
    write_store(tmp_path / "x.h5", times=False)
    ended = ig3d("export", tmp_path / "x.h5", "--csv", tmp_path / "x.csv", "--smooth", 0.2)
    assert ended.returncode == 2 and "frames of videos" in ended.stderr


def test_exported_codes_are_smoothed_and_the_store_is_not(ig3d, tmp_path: Path) -> None:
    codes = write_store(tmp_path / "x.h5")
    before = (tmp_path / "x.h5").read_bytes()
    ended = ig3d(
        "export", tmp_path / "x.h5", "--csv", tmp_path / "x.csv", "--npz", tmp_path / "x.npz", "--smooth", 0.2
    )
    assert ended.returncode == 0, ended.stderr
    seconds, video = np.tile(np.arange(15) / 10, 2), np.repeat([0, 1], 15)
    expected = direct(codes.astype(float), seconds, video, 0.2)
    table = pd.read_csv(tmp_path / "x.csv")
    np.testing.assert_allclose(table[[f"pose:{k}" for k in range(3)]], expected, atol=2e-3)
    assert table["yaw_degrees"].isna().tolist() == np.isnan(codes[:, 0]).tolist()
    with np.load(tmp_path / "x.npz") as arrays:
        np.testing.assert_allclose(arrays["pose"], expected, atol=2e-3)
    assert (tmp_path / "x.h5").read_bytes() == before
