"""``ig3d inspect``, ``preview``, ``import`` and ``export``: commands on one store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..console import counts, say, stdout
from ..errors import UsageError
from .options import (
    Dataset,
    Groups,
    LabelMap,
    Manifest,
    OutStore,
    Root,
    Seed,
    SplitSeed,
    SplitShares,
    Store,
    list_dataset,
    names,
    output_file,
)


def inspect(
    store: Store,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read everything; exit 1 if a value was changed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Summarise a store."""
    from ..features.store import CodeStore
    from ..features.store.summary import print_summary, summarise

    with CodeStore(store) as opened:
        if verify:
            opened.check_content()
        summary = summarise(opened)
    if as_json:
        print(json.dumps(summary | ({"verified": True} if verify else {}), indent=1))
        return
    print_summary(summary, stdout())
    if verify:
        print("verified: every value is as it was written")


def preview(
    store: Store,
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="Picture to write (.png or .jpg).", show_default=False, callback=output_file
        ),
    ],
    count: Annotated[int, typer.Option("--count", help="Faces on the sheet.")] = 24,
    seed: Seed = 0,
    root: Annotated[
        Path | None, typer.Option("--root", help="Folder of the images, if they have moved.")
    ] = None,
) -> None:
    """Draw a sheet of a store's faces with their boxes and points."""
    from ..extract.preview import preview
    from ..features.store import CodeStore

    with CodeStore(store) as opened:
        opened.check_content()
        drawn = preview(opened, out, count=count, seed=seed, root=root)
    print(f"{out}: {drawn} faces")


def import_(
    root: Root,
    kind: Annotated[str, typer.Option("--from", help="smirk-json, emoca-npy or csv.", show_default=False)],
    codes: Annotated[
        Path, typer.Option("--codes", help="Folder of the codes, or the table.", show_default=False)
    ],
    out: OutStore,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            help="Of a CSV without block names: expression:50,pose:3 or pose:pose_R*; -:4 leaves 4 out.",
        ),
    ] = None,
    dataset: Dataset = "folder",
    manifest: Manifest = None,
    split: SplitShares = None,
    split_seed: SplitSeed = 0,
    groups: Groups = None,
    label_map: LabelMap = None,
) -> None:
    """Make a store of codes that you already have; rows are aligned to a dataset by id."""
    from ..extract.imports import import_codes

    samples = list_dataset(root, dataset, manifest, split, split_seed, groups, label_map)
    rows = import_codes(samples, kind, codes, out, columns=columns, say=say)
    print(f"{out}: {len(samples)} rows ({counts(rows)})")


def export(
    store: Store,
    csv: Annotated[Path | None, typer.Option("--csv", help="Table to write.", callback=output_file)] = None,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", help="Table to write.", callback=output_file)
    ] = None,
    npz: Annotated[Path | None, typer.Option("--npz", help="Arrays to write.", callback=output_file)] = None,
    blocks: Annotated[
        list[str] | None, typer.Option("--blocks", help="By comma or repeated; all by default.")
    ] = None,
) -> None:
    """Write a store's samples and codes as a table that other programs read."""
    from ..features.store import CodeStore
    from ..features.store.export import export_store

    wanted = {".csv": csv, ".parquet": parquet, ".npz": npz}
    if not any(wanted.values()):
        raise UsageError("export: expected --csv, --parquet or --npz, got none")
    for suffix, path in wanted.items():
        if path is not None and path.suffix.lower() != suffix:
            raise UsageError(
                f"export: expected a name that ends in {suffix} after --{suffix[1:]}, got {path}"
            )
    with CodeStore(store) as opened:
        opened.check_content()
        for path in filter(None, wanted.values()):
            rows = export_store(opened, path, blocks=None if blocks is None else names(blocks))
            print(f"{path}: {rows} rows")
