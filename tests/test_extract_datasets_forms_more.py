"""Every form of FER2013, FER+, ExpW, SFEW, CK+ and Aff-Wild2 that an adapter claims, as a miniature made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import write_image
from listed import by_id, samples_of, words

from ig3d.errors import DatasetError
from ig3d.extract.datasets import list_samples
from ig3d.extract.datasets.ferplus import majority
from ig3d.extract.read import Unreadable, read_image
from ig3d.features.samples import Split

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
    for row, sample in enumerate(samples_of(samples)):
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
    with pytest.raises(DatasetError, match=r"row 0 of .* has emotion '7' and Usage 'Training'"):
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
    assert all(sample.size_bytes > 0 for sample in samples_of(samples))


def test_ferplus_without_votes(tmp_path: Path) -> None:
    write_image(tmp_path / "FER2013Train" / "fer0000000.png")
    with pytest.raises(DatasetError, match=r"no fer2013new.csv, and no label.csv .* holds FER2013Train/"):
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
    assert words(samples, f"{inside}two faces@1") == ("neutral", "none")
    assert found[f"{inside}two faces@1"].path == found[f"{inside}two faces"].path
    assert found[f"{inside}two faces@1"].group == found[f"{inside}two faces"].group != ""
    assert any("4 faces in 3 images" in note for note in samples.notes)


@pytest.mark.parametrize(
    "line", ["a.jpg 0 1 1 2 2 3.5 7", "a.jpg 0 1 5 2 2 3.5 1", "a.jpg 0 1", "a.jpg x 1 1 2 2 3 1"]
)
def test_expw_bad_lines(tmp_path: Path, line: str) -> None:
    write_image(tmp_path / "image" / "a.jpg")
    (tmp_path / "label.lst").write_text(f"a.jpg 0 1 1 2 2 3.5 1\n{line}\n")
    with pytest.raises(DatasetError, match="line 2 of"):
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
    assert {sample.group for sample in samples_of(samples)} == {"Airheads", "AboutABoy"}


def test_sfew_with_other_classes(tmp_path: Path) -> None:
    write_image(tmp_path / "Train" / "Bored" / "a.png")
    with pytest.raises(Exception, match="has no class for Bored"):
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
    assert {sample.group for sample in samples_of(samples)} == {"S005", "S010", "S011"}
    text = " | ".join(samples.notes)
    assert (
        "of 3 sequences; 1 sequence left out, without label" in text
        and "no images of 1 labelled sequence: S099/001" in text
    )


def test_ckplus_half_there_or_wrong(tmp_path: Path) -> None:
    write_image(tmp_path / "cohn-kanade-images" / "S005" / "001" / "a.png")
    with pytest.raises(DatasetError, match=r"no folder Emotion in .*, which holds cohn-kanade-images/"):
        list_samples(tmp_path, "ckplus")
    (tmp_path / "Emotion" / "S005" / "001").mkdir(parents=True)
    (tmp_path / "Emotion" / "S005" / "001" / "a_emotion.txt").write_text("3.5")
    with pytest.raises(DatasetError, match=r"the label '3.5' in S005/001/a_emotion.txt"):
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
    assert {sample.group for sample in samples_of(samples)} == {"v1", "v2"}
    assert samples.notes[:3] == (
        "lists: 2 train and 2 val",
        "1 frame left out, marked as not annotated",
        "1 annotated video left out, without frames: v9",
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
    with pytest.raises(DatasetError, match=f"{dataset}: .*line 2 of"):
        list_samples(tmp_path, dataset)
