"""``ig3d extract``, ``ig3d join`` and ``ig3d synth``: images to codes, and synthetic faces."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import counting, counts, kept_when_interrupted, say, working
from ..errors import UsageError, plural
from .options import (
    Dataset,
    Device,
    FramesPerSecond,
    Groups,
    LabelMap,
    Manifest,
    OutStore,
    Root,
    Seed,
    SplitSeed,
    SplitShares,
    list_dataset,
    names,
    report_reasons,
)

if TYPE_CHECKING:
    from ..extract.config import ExtractConfig
    from ..features.samples import Listing


def extract(
    root: Root,
    out: OutStore,
    dataset: Dataset = "folder",
    regressor: Annotated[
        str,
        typer.Option(
            "--regressor", help="Regressor: facemesh, smirk, emoca, deca, ... (docs/regressors.md)."
        ),
    ] = "facemesh",
    detector: Annotated[
        str | None,
        typer.Option(
            "--detector",
            help="Face detector: facemesh, facemesh-smirk, sfd, sfd-box, or none (the full image is the face). By "
            "default the first available one of the regressor's list.",
        ),
    ] = None,
    boxes: Annotated[
        str,
        typer.Option(
            "--boxes",
            help="Source of face boxes: dataset (detect if it has none), none (always detect), or the file of an "
            "earlier store.",
        ),
    ] = "dataset",
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            help="Optional blocks to compute as well, separated by commas or repeated (facemesh: landmarks).",
        ),
    ] = None,
    manifest: Manifest = None,
    split: SplitShares = None,
    split_seed: SplitSeed = 0,
    groups: Groups = None,
    label_map: LabelMap = None,
    fps: FramesPerSecond = None,
    faces: Annotated[
        str,
        typer.Option("--faces", help="If an image has several faces: largest, or all (one row each)."),
    ] = "largest",
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs",
            help="Worker processes on the CPU, or processes that read images for the GPUs; 0: one per core. With dask "
            "or ray: workers; 0: all of the cluster.",
        ),
    ] = 0,
    backend: Annotated[
        str, typer.Option("--backend", help="Executor of the workers: loky (local processes), dask or ray.")
    ] = "loky",
    address: Annotated[
        str | None,
        typer.Option(
            "--address", help="Address of a running dask or ray cluster; by default one is started."
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            "--part", help="K/N: extract only part K of N (K from 1 to N); ig3d join merges the parts."
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", help="Faces per call of the regressor; by default 32, or 256 on a GPU."),
    ] = None,
    device: Device = "auto",
    precision: Annotated[
        str, typer.Option("--precision", help="Precision of the regressor: fp32, fp64, bf16, fp16.")
    ] = "fp32",
    restart: Annotated[
        bool,
        typer.Option(
            "--restart",
            help="Extract everything again. The old store is kept until the new one is complete. After an "
            "interruption, the same command continues.",
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Repeat the shards (blocks of rows) that contain failed rows."),
    ] = False,
) -> None:
    """Compute the 3D codes of a dataset and write a store; the same command resumes an interrupted run."""
    from ..extract.config import ExtractConfig
    from ..extract.run import extract_codes, rows_of_part

    if faces not in ("largest", "all"):
        raise UsageError(f"faces: {faces!r} is unknown; choose largest or all")
    share = None if part is None else _part(part)
    samples = list_dataset(root, dataset, manifest, split, split_seed, groups, label_map, fps)
    config = ExtractConfig(
        regressor=regressor,
        detector=detector,
        also=names(also or []),
        batch_size=batch_size,
        device=device,
        precision=precision,
        boxes=boxes,
    )
    if faces == "all":
        samples = _every_face(samples, config, jobs)
    rows = len(samples if share is None else samples.samples[rows_of_part(share, len(samples))])
    with kept_when_interrupted("finished shards"), counting("extract", rows) as progress:
        summary = extract_codes(
            samples,
            out,
            config,
            jobs=jobs,
            backend=backend,
            address=address,
            part=share,
            restart=restart,
            retry_failed=retry_failed,
            progress=progress,
            notify=say,
        )
    if not summary.seconds:
        say("the store of this run is already complete" + (" and has no failed row" if retry_failed else ""))
    elif retry_failed:
        say(f"kept {plural(summary.resumed, 'row')} of shards without failed rows")
    elif summary.resumed:
        say(f"resumed an interrupted run: {plural(summary.resumed, 'row')} already finished")
    print(f"{summary.store}: {plural(rows, 'row')} ({counts(summary.counts)})")
    report_reasons(summary.store, summary.counts)


def _every_face(samples: Listing, config: ExtractConfig, jobs: int) -> Listing:
    """Samples of all faces, one per face."""
    from ..extract.every_face import list_faces

    with counting("faces", len(samples)) as progress:
        samples = list_faces(samples, config, jobs=jobs, progress=progress)
    for note in samples.notes:
        say(note)
    return samples


def synth(
    out: Annotated[Path, typer.Argument(help="New folder for the faces.", metavar="OUT", show_default=False)],
    count: Annotated[int, typer.Option("--count", help="Number of faces, train and test together.")] = 1000,
    size: Annotated[
        int, typer.Option("--size", help="Side of the images in pixels.", rich_help_panel="Output")
    ] = 224,
    test_share: Annotated[float, typer.Option("--test-share", help="Share of test faces.")] = 0.25,
    seed: Seed = 0,
    jobs: Annotated[int, typer.Option("--jobs", help="Worker processes; 0 is one per core.")] = 0,
) -> None:
    """Draw labelled synthetic faces in RAF-DB's layout, with their ground-truth codes."""
    from joblib import cpu_count

    from ..faces.synth import SynthConfig, synthesize

    config = SynthConfig(count=count, size=size, seed=seed, test_share=test_share, jobs=jobs or cpu_count())
    with counting("synth", count) as progress:
        synthesize(out, config, progress=lambda done: progress(Counter(drawn=done)))
    print(
        f"{out}: {plural(count, 'synthetic face')} in RAF-DB's layout (--dataset rafdb), true codes in codes.csv"
    )


def join(
    parts: Annotated[
        list[Path],
        typer.Argument(
            help="Stores of extract --part, or folders of shards.", metavar="PARTS...", show_default=False
        ),
    ],
    out: OutStore,
) -> None:
    """Merge the parts of a dataset into one store, identical to that of a single run."""
    from ..extract.join import join_parts

    with working("join"):
        joined = join_parts(parts, out)
    print(f"{out}: {plural(sum(joined.values()), 'row')} ({counts(joined)})")


def _part(text: str) -> tuple[int, int]:
    k, _, n = text.partition("/")
    if not (k.isdecimal() and n.isdecimal()):
        raise UsageError(f"part: cannot read {text!r}; write K/N, such as 3/8")
    return int(k), int(n)
