"""What happens to files during a run changes the rows of those files, and nothing else."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import FAKE, colour_folder
from PIL import Image
from slow_fakes import start, wait_for_shards

from ig3d.extract.config import ExtractConfig
from ig3d.extract.datasets import list_samples
from ig3d.extract.run import extract_codes
from ig3d.features.store import CodeStore
from ig3d.features.values import Status

CONFIG = ExtractConfig(regressor=FAKE, detector="none", batch_size=8)


def disturbed(root: Path, dataset: str, out: Path, disturb: Callable[[], None], *, after: int = 1) -> None:
    """A run during which something happens once that many shards are done."""
    process = start(root, out, "--dataset", dataset, "--detector", "none", "--jobs", 1)
    wait_for_shards(process, out, after)
    disturb()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "Traceback" not in said


def equal_but_for(calm: CodeStore, other: CodeStore, rows: np.ndarray) -> bool:
    """Whether two stores say the same of all but some rows, value by value."""
    same = [np.array_equal(calm.samples.id, other.samples.id)]
    for name in calm.blocks:
        same.append(np.array_equal(calm.codes(name)[~rows], other.codes(name)[~rows], equal_nan=True))
    for column in ("status", "message", "digest", "width", "height"):
        same.append(
            np.array_equal(getattr(calm.samples, column)[~rows], getattr(other.samples, column)[~rows])
        )
    for column in ("box", "score", "count", "transform"):
        pair = getattr(calm.faces, column)[~rows], getattr(other.faces, column)[~rows]
        same.append(np.array_equal(*pair, equal_nan=column != "count"))
    return all(same) and other.verify() == []


def test_files_that_vanish_during_a_run_are_missing_and_the_rest_is_equal(tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 250)
    extract_codes(list_samples(root, "folder"), tmp_path / "calm.h5", CONFIG, jobs=1)

    def remove_every_third() -> None:
        for path in sorted(root.rglob("*.png"))[::3]:
            path.unlink()

    disturbed(root, "folder", tmp_path / "a.h5", remove_every_third)
    with CodeStore(tmp_path / "calm.h5") as calm, CodeStore(tmp_path / "a.h5") as store:
        gone = store.samples.status == Status.missing
        assert 0 < gone.sum() <= len(range(0, 500, 3))
        assert (np.flatnonzero(gone) % 3 == 0).all()
        assert set(store.samples.message[gone]) == {"no such file"}
        assert equal_but_for(calm, store, gone)


@pytest.mark.parametrize("how", ["vanishes", "is cut short"])
def test_a_container_that_is_lost_during_a_run(tmp_path: Path, how: str) -> None:
    root = colour_folder(tmp_path / "data", 250)
    packed = tmp_path / "packed"
    packed.mkdir()
    for name in ("happy", "sad"):
        with zipfile.ZipFile(packed / f"{name}.zip", "w") as archive:
            for path in sorted((root / name).iterdir()):
                archive.write(path, path.name)
    extract_codes(list_samples(packed, "zip"), tmp_path / "calm.h5", CONFIG, jobs=1)

    def lose() -> None:
        lost = packed / "sad.zip"
        if how == "vanishes":
            lost.unlink()
        else:
            lost.write_bytes(lost.read_bytes()[:1000])

    disturbed(packed, "zip", tmp_path / "a.h5", lose)
    with CodeStore(tmp_path / "calm.h5") as calm, CodeStore(tmp_path / "a.h5") as store:
        lost = store.samples.status == (Status.missing if how == "vanishes" else Status.unreadable)
        assert lost.sum() and all(identifier.startswith("sad/") for identifier in store.samples.id[lost])
        message = (
            "no such file: sad.zip" if how == "vanishes" else "sad.zip is damaged: File is not a zip file"
        )
        assert set(store.samples.message[lost]) == {message}
        assert equal_but_for(calm, store, lost)


def test_a_100_megapixel_image_costs_its_own_row_only(tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 6)
    extract_codes(list_samples(root, "folder"), tmp_path / "calm.h5", CONFIG, jobs=1)
    Image.new("1", (10_000, 10_000)).save(root / "happy" / "0003.png")
    extract_codes(list_samples(root, "folder"), tmp_path / "a.h5", CONFIG, jobs=1)
    with CodeStore(tmp_path / "calm.h5") as calm, CodeStore(tmp_path / "a.h5") as store:
        large = store.samples.id == "happy/0003"
        assert store.samples.status[large] == Status.unreadable
        assert store.samples.message[large][0].startswith("absurdly large: more than")
        assert equal_but_for(calm, store, large)
