"""Every form of RAF-DB and AffectNet that an adapter claims, as a miniature made here."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import write_image
from listed import by_id, samples_of, words

from ig3d.errors import DatasetError
from ig3d.extract.datasets import list_samples
from ig3d.extract.datasets.affectnet_npy import TABLE, read_annotations
from ig3d.extract.datasets.image_check import check_images
from ig3d.features.align import align_or_raise
from ig3d.features.samples import Split

# rafdb


def rafdb_list(root: Path, lines: str, images: str = "Image/aligned", suffix: str = "_aligned") -> None:
    (root / "EmoLabel").mkdir(parents=True)
    (root / "EmoLabel" / "list_patition_label.txt").write_text(lines)
    for line in lines.splitlines():
        write_image(root / images / f"{line.split('.')[0]}{suffix}.jpg")


def test_rafdb_ids_are_those_of_the_list(tmp_path: Path) -> None:
    rafdb_list(tmp_path / "basic", "train_00001.jpg 5\ntest_0001.jpg 7")
    samples = by_id(list_samples(tmp_path, "rafdb"))
    assert samples["basic/Image/aligned/test_0001"].path == "basic/Image/aligned/test_0001_aligned.jpg"
    assert set(samples) == {"basic/Image/aligned/train_00001", "basic/Image/aligned/test_0001"}


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "{}.jpg",
        "{}_aligned",
        "{}_aligned.jpg",
        "aligned/{}.jpg",
        "/data/basic/Image/aligned/{}_aligned.jpg",
    ],
)
def test_rafdb_ids_of_any_form_join(tmp_path: Path, form: str) -> None:
    rafdb_list(tmp_path / "basic", "train_00001.jpg 5\ntest_0001.jpg 7\ntest_0002.jpg 1")
    samples = list_samples(tmp_path, "rafdb")
    columns = samples.samples
    ids = np.array([form.format(name) for name in ("train_00001", "test_0002", "test_0001")])
    rows = align_or_raise(ids, columns, source="x.npz", to="y").rows
    assert [samples_of(samples)[row].path.rpartition("/")[2] for row in rows] == [
        "train_00001_aligned.jpg", "test_0002_aligned.jpg", "test_0001_aligned.jpg",
    ]  # fmt: skip


@pytest.mark.parametrize("nesting", ["compound", "RAF_DB/compound/compound", "."])
def test_rafdb_compound(tmp_path: Path, nesting: str) -> None:
    root = tmp_path / "compound" if nesting == "." else tmp_path
    rafdb_list(root / nesting, "train_00001.jpg 1\ntrain_00002.jpg 11\ntest_0001.jpg 4")
    if nesting != ".":
        rafdb_list(root / "basic", "train_00009.jpg 7")
    samples = list_samples(root, "rafdb-compound")
    inside = "" if nesting == "." else nesting + "/"
    assert len(samples.classes) == 11 and len(samples) == 3
    assert words(samples, f"{inside}Image/aligned/train_00001") == ("happily surprised", "train")
    assert words(samples, f"{inside}Image/aligned/train_00002") == ("disgustedly surprised", "train")
    assert words(samples, f"{inside}Image/aligned/test_0001") == ("sadly angry", "test")


def test_rafdb_basic_does_not_take_the_compound_list(tmp_path: Path) -> None:
    rafdb_list(tmp_path / "compound", "train_00001.jpg 3")
    with pytest.raises(DatasetError, match=r"rafdb: no folders of RAF-DB in .*, which holds compound/"):
        list_samples(tmp_path, "rafdb")
    with pytest.raises(DatasetError, match="rafdb-compound: no compound/ folder of RAF-DB"):
        list_samples(tmp_path / "compound" / "Image", "rafdb-compound")


def test_rafdb_images_still_packed(tmp_path: Path) -> None:
    rafdb_list(tmp_path / "basic", "")
    (tmp_path / "basic" / "Image").mkdir()
    (tmp_path / "basic" / "Image" / "aligned.zip").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"Image/aligned\.zip; unpack"):
        list_samples(tmp_path, "rafdb")


def test_kaggle_tables_that_name_missing_images(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in range(1, 8):
            write_image(tmp_path / "DATASET" / split / str(label) / f"{split}_{label}_aligned.jpg")
    (tmp_path / "train_labels.csv").write_text(
        "image,label\n" + "".join(f"train_{k}_aligned.jpg,{1 + (k - 1) % 7}\n" for k in range(1, 15))
    )
    samples = list_samples(tmp_path, "rafdb")
    assert len(samples) == 21
    note = next(note for note in samples.notes if "no file for" in note)
    assert note.startswith("no file for 7 listed images (DATASET/train/1/train_8_aligned.jpg, ")
    assert note.count(".jpg") == 5
    assert words(samples, "DATASET/train/7/train_14") == ("neutral", "train")


def test_a_folder_in_place_of_an_image_is_not_reported_as_missing(tmp_path: Path) -> None:
    """A folder and a pipe are there, and cannot be read."""
    rafdb_list(tmp_path / "basic", "".join(f"train_{k}.jpg {k}\n" for k in range(1, 5)))
    aligned = tmp_path / "basic" / "Image" / "aligned"
    for k in (1, 2, 3):
        (aligned / f"train_{k}_aligned.jpg").unlink()
    (aligned / "train_1_aligned.jpg").mkdir()
    os.mkfifo(aligned / "train_2_aligned.jpg")
    samples = list_samples(tmp_path, "rafdb")
    note = next(note for note in samples.notes if "no file for 1 listed image (" in note)
    assert note.endswith("; the rows are kept, as missing or unreadable")
    found = check_images(samples)
    assert [path.rpartition("/")[2] for path in found.missing] == ["train_3_aligned.jpg"]
    assert [path.rpartition("/")[2].partition(":")[0] for path in found.unreadable] == [
        "train_1_aligned.jpg", "train_2_aligned.jpg",
    ]  # fmt: skip


# affectnet


def npy(folder: Path, stem: str, expression: int, valence: float, arousal: float) -> None:
    """As the release has it: numbers kept as text."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, value in (("exp", expression), ("val", valence), ("aro", arousal)):
        np.save(folder / f"{stem}_{kind}.npy", np.array(str(value)))
    np.save(folder / f"{stem}_lnd.npy", np.zeros(136))


