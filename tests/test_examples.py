"""The examples and the code of docs/api.md run as they are."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage.data import astronaut

import ig3d

ROOT = Path(ig3d.__file__).resolve().parent
FACE = astronaut()[:300, 70:370]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Video of a face, 12 frames at 10 frames per second."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 300
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for _ in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(FACE))))
        container.mux(stream.encode())
    return tmp_path / "clip.mp4"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(FACE).save(tmp_path / "photo.jpg", quality=95)
    return tmp_path / "photo.jpg"


def run(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")


def test_faces_of_an_image(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("faces_of_an_image.py", photo, monkeypatch=monkeypatch)
    printed = capsys.readouterr().out
    assert printed.startswith("face 0: yaw") and "mouthSmile" in printed


def test_expression_over_time(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("expression_over_time.py", clip, clip.with_suffix(".csv"), 5, monkeypatch=monkeypatch)
    table = pd.read_csv(clip.with_suffix(".csv"))
    assert table["id"].tolist() == [f"clip#{frame:06d}" for frame in range(0, 12, 2)]
    assert table["jawOpen"].between(0, 1).all()


def test_examples_on_a_store(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, label in enumerate(("happy", "happy", "sad", "sad")):
        (tmp_path / "faces" / label).mkdir(parents=True, exist_ok=True)
        turned = Image.fromarray(FACE).rotate(4 * number)
        turned.save(tmp_path / "faces" / label / f"{number}.png")
    samples = ig3d.list_samples(tmp_path / "faces", "folder")
    ig3d.extract_codes(samples, tmp_path / "x.h5", jobs=1)
    run("mean_codes_of_classes.py", tmp_path / "x.h5", "happy", "sad", monkeypatch=monkeypatch)
    assert capsys.readouterr().out.startswith("happy (2 rows) minus sad (2 rows)\n  ")
    run("similar_expressions.py", photo, tmp_path / "x.h5", monkeypatch=monkeypatch)
    assert capsys.readouterr().out.split()[1] == "happy/0.png"


def test_the_page_on_the_api_runs(
    clip: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    Image.fromarray(FACE[:, ::-1]).save(tmp_path / "other.jpg")
    rng = np.random.default_rng(0)
    for label in ("happy", "sad"):
        (tmp_path / "faces" / label).mkdir(parents=True)
        for number in range(30):
            light = np.clip(FACE * rng.uniform(0.7, 1.1), 0, 255).astype(np.uint8)
            Image.fromarray(light).resize((150, 150)).save(tmp_path / "faces" / label / f"{number}.png")
    samples = ig3d.list_samples(tmp_path / "faces", "folder")
    logits = rng.normal(size=(60, 2)) + np.eye(2)[samples.labels]
    np.savez(
        tmp_path / "predictions.npz",
        ids=samples.samples["id"].to_numpy(str),
        logits=logits,
        classes=np.array(["happy", "sad"]),
    )
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "api.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert len(blocks) >= 6
    space: dict[str, object] = {}
    for block in blocks:
        exec(block, space)
    assert len(space["faces"]) == 1  # type: ignore[arg-type]
    assert (tmp_path / "gain.png").stat().st_size > 1000


def test_the_page_on_the_api_names_all_of_it() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    assert not [name for name in ig3d.__all__ if name != "__version__" and f"`{name}`" not in page]
    undocumented = [
        name for name in ig3d.__all__ if name != "__version__" and not getattr(ig3d, name).__doc__
    ]
    assert not undocumented
