"""Made-up 2D networks for the tests: a clone's Python file, and pictures whose answers are known by formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from listed import Sample, listing_of, samples_of
from PIL import Image

from ig3d.features.samples import Listing, Split

# A file of a cloned repository: it imports its neighbour, returns the requested form, and drops the axis of one row.
CLONE = '''
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from layers import pooled


@dataclass
class Settings:
    width: int = 10


class Net(nn.Module):
    """Three colour means and a linear layer."""

    def __init__(self, width: int = 10, form: str = "tensor") -> None:
        super().__init__()
        self.form = form
        self.body = nn.Conv2d(3, 4, 1)
        self.attention = nn.Linear(4, 4)
        self.fc = nn.Linear(4, Settings(width).width)

    def forward(self, x):
        maps = self.body(x)
        feat = pooled(maps)
        out = self.fc(feat).squeeze()
        feat = feat + 0 * self.attention(1 - feat)
        if self.form == "triple":
            return out, maps, [feat, feat]
        if self.form == "dict":
            return {"heatmap": maps, "expression": out[:, :8], "valence": out[:, 8], "arousal": out[:, 9]}
        return out


class Fixed(nn.Module):
    """Column i of the classes is i; valence is -0.5, arousal 0.25."""

    def __init__(self, classes: int, va: str = "", form: str = "tensor", scale: float = 1.0) -> None:
        super().__init__()
        values = list(range(classes)) + [{"v": -0.5, "a": 0.25}[letter] for letter in va]
        self.register_buffer("values", torch.tensor(values, dtype=torch.float32) * scale)
        self.form = form

    def forward(self, x):
        out = self.values.expand(len(x), -1)
        if self.form == "triple":
            return out, x, [out, out]
        if self.form == "dict":
            return {"heatmap": x, "expression": out[:, :-2], "valence": out[:, -2], "arousal": out[:, -1]}
        return out


class Batchy(nn.Module):
    """Normalises by the batch in evaluation mode too."""

    def forward(self, x):
        means = pooled(x)
        return (means - means.mean(0)) / (means.std(0) + 1e-3)


class Random(nn.Module):
    def forward(self, x):
        return pooled(x) + torch.rand(1)  # another at each call


def nan(width=3):
    net = Net(width)
    nn.init.constant_(net.fc.bias, float("nan"))
    return net


def plain():
    return lambda images: images.mean((2, 3))


def broken():
    raise RuntimeError("no such file: pretrained.pth\\nsecond line")
'''


def write_clone(folder: Path) -> Path:
    """``net.py`` and the neighbour it imports."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "layers.py").write_text("def pooled(maps):\n    return maps.mean((2, 3))\n")
    (folder / "net.py").write_text(CLONE)
    return folder / "net.py"


def weights(width: int = 10) -> dict[str, torch.Tensor]:
    """A state dict of ``Net(width)``."""
    random = torch.Generator().manual_seed(width)
    shapes = {
        "body.weight": (4, 3, 1, 1), "body.bias": (4,), "attention.weight": (4, 4), "attention.bias": (4,),
        "fc.weight": (width, 4), "fc.bias": (width,),
    }  # fmt: skip
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}


def features_by_formula(
    samples: Listing, mean: float | tuple[float, ...], std: float | tuple[float, ...], width: int = 10
) -> np.ndarray:
    """(n, 4) what ``Net`` feeds its last layer, for pictures of the network's own size."""
    state = {name: tensor.numpy().astype(np.float64) for name, tensor in weights(width).items()}
    pixels = [
        np.asarray(Image.open(Path(samples.root) / sample.path), np.float64) for sample in samples_of(samples)
    ]
    colours = (np.stack(pixels).mean((1, 2)) / 255 - np.array(mean)) / np.array(std)
    return np.asarray(colours @ state["body.weight"][:, :, 0, 0].T + state["body.bias"])


def outputs_by_formula(features: np.ndarray, width: int = 10) -> np.ndarray:
    """Outputs (n, width) of ``Net``."""
    state = {name: tensor.numpy().astype(np.float64) for name, tensor in weights(width).items()}
    return np.asarray(features @ state["fc.weight"].T + state["fc.bias"])


def pictures(root: Path, count: int = 7, *, size: int = 16) -> Listing:
    """Noise in a different colour per image; alternately train and test."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    listed = []
    for row in range(count):
        colour = rng.integers(40, 216, 3)
        noisy = np.clip(colour + rng.normal(0, 20, (size, size, 3)), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(root / f"{row:02d}.png")
        listed.append(Sample(f"{row:02d}", f"{row:02d}.png", row % 3, Split(2 * (row % 2))))
    return listing_of("toy", str(root), ("anger", "happy", "sad"), tuple(listed))
