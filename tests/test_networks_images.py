"""Pictures as the 2D networks see them: reading, resizing, normalising, augmenting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from listed import Sample, listing_of
from PIL import Image

from ig3d.features.samples import Listing
from ig3d.networks import images
from ig3d.networks.augment import Augmentation, augment
from ig3d.networks.images import InputSpec, load_pictures, normalise, read_pictures

STILL = Augmentation(flip=0, degrees=0, zoom=(1, 1), shift=0, light=0)


@pytest.fixture
def samples(tmp_path: Path) -> Listing:
    """Forty flat pictures of grey value 5 * row, one broken, one missing."""
    names = [f"{row:02d}" for row in range(40)]
    for row, name in enumerate(names):
        Image.new("RGB", (20 + row, 30), (5 * row, 100, 0)).save(tmp_path / f"{name}.png")
    (tmp_path / "07.png").write_bytes(b"not an image")
    (tmp_path / "21.png").unlink()
    listed = tuple(Sample(name, f"{name}.png", 0) for name in names)
    return listing_of("toy", str(tmp_path), ("a", "b"), listed)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("jobs", [1, 5])
def test_pictures_come_in_the_order_asked_for(samples: Listing, jobs: int) -> None:
    rows = np.random.default_rng(0).permutation(len(samples))
    pictures = list(read_pictures(samples, rows, view=InputSpec(size=16), jobs=jobs))
    assert [picture.row for picture in pictures] == rows.tolist()
    for picture in pictures:
        if not picture.problem:
            assert picture.pixels is not None
            assert (picture.pixels == [5 * picture.row, 100, 0]).all()
            assert picture.pixels.shape == (16, 16, 3)


def test_unreadable_and_missing_rows_are_named_and_left_out(samples: Listing) -> None:
    counts: list[int] = []
    pictures = load_pictures(samples, range(40), view=InputSpec(size=16), jobs=2, advance=counts.append)
    assert sum(counts) == 40
    assert len(pictures) == 38
    assert set(range(40)) - set(pictures.rows.tolist()) == {7, 21}
    assert [problem.partition(": ")[0] for problem in pictures.problems] == ["07", "21"]
    assert "missing" in pictures.problems[1]


def test_pictures_beyond_memory_are_the_same(samples: Listing, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = load_pictures(samples, range(40), view=InputSpec(size=16))
    monkeypatch.setattr(images, "MEMORY_BYTES", 0)
    outside = load_pictures(samples, range(40), view=InputSpec(size=16))
    assert torch.equal(inside.pixels, outside.pixels)


def test_no_rows_give_no_pictures(samples: Listing) -> None:
    pictures = load_pictures(samples, [], view=InputSpec(size=16))
    assert len(pictures) == 0
    assert pictures.pixels.shape == (0, 3, 16, 16)


def test_shrinking_averages_and_does_not_pick_pixels(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "s.png")
    samples = listing_of("toy", str(tmp_path), (), (Sample("s", "s.png"),))
    inner = load_pictures(samples, [0], view=InputSpec(size=16)).pixels[..., 2:-2].float()
    assert torch.allclose(inner, torch.tensor(127.5), atol=2)


def test_normalise_follows_its_formula() -> None:
    pixels = torch.randint(0, 256, (2, 3, 4, 4), generator=generator(), dtype=torch.uint8)
    got = normalise(pixels, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)).numpy()
    mean, std = np.array([0.1, 0.2, 0.3])[:, None, None], np.array([0.5, 0.25, 2.0])[:, None, None]
    np.testing.assert_allclose(got, (pixels.numpy() / 255 - mean) / std, atol=1e-6)


def test_augmentation_without_settings_is_the_identity_and_flip_mirrors() -> None:
    pixels = torch.randint(0, 256, (5, 3, 8, 8), generator=generator(), dtype=torch.uint8)
    torch.testing.assert_close(augment(pixels, generator(), STILL), pixels.float(), atol=1e-3, rtol=0)
    mirrored = augment(pixels, generator(), Augmentation(1, 0, (1, 1), 0, 0))
    torch.testing.assert_close(mirrored, pixels.flip(3).float(), atol=1e-3, rtol=0)


def test_each_picture_has_draws_of_its_own_and_a_seed_repeats_them() -> None:
    pixels = torch.rand((1, 3, 16, 16), generator=generator()).mul(255).expand(64, -1, -1, -1)
    first = augment(pixels, generator(3))
    assert torch.equal(first, augment(pixels, generator(3)))
    assert not torch.equal(first, augment(pixels, generator(4)))
    assert len({row.numpy().tobytes() for row in first}) == 64
    assert float(first.min()) >= 0 and float(first.max()) <= 255


def test_light_changes_brightness_about_one_and_geometry_does_not() -> None:
    grey = torch.full((2000, 3, 4, 4), 100.0)
    moved = augment(grey, generator(), Augmentation(light=0))
    torch.testing.assert_close(moved, grey, atol=1e-3, rtol=0)
    lit = augment(grey, generator(), Augmentation(light=0.25)).mean((1, 2, 3))
    # uniform in [75, 125]
    assert 75 <= float(lit.min()) < 76 and 124 < float(lit.max()) <= 125
    assert float(lit.mean()) == pytest.approx(100, abs=1.5)


def test_zoom_sees_the_middle_of_the_picture() -> None:
    ramp = torch.arange(64.0).expand(1, 3, 64, 64)
    seen = augment(ramp, generator(), Augmentation(0, 0, (0.5, 0.5), 0, 0))[0, 0, 0]
    # half the side about the middle at 31.5: from 15.75 by steps of half a pixel
    torch.testing.assert_close(seen, 15.75 + 0.5 * torch.arange(64.0), atol=1e-3, rtol=0)
