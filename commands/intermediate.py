"""``ig3d fuse-features`` and ``ig3d train-joint``: intermediate fusion of codes and a 2D network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import kept_when_interrupted, progress_bar, say, say_all, stdout, working
from ..errors import UsageError, listed, plural
from ..learn.intermediate.config import IntermediateConfig
from .options import (
    BatchSize,
    Blocks,
    CropScale,
    Dataset,
    Device,
    Epochs,
    Force,
    Groups,
    Key,
    LabelMap,
    Manifest,
    Root,
    Seed,
    Size,
    Stores,
    joined,
    list_dataset,
    note_existing,
    output_file,
    typed,
    with_options,
)

if TYPE_CHECKING:
    from ..learn.intermediate.checkpoint import Applied
    from ..learn.intermediate.run import IntermediateResult, Watch
    from ..learn.training.state import Epoch

Seeds = Annotated[
    int,
    typer.Option(
        "--seeds",
        help="Number of trainings, with seeds from --seed on. Use 3 or more to see the variation between trainings.",
    ),
]
# options of IntermediateConfig that are not options of the commands
_NOT_OPTIONS = (
    "seeds",
    "patience",
    "weight_decay",
    "dropout",
    "smoothing",
    "va_weight",
    "validation",
    "mixed",
)
Restart = Annotated[bool, typer.Option("--restart", help="Delete the trainings in --out and start again.")]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        help="Folder for predictions, checkpoints and results; with --apply the file of predictions (.npz).",
        show_default=False,
    ),
]
Apply = Annotated[
    Path | None,
    typer.Option(
        "--apply",
        help="Do not train: predict with this checkpoint rows on which it was not fitted.",
    ),
]


@with_options(IntermediateConfig, skip=_NOT_OPTIONS)
def fuse_features(
    features: Annotated[
        Path,
        typer.Option(
            "--features",
            help="File written by ig3d logits --features (or --feature-maps).",
            show_default=False,
        ),
    ],
    store: Stores,
    out: Out,
    apply: Apply = None,
    blocks: Blocks = None,
    groups: Groups = None,
    seeds: Seeds = 1,
    seed: Seed = 0,
    restart: Restart = False,
    force: Force = False,
    device: Device = "auto",
    **options: Any,
) -> None:
    """Train a fusion module on the features of a 2D network and the 3D codes, and measure the gain."""
    with working("load PyTorch"):
        from ..features.device import choose_device
        from ..learn.intermediate.run import fuse_features as run
        from ..learn.intermediate.table import load_feature_table

    where = str(choose_device(device))
    if apply is not None:
        _apply(apply, features, store, out, force=force, device=where)
        return
    config = IntermediateConfig(**options, seeds=consecutive_seeds(seed, seeds))
    table = load_feature_table(
        features, store, blocks=joined(blocks, "full"), groups=groups, task=config.task, force=force
    )
    with kept_when_interrupted("finished trainings"), watching(config) as watch:
        result = run(table, config, out, device=where, restart=restart, watch=watch, command=typed())
    show(result, out)


@with_options(IntermediateConfig, skip=_NOT_OPTIONS)
def train_joint(
    root: Root,
    two_d: Annotated[
        Path,
        typer.Option(
            "--2d-logits", help="Predictions of the initial network (ig3d logits).", show_default=False
        ),
    ],
    store: Stores,
    out: Out,
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            help="Initial network: checkpoint of ig3d train-2d, or timm:NAME. Required, but not used by --apply: the "
            "checkpoint contains its network.",
            show_default=False,
        ),
    ] = None,
    dataset: Dataset = "folder",
    weights: Annotated[Path | None, typer.Option("--weights", help="Checkpoint for timm:NAME.")] = None,
    key: Key = "",
    size: Size = None,
    crop: Annotated[
        str | None, typer.Option("--crop", help="Crop of the images, as for ig3d logits.")
    ] = None,
    crop_scale: CropScale = 1.0,
    apply: Apply = None,
    blocks: Blocks = None,
    seeds: Seeds = 1,
    seed: Seed = 0,
    epochs: Epochs = 10,
    batch_size: BatchSize = 32,
    lr: Annotated[float, typer.Option("--lr", help="Highest learning rate of the module.")] = 1e-3,
    network_lr: Annotated[
        float, typer.Option("--network-lr", help="Highest learning rate of the network.")
    ] = 1e-4,
    restart: Restart = False,
    force: Force = False,
    manifest: Manifest = None,
    label_map: LabelMap = None,
    device: Device = "auto",
    **options: Any,
) -> None:
    """Train a 2D network and a fusion module end to end with the 3D codes, and measure the gain.

    ROOT has the images of the store. Labels, splits and groups are those of the store.
    """
    from ..features.inputs import Inputs
    from ..networks.options import NetworkSpec, kind_of

    config = IntermediateConfig(
        **options,
        seeds=consecutive_seeds(seed, seeds),
        epochs=epochs,
        patience=max(3, epochs // 3),
        batch_size=batch_size,
        lr=lr,
    )
    if apply is not None:
        _check_npz(out)
        if network or weights or key or size:
            raise UsageError(
                "network: --apply uses the network in the checkpoint; leave out --network, --weights, --key and --size"
            )
    elif network is None:
        raise UsageError("network: pass --network, the checkpoint of ig3d train-2d from which to start")
    else:
        spec = NetworkSpec(network, weights=weights, key=key, size=size)
        kind_of(spec)
    # the splits of the dataset are not used
    samples = list_dataset(root, dataset, manifest, label_map=label_map, draw_split=False)
    if apply is not None:
        note_existing(out)
    with working("load PyTorch"):
        from ..learn.intermediate.run import train_route
        from ..networks import joint

    choices = joint.JointConfig(network_lr=network_lr, crop=crop, crop_scale=crop_scale)
    inputs = Inputs(two_d, store, task="classes" if config.task == "both" else config.task)
    if apply is not None:
        applied = joint.apply_joint(
            apply, samples, inputs, joint=choices, device=device, force=force, notify=say
        )
        _say_applied(applied, (), apply, out)
        return
    with progress_bar() as bar:
        reading = bar.add_task("reading", total=len(samples), detail="")
        route = joint.open_route(
            samples, spec, inputs, joint=choices, blocks=joined(blocks, "full"), device=device, force=force,
            advance=lambda n: bar.advance(reading, n), notify=say,
        )  # fmt: skip
    say_all((), route.notes)
    with kept_when_interrupted("finished trainings"), watching(config) as watch:
        result = train_route(route, config, out, restart=restart, watch=watch, command=typed())
    show(result, out)


def consecutive_seeds(first: int, count: int) -> tuple[int, ...]:
    """``count`` seeds from ``first`` on."""
    if not 1 <= count <= 1000:
        raise UsageError(f"seeds: {count} is out of range; choose 1 to 1000")
    return tuple(range(first, first + count))


def _apply(
    checkpoint: Path, features: Path, stores: list[Path], out: Path, *, force: bool, device: str
) -> None:
    """Write predictions of a trained module for rows on which it was not fitted."""
    from ..learn.intermediate.checkpoint import apply_module, load_module
    from ..learn.intermediate.table import load_feature_table

    _check_npz(out)
    note_existing(out)
    loaded = load_module(checkpoint)
    table = load_feature_table(
        features, stores, blocks=loaded.blocks, task=loaded.task, force=force, need_labels=False,
        classes=loaded.info.classes,
    )  # fmt: skip
    applied = apply_module(loaded, table, device=device, notify=say)
    _say_applied(applied, table.table.notes, checkpoint, out)


def _check_npz(out: Path) -> None:
    if out.suffix != ".npz":
        raise UsageError(f"out: {out} does not end in .npz, which --apply writes; rename it")
    output_file(out)


def _say_applied(applied: Applied, notes: tuple[str, ...], checkpoint: Path, out: Path) -> None:
    """Write predictions and print the files."""
    for note in (*notes, *applied.notes):
        say(note)
    for path in applied.save(out):
        print(
            f"{path}: {plural(len(applied.ids), 'row')}, predicted by {applied.info.spec.name} ({checkpoint.name})"
        )


@contextmanager
def watching(config: IntermediateConfig) -> Iterator[Watch]:
    """A progress bar over the epochs of all trainings, with the latest scores."""
    with progress_bar() as bar:
        order = config.trainings
        task = bar.add_task("epochs", total=len(order) * config.epochs, detail="")

        def watch(condition: str, seed: int, done: float, epoch: Epoch | None) -> None:
            # the remaining epochs of trainings that stop early count as done
            total = order.index((condition, seed)) * config.epochs + done
            scores = f": loss {epoch.loss:.3f}, score {epoch.selection:.3f}" if epoch else ""
            bar.update(task, completed=total, detail=f"{condition} {seed}{scores}")

        yield watch
        if bar.tasks[task].completed:
            bar.update(task, completed=len(order) * config.epochs)


def show(result: IntermediateResult, out: Path) -> None:
    """Print the table of each task and the files."""
    from ..learn.intermediate.results import results_of
    from ..learn.report import print_result

    for note in _notes_on_trainings(result):
        say(note)
    for of in results_of(result):
        print_result(of, stdout())
    names = [f"{training.condition}-{training.seed}.npz" for training in result.trained]
    files = f"record.json, figures.csv, predictions.csv, {', '.join(names)}"
    print(f"\n{out}: {files}, and a checkpoint (.safetensors) of each")
    print(f"ig3d report {out} --out PAGE writes a page, LaTeX and CSV")


def _notes_on_trainings(result: IntermediateResult) -> list[str]:
    """Notes on trainings that an earlier run finished, and on those that stopped early."""
    trained, epochs = result.trained, result.config.epochs
    finished = sum(training.epochs is None for training in trained)
    notes = [f"{finished} of {plural(len(trained), 'training')} had finished before"] if finished else []
    early = [
        f"{training.condition} {training.seed} after {training.epochs}"
        for training in trained
        if training.epochs is not None and training.epochs < epochs
    ]
    if early:
        notes.append(
            f"stopped before epoch {epochs}, because validation scores did not improve: {listed(early, 6)}"
        )
    return notes
