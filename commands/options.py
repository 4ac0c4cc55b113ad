"""Options that several commands share, and what is made of them."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import say
from ..errors import UsageError, number
from ..features.atomic import check_output
from ..learn.options import options_of

if TYPE_CHECKING:
    from ..extract.datasets import DatasetOptions
    from ..features.samples import Listing


def output_file(path: Path | None) -> Path | None:
    """Callback of options that name a file to write: refuse a folder, device or FIFO before any work."""
    if path is not None:
        check_output(path)
    return path


def _checked_seed(seed: int) -> int:
    from ..learn.config import check_seed

    check_seed(seed)
    return seed


# datasets; text, because a path would lose a slash of s3://
Root = Annotated[
    str,
    typer.Argument(
        help="Folder of the dataset, an archive of it, an image, a video, or an address.",
        metavar="ROOT",
        show_default=False,
    ),
]
MaybeRoot = Annotated[
    str | None,
    typer.Argument(
        help="Folder of the dataset, an archive of it, an image, a video, or an address.",
        metavar="ROOT",
        show_default=False,
    ),
]
Like = Annotated[
    Path | None,
    typer.Option("--like", help="Store with the samples, splits and groups to use; ROOT may be left out."),
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
FramesPerSecond = Annotated[
    float | None,
    typer.Option("--fps", help="Frames per second to take of videos; all by default.", show_default=False),
]
SplitSeed = Annotated[
    int,
    typer.Option(
        "--split-seed", help="Seed of that split; the same for every command.", callback=_checked_seed
    ),
]
Groups = Annotated[
    str | None,
    typer.Option("--groups", help="Regular expression over ids; its first group names the person or video."),
]

# stores
Store = Annotated[Path, typer.Argument(help="An ig3d store (.h5).", metavar="STORE", show_default=False)]
OutStore = Annotated[
    Path, typer.Option("--out", help="The store to write.", show_default=False, callback=output_file)
]
RowIds = Annotated[
    list[str] | None,
    typer.Option(
        "--rows",
        help="Sample ids or patterns such as 'clip.mp4#*', by comma or repeated.",
        show_default=False,
    ),
]
_STORES = typer.Option(
    "--3d-store",
    help="Store of ig3d extract. Repeated: more codes of the same rows, or more rows (fitted on one store, "
    "reported on another).",
    show_default=False,
)
Stores = Annotated[list[Path], _STORES]
MaybeStores = Annotated[list[Path] | None, _STORES]
Blocks = Annotated[
    list[str] | None,
    typer.Option(
        "--blocks",
        help="full, short, expression+jaw, or block names by comma or repeated; full by default.",
        show_default=False,
    ),
]

# predictions
TwoDLogits = Annotated[
    list[Path],
    typer.Option(
        "--2d-logits",
        help="2D predictions: .npz, .npy, .pt, .csv or .parquet. Repeated: further 2D networks, as controls.",
        show_default=False,
    ),
]
ThreeD = Annotated[Path | None, typer.Option("--3d-logits", help="Ready 3D predictions, instead of a store.")]
Labels = Annotated[
    Path | None,
    typer.Option("--labels", help="CSV of truth by id, with --3d-logits or before the store's."),
]
TwoDIds = Annotated[
    list[Path] | None, typer.Option("--2d-ids", help="Ids of 2D rows that come without; one for each file.")
]
TwoDClasses = Annotated[
    list[str] | None,
    typer.Option(
        "--2d-classes",
        help="Order of the 2D columns, instead of the file's: a preset or names by comma; one for all files or "
        "one for each.",
    ),
]
Task = Annotated[str | None, typer.Option("--task", help="classes or va; by default what the 2D file is.")]
Force = Annotated[bool, typer.Option("--force", help="Go on where the order of rows or classes looks wrong.")]

# the task, as an option
Folds = Annotated[int, typer.Option("--folds", help="Folds, where there is no split to fit on.")]
Draws = Annotated[int, typer.Option("--draws", help="Draws of the bootstrap and of the tests; at least 100.")]
HeadJobs = Annotated[int, typer.Option("--jobs", min=0, help="Threads; 0 is all cores.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random choice.", callback=_checked_seed)]

# networks
HeadDevice = Annotated[
    str,
    typer.Option("--device", help="Where heads mlp and residual are trained: auto, cpu, cuda, cuda:1, ..."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Rows at a time.")]
Epochs = Annotated[int, typer.Option("--epochs", help="Passes over the training rows, at most.")]
Rate = Annotated[float, typer.Option("--lr", help="Learning rate at its height.")]
Balance = Annotated[
    float, typer.Option("--balance", help="1 draws all classes equally often, 0 as often as they come.")
]
Key = Annotated[
    str, typer.Option("--key", help="Entry of that checkpoint with the weights, such as model_state_dict.")
]
Size = Annotated[int | None, typer.Option("--size", help="Side of the network's input, pixels.")]
CropScale = Annotated[float, typer.Option("--crop-scale", help="Side of the crop over that of the box.")]


def with_options(
    config: type, *, skip: Sequence[str] = (), flags: Mapping[str, tuple[str, ...]] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator that gives a command an option for each field of a configuration, with the help of its docstring.

    The command takes them as ``**options``, without those that were not typed and have no default. Fields that the
    command declares itself are left to it.

    Parameters
    ----------
    config : dataclass of options (:mod:`ig3d.learn.options`)
    skip : fields that are no options of the command
    flags : field -> flags, if they are not ``--FIELD``
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters = [
            parameter
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.kind is not parameter.VAR_KEYWORD
        ]
        declared = {parameter.name for parameter in parameters} | set(skip)
        for option in options_of(config):
            if option.parameter in declared:
                continue
            listed = option.kind is tuple
            kind: Any = list[str] if listed else option.kind
            default = None if listed else option.default
            names = (flags or {}).get(option.parameter, (f"--{option.name}",))
            if option.default is True:
                names = (f"--{option.name}/--no-{option.name}",)
            parameters.append(
                inspect.Parameter(
                    option.parameter,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=default,
                    annotation=Annotated[
                        kind | None if default is None else kind,
                        typer.Option(*names, help=option.help, show_default=default is not None),
                    ],
                )
            )

        def run(**values: Any) -> None:
            command(**{name: value for name, value in values.items() if value is not None})

        run.__doc__, run.__name__ = command.__doc__, command.__name__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def settings(texts: Sequence[str]) -> dict[str, str]:
    """Options given as ``name=value``.

    Raises
    ------
    UsageError : a text without ``=``.
    """
    pairs = [text.partition("=") for text in texts]
    wrong = [text for text, (name, sign, _) in zip(texts, pairs, strict=True) if not name or not sign]
    if wrong:
        raise UsageError(f"set: expected option=value, got {wrong[0]!r}")
    return {name: value for name, _, value in pairs}


def list_dataset(
    root: str | None,
    dataset: str,
    manifest: Path | None = None,
    split: str | None = None,
    seed: int = 0,
    groups: str | None = None,
    label_map: str | None = None,
    fps: float | None = None,
    *,
    like: Path | None = None,
) -> Listing:
    """The samples of a dataset, or of a store ``like``; notes are printed on stderr.

    Raises
    ------
    UsageError : neither root nor store is passed, or options of a dataset beside a store.
    """
    from ..extract.datasets import list_samples

    if like is not None:
        named = {"--manifest": manifest, "--split": split, "--groups": groups, "--label-map": label_map}
        if refused := [name for name, value in named.items() if value is not None]:
            raise UsageError(
                f"like: labels, splits and groups are those of {like}; leave out {', '.join(refused)}"
            )
        listing = _samples_of_store(like, root)
    elif root is None:
        raise UsageError("dataset: pass ROOT, the folder of the dataset, or --like STORE")
    else:
        options = dataset_options(dataset, manifest, split, seed, groups, label_map, fps)
        listing = list_samples(root, dataset, options)
    say_samples(listing)
    return listing


def _samples_of_store(store: Path, root: str | None) -> Listing:
    """The samples of a store; ``root`` if the images lie elsewhere by now."""
    from dataclasses import replace

    from ..extract.datasets.split_store import listing_of
    from ..features.store import CodeStore

    with CodeStore(store) as opened:
        listing = listing_of(opened)
    return listing if root is None else replace(listing, root=root)


def say_samples(listing: Listing) -> None:
    """Print how a dataset was read, on stderr."""
    from ..features.groups import note_on_groups

    named = f" ({', '.join(listing.classes)})" if listing.classes else ""
    classes = number(len(listing.classes), "class") if listing.classes else "no classes"
    say(f"{listing.dataset}: {number(len(listing), 'sample')}, {classes}{named}")
    ids, groups = (listing.samples[name].to_numpy(dtype="U") for name in ("id", "group"))
    for note in (*listing.notes, *note_on_groups(ids, groups, listing.labels.astype(int))):
        say(note)


def dataset_options(
    dataset: str | None,
    manifest: Path | None,
    split: str | None,
    seed: int,
    groups: str | None,
    label_map: str | None,
    fps: float | None = None,
) -> DatasetOptions:
    """The options of a dataset, as the commands take them.

    Raises
    ------
    UsageError : they contradict each other, or ``--split`` is neither a table nor three shares.
    """
    from ..extract.datasets import ADAPTERS, DatasetOptions

    if manifest is not None and dataset in ADAPTERS and dataset != "manifest":
        raise UsageError(f"manifest: --manifest needs --dataset manifest, not --dataset {dataset}")
    shares, table = None, None
    if split is not None and _exists(split):
        table = split
    elif split is not None:
        try:
            train, val, test = (float(share) for share in split.split(","))
        except ValueError:
            raise UsageError(
                f"split: {split!r} is no table and no shares; give a table of ig3d split, or three numbers such as "
                "0.6,0.2,0.2"
            ) from None
        shares = (train, val, test)
    return DatasetOptions(
        manifest=None if manifest is None else str(manifest),
        split_fractions=shares,
        split_table=table,
        seed=seed,
        group_pattern=groups,
        label_map=label_map,
        fps=fps,
    )


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()  # a pipe too
    except OSError:  # longer than a path can be
        return False


def typed() -> str:
    """The command line as it was typed, for the record of a run."""
    return shlex.join(["ig3d", *sys.argv[1:]])


def checked_device(name: str) -> str:
    """The device as it was named, refused before any work where it is not there; auto needs no torch."""
    if name != "auto":
        from ..errors import require
        from ..features.device import choose_device

        require("torch", wanted_by="device")
        choose_device(name)
    return name


def joined(texts: list[str] | None, default: str = "") -> str:
    """One list by comma of an option that may be repeated."""
    return default if texts is None else ",".join(texts)


def names(texts: str | list[str]) -> tuple[str, ...]:
    """The parts of a list by comma, or of several."""
    every = texts if isinstance(texts, str) else joined(texts)
    return tuple(part.strip() for part in every.split(",") if part.strip())
