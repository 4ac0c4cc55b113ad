"""Options that several commands share, and what is made of them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import say
from ..errors import UsageError

if TYPE_CHECKING:
    from ..extract.datasets import DatasetOptions
    from ..features.values import SampleList

# text, because a path would lose a slash of s3://
Root = Annotated[
    str,
    typer.Argument(
        help="Folder of the dataset, a container of it, or an address.", metavar="ROOT", show_default=False
    ),
]
Dataset = Annotated[
    str, typer.Option("--dataset", help="How the folder is laid out: a name that ig3d datasets lists.")
]
Manifest = Annotated[
    Path | None,
    typer.Option("--manifest", help="Table of --dataset manifest, where it is not ROOT/manifest.csv."),
]
SplitShares = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="A table of ig3d split; or train,val,test shares, for a dataset without splits.",
    ),
]
LabelMap = Annotated[
    str | None,
    typer.Option("--label-map", help="What labels mean: 1=surprise,2=fear,..., a preset, or names in order."),
]
SplitSeed = Annotated[
    int, typer.Option("--split-seed", help="Seed of that split; the same for every command.")
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random choice.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")]
Groups = Annotated[
    str | None,
    typer.Option("--groups", help="Regular expression over ids; its first group names the person or video."),
]
Store = Annotated[Path, typer.Argument(help="An ig3d store (.h5).", metavar="STORE", show_default=False)]


def list_dataset(
    root: str,
    dataset: str,
    manifest: Path | None = None,
    split: str | None = None,
    seed: int = 0,
    groups: str | None = None,
    label_map: str | None = None,
) -> SampleList:
    """The dataset's samples, with what the adapter understood said on stderr."""
    from ..extract.datasets import list_samples

    samples = list_samples(root, dataset, dataset_options(dataset, manifest, split, seed, groups, label_map))
    say_samples(samples)
    return samples


def say_samples(samples: SampleList) -> None:
    """What a dataset was understood to be, on stderr."""
    classes = (
        f"{len(samples.classes)} classes ({', '.join(samples.classes)})" if samples.classes else "no classes"
    )
    say(f"{samples.dataset}: {len(samples)} samples, {classes}")
    for note in samples.notes:
        say(note)


def dataset_options(
    dataset: str | None,
    manifest: Path | None,
    split: str | None,
    seed: int,
    groups: str | None,
    label_map: str | None,
) -> DatasetOptions:
    """The options of a dataset, as the commands take them.

    Raises
    ------
    UsageError : they contradict each other, or ``--split`` is neither a table nor three shares.
    """
    from ..extract.datasets import ADAPTERS, DatasetOptions

    if manifest is not None and dataset in ADAPTERS and dataset != "manifest":
        raise UsageError(f"manifest: expected --dataset manifest with --manifest, got --dataset {dataset}")
    shares, table = None, None
    if split is not None and Path(split).is_file():
        table = split
    elif split is not None:
        try:
            train, val, test = (float(share) for share in split.split(","))
        except ValueError:
            raise UsageError(
                f"split: expected a table of ig3d split, or three numbers like 0.6,0.2,0.2, got {split!r}"
            ) from None
        shares = (train, val, test)
    return DatasetOptions(
        manifest=None if manifest is None else str(manifest),
        split_fractions=shares,
        split_table=table,
        seed=seed,
        group_pattern=groups,
        label_map=label_map,
    )


def typed() -> str:
    """The command line as it was typed, for the record of a run."""
    return shlex.join(["ig3d", *sys.argv[1:]])


def names(text: str) -> tuple[str, ...]:
    """The parts of a list by comma."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
