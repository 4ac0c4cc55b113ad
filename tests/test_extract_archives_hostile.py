"""Hostile and odd archives, pipes and devices: bounded memory and time, one clear line, or the status of a row."""

from __future__ import annotations

import io
import os
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import FAKE, Ended, colour_folder, write_image
from listed import samples_of
from PIL import Image

from ig3d.errors import DatasetError
from ig3d.extract.datasets import list_samples
from ig3d.extract.datasets.recognise import recognise
from ig3d.extract.read import Unreadable, read_image
from ig3d.extract.sources.archives import ZipMembers
from ig3d.extract.sources.storage import File

Run = Callable[..., Ended]
METHODS = {"stored": 0, "deflate": 8, "bzip2": 12, "lzma": 14}


def png() -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((40, 30), 50).save(stream, "PNG")
    return stream.getvalue()


def packed(method: str, content: bytes) -> bytearray:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", METHODS[method]) as archive:
        archive.writestr("happy/a.png", content)
    return bytearray(stream.getvalue())


@pytest.mark.parametrize("method", METHODS)
def test_zip_members_of_every_method(tmp_path: Path, method: str) -> None:
    (tmp_path / "a.zip").write_bytes(packed(method, png()))
    assert read_image(tmp_path / "a.zip!happy/a.png").pixels.shape == (30, 40, 3)


@pytest.mark.parametrize("method", METHODS)
def test_damaged_zip_members_are_unreadable(tmp_path: Path, method: str) -> None:
    whole = packed(method, png())
    for place in range(45, 400, 37):
        raw = bytearray(whole)
        raw[place : place + 9] = bytes(value ^ 0x5A for value in raw[place : place + 9])
        path = tmp_path / f"{place}.zip"
        path.write_bytes(raw)
        with pytest.raises(Unreadable, match="damaged"):
            read_image(f"{path}!happy/a.png")


@pytest.mark.parametrize("method", ["deflate", "bzip2", "lzma"])
@pytest.mark.parametrize("claimed", [1000, (1 << 29) + 1])
def test_zip_bombs_are_not_inflated(tmp_path: Path, method: str, claimed: int) -> None:
    import tracemalloc

    raw = packed(method, bytes(1 << 25))
    place = raw.find(b"PK\1\2") + 24
    raw[place : place + 4] = claimed.to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(raw)
    source = ZipMembers(File(str(tmp_path / "a.zip")))
    tracemalloc.start()
    try:
        with pytest.raises((Unreadable, zipfile.BadZipFile)):
            source.read("happy/a.png")
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_images_of_absurd_size_are_refused(tmp_path: Path, ig3d: Run) -> None:
    colour_folder(tmp_path / "data", 2)
    Image.new("1", (10_000, 10_000)).save(tmp_path / "data" / "sad" / "bomb.png")
    ended = ig3d("extract", tmp_path / "data", "--regressor", FAKE, "--jobs", 1, "--out", tmp_path / "a.h5")
    assert ended.returncode == 0, ended.stderr
    assert "ok 4 · unreadable 1" in ended.stdout


def test_many_empty_members_are_listed_in_linear_time(tmp_path: Path) -> None:
    def seconds(count: int) -> float:
        path = tmp_path / f"{count}.tar"
        with tarfile.open(path, "w") as tar:
            for n in range(count):
                tar.addfile(tarfile.TarInfo(f"{n:06d}.jpg"))
        started = time.process_time()
        assert len(list_samples(path, "webdataset")) == count
        with pytest.raises(Unreadable, match="empty"):
            read_image(f"{path}!{count - 1:06d}.jpg")
        return time.process_time() - started

    seconds(10)
    few = seconds(1500)
    assert seconds(6000) < 12 * few + 0.5


def chained(kind: bytes, count: int) -> bytes:
    """A tar with many long-name or pax headers in a row, which a parser may follow by recursion."""
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = kind, 512
    return b"".join(entry.tobuf() + bytes(512) for _ in range(count))


