"""Stages of an image: a row each, the same bytes for any batches; errors of samples, plug-ins and devices."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import FAKE, Ended, colour_folder, content, write_image
from listed import Sample, table_of
from PIL import Image

from ig3d.errors import DeviceError, MissingExtra, RunError, UsageError
from ig3d.extract import runtime, stages
from ig3d.extract.batches import Shard, batches_of
from ig3d.extract.boxes import FaceBoxes
from ig3d.extract.config import ExtractConfig
from ig3d.extract.datasets import list_samples
from ig3d.extract.fakes import FakeDetector, FakeRegressor
from ig3d.extract.run import extract_codes
from ig3d.extract.stages import extract_shards, read_detect_crop
from ig3d.features.store import CodeStore
from ig3d.features.store.format import StoreInfo
from ig3d.features.values import CropSpec, Face, FaceBatch, Status

CONFIG = ExtractConfig(regressor=FAKE, detector="ig3d.extract.fakes:FakeDetector", batch_size=8)
INFO = StoreInfo("folder", "", ())
COUNTS = {"ok": 55, "no_face": 1, "failed": 2, "unreadable": 2}


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


def shards_of(root: Path, out: Path, *, rows: int = 60) -> list[Shard]:
    """Shards of so many rows each; their stores are ``out`` with numbers."""
    samples = [Sample(path.stem, path.name) for path in sorted(root.iterdir())]
    parts = [samples[start : start + rows] for start in range(0, len(samples), rows)]
    return [
        Shard(out.with_name(f"{out.name}{number}.h5"), table_of(part), FaceBoxes.unknown(len(part)))
        for number, part in enumerate(parts)
    ]


def run(root: Path, out: Path, config: ExtractConfig = CONFIG) -> dict[str, int]:
    return dict(extract_shards(shards_of(root, out), str(root), config, INFO))


def test_batches_and_bytes_in_memory_change_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(folder, tmp_path / "a") == COUNTS
    with CodeStore(tmp_path / "a0.h5") as store:
        assert store.verify() == []
        assert store.messages[17] == "not finite: colour"
        assert store.status[18] == Status.failed
        assert store.messages[25] == "not an image in a supported format"
    for batch_size in (1, 7, 64):
        assert run(folder, tmp_path / f"b{batch_size}-", replace(CONFIG, batch_size=batch_size)) == COUNTS
        assert content(tmp_path / f"b{batch_size}-0.h5") == content(tmp_path / "a0.h5")
    monkeypatch.setattr(stages, "MAX_BYTES", 1)  # each image is cropped before the next one is read
    run(folder, tmp_path / "c")
    assert content(tmp_path / "c0.h5") == content(tmp_path / "a0.h5")


@pytest.mark.parametrize("readers", [0, 2])
def test_shards_of_one_task_are_those_of_single_tasks(folder: Path, tmp_path: Path, readers: int) -> None:
    """Although batches of faces go beyond the end of a shard."""
    if readers:
        pytest.importorskip("torch")
    shards = shards_of(folder, tmp_path / "a", rows=25)
    assert extract_shards(shards, str(folder), CONFIG, INFO, readers) == COUNTS
    for shard in shards_of(folder, tmp_path / "b", rows=25):
        extract_shards([shard], str(folder), CONFIG, INFO)
    for number in range(3):
        assert content(tmp_path / f"a{number}.h5") == content(tmp_path / f"b{number}.h5")


class Counting(FakeRegressor):
    """Records the sizes of its batches."""

    sizes: ClassVar[list[int]] = []

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        self.sizes.append(len(faces))
        return super().__call__(faces)


def test_batches_of_the_networks_are_full_whatever_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if images are large, and if some have no face."""
    for number in range(40):
        write_image(tmp_path / "data" / f"{number:02d}.png", (0, 0, 0) if number % 3 else (9, 8, number + 1))
    monkeypatch.setattr(stages, "MAX_BYTES", 3000)  # two images of 24 x 20 pixels
    Counting.sizes.clear()
    config = replace(CONFIG, regressor="test_extract_stages:Counting", batch_size=4)
    assert run(tmp_path / "data", tmp_path / "a", config) == {"ok": 14, "no_face": 26}
    assert Counting.sizes == [4, 4, 4, 2]


