"""Options that are declared once: on the command line, in study files and in the record; rules in one file."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_fusion import CLASSES, make_table, store_of

from ig3d.errors import UsageError
from ig3d.features.predictions import Predictions
from ig3d.learn.config import FuseConfig, HeadsConfig
from ig3d.learn.fuse import fuse_predictions
from ig3d.learn.options import options_of
from ig3d.learn.rules import RULES, kind_of, options_of_rule, rule_options

ROOT = Path(__file__).parent.parent
FAST = FuseConfig(rules=("mean",), head="linear", draws=100, jobs=1, controls=False, model=False)

OWN_RULE = '''
from ig3d.learn.rules import Rule


class Own(Rule):
    """The prediction of one source.

    Parameters
    ----------
    third : bool
        Take the 3D prediction.
    """

    fits = False

    def __init__(self, *, task="classes", third: bool = False):
        self.task = task
        self.third = third

    def apply(self, columns):
        return columns.scores_3d if self.third else columns.scores_2d
'''


@pytest.fixture
def files(tmp_path):
    table = make_table(90, missing=0)
    store_of(tmp_path / "y.h5", table)
    Predictions(table.two_d, "logits", CLASSES, table.id).save(tmp_path / "x.npz")
    return ("--2d-logits", tmp_path / "x.npz", "--3d-store", tmp_path / "y.h5")


def fitted_in(record, name):
    """Fitted parameters of the first fold model of a rule."""
    return next(of for of in record["predictors"] if (of["name"], of["condition"]) == (name, "real"))[
        "fitted"
    ][0]


@pytest.mark.parametrize("kind", [FuseConfig, HeadsConfig])
def test_every_option_has_help_and_a_default_of_its_type(kind):
    for option in options_of(kind, skip=("rule_options",)):
        assert option.help.endswith(".") and "``" not in option.help, option
        assert option.checked(option.default) == option.default


def test_every_option_of_a_rule_has_help_and_a_default_of_its_type():
    options = [option for name in RULES for option in options_of_rule(name)]
    assert {"stack.codes", "weighted.per_class", "threshold.confidence"} <= {
        option.name for option in options
    }
    for option in options:
        assert option.help and option.checked(option.default) == option.default, option


def test_options_of_rules_are_read_from_text_and_checked():
    values = {"stack.codes": "yes", "boost.max_rounds": "20", "threshold.confidence": "margin"}
    found = rule_options(values, text=True)
    assert found == {
        "stack": {"codes": True},
        "boost": {"max_rounds": 20},
        "threshold": {"confidence": "margin"},
    }
    for wrong, message in {
        "stack.codes=2": "stack.codes: '2' is not true or false",
        "boost.max_rounds=x": "boost.max_rounds: 'x' is not a whole number",
        "threshold.confidence=odds": "threshold.confidence: 'odds' does not exist; choose top or margin",
        "stack.code=1": "'stack.code' is unknown; choose stack.codes",
        "codes=1": "'codes' is unknown; choose .*stack.codes",
        "nothing.codes=1": "rules: 'nothing' is unknown; choose among mean",
        "stack.task=va": "'stack.task' is unknown",
    }.items():
        name, _, value = wrong.partition("=")
        with pytest.raises(UsageError, match=message):
            rule_options({name: value}, text=True)
    with pytest.raises(UsageError, match="'yes' is not true or false"):
        rule_options({"stack.codes": "yes"})


def test_an_option_of_a_rule_reaches_the_record_and_the_study(files, ig3d, tmp_path):
    quick = ("--draws", 100, "--jobs", 1, "--head", "linear", "--rules", "weighted", "--no-controls")
    ended = ig3d("fuse", *files, *quick, "--set", "weighted.per_class=true", "--out", tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert record["config"]["rule_options"] == {"weighted": {"per_class": True}}
    assert len(fitted_in(record, "weighted")["w"]) == 3
    again = ig3d(
        "fuse",
        *files,
        *quick,
        "--rule",
        "stack",
        "--weights",
        "per-class",
        "--stack-codes",
        "--out",
        tmp_path / "again",
    )
    assert again.returncode == 0, again.stderr
    record = json.loads((tmp_path / "again" / "record.json").read_text())
    assert record["config"]["rule_options"] == {"stack": {"codes": True}, "weighted": {"per_class": True}}
    for words in (["--stack-codes"], ["--set", "boost.max_rounds=9"]):
        ended = ig3d("fuse", *files, *quick, *words)
        assert ended.returncode == 2 and "have no effect with --rules weighted" in ended.stderr
    ended = ig3d("fuse", *files, *quick, "--weights", "two")
    assert ended.returncode == 2 and "weights: 'two' is unknown; choose one or per-class" in ended.stderr
    ended = ig3d("fuse", *files, *quick, "--set", "weighted.per-class")
    assert ended.returncode == 2 and "set: 'weighted.per-class' is not OPTION=VALUE" in ended.stderr
    (tmp_path / "study.yaml").write_text(
        "options: {rules: weighted, head: linear, draws: 100, controls: false}\n"
        "grid: {weighted.per_class: [false, true]}\n"
    )
    ended = ig3d("ablate", tmp_path / "study.yaml", *files, "--out", tmp_path / "study", "--jobs", 1)
    assert ended.returncode == 0, ended.stderr
    records = [json.loads(path.read_text()) for path in (tmp_path / "study" / "cells").glob("*/record.json")]
    counts = sorted(np.size(fitted_in(record, "weighted")["w"]) for record in records)
    assert counts == [1, 3]


def test_threshold_is_fused_and_reported_when_it_is_named(files, ig3d, tmp_path):
    quick = (
        "--draws",
        100,
        "--permutations",
        2,
        "--jobs",
        1,
        "--head",
        "linear",
        "--rules",
        "threshold,stack",
    )
    ended = ig3d("fuse", *files, *quick, "--out", tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    assert "threshold" in ended.stdout
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert 0 < fitted_in(record, "threshold")["threshold"] <= 1
    ended = ig3d(
        "predict",
        tmp_path / "out" / "model.skops",
        *files,
        "--rule",
        "threshold",
        "--out",
        tmp_path / "p.csv",
    )
    assert ended.returncode == 0, ended.stderr


def test_a_rule_of_a_user_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "own_rule.py").write_text(OWN_RULE)
    monkeypatch.syspath_prepend(tmp_path)
    config = replace(
        FAST, rules=("own_rule:Own", "mean"), rule_options=rule_options({"own_rule:Own.third": True})
    )
    result = fuse_predictions(make_table(90), replace(config, model=True))
    by_name = {of.name: of for of in result.predictors if of.condition == "real"}
    covered = result.covered
    own, three = (by_name[name].values[covered].argmax(axis=1) for name in ("own_rule:Own", "3d"))
    assert np.array_equal(own, three)
    assert result.model is None and any("no model is saved" in note for note in result.lines)
    with pytest.raises(UsageError, match=r"is not a subclass of ig3d\.learn\.rules\.Rule"):
        kind_of("collections:Counter")
    with pytest.raises(UsageError, match="'own_rule:Other' cannot be imported"):
        fuse_predictions(make_table(90), replace(FAST, rules=("own_rule:Other",)))


def test_the_tables_of_options_in_docs_are_current():
    script = ROOT / "scripts" / "option_tables.py"
    ended = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
