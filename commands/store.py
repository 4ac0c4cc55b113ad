"""``ig3d inspect``, ``preview``, ``import`` and ``export``: commands on one store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..console import counts, say, stdout, steps, working
from ..errors import UsageError, plural
from .options import (
    Dataset,
    Groups,
    LabelMap,
    Manifest,
    OutStore,
    Root,
    RowIds,
    Seed,
    SplitSeed,
    SplitShares,
    Store,
    list_dataset,
    names,
    output_file,
    report_reasons,
)


def inspect(
    store: Store,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Read all values and check the hash; exit 1 if a value was changed."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Summarise a store."""
    from ..features.store import CodeStore
    from ..features.store.summary import print_summary, summarise

    with working("inspect"), CodeStore(store) as opened:
        if verify:
            opened.check_content()
        summary = summarise(opened)
    if as_json:
        print(json.dumps(summary | ({"verified": True} if verify else {}), indent=1))
        return
    print_summary(summary, stdout())
    if verify:
        print("verified: no value was changed")


def preview(
    store: Store,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="Picture to write (.png or .jpg), or animation (.gif, .webp; .mp4 with PyAV).",
            show_default=False,
            callback=output_file,
        ),
    ],
    rows: RowIds = None,
    count: Annotated[
        int,
        typer.Option("--count", help="Number of rows, chosen at random, some of them without codes."),
    ] = 24,
    seed: Seed = 0,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            help="Side of a picture in pixels, 100 to 1000. Default: larger if there are few, 300 in animations.",
            show_default=False,
            rich_help_panel="Output",
        ),
    ] = None,
    mesh: Annotated[
        bool,
        typer.Option(
            "--mesh", help="Draw meshes instead of contours; FLAME codes are always drawn as meshes."
        ),
    ] = False,
    animate: Annotated[
        bool, typer.Option("--animate", help="One frame per row, next to its codes as curves.")
    ] = False,
    fps: Annotated[
        float | None,
        typer.Option(
            "--fps",
            help="Frames per second of an animation; by default the speed of the video, or 2 for images.",
            show_default=False,
            rich_help_panel="Output",
        ),
    ] = None,
    renderer: Annotated[
        str, typer.Option("--renderer", help="Renderer of the meshes: built-in or pytorch3d.")
    ] = "built-in",
    root: Annotated[
        Path | None, typer.Option("--root", help="Folder of the images, if they have moved.")
    ] = None,
) -> None:
    """Draw a contact sheet of faces with boxes and contours or meshes, or an animation of a video's rows."""
    from ..extract.preview import preview
    from ..extract.preview_animation import animate as write_animation
    from ..features.store import CodeStore
    from ..features.store.rows import rows_of

    if fps is not None and not animate:
        raise UsageError("preview: --fps applies to animations; pass --animate, or omit it")
    if mesh and animate:
        raise UsageError("preview: --mesh applies to sheets, as animations have meshes; omit it or --animate")
    with CodeStore(store) as opened:
        opened.check_content()
        chosen = None if rows is None else rows_of(opened, names(rows))
        if animate:
            with steps("preview", len(opened) if chosen is None else len(chosen)) as progress:
                frames = write_animation(
                    opened,
                    out,
                    rows=chosen,
                    fps=fps,
                    size=size,
                    root=root,
                    renderer=renderer,
                    progress=progress,
                )
            print(f"{out}: {plural(frames, 'frame')}")
            return
        faces, without_codes = preview(
            opened,
            out,
            count=count,
            seed=seed,
            root=root,
            rows=chosen,
            size=size,
            mesh=mesh,
            renderer=renderer,
        )
    drawn = [plural(faces, "face")] if faces else []
    drawn += [f"{plural(without_codes, 'row')} without codes"] if without_codes else []
    print(f"{out}: {', '.join(drawn)}")


