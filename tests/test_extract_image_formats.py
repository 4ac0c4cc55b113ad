"""Which files are samples: every image of an allowed format, with any suffix; links; what is left out."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_image
from listed import samples_of
from PIL import Image

from ig3d.extract.datasets import list_samples
from ig3d.extract.read import Unreadable, decode, read_image


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


ALLOWED = {
    "a.jfif": "JPEG", "b.jpe": "JPEG", "c": "JPEG", "d.jpg_large": "JPEG", "e.jpeg!d": "JPEG", "f.heic": "JPEG",
    "g.avif": "AVIF", "h.jp2": "JPEG2000", "i.ppm": "PPM", "j.dat": "PNG", "k.500": "WEBP", "l": "BMP", "m.img": "GIF",
    "n.1": "TIFF", "o": "AVIF", "p.jpg?w=3": "JPEG2000", "q.JFIF": "JPEG", "r.jpg~": "PPM",
}  # fmt: skip


def test_every_image_of_an_allowed_format_is_a_sample(tmp_path: Path) -> None:
    write_image(tmp_path / "sad" / "a.png")
    (tmp_path / "happy").mkdir()
    for name, kind in ALLOWED.items():
        (tmp_path / "happy" / name).write_bytes(encoded(kind))
    listed = list_samples(tmp_path, "folder")
    happy = {sample.path for sample in samples_of(listed) if sample.path.startswith("happy")}
    assert happy == {f"happy/{name}" for name in ALLOWED}
    assert all(read_image(tmp_path / path).pixels.shape == (16, 16, 3) for path in happy)
    assert "happy/k.500" in {sample.id for sample in samples_of(listed)}  # no image's suffix: part of the id
    assert not any("left out" in note for note in listed.notes)


def test_what_is_no_image_is_counted_by_kind_in_one_line(tmp_path: Path) -> None:
    write_image(tmp_path / "happy" / "a.png")
    for name, content in {
        "b.txt": b"x", "c.txt": b"y", "d.heic": b"\0\0\0\x18ftypheic", "e": b"<html>", "f.xyz": b"?", "g.bin": b"",
        "Thumbs.db": b"x", "._a.png": b"x",
    }.items():  # fmt: skip
        (tmp_path / "happy" / name).write_bytes(content)
    (tmp_path / "happy" / "h").symlink_to("nowhere")
    listed = list_samples(tmp_path, "folder")
    assert len(listed) == 1
    (note,) = (note for note in listed.notes if "left out" in note)
    assert sorted(note.removeprefix("left out: ").split(", ")) == [
        ".txt (2)", ".xyz (1)", "HEIC (1)", "HTML (1)", "empty file (1)", "link to no file or special file (1)"
    ]  # fmt: skip


def test_a_large_folder_is_listed_without_opening_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.jpg", "c.avif"):
        (tmp_path / "happy").mkdir(exist_ok=True)
        (tmp_path / "happy" / name).write_bytes(b"x")
    (tmp_path / "happy" / "notes.txt").write_bytes(b"x")

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(args)

    monkeypatch.setattr("builtins.open", refuse)
    assert len(list_samples(tmp_path, "folder")) == 3


def test_images_in_archives_by_content_and_with_backslashes(tmp_path: Path) -> None:
    for folder in ("z", "w"):
        (tmp_path / folder).mkdir()
    with zipfile.ZipFile(tmp_path / "z" / "a.zip", "w") as archive:
        for name in ("happy\\a.png", "sad\\b.jfif", "sad/c", "happy/d.xyz"):
            archive.writestr(name, encoded("PNG"))
        archive.writestr("happy/e.txt", "x")
        archive.writestr("@eaDir/happy/f.png", "x")
    listed = list_samples(tmp_path / "z", "zip")
    assert sorted(sample.id for sample in samples_of(listed)) == ["happy/a", "happy/d.xyz", "sad/b", "sad/c"]
    for sample in samples_of(listed):
        assert read_image(f"{listed.root}/{sample.path}").pixels.shape == (16, 16, 3)
    assert any(".txt (1)" in note for note in listed.notes)

    with tarfile.open(tmp_path / "w" / "a.tar", "w") as tar:
        for name, content in {
            "1.avif": encoded("AVIF"), "1.cls": b"0", "2.picture": encoded("PNG"), "2.cls": b"1", "3.pth": b"x",
        }.items():  # fmt: skip
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    listed = list_samples(tmp_path / "w", "webdataset")
    assert {sample.path: sample.label for sample in samples_of(listed)} == {
        "a.tar!1.avif": 0,
        "a.tar!2.picture": 1,
    }
    assert any(".pth (1)" in note for note in listed.notes)


def test_links_are_followed_once_and_cycles_end(tmp_path: Path) -> None:
    far, root = tmp_path / "far", tmp_path / "root"
    write_image(far / "p0" / "a.png")
    write_image(far / "p1" / "deep" / "b.png")
    (far / "p0" / "other").symlink_to(far / "p1")  # each leads to the other
    (far / "p1" / "deep" / "back").symlink_to(far / "p0")
    write_image(root / "sad" / "c.png")
    (root / "happy").mkdir()
    (root / "happy" / "p0").symlink_to(far / "p0")
    (root / "happy" / "again").symlink_to(far / "p0")
    (root / "sad" / "up").symlink_to("..")
    (root / "sad" / "self").symlink_to("self")
    listed = list_samples(root, "folder")
    names = sorted(sample.path.rpartition("/")[2] for sample in samples_of(listed))
    assert names == ["a.png", "b.png", "c.png"]


def test_links_that_double_at_each_level_end_soon(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_image(root / "happy" / "a.png")
    for level in range(25):
        (tmp_path / f"far{level}").mkdir()
        for name in ("a", "b"):
            (tmp_path / f"far{level}" / name).symlink_to(tmp_path / f"far{level + 1}")
    write_image(tmp_path / "far25" / "b.png")
    (root / "happy" / "far").symlink_to(tmp_path / "far0")
    assert len(list_samples(root, "folder")) == 2


def test_two_classes_that_are_one_folder_by_links_are_warned_of(tmp_path: Path) -> None:
    write_image(tmp_path / "far" / "a.png")
    for name in ("happy", "sad"):
        (tmp_path / "root").mkdir(exist_ok=True)
        (tmp_path / "root" / name).symlink_to(tmp_path / "far")
    listed = list_samples(tmp_path / "root", "folder")
    assert len(listed) == 2
    assert any(note.startswith("WARNING happy and sad are one folder") for note in listed.notes)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(100), "HEIC"),
        (b"<!DOCTYPE html><html>404</html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "PostScript"),
        (encoded("TGA"), "not an image in a supported format"),
        (encoded("ICO"), "not an image in a supported format"),
        (encoded("AVIF")[: len(encoded("AVIF")) // 2], "damaged|supported format"),
        (encoded("WEBP")[:60], "damaged|supported format"),
    ],
    ids=["heic", "html", "lfs", "eps", "tga", "ico", "avif", "webp"],
)
def test_other_content_under_jpg_is_unreadable_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        decode(content)


def test_an_eps_starts_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "EPS")

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"started {args}")

    for name in ("Popen", "run", "check_call", "check_output"):
        monkeypatch.setattr(f"subprocess.{name}", refuse)
    with pytest.raises(Unreadable, match="PostScript"):
        decode(stream.getvalue())


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, RecursionError, ZeroDivisionError, EOFError])
def test_whatever_a_decoder_raises_is_that_images_status(
    tmp_path: Path, ig3d: Callable[..., object], monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    from conftest import FAKE, colour_folder

    from ig3d.features.store import CodeStore

    colour_folder(tmp_path / "data", 2)
    (tmp_path / "data" / "sad" / "bad.jpg").write_bytes(encoded("JPEG"))

    def fail(self: object) -> None:
        raise error("made up")

    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", fail)
    out = tmp_path / "a.h5"
    ended = ig3d("extract", tmp_path / "data", "--regressor", FAKE, "--jobs", 1, "--out", out)
    assert ended.returncode == 0, ended.stderr  # type: ignore[attr-defined]
    with CodeStore(out) as store:
        rows = dict(zip(store.samples.id.tolist(), store.status.tolist(), strict=True))
    assert sum(status == 1 for status in rows.values()) == 4
    assert rows["sad/bad"] > 1


def test_a_link_elsewhere_that_leads_back_to_the_root_is_not_followed(tmp_path: Path) -> None:
    for path in ("data/happy/1.png", "data/sad/2.png", "far/deep/3.png"):
        write_image(tmp_path / path)
    (tmp_path / "data/happy/far").symlink_to(tmp_path / "far")
    (tmp_path / "far/back").symlink_to(tmp_path / "data")
    (tmp_path / "far/class").symlink_to(tmp_path / "data/happy")
    samples = list_samples(tmp_path / "data", "folder")
    assert {sample.path for sample in samples_of(samples)} == {
        "happy/1.png",
        "happy/far/deep/3.png",
        "sad/2.png",
    }
