"""Changes of files during a run affect only the rows of these files."""

from __future__ import annotations

import errno
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from conftest import FAKE, colour_folder
from PIL import Image
from slow_fakes import start, wait_for_shards

from ig3d.extract import read, sources
from ig3d.extract.config import ExtractConfig
from ig3d.extract.datasets import list_samples
from ig3d.extract.run import extract_codes
from ig3d.extract.sources import storage
from ig3d.features.store import CodeStore
from ig3d.features.values import Status

CONFIG = ExtractConfig(regressor=FAKE, detector="none", batch_size=8)


def disturbed(root: Path, dataset: str, out: Path, disturb: Callable[[], None], *, after: int = 1) -> None:
    """A run during which something happens once that many shards are done."""
    process = start(root, out, "--dataset", dataset, "--detector", "none", "--jobs", 1)
    wait_for_shards(process, out, after)
    disturb()
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def equal_but_for(calm: CodeStore, other: CodeStore, rows: np.ndarray) -> bool:
    """Whether two stores say the same of all but some rows, value by value."""
    same = [np.array_equal(calm.samples.id, other.samples.id)]
    for name in calm.blocks:
        same.append(np.array_equal(calm.codes(name)[~rows], other.codes(name)[~rows], equal_nan=True))
    for column in ("status", "message", "digest", "width", "height"):
        pair = (one.column(f"sample/{column}")[~rows] for one in (calm, other))
        same.append(np.array_equal(*pair))
    for column in ("box", "score", "count", "landmark_box", "crop_box"):
        pair = calm.column(f"face/{column}")[~rows], other.column(f"face/{column}")[~rows]
        same.append(np.array_equal(*pair, equal_nan=column != "count"))
    return all(same) and other.verify() == []


def test_files_that_vanish_during_a_run_are_missing_and_the_rest_is_equal(tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 150)
    extract_codes(list_samples(root, "folder"), tmp_path / "calm.h5", CONFIG, jobs=1)

    def remove_every_third() -> None:
        for path in sorted(root.rglob("*.png"))[::3]:
            path.unlink()

    disturbed(root, "folder", tmp_path / "a.h5", remove_every_third)
    with CodeStore(tmp_path / "calm.h5") as calm, CodeStore(tmp_path / "a.h5") as store:
        gone = store.status == Status.missing
        assert 0 < gone.sum() <= len(range(0, 300, 3))
        assert (np.flatnonzero(gone) % 3 == 0).all()
        assert set(store.messages[gone]) == {"no such file"}
        assert equal_but_for(calm, store, gone)


def zips_of(root: Path, packed: Path) -> Path:
    """Each class of a folder as a zip."""
    packed.mkdir()
    for name in ("happy", "sad"):
        with zipfile.ZipFile(packed / f"{name}.zip", "w") as archive:
            for path in sorted((root / name).iterdir()):
                archive.write(path, path.name)
    return packed


@pytest.mark.parametrize("packed", [False, True])
def test_an_image_that_is_another_by_now_says_so(tmp_path: Path, packed: bool) -> None:
    root, kind = colour_folder(tmp_path / "data", 150), "folder"
    extract_codes(list_samples(root, kind), tmp_path / "calm.h5", CONFIG, jobs=1)
    if packed:
        root, kind = zips_of(root, tmp_path / "packed"), "zip"

    def grow() -> None:
        if packed:
            with zipfile.ZipFile(root / "new", "w") as archive:
                for number in range(150):
                    archive.writestr(f"{number:04d}.png", bytes(5000))
            (root / "new").replace(root / "sad.zip")
            return
        for path in (root / "sad").iterdir():
            path.write_bytes(path.read_bytes() + b"more")

    disturbed(root, kind, tmp_path / "a.h5", grow)
    with CodeStore(tmp_path / "calm.h5") as calm, CodeStore(tmp_path / "a.h5") as store:
        changed = store.status == Status.failed
        assert changed.sum() and all(name.startswith("sad/") for name in store.samples.id[changed])
        assert all("changed since it was listed: " in one for one in store.messages[changed])
        assert equal_but_for(calm, store, changed)


