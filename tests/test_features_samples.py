"""The list of samples: what goes in comes out, in order of ids, and a long one takes little memory."""

from __future__ import annotations

import math
import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ig3d.errors import DatasetError
from ig3d.extract.datasets.splits import deal
from ig3d.features.samples import Sample, SampleList, Samples, Split
from ig3d.features.store import CodeStore
from ig3d.features.store.format import StoreInfo
from ig3d.features.store.writer import StoreWriter
from ig3d.features.values import Block, Rows, Status

ODD = [
    Sample("b/é", "b/é.png", 1, Split.val, -0.1, 1 / 3, "Zoë", 7, (0.5, 1.0, 9.25, 1e3)),
    Sample("b", "b.jpg"),
    Sample("b/日本", "x!b/日本.jpg", 0, Split.test, math.nan, 0.0, "", 1 << 40),
    Sample("B/long-name", "B/long-name.jpeg", 2, Split.train, 1.0, -1.0, "p", 0),
    Sample("b/\U0001f600", "b/\U0001f600.jpg"),  # beyond what two bytes hold: sorts last all the same
    Sample("b/\uffee", "b/\uffee.jpg"),
]


def many(n: int) -> Iterator[Sample]:
    for row in range(n):
        yield Sample(f"train/{row:06d}", f"train/{row:06d}.jpg", row % 3, Split.train, size_bytes=row)


def test_what_goes_in_comes_out_sorted_by_id() -> None:
    listed = SampleList("x", "root", ("a", "b", "c"), iter(ODD))  # type: ignore[arg-type]
    wanted = sorted(ODD, key=lambda sample: sample.id)
    assert list(listed.samples) == wanted
    assert [listed.samples[row] for row in range(-6, 6)] == wanted * 2
    assert listed.samples[1:5:2] == wanted[1:5:2]
    assert listed.samples == tuple(wanted)
    assert listed.samples != wanted[:-1]
    with pytest.raises(IndexError):
        listed.samples[6]
    assert listed.labels.tolist() == [sample.label for sample in wanted]
    assert listed.splits.tolist() == [sample.split for sample in wanted]
    assert pickle.loads(pickle.dumps(listed)) == listed  # as a worker gets it


def test_a_long_list_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        samples = Samples.of(many(20_000))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(samples) == 20_000
    assert held < 50 * 20_000  # as objects they take 250 each
    assert peak < 150 * 20_000
    assert len(pickle.dumps(samples[5000:5100])) < 20_000  # a slice goes to a worker without the rest


def test_dealing_a_split_changes_nothing_else() -> None:
    before = SampleList("x", "root", ("a", "b", "c"), Samples.of(many(3000)))
    after = deal(before, (0.7, 0.1, 0.2), seed=1)
    assert np.bincount(after.splits).tolist() == [2100, 300, 600]
    for name in Sample.__slots__:
        same = np.array_equal(
            Samples.of(before.samples).column(name),
            Samples.of(after.samples).column(name),
            equal_nan=name == "box",
        ) or name in ("valence", "arousal")
        assert same == (name != "split")


def test_ids_there_twice_are_refused_wherever_they_stand() -> None:
    with pytest.raises(DatasetError, match=r"got 1 id more than once \(b/é\)"):
        SampleList("x", "root", ("a", "b", "c"), (*ODD, Sample("b/é", "c.jpg")))


def test_a_store_gives_its_samples_back(tmp_path: Path) -> None:
    listed = SampleList("x", "root", ("a", "b", "c"), tuple(ODD))
    blocks = {"pose": Block(3, "rad", "made up", "numbers")}
    rows = Rows.pending(len(listed), blocks)
    rows.status[:] = Status.no_face
    rows.message[2] = "é" * 120  # cut between characters
    with StoreWriter(
        tmp_path / "x.h5", StoreInfo("x", "root", listed.classes), listed.samples, blocks
    ) as writer:
        writer.write(0, rows)
    with CodeStore(tmp_path / "x.h5") as store:
        assert store.verify() == []
        for name in ("id", "path", "group"):
            assert getattr(store.samples, name).tolist() == [getattr(one, name) for one in listed.samples]
        assert store.samples.message.tolist() == ["", "", "é" * 100, "", "", ""]
        assert store.status.tolist() == [Status.no_face] * 6
        for mine, its in zip(listed.samples, store.listed, strict=True):
            assert (its.id, its.path, its.label, its.split, its.group) == (
                (mine.id, mine.path, mine.label, mine.split, mine.group)
            )
            assert np.array_equal(
                np.float32([its.valence, its.arousal]),
                np.float32([mine.valence, mine.arousal]),
                equal_nan=True,
            )
            assert (its.size_bytes, its.box) == (-1, None)
