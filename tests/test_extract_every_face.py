"""``--faces all``: a row for each face of an image, with ids, groups and boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from ig3d import load_regressor
from ig3d.errors import DatasetError, UsageError
from ig3d.extract.config import ExtractConfig
from ig3d.extract.datasets import list_samples
from ig3d.extract.every_face import list_faces
from ig3d.extract.run import extract_codes
from ig3d.features.store import CodeStore

FACE = np.asarray(Image.fromarray(astronaut()[:300, 70:370]))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """One face; two faces, the larger one on the right; no face; a damaged file."""
    root = tmp_path / "photos"
    root.mkdir()
    Image.fromarray(FACE).save(root / "one.png")
    pair = np.zeros((300, 560, 3), np.uint8)
    pair[60:260, 20:220] = np.asarray(Image.fromarray(FACE[:, ::-1]).resize((200, 200)))
    pair[:, 260:] = FACE
    Image.fromarray(pair).save(root / "pair.png")
    Image.new("RGB", (200, 200), (90, 120, 60)).save(root / "none.png")
    (root / "bad.png").write_bytes(b"no image")
    return root


def test_every_face_has_a_row(photos: Path, ig3d, tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    ended = ig3d("extract", photos, "--out", out, "--faces", "all", "--jobs", 1, "--device", "cpu")
    assert ended.returncode == 0, ended.stderr
    assert "3 faces in 4 images, several in 1" in ended.stderr
    with CodeStore(out) as store:
        assert store.samples["id"].tolist() == ["bad", "none", "one", "pair", "pair@1"]
        assert store.samples["path"].tolist()[-2:] == ["pair.png", "pair.png"]
        assert store.samples["group"].tolist() == ["", "", "", "pair", "pair"]
        assert store.ok.tolist() == [False, False, True, True, True]
        assert [message != "" for message in store.messages] == [True, True, False, False, False]
        assert store.column("face/count").tolist() == [0, 0, 1, 2, 2]
        large, small = store.column("face/box")[-2:]
        assert large[0] > 250 and small[2] < 250
    assert "images with several faces: 1" in ig3d("inspect", out).stdout


def test_each_face_has_the_codes_of_the_default_extraction_and_of_python(
    photos: Path, ig3d, tmp_path: Path
) -> None:
    options = ("--jobs", 1, "--device", "cpu")
    for faces in ("all", "largest"):
        ended = ig3d("extract", photos, "--out", tmp_path / f"{faces}.h5", "--faces", faces, *options)
        assert ended.returncode == 0, ended.stderr
    with CodeStore(tmp_path / "all.h5") as every, CodeStore(tmp_path / "largest.h5") as largest:
        assert largest.samples["id"].tolist() == every.samples["id"].tolist()[:4]
        for name in largest.blocks:
            np.testing.assert_allclose(every.codes(name)[:4], largest.codes(name), atol=1e-5, equal_nan=True)
        for name in ("face/box", "face/score", "face/count"):
            np.testing.assert_allclose(every.column(name)[:4], largest.column(name), equal_nan=True)
        assert "images with several faces: 1" in ig3d("inspect", tmp_path / "largest.h5").stdout
        in_python = load_regressor("facemesh", device="cpu")(photos / "pair.png")
        for face, codes in zip(in_python, every.codes("expression")[3:], strict=True):
            np.testing.assert_allclose(face.codes["expression"], codes, atol=1e-5)


def test_faces_are_detected_also_if_the_boxes_of_the_dataset_are_ignored(
    photos: Path, tmp_path: Path
) -> None:
    listing = list_samples(photos, "folder")
    known = replace(listing, samples=listing.samples.assign(x0=0.0, y0=0.0, x1=9.0, y1=9.0))
    config = ExtractConfig(device="cpu", boxes="none")
    extract_codes(list_faces(known, config, jobs=1), tmp_path / "x.h5", config, jobs=1)
    with CodeStore(tmp_path / "x.h5") as store:
        large, small = store.column("face/box")[-2:]
        assert large[0] > 250 and small[2] < 250


def test_progress_begins_before_the_first_image(photos: Path) -> None:
    calls: list[int] = []
    list_faces(
        list_samples(photos, "folder"),
        ExtractConfig(device="cpu"),
        jobs=1,
        progress=lambda done: calls.append(done.total()),
    )
    assert calls == [0, 4]


def test_every_face_has_its_own_prediction(photos: Path, ig3d, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    store, out = tmp_path / "x.h5", tmp_path / "x.npz"
    pair = np.asarray(Image.open(photos / "pair.png")).copy()
    pair[190:220, 60:180] = 0  # a covered mouth: the faces differ
    Image.fromarray(pair).save(photos / "pair.png")
    ended = ig3d("extract", photos, "--out", store, "--faces", "all", "--jobs", 1, "--device", "cpu")
    assert ended.returncode == 0, ended.stderr
    ended = ig3d("logits", "--like", store, "--network", "fer", "--out", out)
    assert ended.returncode == 0, ended.stderr
    assert "cropped to the face box" in ended.stderr
    with np.load(out) as file:
        logits = dict(zip(file["ids"].tolist(), file["logits"], strict=True))
    assert np.abs(logits["pair"] - logits["pair@1"]).max() > 0.5


def test_what_contradicts_all_faces_is_refused(photos: Path, ig3d, tmp_path: Path) -> None:
    listing = list_samples(photos, "folder")
    for config, message in (
        (ExtractConfig(detector="none"), "--detector none"),
        (ExtractConfig(detector="facemesh-smirk"), "one face of an image"),
        (ExtractConfig(boxes="x.h5"), "--boxes x.h5"),
    ):
        with pytest.raises(UsageError, match=message):
            list_faces(listing, config)
    ended = ig3d("extract", photos, "--out", tmp_path / "x.h5", "--faces", "some")
    assert ended.returncode == 2 and "choose largest or all" in ended.stderr
    known = replace(listing, samples=listing.samples.assign(x0=0.0, y0=0.0, x1=9.0, y1=9.0))
    with pytest.raises(UsageError, match="has a box"):
        list_faces(known)


def test_an_image_named_as_a_further_face_is_refused(photos: Path) -> None:
    (photos / "one.png").rename(photos / "pair@1.png")
    with pytest.raises(DatasetError, match="rename"):
        list_faces(list_samples(photos, "folder"), ExtractConfig(device="cpu"), jobs=1)
