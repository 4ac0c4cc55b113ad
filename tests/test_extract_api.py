"""The Python API of regressors: one image, several, videos, folders; the codes are those of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

import ig3d
from ig3d.errors import DatasetError, UsageError
from ig3d.extract.api import FaceRegressor
from ig3d.extract.fakes import FakeDetector, FakeRegressor
from ig3d.features.pose import pose_degrees


@pytest.fixture
def fake() -> FaceRegressor:
    return ig3d.load_regressor("ig3d.extract.fakes:FakeRegressor")


@pytest.fixture(scope="module")
def facemesh() -> FaceRegressor:
    return ig3d.load_regressor("facemesh", device="cpu")


GREY = np.full((40, 60, 3), 100, np.uint8)


def test_one_image_gives_a_list_of_faces_and_several_a_list_of_lists(fake: FaceRegressor) -> None:
    faces = fake(GREY)
    assert len(faces) == 1 and faces[0].score == pytest.approx(0.9)
    np.testing.assert_allclose(faces[0].codes["colour"], 100 / 255, atol=1e-6)
    np.testing.assert_array_equal(faces[0].xyxy, [15, 10, 45, 30])
    assert faces[0].landmarks is None and faces[0].pose_degrees is None
    assert [len(of_image) for of_image in fake([GREY, np.zeros_like(GREY), GREY])] == [1, 0, 1]
    assert [len(of_image) for of_image in fake(np.stack([GREY, GREY]))] == [1, 1]
    assert fake([]) == [] and fake(np.zeros_like(GREY)) == []


@pytest.mark.parametrize(
    "image",
    [
        GREY[..., 0],
        GREY[..., :1],
        GREY / np.float32(255),
        GREY[..., 0] / 255,
        np.concatenate([GREY, np.full((40, 60, 1), 255, np.uint8)], axis=2),
    ],
    ids=["grey", "grey with an axis", "float32", "grey float64", "rgba"],
)
def test_kinds_of_arrays_are_one_image(image: np.ndarray, fake: FaceRegressor) -> None:
    np.testing.assert_array_equal(fake(image)[0].codes["colour"], fake(GREY)[0].codes["colour"])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 40, 60), np.uint8), r"shape \(3, 40, 60\)"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
        (np.zeros(5), r"shape \(5,\)"),
        (np.full((4, 4, 3), 255.0), "from 255 to 255"),
        (np.full((4, 4, 3), -0.5), "from -0.5"),
        (np.full((4, 4, 3), np.nan), "from nan"),
        (np.zeros((4, 4, 3), np.uint16), "array of uint16"),
        (np.zeros((4, 4, 3), bool), "array of bool"),
    ],
)
def test_arrays_that_are_no_image_are_refused(image: np.ndarray, message: str, fake: FaceRegressor) -> None:
    with pytest.raises(UsageError, match=message):
        fake(image)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path, fake: FaceRegressor) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(DatasetError, match="not an image"):
        fake(tmp_path / "text.jpg")
    with pytest.raises(DatasetError, match="no such file"):
        fake([GREY, tmp_path / "none.jpg"])


def test_a_face_without_finite_codes_is_left_out_with_a_warning(fake: FaceRegressor) -> None:
    red, blue = np.zeros_like(GREY), np.zeros_like(GREY)
    red[..., 0] = 255
    blue[..., 2] = 255
    with pytest.warns(RuntimeWarning, match="image [12]: a face is left out"):
        assert [len(faces) for faces in fake([GREY, red, blue, GREY])] == [1, 0, 0, 1]


def test_the_largest_confident_face_is_first() -> None:
    class Several(FakeDetector):
        def __call__(self, images):  # type: ignore[no-untyped-def]
            (face,) = super().__call__(images)[0]
            boxes = ((0, 0, 10, 10), (0, 0, 39, 39), (0, 0, 20, 20))
            scores = (0.9, 0.3, 0.8)
            return [
                [
                    type(face)(np.array(box, np.float32), score)
                    for box, score in zip(boxes, scores, strict=True)
                ]
                for _ in images
            ]

    faces = FaceRegressor(FakeRegressor(), Several())(GREY)
    assert [face.score for face in faces] == [0.8, 0.3, 0.9]


def test_frames_of_a_folder_leave_out_damaged_files(tmp_path: Path, fake: FaceRegressor) -> None:
    (tmp_path / "sub").mkdir()
    Image.fromarray(GREY).save(tmp_path / "sub" / "a.png")
    Image.fromarray(GREY).save(tmp_path / "b.png")
    (tmp_path / "bad.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.warns(RuntimeWarning, match="bad.jpg: the file is empty"):
        frames = list(fake.frames(tmp_path))
    assert [frame.id for frame in frames] == ["b", "sub/a"]
    assert all(np.isnan(frame.time) and len(frame.faces) == 1 for frame in frames)


def test_frames_of_an_iterable_are_computed_one_by_one(fake: FaceRegressor) -> None:
    taken = []

    def camera():  # type: ignore[no-untyped-def]
        for number in range(3):
            taken.append(number)
            yield GREY

    frames = fake.frames(camera())
    assert next(frames).id == "0" and taken == [0]
    assert [frame.id for frame in frames] == ["1", "2"]


def test_files_of_an_iterable_that_cannot_be_read_are_left_out(tmp_path: Path, fake: FaceRegressor) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.warns(RuntimeWarning, match="text.jpg"):
        frames = list(fake.frames([GREY, tmp_path / "text.jpg", GREY]))
    assert [frame.id for frame in frames] == ["0", "2"]
    for source in (None, 0.5):
        with pytest.raises(UsageError, match="is no source"):
            fake.frames(source)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="fps is '5'"):
        fake.frames([GREY], fps="5")  # type: ignore[arg-type]


def test_images_of_pillow_are_those_of_their_files(tmp_path: Path, fake: FaceRegressor) -> None:
    deep = Image.fromarray(GREY[..., 0].astype(np.uint16) * 257)
    transparent = Image.fromarray(GREY).convert("RGBA")
    transparent.putalpha(0)
    for number, image in enumerate((Image.fromarray(GREY), deep, transparent)):
        image.save(path := tmp_path / f"{number}.png")
        np.testing.assert_array_equal(fake(image)[0].codes["colour"], fake(path)[0].codes["colour"])
    assert "100" not in repr(fake(GREY)) and "colour (3)" in repr(fake(GREY)[0])


def test_a_video_or_folder_is_not_an_image(tmp_path: Path, fake: FaceRegressor) -> None:
    (tmp_path / "a.mp4").touch()
    for source in (tmp_path, tmp_path / "a.mp4"):
        with pytest.raises(DatasetError, match=r"iterate over it with frames\("):
            fake(source)
    for source in (None, 3):
        with pytest.raises(UsageError, match="is no image"):
            fake(source)  # type: ignore[call-overload]


def test_sources_that_cannot_be_opened_are_refused(tmp_path: Path, fake: FaceRegressor) -> None:
    pytest.importorskip("av")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    (tmp_path / "none.mp4").write_bytes(b"")
    for source, error, message in (
        (99, UsageError, "webcam 99 cannot be opened"),
        (GREY, UsageError, "one image"),
        (tmp_path / "nothing.mp4", DatasetError, "no such file"),
        (tmp_path / "cut.mp4", DatasetError, "no video"),
        (tmp_path / "none.mp4", DatasetError, "empty"),
        (tmp_path / "empty", DatasetError, "no images or videos"),
    ):
        with pytest.raises(error, match=message):
            next(fake.frames(source))
    with pytest.raises(UsageError, match="fps is 0"):
        fake.frames([GREY], fps=0)
    with pytest.raises(UsageError, match="bytes: is no image; pass an array"):
        fake(b"\xff\xd8")  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="bytes: is no image; pass an array"):
        fake([b"\xff\xd8"])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="int: is no image; pass an array"):
        fake([1, 2])  # type: ignore[list-item]


def test_frames_of_a_video_have_ids_and_times_as_in_a_store(tmp_path: Path, fake: FaceRegressor) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8))))
        container.mux(stream.encode())
    frames = list(fake.frames(tmp_path / "clip.mp4", fps=5))
    assert [frame.id for frame in frames][:3] == ["clip#000000", "clip#000002", "clip#000004"]
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(10) / 5, atol=1e-6)


@pytest.fixture
def camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Camera 0: OpenCV's reader of a file with 5 frames, the first of which is red."""
    cv2 = pytest.importorskip("cv2")
    path = str(tmp_path / "camera.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for number in range(5):
        writer.write(np.full((48, 64, 3), (40 * number, 0, 200), np.uint8))  # BGR
    writer.release()
    capture = cv2.VideoCapture(path)
    assert capture.isOpened()
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: capture if index == 0 else None)
    return capture


