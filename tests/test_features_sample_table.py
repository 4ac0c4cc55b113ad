"""The sample table: its columns and types, what it refuses, and its memory."""

from __future__ import annotations

import math
import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ig3d.errors import DatasetError
from ig3d.extract.datasets.splits import assign_splits
from ig3d.features.samples import SPLITS, Listing, Split, boxes_of, classes_of, sample_table
from ig3d.features.store import CodeStore
from ig3d.features.store.format import StoreInfo
from ig3d.features.store.writer import StoreWriter
from ig3d.features.values import Block, Rows, Status

CLASSES = ("sad", "happy", "anger")
NOWHERE = dict.fromkeys(("x0", "y0", "x1", "y1"), math.nan)
RECORDS: list[dict[str, Any]] = [
    {
        "id": "b/é",
        "path": "b/é.png",
        "label": 1,
        "split": Split.val,
        "valence": -0.1,
        "arousal": 1 / 3,
        "group": "Zoë",
        "size_bytes": 7,
        "x0": 0.5,
        "y0": 1.0,
        "x1": 9.25,
        "y1": 1e3,
    },
    {"id": "b", "path": "b.jpg"},
    {
        "id": "b/日本",
        "path": "x!b/日本.jpg",
        "label": 0,
        "split": Split.test,
        "arousal": 0.0,
        "size_bytes": 1 << 40,
    },
    {"id": "B/long-name", "path": "B/long-name.jpeg", "label": 2, "split": Split.train, "size_bytes": 0},
    {"id": "b/\U0001f600", "path": "b/\U0001f600.jpg"},  # beyond what two bytes hold: sorts last all the same
    {"id": "b/\uffee", "path": "b/\uffee.jpg"},
]


def many(n: int) -> Iterator[dict[str, Any]]:
    for row in range(n):
        yield {"id": f"train/{row:06d}", "path": f"train/{row:06d}.jpg", "label": row % 3, "size_bytes": row}


def test_records_become_typed_columns_sorted_by_id() -> None:
    table = sample_table(iter(RECORDS), classes=CLASSES)
    ids = [record["id"] for record in RECORDS]
    assert table["id"].tolist() == sorted(ids)
    assert table["path"].tolist() == [RECORDS[ids.index(name)]["path"] for name in sorted(ids)]
    assert table.columns.tolist() == [
        "id", "path", "split", "label", "valence", "arousal", "group", "size_bytes", "x0", "y0", "x1", "y1",
    ]  # fmt: skip
    assert table.index.equals(pd.RangeIndex(6))
    assert classes_of(table) == CLASSES
    assert tuple(table["split"].cat.categories) == SPLITS == ("train", "val", "test")
    assert table["split"].cat.codes.tolist() == [Split.train, -1, Split.val, Split.test, -1, -1]
    assert table["label"].tolist()[:1] + table["label"].tolist()[2:4] == ["anger", "happy", "sad"]
    assert table["label"].cat.codes.tolist() == [2, -1, 1, 0, -1, -1]
    assert table["group"].tolist() == ["", "", "Zoë", "", "", ""]
    assert table["size_bytes"].dtype == np.int64
    assert table["size_bytes"].tolist() == [0, -1, 7, 1 << 40, -1, -1]
    assert np.array_equal(table["valence"], [math.nan, math.nan, -0.1, *[math.nan] * 3], equal_nan=True)
    assert np.array_equal(boxes_of(table)[2], [0.5, 1.0, 9.25, 1e3])
    assert np.isnan(boxes_of(table)[[0, 1, 3, 4, 5]]).all()


def test_columns_and_tables_give_the_same_as_records() -> None:
    columns = {
        name: [(record | {"split": Split(0)}).get(name, default) for record in RECORDS]
        for name, default in {"id": "", "path": "", "label": -1, "split": -1, "valence": math.nan}.items()
    }
    wanted = sample_table(
        [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)], classes=CLASSES
    )
    pd.testing.assert_frame_equal(sample_table(columns, classes=CLASSES), wanted)
    pd.testing.assert_frame_equal(sample_table(wanted, classes=CLASSES), wanted)
    named = {
        **columns,
        "label": [None if one < 0 else CLASSES[one] for one in columns["label"]],
        "split": ["train"] * 6,
    }
    pd.testing.assert_frame_equal(sample_table(named, classes=CLASSES), wanted)


