"""Known boxes: those of the dataset itself, and those of an earlier run; nothing is detected twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from conftest import FAKE, Ended, colour_folder, write_image
from listed import Sample, listing_of, samples_of, with_samples
from PIL import Image
from stage_rows import rows_of

from ig3d.errors import DatasetError, RunError, StoreError, UsageError
from ig3d.extract import sources
from ig3d.extract.boxes import box_source, choose_overlapping, surroundings
from ig3d.extract.config import ExtractConfig
from ig3d.extract.crop import square_box
from ig3d.extract.datasets import list_samples
from ig3d.extract.detectors import Detector
from ig3d.extract.fakes import FakeDetector, FakeRegressor
from ig3d.extract.join import join_parts
from ig3d.extract.regressors import Regressor
from ig3d.extract.run import Summary, extract_codes
from ig3d.features.samples import Listing, files_of
from ig3d.features.store import CodeStore
from ig3d.features.values import Block, CropSpec, Face, FaceBatch, LandmarkSpec, Status

CONFIG = ExtractConfig(regressor=FAKE, batch_size=8)


class NoDetector(FakeDetector):
    """Must not be asked."""

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        raise AssertionError("a detector was asked")


class SpotDetector(Detector):
    """White spots, each with its four corners as landmarks."""

    name = "spots"
    landmarks = 2

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        from scipy.ndimage import find_objects, label

        found = []
        for image in images:
            places = find_objects(label(image[..., 0] == 255)[0])
            boxes = [np.array([x.start, y.start, x.stop, y.stop], np.float32) for y, x in places]
            found.append([Face(b, 0.9, np.array([(*b[:2], 0), (*b[2:], 0)], np.float32)) for b in boxes])
        return found


class SpotRegressor(Regressor):
    """The corners themselves."""

    name = "corners"
    needs = LandmarkSpec(2)
    blocks: ClassVar = {"corners": Block(4, "px", "spots", "Corners.")}

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        assert faces.landmarks is not None
        return {"corners": faces.landmarks[:, :, :2].reshape(-1, 4)}


def boxed(samples: Listing, box: tuple[float, float, float, float]) -> Listing:
    return with_samples(samples, [replace(sample, box=box) for sample in samples_of(samples)])


def test_a_datasets_box_is_cropped_and_nothing_detected(tmp_path: Path) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[8:32, 33:57] = (200, 100, 50)
    Image.fromarray(image).save(tmp_path / "a.png")
    sample = Sample("a", "a.png", box=(35, 10, 55, 30))
    source = box_source(listing_of("x", str(tmp_path), (), (sample,)), "dataset", FakeRegressor.needs)
    assert source.complete
    rows = rows_of(
        [(sample.path, -1)], tmp_path, NoDetector(), FakeRegressor(), boxes=source.read(slice(None))
    )
    assert rows.status.tolist() == [Status.ok]
    assert rows.xyxy.tolist() == [[35, 10, 55, 30]]
    assert np.isnan(rows.score[0]) and rows.count[0] == 1
    assert np.allclose(rows.codes["colour"][0] * 255, (200, 100, 50), atol=1)


def test_a_run_with_boxes_needs_no_detector_and_another_identity(tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 5)
    plain = list_samples(root, "folder")
    extract_codes(boxed(plain, (2, 2, 20, 18)), tmp_path / "a.h5", CONFIG, jobs=1)
    with CodeStore(tmp_path / "a.h5") as store:
        assert store.info.detector == {"name": "boxes", "version": "1"}
        assert store.info.config["boxes"] == "dataset"
        assert store.ok.all()
        assert (store.column("face/box") == (2, 2, 20, 18)).all()
    with pytest.raises(RunError, match=r"detector\.name: boxes -> fake"):
        extract_codes(plain, tmp_path / "a.h5", CONFIG, jobs=1)
    with pytest.raises(RunError, match="other ids, labels, splits"):
        extract_codes(boxed(plain, (2, 2, 20, 17)), tmp_path / "a.h5", CONFIG, jobs=1)
    extract_codes(boxed(plain, (2, 2, 20, 18)), tmp_path / "b.h5", replace(CONFIG, boxes="none"), jobs=1)
    with CodeStore(tmp_path / "b.h5") as store:
        assert store.info.detector == {"name": "fake", "version": "1"}


def test_landmarks_are_looked_for_around_the_box_only(tmp_path: Path) -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[10:70, 100:180] = 255  # the largest, which a detector would choose
    image[40:50, 20:30] = 255
    image[60:64, 20:24] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    boxes = {
        "large": (100, 10, 180, 70),
        "small": (18, 38, 31, 52),
        "none": (60, 80, 70, 90),
        "out": (500, 0, 600, 90),
    }
    samples = [Sample(name, "a.png", box=box) for name, box in boxes.items()] + [Sample("unknown", "a.png")]
    listed = listing_of("x", str(tmp_path), (), tuple(samples))
    source = box_source(listed, "dataset", SpotRegressor.needs)
    assert not source.complete
    boxes = source.read(slice(None))
    rows = rows_of(files_of(listed.samples), tmp_path, SpotDetector(), SpotRegressor(), boxes=boxes)
    found = dict(zip([s.id for s in samples_of(listed)], range(5), strict=True))
    assert rows.codes["corners"][found["large"]].tolist() == [100, 10, 180, 70]
    assert rows.codes["corners"][found["small"]].tolist() == [20, 40, 30, 50]
    assert rows.codes["corners"][found["unknown"]].tolist() == [100, 10, 180, 70]
    assert rows.count[found["unknown"]] == 3
    for name, why in (("none", "no face found around the box"), ("out", "its box lies outside the image")):
        assert rows.status[found[name]] == Status.no_face
        assert rows.message[found[name]] == why


def test_a_face_without_the_landmarks_that_the_regressor_needs_fails_alone(tmp_path: Path) -> None:
    class FirstOnly(SpotDetector):
        def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
            faces = super().__call__(images)
            return [[first, *(replace(face, landmarks=None) for face in others)] for first, *others in faces]

    image = np.zeros((100, 200, 3), np.uint8)
    image[10:70, 100:180] = 255
    image[40:50, 20:30] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    samples = (Sample("a", "a.png", box=(100, 10, 180, 70)), Sample("a@1", "a.png", box=(20, 40, 30, 50)))
    listed = replace(listing_of("x", str(tmp_path), (), samples), detected=True)
    boxes = box_source(listed, "dataset", SpotRegressor.needs).read(slice(None))
    rows = rows_of(files_of(listed.samples), tmp_path, FirstOnly(), SpotRegressor(), boxes=boxes)
    assert rows.status.tolist() == [Status.ok, Status.failed]
    assert rows.message[1] == "spots gives no landmarks of this face"


@pytest.mark.parametrize("regressor", [SpotRegressor(), FakeRegressor()])
def test_boxes_of_the_detector_choose_among_the_faces_of_the_full_image(
    regressor: Regressor, tmp_path: Path
) -> None:
    searched: list[int] = []

    class Counting(SpotDetector):
        def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
            searched.append(len(images))
            return super().__call__(images)

    image = np.zeros((100, 200, 3), np.uint8)
    image[10:70, 100:180] = 255
    image[40:50, 20:30] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    boxes = ((100, 10, 180, 70), (20, 40, 30, 50))
    samples = tuple(Sample(f"a@{k}", "a.png", box=box) for k, box in enumerate(boxes))
    listed = replace(listing_of("x", str(tmp_path), (), samples), detected=True)
    source = box_source(listed, "dataset", regressor.needs)
    assert not source.complete and source.identity == "detector"
    rows = rows_of(files_of(listed.samples), tmp_path, Counting(), regressor, boxes=source.read(slice(None)))
    assert rows.status.tolist() == [Status.ok, Status.ok]
    assert rows.xyxy.tolist() == [list(box) for box in boxes]
    assert rows.count.tolist() == [2, 2]
    np.testing.assert_allclose(rows.score, 0.9)
    assert np.isfinite(rows.landmark_box).all()
    assert searched == [1]  # the image is searched once for both rows


@pytest.mark.parametrize(
    ("box", "ends"),
    [
        ((900, 900, 990, 990), Status.no_face),
        ((60, 5, 80, 25), Status.no_face),  # an image of 60 by 40 ends at its edges
        ((5, 40, 25, 60), Status.no_face),
        ((-20, 5, 0, 25), Status.no_face),
        ((5, -20, 25, 0), Status.no_face),
        ((59, 39, 80, 60), Status.ok),
        ((-20, -20, 1, 1), Status.ok),
    ],
)
def test_a_box_outside_its_image_holds_no_face(
    box: tuple[float, float, float, float], ends: Status, tmp_path: Path
) -> None:
    Image.new("RGB", (60, 40), (9, 99, 199)).save(tmp_path / "a.png")
    sample = Sample("a", "a.png", box=box)
    source = box_source(listing_of("x", str(tmp_path), (), (sample,)), "dataset", FakeRegressor.needs)
    rows = rows_of(
        [(sample.path, -1)], tmp_path, NoDetector(), FakeRegressor(), boxes=source.read(slice(None))
    )
    assert rows.status.tolist() == [ends]
    assert rows.message[0] == ("" if ends == Status.ok else "its box lies outside the image")
    assert np.isnan(rows.codes["colour"]).all() == (ends == Status.no_face)


class OddDetector(FakeDetector):
    """Faces that no store can hold."""

    landmarks = 2

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        box, points = np.array([2, 2, 20, 18], np.float32), np.full((2, 2), np.nan, np.float32)
        odd = {
            "reversed": Face(box[::-1].copy(), 0.9),
            "endless": Face(np.array([2, 2, np.inf, 18], np.float32), 0.9),
            "score": Face(box, 1.5),
            "landmarks": Face(box, 0.9, points),
        }
        return [[odd[ODD[int(image[0, 0, 2])]]] for image in images]


ODD = ("reversed", "endless", "score", "landmarks")


def test_a_face_that_no_store_can_hold_fails_its_row_alone(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for value in range(len(ODD)):
        write_image(root / "happy" / f"{value}.png", (255, 255, value))
    config = replace(CONFIG, detector=f"{OddDetector.__module__}:OddDetector")
    extract_codes(list_samples(root, "folder"), tmp_path / "a.h5", config, jobs=1)
    with CodeStore(tmp_path / "a.h5") as store:
        assert store.verify() == []
        assert (store.status == Status.failed).all()
        words = ("face's box is", "face's box is", "score is 1.5", "landmarks are not finite")
        assert all(word in message for word, message in zip(words, store.messages, strict=True))
        assert np.isnan(store.column("face/box")).all() and np.isnan(store.column("face/landmark_box")).all()


def test_surroundings_and_the_way_back() -> None:
    image = np.arange(100 * 200 * 3, dtype=np.uint32).reshape(100, 200, 3)
    known = Face(np.array([50, 40, 70, 60], np.float32))
    cut, corner = surroundings(image, known)
    assert cut.shape == (40, 40, 3) and corner == (40, 30)
    assert np.array_equal(cut, image[30:70, 40:80])
    found = Face(np.array([9, 9, 29, 31], np.float32), 0.5, np.array([[9, 9, 4]], np.float32))
    back = choose_overlapping([Face(np.array([0, 0, 8, 8], np.float32)), found], known.xyxy, corner)
    assert back is not None and back.xyxy.tolist() == [49, 39, 69, 61]
    assert back.landmarks is not None and back.landmarks.tolist() == [[49, 39, 4]]
    assert surroundings(image, None)[0] is image


def mixed_folder(root: Path) -> Path:
    """Good images, one without a face, one that cannot be regressed, one that is no image."""
    colour_folder(root, 30)
    write_image(root / "happy" / "black.png", (0, 0, 0))
    write_image(root / "sad" / "blue.png", (0, 0, 255))
    (root / "sad" / "text.png").write_text("no image")
    return root


def test_boxes_of_an_earlier_run_give_its_codes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = list_samples(mixed_folder(tmp_path / "data"), "folder")
    extract_codes(samples, tmp_path / "first.h5", CONFIG, jobs=1)
    monkeypatch.setattr(FakeDetector, "__call__", NoDetector.__call__)
    extract_codes(samples, tmp_path / "again.h5", replace(CONFIG, boxes=str(tmp_path / "first.h5")), jobs=1)
    with CodeStore(tmp_path / "first.h5") as first, CodeStore(tmp_path / "again.h5") as again:
        assert again.info.detector == {"name": "fake", "version": "1", "boxes_of": first.content_sha256}
        assert np.array_equal(first.status, again.status)
        assert np.array_equal(first.codes("colour"), again.codes("colour"), equal_nan=True)
        for column in ("box", "score", "count", "landmark_box", "crop_box"):
            assert np.array_equal(
                first.column(f"face/{column}"), again.column(f"face/{column}"), equal_nan=True
            )
        messages = dict(zip(again.samples.id, again.messages, strict=True))
        assert messages["happy/black"] == "no face found"
        assert messages["sad/blue"] == "ValueError: a crop is pure blue"
        assert again.verify() == []


def test_boxes_by_id_from_a_larger_store(tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 10)
    samples = list_samples(root, "folder")
    extract_codes(samples, tmp_path / "first.h5", CONFIG, jobs=1)
    part = replace(samples, samples=samples.samples[3:17:2])
    extract_codes(part, tmp_path / "part.h5", replace(CONFIG, boxes=str(tmp_path / "first.h5")), jobs=1)
    with CodeStore(tmp_path / "first.h5") as first, CodeStore(tmp_path / "part.h5") as second:
        assert np.array_equal(first.codes("colour")[3:17:2], second.codes("colour"))


def test_each_part_of_a_run_takes_the_boxes_of_its_own_rows(tmp_path: Path) -> None:
    samples = list_samples(colour_folder(tmp_path / "data", 10), "folder")
    extract_codes(samples, tmp_path / "first.h5", CONFIG, jobs=1)
    config, parts = replace(CONFIG, boxes=str(tmp_path / "first.h5")), []
    for k in (1, 2, 3):  # a box of another row would be one of another file, and its row failed
        parts.append(extract_codes(samples, tmp_path / f"{k}.h5", config, jobs=1, part=(k, 3)).store)
    join_parts(parts, tmp_path / "joined.h5")
    with CodeStore(tmp_path / "first.h5") as first, CodeStore(tmp_path / "joined.h5") as joined:
        assert joined.status.tolist() == first.status.tolist()
        assert np.array_equal(first.codes("colour"), joined.codes("colour"), equal_nan=True)


def test_a_store_that_is_replaced_during_the_run_is_refused(tmp_path: Path) -> None:
    every = list_samples(colour_folder(tmp_path / "data", 70), "folder")  # several shards
    some, fewer = (replace(every, samples=every.samples[rows:]) for rows in (2, 1))
    first, other = tmp_path / "first.h5", tmp_path / "other.h5"
    extract_codes(every, first, CONFIG, jobs=1)
    extract_codes(fewer, other, CONFIG, jobs=1)  # of the same images, each a row earlier
    kept = first.read_bytes()

    def swap(done: object) -> None:
        if list((tmp_path / "a.h5.parts").glob("00000*.h5")) and other.exists():
            other.replace(first)

    def run(progress: Callable[[object], None] | None = None) -> Summary:
        config = replace(CONFIG, boxes=str(first))
        return extract_codes(some, tmp_path / "a.h5", config, jobs=1, progress=progress)

    with pytest.raises(StoreError, match=r"first\.h5 is another store than when the run began"):
        run(swap)
    with pytest.raises(RunError, match=r"another, interrupted run .*boxes"):
        run()
    first.write_bytes(kept)
    summary = run()
    assert (summary.resumed, summary.counts) == (64, {"ok": 138})


def test_another_dataset_is_refused_and_a_changed_file_fails_alone(
    tmp_path: Path, ig3d: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, other = colour_folder(tmp_path / "data", 5), colour_folder(tmp_path / "other", 6)
    first = tmp_path / "first.h5"
    extract_codes(list_samples(root, "folder"), first, CONFIG, jobs=1)
    with_boxes = replace(CONFIG, boxes=str(first))
    with pytest.raises(
        DatasetError, match=r"boxes: .*first\.h5 does not have 2 of 12 samples of folder \(happy/0005"
    ):
        extract_codes(list_samples(other, "folder"), tmp_path / "a.h5", with_boxes, jobs=1)
    for path in root.rglob("*.png"):
        write_image(path, (1, 2, 3))
    with pytest.raises(DatasetError, match=r"other content than in .* in 10 of 10 compared files"):
        extract_codes(list_samples(root, "folder"), tmp_path / "a.h5", with_boxes, jobs=1)
    colour_folder(tmp_path / "data", 5)
    write_image(root / "sad" / "0003.png", (1, 2, 3))
    monkeypatch.setattr("ig3d.extract.boxes.check_files", lambda *rest, **named: None)
    extract_codes(list_samples(root, "folder"), tmp_path / "a.h5", with_boxes, jobs=1)
    with CodeStore(tmp_path / "a.h5") as store:
        bad = np.flatnonzero(~store.ok)
        assert store.samples.id[bad].tolist() == ["sad/0003"]
        assert store.messages[bad].tolist() == ["the file is not the one in which its box was found"]
    ended = ig3d(
        "extract", root, "--out", tmp_path / "b.h5", "--regressor", FAKE, "--boxes", tmp_path / "gone.h5"
    )
    assert ended.returncode == 1 and "no such store" in ended.stderr
    with pytest.raises(StoreError):
        extract_codes(
            list_samples(root, "folder"), tmp_path / "b.h5", replace(CONFIG, boxes=str(root)), jobs=1
        )
    with pytest.raises(UsageError, match=r"--boxes .*first\.h5.* --detector none"):
        extract_codes(
            list_samples(root, "folder"), tmp_path / "b.h5", replace(with_boxes, detector="none"), jobs=1
        )


def test_files_that_could_not_be_read_the_first_time_are_no_other_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = colour_folder(tmp_path / "data", 5)
    read_file = sources.read_file

    def denied(path: str) -> bytes:
        if Path(path).parent.name == "sad":
            raise PermissionError(13, "Permission denied")
        return read_file(path)

    with monkeypatch.context() as patched:
        patched.setattr(sources, "read_file", denied)
        first = extract_codes(list_samples(root, "folder"), tmp_path / "first.h5", CONFIG, jobs=1)
    assert first.counts == {"ok": 5, "failed": 5}
    with_boxes = replace(CONFIG, boxes=str(first.store))
    summary = extract_codes(list_samples(root, "folder"), tmp_path / "a.h5", with_boxes, jobs=1)
    assert summary.counts == first.counts
    with CodeStore(summary.store) as store:
        assert set(store.messages[5:]) == {"its face is unknown: the file could not be read"}


def test_boxes_of_whole_images_are_refused(tmp_path: Path) -> None:
    samples = list_samples(colour_folder(tmp_path / "data", 3), "folder")
    extract_codes(samples, tmp_path / "whole.h5", replace(CONFIG, detector="none"), jobs=1)
    with pytest.raises(UsageError, match="use --detector none"):
        extract_codes(samples, tmp_path / "a.h5", replace(CONFIG, boxes=str(tmp_path / "whole.h5")), jobs=1)


def test_facemesh_boxes_give_the_crops_of_its_points() -> None:
    rng = np.random.default_rng(0)
    spec = CropSpec(size=224, scale=1.25, points_factor=1.1, box_shift=0.12)
    for _ in range(200):
        points = rng.uniform(30, 400, (478, 3)).astype(np.float32)
        box = np.concatenate([points[:, :2].min(0), points[:, :2].max(0)])
        found = Face(box, landmarks=points)
        assert np.array_equal(
            square_box(found, spec), square_box(Face(box, landmarks=box.reshape(2, 2)), spec)
        )


class Marks(FakeDetector):
    """The fake face with landmarks, whose extent is not its box; a detector that is not built in."""

    name = "marks"
    landmarks = 2

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        shift = np.array([[1.5, 2.25], [-3.75, -1.125]], np.float32)
        return [
            [replace(face, landmarks=face.xyxy.reshape(2, 2) + shift) for face in faces]
            for faces in super().__call__(images)
        ]


class Wider(FakeRegressor):
    """Another crop around the same landmarks."""

    needs = CropSpec(size=9, scale=1.7, points_factor=1.2, box_shift=0.3)


def test_the_extent_of_the_landmarks_gives_their_crops_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = list_samples(colour_folder(tmp_path / "data", 6), "folder")
    marks, wider = f"{Marks.__module__}:Marks", f"{Wider.__module__}:Wider"
    first = replace(CONFIG, detector=marks)
    extract_codes(samples, tmp_path / "first.h5", first, jobs=1)
    extract_codes(samples, tmp_path / "wide.h5", replace(first, regressor=wider), jobs=1)
    monkeypatch.setattr(FakeDetector, "__call__", NoDetector.__call__)
    again = replace(CONFIG, regressor=wider, boxes=str(tmp_path / "first.h5"))
    extract_codes(samples, tmp_path / "again.h5", again, jobs=1)
    with CodeStore(tmp_path / "wide.h5") as wide, CodeStore(tmp_path / "again.h5") as second:
        assert not np.array_equal(wide.column("face/box"), wide.column("face/landmark_box"))
        assert np.array_equal(wide.column("face/landmark_box"), second.column("face/landmark_box"))
        assert np.array_equal(wide.column("face/crop_box"), second.column("face/crop_box"))
        assert np.array_equal(wide.codes("colour"), second.codes("colour"))


def test_points_of_a_facemesh_store_are_used_as_they_are(tmp_path: Path) -> None:
    from skimage.data import astronaut

    (tmp_path / "data" / "happy").mkdir(parents=True)
    Image.fromarray(astronaut()).save(tmp_path / "data" / "happy" / "a.png")
    write_image(tmp_path / "data" / "happy" / "b.png")
    samples = list_samples(tmp_path / "data", "folder")
    extract_codes(samples, tmp_path / "first.h5", ExtractConfig(also=("landmarks",)), jobs=1)
    # the input of a regressor that takes crops: the extent of the points, to the last digit
    face = box_source(samples, str(tmp_path / "first.h5"), CropSpec()).read(slice(1)).face(0)
    with CodeStore(tmp_path / "first.h5") as first:
        assert face is not None and face.landmarks is not None
        assert np.array_equal(face.landmarks.ravel(), first.column("face/box")[0])
    again = ExtractConfig(also=("landmarks",), boxes=str(tmp_path / "first.h5"))
    extract_codes(samples, tmp_path / "again.h5", again, jobs=1)
    boxes_only = replace(samples, samples=samples.samples[:1])
    with CodeStore(tmp_path / "first.h5") as first, CodeStore(tmp_path / "again.h5") as second:
        assert second.status.tolist() == [Status.ok, Status.no_face]
        for name in first.blocks:
            assert np.allclose(first.codes(name), second.codes(name), atol=2e-4, equal_nan=True), name
        box = first.column("face/box")[0].tolist()
    given = boxed(boxes_only, tuple(box))  # type: ignore[arg-type]
    extract_codes(given, tmp_path / "given.h5", ExtractConfig(), jobs=1)
    with CodeStore(tmp_path / "given.h5") as third, CodeStore(tmp_path / "first.h5") as first:
        assert third.info.detector["name"] == "facemesh"
        # the same face in a smaller picture: near, not equal
        assert np.abs(third.column("face/box")[0] - first.column("face/box")[0]).max() < 0.05 * (
            box[2] - box[0]
        )
