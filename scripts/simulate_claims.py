"""Simulation of the claims: rate of false claims, power, and coverage of the intervals.

Data sets are drawn with known truth and given to ``ig3d fuse`` as ready predictions; docs/statistics.md has the table.

    python scripts/simulate_claims.py --datasets 200 --out simulation    # resumes where it was stopped
    python scripts/simulate_claims.py --datasets 6 --check               # small and seeded, for make check-full

Seven classes with the shares of RAF-DB. The 2D network sees x = mu e_y + noise and is over-confident by a factor of
2.5. The cells differ in the 3D predictions. In groups (persons), 30 % of the variance of the
noise is between groups, group sizes are uneven (log-normal), and class shares differ between groups.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binom, binomtest
from threadpoolctl import threadpool_limits

from ig3d.features.fusion_table import FusionTable
from ig3d.features.samples import Split
from ig3d.learn.config import FuseConfig
from ig3d.learn.evaluate.figures import figure
from ig3d.learn.evaluate.metrics import measure
from ig3d.learn.fuse import FuseResult, fuse_predictions
from ig3d.learn.report import run_of
from ig3d.learn.report.findings import findings_of
from ig3d.learn.report.view import View
from ig3d.learn.rules import RECALIBRATED, Columns

CLASSES = ("happy", "neutral", "sad", "surprise", "anger", "disgust", "fear")
PRIOR = np.array([0.386, 0.222, 0.156, 0.107, 0.053, 0.052, 0.024])
STRENGTH, OVERCONFIDENCE, BETWEEN = 1.8, 2.5, 0.3
POPULATION = 40_000
# AffectNet's validation rows with the predictions of the Ig3D authors. For valence and arousal: standard deviation of
# the truth (arousal: assumed), RMSE and CCC of the 2D network (CAGE) and of the 3D codes (EMOCA), correlation of the
# errors.
AFFECTNET = ((0.466, 0.3377, 0.7180, 0.3389, 0.6860, 0.827), (0.37, 0.3077, 0.6448, 0.3120, 0.5915, 0.806))
MAX_FALSE, MIN_POWER, COVERAGE = 0.06, 0.80, (0.92, 0.97)
UNLIKELY = 1e-3  # --check fails for results that are less likely than this if the targets are just met
FOLD_SEEDS = 20


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting.

    Attributes
    ----------
    three : ``noise``, ``copy`` (a better calibrated copy of the 2D predictions), ``noisy`` (such a copy with noise),
        ``information``, or ``affectnet`` (moments of the Ig3D authors' predictions)
    two_networks : whether there is a second 2D network; copies are then of this one, and the claim is that the 3D adds
        beyond both
    n, calibration : reported rows; rows of the split that rules are fitted on, 0 for folds of the reported rows
    groups : number of persons among the reported rows, 0 for independent rows
    strength : of the information
    task : ``classes`` or ``va``
    """

    three: str
    n: int = 1000
    calibration: int = 400
    groups: int = 0
    strength: float = 1.0
    task: str = "classes"
    two_networks: bool = False

    @property
    def null(self) -> bool:
        """Whether a claim is false."""
        return self.three in ("noise", "copy", "noisy")


CELLS = {
    "noise, n = 1,000": Cell("noise"),
    "noise, n = 3,000": Cell("noise", n=3000, calibration=1000),
    "noise, 10 groups": Cell("noise", groups=10),
    "noise, in folds, n = 400": Cell("noise", n=400, calibration=0),
    "calibrated copy, n = 3,000": Cell("copy", n=3000, calibration=1000),
    "noisy copy, n = 1,000": Cell("noisy"),
    "VA copy, n = 1,000": Cell("copy", task="va"),
    "weak, n = 1,000": Cell("information"),
    "weak, in folds, n = 1,000": Cell("information", calibration=0),
    "weak, 10 groups": Cell("information", groups=10),
    "weak, 50 groups": Cell("information", groups=50),
    "strong, n = 1,000": Cell("information", strength=1.6),
    "two networks, noise": Cell("noise", two_networks=True),
    "two networks, copy of the second": Cell("copy", two_networks=True),
    "two networks, noisy copy": Cell("noisy", two_networks=True),
    "two networks, weak": Cell("information", two_networks=True),
    "AffectNet VA moments, in folds": Cell("affectnet", n=3991, calibration=0, task="va"),
}