def test_optional_columns_are_there_where_a_sample_has_them() -> None:
    plain = sample_table(many(5000), classes=CLASSES)
    assert not {"time", "x0"} & set(plain.columns)
    assert np.isnan(boxes_of(plain)).all()
    assert boxes_of(plain).shape == (5000, 4)
    late = sample_table([*many(5000), {"id": "z", "path": "v.mp4#1", "time": 0.04}], classes=CLASSES)
    assert late["time"].dropna().tolist() == [0.04]


def test_no_classes_no_categories() -> None:
    table = sample_table([{"id": "a", "path": "a.png", "valence": 0.5}])
    assert classes_of(table) == ()
    assert table["label"].isna().all()
    assert table["label"].cat.codes.tolist() == [-1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param([], "no images under root", id="none"),
        pytest.param([*RECORDS, {"id": "b/é", "path": "c.jpg"}], r"1 duplicate id \(b/é\)", id="duplicate"),
        pytest.param([{"id": "a\udcff", "path": "a\udcff.jpg"}], r"1 name not in UTF-8 \('a\\udcff", id="utf8"),
        pytest.param([{"id": "a", "path": "a.jpg", "label": 3}], "labels: unknown value 3; use sad, happy", id="label"),
        pytest.param([{"id": "a", "path": "a.jpg", "label": -2}], "labels: unknown value -2", id="negative"),
        pytest.param([{"id": "a", "path": "a.jpg", "label": "joy"}], "labels: unknown value joy", id="name"),
        pytest.param([{"id": "a", "path": "a.jpg", "split": "dev"}], "splits: unknown value dev", id="split"),
        pytest.param([{"id": "a"}], "the samples have the columns id; give id and path", id="missing"),
        pytest.param([{"id": "a", "path": "a", "x": 1}], "columns id, path, x; give id", id="unknown"),
    ],
)  # fmt: skip
def test_what_a_table_cannot_be_is_refused(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        sample_table(rows, classes=CLASSES, dataset="x", root="root")


def test_a_long_table_takes_little_memory() -> None:
    sample_table(many(10), classes=CLASSES)  # imports
    tracemalloc.start()
    try:
        table = sample_table(many(20_000), classes=CLASSES)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(table) == 20_000
    assert held < 200 * 20_000
    assert peak < 400 * 20_000
    assert len(pickle.dumps(table[5000:5100])) < 20_000  # a slice goes to a worker without the rest


def test_assigning_splits_changes_nothing_else() -> None:
    before = Listing("x", "root", sample_table(many(3000), classes=CLASSES))
    after = assign_splits(before, (0.7, 0.1, 0.2), seed=1)
    assert np.bincount(after.splits).tolist() == [2100, 300, 600]
    assert after.classes == CLASSES
    others = before.samples.columns.drop("split")
    pd.testing.assert_frame_equal(after.samples[others], before.samples[others])


def test_a_store_returns_its_samples(tmp_path: Path) -> None:
    table = sample_table(RECORDS, classes=CLASSES)
    blocks = {"pose": Block(3, "rad", "made up", "numbers")}
    rows = Rows.pending(len(table), blocks)
    rows.status[:] = Status.no_face
    rows.message[2] = "é" * 120  # cut between characters
    with StoreWriter(tmp_path / "x.h5", StoreInfo("x", "root", CLASSES), table, blocks) as writer:
        writer.write(0, rows)
    with CodeStore(tmp_path / "x.h5") as store:
        assert store.verify() == []
        assert store.messages.tolist() == ["", "", "é" * 100, "", "", ""]
        assert store.status.tolist() == [Status.no_face] * 6
        listed = store.samples
    va = ["valence", "arousal"]
    wanted = table.drop(columns=["x0", "y0", "x1", "y1"]).assign(size_bytes=-1)
    wanted[va] = wanted[va].astype(np.float32).astype(np.float64)
    pd.testing.assert_frame_equal(listed, wanted)
