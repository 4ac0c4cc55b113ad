"""All or nothing: two writers never share a temporary file, and a store's name is on the disk when it is there."""

from __future__ import annotations

import errno
import gc
import os
import stat
from pathlib import Path

import h5py
import pytest
from listed import Sample, table_of

from ig3d.errors import StoreError
from ig3d.features.atomic import replacing
from ig3d.features.store import CodeStore
from ig3d.features.store.format import StoreInfo
from ig3d.features.store.writer import StoreWriter
from ig3d.features.values import Block, Rows, Status


def write_store(path: Path) -> StoreWriter:
    blocks = {"pose": Block(3, "rad", "x", "Rotation.")}
    rows = Rows.pending(1, blocks)
    rows.status[:] = Status.no_face
    with StoreWriter(path, StoreInfo("x", "/", ()), table_of([Sample("a", "a.png")]), blocks) as writer:
        writer.write(0, rows)
    return writer


def test_two_writers_of_one_name_and_one_process_id_do_not_meet(tmp_path: Path) -> None:
    final = tmp_path / "x.txt"
    with replacing(final) as first:
        first.write_text("first")
        with replacing(final) as second:  # as in another container, whose process has the same id
            second.write_text("second, longer")
        assert final.read_text() == "second, longer"
        assert first.read_text() == "first"
    assert final.read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_the_folder_of_a_store_is_flushed_once_the_store_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed, flush, final = [], os.fsync, tmp_path / "a.h5"

    def watched(handle: int) -> None:
        status = os.fstat(handle)
        flushed.append((stat.S_ISDIR(status.st_mode) and status.st_ino, final.exists()))
        flush(handle)

    monkeypatch.setattr(os, "fsync", watched)
    write_store(final)
    assert flushed == [(False, False), (tmp_path.stat().st_ino, True)]


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_folder_that_cannot_be_flushed_is_no_failure_and_a_disk_that_fails_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fails: bool
) -> None:
    def refused(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    if fails:
        with pytest.raises(StoreError, match=r"the store cannot be written: .*Input/output error"):
            write_store(tmp_path / "a.h5")
        return
    write_store(tmp_path / "a.h5")
    with CodeStore(tmp_path / "a.h5") as store:
        assert store.verify() == []


def test_a_closed_writer_leaves_no_open_hdf5_object(tmp_path: Path) -> None:
    """Objects that live longer could be freed during an interrupt."""

    def alive() -> int:
        return sum(type(one) in (h5py.Dataset, h5py.File) for one in gc.get_objects())

    gc.collect()
    before = alive()
    writer = write_store(tmp_path / "a.h5")
    assert alive() == before
    assert writer.path.exists()
