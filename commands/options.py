"""Options that several commands share, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import say
from ..errors import UsageError

if TYPE_CHECKING:
    from ..features.values import SampleList

Root = Annotated[Path, typer.Argument(help="Folder of the dataset.", metavar="ROOT", show_default=False)]
Dataset = Annotated[
    str, typer.Option("--dataset", help="How the folder is laid out: folder, manifest, rafdb.")
]
Manifest = Annotated[
    Path | None,
    typer.Option("--manifest", help="Table of --dataset manifest, where it is not ROOT/manifest.csv."),
]
SplitShares = Annotated[
    str, typer.Option("--split", help="train,val,test shares for --dataset folder without split folders.")
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
    root: Path, dataset: str, manifest: Path | None, split: str, seed: int, groups: str | None
) -> SampleList:
    """The dataset's samples, with what the adapter understood said on stderr."""
    from ..extract.datasets import DatasetOptions, list_samples

    if manifest is not None and dataset in ("folder", "rafdb"):
        raise UsageError(f"manifest: expected --dataset manifest with --manifest, got --dataset {dataset}")
    try:
        train, val, test = (float(share) for share in split.split(","))
    except ValueError:
        raise UsageError(f"split: expected three numbers like 0.6,0.2,0.2, got {split!r}") from None
    options = DatasetOptions(
        manifest=None if manifest is None else str(manifest),
        split_fractions=(train, val, test),
        seed=seed,
        group_pattern=groups,
    )
    samples = list_samples(root, dataset, options)
    say(
        f"{samples.dataset}: {len(samples)} samples, {len(samples.classes)} classes ({', '.join(samples.classes)})"
    )
    for note in samples.notes:
        say(note)
    return samples


def names(text: str) -> tuple[str, ...]:
    """The parts of a list by comma."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
