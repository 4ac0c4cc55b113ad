"""A worker's pipeline: the same bytes whatever the number of threads, in order, within bounds, and ended cleanly."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import FAKE, write_image
from listed import Sample, table_of
from PIL import Image

from ig3d.errors import MissingExtra, PluginError, UsageError
from ig3d.extract import config as config_module
from ig3d.extract import flow, pipeline
from ig3d.extract.boxes import FaceBoxes
from ig3d.extract.config import ExtractConfig
from ig3d.extract.fakes import FakeDetector, FakeRegressor
from ig3d.extract.flow import Ended
from ig3d.extract.pipeline import Crew, in_batches, run_shard, threads_beside
from ig3d.extract.read import Image as Decoded
from ig3d.features.store import CodeStore
from ig3d.features.store.format import StoreInfo
from ig3d.features.values import Face, FaceBatch, Status

CONFIG = ExtractConfig(regressor=FAKE, detector="ig3d.extract.fakes:FakeDetector", batch_size=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of many sizes and colours, and one of everything that can be wrong with a file."""
    root = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    for number in range(60):
        height, width = rng.integers(10, 80, 2)
        pixels = rng.integers(1, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"{number:03d}.png")
    write_image(root / "003.png", (0, 0, 0))  # no face
    write_image(root / "017.png", (255, 0, 0))  # not finite
    write_image(root / "018.png", (0, 0, 255))  # an error in the regressor
    (root / "025.png").write_text("not an image")
    (root / "026.png").write_bytes(b"")
    return root


def shard(root: Path, out: Path, *, config: ExtractConfig = CONFIG, **options: Any) -> dict[str, int]:
    samples = table_of(Sample(path.stem, path.name) for path in sorted(root.iterdir()))
    info = StoreInfo("folder", "", ())
    return dict(run_shard(out, samples, FaceBoxes.unknown(len(samples)), str(root), config, info, **options))


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_change_no_byte(folder: Path, tmp_path: Path, threads: int) -> None:
    counts = shard(folder, tmp_path / "plain.h5", threads=0)
    assert counts == {"ok": 55, "no_face": 1, "failed": 2, "unreadable": 2}
    assert shard(folder, tmp_path / "threads.h5", threads=threads) == counts
    with CodeStore(tmp_path / "plain.h5") as plain, CodeStore(tmp_path / "threads.h5") as threaded:
        assert plain.content_sha256 == threaded.content_sha256
        assert threaded.verify() == []
        assert threaded.messages[17] == "not finite: colour"
        assert threaded.status[18] == Status.failed
        assert threaded.messages[25] == "not an image of a known kind"


