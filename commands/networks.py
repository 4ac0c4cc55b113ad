"""``ig3d train-2d`` and ``ig3d logits``: train and run 2D networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import say, say_all, working
from ..errors import UsageError, plural
from ..features.network_features import made_by_of
from ..networks.options import LogitsConfig, NetworkSpec, kind_of, parse_crop_scale, parse_splits
from ..networks.train_config import TrainConfig
from .options import (
    BatchSize,
    Dataset,
    Device,
    Groups,
    LabelMap,
    Like,
    Manifest,
    MaybeRoot,
    SplitSeed,
    SplitShares,
    joined,
    list_dataset,
    note_existing,
    output_file,
    output_with,
    with_options,
)

Crop = Annotated[
    str | None,
    typer.Option(
        "--crop",
        help="Crop: whole (the full image), or a store with face boxes. By default the face boxes of the dataset or, "
        "for frames of videos and several faces of an image, those of --like; without boxes, whole.",
    ),
]


@with_options(TrainConfig, skip=("jobs",))
def train_2d(
    *,
    root: MaybeRoot = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="Checkpoint to write (.safetensors).",
            show_default=False,
            callback=output_with(".safetensors"),
        ),
    ],
    like: Like = None,
    dataset: Dataset = "folder",
    out_of_fold: Annotated[
        int,
        typer.Option(
            "--out-of-fold",
            help="Also train this many networks, each without one part of the train split, to predict this part out of "
            "fold. The predictions are written to OUT with .npz.",
        ),
    ] = 0,
    manifest: Manifest = None,
    split: SplitShares = None,
    split_seed: SplitSeed = 0,
    groups: Groups = None,
    label_map: LabelMap = None,
    crop: Crop = None,
    **options: Any,
) -> None:
    """Train a small 2D network on the train split of a dataset, if you have no 2D network."""
    config = TrainConfig(**options)
    predictions = out.with_suffix(".npz")
    if out_of_fold:
        output_file(predictions)
    samples = list_dataset(root, dataset, manifest, split, split_seed, groups, label_map, like=like)
    with working("load PyTorch"):
        from ..networks.checkpoint import check_replaceable
        from ..networks.crop import default_crop
        from ..networks.out_of_fold import train_out_of_fold
        from ..networks.train import describe_epoch, train_2d

    check_replaceable(out)
    note_existing(out, *((predictions,) if out_of_fold else ()))
    if not out_of_fold and out.exists() and made_by_of(predictions):
        say(f"{predictions}: probably predictions of the network that is replaced; write them again")
    config = replace(config, crop=default_crop(samples, like) if crop is None else crop)
    made = None
    if out_of_fold:
        result, made = train_out_of_fold(samples, config, out, folds=out_of_fold, progress=True)
    else:
        result = train_2d(samples, config, out, progress=True)
    say_all(result.problems, result.notes)
    from_val = result.info.training["validation_from"] == "the val split"
    validation = "val row" if from_val else "held-out train row"
    print(
        f"{result.path}: timm model {config.network} for {', '.join(result.info.columns)}, trained on "
        f"{plural(result.rows_train, 'train row')}; {describe_epoch(result.best)} on "
        f"{plural(result.rows_validation, validation)} (optimistic: they chose the epoch)"
    )
    if made is not None:
        say_all((), made.notes)
        print(
            f"{made.path}: {plural(made.rows, 'train row')}, predicted out of fold; "
            f"{plural(made.others, 'other row')}, predicted by {result.path.name}"
        )


@with_options(NetworkSpec, skip=("classes", "output", "mean", "std"))
def logits(
    *,
    root: MaybeRoot = None,
    network: Annotated[
        str,
        typer.Option(
            "--network",
            help="Checkpoint of ig3d train-2d, TorchScript, .pt2, .onnx, .tflite, timm:NAME, file.py:build (runs that "
            "file), or fer (a small network for first tries).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", help="File to write (.npz).", show_default=False, callback=output_with(".npz")),
    ],
    like: Like = None,
    dataset: Dataset = "folder",
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--classes", help="Class order of the outputs: a preset, names separated by commas, or dataset."
        ),
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            help="Outputs to use, if there are several: 0, or names separated by commas (concatenated).",
        ),
    ] = None,
    mean: Annotated[
        str | None, typer.Option("--mean", help="Mean of the channels in [0, 1], such as 0.485,0.456,0.406.")
    ] = None,
    std: Annotated[
        str | None, typer.Option("--std", help="Standard deviation of the channels in [0, 1].")
    ] = None,
    crop: Crop = None,
    crop_scale: Annotated[
        str,
        typer.Option(
            "--crop-scale",
            help="Side of the crop relative to that of the box; auto: the side with the smallest loss on val or train "
            "rows.",
        ),
    ] = "1",
    splits: Annotated[
        list[str] | None,
        typer.Option(
            "--splits",
            help="Splits to predict: train,val,test,none or all. By default all rows on which the network was not "
            "trained.",
        ),
    ] = None,
    batch_size: BatchSize = 64,
    manifest: Manifest = None,
    split: SplitShares = None,
    split_seed: SplitSeed = 0,
    groups: Groups = None,
    label_map: LabelMap = None,
    device: Device = "auto",
    **options: Any,
) -> None:
    """Write the predictions of a 2D network for a dataset, with ids, for ig3d fuse."""
    spec = NetworkSpec(
        network,
        **options,
        classes=joined(classes),
        output=joined(output),
        mean=_three(mean, "mean"),
        std=_three(std, "std"),
    )
    kind_of(spec)
    config = LogitsConfig(
        splits=parse_splits(None if splits is None else joined(splits)),
        batch_size=batch_size,
        device=device,
        crop_scale=parse_crop_scale(crop_scale),
    )
    samples = list_dataset(root, dataset, manifest, split, split_seed, groups, label_map, like=like)
    note_existing(out)
    with working("load PyTorch"):  # after the checks, because its import takes seconds
        from ..networks.crop import default_crop
        from ..networks.logits import write_logits

    config = replace(config, crop=default_crop(samples, like) if crop is None else crop)
    result = write_logits(samples, spec, out, config, progress=True, notify=say)
    say(f"{network}: columns {', '.join(result.columns)}")
    say_all(result.problems, result.notes)
    for name, scores in result.scores.items():
        say(
            f"{name}: "
            + ", ".join(f"{score.replace('_', ' ')} {value:.3f}" for score, value in scores.items())
        )
    by_split = ", ".join(f"{name} {count}" for name, count in result.by_split.items())
    print(f"{result.path}: {plural(result.rows, 'row')} ({by_split})")


def _three(text: str | None, option: str) -> tuple[float, ...] | None:
    """``0.5,0.5,0.5`` or one number for all channels."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{option}: cannot read {text!r}; pass one number, or three separated by commas"
        ) from None
    return values * 3 if len(values) == 1 else values
