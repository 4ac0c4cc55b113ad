"""The command line: parse, call, print. No work is done here.

Results go to stdout, progress and remarks to stderr. Exit codes: 0 done, 1 error, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from . import __version__
from .console import counting, counts, say, say_all, stderr, stdout
from .errors import Ig3dError, MissingExtra, UsageError, absent

if TYPE_CHECKING:
    from .features.values import SampleList

app = typer.Typer(
    name="ig3d",
    help="What does the 3D face add to a 2D expression network? Extract codes, fuse, measure.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

weights_app = typer.Typer(no_args_is_help=False)
app.add_typer(weights_app, name="weights")

# Options that several commands share.
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


def main() -> None:
    """Run the program; every error of ours becomes one line on stderr and its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a dash loses no result
    signal.signal(signal.SIGTERM, _terminated)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except Ig3dError as error:
        _fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        # an optional package that a command's modules import; our own modules are always there
        if (error.name or "ig3d").startswith("ig3d"):
            raise
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        _fail(str(absent(error, wanted_by=command)), MissingExtra.exit_code)

    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}expected to read or write there, got: {error.strerror or error}", 1)


def _terminated(number: int, frame: object) -> NoReturn:
    """SIGTERM ends like Ctrl-C: workers are stopped, what is done is kept."""
    raise SystemExit(128 + number)


def _fail(line: str, code: int) -> NoReturn:
    print(f"ig3d: {line}", file=sys.stderr)
    sys.exit(code)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"ig3d {__version__}")
        raise typer.Exit


@app.command("extract")
def extract_cli(
    root: Root,
    out: Annotated[Path, typer.Option("--out", help="The store to write.", show_default=False)],
    dataset: Dataset = "folder",
    regressor: Annotated[str, typer.Option("--regressor", help="What makes codes of a face.")] = "facemesh",
    detector: Annotated[
        str | None,
        typer.Option("--detector", help="What finds faces; by default the regressor's own choice."),
    ] = None,
    also: Annotated[
        str, typer.Option("--also", help="Blocks on request, by comma (facemesh: landmarks).")
    ] = "",
    manifest: Manifest = None,
    split: SplitShares = "0.6,0.2,0.2",
    split_seed: SplitSeed = 0,
    groups: Groups = None,
    jobs: Annotated[int, typer.Option("--jobs", help="Worker processes; 0 is one per core.")] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images per call of the networks.")] = 32,
    device: Device = "auto",
    precision: Annotated[
        str, typer.Option("--precision", help="Of the regressor's networks: fp32, fp64, bf16, fp16.")
    ] = "fp32",
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away an earlier run under this name.")
    ] = False,
) -> None:
    """Write the 3D codes of a dataset into a store; the same command goes on after an interruption."""
    from .extract.run import ExtractConfig, extract_codes

    samples = _list(root, dataset, manifest, split, split_seed, groups)
    config = ExtractConfig(
        regressor=regressor,
        detector=detector,
        also=_names(also),
        batch_size=batch_size,
        device=device,
        precision=precision,
    )
    with _kept_when_interrupted(), counting("extract", len(samples)) as progress:
        summary = extract_codes(samples, out, config, jobs=jobs, restart=restart, progress=progress, say=say)
    if not summary.seconds:
        say("the store is there already, from this very run")
    elif summary.resumed:
        say(f"went on with {summary.resumed} rows of an interrupted run")
    print(f"{summary.store}: {len(samples)} rows ({counts(summary.counts)})")


