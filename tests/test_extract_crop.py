"""Crops against what the originals' own functions gave, and against scikit-image on the whole picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.transform import estimate_transform, warp

from ig3d.extract.crop import full_box, prepare, square_box, square_crop
from ig3d.extract.regressors.deca import CROP as DECA
from ig3d.extract.regressors.smirk import Smirk
from ig3d.features.values import CropSpec, Face

SMIRK = Smirk.needs


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "official_crops.npz") as stored:
        return dict(stored)


def face_of(points: np.ndarray) -> Face:
    return Face(np.zeros(4, np.float32), landmarks=points)


@pytest.mark.parametrize("picture", ["edge", "tiny"])
def test_smirks_crop_is_the_officials(golden: dict[str, np.ndarray], picture: str) -> None:
    image, points = golden[f"{picture}/image_rgb"], golden[f"{picture}/points"]
    batch = prepare([image], [face_of(points)], SMIRK)
    assert batch.crops is not None
    transform = square_crop(batch.crop_boxes[0], 224)
    assert np.abs(transform - golden[f"{picture}/smirk_tform"]).max() < 1e-9
    difference = np.abs(batch.crops[0].astype(int) - golden[f"{picture}/smirk_u8"])
    # here not one byte differs; another linear algebra library may turn the last digit of the transform
    assert difference.max() <= 1
    assert (difference > 0).mean() < 2e-4


@pytest.mark.parametrize("picture", ["edge", "tiny"])
@pytest.mark.parametrize("box", ["kpt68", "bbox"])
def test_decas_crop_is_the_officials(golden: dict[str, np.ndarray], picture: str, box: str) -> None:
    image, points = golden[f"{picture}/image_rgb"], golden[f"{picture}/points"][:68]
    face = face_of(points) if box == "kpt68" else Face(np.concatenate([points.min(0), points.max(0)]))
    batch = prepare([image], [face], DECA)
    assert batch.crops is not None
    transform = square_crop(batch.crop_boxes[0], 224)
    assert np.abs(transform - golden[f"{picture}/deca_{box}_tform"]).max() < 1e-9
    assert batch.crops.dtype == np.float32
    # stored as float16, every third pixel: half a step below 1 is 2.4e-4
    assert np.abs(batch.crops[0, ::3, ::3] - golden[f"{picture}/deca_{box}"]).max() < 2.5e-4


@pytest.mark.parametrize("seed", range(6))
def test_every_number_is_that_of_scikit_image_on_the_whole_picture(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(40, 300, 2)
    low = rng.integers(0, 3) * 20  # a picture without black clips to its own darkest value
    image = rng.integers(low, 256, (height, width, 3), np.uint8)
    # flat parts, where rounding decides what truncation leaves
    image[: height // 2, : width // 2] = 254
    image[height // 2 :, width // 2 :] = low
    corner = rng.uniform(-0.3, 0.5, 2) * (width, height)
    x, y, side = *corner, rng.uniform(20, 300)
    face = Face(np.array([x, y, x + side, y + side * 0.8]))
    found = square_crop(square_box(face, SMIRK), 224)
    centre_x, centre_y = x + side / 2, y + side * 0.4
    half = int(side * 0.9 * 1.4) / 2
    plain = estimate_transform(
        "similarity",
        np.array(
            [
                (centre_x - half, centre_y - half),
                (centre_x - half, centre_y + half),
                (centre_x + half, centre_y - half),
            ]
        ),
        np.array([(0, 0), (0, 223), (223, 0)]),
    )
    assert np.abs(found - plain.params[:2]).max() < 1e-9
    inverse = np.linalg.inv(np.vstack([found, (0, 0, 1)]))
    bytes_ = warp(image, inverse, output_shape=(224, 224), preserve_range=True).astype(np.uint8)
    assert np.array_equal(prepare([image], [face], SMIRK).crops, bytes_[None])
    floats = prepare([image], [face], CropSpec(scale=1.4, floats=True)).crops
    expected = warp(image / 255, inverse, output_shape=(224, 224)).astype(np.float32)
    assert np.array_equal(floats, expected[None])


def test_the_transform_is_scikit_images_to_the_last_digit() -> None:
    rng = np.random.default_rng(0)
    for number in range(500):
        x0, y0, width, height = (*rng.uniform(-200, 2000, 2), *np.exp(rng.uniform(1, 7, 2)))
        x1, y1 = x0 + width, y0 + height
        if number % 2:
            x0, y0, x1, y1 = np.round([x0, y0, x1, y1]) + np.array([0, 0, 1, 1])
        half = int((x1 - x0 + y1 - y0) / 2 * 1.4) / 2
        x, y = x1 - (x1 - x0) / 2, y1 - (y1 - y0) / 2
        expected = estimate_transform(
            "similarity",
            np.array([(x - half, y - half), (x - half, y + half), (x + half, y - half)]),
            np.array([(0, 0), (0, 223), (223, 0)]),
        )
        found = square_crop(square_box(Face(np.array([x0, y0, x1, y1])), SMIRK), 224)
        assert np.array_equal(found, expected.params[:2])


def test_a_flat_picture_keeps_its_value() -> None:
    # truncation would take one from every pixel whose weights fall short of 1 in the last digit
    image = np.full((200, 200, 3), 21, np.uint8)
    faces = [Face(np.array([60.0, 60, 60 + side, 60 + side])) for side in np.linspace(40, 70, 31)]
    crops = prepare([image] * len(faces), faces, SMIRK).crops
    assert (crops == 21).all()


def test_which_box_counts() -> None:
    points = np.array([(10.0, 20.0), (110.0, 60.0), (50.0, 40.0)])  # 100 by 40, mean side 70, centre (60, 40)
    own = np.array([0.0, 0.0, 80.0, 120.0])  # 80 by 120, mean side 100, centre (40, 60)

    def square(face: Face, spec: CropSpec) -> tuple[float, float, float]:
        """Side and middle of the crop, in image pixels."""
        x0, y0, x1, y1 = square_box(face, spec)
        assert x1 - x0 == y1 - y0
        return x1 - x0, (x0 + x1) / 2, (y0 + y1) / 2

    assert square(Face(own, landmarks=points), SMIRK) == (int(70 * 1.4), 60, 40)
    assert square(Face(own), SMIRK) == (140, 40, 60)
    # regressors' table of boxes: points 1.1 x 1.25 about the middle; a detector's box 1.25, 0.12 lower
    assert square(Face(own, landmarks=points), DECA) == (int(70 * 1.1 * 1.25), 60, 40)
    assert square(Face(own), DECA) == (125, 40, 72)


def test_a_face_that_leaves_the_picture_is_black_there() -> None:
    image = np.full((50, 50, 3), 200, np.uint8)
    crop = prepare([image], [Face(np.array([40.0, 40.0, 60.0, 60.0]))], CropSpec(size=21, scale=1.0)).crops
    assert crop is not None
    assert (crop[0, :10, :10] >= 199).all()  # truncated, so a last digit may take one
    assert (crop[0, 11:] == 0).all()
    assert (prepare([image], [Face(np.array([90.0, 90, 120, 120]))], SMIRK).crops == 0).all()


def test_a_box_without_area_is_refused() -> None:
    with pytest.raises(ValueError, match="has 0 x 0 pixels"):
        square_box(Face(np.array([5.0, 5, 5, 5])), SMIRK)


def test_the_whole_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 180, 3), np.uint8)
    everything = [Face(np.array([0.0, 0, 180, 100]))]
    bytes_ = prepare([image], everything, SMIRK, whole=True)
    assert np.array_equal(bytes_.crops, cv2.resize(image, (224, 224))[None])
    # edges onto edges: a pixel of the crop covers 180 / 224 by 100 / 224 pixels, half of that lies beyond its centre
    half = np.array([180, 100]) / 224 / 2
    assert np.allclose(bytes_.crop_boxes[0], [*(half - 0.5), *(np.array([179.5, 99.5]) - half)])
    floats = prepare([image], everything, DECA, whole=True)
    assert np.allclose(floats.crop_boxes[0], [0, 0, 179, 99])
    square = image[:, :100]
    official = estimate_transform(
        "similarity", np.array([(0, 0), (0, 99), (99, 0)]), np.array([(0, 0), (0, 223), (223, 0)])
    )
    assert np.allclose(square_crop(full_box((100, 100), DECA), 224), official.params[:2])
    expected = warp(square / 255, official.inverse, output_shape=(224, 224))
    crop = prepare([square], [Face(np.array([0.0, 0, 100, 100]))], DECA, whole=True).crops
    assert np.allclose(crop, expected[None], atol=1e-6)
