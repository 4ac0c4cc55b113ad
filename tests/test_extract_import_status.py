"""Rows of imported tables without valid codes: by the columns for status, success and confidence, under any name."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
from conftest import colour_folder
from listed import samples_of

from ig3d.extract.datasets import list_samples
from ig3d.extract.imports import import_codes
from ig3d.features.store import CodeStore
from ig3d.features.values import Status


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return list_samples(colour_folder(tmp_path_factory.mktemp("data"), 3), "folder")


@pytest.mark.parametrize(
    ("name", "good", "bad", "status"),
    [
        ("success", 1.0, 0.0, Status.no_face),
        ("success", 1, -1, Status.no_face),
        ("success", "1", "", Status.no_face),
        ("Detected", True, False, Status.no_face),
        ("face_found", "yes", "n", Status.no_face),
        ("isValid", 1, 0, Status.no_face),
        ("FaceScore", 0.99, 0.1, Status.no_face),
        ("det_score", 0.99, np.nan, Status.no_face),
        ("confidence", 98.0, 3.0, Status.no_face),
        ("status", "OK", "No face", Status.no_face),
        ("status", "success", "not found", Status.no_face),
        ("Status", "ok", "error", Status.failed),
        ("status", "ok", "timeout", Status.failed),
    ],
)
def test_a_row_that_its_tracker_calls_invalid_has_no_codes(tmp_path, samples, name, good, bad, status):
    frame = pandas.DataFrame(
        {"file": [sample.path for sample in samples_of(samples)], name: good, "pose:0": 0.0}
    )
    frame[name] = [bad if row in (1, 4) else good for row in range(6)]
    frame.to_csv(tmp_path / "codes.csv", index=False)
    import_codes(samples, "csv", tmp_path / "codes.csv", tmp_path / "a.h5")
    with CodeStore(tmp_path / "a.h5") as store:
        found = store.status
        assert np.flatnonzero(found == status).tolist() == [1, 4] and (found == Status.ok).sum() == 4
        assert np.isnan(store.codes("pose")[[1, 4]]).all()
        assert list(store.blocks) == ["pose"]
