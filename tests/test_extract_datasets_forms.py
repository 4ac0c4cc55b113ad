"""Every form of every published set that an adapter claims, as a miniature made here."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import write_image

from ig3d.errors import DatasetError
from ig3d.extract.datasets import list_samples
from ig3d.extract.datasets.affectnet_npy import TABLE, read_annotations
from ig3d.extract.datasets.check import check_images
from ig3d.extract.datasets.fer import majority
from ig3d.extract.read import Unreadable, read_image
from ig3d.features.labels import SampleColumns
from ig3d.features.match import match_ids
from ig3d.features.samples import Sample, SampleList, Split


def by_id(samples: SampleList) -> dict[str, Sample]:
    return {sample.id: sample for sample in samples.samples}


def words(samples: SampleList, sample_id: str) -> tuple[str, str]:
    """Class and split of a sample, in words."""
    sample = by_id(samples)[sample_id]
    return samples.classes[sample.label] if sample.label >= 0 else "none", sample.split.name


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
    n = len(samples)
    text = {name: np.array([getattr(s, name) for s in samples.samples]) for name in ("id", "path", "group")}
    columns = SampleColumns(
        "a.h5",
        samples.classes,
        **text,
        split=samples.splits,
        label=samples.labels,
        targets=np.full((n, 2), np.nan),
    )
    ids = np.array([form.format(name) for name in ("train_00001", "test_0002", "test_0001")])
    rows, _ = match_ids(ids, columns, source="x.npz")
    assert [samples.samples[row].path.rpartition("/")[2] for row in rows] == [
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
    with pytest.raises(DatasetError, match="rafdb: expected RAF-DB's folders, found compound/"):
        list_samples(tmp_path, "rafdb")
    with pytest.raises(DatasetError, match="rafdb-compound: expected RAF-DB's compound/"):
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


def test_what_is_no_file_is_not_said_to_be_missing(tmp_path: Path) -> None:
    """A folder and a pipe are there, and cannot be read."""
    rafdb_list(tmp_path / "basic", "".join(f"train_{k}.jpg {k}\n" for k in range(1, 5)))
    aligned = tmp_path / "basic" / "Image" / "aligned"
    for k in (1, 2, 3):
        (aligned / f"train_{k}_aligned.jpg").unlink()
    (aligned / "train_1_aligned.jpg").mkdir()
    os.mkfifo(aligned / "train_2_aligned.jpg")
    samples = list_samples(tmp_path, "rafdb")
    note = next(note for note in samples.notes if "no file for 3 listed images (" in note)
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
    assert list_samples(tmp_path, "affectnet") == before
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
    assert np.array_equal(read_annotations(folder).stems, first.stems)


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
    assert np.array_equal(read_annotations(folder).stems, first.stems)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a number in .*3_exp.npy"),
        (b"\x93NUMPY\x01\x00", "expected a number in .*3_exp.npy"),
        ("object", "Python objects, which are never loaded"),
        ("11", "expected expressions from 0 to 10 .*3_exp.npy: 11"),
        ("x", "expected a number"),
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
    with pytest.raises(DatasetError, match=r"expected annotations/, train_set_annotation.*found images/"):
        list_samples(tmp_path, "affectnet")
    (tmp_path / "train_set").rename(tmp_path / "images")
    with pytest.raises(
        DatasetError, match=r"expected AffectNet's folders, found images/ .*--label-map affectnet8"
    ):
        list_samples(tmp_path, "affectnet")
    (tmp_path / "training.csv").write_text(HEADER)
    with pytest.raises(DatasetError, match="expected Manually_Annotated_Images/ under"):
        list_samples(tmp_path, "affectnet")


# fer2013 and ferplus


def pixel_table(path: Path, rows: list[tuple[str, str, str]], header: str = "emotion,pixels,Usage") -> Path:
    order = [name.strip().lower() for name in header.split(",")]
    lines = []
    for emotion, pixels, usage in rows:
        cells = {"emotion": emotion, "pixels": pixels, "usage": usage}
        lines.append(",".join(cells[name] for name in order))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def grey(seed: int) -> str:
    return " ".join(map(str, np.random.default_rng(seed).integers(0, 256, 48 * 48)))


@pytest.mark.parametrize(
    ("name", "header"),
    [("fer2013.csv", "emotion,pixels,Usage"), ("icml_face_data.csv", "emotion, Usage, pixels")],
)
def test_fer2013_pixels(tmp_path: Path, name: str, header: str) -> None:
    rows = [("0", grey(1), "Training"), ("3", grey(2), "PublicTest"), ("6", grey(3), "PrivateTest")]
    pixel_table(tmp_path / "fer" / name, rows, header)
    samples = list_samples(tmp_path, "fer2013")
    assert [words(samples, f"fer000000{k}") for k in range(3)] == [
        ("anger", "train"), ("happy", "val"), ("neutral", "test"),
    ]  # fmt: skip
    for row, sample in enumerate(samples.samples):
        assert sample.path == f"fer/{name}!{row}" and sample.size_bytes > 0
        pixels = read_image(tmp_path / sample.path).pixels
        assert pixels.shape == (48, 48, 3)
        expected = np.random.default_rng(row + 1).integers(0, 256, 48 * 48).reshape(48, 48)
        assert np.array_equal(pixels[..., 1], expected)
    assert any("where FER2013 has 28709 train" in note for note in samples.notes)


@pytest.mark.parametrize("pixels", ["1 2 3", "300 " * 2304, "x " * 4, ""])
def test_bad_pixels_are_unreadable_and_the_others_are_not(tmp_path: Path, pixels: str) -> None:
    rows = [("0", grey(0), "Training"), ("1", pixels.strip(), "Training"), ("2", grey(2), "Training")]
    pixel_table(tmp_path / "fer2013.csv", rows)
    with pytest.raises(Unreadable):
        read_image(tmp_path / "fer2013.csv!1")
    assert read_image(tmp_path / "fer2013.csv!2").pixels.shape == (48, 48, 3)
    for outside in ("3", "-1", "x"):
        with pytest.raises(FileNotFoundError):
            read_image(tmp_path / f"fer2013.csv!{outside}")


def test_fer2013_bad_rows(tmp_path: Path) -> None:
    pixel_table(tmp_path / "fer2013.csv", [("7", grey(0), "Training")])
    with pytest.raises(
        DatasetError, match=r"expected emotions 0 to 6 and Usage .*got '7' and 'Training' in row 0"
    ):
        list_samples(tmp_path, "fer2013")


@pytest.mark.parametrize("names", [("angry", "happy", "surprise"), ("0", "3", "5")])
def test_fer2013_folders(tmp_path: Path, names: tuple[str, ...]) -> None:
    for split in ("train", "test"):
        for name in names:
            write_image(tmp_path / split / name / "a.png")
    samples = list_samples(tmp_path, "fer2013")
    assert samples.dataset == "fer2013"
    assert words(samples, f"train/{names[1]}/a") == ("happy", "train")
    assert words(samples, f"test/{names[2]}/a") == ("surprise", "test")


VOTES = {
    "fer0000000.png": (4, 0, 0, 1, 3, 2, 0, 0, 0, 0),  # 4 of 9 without the single vote: no majority
    "fer0000001.png": (6, 0, 1, 1, 0, 0, 0, 0, 2, 0),  # neutral
    "fer0000002.png": (0, 0, 0, 0, 0, 0, 0, 8, 1, 1),  # contempt
    "fer0000003.png": (0, 0, 0, 0, 0, 0, 0, 1, 8, 1),  # unknown
}


def test_majority_of_votes() -> None:
    assert majority(np.array(list(VOTES.values()), float)).tolist() == [-1, 0, 7, -1]
    assert majority(np.zeros((0, 10))).tolist() == []
    # a tie is no majority; single votes do not count
    assert majority(np.array([[5, 5, 0, 0, 0, 0, 0, 0, 0, 0], [1] * 10, [2] + [1] * 9], float)).tolist() == [
        -1,
        -1,
        0,
    ]


def test_ferplus_folders_with_label_files(tmp_path: Path) -> None:
    for folder in ("FER2013Train", "FER2013Test"):
        lines = []
        for name, votes in VOTES.items():
            write_image(tmp_path / "data" / folder / name, size=(48, 48))
            lines.append(f'{name},"(0, 0, 48, 48)",{",".join(map(str, votes))}')
        (tmp_path / "data" / folder / "label.csv").write_text("\n".join(lines))
    samples = list_samples(tmp_path, "ferplus")
    assert words(samples, "data/FER2013Train/fer0000001") == ("neutral", "train")
    assert words(samples, "data/FER2013Test/fer0000002") == ("contempt", "test")
    assert words(samples, "data/FER2013Test/fer0000000") == ("none", "test")
    assert any(note.startswith("4 images without a majority") for note in samples.notes)


@pytest.mark.parametrize("form", ["folders", "pixels"])
def test_ferplus_vote_table(tmp_path: Path, form: str) -> None:
    usages = ("Training", "PublicTest", "PrivateTest", "Training")
    lines = ["Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"]
    for (name, votes), usage in zip(VOTES.items(), usages, strict=True):
        lines.append(f"{usage},{name},{','.join(map(str, votes))}")
    lines.append("Training,,0,0,0,0,0,0,0,0,0,10")  # not a face: no name
    (tmp_path / "fer2013new.csv").write_text("\n".join(lines))
    if form == "pixels":
        pixel_table(
            tmp_path / "fer2013.csv", [("0", grey(k), usage) for k, usage in enumerate((*usages, "Training"))]
        )
    else:
        for name, folder in zip(VOTES, ("Train", "Valid", "Test", "Train"), strict=True):
            write_image(tmp_path / f"FER2013{folder}" / name)
    samples = list_samples(tmp_path, "ferplus")
    inside = {"folders": "FER2013Test/", "pixels": ""}[form]
    assert words(samples, f"{inside}fer0000002") == ("contempt", "test")
    assert len(samples) == (5 if form == "pixels" else 4)
    assert all(sample.size_bytes > 0 for sample in samples.samples)


def test_ferplus_without_votes(tmp_path: Path) -> None:
    write_image(tmp_path / "FER2013Train" / "fer0000000.png")
    with pytest.raises(DatasetError, match=r"expected fer2013new.csv, or label.csv .*found FER2013Train/"):
        list_samples(tmp_path, "ferplus")


# expw


@pytest.mark.parametrize("images", ["image/origin", "origin", "."])
def test_expw_has_boxes_and_several_faces(tmp_path: Path, images: str) -> None:
    for name in ("angry_actor_104.jpg", "two faces.jpg"):
        write_image(tmp_path / images / name)
    (tmp_path / "label").mkdir()
    (tmp_path / "label" / "label.lst").write_text(
        "angry_actor_104.jpg 0 28 113 226 141 22.9362 0\ntwo faces.jpg 0 10 20 60 50 9.5 3\n"
        "two faces.jpg 1 11 70 99 51 8.5 6\ngone.jpg 0 1 1 2 2 3.5 5\n"
    )
    samples = list_samples(tmp_path, "expw")
    inside = "" if images == "." else images + "/"
    found = by_id(samples)
    assert found[f"{inside}angry_actor_104"].box == (113, 28, 226, 141)
    assert words(samples, f"{inside}two faces") == ("happy", "none")
    assert words(samples, f"{inside}two faces#1") == ("neutral", "none")
    assert found[f"{inside}two faces#1"].path == found[f"{inside}two faces"].path
    assert found[f"{inside}two faces#1"].group == found[f"{inside}two faces"].group != ""
    assert any("4 faces in 3 images" in note for note in samples.notes)


@pytest.mark.parametrize(
    "line", ["a.jpg 0 1 1 2 2 3.5 7", "a.jpg 0 1 5 2 2 3.5 1", "a.jpg 0 1", "a.jpg x 1 1 2 2 3 1"]
)
def test_expw_bad_lines(tmp_path: Path, line: str) -> None:
    write_image(tmp_path / "image" / "a.jpg")
    (tmp_path / "label.lst").write_text(f"a.jpg 0 1 1 2 2 3.5 1\n{line}\n")
    with pytest.raises(DatasetError, match="in line 2 of"):
        list_samples(tmp_path, "expw")


# sfew, ckplus, affwild2


@pytest.mark.parametrize("folders", [("Train", "Val"), ("Train_Aligned_Faces", "Val_Aligned_Faces")])
def test_sfew(tmp_path: Path, folders: tuple[str, str]) -> None:
    for folder in folders:
        for name in ("Angry", "Surprise"):
            write_image(tmp_path / folder / name / "Airheads_000519240_00000005.png")
            write_image(tmp_path / folder / name / "AboutABoy_000212320_00000010.PNG")
    samples = list_samples(tmp_path, "sfew")
    assert samples.classes == ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    assert words(samples, f"{folders[1]}/Surprise/AboutABoy_000212320_00000010") == ("surprise", "val")
    assert {sample.group for sample in samples.samples} == {"Airheads", "AboutABoy"}


def test_sfew_with_other_classes(tmp_path: Path) -> None:
    write_image(tmp_path / "Train" / "Bored" / "a.png")
    with pytest.raises(Exception, match="expected a class for every label, got none for Bored"):
        list_samples(tmp_path, "sfew")


@pytest.mark.parametrize("emotions", ["Emotion", "Emotion_labels/Emotion"])
def test_ckplus(tmp_path: Path, emotions: str) -> None:
    for sequence, count in (("S005/001", 3), ("S005/002", 2), ("S010/001", 12), ("S011/001", 1)):
        for frame in range(1, count + 1):
            name = f"{sequence.replace('/', '_')}_{frame:08d}.png"
            write_image(tmp_path / "extended" / "cohn-kanade-images" / sequence / name)
    for sequence, text in (
        ("S005/001", "   3.0000000e+00\n"),
        ("S010/001", "7\n"),
        ("S011/001", "5"),
        ("S099/001", "1"),
    ):
        folder = tmp_path / emotions / sequence
        folder.mkdir(parents=True)
        (folder / "x_emotion.txt").write_text(text)
    (tmp_path / emotions / "S005" / "002").mkdir()
    samples = list_samples(tmp_path, "ckplus")
    inside = "extended/cohn-kanade-images/"
    assert words(samples, f"{inside}S005/001/S005_001_00000003") == ("disgust", "none")
    assert words(samples, f"{inside}S005/001/S005_001_00000001") == ("neutral", "none")
    assert words(samples, f"{inside}S010/001/S010_001_00000012") == ("surprise", "none")
    assert words(samples, f"{inside}S011/001/S011_001_00000001") == ("happy", "none")
    assert {sample.group for sample in samples.samples} == {"S005", "S010", "S011"}
    text = " | ".join(samples.notes)
    assert (
        "of 3 sequences; 1 sequence left out, without label" in text
        and "no images of 1 labelled sequence: S099/001" in text
    )


def test_ckplus_half_there_or_wrong(tmp_path: Path) -> None:
    write_image(tmp_path / "cohn-kanade-images" / "S005" / "001" / "a.png")
    with pytest.raises(DatasetError, match="expected the folder Emotion, found cohn-kanade-images/"):
        list_samples(tmp_path, "ckplus")
    (tmp_path / "Emotion" / "S005" / "001").mkdir(parents=True)
    (tmp_path / "Emotion" / "S005" / "001" / "a_emotion.txt").write_text("3.5")
    with pytest.raises(DatasetError, match=r"expected a label 0 to 7 in S005/001/a_emotion.txt, got '3.5'"):
        list_samples(tmp_path, "ckplus")


def affwild2(root: Path) -> Path:
    for video, frames in (("v1_left", 3), ("v1_right", 2), ("v2", 2)):
        for frame in range(1, frames + 1):
            write_image(root / "cropped_aligned" / video / f"{frame:05d}.jpg")
    expr, va = root / "ann" / "EXPR_Set", root / "ann" / "VA_Set"
    for folder in (expr / "Train_Set", expr / "Validation_Set", va / "Train_Set", va / "Validation_Set"):
        folder.mkdir(parents=True)
    header = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n"
    (expr / "Train_Set" / "v1_left.txt").write_text(header + "0\n-1\n7\n4\n")
    (expr / "Train_Set" / "v1_right.txt").write_text(header + "1\n2\n")
    (expr / "Validation_Set" / "v2.txt").write_text(header + "6\n5\n")
    (expr / "Validation_Set" / "v9.txt").write_text(header + "6\n")
    (va / "Train_Set" / "v2.txt").write_text("valence,arousal\n0.5,-0.25\n-5,-5\n")
    (va / "Validation_Set" / "v1_left.txt").write_text("valence,arousal\n1,0\n0,1\n0,0\n")
    return root


def test_affwild2(tmp_path: Path) -> None:
    samples = list_samples(affwild2(tmp_path), "affwild2")
    assert words(samples, "cropped_aligned/v1_left/00001") == ("neutral", "train")
    assert words(samples, "cropped_aligned/v1_left/00003") == ("other", "train")
    assert words(samples, "cropped_aligned/v2/00001") == ("surprise", "val")
    found = by_id(samples)
    assert "cropped_aligned/v1_left/00002" not in found
    assert found["cropped_aligned/v1_left/00004"].size_bytes == -1
    assert {sample.group for sample in samples.samples} == {"v1", "v2"}
    text = " | ".join(samples.notes)
    assert (
        "2 val; 1 frame left out, marked as not" in text
        and "1 annotated video left out, without frames: v9" in text
    )


def test_affwild2_va_has_its_own_splits(tmp_path: Path) -> None:
    samples = list_samples(affwild2(tmp_path), "affwild2-va")
    found = by_id(samples)
    assert samples.classes == () and len(found) == 4
    first = found["cropped_aligned/v2/00001"]
    assert (first.valence, first.arousal, first.label, first.split) == (0.5, -0.25, -1, Split.train)
    assert found["cropped_aligned/v1_left/00002"].split == Split.val


@pytest.mark.parametrize(
    ("dataset", "file", "text"), [("affwild2", "EXPR", "x\n8\n"), ("affwild2-va", "VA", "x\n2,0\n")]
)
def test_affwild2_bad_lines(tmp_path: Path, dataset: str, file: str, text: str) -> None:
    affwild2(tmp_path)
    (tmp_path / "ann" / f"{file}_Set" / "Train_Set" / "v2.txt").write_text(text)
    with pytest.raises(DatasetError, match=f"{dataset}: expected .* in line 2 of"):
        list_samples(tmp_path, dataset)


@pytest.mark.parametrize(
    "dataset",
    ["rafdb-compound", "affectnet", "affectnet7", "ferplus", "fer2013", "expw", "sfew", "ckplus", "affwild2"],
)
def test_the_wrong_folder_is_one_line_with_the_layout(tmp_path: Path, dataset: str) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(
        DatasetError, match=rf"^{dataset}: expected .*found readme.txt in .*docs/datasets.md"
    ) as error:
        list_samples(tmp_path, dataset)
    assert "\n" not in str(error.value)
