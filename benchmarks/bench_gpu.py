"""Everything that is to be known on a machine with a GPU, in one go: is SMIRK fast enough there, and if not, why?

With whole images and with stored boxes (JPEGs of 224 pixels): ig3d's stages with the roof that they set, its run with
some numbers of workers, and a plain loop (decode, crop as the original does, the same networks one image at a time on
the same device, JSON). Wanted are 20 times the loop and 5,000 images a second. Then the networks alone, in the ways
that torch has to run them, ig3d's first: what compiling or another precision would save, and what it changes.
``--device cpu`` with few images shows that it works; without a GPU nothing is measured unless that is asked for.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from bench_host import with_boxes
from bench_regressors import SMIRK
from bench_regressors import write as write_weights
from bench_stages import measure
from joblib import cpu_count
from PIL import Image
from skimage.transform import warp
from torch import nn

from ig3d import ExtractConfig, list_samples
from ig3d.extract.crop import square_box, square_crop
from ig3d.extract.engine import exact_arithmetic
from ig3d.extract.read import decode
from ig3d.extract.regressors.encoders import IMAGES_AT_ONCE
from ig3d.extract.regressors.smirk import Smirk, split_outputs
from ig3d.faces.synth import SynthConfig, synthesize
from ig3d.features.samples import boxes_of
from ig3d.features.values import Face

WANTED_RATIO, WANTED_RATE = 20, 5000
THREADS = 4  # of each of four workers on 16 cores
KINDS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
Networks = dict[str, nn.Module]
Way = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]


class AtOnce(nn.Module):
    """SMIRK's three encoders on (n, 3, 224, 224) float images; heads in float32, as ig3d has them."""

    def __init__(self, networks: Networks, half: torch.dtype | None = None) -> None:
        super().__init__()
        self.networks, self.half = nn.ModuleList(networks.values()), half

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.autocast(images.device.type, self.half) if self.half else nullcontext():
            features = [network.features(images) for network in self.networks]
        return tuple(
            network.head(one.float().mean((2, 3)))
            for network, one in zip(self.networks, features, strict=True)
        )


