"""A result as a run makes it, with nothing fitted, for tests of reports."""

from __future__ import annotations

import html.parser
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from ig3d.learn.config import FITTED_METRICS, FuseConfig
from ig3d.learn.evaluate.figures import figures_of
from ig3d.learn.evaluate.metrics import metric_names
from ig3d.learn.evaluate.predictors import Predictor
from ig3d.learn.result import Result

HOSTILE = '<script>alert("x")</script> & 100 % of $a_b^{c}$ \\input{/etc/passwd} ~#'


def made(task="classes", *, classes=("happy", "sad", "anger"), gain=1.0, seed=0, n=240, groups=None):
    """A 2D network, a 3D head on most rows, and rules that gain from it."""
    rng = np.random.default_rng(0)
    covered = np.arange(n) % 8 > 0
    noise = np.random.default_rng(seed)
    if task == "classes":
        truth = rng.integers(0, len(classes), n)

        def values(strength):
            logits = noise.normal(size=(n, len(classes)))
            logits[np.arange(n), truth] += strength
            return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    else:
        classes = ()
        truth = rng.uniform(-1, 1, (n, 2))

        def values(strength):
            return np.clip(0.4 * strength * truth + noise.normal(0, 0.3, truth.shape), -1, 1)

    three = values(0.8)
    three[~covered] = np.nan
    rules = (
        Predictor("2d", "reference", False, values(1.0)),
        Predictor("2d-recalibrated", "reference", True, values(1.0), ({"penalty": 0.1},)),
        Predictor("3d", "reference", False, three),
        Predictor("mean", "rule", False, values(1.0 + gain)),
        Predictor("weighted", "rule", True, values(1.0 + gain), ({"w": 0.25}, {"w": 0.35})),
        Predictor("weighted", "control", True, values(1.0), ({"w": 0.01}, {"w": 0.0}), condition="permuted"),
    )
    family = FITTED_METRICS["accuracy" if task == "classes" else "rmse"]
    figures = figures_of(
        rules, truth, covered, groups, task=task, classes=classes, draws=200, seed=0, family=family
    )
    protocol = SimpleNamespace(
        head_fitting="once",
        report_name="the test split",
        fit_name="val",
        reported=np.arange(n),
        calibration=np.arange(100),
        left_out=0,
        record=lambda: {"heads": [{"fitted_on": {"rows": 150}}], "rules": [{"heads_for_applying": [0]}]},
        sentences=("Reported: the test split.", "Rules fitted on val, 100 rows."),
    )
    ids = np.array([f"a/{row:04d}" for row in range(n)])
    return Result(
        task=task,
        classes=classes,
        ids=ids,
        truth=truth,
        covered=covered,
        group_names=None if groups is None else np.char.add("p", groups.astype(str)),
        predictors=rules,
        figures=figures,
        plan=protocol,
        config=FuseConfig(rules=("mean", "weighted"), primary="weighted", draws=200),
        notes=("two.npz: joined by id", "WARNING made up"),
        sources={"2d": "two.npz"},
    )


def with_predictors(shown, predictors, *, primary=None, covered=None, references=("2d-recalibrated", "2d")):
    """A result over other predictors, its figures measured anew."""
    covered = shown.covered if covered is None else covered
    names = [of.name for of in predictors if of.role == "rule" and of.name != "selected"]
    figures = figures_of(
        predictors, shown.truth, covered, shown.groups, task=shown.task, classes=shown.classes, draws=200, seed=0,
        family=metric_names(shown.task), references=references,
    )  # fmt: skip
    config = FuseConfig(draws=200, primary=primary or names[-1]) if names else shown.config
    return replace(shown, predictors=tuple(predictors), figures=figures, covered=covered, config=config)


class Page(html.parser.HTMLParser):
    """Tags and text of a page, and whether its tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.attributes = [], [], [], []
        self.feed(text)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
