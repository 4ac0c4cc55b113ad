"""Adapters on miniatures of every form they claim, and on what users get wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_image
from listed import by_id, samples_of, words

import ig3d
from ig3d.errors import DatasetError, PluginError, UsageError
from ig3d.extract.datasets import DatasetOptions, list_samples
from ig3d.extract.datasets.label_names import PUBLISHED
from ig3d.extract.datasets.splits import seeded_split
from ig3d.features.samples import Listing, Split

# folder


def test_folder_with_splits(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        for name in ("Happiness", "Sadness"):
            write_image(tmp_path / split / name / "a.png")
    write_image(tmp_path / "train" / "Happiness" / "UPPER.JPG")
    samples = list_samples(tmp_path, "folder")
    assert samples.classes == ("happy", "sad")
    found = by_id(samples)
    assert found["train/Happiness/UPPER"].label == 0
    assert found["train/Happiness/a"].split == Split.train
    assert found["valid/Sadness/a"].split == Split.val
    assert found["test/Sadness/a"].split == Split.test
    assert [sample.id for sample in samples_of(samples)] == sorted(found)


def test_folder_without_splits_is_dealt_out_stratified_and_seeded(tmp_path: Path) -> None:
    for name, count in (("happy", 50), ("sad", 20), ("fear", 5)):
        for index in range(count):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{index}.jpg").write_bytes(b"x")
    samples = list_samples(tmp_path, "folder")
    table = {name: [0, 0, 0] for name in samples.classes}
    for sample in samples_of(samples):
        table[samples.classes[sample.label]][sample.split] += 1
    assert table == {"fear": [3, 1, 1], "happy": [30, 10, 10], "sad": [12, 4, 4]}
    again = list_samples(tmp_path, "folder")
    other = list_samples(tmp_path, "folder", DatasetOptions(seed=1))
    assert np.array_equal(samples.splits, again.splits)
    assert not np.array_equal(samples.splits, other.splits)


def test_folder_keeps_groups_whole(tmp_path: Path) -> None:
    for person in range(12):
        for index in range(5):
            path = tmp_path / ("happy" if index % 2 else "sad") / f"p{person:02d}_{index}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"x")
    samples = list_samples(tmp_path, "folder", DatasetOptions(group_pattern=r"p(\d+)_"))
    for person in range(12):
        assert len({sample.split for sample in samples_of(samples) if sample.group == f"{person:02d}"}) == 1
    assert set(samples.splits) == {0, 1, 2}


def test_seeded_split_hits_its_shares() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 1000).tolist()
    split = seeded_split(labels, [""] * 1000, (0.7, 0.1, 0.2), seed=3)
    for label in range(5):
        here = np.bincount(split[np.array(labels) == label], minlength=3)
        assert np.abs(here - here.sum() * np.array([0.7, 0.1, 0.2])).max() <= 1


def test_folder_names_and_odd_things(tmp_path: Path) -> None:
    write_image(tmp_path / "glücklich ☺" / "bild mit leerzeichen.png")
    write_image(tmp_path / "glücklich ☺" / "tief" / "b.PNG")
    (tmp_path / "leer").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "glücklich ☺" / "notes.txt").write_text("no image")
    (tmp_path / "glücklich ☺" / "loop").symlink_to(tmp_path, target_is_directory=True)
    samples = list_samples(tmp_path, "folder")
    assert {sample.path for sample in samples_of(samples)} == {
        "glücklich ☺/bild mit leerzeichen.png",
        "glücklich ☺/tief/b.PNG",
    }
    assert any("leer" in note for note in samples.notes)


def test_folder_of_bare_digits_is_remarked_on(tmp_path: Path) -> None:
    for digit in "0123":
        write_image(tmp_path / digit / "a.png")
    assert any("bare digits" in note for note in list_samples(tmp_path, "folder").notes)


def test_split_folders_beside_class_folders_are_refused_but_empty_ones_are_not(tmp_path: Path) -> None:
    write_image(tmp_path / "train" / "happy" / "a.png")
    write_image(tmp_path / "test" / "happy" / "b.png")
    (tmp_path / "__MACOSX").mkdir()
    write_image(tmp_path / "train" / "loose.png")
    samples = list_samples(tmp_path, "folder")
    assert samples.classes == ("happy",)
    assert any(
        "1 image left out, outside of class folders: train/loose.png" in note for note in samples.notes
    )
    write_image(tmp_path / "other" / "sad" / "c.png")
    with pytest.raises(DatasetError, match=r"split folders \(test, train\) beside other folders \(other\)"):
        list_samples(tmp_path, "folder")


def test_linked_class_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    write_image(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "data" / "sad").mkdir(parents=True)
    write_image(tmp_path / "data" / "sad" / "b.png")
    (tmp_path / "data" / "happy").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data", target_is_directory=True)
    samples = list_samples(tmp_path / "data", "folder")
    assert [sample.id for sample in samples_of(samples)] == ["happy/a", "sad/b"]


def test_a_name_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "happy").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "happy") + b"/latin\xe4.jpg")).write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"1 name not in UTF-8 .*latin"):
        list_samples(tmp_path, "folder")


@pytest.mark.parametrize("name", ["happy/x.tar!y.png", "happy/x.zip!d/y.png", "a.csv!b/happy/y.png"])
def test_a_name_that_reads_as_a_member_of_a_container_is_one_line(tmp_path: Path, name: str) -> None:
    """Such a file would be looked for inside a container, and be missing."""
    write_image(tmp_path / name)
    write_image(tmp_path / "sad" / "wow!.png")
    with pytest.raises(
        DatasetError, match=r"y\.png reads as ARCHIVE!MEMBER .*y\.png inside .*; rename the file"
    ):
        list_samples(tmp_path, "folder")


def test_a_root_that_reads_as_a_member_of_a_container_is_one_line(tmp_path: Path) -> None:
    write_image(tmp_path / "x.tar!z" / "sad" / "a.png")
    with pytest.raises(DatasetError, match="reads as ARCHIVE!MEMBER"):
        list_samples(tmp_path / "x.tar!z", "folder")


@pytest.mark.parametrize("files", [[], ["notes/readme.txt"]])
def test_folder_of_the_wrong_layout(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"folder: no .*which holds .*ROOT/<class>.*docs/datasets.md"):
        list_samples(tmp_path, "folder")


def test_images_in_no_class_folders_are_samples_without_labels(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png"):
        write_image(tmp_path / name)
    (tmp_path / "manifest.csv").write_text("path,label\na.jpg,happy\n")
    listing = list_samples(tmp_path, "folder")
    assert listing.samples["id"].tolist() == ["a", "b"]
    assert listing.samples[["label", "split"]].isna().all(axis=None)
    assert any("--dataset manifest" in note for note in listing.notes)
    image = list_samples(tmp_path / "a.jpg", "folder")
    assert image.samples["path"].tolist() == ["a.jpg"] and Path(image.root) == tmp_path


def test_same_stem_twice_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "happy" / "a.png")
    write_image(tmp_path / "happy" / "a.jpg")
    with pytest.raises(DatasetError, match=r"1 duplicate id \(happy/a\)"):
        list_samples(tmp_path, "folder")


def test_two_folders_of_one_class_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "happy" / "a.png")
    write_image(tmp_path / "joy" / "b.png")
    with pytest.raises(UsageError, match="happy occurs twice"):
        list_samples(tmp_path, "folder")


@pytest.mark.parametrize("pattern", ["(", "no group", r"x(\d)"])
def test_bad_group_pattern(tmp_path: Path, pattern: str) -> None:
    write_image(tmp_path / "happy" / "a.png")
    with pytest.raises(
        (UsageError, DatasetError), match=r"groups: .*(regular expression|parentheses|does not match)"
    ):
        list_samples(tmp_path, "folder", DatasetOptions(group_pattern=pattern))


def test_unknown_adapter_and_missing_root(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"choose one of rafdb, .*manifest, .*folder"):
        list_samples(tmp_path, "fodler")
    with pytest.raises(DatasetError, match="does not exist"):
        list_samples(tmp_path / "nowhere", "folder")


# manifest


def manifest(tmp_path: Path, rows: dict[str, list[object]], name: str = "manifest.csv") -> Listing:
    frame = pd.DataFrame(rows)
    frame.to_parquet(tmp_path / name) if name.endswith("parquet") else frame.to_csv(
        tmp_path / name, index=False
    )
    return list_samples(tmp_path, "manifest")


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.parquet"])
def test_manifest_reads_every_column(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / "x" / "1.png")
    samples = manifest(
        tmp_path,
        {
            "path": ["x/1.png", "x/2.png", "x/3.png"],
            "label": ["Joy", "", "anger"],
            "split": ["train", "validation", ""],
            "valence": [0.5, -2, None],
            "arousal": [-1, -2, None],
            "group": ["007", "007", "b"],
            "note": ["", "", ""],
        },
        name,
    )
    first, second, third = samples_of(samples)
    assert samples.classes == ("anger", "happy")
    assert (first.id, first.label, first.split, first.valence, first.arousal) == (
        "x/1",
        1,
        Split.train,
        0.5,
        -1,
    )
    assert first.group == second.group == "007"
    assert (second.label, second.split, third.label, third.split) == (-1, Split.val, 0, Split.none)
    assert np.isnan([second.valence, second.arousal, third.valence]).all()
    assert first.size_bytes > 0
    assert second.size_bytes == -1
    assert any("no file for 2 listed images (x/2.png, x/3.png)" in note for note in samples.notes)
    assert any("note" in note for note in samples.notes)


def test_manifest_with_own_ids_keeps_several_faces_of_a_file(tmp_path: Path) -> None:
    samples = manifest(
        tmp_path, {"path": ["a.png", "a.png"], "id": ["a#1", "a#2"], "label": ["happy", "sad"]}
    )
    assert [sample.id for sample in samples_of(samples)] == ["a#1", "a#2"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param({"number": [7]}, "has no column path", id="no-path"),
        pytest.param({"path": ["a.png", "a.png"]}, r"1 duplicate id in .* \(a\)", id="twice"),
        pytest.param({"path": ["../a.png"]}, "outside the root", id="outside"),
        pytest.param({"path": ["/etc/a.png"]}, "absolute", id="absolute"),
        pytest.param({"path": ["a.png"], "split": ["spare"]}, r"1 cell not valid: 'spare' \(a\)", id="split"),
        pytest.param(
            {"path": ["a.png"], "valence": ["3"]}, r"'3' \(a\); use valence in \[-1, 1\]", id="range"
        ),
        pytest.param({"path": ["a.png"], "arousal": ["high"]}, "'high' .*arousal in", id="word"),
        pytest.param({"path": []}, "has no rows", id="no-rows"),
    ],
)
def test_bad_manifests(tmp_path: Path, rows: dict[str, list[object]], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        manifest(tmp_path, rows)


def test_a_missing_manifest_is_refused_with_the_contents_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path\n")
    with pytest.raises(
        DatasetError, match=r"no manifest.csv or manifest.parquet in .*, which holds labels.csv"
    ):
        list_samples(tmp_path, "manifest")
    with pytest.raises(DatasetError, match="has no rows"):
        (tmp_path / "broken.csv").write_bytes(b"\xff\xfe\x00path\x00")
        list_samples(tmp_path, "manifest", DatasetOptions(manifest=str(tmp_path / "broken.csv")))


# rafdb


def official(root: Path, lines: str, *, images: str = "Image/aligned", suffix: str = "_aligned") -> None:
    (root / "EmoLabel").mkdir(parents=True)
    (root / "EmoLabel" / "list_patition_label.txt").write_text(lines)
    for line in lines.splitlines():
        stem = line.split(".")[0]
        write_image(root / images / f"{stem}{suffix}.jpg")


@pytest.mark.parametrize("nesting", ["basic", "RAF_DB/basic/basic", "."])
def test_rafdb_official_wherever_it_is_nested(tmp_path: Path, nesting: str) -> None:
    official(tmp_path / nesting, "train_00001.jpg 5\ntrain_00002.jpg 1\ntest_0001.jpg 7")
    official(tmp_path / "compound", "train_00001.jpg 3\n")
    samples = list_samples(tmp_path, "rafdb")
    assert samples.classes == ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")
    found = {Path(sample.path).name: sample for sample in samples_of(samples)}
    assert set(found) == {"train_00001_aligned.jpg", "train_00002_aligned.jpg", "test_0001_aligned.jpg"}
    assert samples.classes[found["train_00001_aligned.jpg"].label] == "sad"
    assert samples.classes[found["test_0001_aligned.jpg"].label] == "neutral"
    assert found["test_0001_aligned.jpg"].split == Split.test
    assert any(
        "2 train and 1 test images, but the published split has 12271" in note for note in samples.notes
    )


def test_rafdb_original_images(tmp_path: Path) -> None:
    official(tmp_path / "basic", "train_00001.jpg 5\ntest_0001.jpg 7", images="Image/original", suffix="")
    assert len(list_samples(tmp_path, "rafdb")) == 2


def test_rafdb_counts_as_published(tmp_path: Path) -> None:
    lines, number = [], 0
    for split, part in (("train", "RAF-DB"), ("test", "RAF-DB's test part")):
        for label, count in enumerate(PUBLISHED[part].values(), start=1):
            for _ in range(count):
                number += 1
                lines.append(f"{split}_{number:05d}.jpg {label}")
    (tmp_path / "EmoLabel").mkdir()
    (tmp_path / "Image" / "aligned").mkdir(parents=True)
    (tmp_path / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines))
    samples = list_samples(tmp_path, "rafdb")
    assert len(samples) == 15339
    assert "12271 train and 3068 test images, class by class as published" in samples.notes
    assert any("no file for 15339 listed images" in note for note in samples.notes)


@pytest.mark.parametrize("table", ["beside", "inside", None])
def test_rafdb_kaggle(tmp_path: Path, table: str | None) -> None:
    for split, stem in (("train", "train_00001"), ("test", "test_0001")):
        for label in range(1, 8):
            write_image(tmp_path / "DATASET" / split / str(label) / f"{stem}{label}_aligned.jpg")
        if table:
            folder = tmp_path if table == "beside" else tmp_path / "DATASET"
            rows = "".join(f"{stem}{label}_aligned.jpg,{label}\n" for label in range(1, 8))
            (folder / f"{split}_labels.csv").write_text("image,label\n" + rows)
    samples = list_samples(tmp_path, "rafdb")
    assert len(samples) == 14
    found = by_id(samples)
    assert samples.classes[found["DATASET/train/4/train_000014"].label] == "happy"
    assert found["DATASET/test/1/test_00011"].split == Split.test


def test_rafdb_kaggle_table_against_folders(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in range(1, 8):
            write_image(tmp_path / "DATASET" / split / str(label) / f"{split}{label}.jpg")
    (tmp_path / "train_labels.csv").write_text("image,label\ntrain1.jpg,2\n")
    with pytest.raises(DatasetError, match=r"1 image in a folder other than the label .* \(train1.jpg\)"):
        list_samples(tmp_path, "rafdb")


@pytest.mark.parametrize("line", ["train_00001.jpg 8", "train_00001.jpg", "foo.jpg 1", "train_00001.jpg x"])
def test_rafdb_bad_lines_are_named(tmp_path: Path, line: str) -> None:
    official(tmp_path, "train_00000.jpg 1")
    (tmp_path / "EmoLabel" / "list_patition_label.txt").write_text(f"train_00000.jpg 1\n{line}\n")
    with pytest.raises(DatasetError, match="line 2 of"):
        list_samples(tmp_path, "rafdb")


def test_rafdb_of_the_wrong_layout(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds nothing.*list_patition_label.txt.*docs/datasets.md"):
        list_samples(tmp_path, "rafdb")
    official(tmp_path, "")
    (tmp_path / "EmoLabel").rename(tmp_path / "Labels")
    (tmp_path / "EmoLabel").mkdir()
    (tmp_path / "EmoLabel" / "list_patition_label.txt").write_text("train_1.jpg 1")
    with pytest.raises(DatasetError, match="no images in Image/aligned/ beside"):
        list_samples(tmp_path, "rafdb")


# adapters of other packages


def test_the_adapter_of_the_docs_lists_its_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(ig3d.__path__[0]) / "docs" / "datasets.md").read_text(encoding="utf-8")
    code = page.split("## Add a dataset")[1].split("```python")[1].split("```")[0]
    (tmp_path / "my_lab.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("ann/happy_1.png", "ann/sad_2.png", "bob/sad_1.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"x")
    listing = list_samples(tmp_path / "data", "my_lab:Lab")
    assert words(listing, "bob/sad_1") == ("sad", "train")
    assert listing.samples["group"].tolist() == ["ann", "ann", "bob"]
    assert listing.notes == ("3 photographs",)
    with pytest.raises(DatasetError, match=r"lab: no PNG files in a folder per person in"):
        list_samples(tmp_path / "data" / "ann", "my_lab:Lab")


def test_a_class_that_is_no_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"Path is not derived from ig3d\.extract\.datasets"):
        list_samples(tmp_path, "pathlib:Path")
