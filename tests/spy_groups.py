"""Records which rows of a table every fit, inner fold and held-out part sees, at every level of a run."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager

import numpy as np

from ig3d.learn import heads as head_table
from ig3d.learn.heads import gbm, linear, paper
from ig3d.learn.rules import boost, calibrate, gate, over_both, selected, stack, weighted

RULES = {
    "weighted": weighted.Weighted,
    "stack": stack.Stack,
    "boost": boost.Boost,
    "gate": gate.Gate,
    "selected": selected.Selected,
    "over both": over_both.OverBoth,
    "calibrate": calibrate.Calibrated,
}
HEADS = {
    "gbm": (gbm.GbmClassifier, gbm.GbmRegressor),
    "linear": (linear.LinearClassifier, linear.LinearRegressor),
    "paper": (paper.MlpClassifier, paper.MlpRegressor),
}
assert set(head_table.HEADS) == {"gbm", "linear", "mlp", "residual"}


class Recorder:
    """Rows by place: ``rule stack``, ``stack: inner fold``, ``head gbm``, ``gbm: not held out``, ...

    Rows of predictions are recognised up to a shift and a scale, which calibration changes; rows of codes as they are.
    """

    def __init__(self, table):
        self.table = table
        self.fits = defaultdict(list)
        self.tested = defaultdict(list)  # (fitted, evaluated) rows
        self.current = []
        self.by_two = {key: row for row, key in enumerate(self._keys(table.two_d))}
        self.by_codes = {row.tobytes(): number for number, row in enumerate(np.float32(table.codes))}
        second = table.others.get("second")
        self.by_second = {} if second is None else {key: row for row, key in enumerate(self._keys(second))}
        known = np.isfinite(table.two_d).all(axis=1)
        assert len([key for key in self.by_two if key[0] == key[0]]) >= known.sum()

    def _keys(self, values):
        values = np.asarray(values, np.float64)
        if self.table.task == "classes":
            values = values - values.mean(axis=1, keepdims=True)
            values = values / values.std(axis=1, keepdims=True)
        return [tuple(row) for row in np.round(values, 5) + 0.0]

    def rows_of(self, values):
        """Rows of the table by 2D scores (logits, log-probabilities, calibrated) or values."""
        return np.array([self.by_two[key] for key in self._keys(values)], np.intp)

    def rows_of_columns(self, columns):
        """Rows by 2D scores; with a second network by its scores, which then name the stack of both."""
        if columns.second_2d is None:
            return self.rows_of(columns.scores_2d)
        rows = np.array([self.by_second[key] for key in self._keys(columns.second_2d)], np.intp)
        self.by_two |= dict(zip(self._keys(columns.scores_2d), rows.tolist(), strict=True))
        return rows

    def rows_of_codes(self, values):
        return np.array([self.by_codes[row.tobytes()] for row in np.float32(values)], np.intp)

    @contextmanager
    def within(self, place, rows):
        self.fits[place].append(rows)
        self.current.append(rows)
        try:
            yield
        finally:
            self.current.pop()

    def install(self, monkeypatch):
        self._spy_rules(monkeypatch)
        self._spy_inner(monkeypatch)
        self._spy_heads(monkeypatch)
        stack._RECALIBRATED.clear()
        return self

    def _spy_rules(self, monkeypatch):
        for name, kind in RULES.items():

            def fit(rule, columns, y, groups=None, *, name=name, original=kind.fit):
                rows = self.rows_of_columns(columns)
                assert len(y) == len(rows) and np.array_equal(y, self.table.truth[rows])
                if groups is not None:
                    assert np.array_equal(groups, self.table.group_codes[rows]), f"{name} got other groups"
                with self.within(f"rule {name}", rows):
                    return original(rule, columns, y, groups=groups)

            monkeypatch.setattr(kind, "fit", fit)

    def _spy_inner(self, monkeypatch):
        """Folds, held-out parts and the solvers of the rules."""
        for name, module in (("stack", stack), ("gate", gate), ("selected", selected)):

            def folds(y, task, groups, count, seed, *, name=name, original=module.inner_folds):
                fold = original(y, task, groups, count, seed)
                if fold is not None:
                    assert set(fold) == set(range(count))
                    for held in range(count):
                        self.fits[f"{name}: inner fold"].append(self.current[-1][fold != held])
                return fold

            monkeypatch.setattr(module, "inner_folds", folds)
        for name, module in (("boost", boost), ("gbm", gbm), ("linear", linear), ("paper", paper)):

            def held_out(strata, groups, parts, seed, *, name=name, original=module.held_out):
                held = original(strata, groups, parts, seed)
                if held.any():
                    self.fits[f"{name}: not held out"].append(self.current[-1][~held])
                return held

            monkeypatch.setattr(module, "held_out", held_out)
        for name, module in (("boost", boost), ("gbm", gbm)):

            def grow(settings, X, y, held, *, name=name, original=module.grow, **options):
                self.fits[f"{name}: trees"].append(self.current[-1][~held])
                assert len(X) == len(self.current[-1]) == len(held)
                if name == "boost":  # the start of the trees has not seen the rows that stop them
                    assert np.array_equal(self.fits["rule stack"][-1], self.current[-1][~held])
                return original(settings, X, y, held, **options)

            monkeypatch.setattr(module, "grow", grow)

        solve, losses = stack.Stack._solved, stack.Stack._losses
        corrected = stack.corrected
        inside = []

        def solved(rule, x, bases, y, *options):
            rows = self.rows_of(bases[0])
            self.fits["stack: solver"].append(rows)
            if inside:
                inside[-1] = rows
            return solve(rule, x, bases, y, *options)

        def in_losses(rule, *arguments):
            inside.append(None)
            try:
                return losses(rule, *arguments)
            finally:
                inside.pop()

        def evaluated(x, bases, *solution):
            if inside:
                self.tested["stack"].append((inside[-1], self.rows_of(bases[0])))
            return corrected(x, bases, *solution)

        monkeypatch.setattr(stack.Stack, "_solved", solved)
        monkeypatch.setattr(stack.Stack, "_losses", in_losses)
        monkeypatch.setattr(stack, "corrected", evaluated)

        descend, loss_of = gate.Gate._descend, gate.Gate._loss
        last = {"rows": None, "inside": False}
        logs = (lambda values: values) if self.table.task == "va" else np.log

        def descended(rule, z, two, three, y, penalty):
            last.update(rows=self.rows_of(logs(two)), inside=True)
            self.fits["gate: solver"].append(last["rows"])
            try:
                return descend(rule, z, two, three, y, penalty)
            finally:
                last["inside"] = False

        def loss(rule, two, three, y):
            if not last["inside"]:
                self.tested["gate"].append((last["rows"], self.rows_of(logs(two))))
            return loss_of(rule, two, three, y)

        monkeypatch.setattr(gate.Gate, "_descend", descended)
        monkeypatch.setattr(gate.Gate, "_loss", loss)

        held_by = selected.Selected._held_out

        def of_candidate(rule, candidate, columns, y, groups, fold):
            rows = self.rows_of_columns(columns)
            for held in set(fold):
                self.tested["selected"].append((rows[fold != held], rows[fold == held]))
            return held_by(rule, candidate, columns, y, groups, fold)

        monkeypatch.setattr(selected.Selected, "_held_out", of_candidate)

    def _spy_heads(self, monkeypatch):
        for name, kinds in HEADS.items():
            for kind in kinds:

                def fit(head, X, y, groups=None, *, name=name, original=kind.fit, **more):
                    rows = self.rows_of_codes(X)
                    if groups is not None:
                        assert np.array_equal(groups, self.table.group_codes[rows])
                    with self.within(f"head {name}", rows):
                        return original(head, X, y, groups=groups, **more)

                monkeypatch.setattr(kind, "fit", fit)

    def check(self, pool):
        """Every fit holds whole groups of ``pool``, a mask by what is fitted: ``rule`` or ``head``."""
        codes, splits = self.table.group_codes, self.table.split
        for place, fits in self.fits.items():
            kind = "head" if any(name in place for name in HEADS) else "rule"
            for rows in fits:
                assert len(np.unique(rows)) == len(rows), place
                among = pool[kind] & np.isin(splits, splits[rows]) & np.isin(codes, codes[rows])
                assert np.array_equal(np.sort(rows), np.flatnonzero(among)), f"{place}: a group is torn apart"
        for place, pairs in self.tested.items():
            for fitted, evaluated in pairs:
                assert not np.isin(codes[evaluated], codes[fitted]).any(), f"{place}: evaluated on its group"
                assert len(evaluated)
