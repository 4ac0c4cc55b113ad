"""Meaning of labels: synonyms, --label-map, bare digits; and splits by shares or by table."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import write_image
from listed import Sample, listing_of, samples_of, with_samples

from ig3d.errors import DatasetError, UsageError
from ig3d.extract.datasets import ADAPTERS, DatasetOptions, adapter_of, list_samples
from ig3d.extract.datasets.label_names import PUBLISHED, digit_notes, read_labels
from ig3d.extract.datasets.splits import assign_splits, carve, write_split
from ig3d.features.classes import PRESETS, canonical, parse_classes
from ig3d.features.samples import Listing, Split


@pytest.mark.parametrize(
    ("spellings", "name"),
    [
        (("Happy", "happiness", " JOY ", "3_Happy", "4-happiness"), "happy"),
        (("Angry", "ANGER", "0_angry"), "anger"),
        (("surprised", "Suprise"), "surprise"),
        (("Sadly_Angry", "sadly angry", "4 Sadly Angry"), "sadly angry"),
        (("Confused",), "Confused"),
        (("4",), "4"),
    ],
)
def test_synonyms(spellings: tuple[str, ...], name: str) -> None:
    assert {canonical(spelling) for spelling in spellings} == {name}


def test_presets_are_orders_of_words_of_the_vocabulary() -> None:
    for name, order in PRESETS.items():
        assert len(set(order)) == len(order) and tuple(map(canonical, order)) == order, name
        assert parse_classes(name) == order
    assert set(PRESETS["affectnet8"]) == set(PRESETS["ferplus"]) == set(PRESETS["ckplus"])
    assert set(PRESETS["rafdb"]) == set(PRESETS["affectnet7"]) == set(PRESETS["sfew"])


# --label-map


@pytest.mark.parametrize(
    ("names", "label_map", "index", "classes"),
    [
        (["1", "2"], "1=Joy,2=Sadness", {"1": 0, "2": 1}, ("happy", "sad")),
        (["2", "1"], "2=sad,1=happy", {"2": 0, "1": 1}, ("sad", "happy")),
        (["0", "1", "2"], "0=happy,1=joy,2=none", {"0": 0, "1": 0, "2": -1}, ("happy",)),
        (["01", "2"], "1=happy,2=sad", {"01": 0, "2": 1}, ("happy", "sad")),
        (["0", "6"], "rafdb", {"0": 0, "6": 6}, PRESETS["rafdb"]),
        (["1", "7"], "rafdb", {"1": 0, "7": 6}, PRESETS["rafdb"]),
        (["Angry", "surprised"], "fer2013", {"Angry": 0, "surprised": 5}, PRESETS["fer2013"]),
        (["A", "B"], "A=x,B=y", {"A": 0, "B": 1}, ("x", "y")),
    ],
)
def test_label_maps(
    names: list[str], label_map: str, index: dict[str, int], classes: tuple[str, ...]
) -> None:
    found = read_labels(names, label_map)
    assert (dict(found.index), found.classes) == (index, classes)


@pytest.mark.parametrize(
    ("names", "label_map", "message"),
    [
        (["0", "8"], "affectnet8", "has no class for 8; add 8=NAME"),
        (["1", "2"], "1=happy", "has no class for 2"),
        (
            ["1", "6"],
            "rafdb",
            "the labels are 1, 6, .* 1 to 7 as 'rafdb' .* write the map out: 1=NAME",
        ),
        (["1"], "1=happy,1=sad", "cannot read '1=sad' .* write LABEL=CLASS"),
        (["1"], "1=", "write LABEL=CLASS"),
        (["1"], "nonsense", "is not a preset"),
        (["bored"], "rafdb", "has no class for bored"),
    ],
)
def test_bad_label_maps(names: list[str], label_map: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_labels(names, label_map)


def digits(counts: dict[str, int], order: str, first: int = 0) -> dict[str, dict[str, int]]:
    return {"train": {str(first + place): counts[name] for place, name in enumerate(PRESETS[order])}}


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("order", ["rafdb", "affectnet7"])
def test_the_order_of_numbered_folders_is_suggested_from_counts(order: str, first: int) -> None:
    (note,) = digit_notes(digits(dict(PUBLISHED["RAF-DB"]), order, first), ())
    assert (
        "WARNING labels are bare digits" in note
        and f"RAF-DB in the order {', '.join(PRESETS[order])}" in note
    )
    assert note.endswith(f"--label-map {order}")


def test_counts_near_the_published_ones_count_and_others_do_not() -> None:
    rng = np.random.default_rng(0)
    near = {name: int(count * rng.uniform(0.97, 1.0)) for name, count in PUBLISHED["AffectNet"].items()}
    assert "--label-map affectnet8" in digit_notes(digits(near, "affectnet8"), ())[0]
    even = dict.fromkeys(PRESETS["affectnet8"], 500)
    assert "the counts fit no published set" in digit_notes(digits(even, "affectnet8"), ())[0]
    assert digit_notes({"train": {"happy": 4, "1": 2}}, ()) == []


def test_a_map_against_the_counts_is_warned_about() -> None:
    counts = digits(dict(PUBLISHED["RAF-DB"]), "affectnet7")
    (note,) = digit_notes(counts, PRESETS["rafdb"])
    assert note.startswith("WARNING label map:") and "use --label-map affectnet7" in note
    assert digit_notes(counts, PRESETS["affectnet7"]) == []


def test_label_map_on_a_folder_and_on_a_manifest(tmp_path: Path) -> None:
    for digit in "123":
        write_image(tmp_path / "train" / digit / "a.png")
    (tmp_path / "manifest.csv").write_text("file,emotion\ntrain/1/a.png,1\ntrain/2/a.png,3\n")
    options = DatasetOptions(label_map="1=surprise,2=fear,3=disgust")
    samples = list_samples(tmp_path, "folder", options)
    assert [samples.classes[label] for label in samples.labels] == ["surprise", "fear", "disgust"]
    assert "labels as mapped: 1 = surprise, 2 = fear, 3 = disgust" in samples.notes
    table = list_samples(tmp_path, "manifest", options)
    assert [table.classes[label] for label in table.labels] == ["surprise", "disgust"]
    assert "column file of manifest.csv read as path" in table.notes
    with pytest.raises(UsageError, match=r"the labels of rafdb have a fixed meaning"):
        list_samples(tmp_path, "rafdb", options)


def test_empty_and_single_classes_are_reported(tmp_path: Path) -> None:
    write_image(tmp_path / "happy" / "a.png")
    (tmp_path / "sad").mkdir()
    notes = list_samples(tmp_path, "folder").notes
    assert "left out, 1 folder without images: sad" in notes
    assert any(note.startswith("WARNING all labels are happy") for note in notes)


def test_a_folder_in_a_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "archive" / "train" / "happy" / "a.png")
    write_image(tmp_path / "archive" / "test" / "sad" / "a.png")
    samples = list_samples(tmp_path, "folder")
    assert samples.classes == ("happy", "sad")
    assert [sample.id for sample in samples_of(samples)] == ["archive/test/sad/a", "archive/train/happy/a"]


# splits


def made_up(rows: int = 600, *, groups: int = 0, splits: tuple[Split, ...] = (Split.train,)) -> Listing:
    rng = np.random.default_rng(0)
    samples = tuple(
        Sample(
            f"{row:04d}",
            f"{row:04d}.png",
            label=int(rng.choice(3, p=(0.7, 0.2, 0.1))),
            split=splits[row % len(splits)],
            group=f"p{row // 6 % groups}" if groups else "",
        )
        for row in range(rows)
    )
    return listing_of("made-up", "root", ("a", "b", "c"), samples)


@pytest.mark.parametrize("groups", [0, 40])
def test_carving_is_stratified_seeded_and_keeps_groups_whole(groups: int) -> None:
    samples = made_up(groups=groups, splits=(Split.train, Split.train, Split.test))
    carved = carve(samples, 0.2, seed=3)
    train, val, test = (carved.splits == split for split in (Split.train, Split.val, Split.test))
    assert np.array_equal(test, samples.splits == Split.test)
    for label in range(3):
        here = (samples.splits == Split.train) & (samples.labels == label)
        assert abs((val & here).sum() / here.sum() - 0.2) < (0.05 if groups else 0.02)
    if groups:
        of = {kind: {s.group for s, yes in zip(samples_of(carved), rows, strict=True) if yes} for kind, rows in
              (("train", train), ("val", val))}  # fmt: skip
        assert not of["train"] & of["val"]
    assert np.array_equal(carve(samples, 0.2, seed=3).splits, carved.splits)
    assert not np.array_equal(carve(samples, 0.2, seed=4).splits, carved.splits)


def test_carving_valence_and_arousal_is_stratified_by_quadrant() -> None:
    rng = np.random.default_rng(1)
    samples = made_up()
    values = rng.choice([-0.5, 0.5], (len(samples), 2), p=(0.8, 0.2))
    continuous = with_samples(
        samples,
        [
            replace(sample, label=-1, valence=v, arousal=a)
            for sample, (v, a) in zip(samples_of(samples), values.tolist(), strict=True)
        ],
    )
    for seed in range(6):
        carved = carve(continuous, 0.25, seed=seed)
        for quadrant in {tuple(pair) for pair in values.tolist()}:
            here = (values == quadrant).all(axis=1)
            assert abs((carved.splits[here] == Split.val).sum() - here.sum() / 4) <= 1


@pytest.mark.parametrize(
    ("samples", "share", "message"),
    [
        (
            made_up(splits=(Split.train, Split.val)),
            0.1,
            "made-up already has a val split .train 300, val 300",
        ),
        (made_up(splits=(Split.test,)), 0.1, "made-up has no train split .test 600"),
        (made_up(groups=1), 0.1, "without splitting a group"),
        (made_up(), 0.0, "0.0 is not between 0 and 1"),
        (made_up(), 1.5, "1.5 is not between 0 and 1"),
    ],
)
def test_what_cannot_be_carved(samples: Listing, share: float, message: str) -> None:
    with pytest.raises((DatasetError, UsageError), match=message):
        carve(samples, share)


def test_a_random_split_is_noted() -> None:
    dealt = assign_splits(made_up(splits=(Split.none,), groups=30), (0.5, 0.25, 0.25), seed=2)
    counts = Counter(Split(int(split)) for split in dealt.splits)
    assert counts[Split.train] == pytest.approx(300, abs=25)
    assert dealt.notes[-1].endswith("split 0.5/0.25/0.25 into train/val/test with seed 2, groups kept whole")


def test_a_random_split_without_rows_in_a_part_gives_a_warning() -> None:
    dealt = assign_splits(made_up(splits=(Split.none,), groups=1), (0.6, 0.2, 0.2), seed=0)
    assert dealt.notes[-1] == "WARNING no row is in val or test: 1 group cannot be divided by these shares"


@pytest.fixture
def rafdb(tmp_path: Path) -> Path:
    root = tmp_path / "rafdb"
    lines = [f"train_{k:05d}.jpg {1 + k % 7}" for k in range(70)] + [
        f"test_{k:04d}.jpg {1 + k % 7}" for k in range(14)
    ]
    (root / "basic" / "EmoLabel").mkdir(parents=True)
    (root / "basic" / "Image" / "aligned").mkdir(parents=True)
    (root / "basic" / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines))
    return root


def test_a_split_table_is_applied_by_id(tmp_path: Path, rafdb: Path) -> None:
    carved = carve(list_samples(rafdb, "rafdb"), 0.3)
    table = tmp_path / "split.csv"
    write_split(table, carved)
    samples = list_samples(rafdb, "rafdb", DatasetOptions(split_table=str(table)))
    assert samples_of(samples) == samples_of(carved)
    assert Counter(samples.splits.tolist()) == {0: 49, 1: 21, 2: 14}
    assert f"splits: {table}: 84 rows matched to rafdb by id" in samples.notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-2], "0 unknown ids and 2 missing"),
        (lambda rows: [*rows, ["other/x", "val"]], r"1 unknown id \(other/x\) and 0 missing"),
        (lambda rows: [*rows, rows[3]], "duplicate ids"),
        (
            lambda rows: [*rows[:-1], [rows[-1][0], "spare"]],
            "column split of .* has spare; write train, val, test or nothing",
        ),
        (lambda rows: rows[1:], "needs the columns id,split"),
        (lambda rows: [], "the table is empty"),
    ],
)
def test_split_tables_of_something_else(tmp_path: Path, rafdb: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    table = tmp_path / "split.csv"
    write_split(table, list_samples(rafdb, "rafdb"))
    with table.open(newline="") as handle:
        rows = change(list(csv.reader(handle)))
    with table.open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    with pytest.raises(DatasetError, match=message):
        list_samples(rafdb, "rafdb", DatasetOptions(split_table=str(table)))


def test_shares_for_a_dataset_that_has_splits_are_reported_as_unused(rafdb: Path) -> None:
    samples = list_samples(rafdb, "rafdb", DatasetOptions(split_fractions=(0.8, 0.1, 0.1)))
    assert "--split is not used: the dataset has splits" in samples.notes
    assert Counter(samples.splits.tolist()) == {0: 70, 2: 14}


def test_shares_are_dealt_to_any_dataset_without_splits(tmp_path: Path) -> None:
    write_image(tmp_path / "image" / "a.jpg")
    (tmp_path / "label.lst").write_text("".join(f"{k}.jpg 0 1 1 2 2 3.5 {k % 7}\n" for k in range(70)))
    assert set(list_samples(tmp_path, "expw").splits) == {Split.none}
    dealt = list_samples(tmp_path, "expw", DatasetOptions(split_fractions=(0.8, 0.1, 0.1)))
    assert Counter(dealt.splits.tolist()) == {0: 56, 1: 7, 2: 7}


def test_a_group_pattern_over_groups_of_the_dataset_is_reported(tmp_path: Path) -> None:
    write_image(tmp_path / "image" / "a.jpg")
    (tmp_path / "label.lst").write_text("s1_a.jpg 0 1 1 2 2 3.5 0\ns1_b.jpg 0 1 1 2 2 3.5 1\n")
    samples = list_samples(tmp_path, "expw", DatasetOptions(group_pattern=r"(s\d+)_"))
    assert {sample.group for sample in samples_of(samples)} == {"s1"}
    assert "--groups replaces the groups of the dataset" in samples.notes


def test_every_adapter_describes_its_layout() -> None:
    for name in ADAPTERS:
        adapter = adapter_of(name)
        assert adapter.name == name and adapter.layout


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "latin-1"])
def test_a_datasets_own_list_is_read_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    for index in (1, 2):
        write_image(tmp_path / "basic/Image/aligned" / f"train_0000{index}_aligned.jpg")
    labels = tmp_path / "basic/EmoLabel/list_patition_label.txt"
    labels.parent.mkdir()
    labels.write_bytes("train_00001.jpg 4\r\ntrain_00002.jpg 7\r\n".encode(encoding))
    assert list_samples(tmp_path, "rafdb").labels.tolist() == [3, 6]


def test_arousal_without_valence_is_noted(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(b"x")
    table = tmp_path / "manifest.csv"
    table.write_text("path,arousal\na.png,0.5\nb.png,0.1\n")
    (note,) = (note for note in list_samples(tmp_path, "manifest").notes if "WARNING" in note)
    assert "has arousal without valence" in note
    table.write_text("path,valence,arousal\na.png,,0.5\nb.png,0.1,0.2\n")
    (note,) = (note for note in list_samples(tmp_path, "manifest").notes if "WARNING" in note)
    assert "1 row of manifest.csv with only one of valence and arousal" in note
