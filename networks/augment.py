"""Augmentation of a whole batch by tensor operations, each picture with draws of its own.

torchvision's transforms draw once for a batch; here every picture gets its own flip, view and light without a
Python loop over pictures. All draws come from one generator on the processor, so a seed gives the same pictures
on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

# ITU-R BT.601 luma, what Pillow's greyscale uses
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far the draws go; mild, because expressions are small things.

    Attributes
    ----------
    flip : float in [0, 1]
        Chance of a left-right mirror image.
    degrees : float
        Largest rotation to either side.
    zoom : (low, high)
        Side of the seen square over the picture's; below 1 cuts borders off, above 1 mirrors them.
    shift : float
        Largest move along x and along y, in sides of the picture.
    light : float
        Brightness, contrast and saturation are multiplied by 1 ± light.
    """

    flip: float = 0.5
    degrees: float = 10.0
    zoom: tuple[float, float] = (0.8, 1.05)
    shift: float = 0.06
    light: float = 0.25

    def scaled(self, strength: float) -> Augmentation:
        """The same draws, ``strength`` times as far; 0 is none."""
        low, high = (1 + strength * (side - 1) for side in self.zoom)
        return Augmentation(
            min(1.0, strength) * self.flip,
            strength * self.degrees,
            (low, high),
            strength * self.shift,
            strength * self.light,
        )


def augment(
    pixels: torch.Tensor, generator: torch.Generator, settings: Augmentation | None = None
) -> torch.Tensor:
    """Draw a flip, a rotated and zoomed view, and the light of each picture.

    Parameters
    ----------
    pixels : (b, 3, h, w) tensor, values in [0, 255]
    generator : torch.Generator on the processor
    settings : Augmentation, optional

    Returns
    -------
    (b, 3, h, w) float32 in [0, 255] on the device of ``pixels``.
    """
    settings = settings or Augmentation()
    draws = torch.rand((8, len(pixels)), generator=generator).to(pixels.device)
    signed = draws * 2 - 1
    mirror = torch.where(draws[0] < settings.flip, -1.0, 1.0)
    angle = signed[1] * math.radians(settings.degrees)
    low, high = settings.zoom
    zoom = low + draws[2] * (high - low)
    # Output to input coordinates, both in [-1, 1]: one side is 2 units.
    theta = torch.stack(
        [
            torch.stack(
                [zoom * mirror * angle.cos(), -zoom * angle.sin(), 2 * settings.shift * signed[3]], 1
            ),
            torch.stack([zoom * mirror * angle.sin(), zoom * angle.cos(), 2 * settings.shift * signed[4]], 1),
        ],
        1,
    )
    grid = functional.affine_grid(theta, list(pixels.shape), align_corners=False)
    seen = functional.grid_sample(
        pixels.to(torch.float32), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return _relight(seen, 1 + settings.light * signed[5:8])


def _relight(pixels: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Multiply (3, b) brightness, contrast (about the picture's mean) and saturation (about its grey)."""
    brightness, contrast, saturation = (factor.view(-1, 1, 1, 1) for factor in factors)
    weights = torch.tensor(_LUMA, device=pixels.device).view(1, 3, 1, 1)
    lit = pixels * brightness
    grey = (lit * weights).sum(1, keepdim=True)
    lit = grey + (lit - grey) * saturation
    mean = grey.mean((2, 3), keepdim=True)
    return (mean + (lit - mean) * contrast).clamp(0, 255)
