"""The compiled crop equals scikit-image's, to the byte, for all kinds of images and boxes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import write_image
from skimage.transform import warp as scikit_image
from stage_rows import rows_of

from ig3d.errors import MissingExtra
from ig3d.extract.crop import full_box, full_crop, square_box, square_crop
from ig3d.extract.fakes import FakeDetector, FakeRegressor
from ig3d.extract.warp import _compiled, warp
from ig3d.features.values import CropSpec, Face


def as_the_originals(image: np.ndarray, transform: np.ndarray, spec: CropSpec) -> np.ndarray:
    inverse = np.linalg.inv(np.vstack([transform, (0, 0, 1)]))
    shape = (spec.size, spec.size)
    if spec.floats:
        return scikit_image(image / 255, inverse, output_shape=shape).astype(np.float32)
    return scikit_image(image, inverse, output_shape=shape, preserve_range=True).astype(np.uint8)


def pictures(rng: np.random.Generator, width: int, height: int) -> dict[str, np.ndarray]:
    """Noise, one value, black and one value, flat tiles; each with black or without."""
    low = int(rng.choice([0, 1, 100]))
    shape = height, width, 3
    tiles = rng.integers(low, 256, (height // 5 + 1, width // 5 + 1, 3), np.uint8)
    return {
        "noise": rng.integers(low, 256, shape, np.uint8),
        "flat": np.full(shape, rng.integers(low, 256), np.uint8),
        "black in parts": rng.choice(np.array([0, low + 7], np.uint8), (height, width, 1)).repeat(3, 2),
        "tiles": tiles.repeat(5, 0).repeat(5, 1)[:height, :width],
        "half black": np.where(np.arange(width)[:, None] < width / 2, 0, tiles[:1, :1])
        + np.zeros(shape, np.uint8),
    }


@pytest.mark.parametrize("floats", [False, True], ids=["bytes", "floats"])
@pytest.mark.parametrize("whole_numbers", [False, True], ids=["any box", "box of whole numbers"])
def test_the_same_bytes_as_scikit_image(floats: bool, whole_numbers: bool) -> None:
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(120):
        width, height = rng.integers(1, rng.choice([3, 30, 200]), 2)
        spec = CropSpec(size=int(rng.choice([2, 9, 40])), scale=1.4, floats=floats)
        # from a pixel to four times the picture, about any point in it or half of it away
        side = np.exp(rng.uniform(np.log(1.5), np.log(4 * max(width, height))))
        corner = rng.uniform(-0.5, 1.5, 2) * (width, height) - side / 2
        box = np.array([*corner, *(corner + side)])
        face = Face(box.round() + np.array([0, 0, 1, 1]) if whole_numbers else box)
        transform = square_crop(square_box(face, spec), spec.size)
        for name, image in pictures(rng, width, height).items():
            expected = as_the_originals(image, transform, spec)
            found = warp(image, transform, spec)
            assert found.dtype == expected.dtype
            assert np.array_equal(found, expected), (name, image.shape, box, (found != expected).sum())
            compared += bool(expected.any())
    assert compared > 300  # the others are all black


@pytest.mark.parametrize("floats", [False, True], ids=["bytes", "floats"])
@pytest.mark.parametrize(("width", "height"), [(224, 224), (640, 480), (300, 900)])
def test_crops_of_full_size(width: int, height: int, floats: bool) -> None:
    rng = np.random.default_rng(1)
    spec = CropSpec(floats=floats)
    small = rng.integers(40, 256, (height // 20, width // 20, 3), np.uint8)
    image = cv2.resize(small, (width, height))
    image[: height // 3] = 200
    for shift in (-0.3, 0.1, 0.6):
        box = np.array([shift * width, 0.1 * height, (shift + 0.6) * width, 0.7 * height])
        transform = square_crop(square_box(Face(box), spec), spec.size)
        assert np.array_equal(warp(image, transform, spec), as_the_originals(image, transform, spec))
    whole = full_crop(full_box((width, height), spec), spec.size)
    assert np.array_equal(warp(image, whole, spec), as_the_originals(image, whole, spec))


@pytest.mark.parametrize("floats", [False, True], ids=["bytes", "floats"])
@pytest.mark.parametrize(
    "shift", [0.5, 1, 1.5], ids=["half outside", "at the pixel before the first", "outside"]
)
def test_what_a_picture_without_black_is_clipped_to(shift: float, floats: bool) -> None:
    image = np.random.default_rng(3).integers(50, 60, (9, 9, 3), np.uint8)
    transform, spec = np.array([[1, 0, shift], [0, 1, shift]]), CropSpec(size=8, floats=floats)
    found = warp(image, transform, spec)
    assert np.array_equal(found, as_the_originals(image, transform, spec))
    assert (found.min() > 0) == (shift < 1)  # scikit-image lifts a border half outside to the darkest value


@pytest.mark.parametrize("floats", [False, True], ids=["bytes", "floats"])
def test_a_transform_that_turns_by_more_than_rounding_is_still_followed(floats: bool) -> None:
    # nothing that crops here turns
    angle, spec = 1e-4, CropSpec(size=60, floats=floats)
    turned = np.array([[np.cos(angle), -np.sin(angle), 3.25], [np.sin(angle), np.cos(angle), -7.5]])
    image = np.random.default_rng(2).integers(0, 256, (70, 80, 3), np.uint8)
    assert np.array_equal(warp(image, turned, spec), as_the_originals(image, turned, spec))


def test_without_numba_a_run_says_what_to_install_and_no_row_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "a.png", (10, 200, 30))
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr("ig3d.extract.warp._compiled", _compiled.__wrapped__)
    with pytest.raises(MissingExtra, match=r"numba.*pip install 'ig3d\[extract\]'"):
        rows_of([("a.png", -1)], tmp_path, FakeDetector(), FakeRegressor())


def test_a_full_disk_for_what_is_compiled_costs_no_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core.caching import IndexDataCacheFile

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "load", lambda *arguments: None)
    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    monkeypatch.setattr("ig3d.extract.warp._compiled", _compiled.__wrapped__)
    image = np.random.default_rng(0).integers(1, 256, (20, 30, 3), np.uint8)
    spec = CropSpec(size=12)
    transform = square_crop(square_box(Face(np.array([3, 2, 17, 16])), spec), spec.size)
    assert np.array_equal(warp(image, transform, spec), as_the_originals(image, transform, spec))


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", [lambda old: b"", lambda old: old[: len(old) // 2], lambda old: b"?" * 99])
def test_a_damaged_file_of_what_is_compiled_costs_no_crop(
    ending: str, damage: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))
    _compiled.__wrapped__("uint8")
    files = list(tmp_path.rglob(f"*.{ending}"))
    assert len(files) == 1
    files[0].write_bytes(damage(files[0].read_bytes()))
    monkeypatch.setattr("ig3d.extract.warp._compiled", _compiled.__wrapped__)
    image = np.random.default_rng(0).integers(1, 256, (20, 30, 3), np.uint8)
    image.setflags(write=False)
    spec = CropSpec(size=12)
    transform = square_crop(square_box(Face(np.array([3, 2, 17, 16])), spec), spec.size)
    assert np.array_equal(warp(image, transform, spec), as_the_originals(image, transform, spec))