@pytest.mark.parametrize("how", ["vanishes", "is cut short"])
def test_a_container_that_is_lost_during_a_run(tmp_path: Path, how: str) -> None:
    packed = zips_of(colour_folder(tmp_path / "data", 150), tmp_path / "packed")
    extract_codes(list_samples(packed, "zip"), tmp_path / "calm.h5", CONFIG, jobs=1)

    def lose() -> None:
        lost = packed / "sad.zip"
        if how == "vanishes":
            lost.unlink()
        else:
            lost.write_bytes(lost.read_bytes()[:1000])

    disturbed(packed, "zip", tmp_path / "a.h5", lose)
    with CodeStore(tmp_path / "calm.h5") as calm, CodeStore(tmp_path / "a.h5") as store:
        lost = store.status == (Status.missing if how == "vanishes" else Status.unreadable)
        assert lost.sum() and all(identifier.startswith("sad/") for identifier in store.samples.id[lost])
        # it may be cut while it is being opened or read
        cut = "(sad.zip is damaged|damaged in sad.zip): .+"
        message = "no such file: sad.zip" if how == "vanishes" else cut
        assert all(re.fullmatch(message, one) for one in store.messages[lost])
        assert equal_but_for(calm, store, lost)


def test_a_100_megapixel_image_costs_its_own_row_only(tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 6)
    extract_codes(list_samples(root, "folder"), tmp_path / "calm.h5", CONFIG, jobs=1)
    Image.new("1", (10_000, 10_000)).save(root / "happy" / "0003.png")
    extract_codes(list_samples(root, "folder"), tmp_path / "a.h5", CONFIG, jobs=1)
    with CodeStore(tmp_path / "calm.h5") as calm, CodeStore(tmp_path / "a.h5") as store:
        large = store.samples.id == "happy/0003"
        assert store.status[large] == Status.unreadable
        assert store.messages[large][0].startswith("absurdly large: more than")
        assert equal_but_for(calm, store, large)


def test_a_fault_that_passes_fails_the_rows_it_met_and_a_retry_mends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One container that cannot be opened once; every tenth file while too many are open, or without memory for it."""
    root = colour_folder(tmp_path / "data", 50)
    packed = zips_of(root, tmp_path / "packed")
    open_local, read_file, decode = storage._open_local, sources.read_file, read.decode
    calls = 0

    def once(path: str) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError(errno.EIO, "Input/output error")
        return open_local(path)

    def sometimes(path: str) -> bytes:
        nonlocal calls
        calls += 1
        if calls % 10 == 0:
            raise OSError(errno.EMFILE, "Too many open files")
        return read_file(path)

    def without_memory(content: bytes) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls % 10 == 0:
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(read.Pillow, "open", Mock(side_effect=MemoryError))
                return decode(content)
        return decode(content)

    for dataset, where, (module, name, flaky), failed, message in (
        ("zip", packed, (storage, "_open_local", once), 1, "happy.zip could not be read: Input/output error"),
        ("folder", root, (sources, "read_file", sometimes), 10, "could not be read: Too many open files"),
        ("folder", root, (read, "decode", without_memory), 10, "could not be decoded: out of memory"),
    ):
        samples, calls = list_samples(where, dataset), 0
        calm = extract_codes(samples, tmp_path / f"{name}-calm.h5", CONFIG, jobs=1).store
        sources._open.cache_clear()
        with monkeypatch.context() as patched:
            patched.setattr(module, name, flaky)
            summary = extract_codes(samples, tmp_path / f"{name}.h5", CONFIG, jobs=1)
        assert summary.counts == {"ok": 100 - failed, "failed": failed}
        with CodeStore(calm) as one, CodeStore(summary.store) as other:
            lost = other.status == Status.failed
            assert set(other.messages[lost]) == {message}
            assert equal_but_for(one, other, lost)
        extract_codes(samples, summary.store, CONFIG, jobs=1, retry_failed=True)
        with CodeStore(calm) as one, CodeStore(summary.store) as other:
            assert one.content_sha256 == other.content_sha256
