"""Augment a batch by tensor operations, with separate random parameters for each image.

torchvision's transforms use the same parameters for all images of a batch. Random numbers come from one generator on
the CPU, so that a seed gives the same images on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

# ITU-R BT.601 luma, as in Pillow
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Ranges of the random changes; small, because expressions are subtle.

    Attributes
    ----------
    flip : float in [0, 1]
        Probability of a left-right flip.
    degrees : float
        Largest rotation to either side.
    zoom : (low, high)
        Side of the visible square relative to the image; below 1 crops, above 1 extends by reflection.
    shift : float
        Largest shift in x and y, relative to the side of the image.
    light : float
        Brightness, contrast and saturation are multiplied by 1 ± light.
    """

    flip: float = 0.5
    degrees: float = 10.0
    zoom: tuple[float, float] = (0.8, 1.05)
    shift: float = 0.06
    light: float = 0.25

    def scaled(self, strength: float) -> Augmentation:
        """Ranges multiplied by ``strength``; 0 means no augmentation."""
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
    """Apply a random flip, rotation, zoom, shift and change of light to each image.

    Parameters
    ----------
    pixels : (b, 3, h, w) tensor, values in [0, 255]
    generator : torch.Generator on the CPU
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
    # Maps output to input coordinates, both in [-1, 1], so that a side has length 2.
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
    transformed = functional.grid_sample(
        pixels.to(torch.float32), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return _relight(transformed, 1 + settings.light * signed[5:8])


def _relight(pixels: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Scale brightness, contrast (around the mean) and saturation (around grey) by factors (3, b)."""
    brightness, contrast, saturation = (factor.view(-1, 1, 1, 1) for factor in factors)
    weights = torch.tensor(_LUMA, device=pixels.device).view(1, 3, 1, 1)
    lit = pixels * brightness
    grey = (lit * weights).sum(1, keepdim=True)
    lit = grey + (lit - grey) * saturation
    mean = grey.mean((2, 3), keepdim=True)
    return (mean + (lit - mean) * contrast).clamp(0, 255)