def test_small_batches_change_no_byte_either(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard(folder, tmp_path / "plain.h5", threads=0)
    monkeypatch.setattr(pipeline, "MOST_BYTES", 1)  # nothing is read ahead
    shard(folder, tmp_path / "bounded.h5", threads=3)
    with CodeStore(tmp_path / "plain.h5") as plain, CodeStore(tmp_path / "bounded.h5") as bounded:
        assert plain.content_sha256 == bounded.content_sha256


class Refuses(FakeRegressor):
    """Ends the run at its third batch, as a wrong setting does."""

    calls = 0

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        Refuses.calls += 1
        if Refuses.calls == 3:
            raise UsageError("a wrong setting")
        return super().__call__(faces)


class Interrupted(FakeDetector):
    """Ctrl-C in the middle of a shard, while threads read and write."""

    calls = 0

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        Interrupted.calls += 1
        if Interrupted.calls == 4:
            raise KeyboardInterrupt
        return super().__call__(images)


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize(
    ("plugins", "error"),
    [
        ({"regressor": "test_extract_pipeline:Refuses"}, UsageError),
        ({"detector": "test_extract_pipeline:Interrupted"}, KeyboardInterrupt),
    ],
)
def test_an_error_and_ctrl_c_leave_no_thread_and_no_file(
    folder: Path, tmp_path: Path, plugins: dict[str, str], error: type[BaseException], threads: int
) -> None:
    Refuses.calls = Interrupted.calls = 0
    config = ExtractConfig(**{"regressor": FAKE, "batch_size": 8, **plugins})  # type: ignore[arg-type]
    before = set(threading.enumerate())
    with pytest.raises(error):
        shard(folder, tmp_path / "a.h5", config=config, threads=threads)
    assert set(threading.enumerate()) <= before
    assert not list(tmp_path.iterdir())


class TooMany(FakeRegressor):
    """One row too many."""

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        codes = super().__call__(faces)["colour"]
        return {"colour": np.concatenate([codes, codes[:1]])}


class TooFewLists(FakeDetector):
    """No list for the last image."""

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        return super().__call__(images)[:-1]


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        (
            {"regressor": "TooMany"},
            r"regressor fake: block colour is \(9, 3\) float32; .* array of floats \(8, 3\)",
        ),
        (
            {"detector": "TooFewLists"},
            r"detector fake: it returned a list of 7; it must return a list of 8 lists of faces",
        ),
    ],
)
def test_a_plugin_that_breaks_its_contract_ends_the_run(
    folder: Path, tmp_path: Path, plugins: dict[str, str], message: str, threads: int
) -> None:
    named = {kind: f"test_extract_pipeline:{name}" for kind, name in plugins.items()}
    with pytest.raises(PluginError, match=message):
        shard(folder, tmp_path / "a.h5", config=replace(CONFIG, **named), threads=threads)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_face_that_cannot_be_cut_fails_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the others of its batch are cut by other threads."""
    prepare = flow.prepare

    def some_fail(images: list[np.ndarray], *rest: Any, **options: Any) -> FaceBatch:
        if images[0].shape[1] % 5 == 0:
            raise ValueError("a box without area")
        return prepare(images, *rest, **options)

    shard(folder, tmp_path / "plain.h5", threads=0)
    monkeypatch.setattr(flow, "prepare", some_fail)
    for threads in (0, 3):
        shard(folder, tmp_path / f"{threads}.h5", threads=threads)
        with CodeStore(tmp_path / "plain.h5") as plain, CodeStore(tmp_path / f"{threads}.h5") as store:
            failed = plain.ok & (plain.column("sample/width") % 5 == 0)
            assert 3 < failed.sum() < 30
            assert np.array_equal(store.ok, plain.ok & ~failed)
            assert set(store.messages[failed]) == {"ValueError: a box without area"}
            kept = store.ok
            assert np.array_equal(store.codes("colour")[kept], plain.codes("colour")[kept])
            assert np.array_equal(store.column("face/crop_box")[kept], plain.column("face/crop_box")[kept])


class Exact(FakeRegressor):
    """Begins its first batch within the detector's second, and ends it after that; keeps whether TF32 was allowed."""

    detecting, calculating, detected = threading.Event(), threading.Event(), threading.Event()
    seen: ClassVar[list[bool]] = []

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        import torch

        from ig3d.extract.engine import exact_arithmetic

        assert self.detecting.wait(120)
        with exact_arithmetic(torch.device("cuda")):
            self.calculating.set()
            assert self.detected.wait(120)
            self.seen.append(torch.backends.cudnn.allow_tf32)
        return super().__call__(faces)


class ExactDetector(FakeDetector):
    """Its second batch begins before the regressor's first."""

    calls = 0

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        import torch

        from ig3d.extract.engine import exact_arithmetic

        ExactDetector.calls += 1
        if ExactDetector.calls == 2:
            with exact_arithmetic(torch.device("cuda")):
                Exact.detecting.set()
                assert Exact.calculating.wait(120)
            Exact.detected.set()
        return super().__call__(images)


def test_networks_beside_each_other_keep_their_arithmetic_exact(tmp_path: Path, folder: Path) -> None:
    """A detector that is done does not take it from the regressor, which still calculates."""
    torch = pytest.importorskip("torch")
    cudnn = torch.backends.cudnn
    before, cudnn.allow_tf32 = cudnn.allow_tf32, True
    here = "test_extract_pipeline"
    try:
        config = replace(CONFIG, regressor=f"{here}:Exact", detector=f"{here}:ExactDetector")
        assert shard(folder, tmp_path / "a.h5", config=config, threads=3)["ok"] == 55
        assert cudnn.allow_tf32
    finally:
        cudnn.allow_tf32 = before
    assert set(Exact.seen) == {False}