def affectnet_npy(root: Path) -> Path:
    for name, start in (("train_set", 0), ("val_set", 100)):
        for expression in range(8):
            stem = str(start + expression)
            write_image(root / name / "images" / f"{stem}.jpg")
            npy(root / name / "annotations", stem, expression, -0.5 if expression else -2, expression / 10)
    return root


@pytest.mark.parametrize("nesting", [".", "AffectNet/data"])
def test_affectnet_npy_release(tmp_path: Path, nesting: str) -> None:
    affectnet_npy(tmp_path / nesting)
    samples = list_samples(tmp_path, "affectnet")
    inside = "" if nesting == "." else nesting + "/"
    assert samples.classes[:2] == ("neutral", "happy") and samples.classes[7] == "contempt"
    assert len(samples) == 16
    assert words(samples, f"{inside}train_set/images/7") == ("contempt", "train")
    first, last = (by_id(samples)[f"{inside}val_set/images/{stem}"] for stem in ("100", "104"))
    assert math.isnan(first.valence) and first.arousal == 0
    assert (last.valence, last.split) == (-0.5, Split.val)
    assert last.arousal == pytest.approx(0.4)


def test_affectnet7_is_without_contempt(tmp_path: Path) -> None:
    affectnet_npy(tmp_path)
    samples = list_samples(tmp_path, "affectnet7")
    assert len(samples) == 14 and len(samples.classes) == 7 and max(samples.labels) == 6
    assert "left out, as AffectNet-7 does: 2 of contempt" in samples.notes


def test_affectnet_annotations_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = affectnet_npy(tmp_path) / "train_set" / "annotations"
    before = list_samples(tmp_path, "affectnet")
    assert (folder.parent / TABLE).is_file()
    monkeypatch.setattr("ig3d.extract.datasets.affectnet_npy._number", None)  # a second reading would fail
    assert samples_of(list_samples(tmp_path, "affectnet")) == samples_of(before)
    monkeypatch.undo()
    npy(folder, "3", 6, 0.25, 0.25)  # changed
    (folder / "4_exp.npy").unlink()  # gone
    after = by_id(list_samples(tmp_path, "affectnet"))
    assert (after["train_set/images/3"].label, after["train_set/images/3"].valence) == (6, 0.25)
    assert "train_set/images/4" not in after
    np.save(folder / "2_exp.npy", np.array("1"))  # changed, of the same size
    after = by_id(list_samples(tmp_path, "affectnet"))
    assert after["train_set/images/2"].label == 1
    (folder.parent / TABLE).write_bytes(b"PK damaged")
    assert by_id(list_samples(tmp_path, "affectnet")) == after


def test_affectnet_table_goes_to_the_users_cache_where_the_data_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = affectnet_npy(tmp_path / "data") / "train_set" / "annotations"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (folder.parent / TABLE).mkdir()  # so that even root cannot write there
    first = read_annotations(folder)
    (kept,) = (tmp_path / "cache" / "ig3d").iterdir()
    assert kept.name.startswith("annotations-")
    monkeypatch.setattr("ig3d.extract.datasets.affectnet_npy._number", None)
    assert np.array_equal(read_annotations(folder)["stems"], first["stems"])


def test_affectnet_is_read_without_a_table_where_neither_place_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    folder = affectnet_npy(tmp_path) / "train_set" / "annotations"
    first = read_annotations(folder)
    (folder.parent / TABLE).unlink()
    (folder.parent / TABLE).mkdir()
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    assert np.array_equal(read_annotations(folder)["stems"], first["stems"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "3_exp.npy does not hold a number"),
        (b"\x93NUMPY\x01\x00", "3_exp.npy does not hold a number"),
        ("object", "Python objects, which are never loaded"),
        ("11", "no numbers from 0 to 10 .*3_exp.npy: 11"),
        ("x", "does not hold a number"),
    ],
)
def test_affectnet_damaged_annotations(tmp_path: Path, content: bytes | str, message: str) -> None:
    path = affectnet_npy(tmp_path) / "train_set" / "annotations" / "3_exp.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "object":
        np.save(path, np.array({"a": 1}, dtype=object), allow_pickle=True)
    else:
        np.save(path, np.array(content))
    with pytest.raises(DatasetError, match=message):
        list_samples(tmp_path, "affectnet")


