"""The protocol in words, as a paragraph for the experimental section of a paper: only what this run did.

record -> sentences, in the order in which a reviewer asks: rows, rules and what they are fitted on and for, the head,
rows without codes, references, controls, intervals and tests, and who may have seen what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...errors import number
from ..config import FuseConfig
from ..evaluate.intervals import EXPANDED_BELOW
from ..rules import RECALIBRATED
from .record import seed_of
from .words import (
    FITTED_FOR,
    TITLES,
    grouped,
    has_2d,
    is_intermediate,
    leaks_in_words,
    names_of,
    objective_of,
    trainings,
    units,
)

CONDITIONAL = "-conditional"
_ON = ("mean", "max", "weighted")  # what --on is of
_EQUAL = " with all classes weighing the same"
_BLOCKS = {"full": "all code blocks", "short": "the short set of code blocks"}


def paragraph(record: dict[str, Any]) -> str:
    """The protocol in words, for the experimental section of a paper."""
    protocol = record["protocol"]
    rows, covered = protocol["rows_reported"], protocol["rows_covered"]
    codes = "all of them" if covered == rows else f"{covered} of them"
    said = [
        f"All figures are on the {rows} labelled rows of {protocol['reported']}, {codes} with {_three(record)}."
    ]
    if is_intermediate(record):
        said += _module(record)
    elif has_2d(record):
        said += [
            *_rules(record),
            *_repeated(record),
            *_head(record),
            *_without_codes(record),
            *_compared(record),
        ]
    else:
        said += _heads(record)
    said += _intervals(record)
    if protocol["rows_left_out"]:
        said.append(f"{number(protocol['rows_left_out'], 'row')} without a 2D prediction are left out.")
    text = " ".join(said) + leaks_in_words(record)
    return f"{text} Made with ig3d {record['versions'].get('ig3d', '')}."


def _three(record: dict[str, Any]) -> str:
    return "3D predictions" if record["protocol"]["case"] == "ready" else "3D codes"


def _config(record: dict[str, Any]) -> dict[str, Any]:
    """The choices of the run; what it does not name is as it is by default."""
    return asdict(FuseConfig()) | record["config"]


def _listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _rules(record: dict[str, Any]) -> list[str]:
    """Which rules there are, what they are fitted on and for, and what is done before them."""
    config, protocol = _config(record), record["protocol"]
    names = names_of(record, "rule")
    if not names:
        return []
    classes = record["task"] == "classes"
    details = {
        "weighted": f"a weight per {'class' if classes else 'dimension'}"
        if config["weights"] == "per-class"
        else "",
        "stack": "which sees the standardised codes beside both predictions" if config["stack_codes"] else "",
        "best": "which chooses among rules by inner folds of its fitting rows",
    }
    told = [f"{name} ({details[name]})" if details.get(name) else name for name in names]
    said = [f"Fusion {'rules are' if len(names) > 1 else 'is by the rule'} {_listed(told)}."]
    on = [name for name in names if name in _ON]
    if classes and config["on"] == "logits" and on:
        said[0] = f"{said[0][:-1]}; {_listed(on)} {'work' if len(on) > 1 else 'works'} on logits."
    fixed = [name for name in names if not record["rules"][name]["fits"]]
    fitted = [name for name in names if name not in fixed]
    who = (
        "What is fitted, the recalibrated 2D network included,"
        if fixed
        else "Rules and the recalibrated 2D network"
    )
    if not fitted:
        who = "Only the recalibrated 2D network"
    text = f"{who} {'are' if not fixed else 'is'} fitted {_where(protocol, config)}"
    said.append(text + (f", for {_objective(record, fitted)}." if fitted else "."))
    if fixed:
        said[0] = f"{said[0][:-1]}; {_listed(fixed)} {'fit' if len(fixed) > 1 else 'fits'} nothing."
    if config["calibrate"] != "none":
        what = "a temperature" + (" and an offset per class" if config["calibrate"] == "bias" else "")
        equal = _EQUAL if objective_of(record) == "balanced" else ""
        said.append(
            f"Before each, both predictions are calibrated by {what}, fitted by log loss{equal} on the same rows."
        )
    return said


def _where(protocol: dict[str, Any], config: dict[str, Any]) -> str:
    """The rows that rules are fitted on."""
    rows = number(protocol["rows_calibration"], "row")
    drawn = (
        f", at most {config['calibration_rows']} of a fit drawn by the seed"
        if config["calibration_rows"]
        else ""
    )
    if protocol["fitted_on_reported"]:
        return f"on the reported rows themselves ({rows}{drawn}), so that their figures are optimistic"
    if len(protocol["fits"].get("rules", ())) > 1:
        whole = ", which keep groups whole" if protocol["groups_reported"] is not None else ""
        return f"in {protocol['fitted_on']} ({rows}{drawn}){whole}, each row fused by what the other folds fitted"
    return f"on {protocol['fitted_on']} ({rows}{drawn}), never on a row that they are measured on"


def _repeated(record: dict[str, Any]) -> list[str]:
    """How often rules were cross-fitted."""
    repeated = {
        name: len(part["log_loss" if record["task"] == "classes" else "rmse_joint"]["repeats"])
        for name in names_of(record, "rule", "reference")
        if (part := record["results"][name]["all"])
        and "repeats" in part["log_loss" if record["task"] == "classes" else "rmse_joint"]
    }
    if not repeated:
        return []
    count = max(repeated.values())
    return [f"Figures of {_listed(list(repeated))} are means over {count} cross-fittings with other folds."]


def _objective(record: dict[str, Any], fitted: Sequence[str]) -> str:
    """What rules are fitted for, and by which loss those for which the metric has no slope."""
    objective, classes = objective_of(record), record["task"] == "classes"
    named = FITTED_FOR[objective]
    smooth_weights = classes and _config(record)["weights"] == "per-class"
    searched = [name for name in fitted if name == "best" or (name == "weighted" and not smooth_weights)]
    others = [name for name in fitted if name not in searched]
    by = {
        "accuracy": "log loss",
        "balanced": f"log loss{_EQUAL}",
        "ccc": "squared error with mean and spread then matched to the truth (gate by 1 - CCC)"
        if "gate" in fitted
        else "squared error with mean and spread then matched to the truth",
    }.get(objective)
    if by is None or not others:
        return named
    return f"{named} ({_listed(searched)} by itself, the others by {by})" if searched else f"{named}, by {by}"


def _head(record: dict[str, Any]) -> list[str]:
    """What the 3D predictions come from, and which rows taught it."""
    config, protocol = _config(record), record["protocol"]
    if "3d" not in record["rules"]:
        return []
    if protocol["case"] == "ready":
        return ["3D predictions are taken as given; which rows they were learnt from is not known here."]
    fits = protocol["fits"]
    here = {head for rule in fits.get("rules", ()) for head in rule["heads_here"]}
    counts = sorted({fits["heads"][head]["fitted_on"]["rows"] for head in here})
    rows = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(*counts) if counts else "the"
    fitted = {
        "once": f"fitted once, on {rows} train rows with codes",
        "nested": f"fitted in each fold on the {rows} rows with codes of the other folds; rules are fitted to its "
        "inner out-of-fold predictions",
        "out-of-fold": f"fitted on {rows} rows with codes; rules are fitted to its out-of-fold predictions",
    }[protocol["case"]]
    if protocol["fitted_on_reported"] and protocol["case"] != "once":
        fitted = (
            f"out of fold: each row's is of a head fitted on the {rows} rows with codes of the other folds"
        )
    return [f"3D predictions come from the head {config['head']} on {_blocks(config)}, {fitted}."]


def _blocks(config: dict[str, Any]) -> str:
    return _BLOCKS.get(config["blocks"], f"the code blocks {config['blocks']}")


def _without_codes(record: dict[str, Any]) -> list[str]:
    """What stands in for a fused prediction where there is nothing to fuse."""
    protocol = record["protocol"]
    without = protocol["rows_reported"] - protocol["rows_covered"]
    if not without:
        return []
    rules = [record["rules"][name]["fits"] for name in names_of(record, "rule")]
    told = {
        (True,): "take the recalibrated 2D network's prediction",
        (False,): "take the 2D network's prediction",
        (False, True): "take the 2D network's prediction, recalibrated where the rule fits anything",
    }.get(tuple(sorted(set(rules))), "have no 3D prediction")
    return [
        f"The {number(without, 'reported row')} without {_three(record)} {told}, and such rows take no part in fitting "
        "rules."
    ]


def _compared(record: dict[str, Any]) -> list[str]:
    """The references and the controls."""
    said = []
    if record["references"]:
        said.append(f"We compare with {_listed(record['references'])}.")
    if RECALIBRATED in record["rules"]:
        before = " after the same calibration" if _config(record)["calibrate"] != "none" else ""
        said.append(
            f"{RECALIBRATED} is a stack with the 3D columns left out, fitted on the same rows{before}; 2d is the "
            "network as given."
        )
    controls = names_of(record, "control")
    if any("+" not in name and not name.endswith(CONDITIONAL) for name in controls):
        said.append(
            "As a control every rule is repeated with the rows of the codes permuted, among those it is fitted on and "
            "among those it is applied to."
        )
    others = list(dict.fromkeys(name.partition("+")[2] for name in controls if "+" in name))
    if others:
        said.append(f"As a further control {_listed(others)} stands in place of the 3D predictions.")
    return said


def _primary(record: dict[str, Any]) -> list[str]:
    """The primary comparison, where its control was run."""
    primary = record["primary"]
    if not any(name.endswith(CONDITIONAL) for name in record["rules"]):
        return []
    return [
        f"The primary comparison, fixed beforehand, is of {primary['rule']} in {TITLES[primary['metric']]} with each "
        f"reference and with itself under {_config(record)['permutations']} permutations of the codes among rows with "
        "similar 2D predictions; each has to be beaten at the 5 % level."
    ]


def _heads(record: dict[str, Any]) -> list[str]:
    """Codes alone: which heads learnt from which rows, and what they are compared with."""
    protocol, names = record["protocol"], names_of(record, "head")
    if not names:
        return []
    rows = number(protocol["rows_calibration"], "row")
    fitted = f"on {protocol['fitted_on']} ({rows}), never on a row that they predict"
    said = [
        f"The {'heads' if len(names) > 1 else 'head'} {_listed(names)} {'learn' if len(names) > 1 else 'learns'} from "
        f"{_blocks(_config(record))} {fitted}."
    ]
    if record["config"].get("balanced"):
        said[0] = f"{said[0][:-1]},{_EQUAL}."
    without = protocol["rows_reported"] - protocol["rows_covered"]
    if without:
        said.append(f"The {number(without, 'reported row')} without {_three(record)} take the prior.")
    if record["references"]:
        said.append(
            f"We compare with {_listed(record['references'])}; prior is what the fitting rows say of any row."
        )
    return said


def _intervals(record: dict[str, Any]) -> list[str]:
    """What is resampled, how often, and what is tested."""
    if units(record) == 1:
        what = "All reported rows are of one group" if grouped(record) else "There is one row"
        return [f"{what}, so that there are no intervals and no tests."]
    unit = "groups" if grouped(record) else "rows"
    what = " (persons or videos)" if grouped(record) else ""
    said = [
        f"Intervals are 95 % intervals of a paired bootstrap over {units(record)} {unit}{what} "
        f"({record['config'].get('draws')} draws, seed {seed_of(record)}; "
        + (
            "expanded percentile intervals"
            if units(record) < EXPANDED_BELOW
            else "BCa for figures, percentile for differences"
        )
        + "), conditional on the trained networks."
    ]
    if record["references"]:
        several = record["task"] == "va" or trainings(record) > 1
        exact = "" if grouped(record) or several else " (for accuracy McNemar's exact test)"
        adjusted = (
            "; those of the exploratory table are adjusted by the bootstrap maximum over all its differences in "
            "metrics that something was fitted for"
        )
        said.append(
            f"p-values are of two-sided tests that swap the predictions of two systems at random by {unit}{exact}"
            f"{'' if is_intermediate(record) else adjusted}."
        )
    return said


def _module(record: dict[str, Any]) -> list[str]:
    """Intermediate fusion: what was trained, on what, and what it is compared with."""
    config, fits = record["config"], record["protocol"]["fits"]
    seeds = config["seeds"]
    said = [
        f"The module {config['module']} joins the 3D codes to the features of the 2D network; it is fitted on "
        f"{fits['train']} train rows (at most {config['epochs']} epochs of AdamW, peak learning rate {config['lr']:g}, "
        f"batches of {config['batch_size']}), and the epoch is chosen on {fits['validation']} rows that are not "
        "reported."
    ]
    if "masked" in record["rules"]:
        given = ", and with the 2D network as given" if "2d" in record["rules"] else ""
        said += [
            "We compare with the same module, steps and seeds with every code block masked, so that training more is "
            f"not credited to the codes{given}.",
            "As a control the rows of the codes are permuted within the train, validation and other rows.",
        ]
    if len(seeds) > 1:
        named = f"seeds {', '.join(map(str, seeds))}"
        said.append(f"Figures are means over {len(seeds)} trainings ({named}), not those of an ensemble.")
    return said
