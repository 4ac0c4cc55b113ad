"""``STORE.h5.parts`` that someone else has written to: links, names and shards that are not this run's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import FAKE, colour_folder, content

from ig3d.extract import run
from ig3d.extract.batches import Shard
from ig3d.extract.stages import extract_shards
from ig3d.features.store.format import content_hash


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 images, three shards."""
    return colour_folder(tmp_path_factory.mktemp("parts") / "data", 75)


@pytest.fixture
def extract(ig3d: Callable, images: Path, tmp_path: Path) -> Callable:
    def extract(*options: object) -> Any:
        return ig3d("extract", images, "--regressor", FAKE, "--jobs", 1, "--out", tmp_path / "a.h5", *options)

    return extract


@pytest.fixture
def parts(extract: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a run that was interrupted after two of its three shards."""
    done: list[Path] = []

    def interrupted(shards: list[Shard], *arguments: Any, **options: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(shards[0].path)
        return extract_shards(shards, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(run, "extract_shards", interrupted)
        assert extract().returncode == 130
    return tmp_path / "a.h5.parts"


@pytest.fixture
def wanted(ig3d: Callable, images: Path, tmp_path: Path) -> str:
    """Content of the undisturbed store."""
    assert (
        ig3d("extract", images, "--regressor", FAKE, "--jobs", 1, "--out", tmp_path / "b.h5").returncode == 0
    )
    return content(tmp_path / "b.h5")


def shard(parts: Path, number: int) -> Path:
    (path,) = parts.glob(f"{number:05d}-*.h5")
    return path


def refused(ended: Any, why: str) -> None:
    assert ended.returncode == 1, ended
    assert why in ended.stderr and "Traceback" not in ended.stderr, ended.stderr


@pytest.mark.parametrize("name", ["lock", "run.json", "shard", "temporary"])
def test_a_link_in_the_folder_is_refused_and_its_target_is_kept(
    extract: Callable, parts: Path, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "precious.txt"
    target.write_text("precious")
    names = {"shard": shard(parts, 0).name, "temporary": f".run.json.{'0' * 16}.tmp"}
    link = parts / names.get(name, name)
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    refused(extract(), "symbolic link")
    refused(extract("--restart"), "symbolic link")
    assert target.read_text() == "precious" and link.is_symlink()


def test_a_linked_folder_is_refused(extract: Callable, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "lock").write_text("precious")
    (tmp_path / "a.h5.parts").symlink_to(target)
    refused(extract(), "symbolic link")
    assert (target / "lock").read_text() == "precious" and [*target.iterdir()] == [target / "lock"]


def test_a_fifo_in_the_folder_is_refused(extract: Callable, parts: Path) -> None:
    (parts / "run.json").unlink()
    os.mkfifo(parts / "run.json")
    refused(extract(), "not a regular file")


def test_only_names_of_runs_are_deleted(extract: Callable, parts: Path, tmp_path: Path, wanted: str) -> None:
    for name in ("thesis.docx", "00001.h5", "photo.h5", ".hidden"):
        (parts / name).write_text("precious")
    (parts / "folder").mkdir()
    assert extract("--restart").returncode == 0
    assert content(tmp_path / "a.h5") == wanted
    assert sorted(path.name for path in parts.iterdir()) == [
        *(".hidden", "00001.h5", "folder", "photo.h5", "thesis.docx")
    ]


@pytest.mark.parametrize(
    "run_id", ["../../precious", "/tmp/x", "", "0123456789AB", "0123456789ab\n", "x" * 12, None, 7]
)
def test_a_run_id_out_of_the_pattern_is_never_a_path(
    extract: Callable, parts: Path, tmp_path: Path, wanted: str, run_id: object
) -> None:
    record = json.loads((parts / "run.json").read_text())
    (parts / "run.json").write_text(json.dumps(record | {"run_id": run_id}))
    refused(extract(), "run.json: damaged")
    assert extract("--restart").returncode == 0
    assert content(tmp_path / "a.h5") == wanted and not parts.exists()


def rehashed(path: Path, change: Callable[[h5py.File], object]) -> None:
    """A changed shard whose hash is right again."""
    with h5py.File(path, "r+") as file:
        change(file)
        file.attrs["content_sha256"] = content_hash(file)


def relabelled(file: h5py.File) -> None:
    file["sample/label"][0] = 1 - file["sample/label"][0]


def of_another_run(file: h5py.File) -> None:
    config = json.loads(file.attrs["config"])
    config["options"]["regressor"] = "other"
    file.attrs["config"] = json.dumps(config)


CHANGES = {
    "labels": relabelled,
    "groups": lambda file: file.__setitem__("sample/group", replaced(file, "sample/group", b"someone")),
    "splits": lambda file: file["sample/split"].__setitem__(0, 2),
    "valence": lambda file: file["sample/valence"].__setitem__(0, 0.5),
    "paths": lambda file: file["sample/path"].__setitem__(0, b"sad/0001.png"),
    "options of another run": of_another_run,
    "another regressor": lambda file: file.attrs.__setitem__("regressor", '{"name": "other"}'),
    "another basis": lambda file: file["codes/colour"].attrs.__setitem__("basis", "other"),
    "other classes": lambda file: file.attrs.__setitem__("classes", '["sad", "happy"]'),
}


def replaced(file: h5py.File, name: str, value: bytes) -> np.ndarray:
    n = len(file[name])
    del file[name]
    return np.array([value] * n)


@pytest.mark.parametrize("change", CHANGES)
def test_a_shard_of_other_rows_or_another_run_is_done_again(
    extract: Callable, parts: Path, tmp_path: Path, wanted: str, change: str
) -> None:
    rehashed(shard(parts, 0), CHANGES[change])
    ended = extract()
    assert ended.returncode == 0, ended
    assert content(tmp_path / "a.h5") == wanted


def test_a_shard_under_another_shards_name_is_done_again(
    extract: Callable, parts: Path, tmp_path: Path, wanted: str
) -> None:
    shard(parts, 0).write_bytes(shard(parts, 1).read_bytes())
    assert extract().returncode == 0
    assert content(tmp_path / "a.h5") == wanted


@pytest.mark.parametrize("how", ["byte in the file", "value with a right checksum"])
def test_a_changed_code_of_a_shard_never_reaches_the_store(
    extract: Callable, parts: Path, tmp_path: Path, wanted: str, how: str
) -> None:
    path = shard(parts, 1)
    with h5py.File(path, "r+") as file:
        chunk = file["codes/colour"].id.get_chunk_info(0)
        if how != "byte in the file":
            file["codes/colour"][5, 1] += 0.25
    if how == "byte in the file":
        raw = bytearray(path.read_bytes())
        raw[chunk.byte_offset + 40] ^= 0x10
        path.write_bytes(raw)
    assert extract().returncode == 0
    assert content(tmp_path / "a.h5") == wanted