def test_a_reader_that_fails_ends_the_shard(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_image = pipeline.open_image

    def lacks_a_package(file: tuple[str, int], root: str) -> Decoded | Ended:
        if file[0] == "030.png":
            raise MissingExtra("a package is absent")
        return open_image(file, root)

    monkeypatch.setattr(pipeline, "open_image", lacks_a_package)
    before = set(threading.enumerate())
    with pytest.raises(MissingExtra):
        shard(folder, tmp_path / "a.h5", threads=3)
    assert set(threading.enumerate()) <= before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("threads", [0, 3])
def test_absurdly_large_images_are_refused_by_every_thread(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    assert shard(folder, tmp_path / "a.h5", threads=threads) == {"unreadable": 60}
    with CodeStore(tmp_path / "a.h5") as store:
        assert "absurdly large" in store.messages[0]


def test_a_write_that_fails_ends_the_shard(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipeline.StoreWriter, "write", full)
    with pytest.raises(Exception, match=r"expected to write the store, got .*No space left.*; free the disk"):
        shard(folder, tmp_path / "a.h5", threads=2)
    assert not list(tmp_path.iterdir())


def test_items_come_in_order_and_only_so_many_are_under_way() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.002 * (item % 3))  # so that they end in another order
        return item

    with Crew(4) as crew:
        for number, item in enumerate(crew.ahead(work, range(50), most=6, weight=lambda _: 0)):
            assert item == number
            assert len(begun) <= number + 6
    assert sorted(begun) == list(range(50))


def test_what_waits_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MOST_BYTES", 100)
    begun, held = 0, []

    def items() -> Iterator[int]:
        nonlocal begun
        for number in range(1, 41):
            begun = number
            yield number

    with Crew(2) as crew:
        for item in crew.ahead(lambda item: item, items(), most=30, weight=lambda _: 60):
            held.append(begun - item + 1)
    assert 2 <= held[0] <= 4  # before the first one's weight is known
    assert set(held[3:-1]) == {2}, "the one in hand, and one that waits"


def test_what_an_item_weighs_is_known_before_it_is_taken() -> None:
    """Else it is taken from the sum first, and more is begun than there is room for."""
    weighed: list[int] = []

    def weight(item: int) -> int:
        time.sleep(0.005)  # a thread that is slow to say it
        weighed.append(item)
        return 1

    with Crew(2) as crew:
        for item in crew.ahead(lambda item: item, range(20), most=6, weight=weight):
            assert item in weighed
    assert sorted(weighed) == list(range(20)), "once each"


def test_stages_overlap() -> None:
    """The next item is made while threads work on this one."""
    made = [threading.Event() for _ in range(6)]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    def write(item: int) -> int:
        assert made[min(item + 1, 5)].wait(120), "nothing is made while this is written"
        return -item

    with Crew(1) as crew:
        assert list(crew.behind(write, items())) == [0, -1, -2, -3, -4, -5]


def test_batches_are_cut_by_number_and_by_size() -> None:
    def image(side: int) -> Decoded:
        return Decoded(np.zeros((side, side, 3), np.uint8), np.zeros(16, np.uint8))

    opened = [image(10)] * 5 + [image(40)] + [Ended(Status.missing, "")] * 2 + [image(100), image(10)]
    cut = [(start, len(some)) for start, some in in_batches(opened, 4, most_bytes=6000)]
    assert cut == [(0, 4), (4, 4), (8, 1), (9, 1)]
    assert list(in_batches([], 4)) == []


def test_threads_follow_the_device_and_the_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "cpu_count", lambda: 16)

    class OnGpu:
        device = "cuda"

    assert threads_beside(object(), object(), root="/data", workers=1) == 0
    assert threads_beside(OnGpu(), object(), root="/data", workers=4) == 4
    assert threads_beside(object(), OnGpu(), root="/data", workers=40) == 1
    assert threads_beside(object(), object(), root="s3://bucket/data", workers=16) == pipeline.REMOTE_READERS


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_what_is_uploaded_is_what_was_given(device: str) -> None:
    torch = pytest.importorskip("torch")
    from ig3d.extract.engine import Upload

    upload, rng = Upload(torch.device(device)), np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (16, 64, 64, 3), np.uint8) for _ in range(20)]
    # sums begun while later arrays are on their way: a buffer used again too early would show
    sums = [upload(array.transpose(0, 2, 1, 3)).long().sum((0, 1)) for array in arrays]
    for array, total in zip(arrays, sums, strict=True):
        assert total.device.type == device
        assert np.array_equal(total.cpu().numpy(), array.astype(np.int64).sum((0, 2)))


def test_the_batch_size_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from ig3d.extract.config import settle

    unset = ExtractConfig(regressor=FAKE, detector="none")
    assert settle(unset)[0].batch_size == 32
    monkeypatch.setattr(FakeRegressor, "gpu", True)
    monkeypatch.setattr(config_module, "resolve_device", lambda device: "cuda:0")
    assert settle(unset)[0].batch_size == 256
    assert settle(unset)[0].device == "cuda:0"
    assert settle(CONFIG)[0].batch_size == 8
