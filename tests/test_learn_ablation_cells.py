"""Cells of a study: one whose worker dies stops no other, and a head of the user's own is known by its code."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from sklearn.linear_model import LogisticRegression
from toy_fusion import CLASSES, make_table, store_of

from ig3d import workers
from ig3d.errors import UsageError
from ig3d.features.predictions import Predictions
from ig3d.learn.ablation import Study, run_study, write_study
from ig3d.learn.evaluate.predictors import find

LIVES = "IG3D_TEST_LIVES"


class Mortal(LogisticRegression):
    """Kills its process as often as a folder named in the environment has files to take."""

    def fit(self, X, y):
        lives = sorted(Path(os.environ[LIVES]).iterdir())
        if lives:
            lives[0].unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(X, y)


@pytest.fixture
def options(tmp_path):
    """A store and a 2D file; the options of cells that are done quickly."""
    table = make_table(240)
    store_of(tmp_path / "y.h5", table)
    Predictions(table.two_d, "logits", CLASSES, table.id).save(tmp_path / "x.npz")
    return {
        "2d-logits": str(tmp_path / "x.npz"),
        "3d-store": str(tmp_path / "y.h5"),
        "rules": "mean",
        "draws": 100,
    }


def whole(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def test_a_cell_whose_worker_dies_stops_no_other_and_is_run_again(tmp_path, options, monkeypatch):
    lives = tmp_path / "lives"
    lives.mkdir()
    monkeypatch.setenv(LIVES, str(lives))
    heads = {"mortal": "test_learn_ablation_cells:Mortal", "linear": "linear"}
    study = Study("toy", options, {"head": heads})
    write_study(run_study(study, tmp_path / "calm", jobs=1), tmp_path / "calm")
    (lives / "one").touch()
    monkeypatch.setattr(workers, "MAX_DEATHS", 1)  # each costs the imports of a fresh worker
    hit = run_study(study, tmp_path / "hit", jobs=2)
    assert [of.error for of in hit.cells] == [
        "its worker died 3 times (out of memory? --jobs 1 runs one cell at a time)",
        "",
    ]
    assert not any(lives.iterdir())
    hit = run_study(study, tmp_path / "hit", jobs=1)
    assert hit.kept == 1 and not any(of.error for of in hit.cells)
    write_study(hit, tmp_path / "hit")
    assert whole(tmp_path / "hit") == whole(tmp_path / "calm")


OF_MINE = """
from mine_base import Base

class Mine(Base):
    strength = {strength}
"""
BASE = """
from sklearn.linear_model import LogisticRegression

class Base(LogisticRegression):
    def predict_proba(self, X):
        p = super().predict_proba(X) ** self.strength
        return p / p.sum(axis=1, keepdims=True)
"""


def test_a_head_of_ones_own_that_is_edited_is_fitted_again(tmp_path, options, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    study = Study("toy", {**options, "rules": "stack"}, {"head": {"mine": "mine:Mine"}})

    def kept(strength, base):
        for name, text in {"mine": OF_MINE.format(strength=strength), "mine_base": base}.items():
            (tmp_path / f"{name}.py").write_text(text)
            sys.modules.pop(name, None)
        ran = run_study(study, tmp_path / "out", jobs=1)
        return ran.kept, find(ran.cells[0].predictions().predictors, "3d").values.tobytes()

    none, first = kept(1, BASE)
    assert none == 0
    assert kept(1, BASE) == (1, first)
    again, other = kept(3, BASE)
    assert again == 0 and other != first, "neither the cell nor the head's scores are taken from before"
    again, base = kept(3, BASE.replace("self.strength", "0.5 * self.strength"))
    assert again == 0 and base not in (first, other)
    assert kept(1, BASE) == (1, first), "as it was before: what was kept is what it gives"


def test_missing_head_module_ends_a_study_before_any_work(tmp_path, options):
    study = Study("toy", options, {"head": {"linear": "linear", "mine": "nowhere:Mine"}})
    with pytest.raises(UsageError, match=r"^mine: head: the estimator 'nowhere:Mine' cannot be imported"):
        run_study(study, tmp_path / "out", jobs=1)
    assert not (tmp_path / "out").exists()
