"""Benchmark of SMIRK, EMOCA and DECA against a loop that crops and runs one image at a time.

Both use the same networks (random weights), crops and device, and one compute thread. Detection is not included. Both
take turns; the figure is the median ratio over rounds. On the CPU, CPU time is measured, which depends little on other
programs. ``--device cuda`` uses a GPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from skimage.transform import warp
from threadpoolctl import threadpool_limits
from torch import nn

from ig3d.extract.crop import prepare, square_box, square_crop
from ig3d.extract.regressors import load_regressor
from ig3d.extract.regressors.backbones import MobileEncoder, ResNetEncoder
from ig3d.features.values import CropSpec, Face

COUNT, BATCH, ROUNDS = 16, 16, 3
SMIRK = {
    "pose_encoder": lambda: MobileEncoder("tf_mobilenetv3_small_minimal_100", "pose_cam_layers", 6),
    "shape_encoder": lambda: MobileEncoder("tf_mobilenetv3_large_minimal_100", "shape_layers", 300),
    "expression_encoder": lambda: MobileEncoder("tf_mobilenetv3_large_minimal_100", "expression_layers", 55),
}
EMOCA = {
    "E_flame": lambda: ResNetEncoder(236),
    "E_expression": lambda: ResNetEncoder(50),
    "E_detail": lambda: ResNetEncoder(128),
}
DECA = {name: EMOCA[name] for name in ("E_flame", "E_detail")}


def write(name: str, networks: dict[str, nn.Module], folder: Path) -> None:
    """Write a checkpoint of these networks under its official name."""
    states = {key: network.state_dict() for key, network in networks.items()}
    if name == "deca":
        torch.save(states, folder / "deca_model.tar")
        return
    prefix = "smirk_encoder." if name == "smirk" else "deca."
    flat = {
        f"{prefix}{key}.{tensor}": value for key, state in states.items() for tensor, value in state.items()
    }
    if name == "smirk":
        torch.save(flat, folder / "SMIRK_em1.pt")
        return
    path = folder / "EMOCA_v2_lr_mse_20/detail/checkpoints/epoch=10-val_loss/dataloader_idx_0=3.2.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": flat}, path)


def plain(
    networks: dict[str, nn.Module], images: list[np.ndarray], faces: list[Face], spec: CropSpec
) -> None:
    """Loop of a simple script, with the crop of the official code."""
    device = next(next(iter(networks.values())).parameters()).device
    for image, face in zip(images, faces, strict=True):
        inverse = np.linalg.inv(np.vstack([square_crop(square_box(face, spec), spec.size), (0, 0, 1)]))
        size = (spec.size, spec.size)
        if spec.floats:
            crop = warp(image / 255, inverse, output_shape=size).astype(np.float32)
        else:
            crop = warp(image, inverse, output_shape=size, preserve_range=True).astype(np.uint8)
        pixels = torch.from_numpy(crop.transpose(2, 0, 1)[None].copy()).to(device).float()
        pixels = pixels if spec.floats else pixels / 255
        with torch.inference_mode():
            for network in networks.values():
                network.head(network.features(pixels).mean((2, 3))).cpu().numpy()


def timed(call: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start


def measure(name: str, parts: dict[str, Callable[[], nn.Module]], device: str) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (480, 640, 3), np.uint8) for _ in range(COUNT)]
    faces = [
        Face(np.array([x, y, x + 240, y + 260], np.float32)) for x, y in rng.uniform(40, 200, (COUNT, 2))
    ]
    networks = {key: part().eval() for key, part in parts.items()}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["IG3D_WEIGHTS"] = folder
        write(name, networks, Path(folder))
        regress = load_regressor(name, device=device)
    networks = {key: network.to(device) for key, network in networks.items()}
    spec = regress.needs
    assert isinstance(spec, CropSpec)

    def batched() -> None:
        for start in range(0, COUNT, BATCH):
            regress(prepare(images[start : start + BATCH], faces[start : start + BATCH], spec))

    def loop() -> None:
        plain(networks, images, faces, spec)

    clock = time.process_time if device == "cpu" else time.perf_counter
    loop(), batched()
    rounds = [(timed(loop, clock), timed(batched, clock)) for _ in range(ROUNDS)]
    loop_ms, batched_ms = (statistics.median(times) / COUNT * 1000 for times in zip(*rounds, strict=True))
    ratio = statistics.median(a / b for a, b in rounds)
    print(
        f"{name:6} on {device:5} loop {loop_ms:7.1f} ms   ig3d {batched_ms:7.1f} ms per image   "
        f"{ratio:.2f} times as fast"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    device = parser.parse_args().device
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with threadpool_limits(1):  # more BLAS threads would use CPU time while they wait
        for name, parts in (("smirk", SMIRK), ("deca", DECA), ("emoca", EMOCA)):
            measure(name, parts, device)


if __name__ == "__main__":
    main()
