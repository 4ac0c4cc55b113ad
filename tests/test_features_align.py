"""Ids are aligned to samples by the strictest level that fits all of them, and only one-to-one."""

from __future__ import annotations

import numpy as np
import pytest

from ig3d.errors import PredictionsError
from ig3d.features.align import align, align_or_raise, choose_id_column, find_rows
from ig3d.features.samples import sample_table

IDS = ["test/happy/1", "test/happy/2", "test/sad/1", "train/sad/3"]


@pytest.fixture
def samples():
    return sample_table({"id": IDS, "path": [f"{name}.jpg" for name in IDS]})


@pytest.mark.parametrize("kind", [str, bytes])
def test_rows_of_keys_that_are_unique(kind):
    among = np.array(["b", "a", "c", "a"]).astype(kind)
    rows, several = find_rows(np.array(["c", "a", "x", "b", "c"]).astype(kind), among)
    assert rows.tolist() == [2, -1, -1, 0, 2] and several.tolist() == [False, True, False, False, False]
    assert find_rows(among, among[:0])[0].tolist() == [-1] * 4


@pytest.mark.parametrize(
    ("spell", "level"),
    [
        (str, "id"),
        (lambda name: f".\\{name}.jpg", "path"),
        (lambda name: f"{name}.PNG", "id without suffix"),
        (lambda name: f"/data/me/{name}.jpg", "path without 2 leading folders"),
    ],
)
def test_all_users_get_one_report(samples, spell, level):
    order = [2, 0, 3, 1]
    ids = np.array([spell(IDS[row]) for row in order])
    alignment = align_or_raise(ids, samples, source="x.csv", to="y.h5")
    assert alignment.rows.tolist() == order and alignment.level == level
    assert alignment.report("x.csv", "y.h5") == f"x.csv: 4 rows matched to y.h5 by {level}"


def test_equal_ids_have_one_sample_and_different_ids_never_do(samples):
    assert align([IDS[1], IDS[0], IDS[1]], samples).rows.tolist() == [1, 0, 1]
    assert not align([IDS[0], f"{IDS[0]}.jpg"], samples).complete


def test_file_names_count_where_they_are_unique_and_in_no_other_split(samples):
    assert align(["2.jpg", "3.jpg"], samples).level == "file name"
    alignment = align(["1", "2"], samples)
    assert alignment.rows.tolist() == [-1, 1] and alignment.several.tolist() == [True, False]
    assert not align(["train/2", "train/3"], samples).complete
    assert align(["other/2", "other/3"], samples).complete
    with pytest.raises(
        PredictionsError, match=r"1 of 2 ids cannot be matched .* by file name.*fit several samples"
    ):
        align_or_raise(np.array(["1", "2"]), samples, source="x.csv", to="y.h5", allow_missing=True)


def test_the_column_that_aligns_most_is_the_ids(samples):
    columns = {"name": np.array(["1", "2", "1", "3"]), "file": np.array(IDS), "again": np.array(IDS)}
    name, alignment = choose_id_column(columns, samples)
    assert name == "file" and alignment.complete
    assert choose_id_column({}, samples) is None


def test_matched_ids_are_not_called_ambiguous():
    samples = sample_table({"id": ["a/1", "b/1"], "path": ["a/1.jpg", "b/1.jpg"]})
    with pytest.raises(PredictionsError) as raised:
        align_or_raise(np.array(["a/1.jpg", "b/1.jpg", "c/9.jpg"]), samples, source="x.csv", to="y.h5")
    assert "1 of 3 ids" in str(raised.value) and "several" not in str(raised.value)


@pytest.mark.parametrize("folders", [1, 12])
def test_up_to_12_leading_folders_are_dropped(folders):
    samples = sample_table({"id": ["s1", "s2"], "path": ["train/q.jpg", "test/q.jpg"]})
    above = "/".join(f"f{n}" for n in range(folders))
    assert align([f"{above}/test/q.jpg", f"{above}/train/q.jpg"], samples).rows.tolist() == [1, 0]
    assert not align([f"f/{'f/' * 12}test/q.jpg"], samples).complete


def test_whole_paths_are_compared_without_suffix_also_beside_files_without_a_folder():
    samples = sample_table({"id": ["s1", "s2"], "path": ["x.jpg", "d/y.jpg"]})
    ids = np.array(["x", "d/y", "z"])
    alignment = align_or_raise(ids, samples, source="x.csv", to="y.h5", allow_missing=True)
    assert alignment.rows.tolist() == [0, 1, -1] and alignment.level == "path without suffix"
