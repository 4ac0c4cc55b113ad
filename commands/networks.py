"""``ig3d train-2d`` and ``ig3d logits``: 2D networks, trained and asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import say, say_all
from .options import (
    Dataset,
    Device,
    Groups,
    LabelMap,
    Manifest,
    Root,
    Seed,
    SplitSeed,
    SplitShares,
    list_dataset,
)


def train_2d(
    root: Root,
    out: Annotated[
        Path, typer.Option("--out", help="Checkpoint to write (.safetensors).", show_default=False)
    ],
    dataset: Dataset = "folder",
    network: Annotated[
        str, typer.Option("--network", help="timm's name of an architecture.")
    ] = "test_resnet",
    size: Annotated[int, typer.Option("--size", help="Side of the network's input, pixels.")] = 64,
    epochs: Annotated[int, typer.Option("--epochs", help="At most.")] = 30,
    batch_size: Annotated[int, typer.Option("--batch-size")] = 64,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate at its height.")] = 5e-3,
    task: Annotated[
        str | None, typer.Option("--task", help="classes or va; by default what there is.")
    ] = None,
    manifest: Manifest = None,
    split: SplitShares = None,
    split_seed: SplitSeed = 0,
    groups: Groups = None,
    label_map: LabelMap = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Train a small 2D network on a dataset's train split, for those who have none."""
    from ..networks.train import TrainConfig, describe_epoch, train_2d

    config = TrainConfig(
        network=network,
        size=size,
        task=task,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        device=device,
    )
    samples = list_dataset(root, dataset, manifest, split, split_seed, groups, label_map)
    result = train_2d(samples, config, out, progress=True)
    say_all(result.problems, result.notes)
    print(
        f"{result.path}: {network} for {', '.join(result.info.columns)}, trained on {result.rows_train} rows, "
        f"kept {describe_epoch(result.best)} on {result.rows_validation} validation rows (optimistic: they chose it)"
    )


def logits(
    root: Root,
    network: Annotated[
        Path, typer.Option("--network", help="Checkpoint of ig3d train-2d.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="File to write (.npz).", show_default=False)],
    dataset: Dataset = "folder",
    splits: Annotated[
        str | None,
        typer.Option(
            "--splits", help="train,val,test,none or all; by default rows the network was not trained on."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size")] = 64,
    manifest: Manifest = None,
    split: SplitShares = None,
    split_seed: SplitSeed = 0,
    groups: Groups = None,
    label_map: LabelMap = None,
    device: Device = "auto",
) -> None:
    """Write a 2D network's predictions with the dataset's ids, for ig3d fuse."""
    from ..networks.logits import LogitsConfig, parse_splits, write_logits

    config = LogitsConfig(splits=parse_splits(splits), batch_size=batch_size, device=device)
    samples = list_dataset(root, dataset, manifest, split, split_seed, groups, label_map)
    result = write_logits(samples, network, out, config, progress=True)
    say_all(result.problems, result.notes)
    for name, scores in result.scores.items():
        say(
            f"{name}: "
            + ", ".join(f"{score.replace('_', ' ')} {value:.3f}" for score, value in scores.items())
        )
    by_split = ", ".join(f"{name} {count}" for name, count in result.by_split.items())
    print(f"{result.path}: {result.rows} rows ({by_split})")
