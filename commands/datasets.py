"""``ig3d datasets`` and ``ig3d split``: list layouts, check a dataset, draw splits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import counting, say, stdout, working
from ..errors import DatasetError, UsageError, listed, none_of, one_of, plural
from .options import (
    Dataset,
    FramesPerSecond,
    Groups,
    LabelMap,
    Manifest,
    Root,
    Seed,
    SplitSeed,
    SplitShares,
    dataset_options,
    list_dataset,
    output_file,
    say_samples,
)

if TYPE_CHECKING:
    from ..features.samples import Listing


def datasets(context: typer.Context) -> None:
    """List the supported datasets with their layouts, or check a dataset (check)."""
    if context.invoked_subcommand is not None:
        return
    from ..extract.datasets import ADAPTERS, adapter_of
    from ..extract.plugins import names

    for name in names("dataset", ADAPTERS):
        print(f"{name}: {adapter_of(name).layout.removeprefix(f'{name} expects ')}")
    say("ig3d datasets check ROOT describes a folder; docs/datasets.md shows the layouts")


def check(
    root: Root,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Layout of the folder; by default the first that fits.")
    ] = None,
    manifest: Manifest = None,
    split: SplitShares = None,
    split_seed: SplitSeed = 0,
    groups: Groups = None,
    label_map: LabelMap = None,
    fps: FramesPerSecond = None,
    jobs: Annotated[int, typer.Option("--jobs", min=0, help="Reading threads; 0 is two per core.")] = 0,
) -> None:
    """Report on a dataset: layout, counts, missing or broken images, copies in several splits."""
    import numpy as np

    from ..extract.datasets import list_samples
    from ..extract.datasets.image_check import check_images
    from ..extract.datasets.recognise import recognise
    from ..features.samples import boxes_of
    from ..features.store.summary import class_table, count_classes

    options = dataset_options(dataset, manifest, split, split_seed, groups, label_map, fps)
    with working("list samples"):
        listing = list_samples(root, dataset, options) if dataset else recognise(root, options)
    say_samples(listing)
    samples = listing.samples
    with counting("read", samples["path"].nunique()) as progress:
        checked = check_images(listing, jobs=jobs, progress=progress)

    console = stdout()
    console.print(
        f"{root}: {listing.dataset}, {plural(len(listing), 'sample')} in {plural(checked.images, 'image')}"
    )
    console.print(class_table(count_classes(listing.splits, listing.labels, listing.classes)))
    valence, arousal = samples["valence"].notna(), samples["arousal"].notna()
    if valence.any() or arousal.any():
        apart = "" if valence.equals(arousal) else f" (valence {valence.sum()}, arousal {arousal.sum()})"
        both = plural(int((valence & arousal).sum()), "sample")
        print(f"valence and arousal: {both} with both{apart}")
    if group_count := samples["group"][samples["group"] != ""].nunique():
        print(f"groups (persons or videos): {group_count}")
    if boxes := int(np.isfinite(boxes_of(samples)[:, 0]).sum()):
        print(f"face boxes of the dataset: {boxes}")
    sizes = [f"{width}x{height} ({count})" for (width, height), count in checked.sizes.items()]
    print(f"sizes: {listed(sizes) or 'no image could be read'}")
    print(f"missing: {_counted(checked.missing)}")
    print(f"unreadable: {_counted(checked.unreadable)}")
    print(f"in more than one split: {_counted([' = '.join(same) for same in checked.across])}")
    disputed = [" = ".join(same) for same in checked.disputed]
    again = bool(disputed) and checked.disputed == checked.across
    print(f"same image, different labels: {f'{len(disputed)} (the same)' if again else _counted(disputed)}")
    print(f"copies within a split: {checked.repeated or 'none'}")
    if not checked.sizes:
        raise DatasetError(
            f"{root}: {none_of(checked.images, 'image', 'could')} be read; the reasons are above"
        )


def split(
    source: Annotated[
        str, typer.Argument(help="Folder of a dataset, or a store.", metavar="SOURCE", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="Table for --split (.csv); if SOURCE is a store, also a store (.h5).",
            show_default=False,
            callback=output_file,
        ),
    ],
    val: Annotated[
        float | None,
        typer.Option(
            "--val",
            help="Share of the train rows that become val rows, 0.1 by default. If there are no splits: share of all "
            "rows, 0.2 by default, with 0.2 for test.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    dataset: Dataset = "folder",
    manifest: Manifest = None,
    groups: Groups = None,
    label_map: LabelMap = None,
    fps: FramesPerSecond = None,
) -> None:
    """Draw a val split, or all splits if there are none: stratified by class, with groups kept whole."""
    from ..extract.datasets.split_store import listing_of, split_store
    from ..extract.datasets.splits import check_replaceable, write_split
    from ..features.store import CodeStore

    of_store = Path(source).is_file() and source.lower().endswith((".h5", ".hdf5"))
    kinds = (".csv", ".h5") if of_store else (".csv",)
    if out.suffix.lower() not in kinds:
        raise UsageError(f"split: cannot write {out}; pass --out with a name that ends in {one_of(kinds)}")
    check_replaceable(out)
    named = {"--manifest": manifest, "--label-map": label_map, "--fps": fps}
    if of_store and (unused := [option for option, value in named.items() if value is not None]):
        raise UsageError(f"split: {', '.join(unused)} cannot be used with a store; omit the option")
    if not of_store:
        listing = list_dataset(
            source, dataset, manifest, groups=groups, label_map=label_map, fps=fps, draw_split=False
        )
        _check_files(listing, source)
        divided = _divide(listing, val, seed)
        write_split(out, divided)
    else:
        with working("split"), CodeStore(source) as store:
            store.check_content()
            if out.suffix.lower() == ".h5":
                divided = split_store(store, out, val, seed=seed, groups=groups)
            else:
                divided = _divide(listing_of(store, groups), val, seed)
                write_split(out, divided)
    _print_split(divided, out)


def _divide(listing: Listing, val: float | None, seed: int) -> Listing:
    """The listing with a val split, its own if ``--val`` is not passed; the only notes are those on the split."""
    from dataclasses import replace

    from ..extract.datasets.splits import draw_val
    from ..features.samples import Split

    if val is None and (listing.splits == Split.val).any():
        return replace(listing, notes=("the dataset has a val split: its splits are written unchanged",))
    return draw_val(replace(listing, notes=()), val, seed=seed)


def _check_files(listing: Listing, source: str) -> None:
    """Refuse a list of images none of which exists."""
    if (listing.samples["size_bytes"] < 0).all():
        path = listing.samples["path"].iat[0]
        raise DatasetError(
            f"split: none of {plural(len(listing), 'listed image')} exists under {source}, such as {path}; check the "
            "root"
        )


def _print_split(divided: Listing, out: Path) -> None:
    """Print notes on the split, the rows of each class and split, and how to use the result."""
    from ..features.store.summary import class_table, count_classes

    for note in divided.notes:
        say(note)
    counts = count_classes(divided.splits, divided.labels, divided.classes)
    stdout().print(class_table(counts))
    use = "" if out.suffix.lower() == ".h5" else f"; pass it to the other commands as --split {out}"
    print(f"{out}: " + ", ".join(f"{sum(of.values())} {name}" for name, of in counts.items()) + use)


def _counted(items: tuple[str, ...] | list[str]) -> str:
    return f"{len(items)} ({listed(list(items))})" if items else "none"
