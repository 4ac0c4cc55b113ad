"""Images inside containers and on remote storage: the same pixels as from files, and a reason for what is damaged."""

from __future__ import annotations

import errno
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from conftest import write_image

from ig3d.extract import sources
from ig3d.extract.read import Unavailable, Unreadable, read_image
from ig3d.extract.sources import parts_of, read_content, storage

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

COLOURS = [(200, 100, 50), (10, 20, 30), (90, 120, 150)]


def png(colour: tuple[int, int, int], tmp_path: Path) -> bytes:
    return write_image(tmp_path / "one.png", colour).read_bytes()


def tar_of(path: Path, files: dict[str, bytes], kind: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=kind) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def parquet_of(path: Path, images: list[bytes | None], *, struct: bool = True, group: int = 4) -> Path:
    cells = [{"bytes": image, "path": f"{i}.png"} for i, image in enumerate(images)] if struct else images
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    table = pa.table({"label": list(range(len(images))), "image": pa.array(cells, kind)})
    pq.write_table(table, path, row_group_size=group)
    return path


def colour(location: object) -> list[int]:
    return read_image(str(location)).pixels[0, 0].tolist()


def test_names_of_members_and_of_files() -> None:
    assert parts_of("/d/a.tar!x/y.jpg") == ("/d/a.tar", "x/y.jpg")
    assert parts_of("/d/a.zip!x!y.jpg") == ("/d/a.zip", "x!y.jpg")
    assert parts_of("s3://b/A.PARQUET!17") == ("s3://b/A.PARQUET", "17")
    assert parts_of("/d/hello!.jpg") == ("/d/hello!.jpg", "")
    assert parts_of("/d/a.tar.jpg") == ("/d/a.tar.jpg", "")


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_members_are_the_files(tmp_path: Path, kind: int) -> None:
    long = "n" * 180 + ".png"  # needs a separate header in the newer formats
    names = ["a.png", "./sub/b.png", "c.png" if kind == tarfile.USTAR_FORMAT else long]
    tar = tar_of(tmp_path / "a.tar", {n: png(c, tmp_path) for n, c in zip(names, COLOURS, strict=True)}, kind)
    for name, wanted in zip(names, COLOURS, strict=True):
        image = read_image(f"{tar}!{name.removeprefix('./')}")
        assert image.pixels[0, 0].tolist() == list(wanted)
        assert np.array_equal(image.digest, read_image(write_image(tmp_path / "f.png", wanted)).digest)


def test_a_tars_links_stand_for_their_files(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "a.tar", {"d/a.png": png(COLOURS[0], tmp_path)})
    with tarfile.open(tar, "a") as more:
        for name, kind, target in (
            ("e/b.png", tarfile.SYMTYPE, "../d/a.png"),
            ("c.png", tarfile.LNKTYPE, "d/a.png"),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            more.addfile(entry)
    assert colour(f"{tar}!e/b.png") == colour(f"{tar}!c.png") == list(COLOURS[0])


def test_zip_members_are_the_files(tmp_path: Path) -> None:
    files = {f"d/{i}.png": png(c, tmp_path) for i, c in enumerate(COLOURS)}
    archive = zip_of(tmp_path / "a.zip", files)
    assert [colour(f"{archive}!d/{i}.png") for i in range(3)] == [list(c) for c in COLOURS]


@pytest.mark.parametrize("struct", [True, False])
@pytest.mark.parametrize("group", [3, 100])
def test_parquet_rows_in_any_order(
    tmp_path: Path, struct: bool, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ig3d.extract.sources.parquet.BATCH_ROWS", 4)
    monkeypatch.setattr("ig3d.extract.sources.parquet.BATCHES_KEPT", 2)
    images = [png((i, 2 * i, 3 * i), tmp_path) for i in range(80)]
    table = parquet_of(tmp_path / "a.parquet", images, struct=struct, group=group)
    order = [*range(80), *np.random.default_rng(0).permutation(80)]
    assert [read_content(f"{table}!{row}") for row in order] == [images[row] for row in order]


def test_a_container_is_opened_once_however_many_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{i}.png": png((i, i, i), tmp_path) for i in range(50)}
    tar, archive = tar_of(tmp_path / "a.tar", files), zip_of(tmp_path / "a.zip", files)
    opened = []
    really_open: Callable[..., Any] = Path.open

    def counted(self: Path, *how: object, **more: object) -> object:
        opened.append(self.name)
        return really_open(self, *how, **more)

    monkeypatch.setattr(Path, "open", counted)
    for i in range(50):
        assert colour(f"{tar}!{i}.png") == colour(f"{archive}!{i}.png") == [i, i, i]
    assert sorted(opened) == ["a.tar", "a.zip"]


def test_a_container_written_anew_is_read_anew(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "a.tar", {"a.png": png(COLOURS[0], tmp_path)})
    assert colour(f"{tar}!a.png") == list(COLOURS[0])
    tar_of(tar, {"b.png": b"", "a.png": png(COLOURS[1], tmp_path)})
    assert colour(f"{tar}!a.png") == list(COLOURS[1])


def test_threads_share_a_container(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    files = {f"{i:03d}.png": png((i, 255 - i, i), tmp_path) for i in range(200)}
    places = [tar_of(tmp_path / "a.tar", files), zip_of(tmp_path / "a.zip", files)]
    table = parquet_of(tmp_path / "a.parquet", list(files.values()), group=50)
    locations = [f"{place}!{name}" for name in files for place in places]
    locations += [f"{table}!{row}" for row in range(200)]
    wanted = [files[name] for name in files for _ in places] + list(files.values())
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read_content, locations)) == wanted


@pytest.mark.parametrize("suffix", ["tar", "zip", "csv"])
def test_threads_read_one_archive_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    path = tmp_path / f"a.{suffix}"
    files = {str(i): png((i, i, i), tmp_path) for i in range(4)}
    if suffix == "csv":
        path.write_text("pixels\n" + "1 2 3 4\n" * 4)
    else:
        {"tar": tar_of, "zip": zip_of}[suffix](path, files)
    wanted = [read_content(f"{path}!{i}") for i in range(4)]
    all_reading, really_read = Barrier(4, timeout=20), storage._pread

    def together(*where: int) -> bytes:
        all_reading.wait()  # broken unless four threads come here
        return really_read(*where)

    monkeypatch.setattr(storage, "_pread", together)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(read_content, [f"{path}!{i}" for i in range(4)]))
    assert all(np.array_equal(one, other) for one, other in zip(read, wanted, strict=True))