def test_frames_of_a_webcam_end_and_release_it_when_it_is_unplugged(camera: Any, fake: FaceRegressor) -> None:
    frames = list(fake.frames(0))
    assert [frame.id for frame in frames] == ["0", "1", "2", "3", "4"]
    times = [frame.time for frame in frames]
    assert times == sorted(times) and times[0] >= 0
    np.testing.assert_allclose(frames[0].image[24, 32], (200, 0, 0), atol=12)  # RGB
    assert all(len(frame.faces) == 1 for frame in frames)
    assert not camera.isOpened()


def test_a_webcam_is_released_when_the_caller_stops(camera: Any, fake: FaceRegressor) -> None:
    frames = fake.frames(0)
    assert next(frames).id == "0" and camera.isOpened()
    frames.close()  # type: ignore[attr-defined]
    assert not camera.isOpened()


def test_a_webcam_is_released_after_an_error(
    camera: Any, fake: FaceRegressor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(images: object) -> None:
        raise UsageError("no detection")

    monkeypatch.setattr(fake, "_detector", failing)
    with pytest.raises(UsageError, match="no detection"):
        next(fake.frames(0))
    assert not camera.isOpened()


def test_codes_are_those_of_a_store(tmp_path: Path, facemesh: FaceRegressor) -> None:
    face = astronaut()[:300, 70:370]
    images = {"a": face, "b": face[:, ::-1], "c": np.pad(face, ((0, 90), (40, 0), (0, 0)))}
    for name, pixels in images.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    listing = ig3d.list_samples(tmp_path, "folder")
    ig3d.extract_codes(listing, tmp_path / "x.h5", ig3d.ExtractConfig(device="cpu"), jobs=1)
    with ig3d.CodeStore(tmp_path / "x.h5") as store:
        assert store.ok.all()
        together = facemesh([tmp_path / f"{name}.png" for name in images])
        for row, name in enumerate(images):
            for faces in (facemesh(images[name]), together[row]):
                assert len(faces) == 1
                for block in store.blocks:
                    np.testing.assert_allclose(faces[0].codes[block], store.codes(block)[row], atol=1e-5)
                np.testing.assert_allclose(faces[0].xyxy, store.column("face/box")[row], atol=1e-3)
                assert faces[0].landmarks is not None and faces[0].landmarks.shape == (478, 3)
                degrees = pose_degrees(store.codes("pose")[row])
                np.testing.assert_allclose(faces[0].pose_degrees, degrees, atol=1e-2)


def test_one_image_is_not_padded_to_a_batch(facemesh: FaceRegressor) -> None:
    sizes: list[int] = []
    network = facemesh._detector._mesh  # type: ignore[attr-defined]
    face = astronaut()[:300, 70:370]
    facemesh(face)
    session = network._single
    network._single = lambda rows: (sizes.append(len(rows[0])), session(rows))[1]
    try:
        facemesh(face)
    finally:
        network._single = session
    assert sizes == [1]


def test_importing_the_package_is_light() -> None:
    assert "load_regressor" in ig3d.__all__
    with pytest.raises(UsageError, match="regressor: None is not a name; choose one of"):
        ig3d.load_regressor(None)  # type: ignore[arg-type]
    assert "expression (30)" in repr(ig3d.load_regressor("facemesh"))
