"""Benchmark of the vectorised bootstrap against a loop that calls scikit-learn's metrics for every draw.

    python benchmarks/bench_intervals.py [--rows 4000] [--classes 8] [--rules 20] [--draws 10000] [--loop 20]

Both resample rows and compute accuracy, balanced accuracy, macro-F1 and log loss of every rule. The loop runs only a
few draws and is scaled up. CPU times per draw are compared, which depend little on other programs.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss

from ig3d.learn.evaluate.figures import figures_of
from ig3d.learn.evaluate.intervals import bootstrap_sums
from ig3d.learn.evaluate.metrics import metrics_of, own_statistics, shared_statistics
from ig3d.learn.evaluate.predictors import Predictor


def predictions(labels: np.ndarray, k: int, rules: int) -> list[np.ndarray]:
    """Log-probabilities of rules, each slightly better than the one before."""
    random = np.random.default_rng(0)
    values = []
    for rule in range(rules):
        logits = random.normal(size=(len(labels), k))
        logits[np.arange(len(labels)), labels] += 1 + 0.05 * rule
        values.append(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    return values


def plain_loop(values: list[np.ndarray], labels: np.ndarray, draws: int) -> float:
    """Seconds of a loop over draws and rules."""
    random, k = np.random.default_rng(0), values[0].shape[1]
    probabilities = [np.exp(logs) for logs in values]
    start = time.process_time()
    for _ in range(draws):
        rows = random.integers(0, len(labels), len(labels))
        for p in probabilities:
            predicted, true = p[rows].argmax(axis=1), labels[rows]
            accuracy_score(true, predicted)
            balanced_accuracy_score(true, predicted)
            f1_score(true, predicted, average="macro", zero_division=0)
            log_loss(true, p[rows], labels=np.arange(k))
    return time.process_time() - start


def vectorised(values: list[np.ndarray], labels: np.ndarray, draws: int) -> float:
    """Seconds of the same metrics, computed from sums of per-row statistics."""
    k = values[0].shape[1]
    start = time.process_time()
    shared = shared_statistics(labels, "classes", k)
    own = [own_statistics(logs, labels, "classes") for logs in values]
    (sums,) = bootstrap_sums([np.hstack([shared, *own])], draws=draws, seed=0)
    width, first = own[0].shape[1], shared.shape[1]
    for index in range(len(own)):
        columns = slice(first + index * width, first + (index + 1) * width)
        metrics_of(sums[:, :first], sums[:, columns], "classes")
    return time.process_time() - start


def everything(values: list[np.ndarray], labels: np.ndarray, draws: int) -> float:
    """Seconds of a full table: BCa intervals, differences to two references, tests, recalls, complementarity."""
    kinds = ["reference"] * 3 + ["rule"] * (len(values) - 3)
    names = ["2d", "2d-recalibrated", "3d", *(f"rule-{index}" for index in range(3, len(values)))]
    rules = tuple(
        Predictor(name, kind, name == "2d-recalibrated", logs)
        for name, kind, logs in zip(names, kinds, values, strict=True)
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
    print(f"{args.rows} rows, {args.classes} classes, {args.rules} rules, {args.draws} draws; CPU time")
    print(f"plain loop   {1000 * loop:9.1f} ms per draw   {loop * args.draws:9.1f} s (scaled up)")
    print(f"vectorised   {1000 * fast / args.draws:9.3f} ms per draw   {fast:9.2f} s")
    print(f"ratio        {loop * args.draws / fast:9.0f}")
    seconds = everything(values, labels, args.draws)
    print(f"whole table with intervals, differences, tests and recalls: {seconds:.2f} s")


if __name__ == "__main__":
    main()
