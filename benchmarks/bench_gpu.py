"""Benchmark of SMIRK on a GPU: feeding, whole runs with and without detection, a plain loop, the networks alone.

Images are JPEGs of 224 pixels. *Feeding*: what the CPU must do (see ``bench_host.py``). *Runs*: ``extract_codes`` with
stored boxes, full images and detection, compared with a plain loop (decode, crop as in the official code, run the same
networks one image at a time on the same device, write JSON); targets are 20 times the loop and 5,000 images per second.
*Networks*: several execution modes of torch, ig3d's first: speed, and change of the codes by compilation or other
precision. ``--record FILE`` writes everything as a section for ``benchmarks/README.md``. ``--device cpu`` with few
images tests this script.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from bench_host import HEADER, rates, with_boxes
from bench_regressors import SMIRK
from bench_regressors import write as write_weights
from bench_stages import repeated
from joblib import cpu_count
from PIL import Image
from skimage.transform import warp
from torch import nn

from ig3d import ExtractConfig, extract_codes, list_samples
from ig3d.extract.crop import square_box, square_crop
from ig3d.extract.regressors.encoders import IMAGES_AT_ONCE
from ig3d.extract.regressors.smirk import Smirk, split_outputs
from ig3d.extract.runtime import exact_arithmetic
from ig3d.extract.weights import find_weights
from ig3d.faces.synth import SynthConfig, synthesize
from ig3d.features.samples import Listing, boxes_of
from ig3d.features.values import Face

TARGET_RATIO, TARGET_RATE = 20, 5000
KINDS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
Networks = dict[str, nn.Module]
Way = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]


class AtOnce(nn.Module):
    """SMIRK's three encoders on (n, 3, 224, 224) float images; heads in float32, as in ig3d."""

    def __init__(self, networks: Networks, half: torch.dtype | None = None) -> None:
        super().__init__()
        self.networks, self.half = nn.ModuleList(networks.values()), half

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.autocast(images.device.type, self.half) if self.half else nullcontext():
            features = [network.features(images) for network in self.networks]
        return tuple(
            network.head(maps.float().mean((2, 3)))
            for network, maps in zip(self.networks, features, strict=True)
        )