@app.command("inspect")
def inspect_cli(
    store: Store,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read everything; exit 1 if a value was changed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Say what a store holds."""
    from .features.store import CodeStore
    from .features.summary import print_summary, summarise

    with CodeStore(store) as opened:
        problems = opened.verify() if verify else []
        if problems:
            raise Ig3dError(f"{store}: expected a sound store, got: {'; '.join(problems)}; extract it again")
        summary = summarise(opened)
    if as_json:
        print(json.dumps(summary | ({"verified": True} if verify else {}), indent=1))
        return
    print_summary(summary, stdout())
    if verify:
        print("verified: every value is as it was written")


@app.command("preview")
def preview_cli(
    store: Store,
    out: Annotated[Path, typer.Option("--out", help="Picture to write (.png or .jpg).", show_default=False)],
    count: Annotated[int, typer.Option("--count", help="Faces on the sheet.")] = 24,
    seed: Seed = 0,
    root: Annotated[
        Path | None, typer.Option("--root", help="Where the images are, if they have moved.")
    ] = None,
) -> None:
    """Draw a sheet of a store's faces with their boxes and points."""
    from .extract.preview import preview
    from .features.store import CodeStore

    with CodeStore(store) as opened:
        drawn = preview(opened, out, count=count, seed=seed, root=root)
    print(f"{out}: {drawn} faces")


@app.command("synth")
def synth_cli(
    out: Annotated[Path, typer.Argument(help="New folder to write to.", metavar="OUT", show_default=False)],
    count: Annotated[int, typer.Option("--count", help="Faces, train and test part together.")] = 1000,
    size: Annotated[int, typer.Option("--size", help="Side of the images, pixels.")] = 224,
    test_share: Annotated[float, typer.Option("--test-share", help="Share of the test part.")] = 0.25,
    seed: Seed = 0,
    jobs: Annotated[int, typer.Option("--jobs", help="Worker processes; 0 is one per core.")] = 0,
) -> None:
    """Draw labelled synthetic faces in RAF-DB's layout, with their true codes beside them."""
    from joblib import cpu_count

    from .faces.synth import SynthConfig, synthesize

    config = SynthConfig(count=count, size=size, seed=seed, test_share=test_share, jobs=jobs or cpu_count())
    with counting("synth", count) as progress:
        synthesize(out, config, progress=lambda done: progress(Counter(drawn=done)))
    print(f"{out}: {count} faces in RAF-DB's layout (--dataset rafdb), true codes in codes.csv")


@app.command("train-2d")
def train_2d_cli(
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
    split: SplitShares = "0.6,0.2,0.2",
    split_seed: SplitSeed = 0,
    groups: Groups = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Train a small 2D network on a dataset's train split, for those who have none."""
    from .networks.train import TrainConfig, describe_epoch, train_2d

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
    samples = _list(root, dataset, manifest, split, split_seed, groups)
    result = train_2d(samples, config, out, progress=True)
    say_all(result.problems, result.notes)
    print(
        f"{result.path}: {network} for {', '.join(result.info.columns)}, trained on {result.rows_train} rows, "
        f"kept {describe_epoch(result.best)} on {result.rows_validation} validation rows (optimistic: they chose it)"
    )


@app.command("logits")
def logits_cli(
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
    split: SplitShares = "0.6,0.2,0.2",
    split_seed: SplitSeed = 0,
    groups: Groups = None,
    device: Device = "auto",
) -> None:
    """Write a 2D network's predictions with the dataset's ids, for ig3d fuse."""
    from .networks.logits import LogitsConfig, parse_splits, write_logits

    config = LogitsConfig(splits=parse_splits(splits), batch_size=batch_size, device=device)
    samples = _list(root, dataset, manifest, split, split_seed, groups)
    result = write_logits(samples, network, out, config, progress=True)
    say_all(result.problems, result.notes)
    for name, scores in result.scores.items():
        say(
            f"{name}: "
            + ", ".join(f"{score.replace('_', ' ')} {value:.3f}" for score, value in scores.items())
        )
    by_split = ", ".join(f"{name} {count}" for name, count in result.by_split.items())
    print(f"{result.path}: {result.rows} rows ({by_split})")


@app.command("fuse")
def fuse_cli(
    two_d: Annotated[
        Path,
        typer.Option("--2d-logits", help="2D predictions: .npz, .npy, .csv or .parquet.", show_default=False),
    ],
    store: Annotated[Path | None, typer.Option("--3d-store", help="Store of ig3d extract.")] = None,
    three_d: Annotated[
        Path | None, typer.Option("--3d-logits", help="Ready 3D predictions, instead of a store.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="CSV of truth by id, with --3d-logits and no store.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for predictions, metrics.json, table.csv and the model."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Picture to write of what each rule adds (.png, .pdf, .svg)."),
    ] = None,
    ids: Annotated[Path | None, typer.Option("--2d-ids", help="Ids of 2D rows that come without.")] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--2d-classes",
            help="Order of the 2D columns, before what the file says: a preset or names by comma.",
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="classes or va; by default what the 2D file is.")
    ] = None,
    rules: Annotated[str, typer.Option("--rules", help="By comma.")] = "mean,max,min,product,weighted,stack",
    head: Annotated[str, typer.Option("--head", help="What predicts from the codes: gbm or linear.")] = "gbm",
    blocks: Annotated[str, typer.Option("--blocks", help="full, short, or block names by comma.")] = "full",
    report: Annotated[
        str | None,
        typer.Option("--report", help="Rows to report: test, val, train or all; docs/protocol.md."),
    ] = None,
    fit_on: Annotated[
        str, typer.Option("--fit-on", help="auto, or reported to reproduce papers (figures are marked).")
    ] = "auto",
    folds: Annotated[int, typer.Option("--folds", help="Folds where rows are cross-fitted.")] = 5,
    on: Annotated[
        str, typer.Option("--on", help="mean, max and weighted on probabilities or logits.")
    ] = "probabilities",
    objective: Annotated[
        str | None, typer.Option("--objective", help="accuracy, balanced, logloss; for va rmse, ccc.")
    ] = None,
    draws: Annotated[int, typer.Option("--draws", help="Of the bootstrap.")] = 10_000,
    seed: Seed = 0,
    jobs: Annotated[int, typer.Option("--jobs", help="Threads of the heads; 0 is all cores.")] = 0,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Repeat with permuted codes.")
    ] = True,
    out_of_fold: Annotated[
        bool,
        typer.Option("--2d-out-of-fold", help="The 2D predictions of the train split were made out of fold."),
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out rows with codes and no 2D prediction.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on where the order of rows or classes looks wrong.")
    ] = False,
) -> None:
    """Fuse 2D predictions with the 3D codes and measure what they add."""
    from .learn.fuse import FuseConfig, fuse_files
    from .learn.report import check_out, print_result, write_result

    if (store is None) == (three_d is None):
        raise UsageError(
            "fuse: expected one of --3d-store and --3d-logits, got " + ("none" if store is None else "both")
        )
    config = FuseConfig(
        rules=_names(rules),
        head=head,
        blocks=blocks,
        report=report,
        fit_on=fit_on,
        folds=folds,
        seed=seed,
        draws=draws,
        on=on,
        objective=objective,
        controls=controls,
        two_d_out_of_fold=out_of_fold,
        allow_missing=allow_missing,
        force=force,
        jobs=jobs or -1,
        model=out is not None,
    )
    if plot is not None:
        from .learn.plot import check_plot, plot_result

        check_plot(plot)
    if out is not None:
        check_out(out)
    result = fuse_files(
        two_d,
        store=store,
        three_d=three_d,
        labels=labels,
        ids_file=ids,
        classes=classes,
        task=task,
        config=config,
    )
    written = [] if out is None else write_result(result, out)
    print_result(result, stdout())
    if out is not None:
        print(f"\n{out}: " + ", ".join(path.name for path in written))
    if plot is not None:
        plot_result(result, plot)
        print(f"\n{plot}: differences to 2d-recalibrated with their intervals")