def import_(
    root: Root,
    kind: Annotated[
        str,
        typer.Option("--from", help="Format: smirk-json, emoca-npy, emica-npy or csv.", show_default=False),
    ],
    codes: Annotated[
        Path, typer.Option("--codes", help="Folder of the codes, or the table.", show_default=False)
    ],
    out: OutStore,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            help="Blocks of a CSV without block names: expression:50,pose:3 or pose:pose_R*; -:4 skips 4 columns.",
        ),
    ] = None,
    dataset: Dataset = "folder",
    manifest: Manifest = None,
    split: SplitShares = None,
    split_seed: SplitSeed = 0,
    groups: Groups = None,
    label_map: LabelMap = None,
) -> None:
    """Write a store from existing codes; rows are aligned to a dataset by id."""
    from ..extract.imports import import_codes

    samples = list_dataset(root, dataset, manifest, split, split_seed, groups, label_map)
    with working("import"):
        rows = import_codes(samples, kind, codes, out, columns=columns, notify=say)
    print(f"{out}: {plural(len(samples), 'row')} ({counts(rows)})")
    report_reasons(out, rows)


def export(
    store: Store,
    csv: Annotated[Path | None, typer.Option("--csv", help="Table to write.", callback=output_file)] = None,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", help="Table to write.", callback=output_file)
    ] = None,
    npz: Annotated[Path | None, typer.Option("--npz", help="Arrays to write.", callback=output_file)] = None,
    obj: Annotated[
        Path | None, typer.Option("--obj", help="Folder for one mesh file (.obj) per row.", metavar="DIR")
    ] = None,
    ply: Annotated[
        Path | None, typer.Option("--ply", help="Folder for one mesh file (.ply) per row.", metavar="DIR")
    ] = None,
    rows: RowIds = None,
    blocks: Annotated[
        list[str] | None,
        typer.Option("--blocks", help="Blocks in a table, separated by commas or repeated; all by default."),
    ] = None,
    smoothing: Annotated[
        float | None,
        typer.Option(
            "--smooth",
            help="Smooth the codes in a table over time in each video: standard deviation in seconds, such as 0.2.",
        ),
    ] = None,
    frontal: Annotated[bool, typer.Option("--frontal", help="Write meshes without head rotation.")] = False,
) -> None:
    """Write a store's samples and codes as a table, or its faces as meshes."""
    from ..extract.meshes import write_meshes
    from ..features.store import CodeStore
    from ..features.store.export import export_store
    from ..features.store.rows import rows_of

    tables = {".csv": csv, ".parquet": parquet, ".npz": npz}
    folders = {".obj": obj, ".ply": ply}
    if not any((tables | folders).values()):
        raise UsageError("export: nothing to write; pass --csv, --parquet, --npz, --obj or --ply")
    if not any(tables.values()) and (blocks or smoothing is not None):
        option = "--blocks" if blocks else "--smooth"
        raise UsageError(
            f"export: {option} applies to tables, not to meshes; pass --csv, --parquet or --npz, or omit it"
        )
    if frontal and not any(folders.values()):
        raise UsageError("export: --frontal applies to meshes; pass --obj or --ply, or omit it")
    for folder in folders.values():
        if folder is not None and folder.is_file():
            raise UsageError(f"export: {folder} is a file; meshes are written to a folder")
    for suffix, path in tables.items():
        if path is not None and path.suffix.lower() != suffix:
            raise UsageError(
                f"export: {path} does not end in {suffix}, which --{suffix[1:]} needs; rename it"
            )
    with CodeStore(store) as opened:
        opened.check_content()
        chosen = None if rows is None else rows_of(opened, names(rows))
        total = len(opened) if chosen is None else len(chosen)
        for path in filter(None, tables.values()):
            wanted = None if blocks is None else names(blocks)
            with steps("export", total) as progress:
                count = export_store(
                    opened, path, blocks=wanted, rows=chosen, smoothing=smoothing, progress=progress
                )
            print(f"{path}: {plural(count, 'row')}")
        for suffix, folder in folders.items():
            if folder is not None:
                with steps("export", total) as progress:
                    count = write_meshes(
                        opened, folder, suffix=suffix, rows=chosen, frontal=frontal, progress=progress
                    )
                omitted = f"; {plural(total - count, 'row')} without codes left out" if count < total else ""
                print(f"{folder}: {plural(count, 'mesh file')}{omitted}")