def test_what_is_not_there_and_what_is_damaged(tmp_path: Path) -> None:
    image = png(COLOURS[0], tmp_path)
    tar = tar_of(tmp_path / "a.tar", {"a.png": image, "text.png": b"no image", "none.png": b""})
    for location, message in (
        (f"{tmp_path}/gone.tar!a.png", r"no such file: gone\.tar"),
        (f"{tmp_path}/gone.png", "^no such file$"),
        (f"{tar}!b.png", r"no such member of a\.tar"),
        (f"{zip_of(tmp_path / 'a.zip', {'a.png': image})}!b.png", r"no such member of a\.zip"),
        (f"{parquet_of(tmp_path / 'a.parquet', [image])}!1", r"no such member of a\.parquet"),
        (f"{tmp_path}/a.parquet!x", r"no such member of a\.parquet"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            read_image(location)
    for suffix in ("tar", "zip", "parquet"):
        (tmp_path / f"noise.{suffix}").write_bytes(np.random.default_rng(0).bytes(5000))
        (tmp_path / f"empty.{suffix}").touch()
        for name in ("noise", "empty"):
            with pytest.raises(Unreadable, match=rf"{name}\.{suffix} is damaged"):
                read_image(f"{tmp_path}/{name}.{suffix}!0")
    with pytest.raises(Unreadable, match="not an image"):
        read_image(f"{tar}!text.png")
    with pytest.raises(Unreadable, match="is empty"):
        read_image(f"{tar}!none.png")
    with pytest.raises(Unreadable, match="no bytes in this row"):
        read_image(f"{parquet_of(tmp_path / 'b.parquet', [None, image])}!0")
    pq.write_table(pa.table({"label": [1]}), tmp_path / "c.parquet")
    with pytest.raises(Unreadable, match="no column of image bytes among label"):
        read_image(f"{tmp_path}/c.parquet!0")


def test_a_container_that_is_cut_short_gives_what_is_left(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(40_000)
    tar = tar_of(tmp_path / "a.tar", {"a.png": png(COLOURS[0], tmp_path), "b.png": noise, "c.png": noise})
    tar.write_bytes(tar.read_bytes()[:30_000])
    assert colour(f"{tar}!a.png") == list(COLOURS[0])
    with pytest.raises(Unreadable, match="cut short"):
        read_image(f"{tar}!b.png")
    archive = zip_of(tmp_path / "a.zip", {"a.png": noise})
    content = bytearray(archive.read_bytes())
    content[1000:2000] = bytes(1000)
    archive.write_bytes(content)
    with pytest.raises(Unreadable, match=r"damaged in a\.zip"):
        read_image(f"{archive}!a.png")


class DriverError(Exception):
    """As drivers of remote storage have their own."""


@pytest.mark.parametrize("suffix", ["tar", "zip", "parquet", "csv"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(OSError(errno.EIO, "Input/output error"), "Input/output error", id="disk"),
        pytest.param(DriverError("connection reset"), "connection reset", id="driver"),
        pytest.param(TimeoutError(), "TimeoutError", id="timeout"),
        pytest.param(MemoryError(), "out of memory", id="memory"),
    ],
)
def test_a_read_error_is_not_reported_as_a_damaged_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, error: Exception, reason: str
) -> None:
    """Read errors of the storage, and the next read."""
    files = {str(i): np.random.default_rng(i).bytes(3000) for i in range(24)}
    path = tmp_path / f"a.{suffix}"
    if suffix == "csv":
        path.write_text("pixels\n" + "\n".join(f"{i} " * 900 for i in range(24)))
    elif suffix == "parquet":
        parquet_of(path, list(files.values()))
    else:
        {"tar": tar_of, "zip": zip_of}[suffix](path, files)
    wanted = {member: read_content(f"{path}!{member}") for member in files}
    reads, at, really_read = 0, 0, storage._pread

    def flaky(*where: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads == at:
            raise error
        return really_read(*where)

    monkeypatch.setattr(storage, "_pread", flaky)
    failed = 0
    for number in range(1, 100):
        at = number
        sources._open.cache_clear()
        reads, before = 0, failed
        for member, content in wanted.items():
            try:
                read = read_content(f"{path}!{member}")
            except Unavailable as exc:
                assert str(exc) == f"a.{suffix} could not be read: {reason}"
                failed += 1
                read = read_content(f"{path}!{member}")
            assert np.array_equal(read, content)
        if failed == before:
            break
        assert failed == before + 1
    else:
        pytest.fail("expected reads to end, got a hundred")
    assert failed > 2


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ENOMEM, errno.ESTALE])
def test_what_cannot_be_opened_now_may_be_another_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    image = png(COLOURS[0], tmp_path)
    archive = zip_of(tmp_path / "a.zip", {"a.png": image})
    really_open: Callable[..., Any] = io.open

    def refused(file: object, *how: Any, **more: Any) -> Any:
        if str(file).startswith(str(tmp_path)):
            raise OSError(number, os.strerror(number))
        return really_open(file, *how, **more)

    with monkeypatch.context() as patched:
        patched.setattr(io, "open", refused)
        with pytest.raises(Unavailable, match=f"^could not be read: {os.strerror(number)}$"):
            read_content(tmp_path / "one.png")
        with pytest.raises(Unavailable, match=rf"^a\.zip could not be read: {os.strerror(number)}$"):
            read_content(f"{archive}!a.png")
    assert read_content(tmp_path / "one.png") == read_content(f"{archive}!a.png") == image


def test_a_path_that_is_no_file_is_so_every_time(tmp_path: Path) -> None:
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "file").touch()
    for path in ("folder.zip!a.png", "folder.zip", "file/a.png", "a" * 300, "a\0b"):
        with pytest.raises(Unreadable, match="cannot be opened: ") as refused:
            read_content(f"{tmp_path}/{path}")
        assert refused.type is Unreadable, path