@pytest.mark.parametrize(
    "content",
    [
        chained(tarfile.GNUTYPE_LONGNAME, 5000),
        chained(tarfile.XHDTYPE, 5000),
        b"\x1f\x8b\x08" + bytes(2000),
        os.urandom(3000),
        b"",
        bytes(10_240),
    ],
    ids=["long names", "pax", "gzip", "noise", "empty", "zeros"],
)
def test_odd_tars_end_in_one_line(tmp_path: Path, ig3d: Run, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    ended = ig3d("datasets", "check", tmp_path / "a.tar", "--dataset", "webdataset")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert "Traceback" not in ended.stderr


def test_deep_json_beside_an_image_ends_in_one_line(tmp_path: Path, ig3d: Run) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (("a.png", png()), ("a.json", b"[" * 100_000)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    ended = ig3d("datasets", "check", tmp_path / "a.tar", "--dataset", "webdataset")
    assert ended.returncode == 1
    assert "is not a JSON object" in ended.stderr


def test_pipes_in_a_dataset_are_not_waited_for(tmp_path: Path, ig3d: Run) -> None:
    colour_folder(tmp_path / "data", 2)
    for name in (
        "sad/a.jpg",
        "sad/b",
        "sad/c.txt",
        "fer2013.csv",
        "label.lst",
        "manifest.csv",
        "d.zip",
        "e.tar",
        "f.parquet",
    ):
        os.mkfifo(tmp_path / "data" / name)
    ended = ig3d("extract", tmp_path / "data", "--regressor", FAKE, "--jobs", 1, "--out", tmp_path / "a.h5")
    assert ended.returncode == 0, ended.stderr
    assert "ok 4 · unreadable 1" in ended.stdout
    assert "link to no file or special file (8)" in ended.stderr
    assert recognise(tmp_path / "data").dataset == "folder"


@pytest.mark.parametrize("dataset", ["zip", "webdataset", "parquet", "folder", "fer2013", "manifest"])
@pytest.mark.parametrize("suffix", ["", ".zip", ".tar", ".parquet"])
def test_pipes_and_devices_as_datasets_are_refused(tmp_path: Path, dataset: str, suffix: str) -> None:
    os.mkfifo(tmp_path / f"a{suffix}")
    (tmp_path / f"b{suffix}").symlink_to("/dev/zero")
    for root in (tmp_path / f"a{suffix}", tmp_path / f"b{suffix}", Path("/dev/zero"), tmp_path):
        with pytest.raises(DatasetError):
            list_samples(root, dataset)


def test_a_pipe_where_an_archive_was_is_unreadable(tmp_path: Path) -> None:
    for name in ("a.zip", "a.tar", "a.parquet", "a.csv"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(Unreadable, match="regular file"):
            read_image(tmp_path / f"{name}!1")


def test_names_of_odd_digits_are_sorted(tmp_path: Path) -> None:
    for name in ("²", "10", "٣", "9", "1" * 200):
        write_image(tmp_path / f"{name}" / "a.png")
    assert len(list_samples(tmp_path, "folder")) == 5


def test_a_damaged_header_of_an_annotation_ends_in_one_line(tmp_path: Path, ig3d: Run) -> None:
    write_image(tmp_path / "train_set" / "images" / "1.png")
    (tmp_path / "train_set" / "annotations").mkdir()
    np.save(tmp_path / "train_set" / "annotations" / "1_exp.npy", np.array("1"))
    path = tmp_path / "train_set" / "annotations" / "1_exp.npy"
    path.write_bytes(path.read_bytes().replace(b"'shape': ()", b"'shape': (\xb5"))
    ended = ig3d("datasets", "check", tmp_path, "--dataset", "affectnet")
    assert ended.returncode == 1
    assert "does not hold a number" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_damaged_parquet_ends_in_one_line(tmp_path: Path, ig3d: Run) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"image": [png()], "label": [1]}), tmp_path / "a.parquet")
    raw = bytearray((tmp_path / "a.parquet").read_bytes())
    place = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    raw[place : place + 40] = bytes(40)
    (tmp_path / "a.parquet").write_bytes(raw)
    ended = ig3d("datasets", "check", tmp_path / "a.parquet", "--dataset", "parquet")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1, ended.stderr


def test_a_name_with_a_nul_in_a_list_is_one_row_that_is_not_there(tmp_path: Path) -> None:
    write_image(tmp_path / "image" / "origin" / "a.jpg")
    (tmp_path / "label").mkdir()
    lines = ("a.jpg 0 1 1 9 9 50.0 3", "b\0c.jpg 0 1 1 9 9 50.0 3")
    (tmp_path / "label" / "label.lst").write_text("\n".join(lines))
    assert sorted(sample.size_bytes > 0 for sample in samples_of(list_samples(tmp_path, "expw"))) == [
        False,
        True,
    ]


def test_an_image_file_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(Unreadable, match="absurdly large"):
        read_image(tmp_path / "a.jpg")


def test_parquet_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "rows").mkdir()
    image = pyarrow.nulls(2_000_000, pyarrow.binary())
    parquet.write_table(pyarrow.table({"image": image}), tmp_path / "rows" / "a.parquet")
    with pytest.raises(DatasetError, match="2,000,000 rows"):
        list_samples(tmp_path / "rows", "parquet")

    monkeypatch.setattr("ig3d.extract.sources.parquet.MAX_BYTES", 1 << 20)
    large = pyarrow.table({"image": [bytes([n]) * (1 << 19) for n in range(8)]})
    parquet.write_table(large, tmp_path / "b.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(Unreadable, match="absurdly large"):
        read_image(tmp_path / "b.parquet!3")


def test_a_damaged_table_of_annotations_is_made_anew(tmp_path: Path) -> None:
    write_image(tmp_path / "train_set" / "images" / "1.png")
    (tmp_path / "train_set" / "annotations").mkdir()
    np.save(tmp_path / "train_set" / "annotations" / "1_exp.npy", np.array("1"))
    first = list_samples(tmp_path, "affectnet")
    table = tmp_path / "train_set" / ".ig3d-annotations.npz"
    whole = table.read_bytes()
    arrays = dict(np.load(table))
    np.savez_compressed(table, **arrays)
    packed_whole = table.read_bytes()
    for content in (whole, packed_whole):
        for place in range(0, len(content), 61):
            damaged = bytearray(content)
            damaged[place : place + 3] = b"\xa5\x5a\xff"
            table.write_bytes(damaged)
            assert samples_of(list_samples(tmp_path, "affectnet")) == samples_of(first)