def ways(networks: Networks, *, compiled: bool) -> dict[str, Way]:
    """Name -> the encoders in one of torch's ways; the first is ig3d's, whose weights are channels last."""
    found: dict[str, Way] = {}
    for name, half in KINDS.items():
        found[f"{name}, channels last"] = AtOnce(networks, half)
    plain = AtOnce(networks)
    channels_first = AtOnce(copy.deepcopy(networks)).to(memory_format=torch.contiguous_format)
    found["fp32, channels first"] = lambda images: channels_first(images.contiguous())

    def tf32(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        try:
            return plain(images)
        finally:
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

    found["tf32, channels last"] = tf32
    for name, half in KINDS.items() if compiled else ():
        # CUDA graphs of compiled kernels; a run's results lie where the next one's will
        found[f"{name}, compiled"] = torch.compile(AtOnce(networks, half), mode="reduce-overhead")
    return found


def captured(call: Way, images: torch.Tensor) -> Way:
    """The very kernels of a way as one CUDA graph: one call for hundreds, which threads beside it cannot hold up."""
    given = images.clone(memory_format=torch.preserve_format)
    aside = torch.cuda.Stream(images.device)
    aside.wait_stream(torch.cuda.current_stream(images.device))
    with torch.cuda.stream(
        aside
    ):  # as torch's notes on CUDA graphs want it: some calls on another stream before
        for _ in range(3):
            call(given)
    torch.cuda.current_stream(images.device).wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = call(given)

    def replay(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given.copy_(images)
        graph.replay()
        return outputs

    return replay


@contextmanager
def readers(threads: int) -> Iterator[None]:
    """Meanwhile so many threads decode JPEGs, as a worker's do."""
    coded, done = io.BytesIO(), threading.Event()
    noise = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    Image.fromarray(noise).resize((224, 224)).save(coded, "JPEG")

    def work() -> None:
        while not done.is_set():
            decode(coded.getvalue())

    busy = [threading.Thread(target=work) for _ in range(threads)]
    for one in busy:
        one.start()
    try:
        yield
    finally:
        done.set()
        for one in busy:
            one.join()


def networks_alone(
    networks: Networks, device: torch.device, batch: int, calls: int, *, compiled: bool
) -> None:
    """Rates of the ways, by turns, and how far their codes are from the first's."""
    crops = np.random.default_rng(0).integers(0, 256, (batch, 3, 224, 224), np.uint8)
    images = (torch.from_numpy(crops).to(device).float() / 255).contiguous(memory_format=torch.channels_last)

    def seconds(call: Way) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            outputs = call(images)
        outputs[0].cpu()  # waits
        return (time.perf_counter() - start) / calls

    with exact_arithmetic(device), torch.inference_mode():
        tried = ways(networks, compiled=compiled)
        if device.type == "cuda":
            tried |= {
                f"{name}, captured": captured(tried[f"{name}, channels last"], images) for name in KINDS
            }
        codes = {name: [one.cpu().numpy() for one in call(images)] for name, call in tried.items()}
        for call in tried.values():
            call(images)  # what is compiled or chosen at the first calls is no part of it
        rounds = [{name: seconds(call) for name, call in tried.items()} for _ in range(3)]
        with readers(THREADS):
            beside = {name: seconds(call) for name, call in tried.items()}
    first = next(iter(tried))
    print(f"\nSMIRK's networks alone on {device}, {batch} images at once, nothing uploaded")
    for name in tried:
        took = statistics.median(one[name] for one in rounds)
        ratio = statistics.median(one[first] / one[name] for one in rounds)
        far = max(np.abs(a - b).max() for a, b in zip(codes[name], codes[first], strict=True))
        print(
            f"  {name:22} {batch / took:9.0f} images/s   {ratio:5.2f} times the first   codes within {far:.1e}"
            f"   beside {THREADS} threads that decode {batch / beside[name]:9.0f} images/s"
        )


def plain_loop(
    samples: pd.DataFrame, root: Path, networks: Networks, device: torch.device, out: Path, *, whole: bool
) -> float:
    """Images a second of what a script would do: open, crop, run each network, dump, next."""
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
    # as many as make full shards of 1,024 rows
    parser.add_argument("--rows", type=int, default=102_400, help="of ig3d's runs, of these images")
    parser.add_argument("--plain", type=int, default=300, help="images of the plain loop")
    parser.add_argument("--jobs", default="1,2,4,8", help="numbers of workers, by comma")
    parser.add_argument("--precision", default="fp32", help="of ig3d's runs")
    parser.add_argument("--batch", type=int, default=IMAGES_AT_ONCE["cuda"], help="of the networks alone")
    parser.add_argument("--calls", type=int, default=20, help="of the networks alone, a round")
    parser.add_argument("--not-compiled", action="store_true", help="leave out what has to be compiled first")
    asked = parser.parse_args()
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device here: nothing measured")
        return
    device, jobs = torch.device(asked.device), [int(number) for number in asked.jobs.split(",")]
    networks: Networks = {name: part().eval() for name, part in SMIRK.items()}
    with tempfile.TemporaryDirectory() as folder:
        work, root = Path(folder), Path(folder) / "faces"
        os.environ["IG3D_WEIGHTS"], os.environ["XDG_CACHE_HOME"] = str(work / "weights"), str(work / "cache")
        (work / "weights").mkdir()
        (work / "json").mkdir()
        write_weights("smirk", networks, work / "weights")
        networks = {name: network.to(device) for name, network in networks.items()}
        synthesize(root, SynthConfig(count=asked.images, jobs=cpu_count()))
        listed = with_boxes(list_samples(root, "rafdb"))
        for whole in (True, False):
            some = listed.samples[: asked.plain]
            plain_loop(
                some[:8], root, networks, device, work / "json", whole=whole
            )  # the first calls choose kernels
            loop = plain_loop(some, root, networks, device, work / "json", whole=whole)
            config = ExtractConfig(
                "smirk", "none" if whole else "boxes", device=asked.device, precision=asked.precision
            )
            best = max(measure(listed, root, config, jobs, asked.rows, work))
            print(
                f"  plain loop {loop:.1f} images/s: ig3d is {best / loop:.1f} times as fast ({WANTED_RATIO} wanted), "
                f"at {best:.0f} images/s ({WANTED_RATE} wanted)"
            )
        networks = {name: network.to(memory_format=torch.channels_last) for name, network in networks.items()}
        networks_alone(networks, device, asked.batch, asked.calls, compiled=not asked.not_compiled)


if __name__ == "__main__":
    main()
