"""The face networks against MediaPipe's results, on both backends; images without faces, with several, and bad ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from conftest import Ended
from mediapipe_faces import RECORD, decode, landmarks
from PIL import Image, ImageOps
from skimage import data

from ig3d.extract import arkit
from ig3d.extract.detectors import choose_face, load_detector
from ig3d.extract.detectors.facemesh import FaceMesh, SmirkFaceMesh
from ig3d.extract.weights import find_weights
from ig3d.features.values import Face

SHARED = Path(__file__).resolve().parents[2] / "shared"
PHOTOGRAPHS = SHARED / "data" / "photos"
REFERENCE = SHARED / "reference" / "facemesh" / "mediapipe_on_photos.npz"
WITHOUT_PEOPLE = ("coins", "coffee", "rocket", "brick", "grass", "gravel", "page", "clock")


@lru_cache(maxsize=4)
def detector(backend: str = "openvino", kind: type[FaceMesh] = FaceMesh) -> FaceMesh:
    if backend == "torch":
        pytest.importorskip("torch")
    return kind("cpu", backend=backend)


def recorded() -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Images, and of each image's faces MediaPipe's points and scores."""
    with np.load(RECORD) as arrays:
        count = sum(name.startswith("image") for name in arrays.files)
        images = [decode(arrays[f"image{k}"]) for k in range(count)]
        return (
            images,
            [arrays[f"points{k}"] for k in range(count)],
            [arrays[f"blendshapes{k}"] for k in range(count)],
        )


def distances(face: Face, points: np.ndarray) -> np.ndarray:
    assert face.landmarks is not None
    return np.asarray(np.linalg.norm(face.landmarks[:, :2] - points[:, :2], axis=1))


def agree(faces: list[Face], points: np.ndarray, scores: np.ndarray) -> None:
    """The same faces, in the same order."""
    assert len(faces) == len(points)
    for face, mesh, shapes in zip(faces, points, scores, strict=True):
        assert distances(face, mesh).mean() < 0.05
        assert distances(face, mesh).max() < 0.5
        assert np.abs(face.blendshapes - shapes).max() < 0.02


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_recorded_faces(backend: str) -> None:
    images, points, scores = recorded()
    found = detector(backend)(images)
    for faces, *expected in zip(found, points, scores, strict=True):
        agree(faces, *expected)
    assert sum(map(len, found)) == 9
    assert all(face.landmarks.dtype == face.blendshapes.dtype == np.float32 for (face, *_) in found)
    assert all(0.5 <= face.score <= 1 for faces in found for face in faces)


def test_depth_has_the_scale_of_the_image_plane() -> None:
    """MediaPipe scales z by the width of the region in the image, which is another one for a turned face."""
    images, points, _ = recorded()
    for image, meshes, faces in zip(images, points, detector()(images), strict=True):
        for face, mesh in zip(faces, meshes, strict=True):
            height, width = image.shape[:2]
            x, y, _ = mesh[263] - mesh[33]
            factor = np.hypot(x, y * width / height) / np.hypot(x, y)
            assert np.allclose(
                face.landmarks[:, 2] * factor, mesh[:, 2], atol=0.04 * np.abs(mesh[:, 2]).max()
            )


def test_faces_of_an_installed_mediapipe() -> None:
    pytest.importorskip("mediapipe")
    images = recorded()[0]
    for kind, confidence, count in ((FaceMesh, 0.5, 5), (SmirkFaceMesh, 0.1, 1)):
        reference = landmarks(images, find_weights("facemesh"), confidence=confidence, faces=count)
        for faces, expected in zip(detector(kind=kind)(images), reference, strict=True):
            agree(faces, *expected)


def test_points_do_not_depend_on_the_other_images_of_a_call() -> None:
    images = [*recorded()[0], data.astronaut(), np.zeros((50, 40, 3), np.uint8)]
    together = detector()(images)
    for image, faces in zip(images, together, strict=True):
        (alone,) = detector()([image])
        assert len(alone) == len(faces)
        for face, other in zip(faces, alone, strict=True):
            assert np.array_equal(face.landmarks, other.landmarks)
            assert np.array_equal(face.blendshapes, other.blendshapes)


def test_scores_of_a_smile() -> None:
    ((face,),) = detector()([data.astronaut()])
    assert np.allclose(face.xyxy, (179, 71, 271, 177), atol=12)
    assert np.allclose(face.xyxy, [*face.landmarks[:, :2].min(0), *face.landmarks[:, :2].max(0)])
    scores = dict(zip(arkit.NAMES, face.blendshapes, strict=True))
    assert min(scores["mouthSmileLeft"], scores["mouthSmileRight"]) > 0.5
    assert max(scores["eyeBlinkLeft"], scores["jawLeft"], scores["browDownLeft"]) < 0.3


