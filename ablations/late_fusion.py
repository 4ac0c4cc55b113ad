"""Ablation studies of late fusion: rule, code group, representation, head, 2D network, calibration and its size.

    python ablations/late_fusion.py --2d-logits x.npz --3d-store y.h5 --out results

runs every study that the files allow; --study selects studies. Several --3d-store are compared alone and together;
several --2d-logits are different networks. All studies share one folder of cells, so finished cells are not run again.
The table, heat map and LaTeX table of a study are in results/STUDY. If a cell fails, the exit code is 1.
"""

from __future__ import annotations

import sys
from itertools import accumulate
from pathlib import Path
from typing import Annotated

import typer

from ig3d.console import say, stdout, steps
from ig3d.errors import Ig3dError, RunError, UsageError
from ig3d.features.blocks import NOT_FEATURES, named_sets
from ig3d.features.store import CodeStore
from ig3d.learn.ablation import Study, print_study, run_study, write_study
from ig3d.learn.heads import HEADS

# Groups of codes in the order in which they are added; groups that a store does not have are skipped.
GROUPS = ("expression", "jaw", "eyelid", "pose", "shape", "blendshapes")


def by_rule(two_d: list[str], stores: list[str]) -> Study:
    """Study of fusion rules."""
    return Study("Late fusion by rule", {"2d-logits": two_d[0], "3d-store": stores})


def by_group(two_d: list[str], stores: list[str]) -> Study:
    """Study of code groups: groups are added one by one, then the sets of the paper."""
    with CodeStore(stores[0]) as store:
        blocks, sets = list(store.blocks), named_sets(list(store.blocks), store.named_sets)
    groups = [name for name in GROUPS if name in blocks] or [
        name for name in blocks if name not in NOT_FEATURES
    ]
    cumulative = accumulate(([name] for name in groups), lambda names, name: names + name)
    values = {("+ " if len(names) > 1 else "") + names[-1]: ",".join(names) for names in cumulative}
    values |= {name: name for name in reversed(sets) if ",".join(sets[name]) not in values.values()}
    return Study(
        "Late fusion by code group", {"2d-logits": two_d[0], "3d-store": stores[0]}, {"blocks": values}
    )


def by_representation(two_d: list[str], stores: list[str]) -> Study:
    """Study of regressors: each store alone, then all together."""
    _several(stores, "--3d-store")
    values: dict[str, str | list[str]] = {Path(store).stem: store for store in stores}
    values[" + ".join(values)] = stores
    return Study("Late fusion by representation", {"2d-logits": two_d[0]}, {"3d-store": values})


def by_head(two_d: list[str], stores: list[str]) -> Study:
    """Study of heads on the codes."""
    options = {"2d-logits": two_d[0], "3d-store": stores}
    return Study("Late fusion by head", options, {"head": {name: name for name in HEADS}})


def by_network(two_d: list[str], stores: list[str]) -> Study:
    """Study of 2D networks; in each cell the other networks are controls."""
    _several(two_d, "--2d-logits")
    values = {Path(file).stem: [file, *(other for other in two_d if other != file)] for file in two_d}
    return Study("Late fusion by 2D network", {"3d-store": stores}, {"2d-logits": values})


def by_calibration(two_d: list[str], stores: list[str]) -> Study:
    """Study of the calibration of both predictors before fusion."""
    options = {"2d-logits": two_d[0], "3d-store": stores}
    return Study(
        "Late fusion by calibration",
        options,
        {"calibrate": {name: name for name in ("none", "temperature", "bias")}},
    )


def by_calibration_size(two_d: list[str], stores: list[str]) -> Study:
    """Study of the number of rows on which a rule is fitted."""
    options = {"2d-logits": two_d[0], "3d-store": stores}
    sizes = {str(size): size for size in (50, 100, 200, 500, 1000)}
    return Study(
        "Late fusion by calibration size",
        options,
        {"calibration-rows": {**sizes, "all": None}},
        reference={"calibration-rows": "all"},
    )


STUDIES = {
    "rule": by_rule,
    "group": by_group,
    "representation": by_representation,
    "head": by_head,
    "network": by_network,
    "calibration": by_calibration,
    "calibration-size": by_calibration_size,
}


def _several(files: list[str], option: str) -> None:
    if len(files) < 2:
        raise UsageError(f"{option} is given once; this study compares two or more")


def main(
    two_d: Annotated[list[Path], typer.Option("--2d-logits", help="2D predictions; the first is the base.")],
    stores: Annotated[list[Path], typer.Option("--3d-store", help="Stores of the same samples.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")],
    studies: Annotated[
        list[str] | None, typer.Option("--study", help=f"Study to run: {', '.join(STUDIES)}. Default: all.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", help="Cells to run in parallel; 0 is one per core.")] = 0,
) -> None:
    """Run the studies and print their tables."""
    cells, failed = 0, 0
    for name in studies or STUDIES:
        if name not in STUDIES:
            raise UsageError(f"study: there is no {name!r}; choose one of {', '.join(STUDIES)}")
        try:
            study = STUDIES[name](list(map(str, two_d)), list(map(str, stores)))
        except UsageError as error:
            if studies:
                raise
            say(f"study {name} is left out: {error}")
            continue
        with steps(study.name, len(study.cells), delay=0) as progress:
            result = run_study(study, out / name, shared=out, jobs=jobs, progress=progress)
        write_study(result, out / name, command=" ".join(sys.argv))
        print_study(result, stdout())
        cells, failed = cells + len(result.cells), failed + len(result.failed)
    if failed:
        raise RunError(f"{failed} of {cells} cells failed; the tables above give the reasons")


if __name__ == "__main__":
    try:
        typer.run(main)
    except Ig3dError as error:
        say(f"late_fusion: {error}")
        sys.exit(error.exit_code)