@app.command("import")
def import_cli(
    root: Root,
    kind: Annotated[str, typer.Option("--from", help="smirk-json, emoca-npy or csv.", show_default=False)],
    codes: Annotated[
        Path, typer.Option("--codes", help="Folder of the codes, or the table.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="The store to write.", show_default=False)],
    columns: Annotated[
        str | None, typer.Option("--columns", help="Of a CSV without block names: expression:50,pose:3,...")
    ] = None,
    dataset: Dataset = "folder",
    manifest: Manifest = None,
    split: SplitShares = "0.6,0.2,0.2",
    split_seed: SplitSeed = 0,
    groups: Groups = None,
) -> None:
    """Make a store of codes that you already have, joined to a dataset by id."""
    from .extract.imports import import_codes

    samples = _list(root, dataset, manifest, split, split_seed, groups)
    rows = import_codes(samples, kind, codes, out, columns=columns, say=say)
    print(f"{out}: {len(samples)} rows ({counts(rows)})")


@app.command("export")
def export_cli(
    store: Store,
    csv: Annotated[Path | None, typer.Option("--csv", help="Table to write.")] = None,
    parquet: Annotated[Path | None, typer.Option("--parquet", help="Table to write.")] = None,
    npz: Annotated[Path | None, typer.Option("--npz", help="Arrays to write.")] = None,
    blocks: Annotated[str | None, typer.Option("--blocks", help="By comma; all by default.")] = None,
) -> None:
    """Write a store's samples and codes as a table that other programs read."""
    from .features.export import export_store
    from .features.store import CodeStore

    wanted = {".csv": csv, ".parquet": parquet, ".npz": npz}
    if not any(wanted.values()):
        raise UsageError("export: expected --csv, --parquet or --npz, got none")
    for suffix, path in wanted.items():
        if path is not None and path.suffix.lower() != suffix:
            raise UsageError(
                f"export: expected a name that ends in {suffix} after --{suffix[1:]}, got {path}"
            )
    with CodeStore(store) as opened:
        for path in filter(None, wanted.values()):
            rows = export_store(opened, path, blocks=None if blocks is None else _names(blocks))
            print(f"{path}: {rows} rows")


@weights_app.callback(invoke_without_command=True)
def weights_cli(context: typer.Context) -> None:
    """List the official files: which are here, whether they are sound, their licences, how to get them."""
    if context.invoked_subcommand is not None:
        return
    from .extract.weights import OFFICIAL, check_weights, folders

    for name in OFFICIAL:
        found = check_weights(name)
        print(f"{name}: {found.state}" + (f" · {found.path}" if found.path else ""))
        print(f"  licence: {found.entry.licence}")
        if found.message:
            print(f"  {'get it' if found.state == 'missing' else 'note'}: {found.message}")
    say(f"looked for in {', '.join(map(str, folders()))}")


@weights_app.command("add")
def weights_add_cli(
    files: Annotated[
        list[Path],
        typer.Argument(help="Checkpoints, pickles, zips as distributed, folders.", show_default=False),
    ],
    name: Annotated[
        str | None, typer.Option("--as", help="What it is, where its contents do not tell the release.")
    ] = None,
) -> None:
    """Recognise official files by what they hold, and copy them to where ig3d looks."""
    from .extract.weights_add import add_weights

    for file in files:
        for added in add_weights(file, name=name):
            print(f"{added.name}: {added.path} (sha256 {added.sha256})")


@weights_app.command("get")
def weights_get_cli(
    name: Annotated[str, typer.Argument(help="face_landmarker, sfd or fan2d.", show_default=False)],
    mirror: Annotated[
        str | None,
        typer.Option("--from", help="Address of a folder that has the file, instead of the official one."),
    ] = None,
) -> None:
    """Fetch an official file that needs no account, and check its hash."""
    from rich.progress import DownloadColumn, Progress

    from .extract.weights_add import get_weights

    bar = Progress(*Progress.get_default_columns(), DownloadColumn(), console=stderr())
    task = bar.add_task(name, total=None)

    def progress(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total or None)

    try:
        added = get_weights(name, base_url=mirror, progress=progress)
    finally:
        if bar.live.is_started:
            bar.stop()
    print(f"{added.name}: {added.path} (sha256 {added.sha256})")


@contextmanager
def _kept_when_interrupted() -> Iterator[None]:
    """Say what an interrupted extraction leaves."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        say("interrupted; finished shards are kept: repeat the command to go on")
        raise


def _list(
    root: Path, dataset: str, manifest: Path | None, split: str, seed: int, groups: str | None
) -> SampleList:
    """The dataset's samples, with what the adapter understood said on stderr."""
    from .extract.datasets import DatasetOptions, list_samples

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


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


if __name__ == "__main__":
    main()
