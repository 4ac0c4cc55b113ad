"""Animations of a store's rows: frames, what they show, and input that cannot be animated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import FAKE, Ended, colour_folder
from PIL import Image

from ig3d.extract.config import ExtractConfig
from ig3d.extract.datasets import list_samples
from ig3d.extract.preview_animation import animate
from ig3d.extract.run import extract_codes
from ig3d.faces.synth import SynthConfig, synthesize
from ig3d.features.store import CodeStore


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory, _home: Path) -> Path:
    """Store of four synthetic faces."""
    root = tmp_path_factory.mktemp("faces")
    synthesize(root / "faces", SynthConfig(count=4, seed=3, test_share=0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(_home))
        extract_codes(list_samples(root / "faces", "rafdb"), root / "a.h5", ExtractConfig(), jobs=1)
    return root / "a.h5"


@pytest.mark.parametrize("suffix", ["gif", "webp", "mp4"])
def test_an_animation_has_a_frame_per_row(
    ig3d: Callable[..., Ended], faces: Path, tmp_path: Path, suffix: str
) -> None:
    if suffix == "mp4":
        pytest.importorskip("av")
    out = tmp_path / f"a.{suffix}"
    ended = ig3d("preview", faces, "--animate", "--out", out, "--rows", "*0000[1-3]*", "--fps", 10)
    assert ended.stdout == f"{out}: 3 frames\n", ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    frames = read(out)
    assert len(frames) == 3
    if suffix != "mp4":
        with Image.open(out) as image:
            image.load()
            assert image.info["duration"] == 100
    for frame in frames:
        face, mesh, curves = frame[:256, :256], frame[:256, 256:512], frame[:, 512:]
        assert face.std() > 20  # the photograph
        assert mesh[128, 128, 2] - mesh[128, 128, 0] > 80  # the blue mesh in the middle
        assert (curves.min(-1) > 250).mean() > 0.7  # white paper
    # the cursor moves to the right
    cursors = [
        np.flatnonzero((frame[..., 0] - frame[..., 1:].mean(-1) > 60).sum(0) > 100) for frame in frames
    ]
    centres = [columns[columns > 512].mean() for columns in cursors]
    assert centres[0] < centres[1] < centres[2]


def read(path: Path) -> list[np.ndarray]:
    if path.suffix == ".mp4":
        import av

        with av.open(str(path)) as container:
            return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    with Image.open(path) as image:
        frames = []
        for number in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")).astype(int))
        return frames


def test_without_images_the_mesh_and_the_curves_remain(
    ig3d: Callable[..., Ended], faces: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "a.gif"
    ended = ig3d(
        "preview", faces, "--animate", "--out", out, "--rows", "*00001*", "--root", tmp_path / "empty"
    )
    assert ended.returncode == 0, ended.stderr
    (frame,) = read(out) if out.exists() else []
    assert frame[:256, :256].std() < 3 and frame[:256, 256:512].std() > 20


def test_what_cannot_be_animated_is_one_line(ig3d: Callable[..., Ended], faces: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (("--out", tmp_path / "a.png"), ".gif, .webp, .mp4"),
        (("--out", tmp_path / "a.gif", "--fps", 0), "from 1 to 100"),
        (("--out", tmp_path / "a.gif", "--rows", "absent"), "no id of"),
    ):
        ended = ig3d("preview", faces, "--animate", *arguments)
        assert ended.returncode == 2 and words in ended.stderr and len(ended.stderr.splitlines()) == 1
    root = colour_folder(tmp_path / "data", 1)
    extract_codes(list_samples(root, "folder"), tmp_path / "b.h5", ExtractConfig(regressor=FAKE), jobs=1)
    ended = ig3d("preview", tmp_path / "b.h5", "--animate", "--out", tmp_path / "b.gif")
    assert ended.returncode == 0, ended.stderr  # codes without a face model: image and curves
    ended = ig3d(
        "preview", tmp_path / "b.h5", "--animate", "--out", tmp_path / "c.gif", "--root", tmp_path / "absent"
    )
    assert ended.returncode == 1 and "--root" in ended.stderr and not (tmp_path / "c.gif").exists()


def test_curves_of_several_videos_are_interrupted_by_a_line_with_the_name(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from test_extract_video import write_video

    root = tmp_path / "videos"
    root.mkdir()
    for name in ("first", "second"):
        write_video(root / f"{name}.mp4", list(range(6)))
    extract_codes(
        list_samples(root, "folder"),
        tmp_path / "a.h5",
        ExtractConfig(regressor=FAKE, detector="none"),
        jobs=1,
    )
    grey = {}
    with CodeStore(tmp_path / "a.h5") as store:
        for name, rows in (("one", np.arange(6)), ("both", np.arange(12))):
            animate(store, tmp_path / f"{name}.gif", rows=rows)
            curves = read(tmp_path / f"{name}.gif")[0][22:-8, 560:904]
            line = np.abs(curves - (122, 130, 140)).max(-1) < 40
            grey[name] = np.flatnonzero(line.mean(0) > 0.9)
    assert len(grey["one"]) == 0
    middle = (904 + 558) / 2 - 560
    assert len(grey["both"]) and abs(grey["both"].mean() - middle) < 3
