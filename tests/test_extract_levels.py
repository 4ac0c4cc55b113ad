"""Folders above the classes: splits, persons, folds, wrappers; folders that are no classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import write_image
from listed import samples_of

from ig3d.errors import DatasetError
from ig3d.extract.datasets import list_samples
from ig3d.extract.datasets.recognise import recognise
from ig3d.features.samples import Listing, Split


def tree(root: Path, *folders: str) -> Path:
    for number, folder in enumerate(folders):
        write_image(root / folder / f"{number}.png")
    return root


def crossed(*parts: str) -> list[str]:
    return [f"{part}/{name}" for part in parts for name in ("happy", "sad")]


def splits(samples: Listing) -> dict[str, str]:
    return {sample.path.partition("/")[0]: Split(sample.split).name for sample in samples_of(samples)}


@pytest.mark.parametrize(
    "names",
    [
        {"trainset": "train", "testset": "test"},
        {"Training": "train", "PublicTest": "val", "PrivateTest": "test"},
        {"train_data": "train", "test_data": "test"},
        {"train": "train", "dev": "val", "eval": "test"},
        {"RAF_train": "train", "RAF_test": "test"},
        {"FER2013Train": "train", "FER2013Valid": "val", "FER2013Test": "test"},
        {"images-train": "train", "images-val": "val"},
        {"TrainSet": "train", "ValidationSet": "val"},
        {"my_train": "train", "my_holdout": "test"},
        {"Train Images": "train", "Test Images": "test"},
        {"1_train": "train", "2_test": "test"},
        {"trainA": "train", "testA": "test"},
    ],
    ids=lambda names: "-".join(names),
)
def test_names_of_splits(tmp_path: Path, names: dict[str, str]) -> None:
    samples = list_samples(tree(tmp_path, *crossed(*names)), "folder")
    assert samples.classes == ("happy", "sad")
    assert splits(samples) == names


def test_classes_that_hold_a_split_word_are_classes(tmp_path: Path) -> None:
    samples = list_samples(tree(tmp_path, "pre_test", "post_test", "during"), "folder")
    assert set(samples.classes) == {"pre_test", "post_test", "during"}


@pytest.mark.parametrize(
    ("folders", "split"),
    [
        (["data/faces/train/happy", "data/faces/train/sad", "data/faces/test/sad"], {"train", "test"}),
        (["train/images/happy", "train/images/sad", "val/images/happy"], {"train", "val"}),
        (["images/happy", "images/sad"], {"none"}),
        (["happy/train", "sad/train", "happy/test", "sad/test"], {"train", "test"}),
        (["train/train/happy", "train/train/sad", "test/test/sad"], {"train", "test"}),
    ],
)
def test_wrapping_folders_are_passed_over(tmp_path: Path, folders: list[str], split: set[str]) -> None:
    from ig3d.extract.datasets import DatasetOptions

    samples = list_samples(
        tree(tmp_path, *folders), "folder", DatasetOptions(split_fractions=(0.0, 0.0, 1.0))
    )
    assert samples.classes == ("happy", "sad")
    given = {Split(code).name for code in samples.splits.tolist()}
    assert given == (split if split != {"none"} else {"test"})


@pytest.mark.parametrize(
    "names",
    [
        ("S010", "S011"),
        ("fold_1", "fold_2"),
        ("Actor_01", "Actor_02"),
        ("video3", "video7"),
        ("AF01", "BM02"),
    ],
)
def test_persons_videos_and_folds_above_the_classes_are_groups(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    samples = list_samples(tree(tmp_path, *crossed(*names)), "folder")
    assert samples.classes == ("happy", "sad")
    assert {sample.group for sample in samples_of(samples)} == set(names)
    for name in names:  # whole on one side
        assert len({sample.split for sample in samples_of(samples) if sample.group == name}) == 1


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (crossed("Action", "Crisis"), "Action, Crisis"),
        (["NI/Strong/P001/Happiness", "VL/Strong/P002/Sadness"], "NI, VL"),
        (crossed("1/train", "1/test", "2/train", "2/test"), "1, 2"),
        (["happy", "sad", *crossed("old copy")], "old copy"),
        (crossed("train1", "train2"), "train1, train2"),
        (["images/train", "images/val"], "train, val"),
    ],
)
def test_other_folders_above_the_classes_are_refused_by_name(
    tmp_path: Path, folders: list[str], named: str
) -> None:
    tree(tmp_path, *folders)
    for read in (lambda: list_samples(tmp_path, "folder"), lambda: recognise(tmp_path)):
        with pytest.raises(DatasetError, match=f"(?s){named}.*(ROOT|move|table)"):
            read()


def test_folders_of_systems_and_without_images_are_no_classes(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "train/happy",
        "train/sad",
        "test/sad",
        "train/@eaDir",
        "train/happy/@eaDir/a.png",
        "#recycle/x",
    )
    tree(
        tmp_path,
        "lost+found",
        "__MACOSX/train/happy",
        "$RECYCLE.BIN",
        ".thumbnails",
        "train/.ipynb_checkpoints",
    )
    (tmp_path / "train" / "labels").mkdir()
    (tmp_path / "train" / "labels" / "a.txt").write_text("3")
    (tmp_path / "train" / "contempt").mkdir()
    samples = list_samples(tmp_path, "folder")
    assert samples.classes == ("happy", "sad")
    assert len(samples) == 3
    notes = "\n".join(samples.notes)
    assert "folder @eaDir (2)" in notes
    assert "2 folders without images: train/contempt, train/labels" in notes


def test_persons_as_classes_are_warned_of(tmp_path: Path) -> None:
    samples = list_samples(tree(tmp_path, "S010", "S011", "S014"), "folder")
    assert any("WARNING" in note and "S010, S011, S014" in note for note in samples.notes)


def test_the_levels_of_an_archive_are_read_alike(tmp_path: Path) -> None:
    import zipfile

    def packed(name: str, *folders: str) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for folder in folders:
                archive.writestr(f"{folder}/a.png", b"x")
        return tmp_path / name

    samples = list_samples(packed("a.zip", *crossed("S1", "S2")), "zip")
    assert (samples.classes, {sample.group for sample in samples_of(samples)}) == (
        ("happy", "sad"),
        {"S1", "S2"},
    )
    samples = list_samples(packed("b.zip", *crossed("trainset", "testset")), "zip")
    assert {Split(code).name for code in samples.splits.tolist()} == {"train", "test"}
    with pytest.raises(DatasetError, match="Action, Crisis"):
        list_samples(packed("c.zip", *crossed("Action", "Crisis")), "zip")


def test_a_class_whose_images_are_all_of_another_format_is_warned_of(tmp_path: Path) -> None:
    tree(tmp_path, "sad", "fear")
    (tmp_path / "happy").mkdir()
    (tmp_path / "happy" / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    notes = list_samples(tmp_path, "folder").notes
    assert any(note.startswith("WARNING no image in any folder of happy") for note in notes)
    assert "left out: HEIC (1)" in notes


def test_other_files_of_a_flat_folder_are_counted(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("x")
    assert "left out: .txt (1)" in list_samples(tmp_path, "folder").notes


def test_class_folders_that_name_splits_are_warned_of(tmp_path: Path) -> None:
    samples = list_samples(tree(tmp_path, "train_happy", "train_sad", "test_happy"), "folder")
    assert any(note.startswith("WARNING the class folders name splits") for note in samples.notes)


def test_names_of_splits_are_read_in_linear_time(tmp_path: Path) -> None:
    names = ["dataset" * 30, "data_set" * 30, "train" + "datasets" * 25 + "x"]
    assert len(list_samples(tree(tmp_path, *names), "folder").classes) == 3


def test_folders_of_unknown_names_that_hold_the_same_folders_are_warned_of(tmp_path: Path) -> None:
    """Classes outside the vocabulary below persons or scenes; persons below such classes differ."""
    folders = [f"{scene}/{name}" for scene in ("Action", "Crisis") for name in ("calm", "bored")]
    samples = list_samples(tree(tmp_path / "a", *folders), "folder")
    assert any(
        "WARNING" in note and "bored, calm; if these are the classes" in note for note in samples.notes
    )
    for name, folders in {
        "b": ["calm/S1", "calm/S2", "bored/S3", "bored/S4"],
        "c": ["happy/S1", "happy/S2", "sad/S1", "sad/S2"],
        "d": ["calm", "bored"],
    }.items():
        assert not any("WARNING" in n for n in list_samples(tree(tmp_path / name, *folders), "folder").notes)
