"""Benchmark of intermediate fusion: one epoch on features, and joint training of one network.

12,000 rows of 512 random features (with ``--maps`` 1,200 rows of 512 x 7 x 7) and SMIRK's 358 codes in five blocks.
``linear`` is compared with a plain loop over the same layers, the other modules with ``linear``. A figure is the median
over rounds. On the CPU, CPU time of one thread is measured, which depends little on other programs. ``--joint NAME``
trains a timm network for some steps on random images, with codes and without, and prints images per second and their
ratio. ``--device cuda`` uses a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from ig3d.learn.intermediate.config import MODULES, IntermediateConfig
from ig3d.learn.intermediate.fit import TrainingData, fit, module_groups
from ig3d.learn.intermediate.modules import ModuleSpec, make_module
from ig3d.learn.training.loop import seeded

ROWS, WIDTH, CLASSES = 12_000, 512, 8
SMIRK = (3, 300, 50, 2, 3)  # pose, shape, expression, eyelid, jaw


def clock(device: torch.device) -> float:
    """Seconds: CPU time of this process on the CPU, else wall time after the device has finished."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def made_up(features: torch.Tensor, device: torch.device, *, codes: bool) -> TrainingData:
    """Training data with random labels and codes for these features; a tenth of the rows for validation."""
    n = len(features)
    generator = torch.Generator().manual_seed(0)
    return TrainingData(
        inputs=lambda rows, _: features[rows].to(device, torch.float32),
        codes=torch.randn((n, sum(SMIRK)), generator=generator),
        present=torch.full((n,), codes),
        blocks=SMIRK,
        labels=torch.randint(0, CLASSES, (n,), generator=generator),
        targets=torch.full((n, 2), torch.nan),
        train=torch.arange(n),
        validation=torch.arange(0, n, 10),
        classes=CLASSES,
        va=False,
    )


def epoch(module: str, features: torch.Tensor, device: torch.device) -> float:
    """Seconds of one epoch, with validation."""
    data = made_up(features, device, codes=True)
    config = IntermediateConfig(module=module, epochs=1)
    with seeded(0, device):
        shape = tuple(features.shape[1:])
        model = make_module(ModuleSpec(module, shape, SMIRK, WIDTH, CLASSES, config.dropout))
        groups = module_groups(model, lr=config.lr, weight_decay=config.weight_decay)
        started = clock(device)
        fit(model, groups, data, config, seed=0, device=device)
        return clock(device) - started


def plain_epoch(features: torch.Tensor, device: torch.device) -> float:
    """Seconds of a plain loop over the layers of ``linear``, with rows in order, without masks or validation."""
    data = made_up(features, device, codes=True)
    config = IntermediateConfig()
    torch.manual_seed(0)
    embed = nn.Linear(sum(SMIRK), WIDTH)
    layers = nn.Sequential(
        nn.Linear(2 * WIDTH, 4 * WIDTH), nn.LeakyReLU(0.2), nn.Dropout(config.dropout),
        nn.Linear(4 * WIDTH, 2 * WIDTH), nn.LeakyReLU(0.2), nn.Linear(2 * WIDTH, CLASSES),
    )  # fmt: skip
    model = nn.ModuleList([embed, layers]).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    started = clock(device)
    for rows in torch.randperm(len(features)).split(config.batch_size):
        joined = torch.cat([embed(data.codes[rows].to(device)), features[rows].to(device, torch.float32)], 1)
        loss = nn.functional.cross_entropy(layers(joined), data.labels[rows].to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return clock(device) - started


def on_features(device: torch.device, *, maps: bool, rows: int, rounds: int) -> None:
    shape = (WIDTH, 7, 7) if maps else (WIDTH,)
    features = torch.randn((rows, *shape), generator=torch.Generator().manual_seed(1)).half()
    threads = torch.get_num_threads()
    print(f"{rows} rows, features of {' x '.join(map(str, shape))}, {sum(SMIRK)} codes, {threads} threads")
    fusion, plain = [], []
    for _ in range(rounds):
        fusion.append(epoch("linear", features, device))
        if not maps:
            plain.append(plain_epoch(features, device))
    linear = statistics.median(fusion)
    print(f"{'linear':10s} {linear:6.2f} s per epoch", flush=True)
    if plain:
        seconds = statistics.median(plain)
        print(f"{'plain loop':10s} {seconds:6.2f} s per epoch, {seconds / linear:.2f} of linear", flush=True)
    for module in MODULES[1:]:
        seconds = statistics.median(epoch(module, features, device) for _ in range(rounds))
        print(f"{module:10s} {seconds:6.2f} s per epoch, {seconds / linear:.2f} of linear", flush=True)


def end_to_end(name: str, device: torch.device, *, steps: int, batch_size: int) -> None:
    """Images per second of training with codes, and of the same network with a linear layer instead."""
    import timm

    from ig3d.networks.joint import JointNetwork
    from ig3d.networks.joint_start import features_of

    size = timm.create_model(name, pretrained=False).pretrained_cfg["input_size"][-1]
    pixels = torch.randn((batch_size, 3, size, size)).to(device, memory_format=torch.channels_last)
    codes = torch.randn((batch_size, sum(SMIRK)), device=device)
    present = torch.ones((batch_size, len(SMIRK)), dtype=torch.bool, device=device)
    labels = torch.randint(0, CLASSES, (batch_size,), device=device)
    half = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")

    def rate(model: nn.Module, call: Callable[[], torch.Tensor]) -> float:
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
        for step in range(steps + 5):
            if step == 5:
                started = clock(device)
            with half:
                outputs = call()
            nn.functional.cross_entropy(outputs.float(), labels).backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return steps * batch_size / (clock(device) - started)

    plain = timm.create_model(name, pretrained=False, num_classes=CLASSES).to(
        device, memory_format=torch.channels_last
    )
    alone = rate(plain, lambda plain=plain: plain(pixels))
    print(
        f"{name}, {size} pixels, batches of {batch_size}, {steps} steps: {alone:.0f} images per second without codes"
    )
    del plain
    for module in ("linear", "attention"):
        network = timm.create_model(name, pretrained=False, num_classes=0).to(
            device, memory_format=torch.channels_last
        )
        with torch.no_grad():
            shape = tuple(features_of(network.eval(), pixels[:2], maps=module != "linear").shape[1:])
        fusion = make_module(ModuleSpec(module, shape, SMIRK, shape[0], CLASSES, 0.2)).to(device)
        joint = JointNetwork(network.train(), fusion)
        joined = rate(joint, lambda joint=joint: joint(pixels, codes, present))
        print(f"  with codes, {module:10s} {joined:.0f} images per second, {joined / alone:.2f} of that")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--maps", action="store_true", help="use feature maps, and a tenth of the rows")
    parser.add_argument("--joint", metavar="NAME", help="train this timm network end to end")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    where = torch.device(args.device)
    if args.joint:
        end_to_end(args.joint, where, steps=args.steps, batch_size=args.batch_size)
    else:
        on_features(where, maps=args.maps, rows=ROWS // 10 if args.maps else ROWS, rounds=args.rounds)