def test_left_and_right_are_the_subjects() -> None:
    """An eye painted over with cheek is the more closed one, on the same side of the subject in a mirror."""
    image = data.astronaut().copy()
    ((face,),) = detector()([image])
    eye = face.landmarks[[263, 386, 362, 374], :2]  # her left eye, right in the picture
    (x0, y0), (x1, y1) = eye.min(0).astype(int) - 1, eye.max(0).astype(int) + 2
    image[y0:y1, x0:x1] = image[y1 + 6, x1 - 5]
    blink = [arkit.NAMES.index(name) for name in ("eyeBlinkLeft", "eyeBlinkRight")]
    (straight,), (mirrored,) = detector()([image, np.ascontiguousarray(image[:, ::-1])])
    left, right = straight.blendshapes[blink]
    assert left > right + 0.05
    mirrored_left, mirrored_right = mirrored.blendshapes[blink]
    assert mirrored_right > mirrored_left + 0.05


def test_a_face_that_fills_its_image_is_found_with_a_border() -> None:
    tight = data.astronaut()[95:171, 190:260]
    ((whole,),) = detector()([data.astronaut()])
    assert not detector()._find([tight])[0]
    ((face,),) = detector()([tight])
    assert distances(face, whole.landmarks - (190, 95, 0)).mean() < 3
    # the same as in an image with that border
    border = round(0.25 * max(tight.shape[:2]))
    image = np.pad(tight, ((border, border), (border, border), (0, 0)))
    ((in_image,),) = detector()([image])
    assert distances(face, in_image.landmarks - (border, border, 0)).max() < 0.5


def test_faces_at_borders() -> None:
    image = data.astronaut()
    ((whole,),) = detector()([image])
    for part, corner in (
        (image[80:], (0, 80, 0)),
        (image[:, 200:], (200, 0, 0)),
        (image[:175, :260], (0, 0, 0)),
    ):
        ((face,),) = detector()([part])
        assert distances(face, whole.landmarks - corner).mean() < 4


@pytest.mark.parametrize("kind", [FaceMesh, SmirkFaceMesh])
def test_several_faces(kind: type[FaceMesh]) -> None:
    face = data.astronaut()[40:220, 140:310]
    image = np.full((400, 540, 3), 128, np.uint8)
    for place in range(6):
        row, column = divmod(place, 3)
        side = 170 - 4 * place
        small = np.asarray(Image.fromarray(face).resize((side, side)))
        image[10 + 200 * row :, 5 + 180 * column :][:side, :side] = small
    (faces,) = detector(kind=kind)([image])
    assert len(faces) == kind.max_faces, [face.score for face in faces]
    scores = [one.score for one in faces]
    assert scores == sorted(scores, reverse=True)


def test_one_face_at_low_confidence_is_one_face() -> None:
    class Eager(FaceMesh):
        min_detection = 0.1

    counts = [len(faces) for faces in Eager("cpu")(recorded()[0])]
    assert counts == [1, 1, 1, 1, 1, 2, 1, 1]