@pytest.mark.parametrize("place", [".", "train_set"])
def test_affectnet_flat_csv(tmp_path: Path, place: str) -> None:
    for stem in ("5", "6", "9"):
        write_image(tmp_path / "train_set" / "images" / f"{stem}.png")
    (tmp_path / place / "train_set_annotation_without_lnd.csv").write_text(
        "number,exp,val,aro\n5,1,0.5,-0.25\n6,10,-2,-2\n7,2,-2.0,-2.0\n"
    )
    samples = list_samples(tmp_path, "affectnet")
    assert words(samples, "train_set/images/5") == ("happy", "train")
    found = by_id(samples)
    assert found["train_set/images/5"].path == "train_set/images/5.png"
    assert found["train_set/images/7"].size_bytes == -1
    assert math.isnan(found["train_set/images/7"].valence)
    assert set(found) == {"train_set/images/5", "train_set/images/7"}
    text = " | ".join(samples.notes)
    assert "1 of non-face" in text and "train_set/images: 1 image left out, without annotation: 9" in text
    assert "no file for 1 listed image (train_set/images/7.jpg)" in text


@pytest.mark.parametrize(("dataset", "taken"), [("affectnet", "contempt"), ("affectnet7", "anger")])
def test_affectnet_text_lists(tmp_path: Path, dataset: str, taken: str) -> None:
    for folder, word in (("train_set", "train"), ("valid_set", "valid")):
        for stem in ("1", "2"):
            write_image(tmp_path / folder / f"{stem}.jpg")
        for count in (7, 8):
            lines = f"1.jpg 0\n2.jpg {count - 1}\n"
            (tmp_path / folder / f"{word}_annotations_{count}class.txt").write_text(lines)
    samples = list_samples(tmp_path, dataset)
    assert words(samples, "valid_set/1") == ("neutral", "val")
    assert words(samples, "train_set/2") == (taken, "train")


HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal\n"
)


@pytest.mark.parametrize("header", [HEADER, ""])
@pytest.mark.parametrize("place", ["Manually_Annotated_file_lists", "Manually_Annotated", "."])
def test_affectnet_original_lists(tmp_path: Path, header: str, place: str) -> None:
    lists, images = tmp_path / place, tmp_path / "Manually_Annotated_Images"
    lists.mkdir(exist_ok=True)
    write_image(images / "689" / "abc.JPG")
    (lists / "training.csv").write_text(
        header
        + "689/abc.JPG,10,20,100,120,1.0;2.0,3,0.5,-0.5\n12/gone.png,0,0,0,0,,0,-2,-2\n1/n.jpg,1,1,9,9,,10,-2,-2\n"
    )
    (lists / "validation.csv").write_text(header + "7/v.jpeg,1,2,3,4,,7,0,0\n")
    (tmp_path / "Automatically_annotated.csv").write_text(HEADER)
    samples = list_samples(tmp_path, "affectnet")
    first = by_id(samples)["Manually_Annotated_Images/689/abc"]
    assert first.box == (10, 20, 110, 140) and first.size_bytes > 0
    assert words(samples, first.id) == ("surprise", "train")
    assert by_id(samples)["Manually_Annotated_Images/12/gone"].box is None
    assert words(samples, "Manually_Annotated_Images/7/v") == ("contempt", "val")
    assert len(samples) == 3
    text = " | ".join(samples.notes)
    assert "1 of non-face" in text and "Automatically_annotated.csv is left out" in text
    assert "no file for 2 listed images" in text


def test_affectnet_half_there(tmp_path: Path) -> None:
    write_image(tmp_path / "train_set" / "images" / "1.jpg")
    with pytest.raises(DatasetError, match=r"no annotations/, train_set_annotation.*holds images/"):
        list_samples(tmp_path, "affectnet")
    (tmp_path / "train_set").rename(tmp_path / "images")
    with pytest.raises(
        DatasetError, match=r"no folders of AffectNet in .*, which holds images/.*--label-map affectnet8"
    ):
        list_samples(tmp_path, "affectnet")
    (tmp_path / "training.csv").write_text(HEADER)
    with pytest.raises(DatasetError, match="no Manually_Annotated_Images/ under"):
        list_samples(tmp_path, "affectnet")


@pytest.mark.parametrize(
    "dataset",
    ["rafdb-compound", "affectnet", "affectnet7", "ferplus", "fer2013", "expw", "sfew", "ckplus", "affwild2"],
)
def test_the_wrong_folder_is_one_line_with_the_layout(tmp_path: Path, dataset: str) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(
        DatasetError, match=rf"^{dataset}: no .*, which holds readme.txt; .*docs/datasets.md"
    ) as error:
        list_samples(tmp_path, dataset)
    assert "\n" not in str(error.value)
