"""Runs with few or no usable images end with the commonest reasons, and with exit code 1 where none is usable."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import FAKE, Ended, colour_folder, write_image

Run = Callable[..., Ended]


def extracted(ig3d: Run, tmp_path: Path, root: Path, *options: object) -> Ended:
    return ig3d("extract", root, *options, "--regressor", FAKE, "--jobs", 1, "--out", tmp_path / "a.h5")


def with_password(path: Path, names: list[str], content: bytes) -> Path:
    """A zip whose members are marked as encrypted, with content to match."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    raw = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = raw.find(mark)
        while at >= 0:
            raw[at + place] |= 1
            at = raw.find(mark, at + 4)
    path.write_bytes(raw)
    return path


def test_a_zip_with_a_password(tmp_path: Path, ig3d: Run) -> None:
    names = [f"{folder}/{n}.png" for folder in ("happy", "sad") for n in range(4)]
    ended = extracted(
        ig3d, tmp_path, with_password(tmp_path / "a.zip", names, bytes(500)), "--dataset", "zip"
    )
    assert ended.returncode == 1
    assert "unreadable: 8 rows (happy/0, happy/1, happy/2 and 5 more): encrypted: the zip has" in ended.stderr
    assert "none of 8 rows is ok" in ended.stderr
    assert "8 rows (unreadable 8)" in ended.stdout
    again = extracted(ig3d, tmp_path, tmp_path / "a.zip", "--dataset", "zip")
    assert again.returncode == 1
    assert "password" in again.stderr


def test_the_only_row_is_not_ok(tmp_path: Path, ig3d: Run) -> None:
    (tmp_path / "images" / "happy").mkdir(parents=True)
    (tmp_path / "images" / "happy" / "a.png").write_bytes(b"x")
    ended = extracted(ig3d, tmp_path, tmp_path / "images")
    assert ended.returncode == 1 and "the only row is not ok; the reasons are above" in ended.stderr


def manifest(root: Path, paths: list[str]) -> None:
    with (root / "manifest.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([("path", "label"), *((path, "happy") for path in paths)])


def test_files_that_lie_one_folder_deeper(tmp_path: Path, ig3d: Run) -> None:
    colour_folder(tmp_path / "data" / "images", 3)
    manifest(tmp_path / "data", [f"{folder}/{n:04d}.png" for folder in ("happy", "sad") for n in range(3)])
    ended = extracted(ig3d, tmp_path, tmp_path / "data", "--dataset", "manifest")
    assert ended.returncode == 1
    assert "missing: 6 rows (happy/0000, happy/0001, happy/0002 and 3 more): no such file" in ended.stderr
    hint = f"the files are in {tmp_path / 'data' / 'images'}: pass it as ROOT"
    assert hint in " ".join(ended.stderr.split())


def test_few_usable_rows_are_reported_with_the_commonest_reasons_first(tmp_path: Path, ig3d: Run) -> None:
    root = colour_folder(tmp_path / "data", 1)
    for name, content, count in (("page", b"<html>", 4), ("lfs", b"version https://git-lfs.github.com", 2)):
        for n in range(count):
            (root / "sad" / f"{name}{n}.jpg").write_bytes(content)
    ended = extracted(ig3d, tmp_path, root)
    assert ended.returncode == 0
    pages, pointers = (
        ended.stderr.index("unreadable: 4 rows ("),
        ended.stderr.index("unreadable: 2 rows ("),
    )
    assert pages < pointers
    assert "HTML" in ended.stderr[pages:pointers]
    assert "git lfs pull" in ended.stderr[pointers:]


def test_few_unreadable_rows_are_named_by_extract_and_inspect(tmp_path: Path, ig3d: Run) -> None:
    root = colour_folder(tmp_path / "data", 3)
    (root / "sad" / "page.jpg").write_bytes(b"<html>")
    ended = extracted(ig3d, tmp_path, root)
    assert ended.returncode == 0
    reason = "unreadable: 1 row (sad/page): HTML"
    for text in (ended.stderr, ig3d("inspect", tmp_path / "a.h5").stdout):
        assert reason in text and "other reason" not in text


def test_rare_reasons_are_counted(tmp_path: Path, ig3d: Run) -> None:
    root = colour_folder(tmp_path / "data", 8)
    for kind in (b"<html>", b"%PDF", b"8BPS", b"PK\3\4", b"Rar!", b"BZh", b"%!PS"):
        (root / "sad" / f"{kind.hex()}.jpg").write_bytes(kind)
    stderr = extracted(ig3d, tmp_path, root).stderr
    assert stderr.count("unreadable: 1 row") == 5 and "and 2 other reasons; ig3d export --csv" in stderr


def test_few_rows_without_a_face_are_only_counted(tmp_path: Path, ig3d: Run) -> None:
    root = colour_folder(tmp_path / "data", 3)
    write_image(root / "sad" / "black.png", (0, 0, 0))
    ended = extracted(ig3d, tmp_path, root)
    assert "no_face 1" in ended.stdout and "no_face: " not in ended.stderr
    assert "no_face: 1 row (sad/black): no face found" in ig3d("inspect", tmp_path / "a.h5").stdout


def test_reasons_that_differ_in_numbers_only_are_one(tmp_path: Path, ig3d: Run) -> None:
    root = colour_folder(tmp_path / "data", 1)
    whole = (root / "sad" / "0000.png").read_bytes()
    for n in range(1, 6):
        (root / "sad" / f"cut{n}.png").write_bytes(whole[: -30 - n])
    ended = extracted(ig3d, tmp_path, root)
    assert ended.stderr.count("unreadable: ") == 1
    assert "unreadable: 5 rows (sad/cut1, sad/cut2, sad/cut3 and 2 more): damaged" in ended.stderr


@pytest.mark.parametrize("usable", [True, False])
def test_a_check_that_reads_no_image_fails(tmp_path: Path, ig3d: Run, usable: bool) -> None:
    (tmp_path / "data" / "happy").mkdir(parents=True)
    (tmp_path / "data" / "happy" / "a.jpg").write_bytes(b"<html>")
    if usable:
        colour_folder(tmp_path / "data", 1)
    ended = ig3d("datasets", "check", tmp_path / "data")
    assert ended.returncode == (0 if usable else 1)
    assert "unreadable: 1 (happy/a.jpg: HTML" in ended.stdout