def test_storage_that_does_not_answer_may_another_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = pytest.importorskip("fsspec.implementations.memory")
    storage = memory.MemoryFileSystem()
    image = png(COLOURS[0], tmp_path)
    packed = tar_of(tmp_path / "a.tar", {"x.png": image}).read_bytes()
    storage.pipe({"/flaky/one.png": image, "/flaky/a.tar": packed})

    def silent(*_: object, **__: object) -> None:
        raise DriverError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(memory.MemoryFileSystem, "cat_file", silent)
        patched.setattr(memory.MemoryFileSystem, "open", silent)
        for path in ("one.png", "a.tar!x.png"):
            with pytest.raises(Unavailable, match=r"could not be read: DriverError: no answer$"):
                read_content(f"memory://flaky/{path}")
    for path in ("one.png", "a.tar!x.png"):
        assert read_content(f"memory://flaky/{path}") == image


def test_bombs_are_refused_before_they_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ig3d.extract.sources.archives as archives

    tar = tmp_path / "bomb.tar"
    entry = tarfile.TarInfo("a.png")
    entry.size = 1 << 40  # a header that claims a terabyte
    tar.write_bytes(entry.tobuf() + bytes(1024))
    with pytest.raises(Unreadable, match="absurdly large: 1,099,511,627,776 bytes"):
        read_image(f"{tar}!a.png")
    monkeypatch.setattr(archives, "MAX_BYTES", 1 << 20)
    bomb = zip_of(tmp_path / "bomb.zip", {"a.png": bytes(5 << 20)})
    assert bomb.stat().st_size < 1 << 14
    with pytest.raises(Unreadable, match="absurdly large"):
        read_image(f"{bomb}!a.png")


def test_remote_files_and_containers_are_read_as_local_ones(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    image = png(COLOURS[0], tmp_path)
    places = {
        "one.png": image,
        "a.tar": tar_of(tmp_path / "a.tar", {"x.png": image}).read_bytes(),
        "a.zip": zip_of(tmp_path / "a.zip", {"x.png": image}).read_bytes(),
        "a.parquet": parquet_of(tmp_path / "a.parquet", [image]).read_bytes(),
    }
    storage = fsspec.filesystem("memory")
    storage.pipe({f"/sources/{name}": content for name, content in places.items()})
    for path in ("one.png", "a.tar!x.png", "a.zip!x.png", "a.parquet!0"):
        assert colour(f"memory://sources/{path}") == list(COLOURS[0])
    with pytest.raises(FileNotFoundError, match=r"^no such file$"):
        read_image("memory://sources/two.png")
    with pytest.raises(FileNotFoundError, match=r"no such file: b\.tar"):
        read_image("memory://sources/b.tar!x.png")
