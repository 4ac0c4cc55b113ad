"""The Face Landmarker as a detector, its scores as codes; with its file where that lies beside the clone."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

import ig3d.extract.detectors.landmarker as module
from ig3d.errors import MissingExtra, UsageError, WeightsError
from ig3d.extract import arkit
from ig3d.extract.config import ExtractConfig, settle
from ig3d.extract.crop import prepare
from ig3d.extract.datasets import list_samples
from ig3d.extract.detectors import load_detector
from ig3d.extract.detectors.common import distinct, find_twice
from ig3d.extract.detectors.landmarker import Landmarker
from ig3d.extract.flow import flow
from ig3d.extract.regressors.blendshapes import BlendshapeCodes
from ig3d.features.values import Face, Status

PLACES = (
    os.environ.get("IG3D_FACE_LANDMARKER", ""),
    Path(__file__).resolve().parents[2] / "shared/reference/face_landmarker.task",
)
TASK = next((Path(place) for place in PLACES if str(place) and Path(place).is_file()), None)
needs_task = pytest.mark.skipif(
    TASK is None, reason="no face_landmarker.task: set IG3D_FACE_LANDMARKER to one (docs/detectors.md)"
)


@lru_cache(maxsize=1)
def detector() -> Landmarker:
    return Landmarker(TASK)


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, float).reshape(-1, 4)


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (boxes(), []),
        (boxes((0, 0, 10, 10)), [0]),
        # the same face a little aside; a mouth within the face; a neighbour
        (boxes((0, 0, 10, 10), (1, 1, 11, 11), (4, 7, 6, 9), (9, 0, 19, 10)), [0, 3]),
        # a twin of a twin that was dropped is measured against what is kept
        (boxes((0, 0, 10, 10), (4, 0, 14, 10), (8, 0, 18, 10)), [0, 2]),
        (boxes((0, 0, 0, 0), (0, 0, 0, 0)), [0, 1]),
    ],
)
def test_each_face_is_counted_once(found: np.ndarray, kept: list[int]) -> None:
    assert distinct(found).tolist() == kept


def test_a_face_that_is_found_with_a_border_lies_where_it_lies_without() -> None:
    image = np.full((40, 80, 3), 9, np.uint8)
    marks = np.array([[30.0, 25, -3], [40, 35, 4]], np.float32)

    def find(seen: np.ndarray) -> list[Face]:
        """A face in the middle of what is larger than the image."""
        if seen.shape == image.shape:
            return []
        assert seen.shape == (80, 120, 3)
        assert (seen[20:60, 20:100] == 9).all()
        assert seen.sum() == image.sum()
        return [Face(np.array([25, 22, 50, 40], np.float32), 0.7, marks, np.ones(52, np.float32))]

    (face,) = find_twice(find, image)
    assert face.xyxy.tolist() == [5, 2, 30, 20]
    assert face.landmarks.tolist() == [[10, 5, -3], [20, 15, 4]]
    assert (face.score, face.blendshapes.sum()) == (0.7, 52)
    assert marks[0, 0] == 30


@needs_task
def test_a_face_that_the_task_gives_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = detector()._detect(astronaut())
    twice = SimpleNamespace(
        face_landmarks=found.face_landmarks * 2, face_blendshapes=found.face_blendshapes * 2
    )
    monkeypatch.setattr(detector(), "_detect", lambda image: twice)
    assert [len(faces) for faces in detector()([astronaut()])] == [1]


@needs_task
def test_the_astronaut_with_points_scores_and_no_detection_score() -> None:
    (faces,) = detector()([astronaut()])
    (face,) = faces
    assert np.allclose(face.xyxy, (179, 71, 271, 177), atol=12)
    assert np.isnan(face.score)
    assert face.landmarks.shape == (478, 3)
    assert np.allclose(face.xyxy, [*face.landmarks[:, :2].min(0), *face.landmarks[:, :2].max(0)])
    scores = dict(zip(arkit.NAMES, face.blendshapes, strict=True))
    # she smiles with open eyes
    assert min(scores["mouthSmileLeft"], scores["mouthSmileRight"]) > 0.5
    assert max(scores["eyeBlinkLeft"], scores["jawLeft"], scores["browDownLeft"]) < 0.3


@needs_task
def test_left_and_right_are_the_subjects() -> None:
    """An eye that is painted over with cheek is the more closed one, on the same side of the subject in a mirror."""
    image = astronaut().copy()
    points = detector()([image])[0][0].landmarks[
        [263, 386, 362, 374], :2
    ]  # her left eye, right in the picture
    (x0, y0), (x1, y1) = points.min(0).astype(int) - 1, points.max(0).astype(int) + 2
    image[y0:y1, x0:x1] = image[y1 + 8 : y1 + 14, x0:x1].mean((0, 1))
    blink = [arkit.NAMES.index(name) for name in ("eyeBlinkLeft", "eyeBlinkRight")]
    left, right = detector()([image])[0][0].blendshapes[blink]
    assert left > right + 0.05
    left, right = detector()([np.ascontiguousarray(image[:, ::-1])])[0][0].blendshapes[blink]
    assert right > left + 0.05


@needs_task
def test_a_tight_crop_is_found_at_its_place() -> None:
    tight = np.ascontiguousarray(astronaut()[85:178, 185:268])
    whole, padded = (detector()([image])[0][0] for image in (astronaut(), tight))
    assert np.abs(padded.landmarks[:, :2] + (185, 85) - whole.landmarks[:, :2]).mean() < 3


@needs_task
def test_nothing_is_found_where_nothing_is() -> None:
    images = [
        np.zeros((80, 60, 3), np.uint8),
        np.full((300, 1, 3), 9, np.uint8),
        np.ones((1, 1, 3), np.uint8),
    ]
    assert detector()(images) == [[], [], []]


@needs_task
def test_two_faces_are_two() -> None:
    face = astronaut()[40:220, 140:310]
    both = np.full((220, 360, 3), 128, np.uint8)
    both[20:200, 10:180] = face
    both[60:166, 230:330] = np.asarray(Image.fromarray(face).resize((100, 106)))
    (faces,) = detector()([both])
    assert len(faces) == 2


@needs_task
def test_the_scores_become_codes_with_names(tmp_path: Path) -> None:
    (tmp_path / "happy").mkdir()
    picture = astronaut()[:300, 80:380]
    for name, pixels in {"face": picture, "wall": np.full_like(picture, 130)}.items():
        Image.fromarray(pixels).save(tmp_path / "happy" / f"{name}.png")
    samples = list_samples(tmp_path, "folder").samples
    regress = BlendshapeCodes()
    rows = flow(samples, tmp_path, detector(), regress)
    assert rows.status.tolist() == [Status.ok, Status.no_face]
    assert rows.count.tolist() == [1, 0]
    block = regress.blocks["blendshapes"]
    assert (block.width, block.basis, block.columns[25]) == (52, "arkit-52", "jawOpen")
    assert rows.codes["blendshapes"].shape == (2, 52)
    assert np.array_equal(rows.codes["blendshapes"][0], detector()([picture])[0][0].blendshapes)
    assert len(detector().describe()["weights_sha256"]) == 64


def test_a_detector_without_scores_is_a_wrong_setting() -> None:
    face = Face(np.array([0, 0, 9, 9], np.float32), landmarks=np.zeros((478, 3), np.float32))
    with pytest.raises(UsageError, match="use --detector landmarker"):
        prepare([np.zeros((9, 9, 3), np.uint8)], [face], BlendshapeCodes.needs)


def test_another_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "face_landmarker.task").write_bytes(b"PK\x03\x04 not a bundle")
    with pytest.raises(WeightsError, match=r"face_landmarker.task, got another or a damaged file") as info:
        Landmarker(tmp_path / "face_landmarker.task")
    assert "\n" not in str(info.value)
    with pytest.raises(WeightsError, match="got No such file"):
        Landmarker(tmp_path / "none.task")


def test_the_solutions_package_is_not_asked_for() -> None:
    """Python 3.13 has mediapipe 1.x, which has none; so detector and regressor import without it."""
    code = (
        "import sys; sys.modules['mediapipe.python'] = None; sys.modules['mediapipe.python.solutions'] = None\n"
        "import ig3d.extract.run, ig3d.extract.detectors.landmarker\n"
        "from ig3d.extract.regressors import load_regressor\n"
        "load_regressor('blendshapes'); print('mediapipe' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False"]


@needs_task
def test_the_runtime_does_not_talk() -> None:
    code = (
        "from skimage.data import astronaut\n"
        f"from {module.__name__} import Landmarker\n"
        f"print(len(Landmarker({str(TASK)!r})([astronaut()])[0]))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("1\n", "")


def test_facemesh_says_that_newer_mediapipe_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ig3d.extract.detectors.facemesh", raising=False)
    for name in ("mediapipe.python", "mediapipe.python.solution_base", "mediapipe.python.solutions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"expected mediapipe 0.10.21 .*--regressor blendshapes"):
        load_detector("facemesh")


def test_a_missing_file_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IG3D_WEIGHTS", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    with pytest.raises(WeightsError, match=r"^facemesh: expected face_landmarker.task"):
        settle(ExtractConfig("blendshapes"))
