"""The vectorised bootstrap against a plain loop that calls scikit-learn's metrics on every sample.

    python benchmarks/bench_intervals.py [--rows 4000] [--classes 8] [--rules 20] [--draws 10000] [--loop 20]

Both resample rows and take accuracy, balanced accuracy, macro-F1 and log loss of every rule. The loop runs a few draws
only and is scaled up; the ratio is of processor times for one draw, in one process, so that it holds on a busy machine.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss

from ig3d.learn.measures.figures import figures_of
from ig3d.learn.measures.intervals import bootstrap_sums
from ig3d.learn.measures.metrics import metrics_of, own_statistics, shared_statistics
from ig3d.learn.measures.results import RuleResult


def predictions(labels: np.ndarray, k: int, rules: int) -> list[np.ndarray]:
    """Log-probabilities of rules that are a little better one after the other."""
    random = np.random.default_rng(0)
    found = []
    for rule in range(rules):
        logits = random.normal(size=(len(labels), k))
        logits[np.arange(len(labels)), labels] += 1 + 0.05 * rule
        found.append(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    return found


def plain_loop(values: list[np.ndarray], labels: np.ndarray, draws: int) -> float:
    """Seconds of a loop over samples and rules."""
    random, k = np.random.default_rng(0), values[0].shape[1]
    p = [np.exp(of) for of in values]
    start = time.process_time()
    for _ in range(draws):
        rows = random.integers(0, len(labels), len(labels))
        for of in p:
            said, true = of[rows].argmax(axis=1), labels[rows]
            accuracy_score(true, said)
            balanced_accuracy_score(true, said)
            f1_score(true, said, average="macro", zero_division=0)
            log_loss(true, of[rows], labels=np.arange(k))
    return time.process_time() - start


def vectorised(values: list[np.ndarray], labels: np.ndarray, draws: int) -> float:
    """Seconds of the same figures from summed statistics."""
    k = values[0].shape[1]
    start = time.process_time()
    shared = shared_statistics(labels, "classes", k)
    own = [own_statistics(of, labels, "classes") for of in values]
    (sums,) = bootstrap_sums([np.hstack([shared, *own])], draws=draws, seed=0)
    width, first = own[0].shape[1], shared.shape[1]
    for place in range(len(own)):
        of = slice(first + place * width, first + (place + 1) * width)
        metrics_of(sums[:, :first], sums[:, of], "classes")
    return time.process_time() - start


def everything(values: list[np.ndarray], labels: np.ndarray, draws: int) -> float:
    """Seconds of all that a table has: BCa, differences to two references, swap tests, recalls, complementarity."""
    kinds = ["reference"] * 3 + ["rule"] * (len(values) - 3)
    names = ["2d", "2d-recalibrated", "3d", *(f"rule-{place}" for place in range(3, len(values)))]
    rules = tuple(
        RuleResult(name, kind, name == "2d-recalibrated", of)
        for name, kind, of in zip(names, kinds, values, strict=True)
    )
    start = time.process_time()
    figures_of(rules, labels, np.ones(len(labels), bool), None, task="classes", draws=draws, seed=0)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in {"rows": 4000, "classes": 8, "rules": 20, "draws": 10_000, "loop": 20}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    labels = np.random.default_rng(1).integers(0, args.classes, args.rows)
    values = predictions(labels, args.classes, args.rules)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loop = plain_loop(values, labels, args.loop) / args.loop
    fast = min(vectorised(values, labels, args.draws) for _ in range(3))
    print(f"{args.rows} rows, {args.classes} classes, {args.rules} rules, {args.draws} draws; processor time")
    print(f"plain loop   {1000 * loop:9.1f} ms a draw   {loop * args.draws:9.1f} s (scaled up)")
    print(f"vectorised   {1000 * fast / args.draws:9.3f} ms a draw   {fast:9.2f} s")
    print(f"ratio        {loop * args.draws / fast:9.0f}")
    whole = everything(values, labels, args.draws)
    print(f"whole table with intervals, differences, tests and recalls: {whole:.2f} s")


if __name__ == "__main__":
    main()
