"""``ig3d datasets``, ``ig3d datasets check`` and ``ig3d split`` as a user runs them."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import FAKE, Ended, colour_folder, write_image
from listed import samples_of

from ig3d.errors import DatasetError, UsageError
from ig3d.extract.datasets import ADAPTERS, DatasetOptions, list_samples
from ig3d.extract.datasets.image_check import check_images
from ig3d.extract.datasets.recognise import recognise
from ig3d.features.samples import Split
from ig3d.features.store import CodeStore

Run = Callable[..., Ended]


def test_every_dataset_is_listed_with_its_layout(ig3d: Run) -> None:
    ended = ig3d("datasets")
    assert ended.returncode == 0
    assert [line.partition(":")[0] for line in ended.stdout.splitlines()] == list(ADAPTERS)
    assert "list_patition_label.txt" in ended.stdout


@pytest.fixture
def troubled(tmp_path: Path) -> Path:
    """A class-folder dataset with everything that is to be found: by count, 1 of each."""
    root = tmp_path / "data"
    for split in ("train", "test"):
        colour_folder(root / split, 4)
        for place, path in enumerate(sorted((root / split).rglob("*.png"))):
            write_image(path, (place * 20, 100 if split == "train" else 200, 7), size=(20, 10))
    copy = shutil.copy
    copy(root / "train/happy/0000.png", root / "test/happy/leak.png")  # across splits
    copy(root / "train/happy/0001.png", root / "train/sad/other.png")  # other label
    copy(root / "test/sad/0001.png", root / "test/sad/again.png")  # within
    (root / "train/happy/broken.JPG").write_bytes(b"no image")
    (root / "train/happy/gone.png").symlink_to(root / "nowhere.png")
    (root / "train/sad/loop").symlink_to(root, target_is_directory=True)
    return root


def test_check_finds_what_is_wrong(troubled: Path) -> None:
    found = check_images(list_samples(troubled, "folder"), jobs=3)
    assert found.images == 21
    assert found.missing == ("train/happy/gone.png",)
    assert found.unreadable == ("train/happy/broken.JPG: not an image in a supported format",)
    assert found.across == (("test/happy/leak.png", "train/happy/0000.png"),)
    assert found.disputed == (("train/happy/0001.png", "train/sad/other.png"),)
    assert found.repeated == 2  # other.png repeats 0001.png, again.png repeats 0001.png
    assert found.sizes == {(20, 10): 19}


def test_check_prints_it(ig3d: Run, troubled: Path) -> None:
    ended = ig3d("datasets", "check", troubled)
    assert ended.returncode == 0
    assert "folder, 21 samples in 21 images" in ended.stdout
    table = [line.split() for line in ended.stdout.splitlines()]
    assert ["happy", "6", "5"] in table and ["rows", "11", "10"] in table
    assert "missing: 1 (train/happy/gone.png)" in ended.stdout
    assert "unreadable: 1 (train/happy/broken.JPG" in ended.stdout
    assert "in more than one split: 1 (test/happy/leak.png = train/happy/0000.png)" in ended.stdout
    assert "same image, different labels: 1" in ended.stdout
    assert "splits from the names of folders" in ended.stderr
    assert not list(troubled.parent.glob("*.h5*"))


def test_faces_of_one_file_are_no_copies(ig3d: Run, tmp_path: Path) -> None:
    write_image(tmp_path / "image" / "origin" / "a.jpg")
    (tmp_path / "label.lst").write_text("a.jpg 0 1 1 9 9 3.5 0\na.jpg 1 1 9 19 12 3.5 3\n")
    ended = ig3d("datasets", "check", tmp_path)
    assert "expw, 2 samples in 1 image" in ended.stdout
    assert "same image, different labels: none" in ended.stdout
    assert "face boxes of the dataset: 2" in ended.stdout


def fer_table(root: Path) -> None:
    rows = [f"{k % 7},{' '.join([str(k + 9)] * 2304)},Training" for k in range(5)]
    (root / "fer2013.csv").write_text("emotion,pixels,Usage\n" + "\n".join(rows))


def ckplus(root: Path) -> None:
    write_image(root / "cohn-kanade-images" / "S1" / "001" / "a.png")
    (root / "Emotion" / "S1" / "001").mkdir(parents=True)
    (root / "Emotion" / "S1" / "001" / "a_emotion.txt").write_text("3")


def compound(root: Path) -> None:
    (root / "compound" / "EmoLabel").mkdir(parents=True)
    (root / "compound" / "EmoLabel" / "list_patition_label.txt").write_text("train_1.jpg 3")
    write_image(root / "compound" / "Image" / "aligned" / "train_1_aligned.jpg")


def affectnet(root: Path) -> None:
    write_image(root / "val_set" / "images" / "1.jpg")
    (root / "val_set_annotation_without_lnd.csv").write_text("number,exp,val,aro\n1,2,0,0\n")


def affwild2(root: Path) -> None:
    write_image(root / "cropped_aligned" / "v" / "00001.jpg")
    (root / "VA_Set" / "Train_Set").mkdir(parents=True)
    (root / "VA_Set" / "Train_Set" / "v.txt").write_text("valence,arousal\n0,0\n")


def kaggle(root: Path) -> None:
    for split in ("train", "test"):
        write_image(root / "DATASET" / split / "1" / "a.jpg")


def affectnet_npy(root: Path) -> None:
    write_image(root / "train_set" / "images" / "5.jpg")
    (root / "train_set" / "annotations").mkdir()
    for kind, value in (("exp", "3"), ("val", "0.5"), ("aro", "-2")):
        np.save(root / "train_set" / "annotations" / f"5_{kind}.npy", np.array(value))


def affectnet_original(root: Path) -> None:
    write_image(root / "Manually_Annotated_Images" / "1" / "a.JPG")
    (root / "Manually_Annotated_file_lists").mkdir()
    (root / "Manually_Annotated_file_lists" / "training.csv").write_text("1/a.JPG,1,1,9,9,1;2,0,0,0\n")


def ferplus(root: Path) -> None:
    write_image(root / "FER2013Valid" / "fer0000000.png")
    (root / "FER2013Valid" / "label.csv").write_text('fer0000000.png,"(0, 0, 48, 48)",9,0,0,0,0,0,0,0,0,0\n')


def ferplus_pixels(root: Path) -> None:
    fer_table(root)
    rows = "\n".join(f"Training,fer{k:07d}.png,9,0,0,0,0,0,0,0,0,0" for k in range(5))
    (root / "fer2013new.csv").write_text(f"Usage,Image name,a,b,c,d,e,f,g,h,i,j\n{rows}\n")


def expw(root: Path) -> None:
    write_image(root / "image" / "origin" / "a.jpg")
    (root / "label").mkdir()
    (root / "label" / "label.lst").write_text("a.jpg 0 1 1 9 9 3.5 0\n")


def manifest(root: Path) -> None:
    write_image(root / "a.png")
    (root / "manifest.csv").write_text("path\na.png\n")


FORMS = {
    "fer2013": fer_table,
    "ckplus": ckplus,
    "rafdb-compound": compound,
    "rafdb": kaggle,
    "affectnet": affectnet,
    "affectnet npy": affectnet_npy,
    "affectnet original": affectnet_original,
    "affwild2-va": affwild2,
    "ferplus": ferplus,
    "ferplus pixels": ferplus_pixels,
    "expw": expw,
    "folder": lambda root: colour_folder(root, 1),
    "manifest": manifest,
}


@pytest.mark.parametrize("form", FORMS)
def test_each_is_recognised_as_what_it_is_and_extracted(ig3d: Run, tmp_path: Path, form: str) -> None:
    root, store, name = tmp_path / "data", tmp_path / "a.h5", form.split()[0]
    root.mkdir()
    FORMS[form](root)
    samples = recognise(root)
    assert samples.dataset == name
    ended = ig3d("extract", root, "--dataset", name, "--regressor", FAKE, "--jobs", "1", "--out", store)
    assert ended.returncode == 0, ended.stderr
    with CodeStore(store) as opened:
        assert opened.samples.id.tolist() == [sample.id for sample in samples_of(samples)]
        assert opened.samples.label.cat.codes.tolist() == samples.labels.tolist()
        assert opened.info.classes == samples.classes
        assert opened.ok.all(), opened.messages


def test_a_container_is_recognised_by_itself(tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("happy", "sad"):
            archive.writestr(f"{name}/a.png", image)
    samples = recognise(tmp_path / "x.zip")
    assert (samples.dataset, samples.classes) == ("zip", ("happy", "sad"))
    assert check_images(samples, jobs=1).sizes == {(24, 20): 2}
    with pytest.raises(DatasetError, match=r"folder: .* is a file, not a folder; pass --dataset zip"):
        list_samples(tmp_path / "x.zip", "folder")
    with pytest.raises(DatasetError, match=r"rafdb: .* is a file, not a folder; rafdb expects"):
        list_samples(tmp_path / "x.zip", "rafdb")


def test_a_layout_that_is_half_there_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "train_set" / "images" / "1.jpg")
    with pytest.raises(DatasetError, match="affectnet: no annotations/"):
        recognise(tmp_path)


def test_what_is_not_recognised_is_one_line(ig3d: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(
        DatasetError,
        match=r"no known layout in .*, which holds notes.txt; name the intended one with --dataset",
    ):
        recognise(tmp_path)
    assert ig3d("datasets", "check", tmp_path / "nowhere").returncode == 1


# ig3d split


def rafdb(root: Path, train: int = 70, test: int = 14) -> Path:
    lines = [
        f"{s}_{k:04d}.jpg {1 + k % 7}"
        for s, count in (("train", train), ("test", test))
        for k in range(count)
    ]
    (root / "basic" / "EmoLabel").mkdir(parents=True)
    (root / "basic" / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines))
    for number, line in enumerate(lines):
        write_image(
            root / "basic/Image/aligned" / line.replace(".jpg", "_aligned.jpg").split()[0], (number, 9, 80)
        )
    return root


def test_one_command_then_the_others_go_on(ig3d: Run, tmp_path: Path) -> None:
    root, table, store = rafdb(tmp_path / "raf"), tmp_path / "split.csv", tmp_path / "a.h5"
    ended = ig3d("split", root, "--dataset", "rafdb", "--val", "0.2", "--out", table)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1].endswith(
        f"56 train, 14 val, 14 test; pass it to the other commands as --split {table}"
    )
    options = ("--dataset", "rafdb", "--split", table)
    assert ig3d("extract", root, *options, "--regressor", FAKE, "--jobs", "1", "--out", store).returncode == 0
    with CodeStore(store) as opened:
        assert np.bincount(opened.samples.split.cat.codes).tolist() == [56, 14, 14]
        val = opened.samples.id[opened.samples.split.cat.codes == Split.val]
    # the same rows from the store as from the folder, as a table and as a store
    plain, again, carved = tmp_path / "plain.h5", tmp_path / "again.csv", tmp_path / "carved.h5"
    ig3d("extract", root, "--dataset", "rafdb", "--regressor", FAKE, "--jobs", "1", "--out", plain)
    assert ig3d("split", plain, "--val", "0.2", "--out", again).returncode == 0
    assert again.read_text() == table.read_text()
    assert ig3d("split", plain, "--val", "0.2", "--out", carved).returncode == 0
    with CodeStore(carved) as opened, CodeStore(plain) as before:
        assert opened.verify() == []
        assert opened.samples.id[opened.samples.split.cat.codes == Split.val].tolist() == val.tolist()
        for name in before.blocks:
            assert np.array_equal(opened.codes(name), before.codes(name), equal_nan=True)
        assert np.array_equal(opened.column("sample/digest"), before.column("sample/digest"))
    # no store is written over, not even by its own kind; the table is made again
    assert ig3d("split", plain, "--val", "0.2", "--out", carved).returncode == 2
    assert ig3d("split", plain, "--val", "0.2", "--out", again).returncode == 0
    # it is no store of that extraction
    ended = ig3d("extract", root, "--dataset", "rafdb", "--regressor", FAKE, "--jobs", "1", "--out", carved)
    assert ended.returncode == 1 and "split: " in ended.stderr


def test_a_random_split_is_written_as_a_table(ig3d: Run, tmp_path: Path) -> None:
    root, table, store = colour_folder(tmp_path / "data", 20), tmp_path / "split.csv", tmp_path / "a.h5"
    drawn = list_samples(root, "folder").samples[["id", "split"]]
    for options in ((), ("--val", "0.2")):
        ended = ig3d("split", root, *options, "--out", table)
        assert ended.returncode == 0 and "stratified split 0.6/0.2/0.2" in ended.stderr
        assert pd.read_csv(table).equals(drawn.astype(str))
    ended = ig3d("split", root, "--val", "0.1", "--out", table)
    assert "stratified split 0.7/0.1/0.2" in ended.stderr
    # the splits of a store are written as they are
    ig3d("extract", root, "--regressor", FAKE, "--jobs", "1", "--split-seed", "3", "--out", store)
    ended = ig3d("split", store, "--out", table)
    assert ended.returncode == 0 and "written unchanged" in ended.stderr
    drawn = list_samples(root, "folder", DatasetOptions(seed=3)).samples[["id", "split"]]
    assert pd.read_csv(table).equals(drawn.astype(str))
    ended = ig3d("split", store, "--val", "0.1", "--out", table)
    assert ended.returncode == 1 and "already has a val split" in ended.stderr
    ended = ig3d("split", root, "--val", "0.9", "--out", table)
    assert ended.returncode == 2 and "0.9 is not between 0 and 0.8" in ended.stderr


def test_groups_of_a_store_are_kept_whole(ig3d: Run, tmp_path: Path) -> None:
    root, table, store = rafdb(tmp_path / "raf"), tmp_path / "split.csv", tmp_path / "a.h5"
    ig3d("extract", root, "--dataset", "rafdb", "--regressor", FAKE, "--jobs", "1", "--out", store)
    assert ig3d("split", store, "--groups", r"(\d)$", "--val", "0.3", "--out", table).returncode == 0
    written = pd.read_csv(table)
    last_digit = {name: set(rows["id"].str[-1]) for name, rows in written.groupby("split")}
    assert len(last_digit["val"]) == 3 and not last_digit["val"] & last_digit["train"]


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("--out", "x.txt"), "pass --out with a name that ends in .csv", 2),
        (("--out", "x.h5"), "pass --out with a name that ends in .csv", 2),
        (("--out", "theirs.csv"), "exists and is no split table", 2),
        (("--out", "x.csv", "--val", "2"), "2.0 is not between 0 and 1", 2),
    ],
)
def test_split_refusals(
    ig3d: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    rafdb(tmp_path / "raf", 7, 7)
    (tmp_path / "theirs.csv").write_text("path,label\n")
    ended = ig3d("split", tmp_path / "raf", "--dataset", "rafdb", *arguments)
    assert ended.returncode == code and message in ended.stderr
    assert len(ended.stderr.strip().splitlines()[-1].splitlines()) == 1


def test_bad_split_option(ig3d: Run, tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 2)
    for given in ("nowhere.csv", "0.5,0.5", "a,b,c"):
        ended = ig3d("extract", root, "--split", given, "--out", tmp_path / "a.h5")
        assert ended.returncode == 2
        assert "pass a table of ig3d split, or three numbers" in ended.stderr
    ended = ig3d("extract", root, "--split", "0.9,0.9,0.9", "--out", tmp_path / "a.h5")
    assert "are not three fractions" in ended.stderr


def test_label_map_on_the_command_line(ig3d: Run, tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 2, classes=("1", "2"))
    ended = ig3d("datasets", "check", root, "--label-map", "1=surprise,2=fear")
    assert "labels as mapped: 1 = surprise, 2 = fear" in ended.stderr and "surprise" in ended.stdout
    assert DatasetOptions(label_map="rafdb").label_map == "rafdb"
    ended = ig3d("datasets", "check", root)
    assert "WARNING labels are bare digits (1, 2)" in ended.stderr


# recognised layouts, and reasons for refusals

SEVEN = ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")


def seven(root: Path, name: str) -> Path:
    for number, label in enumerate(SEVEN):
        for part in ("Train", "Val"):
            write_image(root / part / label / name.format(number % 3, number + 10))
    return root


def test_class_folders_of_known_datasets_are_recognised_by_their_files(tmp_path: Path) -> None:
    assert recognise(seven(tmp_path / "a", "Film{}_000519240_000000{}.png")).dataset == "sfew"
    assert recognise(seven(tmp_path / "b", "Training_{1}.jpg")).dataset == "fer2013"
    own = recognise(seven(tmp_path / "c", "img_{1}.jpg"))
    assert own.dataset == "folder" and "also fits fer2013 and sfew: choose with --dataset" in own.notes


def test_the_reason_of_an_adapter_that_sees_its_layout_is_shown(tmp_path: Path) -> None:
    for name in ("happy", "Happiness", "sad"):
        write_image(tmp_path / "a" / name / "1.png")
    with pytest.raises(UsageError, match=r"happy occurs twice in Happiness, happy, sad"):
        recognise(tmp_path / "a")
    for name in ("0", "1"):
        write_image(tmp_path / "b" / name / "1.png")
    with pytest.raises(UsageError, match=r"'1=happy' has no class for 0"):
        recognise(tmp_path / "b", DatasetOptions(label_map="1=happy"))
    expw(tmp_path / "c")
    with pytest.raises(UsageError, match="the labels of expw have a fixed meaning"):
        recognise(tmp_path / "c", DatasetOptions(label_map="rafdb"))


def test_a_manifest_that_is_named_is_taken_before_what_lies_there(tmp_path: Path) -> None:
    fer_table(tmp_path)
    (tmp_path / "mine.csv").write_text("path,label,valence,arousal\na.png,joy,0.5,-2\n")
    samples = recognise(tmp_path, DatasetOptions(manifest=str(tmp_path / "mine.csv")))
    assert samples.dataset == "manifest"


def test_copies_that_leak_and_are_disputed_are_listed_once(ig3d: Run, tmp_path: Path) -> None:
    for path in ("train/happy/1.png", "test/sad/1.png"):
        write_image(tmp_path / path)
    out = ig3d("datasets", "check", tmp_path).stdout
    assert "in more than one split: 1 (test/sad/1.png = train/happy/1.png)" in out
    assert "same image, different labels: 1 (the same)" in out


def test_valence_without_arousal_is_counted_apart(ig3d: Run, tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path,valence,arousal\na.png,0.5,-2\nb.png,0.5,0.5\n")
    out = ig3d("datasets", "check", tmp_path).stdout
    assert "valence and arousal: 1 sample with both (valence 2, arousal 1)" in out
