"""Animations of a store's rows: frames, what they show, and input that cannot be animated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import FAKE, Ended, colour_folder
from PIL import Image, ImageDraw

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
    options = ("--fps", 10, "--size", 200)
    ended = ig3d("preview", faces, "--animate", "--out", out, "--rows", "*0000[1-3]*", *options)
    assert ended.stdout == f"{out}: 3 frames\n", ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    frames = read(out)
    assert len(frames) == 3
    if suffix != "mp4":
        with Image.open(out) as image:
            image.load()
            assert image.info["duration"] == 100
    for frame in frames:
        face, mesh, curves = frame[:200, :200], frame[200:400, :200], frame[:, 200:]
        assert face.std() > 20  # the photograph
        assert mesh[100, 100, 2] - mesh[100, 100, 0] > 80  # the blue mesh in the middle
        assert (curves.min(-1) > 250).mean() > 0.7  # white paper
    # the cursor moves to the right
    cursors = [
        np.flatnonzero((frame[..., 0] - frame[..., 1:].mean(-1) > 60).sum(0) > 100) for frame in frames
    ]
    centres = [columns[columns > 200].mean() for columns in cursors]
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
    assert frame[:300, :300].std() < 3 and frame[300:600, :300].std() > 20


def test_what_cannot_be_animated_is_one_line(ig3d: Callable[..., Ended], faces: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (("--out", tmp_path / "a.png"), ".gif, .webp, .mp4"),
        (("--out", tmp_path / "a.gif", "--fps", 0), "from 1 to 100"),
        (("--out", tmp_path / "a.gif", "--size", 2000), "from 100 to 1000"),
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


def test_videos_have_seconds_and_images_have_numbers(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    from test_extract_video import write_video

    root = tmp_path / "videos"
    root.mkdir()
    for name in ("first", "second"):
        write_video(root / f"{name}.mp4", list(range(6)))
    config = ExtractConfig(regressor=FAKE, detector="none")
    extract_codes(list_samples(root, "folder"), tmp_path / "a.h5", config, jobs=1)
    texts: list[str] = []
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda self, xy, text, *args, **options: texts.append(text)
    )
    durations = []
    with CodeStore(tmp_path / "a.h5") as videos, CodeStore(faces) as images:
        frame_time = 1000 * np.diff(videos.samples["time"])[0]
        for store, rows, shown, hidden in (
            (videos, np.arange(6), {"time (s)", "colour", "red"}, {"first", "image"}),
            (videos, np.arange(12), {"time (s)", "first", "second"}, {"image"}),
            (images, np.arange(4), {"image", "head pose (degrees)", "blendshapes"}, {"time (s)"}),
        ):
            texts.clear()
            animate(store, tmp_path / "a.gif", rows=rows, size=100)
            assert shown <= set(texts) and not hidden & set(texts), texts
            with Image.open(tmp_path / "a.gif") as image:
                image.load()
                durations.append(image.info["duration"])
    assert durations == [pytest.approx(frame_time, abs=10), pytest.approx(frame_time, abs=10), 500]
    assert sum(text.startswith("expression ") for text in texts) == 6  # title and five curves


def test_several_faces_of_one_frame_are_not_animated(ig3d: Callable[..., Ended], tmp_path: Path) -> None:
    pytest.importorskip("av")
    from test_extract_video import write_video

    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "clip.mp4", list(range(4)))
    listing = list_samples(tmp_path / "videos", "folder")
    second = listing.samples.iloc[[1]].assign(id="clip#000001@1")
    table = pd.concat([listing.samples, second]).sort_values("id", ignore_index=True)
    config = ExtractConfig(regressor=FAKE, detector="none")
    extract_codes(replace(listing, samples=table), tmp_path / "a.h5", config, jobs=1)
    command = ("preview", tmp_path / "a.h5", "--animate", "--out", tmp_path / "a.gif")
    ended = ig3d(*command)
    assert ended.returncode == 2 and "several faces in 1 frame" in ended.stderr
    assert not (tmp_path / "a.gif").exists()
    ended = ig3d(*command, "--rows", "clip#??????")
    assert ended.returncode == 0 and "4 frames" in ended.stdout, ended.stderr