def ways(networks: Networks, *, compiled: bool) -> dict[str, Way]:
    """Name -> encoders in an execution mode of torch; the first is that of ig3d (channels-last weights)."""
    modes: dict[str, Way] = {}
    for name, half in KINDS.items():
        modes[f"{name}, channels last"] = AtOnce(networks, half)
    plain = AtOnce(networks)
    channels_first = AtOnce(copy.deepcopy(networks)).to(memory_format=torch.contiguous_format)
    modes["fp32, channels first"] = lambda images: channels_first(images.contiguous())

    def tf32(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        try:
            return plain(images)
        finally:
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

    modes["tf32, channels last"] = tf32
    for name, half in KINDS.items() if compiled else ():
        # CUDA graphs of compiled kernels; each call overwrites the results of the one before
        modes[f"{name}, compiled"] = torch.compile(AtOnce(networks, half), mode="reduce-overhead")
    return modes


def captured(call: Way, images: torch.Tensor) -> Way:
    """The kernels of a mode as one CUDA graph: one launch instead of hundreds, not delayed by other threads."""
    inputs = images.clone(memory_format=torch.preserve_format)
    aside = torch.cuda.Stream(images.device)
    aside.wait_stream(torch.cuda.current_stream(images.device))
    # torch's documentation of CUDA graphs requires warm-up calls on another stream
    with torch.cuda.stream(aside):
        for _ in range(3):
            call(inputs)
    torch.cuda.current_stream(images.device).wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = call(inputs)

    def replay(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs.copy_(images)
        graph.replay()
        return outputs

    return replay


def networks_alone(
    networks: Networks, device: torch.device, batch: int, calls: int, *, compiled: bool
) -> list[str]:
    """Table of the modes: rate, and largest difference of the codes from those of the first."""
    crops = np.random.default_rng(0).integers(0, 256, (batch, 3, 224, 224), np.uint8)
    images = (torch.from_numpy(crops).to(device).float() / 255).contiguous(memory_format=torch.channels_last)

    def seconds(call: Way) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            outputs = call(images)
        outputs[0].cpu()  # waits for the device
        return (time.perf_counter() - start) / calls

    with exact_arithmetic(), torch.inference_mode():
        tried = ways(networks, compiled=compiled)
        if device.type == "cuda":
            tried |= {
                f"{name}, captured": captured(tried[f"{name}, channels last"], images) for name in KINDS
            }
        codes = {name: [output.cpu().numpy() for output in call(images)] for name, call in tried.items()}
        for call in tried.values():
            call(images)  # warm-up: the first calls compile and choose kernels
        rounds = [{name: seconds(call) for name, call in tried.items()} for _ in range(3)]
    first = next(iter(tried))
    lines = ["| execution of the networks | images/s | times the first | codes within |", "|---|---|---|---|"]
    for name in tried:
        took = statistics.median(times[name] for times in rounds)
        ratio = statistics.median(times[first] / times[name] for times in rounds)
        difference = max(np.abs(a - b).max() for a, b in zip(codes[name], codes[first], strict=True))
        lines.append(f"| {name} | {batch / took:,.0f} | {ratio:.2f} | {difference:.1e} |")
    return lines


def rate_of_run(listing: Listing, config: ExtractConfig, jobs: int, out: Path) -> tuple[float, float]:
    """Images per second of a run, with and without the start of its processes."""
    seconds = {}
    for rows in (64, 64, len(listing)):  # the first run compiles
        part = replace(listing, samples=listing.samples[:rows])
        start = time.perf_counter()
        extract_codes(part, out, config, jobs=jobs)
        seconds[rows] = time.perf_counter() - start
        out.unlink()
    rows = len(listing)
    return rows / seconds[rows], (rows - 64) / max(seconds[rows] - seconds[64], 1e-9)


def machine(device: torch.device) -> str:
    """Hardware and versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    return f"{name}, {cpu_count()} cores, torch {torch.__version__}, OpenVINO {version('openvino')}"


def plain_loop(
    samples: pd.DataFrame, root: Path, networks: Networks, device: torch.device, out: Path, *, whole: bool
) -> float:
    """Images per second of a simple script: open, crop and run one image at a time, and write JSON."""
    spec = Smirk.needs
    start = time.perf_counter()
    for number, (path, box) in enumerate(zip(samples["path"], boxes_of(samples), strict=True)):
        pixels = np.asarray(Image.open(root / path).convert("RGB"))
        if whole:
            crop = cv2.resize(pixels, (spec.size, spec.size))
        else:
            transform = square_crop(square_box(Face(box.astype(np.float32)), spec), spec.size)
            inverse = np.linalg.inv(np.vstack([transform, (0, 0, 1)]))
            crop = warp(pixels, inverse, output_shape=(spec.size, spec.size), preserve_range=True).astype(
                np.uint8
            )
        image = torch.from_numpy(crop.transpose(2, 0, 1)[None].copy()).to(device).float() / 255
        with torch.inference_mode():
            outputs = {
                name: network.head(network.features(image).mean((2, 3))).cpu().numpy()
                for name, network in networks.items()
            }
        record = {name: values[0].tolist() for name, values in split_outputs(outputs).items()}
        (out / f"{number}.json").write_text(json.dumps(record))
    return len(samples) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=102_400, help="rows of ig3d's runs; images are repeated")
    parser.add_argument("--plain", type=int, default=300, help="number of images in the plain loop")
    parser.add_argument("--jobs", type=int, default=0, help="processes that read; default: one per core")
    parser.add_argument("--detectors", default="boxes,none,facemesh-smirk", help="separated by commas")
    parser.add_argument("--precision", default="fp32", help="precision of ig3d's runs")
    parser.add_argument(
        "--batch", type=int, default=IMAGES_AT_ONCE["cuda"], help="batch size of the networks alone"
    )
    parser.add_argument("--calls", type=int, default=20, help="calls of the networks alone in a round")
    parser.add_argument("--not-compiled", action="store_true", help="leave out compiled modes")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the tables to a Markdown file")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device: nothing measured")
        return
    device, jobs, detectors = torch.device(args.device), args.jobs or cpu_count(), args.detectors.split(",")
    networks: Networks = {name: part().eval() for name, part in SMIRK.items()}
    lines = [f"### {machine(device)}", ""]
    with tempfile.TemporaryDirectory() as folder:
        work, root = Path(folder), Path(folder) / "faces"
        face_networks = find_weights("facemesh").resolve()
        os.environ["IG3D_WEIGHTS"], os.environ["XDG_CACHE_HOME"] = str(work / "weights"), str(work / "cache")
        (work / "weights").mkdir()
        (work / "json").mkdir()
        (work / "weights" / face_networks.name).symlink_to(face_networks)
        write_weights("smirk", networks, work / "weights")
        networks = {name: network.to(device) for name, network in networks.items()}
        synthesize(root, SynthConfig(count=args.images, jobs=cpu_count()))
        listing = list_samples(root, "rafdb")
        lines += [f"Feeding, {jobs} processes:", "", *HEADER]
        lines += rates(repeated(listing, min(args.rows, 8192)), jobs, 2, tuple(detectors))
        subset = with_boxes(listing).samples[: args.plain]
        lines += ["", f"Runs of {args.rows} rows:", ""]
        lines += ["| detector | images/s | with the start | times the plain loop |", "|---|---|---|---|"]
        for detector in detectors:
            whole = detector == "none"
            # warm-up: the first calls choose kernels
            plain_loop(subset[:8], root, networks, device, work / "json", whole=whole)
            loop = plain_loop(subset, root, networks, device, work / "json", whole=whole)
            config = ExtractConfig("smirk", detector, device=args.device, precision=args.precision)
            rows = repeated(with_boxes(listing) if detector == "boxes" else listing, args.rows)
            with_start, rate = rate_of_run(rows, config, jobs, work / "run.h5")
            ratio = (
                f"{rate / loop:.1f}"
                if detector != "facemesh-smirk"
                else f"{rate / loop:.1f} (without detection)"
            )
            lines.append(f"| {detector} | {rate:,.0f} | {with_start:,.0f} | {ratio} |")
        lines += [
            "",
            f"Targets: {TARGET_RATE:,} images/s with stored boxes, {TARGET_RATIO} times the loop.",
            "",
        ]
        networks = {name: network.to(memory_format=torch.channels_last) for name, network in networks.items()}
        lines += networks_alone(networks, device, args.batch, args.calls, compiled=not args.not_compiled)
    print("\n".join(lines))
    if args.record:
        args.record.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