def covariance(
    spread: float, rmse_2d: float, ccc_2d: float, rmse_3d: float, ccc_3d: float, errors: float
) -> np.ndarray:
    """(3, 3) covariance of truth, 2D and 3D predictions without bias, from RMSE, CCC and the errors' correlation."""
    total = np.array([rmse_2d, rmse_3d]) ** 2 / (
        1 - np.array([ccc_2d, ccc_3d])
    )  # var(truth) + var(prediction)
    with_truth = np.array([ccc_2d, ccc_3d]) * total / 2
    between = errors * rmse_2d * rmse_3d + with_truth.sum() - spread**2
    two, three = total - spread**2
    return np.array(
        [[spread**2, *with_truth], [with_truth[0], two, between], [with_truth[1], between, three]]
    )


AFFECTNET_COVARIANCES = [covariance(*moments) for moments in AFFECTNET]


def draw(
    cell: Cell, n: int, groups: np.ndarray | None, random: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Truth, 2D scores and 3D scores of n rows, maybe scores of a second 2D network.

    Groups are (n,) int, None for independent rows.
    """
    if cell.three == "affectnet":
        values = np.stack(
            [np.clip(random.multivariate_normal(np.zeros(3), of, n), -1, 1) for of in AFFECTNET_COVARIANCES]
        )
        return values[..., 0].T, values[..., 1].T, values[..., 2].T
    if cell.task == "va":
        truth = np.tanh(0.55 * random.normal(size=(n, 2)) + [0.15, 0.1])
        two = np.clip(truth + 0.05 + 0.4 * random.normal(size=(n, 2)), -1, 1)
        return truth, two, 0.1 + 0.5 * (two - 0.1)  # the same values, halved
    k = len(CLASSES)
    prior, log_prior = PRIOR / PRIOR.sum(), np.log(PRIOR / PRIOR.sum())
    if groups is None:
        truth = random.choice(k, n, p=prior)
    else:
        shares = random.dirichlet(5 * prior, groups.max() + 1)
        truth = (random.random(n)[:, None] > np.cumsum(shares[groups], axis=1)).sum(axis=1).clip(0, k - 1)

    def noise() -> np.ndarray:
        single = random.normal(size=(n, k))
        if groups is None:
            return single
        shared = random.normal(size=(groups.max() + 1, k))[groups]
        return np.sqrt(1 - BETWEEN) * single + np.sqrt(BETWEEN) * shared

    signal, of_two = np.eye(k)[truth], noise()
    seen = STRENGTH * signal + of_two
    if cell.two_networks:  # their errors have a correlation of 0.6
        other = STRENGTH * signal + 0.6 * of_two + 0.8 * noise()
        three = {
            "noise": noise(),
            "copy": STRENGTH * other,
            "noisy": STRENGTH * other + 0.5 * noise(),
            "information": signal + 0.3 * of_two + np.sqrt(1 - 0.3**2) * noise(),
        }[cell.three]
        two, second = (OVERCONFIDENCE * (STRENGTH * of + log_prior) for of in (seen, other))
        return truth, two, three + log_prior, second
    if cell.three == "copy":  # of a network that does not know the class shares
        return truth, OVERCONFIDENCE * STRENGTH * seen, STRENGTH * seen + log_prior
    two = OVERCONFIDENCE * (STRENGTH * seen + log_prior)
    if cell.three == "noisy":
        return truth, two, STRENGTH * (seen + noise()) + log_prior
    if cell.three == "noise":
        return truth, two, noise() + log_prior
    also = cell.strength * signal + 0.3 * of_two + np.sqrt(1 - 0.3**2) * noise()
    return truth, two, cell.strength * also + log_prior


def persons(n: int, count: int, random: np.random.Generator) -> np.ndarray:
    """(n,) int persons of uneven size, each with a row at least."""
    weights = random.lognormal(0, 1, count)
    further = random.choice(count, n - count, p=weights / weights.sum())
    return random.permutation(np.concatenate([np.arange(count), further]))


def table_of(cell: Cell, random: np.random.Generator) -> FusionTable:
    """A data set of a cell: reported rows, and those of the val split, of other persons."""
    sizes = [cell.n] + ([cell.calibration] if cell.calibration else [])
    parts, names, splits = [], [], []
    for number, size in enumerate(sizes):
        groups = persons(size, cell.groups, random) if cell.groups else None
        parts.append(draw(cell, size, groups, random))
        names.append(np.full(size, "") if groups is None else np.char.add(f"{number}-", groups.astype(str)))
        code = (Split.test, Split.val)[number] if cell.calibration else Split.none
        splits.append(np.full(size, int(code), np.int8))
    truth, two, three, *others = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    classes = cell.task == "classes"
    return FusionTable(
        task=cell.task,
        classes=CLASSES if classes else (),
        id=np.array([f"row{number:06d}" for number in range(len(two))]),
        group=np.concatenate(names),
        split=np.concatenate(splits),
        labels=truth.astype(np.int16) if classes else np.full(len(two), -1, np.int16),
        targets=np.full((len(two), 2), np.nan) if classes else truth,
        two_d=two,
        three_d=three,
        others={"second": others[0]} if others else {},
    )


def run(cell: Cell, table: FusionTable, seed: int, draws: int) -> tuple[FuseResult, dict]:
    """The result of a fusion and its findings."""
    config = FuseConfig(
        rules=("stack",),
        draws=draws,
        seed=seed,
        jobs=1,
        controls=not cell.two_networks,
        model=bool(cell.calibration) and not cell.two_networks,
    )
    result = fuse_predictions(table, config)
    return result, findings_of(View(run_of(result)))


def simulated(cell: Cell, seed: int, draws: int) -> dict:
    """One data set: the claim, and whether the intervals cover the truth."""
    random = np.random.default_rng([20261130, seed])
    result, findings = run(cell, table_of(cell, random), seed, draws)
    if cell.two_networks:
        (beyond,) = (of for of in findings["exploratory"] if of["code"] == "beyond_both")
        values = (of["value"] for of in beyond["comparisons"])
        return {
            "seed": seed,
            "claim": beyond["shown"],
            **dict(zip(("value", "value_2d"), values, strict=True)),
        }
    primary = findings["primary"]
    line = {
        "seed": seed,
        "claim": primary["claim"],
        "passes": [of["significant"] for of in primary["comparisons"]],
        "value": primary["comparisons"][0]["value"],
        "value_2d": primary["comparisons"][1]["value"],
    }
    if result.model is None:  # in folds, each fold has other rules: there is no single difference to cover
        return line
    # The truth of the fitted rules: their difference on a population of which each row is another person.
    groups = np.arange(POPULATION) if cell.groups else None
    truth, two, three = draw(cell, POPULATION, groups, random)
    columns = Columns(scores_2d=two, scores_3d=three)
    stack, alone = (
        measure(result.model.rules[name].apply(of), truth, cell.task)
        for name, of in (("stack", columns), (RECALIBRATED, columns.without_3d()))
    )
    line["covers"] = {}
    for name in (primary["metric"],) if cell.task == "va" else (primary["metric"], "accuracy"):
        gain = figure(result.figures, "stack", name, versus="2d-recalibrated")
        difference = stack[name] - alone[name]
        line["covers"][name] = bool(gain.low - 1e-9 <= difference <= gain.high + 1e-9)
    return line


def flips(seed: int, draws: int) -> int:
    """Number of fold seeds, of 20, with the rarer decision, on one weak data set without a split to fit on."""
    cell = Cell("information", n=1000, calibration=0)
    table = table_of(cell, np.random.default_rng([20261130, seed]))
    claims = [run(cell, table, fold_seed, draws)[1]["primary"]["claim"] for fold_seed in range(FOLD_SEEDS)]
    return min(sum(claims), FOLD_SEEDS - sum(claims))


def lines_of(path: Path) -> list[dict]:
    """Data sets that were simulated before; a line that was cut off is left out."""
    if not path.exists():
        return []
    finished = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            finished.append(json.loads(line))
        except ValueError:
            continue
    return finished


def summary(name: str, cell: Cell, lines: list[dict]) -> tuple[str, list[str]]:
    """A line of the table, and results that are unlikely if the targets are met."""
    n = len(lines)
    claims = sum(of["claim"] for of in lines)
    share = claims / n
    low, high = binomtest(claims, n).proportion_ci()
    failed = []
    if cell.null and binom.sf(claims - 1, n, MAX_FALSE) < UNLIKELY:
        failed.append(f"{name}: {claims} of {n} claims are false")
    if not (cell.null or cell.groups) and binom.cdf(claims, n, MIN_POWER) < UNLIKELY:
        failed.append(f"{name}: {claims} of {n} data sets give a claim")
    covers = []
    for metric in lines[0].get("covers", {}):
        covered = sum(of["covers"][metric] for of in lines)
        covers.append(f"{metric} {100 * covered / n:.0f} %")
        if metric != "rmse_joint" and binom.cdf(covered, n, COVERAGE[0]) < UNLIKELY:
            failed.append(f"{name}: {covered} of {n} intervals of {metric} cover the truth")
    changes = [np.mean([of[key] for of in lines]) for key in ("value", "value_2d")]
    kind = "false" if cell.null else "power"
    text = (
        f"{name:32} {n:4} data sets  {kind} {100 * share:5.1f} % [{100 * low:.1f}, {100 * high:.1f}]  mean change "
        f"{changes[0]:+.4f} (2d: {changes[1]:+.4f})  coverage {', '.join(covers) or '-'}"
    )
    return text, failed


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--datasets", type=int, default=200, help="data sets per cell")
    parser.add_argument("--cells", help="names, separated by semicolons; default: all")
    parser.add_argument("--out", type=Path, help="folder of finished data sets, to resume from")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument(
        "--fold-seeds", type=int, default=0, metavar="N", help="also run 20 fold seeds on N data sets"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 if the targets are unlikely to be met")
    chosen = parser.parse_args()
    with threadpool_limits(1):
        return simulate(chosen)


def simulate(chosen: argparse.Namespace) -> int:
    """Simulate the missing data sets and print the table; returns 1 if a check fails."""
    names = chosen.cells.split(";") if chosen.cells else list(CELLS)
    failed = []
    lines: dict[str, list[dict]] = {name: [] for name in names}
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        for position, name in enumerate(CELLS):
            if name in lines:
                lines[name] = lines_of(chosen.out / f"cell-{position}.jsonl")
    # all cells advance together, so that a run that is stopped has equally many data sets of each
    for seed in range(chosen.datasets):
        for name in names:
            if any(of["seed"] == seed for of in lines[name]):
                continue
            lines[name].append(simulated(CELLS[name], seed, chosen.draws))
            if chosen.out:
                path = chosen.out / f"cell-{list(CELLS).index(name)}.jsonl"
                with path.open("a", encoding="utf-8") as handle:
                    handle.write(json.dumps(lines[name][-1]) + "\n")
    for name in names:
        if lines[name]:
            text, wrong = summary(name, CELLS[name], lines[name])
            print(text, flush=True)
            failed += wrong
    if chosen.fold_seeds:
        each = [flips(seed, chosen.draws) for seed in range(chosen.fold_seeds)]
        print(f"claims that flip over {FOLD_SEEDS} fold seeds, by data set: {', '.join(map(str, each))}")
        failed += [f"{rarer} of {FOLD_SEEDS} fold seeds decide otherwise" for rarer in each if rarer > 1]
    for line in failed:
        print(f"unlikely: {line}", file=sys.stderr)
    return int(bool(failed) and chosen.check)


if __name__ == "__main__":
    sys.exit(main())
