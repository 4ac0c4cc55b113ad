"""Cells of a study: one whose worker dies stops no other, and a head of the user's own is known by its code."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from sklearn.linear_model import LogisticRegression
from toy_fusion import CLASSES, make_table, store_of

from ig3d.features.predictions import Predictions
from ig3d.learn.ablation import Study, run_study, write_study
from ig3d.workers import MOST_DEATHS

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
    for number in range(MOST_DEATHS + 1):
        (lives / str(number)).touch()
    hit = run_study(study, tmp_path / "hit", jobs=2)
    assert [of.error for of in hit.cells] == [
        f"its worker died {MOST_DEATHS} times (out of memory? --jobs 1 runs one cell at a time)",
        "",
    ]
    # the cell that is left, alone, and dying once more
    hit = run_study(study, tmp_path / "hit", jobs=2)
    assert hit.kept == 1 and not any(of.error for of in hit.cells)
    assert not any(lives.iterdir())
    write_study(hit, tmp_path / "hit")
    assert whole(tmp_path / "hit") == whole(tmp_path / "calm")