def test_few_images_are_held_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    class Looking(FakeDetector):
        def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
            held.append(sum(image.nbytes for image in images))
            return super().__call__(images)

    monkeypatch.setattr(stages, "MAX_BYTES", 20_000)
    (shard,) = shards_of(folder, Path("a"))
    for batch in batches_of([shard], 60):
        read_detect_crop(batch, folder, Looking(), CropSpec(size=8))
    assert len(held) > 5
    assert max(held) < 20_000 + 80 * 80 * 3


class Refuses(FakeRegressor):
    """Ends the run at its third batch, as a wrong setting does."""

    calls = 0

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        Refuses.calls += 1
        if Refuses.calls == 3:
            raise UsageError("a wrong setting")
        return super().__call__(faces)


class Interrupted(FakeDetector):
    """Ctrl-C in the middle of a shard."""

    calls = 0

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        Interrupted.calls += 1
        if Interrupted.calls == 4:
            raise KeyboardInterrupt
        return super().__call__(images)


@pytest.mark.parametrize(
    ("plugins", "error"),
    [
        ({"regressor": "test_extract_stages:Refuses"}, UsageError),
        ({"detector": "test_extract_stages:Interrupted"}, KeyboardInterrupt),
    ],
)
def test_an_error_and_ctrl_c_leave_no_file(
    folder: Path, tmp_path: Path, plugins: dict[str, str], error: type[BaseException]
) -> None:
    Refuses.calls = Interrupted.calls = 0
    with pytest.raises(error):
        run(folder, tmp_path / "a", replace(CONFIG, **plugins))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


# plug-ins that break their contract


class TooMany(FakeRegressor):
    """One row too many."""

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        codes = super().__call__(faces)["colour"]
        return {"colour": np.concatenate([codes, codes[:1]])}


class TooWide(FakeRegressor):
    """Four columns where its block has three."""

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        return {"colour": np.ones((len(faces), 4), np.float32)}


class OtherKey(FakeRegressor):
    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        return {"color": np.ones((len(faces), 3), np.float32)}


class NoArray(FakeRegressor):
    def __call__(self, faces: FaceBatch) -> dict[str, Any]:
        return {"colour": [[1.0, 2.0, 3.0]] * len(faces)}


class FewFaces(FakeDetector):
    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        return super().__call__(images)[:-1]


@pytest.mark.parametrize(
    ("plugin", "jobs"),
    [
        ("regressor:TooMany", 1),
        ("regressor:TooWide", 1),
        ("regressor:TooWide", 2),  # through a worker
        ("regressor:OtherKey", 1),
        ("regressor:NoArray", 1),
        ("detector:FewFaces", 1),
    ],
)
def test_a_plugin_that_breaks_its_contract_ends_the_run_with_one_line(
    tmp_path: Path, ig3d: Callable[..., Ended], plugin: str, jobs: int
) -> None:
    kind, name = plugin.split(":")
    root = colour_folder(tmp_path / "data", 50)
    plugins = {"--regressor": FAKE, f"--{kind}": f"test_extract_stages:{name}"}
    options = [part for pair in plugins.items() for part in pair]
    ended = ig3d("extract", root, "--out", tmp_path / "a.h5", *options, "--jobs", jobs)
    assert ended.returncode == 1
    line = ended.stderr.strip().splitlines()[-1]
    assert line.startswith(f"ig3d: {kind} fake") and "docs/plugins.md" in line
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "a.h5").exists()


# errors of one sample


def test_a_face_that_cannot_be_cropped_fails_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = stages.prepare

    def some_fail(images: list[np.ndarray], *rest: Any, **options: Any) -> FaceBatch:
        if any(image.shape[1] % 5 == 0 for image in images):
            raise ValueError("a box without area")
        return prepare(images, *rest, **options)

    run(folder, tmp_path / "plain")
    monkeypatch.setattr(stages, "prepare", some_fail)
    run(folder, tmp_path / "fail")
    with CodeStore(tmp_path / "plain0.h5") as plain, CodeStore(tmp_path / "fail0.h5") as store:
        failed = plain.ok & (plain.column("sample/width") % 5 == 0)
        assert 3 < failed.sum() < 30
        assert np.array_equal(store.ok, plain.ok & ~failed)
        assert set(store.messages[failed]) == {"ValueError: a box without area"}
        kept = store.ok
        assert np.array_equal(store.codes("colour")[kept], plain.codes("colour")[kept])
        assert np.array_equal(store.column("face/crop_box")[kept], plain.column("face/crop_box")[kept])


