"""Damaged or incomplete datasets: missing parts are refused or counted, and no label is wrong."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from conftest import colour_folder, write_image
from listed import samples_of

from ig3d.errors import DatasetError
from ig3d.extract.datasets import list_samples
from ig3d.extract.datasets.recognise import recognise
from ig3d.features.samples import Listing


def notes_of(samples: Listing) -> str:
    return "\n".join(samples.notes)


# fer2013 and ferplus

USAGES = ("Training",) * 3 + ("PublicTest",) * 2 + ("PrivateTest",)


def fer_tables(root: Path, *, by_row: bool = True) -> tuple[list[str], list[str]]:
    """Lines of both tables: row k is of class k; row 1 is no face and has no name."""
    pixels, votes, named = ["emotion,pixels,Usage"], ["Usage,Image name,a,b,c,d,e,f,g,h,i,j"], 0
    for row, usage in enumerate(USAGES):
        name = "" if row == 1 else f"fer{row if by_row else named:07d}.png"
        named += row != 1
        pixels.append(f"0,{' '.join([str(row)] * 2304)},{usage}")
        votes.append(
            f"{usage},{name},{','.join('9' if k == (9 if row == 1 else row) else '0' for k in range(10))}"
        )
    (root / "fer2013.csv").write_text("\n".join(pixels))
    return pixels, votes


@pytest.mark.parametrize("by_row", [True, False])
def test_ferplus_names_count_rows_or_named_rows(tmp_path: Path, by_row: bool) -> None:
    _, votes = fer_tables(tmp_path, by_row=by_row)
    (tmp_path / "fer2013new.csv").write_text("\n".join(votes))
    assert list_samples(tmp_path, "ferplus").labels.tolist() == [0, -1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((0, 1, 3, 4, 5), "fer2013new.csv has 5 rows of votes, .* has 6 of pixels"),
        ((2, 1, 0, 3, 4, 5), "row 0 of .* names 'fer0000002.png'"),
        ((5, 1, 2, 3, 4, 0), "differ in Usage in 2 rows \\(0, 5\\)"),
    ],
)
def test_ferplus_votes_cut_or_sorted_are_no_labels_of_other_pixels(
    tmp_path: Path, order: tuple[int, ...], message: str
) -> None:
    _, votes = fer_tables(tmp_path)
    (tmp_path / "fer2013new.csv").write_text("\n".join([votes[0], *(votes[1 + row] for row in order)]))
    with pytest.raises(DatasetError, match=message):
        list_samples(tmp_path, "ferplus")


def test_ferplus_images_without_votes_are_counted(tmp_path: Path) -> None:
    for folder, names in (("FER2013Train", ("fer0000000", "fer0000001")), ("FER2013Test", ("fer0000002",))):
        for name in names:
            write_image(tmp_path / folder / f"{name}.png")
    (tmp_path / "FER2013Train" / "label.csv").write_text(
        'fer0000000.png,"(0, 0, 48, 48)",9,0,0,0,0,0,0,0,0,0'
    )
    notes = notes_of(list_samples(tmp_path, "ferplus"))
    assert "WARNING FER2013Train: 1 image left out, without votes: fer0000001.png" in notes
    assert "WARNING FER2013Test: 1 image left out, without label.csv" in notes
    (tmp_path / "fer2013new.csv").write_text("head\nTraining,fer0000000.png,9,0,0,0,0,0,0,0,0,0\n")
    notes = notes_of(list_samples(tmp_path, "ferplus"))
    assert "WARNING FER2013Test: 1 image left out, without votes: FER2013Test/fer0000002.png" in notes


def test_a_table_of_pixels_without_header_is_a_short_line(tmp_path: Path) -> None:
    lines, _ = fer_tables(tmp_path)
    (tmp_path / "fer2013.csv").write_text("\n".join(lines[1:]))
    with pytest.raises(DatasetError, match=r"the first line of .*it is 0, 0 0 0") as refused:
        list_samples(tmp_path, "fer2013")
    assert len(str(refused.value)) < 400 + len(str(tmp_path))


# rafdb


def official(root: Path, names: tuple[str, ...], suffix: str = ".jpg") -> None:
    (root / "EmoLabel").mkdir(parents=True)
    (root / "EmoLabel" / "list_patition_label.txt").write_text("".join(f"{name}.jpg 4\n" for name in names))
    for name in names:
        write_image(root / "Image" / "aligned" / f"{name}_aligned{suffix}")


def test_rafdb_extensions_in_capitals_are_found(tmp_path: Path) -> None:
    official(tmp_path, ("train_00001", "test_0001"), ".JPG")
    samples = list_samples(tmp_path, "rafdb")
    assert [sample.size_bytes > 0 for sample in samples_of(samples)] == [True, True]
    assert samples_of(samples)[1].path == "Image/aligned/train_00001_aligned.JPG"


def test_rafdb_images_outside_of_the_list_and_other_copies_are_reported(tmp_path: Path) -> None:
    official(tmp_path / "basic", ("train_00001", "test_0001"))
    official(tmp_path / "old" / "basic", ("train_00001",))
    write_image(tmp_path / "basic" / "Image" / "aligned" / "train_00009_aligned.jpg")
    samples = list_samples(tmp_path, "rafdb")
    assert len(samples) == 2
    assert "WARNING basic/Image/aligned: 1 image left out, not in the list: train_00009_aligned" in notes_of(
        samples
    )
    assert "left out are other copies under the root: old/basic/EmoLabel/list_patition_label" in notes_of(
        samples
    )


def test_kaggle_images_outside_of_the_table_are_reported(tmp_path: Path) -> None:
    for name in ("train/1/train_1_aligned.JPG", "train/2/train_2_aligned.jpg", "test/1/test_1_aligned.jpg"):
        write_image(tmp_path / "DATASET" / name)
    (tmp_path / "train_labels.csv").write_text("image,label\ntrain_1_aligned.jpg,1\n")
    samples = list_samples(tmp_path, "rafdb")
    assert len(samples) == 3
    assert "1 image not in *_labels.csv, labelled as their folders: DATASET/train/2/train_2" in notes_of(
        samples
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["DATASET/train/1/a.jpg"], "no test/1 to test/7 beside .*DATASET/train in .*, which holds train/"),
        (["basic/Image/aligned/train_1_aligned.jpg"], "no EmoLabel/list_patition_label.txt beside the"),
        (
            ["Image/original/", "Image/original.zip", "EmoLabel/list_patition_label.txt"],
            "original.zip; unpack",
        ),
    ],
)
def test_the_part_of_rafdb_that_lacks_is_named(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        path = tmp_path / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        elif name.endswith(".jpg"):
            write_image(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("train_1.jpg 1\n")
    with pytest.raises(DatasetError, match=message):
        list_samples(tmp_path, "rafdb")


# affwild2 and ckplus


def test_affwild2_lists_without_header_shift_no_frame(tmp_path: Path) -> None:
    for frame in (1, 2, 3):
        write_image(tmp_path / "cropped_aligned" / "v" / f"{frame:05d}.jpg")
    lists = {task: tmp_path / f"{task}_Set" / "Train_Set" / "v.txt" for task in ("EXPR", "VA")}
    for path in lists.values():
        path.parent.mkdir(parents=True)
    lists["EXPR"].write_text("3\n1\n4\n\n")
    lists["VA"].write_text("0.5,-0.25\n-5,-5\n1e-1,0\n")
    samples = list_samples(tmp_path, "affwild2")
    assert samples.labels.tolist() == [3, 1, 4]
    assert "no header in 1 list; the first line, a label, is frame 1: v" in notes_of(samples)
    found = {sample.id[-1]: sample.valence for sample in samples_of(list_samples(tmp_path, "affwild2-va"))}
    assert found == {"1": 0.5, "3": 0.1}
    lists["EXPR"].write_text("Neutral,Anger\n3\n")
    assert "2 frames left out, without a line in their video's list" in notes_of(
        list_samples(tmp_path, "affwild2")
    )
    lists["EXPR"].write_text("Neutral,Anger\n3\n\n4\n")
    with pytest.raises(DatasetError, match=r"line 3 of .*''"):
        list_samples(tmp_path, "affwild2")


def test_ckplus_labels_go_by_the_number_of_the_frame(tmp_path: Path) -> None:
    for sequence, frames in (("S1/001", (1, 2, 3)), ("S1/002", (2, 3, 4)), ("S2/001", (1, 4))):
        for frame in frames:
            name = f"{sequence.replace('/', '_')}_{frame:08d}"
            write_image(tmp_path / "cohn-kanade-images" / sequence / f"{name}.png")
        (tmp_path / "Emotion" / sequence).mkdir(parents=True)
        stem = f"{sequence.replace('/', '_')}_00000004"
        (tmp_path / "Emotion" / sequence / f"{stem}_emotion.txt").write_text("3")
    samples = list_samples(tmp_path, "ckplus")
    # the peak of S1/001 and the neutral frame of S1/002 are lost: no other frame stands for them
    assert [(s.id[-15:], s.label, s.size_bytes > 0) for s in samples_of(samples)] == [
        ("S1_001_00000001", 0, True), ("S1_001_00000004", 3, False), ("S1_002_00000004", 3, True),
        ("S2_001_00000001", 0, True), ("S2_001_00000004", 3, True),
    ]  # fmt: skip
    assert "no frame 1 in 1 sequence, so no frame there is neutral: S1/002" in notes_of(samples)
    assert "no file for 1 listed image (cohn-kanade-images/S1/001/S1_001_00000004.png)" in notes_of(samples)


# affectnet


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "number,exp,val,aro\n1,2,0,0\n2,7,9,0.5,0.5\n",
            "row 2 of .*csv has 5 cells instead of 4 .*: 2,7,9",
        ),
        ("number,exp,val,aro\n1,2,0,0\n2,99,0,0\n", "the expression '99' in row 2 of .*csv"),
        ("number,exp,val,aro\n1,2,0,7\n", r"the valence or arousal '7' in row 1 of .*csv"),
        ("number,exp\n1,2\n", "the first line of .*csv must name .*; it is number, exp$"),
        (
            "number;exp;val;aro\n1;2;0;0\n",
            r"it is number;exp;val;aro \(separated by semicolons; save it with commas",
        ),
    ],
)
def test_affectnet_rows_that_do_not_fit_are_named(tmp_path: Path, text: str, message: str) -> None:
    write_image(tmp_path / "val_set" / "images" / "1.jpg")
    (tmp_path / "val_set_annotation_without_lnd.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        list_samples(tmp_path, "affectnet")


def test_affectnet_original_rows_of_too_many_cells_are_named(tmp_path: Path) -> None:
    (tmp_path / "Manually_Annotated_Images").mkdir()
    (tmp_path / "training.csv").write_text("1/a.jpg,1,1,9,9,1;2,0,0,0\n1/b.jpg,1,1,9,9,1;2,extra,3,0,0\n")
    with pytest.raises(DatasetError, match=r"row 2 of .*training.csv has 10 cells instead of 9 .*: 1/b.jpg"):
        list_samples(tmp_path, "affectnet")


# containers


def test_compressed_shards_beside_plain_ones_are_reported(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    with tarfile.open(tmp_path / "train-0.tar", "w") as shard:
        shard.add(tmp_path / "a.png", "a.png")
    with tarfile.open(tmp_path / "test-0.tar.gz", "w:gz") as shard:
        shard.add(tmp_path / "a.png", "b.png")
    assert "WARNING 1 compressed file left out: test-0.tar.gz; unpack" in notes_of(
        list_samples(tmp_path, "webdataset")
    )


# links


def test_a_link_to_itself_stops_no_adapter(tmp_path: Path) -> None:
    colour_folder(tmp_path, 2)
    (tmp_path / "happy" / "self").symlink_to("self")
    (tmp_path / "me").symlink_to("me")
    (tmp_path / "happy" / "loop.png").symlink_to("loop.png")
    samples = recognise(tmp_path)
    assert (
        samples.dataset == "folder" and len(samples) == 5
    )  # two of each class, and the link that leads nowhere
    assert "no file for 1 listed image (happy/loop.png)" in notes_of(samples)
    with pytest.raises(DatasetError, match=r"no folders of RAF-DB in .*, which holds happy/, me, sad/"):
        list_samples(tmp_path, "rafdb")


# names


def test_misspelt_classes_are_reported_and_names_are_not_called_mapped(tmp_path: Path) -> None:
    for name in ("Disgsut", "disgust", "happpy", "bored", "sad"):
        write_image(tmp_path / "a" / name / "1.png")
    notes = list_samples(tmp_path / "a", "folder").notes
    assert [note for note in notes if note.startswith("WARNING")] == [
        "WARNING class Disgsut may be a misspelling of disgust; if so, rename it",
        "WARNING class happpy may be a misspelling of happy; if so, rename it",
    ]
    write_image(tmp_path / "b" / "Train" / "Angry" / "1.png")
    assert "labels as mapped" not in notes_of(list_samples(tmp_path / "b", "sfew"))


def test_many_faults_are_counted_beyond_the_first_five(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path\n" + "/a.png\n" * 7)
    with pytest.raises(DatasetError, match=r"7 paths empty, .*'/a.png' and 2 more"):
        list_samples(tmp_path, "manifest")
    official(tmp_path / "raf", ("train_1", "train_2", "train_1"))
    with pytest.raises(DatasetError, match=r"line 3 of .* repeats train_1.jpg"):
        list_samples(tmp_path / "raf", "rafdb")
