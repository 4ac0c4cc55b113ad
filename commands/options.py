"""Options that several commands share, and functions that parse them."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import say, working
from ..errors import RunError, UsageError, none_of, one_of, plural
from ..features.atomic import check_output
from ..learn.options import options_of

if TYPE_CHECKING:
    from ..extract.datasets import DatasetOptions
    from ..features.samples import Listing


_STORE_SUFFIXES = (".h5", ".hdf5")


def output_file(path: Path | None) -> Path | None:
    """Callback of options that name a file to write: refuse a folder, device or FIFO before any work."""
    if path is not None:
        check_output(path)
    return path


def output_with(*suffixes: str) -> Callable[[typer.CallbackParam, Path | None], Path | None]:
    """Callback as :func:`output_file`, for a file whose name must end in one of the suffixes."""

    def check(option: typer.CallbackParam, path: Path | None) -> Path | None:
        if path is not None and path.suffix.lower() not in suffixes:
            raise UsageError(f"{option.name}: {path} does not end in {one_of(suffixes)}; rename it")
        return output_file(path)

    return check


def note_existing(*paths: Path) -> None:
    """Print which files exist and will be replaced at the end of the command."""
    for path in paths:
        if path.exists():
            say(f"{path}: exists; it is replaced when the command has finished")


def _output_store(path: Path) -> Path:
    if path.suffix.lower() not in _STORE_SUFFIXES:
        raise UsageError(f"out: {path} does not end in .h5, as stores do; rename it")
    check_output(path)
    return path


def _checked_seed(seed: int) -> int:
    from ..learn.config import check_seed

    check_seed(seed)
    return seed


# datasets; text, because a path would lose a slash of s3://
_ROOT = typer.Argument(
    help="Folder of the dataset, an archive of it, an image, a video, or a URL.",
    metavar="ROOT",
    show_default=False,
)
Root = Annotated[str, _ROOT]
MaybeRoot = Annotated[str | None, _ROOT]
Like = Annotated[
    Path | None,
    typer.Option("--like", help="Store with the samples, splits and groups to use; ROOT may be left out."),
]
Dataset = Annotated[
    str, typer.Option("--dataset", help="Layout of the folder: a name that ig3d datasets lists.")
]
Manifest = Annotated[
    Path | None,
    typer.Option(
        "--manifest", help="Path of the table for --dataset manifest; by default ROOT/manifest.csv."
    ),
]
SplitShares = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="Table written by ig3d split; or shares of train,val,test for a dataset without splits, such as "
        "0.8,0.1,0.1. Class folders without splits are divided at random by 0.6,0.2,0.2.",
    ),
]
LabelMap = Annotated[
    str | None,
    typer.Option(
        "--label-map",
        help="Class names of numbered labels: 1=surprise,2=fear,..., a preset such as rafdb, or names in order.",
    ),
]
FramesPerSecond = Annotated[
    float | None,
    typer.Option("--fps", help="Frames per second to read from videos; all by default.", show_default=False),
]
SplitSeed = Annotated[
    int,
    typer.Option(
        "--split-seed",
        help="Seed of --split with shares; pass the same to every command.",
        callback=_checked_seed,
    ),
]
Groups = Annotated[
    str | None,
    typer.Option(
        "--groups",
        help="Regular expression with one part in parentheses, which matches the person or video in an id. Its rows "
        "are never divided between splits or folds.",
    ),
]

# stores
Store = Annotated[Path, typer.Argument(help="An ig3d store (.h5).", metavar="STORE", show_default=False)]
OutStore = Annotated[
    Path, typer.Option("--out", help="The store to write (.h5).", show_default=False, callback=_output_store)
]
RowIds = Annotated[
    list[str] | None,
    typer.Option(
        "--rows",
        help="Sample ids or patterns such as 'clip#*', separated by commas or repeated.",
        show_default=False,
    ),
]
_STORES = typer.Option(
    "--3d-store",
    help="Store written by ig3d extract. Stores with the same ids: their codes are combined. Stores with different "
    "ids: heads are trained on all but the last, and results are for the last.",
    show_default=False,
)
Stores = Annotated[list[Path], _STORES]
MaybeStores = Annotated[list[Path] | None, _STORES]
Blocks = Annotated[
    list[str] | None,
    typer.Option(
        "--blocks",
        help="Code blocks: the sets full (default) or short, or names of blocks, separated by commas or repeated. "
        "docs/regressors.md lists the blocks of both sets.",
        show_default=False,
    ),
]

# predictions
TwoDLogits = Annotated[
    list[Path],
    typer.Option(
        "--2d-logits",
        help="2D predictions (.npz, .npy, .pt, .csv, .parquet) of all test rows, and of all or no val rows. "
        "Repeat the option to add further 2D networks as controls.",
        show_default=False,
    ),
]
ThreeD = Annotated[
    Path | None, typer.Option("--3d-logits", help="File of ready 3D predictions, instead of --3d-store.")
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        help="Table of true labels by id: needed with --3d-logits; replaces the labels of a store.",
    ),
]
TwoDIds = Annotated[
    list[Path] | None,
    typer.Option("--2d-ids", help="File with the ids of a 2D file that has none; once per 2D file."),
]
TwoDClasses = Annotated[
    list[str] | None,
    typer.Option(
        "--2d-classes",
        help="Class order of the 2D columns, instead of that of the file: a preset such as rafdb, or names separated "
        "by commas. Once for all files, or once per file.",
    ),
]
Task = Annotated[
    str | None, typer.Option("--task", help="classes or va; by default detected from the 2D file.")
]
Force = Annotated[bool, typer.Option("--force", help="Continue if the order of rows or classes looks wrong.")]

# evaluation
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random choice.", callback=_checked_seed)]

# networks
Device = Annotated[str, typer.Option("--device", help="Device: auto, cpu, cuda, cuda:1, ...")]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Rows per batch.")]
Epochs = Annotated[int, typer.Option("--epochs", help="Maximum number of epochs.")]
Key = Annotated[
    str, typer.Option("--key", help="Entry of the checkpoint that has the weights, such as model_state_dict.")
]
Size = Annotated[int | None, typer.Option("--size", help="Side of the network's input in pixels.")]
CropScale = Annotated[
    float, typer.Option("--crop-scale", help="Side of the crop relative to that of the box.")
]


def with_options(
    config: type, *, skip: Sequence[str] = (), flags: Mapping[str, tuple[str, ...]] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator that adds an option for each field of a configuration to a command; help texts are its docstring.

    The command receives them as ``**options``, without options that have no value. Fields that the command declares
    itself are skipped.

    Parameters
    ----------
    config : dataclass of options (:mod:`ig3d.learn.options`)
    skip : fields that are not options of the command
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
        raise UsageError(f"set: {wrong[0]!r} is not OPTION=VALUE")
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
    draw_split: bool = True,
) -> Listing:
    """The samples of a dataset, or of a store ``like``; notes are printed on stderr.

    Raises
    ------
    UsageError : neither root nor store is passed, or options of a dataset beside a store.
    """
    from ..extract.datasets import list_samples

    if like is not None:
        named = {
            "--dataset": None if dataset == "folder" else dataset,
            "--manifest": manifest,
            "--split": split,
            "--split-seed": seed or None,
            "--groups": groups,
            "--label-map": label_map,
        }
        if refused := [name for name, value in named.items() if value is not None]:
            raise UsageError(f"like: labels, splits and groups come from {like}; remove {', '.join(refused)}")
        listing = _samples_of_store(like, root)
    elif root is None:
        raise UsageError("dataset: pass ROOT, the folder of the dataset, or --like STORE")
    else:
        options = dataset_options(dataset, manifest, split, seed, groups, label_map, fps)
        with working("list samples"):
            listing = list_samples(root, dataset, options, draw_split=draw_split)
    say_samples(listing)
    return listing


def _samples_of_store(store: Path, root: str | None) -> Listing:
    """The samples of a store; ``root`` if the images have moved."""
    from dataclasses import replace

    from ..extract.datasets.split_store import listing_of
    from ..features.store import CodeStore

    with CodeStore(store) as opened:
        listing = listing_of(opened)
    return listing if root is None else replace(listing, root=root)


def say_samples(listing: Listing) -> None:
    """Print on stderr how a dataset was read."""
    from ..features.groups import note_on_groups

    named = f" ({', '.join(listing.classes)})" if listing.classes else ""
    classes = plural(len(listing.classes), "class") if listing.classes else "no classes"
    say(f"{listing.dataset}: {plural(len(listing), 'sample')}, {classes}{named}")
    ids, groups = (listing.samples[name].to_numpy(dtype="U") for name in ("id", "group"))
    for note in (*listing.notes, *note_on_groups(ids, groups, listing.labels.astype(int))):
        say(note)


def report_reasons(path: Path, by_status: dict[str, int]) -> None:
    """Print why rows have no codes; rows without a face count only if fewer than half of the rows are ok.

    Raises
    ------
    RunError : no row is ok.
    """
    from ..features.store import CodeStore
    from ..features.store.summary import reasons

    rows, ok, no_face = sum(by_status.values()), by_status.get("ok", 0), by_status.get("no_face", 0)
    few = 2 * ok < rows
    if ok + no_face < rows or few:
        with CodeStore(path) as store:
            for line in reasons(store):
                if few or not line.startswith("no_face: "):
                    say(line)
    if not ok:
        raise RunError(f"{path}: {none_of(rows, 'row', 'is')} ok; the reasons are above")


def dataset_options(
    dataset: str | None,
    manifest: Path | None,
    split: str | None,
    seed: int,
    groups: str | None,
    label_map: str | None,
    fps: float | None = None,
) -> DatasetOptions:
    """Options of a dataset from the values of the command line.

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
                f"split: {split!r} is neither an existing table nor three shares; pass a table of ig3d split, or three "
                "numbers such as 0.6,0.2,0.2"
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
        return Path(name).exists()  # also true for a pipe
    except OSError:  # too long for a path
        return False


def print_written(out: Path, files: Sequence[Path]) -> None:
    """Print the files of a result, the report page first."""
    names = sorted((path.name for path in files), key=lambda name: name != "report.html")
    if names[:1] == ["report.html"]:
        print(f"\n{out / names.pop(0)}: the report; open it in a browser")
        print(f"{out}: also {', '.join(names)}")
    else:
        print(f"\n{out}: {', '.join(names)}")


def typed() -> str:
    """The command line as it was typed, for the record of a run."""
    return shlex.join(["ig3d", *sys.argv[1:]])


def checked_device(name: str) -> str:
    """The name of a device, refused before any work if it is not available; ``auto`` does not import torch."""
    if name != "auto":
        from ..errors import require
        from ..features.device import choose_device

        require("torch", wanted_by="device")
        choose_device(name)
    return name


def joined(texts: list[str] | None, default: str = "") -> str:
    """Values of a repeated option as one text, separated by commas."""
    return default if texts is None else ",".join(texts)


def names(texts: str | list[str]) -> tuple[str, ...]:
    """Parts of one or several texts that are separated by commas."""
    every = texts if isinstance(texts, str) else joined(texts)
    return tuple(part.strip() for part in every.split(",") if part.strip())