def test_a_missing_package_ends_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_image = stages.read_image

    def lacks_a_package(location: str, **options: Any) -> Any:
        if location.endswith("030.png"):
            raise MissingExtra("a package is absent")
        return read_image(location, **options)

    monkeypatch.setattr(stages, "read_image", lacks_a_package)
    with pytest.raises(MissingExtra):
        run(folder, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_absurdly_large_images_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    assert run(folder, tmp_path / "a") == {"unreadable": 60}
    with CodeStore(tmp_path / "a0.h5") as store:
        assert "absurdly large" in store.messages[0]


def test_a_write_that_fails_ends_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ig3d.features.store.writer.StoreWriter.write", full)
    with pytest.raises(Exception, match=r"the store cannot be written: .*No space left.*; free the disk"):
        run(folder, tmp_path / "a")
    assert not list(tmp_path.iterdir())


# errors of the device


class AcceleratorError(RuntimeError):
    """Named like torch's error."""


BROKEN = [
    AcceleratorError("an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("[GPU] device lost"),
    RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
]


@pytest.mark.parametrize("error", BROKEN)
def test_an_error_of_the_device_is_no_error_of_a_sample(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def broken(self: object, faces: FaceBatch) -> None:
        raise error

    monkeypatch.setattr(FakeRegressor, "__call__", broken)
    with pytest.raises(DeviceError, match=r"^cpu: ") as raised:
        run(folder, tmp_path / "a", replace(CONFIG, device="cpu"))
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_other_errors_are_no_errors_of_the_device() -> None:
    assert not runtime.is_device_error(RuntimeError("CUDA error: out of memory"))
    assert not runtime.is_device_error(RuntimeError("The size of tensor a must match"))
    assert not runtime.is_device_error(ValueError("CUDA error"))
    assert not runtime.is_device_error(RuntimeError("Caught RuntimeError in DataLoader worker process 0."))
    assert runtime.is_out_of_memory(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))


def test_too_little_memory_of_a_gpu_outside_of_a_network_ends_the_run_with_one_line() -> None:
    with (
        pytest.raises(RunError, match=r"^cuda:1: too little memory \(CUDA out of memory"),
        runtime.device_errors("cuda:1"),
    ):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nsecond line")


class NeedsGpu(FakeRegressor):
    gpu = True


def test_a_worker_without_the_device_of_the_run_refuses(folder: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    device = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(UsageError, match=rf"{device} is not available \(CUDA devices"):
        run(folder, tmp_path / "a", replace(CONFIG, regressor="test_extract_stages:NeedsGpu", device=device))
    assert not list(tmp_path.iterdir())


class Failing(FakeRegressor):
    """Loses its device at one colour, as often as a folder named in the environment has files to take."""

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        assert faces.crops is not None
        if (faces.crops == (3, 2, 1)).all(axis=(1, 2, 3)).any():
            for life in sorted(Path(os.environ["IG3D_TEST_LIVES"]).iterdir())[:1]:
                life.unlink()
                raise RuntimeError("CUDA error: unspecified launch failure")
        return super().__call__(faces)


@pytest.mark.parametrize(("times", "failed"), [(1, 0), (9, 64)])
def test_a_worker_whose_device_failed_ends_and_another_repeats_its_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, failed: int
) -> None:
    lives = tmp_path / "lives"
    lives.mkdir()
    monkeypatch.setenv("IG3D_TEST_LIVES", str(lives))
    root = colour_folder(tmp_path / "data", 80)
    write_image(root / "happy" / "0070.png", (3, 2, 1))
    samples = list_samples(root, "folder")
    config = ExtractConfig(regressor="test_extract_stages:Failing", detector="none", device="cpu")
    extract_codes(samples, tmp_path / "calm.h5", config, jobs=1)
    for life in range(times):
        (lives / str(life)).touch()
    summary = extract_codes(samples, tmp_path / "a.h5", config, jobs=2)
    assert len(list(lives.iterdir())) == max(0, times - 3)
    assert summary.counts.get("failed", 0) == failed
    with CodeStore(tmp_path / "a.h5") as store, CodeStore(tmp_path / "calm.h5") as calm:
        assert np.array_equal(store.codes("colour")[store.ok], calm.codes("colour")[store.ok])