def test_a_region_without_a_face_does_not_hide_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best detection may be off; another one of the same face then counts."""
    from ig3d.extract.detectors import blazeface

    decoded = blazeface.decode

    def with_worse(*arguments: object) -> list[tuple[np.ndarray, np.ndarray]]:
        ((points, scores),) = decoded(*arguments)  # type: ignore[arg-type]
        # half of the face, upside down
        wrong = points[:1].copy()
        wrong[:, 1] = wrong[:, :2].mean(1)
        wrong[:, [2, 3]] = wrong[:, [3, 2]]
        return [(np.concatenate([wrong, points]), np.concatenate([[1.0], scores]))]

    ((face,),) = detector()([data.astronaut()])
    monkeypatch.setattr(blazeface, "decode", with_worse)
    ((other,),) = detector()([data.astronaut()])
    assert np.array_equal(face.landmarks, other.landmarks)
    assert other.score == face.score < 1


def test_images_of_any_size() -> None:
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (1, 300), (300, 1), (2, 3), (9, 2000), (3000, 7), (60, 80), (6000, 4000)]
    images = [np.full((*shape, 3), 130, np.uint8) for shape in shapes]
    images += [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes[:-1]]
    assert detector()(images) == [[] for _ in images]
    assert detector()([]) == []


def test_views_and_read_only_images() -> None:
    image = data.astronaut()
    ((face,),) = detector()([image])
    wide = np.zeros((1024, 1024, 4), np.uint8)
    wide[::2, ::2, :3] = image
    view = wide[::2, ::2, :3]
    frozen = image.copy()
    frozen.setflags(write=False)
    for other in (view, frozen):
        ((same,),) = detector()([other])
        assert np.array_equal(face.landmarks, same.landmarks)


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "CMYK", "I;16"])
def test_images_of_other_modes(mode: str, ig3d: Callable[..., Ended], tmp_path: Path) -> None:
    picture = Image.fromarray(data.astronaut()[:300, 80:380])
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    (tmp_path / "data" / "happy").mkdir(parents=True)
    picture.save(tmp_path / "data" / "happy" / ("a.tif" if mode == "CMYK" else "a.png"))
    ended = ig3d("extract", tmp_path / "data", "--out", tmp_path / "a.h5", "--jobs", 1)
    assert ended.returncode == 0, ended.stderr
    assert "1 row (ok 1)" in ended.stdout


def test_two_settings_by_name() -> None:
    default, smirk = load_detector("facemesh", device="cpu"), load_detector("facemesh-smirk", device="cpu")
    assert default.describe()["name"] == "facemesh"
    assert (default.describe()["min_detection"], smirk.describe()["min_detection"]) == (0.5, 0.1)
    assert default.describe()["weights_sha256"] == smirk.describe()["weights_sha256"]
    assert len(default.describe()["weights_sha256"]) == 64
    assert default.describe()["runtime"].startswith("openvino")


@pytest.mark.skipif(not REFERENCE.is_file(), reason="no photographs beside the clone")
def test_photographs() -> None:
    """40 of 314 photographs; all of them with IG3D_ALL_PHOTOGRAPHS=1."""
    with np.load(REFERENCE) as arrays:
        reference = dict(arrays)
    rows = np.arange(len(reference["id"]))
    if not os.environ.get("IG3D_ALL_PHOTOGRAPHS"):
        rows = np.random.default_rng(0).choice(rows, 40, replace=False)
    images = [_upright(PHOTOGRAPHS / reference["id"][row]) for row in rows]
    faces = [faces for start in range(0, len(rows), 16) for faces in detector()(images[start : start + 16])]
    assert sum(map(bool, faces)) >= (304 if len(rows) == 314 else (reference["count"][rows] > 0).sum())
    errors = []
    for row, found in zip(rows, faces, strict=True):
        if reference["first_count"][row]:
            face = choose_face(found)
            errors.append(
                (
                    distances(face, reference["points"][row]).mean(),
                    distances(face, reference["points"][row]).max(),
                    np.abs(face.blendshapes - reference["blendshapes"][row]).max(),
                )
            )
    mean, worst, scores = np.array(errors).T
    assert mean.max() < 0.2
    assert worst.max() < 2
    # in one photograph of 59 x 42 pixels MediaPipe's gaze scores change by 0.1 if a region moves by 1e-4 pixels
    assert np.sort(scores)[-2] < 0.02
    demo = [
        found
        for start in range(0, len(rows), 16)
        for found in detector(kind=SmirkFaceMesh)(images[start : start + 16])
    ]
    known = np.isfinite(reference["smirk_points"][rows, 0, 0])
    assert known.any()
    for row, found in zip(rows[known], [demo[k] for k in np.flatnonzero(known)], strict=True):
        assert distances(found[0], reference["smirk_points"][row]).mean() < 0.2
        assert distances(found[0], reference["smirk_points"][row]).max() < 2


def _upright(path: Path) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))


def test_pictures_without_people() -> None:
    rng = np.random.default_rng(0)
    per_picture = 25 if os.environ.get("IG3D_ALL_PHOTOGRAPHS") else 6
    images = []
    for name in WITHOUT_PEOPLE:
        picture = np.atleast_3d(getattr(data, name)())
        picture = picture.repeat(3, axis=2) if picture.shape[2] == 1 else picture
        for _ in range(per_picture):
            side = int(rng.integers(48, min(picture.shape[:2]) + 1))
            y, x = (int(rng.integers(0, length - side + 1)) for length in picture.shape[:2])
            images.append(picture[y : y + side, x : x + side])
    false = sum(map(bool, detector()(images)))
    assert false <= 0.025 * len(images)


def test_the_environment_is_restored_after_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    from ig3d.extract import compiled

    name = "ONEDNN_MAX_CPU_ISA"
    monkeypatch.setattr(compiled, "_is_zen4", lambda: True)
    monkeypatch.delenv(name, raising=False)
    with compiled.short_vectors():
        assert os.environ[name] == "AVX2"
    assert name not in os.environ
    monkeypatch.setenv(name, "AVX512_CORE")
    with compiled.short_vectors():
        assert os.environ[name] == "AVX512_CORE"
    assert os.environ[name] == "AVX512_CORE"
