"""Reading: every kind of file is shown as a viewer shows it, or refused with a reason."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ig3d.extract.read import Unreadable, bounded_images, decode, read_image

COLOURS = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 255], [0, 0, 0], [90, 90, 90]]], np.uint8
)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_rgb_is_kept_as_it_is() -> None:
    assert np.array_equal(decode(encoded(Image.fromarray(COLOURS))), COLOURS)


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_grey_and_palette_become_rgb(mode: str) -> None:
    grey = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert(mode)
    assert np.array_equal(decode(encoded(grey))[..., 0], [[0, 255], [255, 0]])
    assert decode(encoded(grey)).shape == (2, 2, 3)


def test_sixteen_bit_grey_keeps_its_tones() -> None:
    deep = np.array([[0, 128 * 257, 255 * 257]], np.uint16)
    assert decode(encoded(Image.fromarray(deep))).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]


def test_float_tiff_in_unit_range() -> None:
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    assert decode(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]


def test_cmyk_jpeg_shows_its_colours() -> None:
    cmyk = Image.new("RGB", (16, 16), (200, 40, 40)).convert("CMYK")
    assert np.abs(decode(encoded(cmyk, "JPEG", quality=95))[8, 8].astype(int) - (200, 40, 40)).max() < 12


def test_what_lies_under_a_transparent_pixel_is_not_seen() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 255, 0, 0))
    assert decode(encoded(image)).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    lying = Image.new("RGB", (40, 20))
    lying.paste((255, 255, 255), (0, 0, 20, 20))
    upright = decode(encoded(lying, "JPEG", exif=exif, quality=95))
    assert upright.shape == (40, 20, 3)
    assert upright[5].mean() > 250
    assert upright[35].mean() < 5


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"hello, no image at all" * 10, "not an image", id="text"),
        pytest.param(
            encoded(Image.new("RGB", (64, 64), "red"), "JPEG")[:300], "damaged|not an image", id="cut-jpeg"
        ),
        pytest.param(encoded(Image.fromarray(COLOURS))[:-30], "damaged|not an image", id="cut-png"),
        pytest.param(
            encoded(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"), "not finite", id="nan-tiff"
        ),
    ],
)
def test_what_cannot_be_decoded_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=reason):
        read_image(path)


def test_every_truncation_of_a_file_is_an_image_or_unreadable() -> None:
    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8))
    for kind in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"):
        whole = encoded(noise, kind)
        for end in range(0, len(whole) - 1, max(1, len(whole) // 60)):
            try:
                with bounded_images():
                    assert decode(whole[:end]).shape[2] == 3
            except Unreadable as refused:
                assert str(refused)


def test_flipped_bytes_never_raise_anything_else() -> None:
    rng = np.random.default_rng(2)
    noise = Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8))
    with bounded_images():
        for kind in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"):
            whole = bytearray(encoded(noise, kind))
            for _ in range(80):
                broken = bytearray(whole)
                for place in rng.integers(0, len(broken), 3):
                    broken[place] = rng.integers(256)
                try:
                    assert decode(bytes(broken)).dtype == np.uint8
                except Unreadable as refused:
                    assert str(refused)


def test_absurd_size_is_refused_before_decoding() -> None:
    small = encoded(Image.new("1", (20_000, 10_000)), "PNG")
    with bounded_images(), pytest.raises(Unreadable, match="absurdly large"):
        decode(small)


def test_a_file_that_is_gone_is_told_from_a_bad_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "nowhere.jpg")
    with pytest.raises(Unreadable, match="cannot be opened"):
        read_image(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(Unreadable, match="not a regular file"):
        read_image(tmp_path / "x.jpg")


def test_digest_is_of_the_bytes(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(COLOURS)))
    assert read_image(path).digest.tobytes() == hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
