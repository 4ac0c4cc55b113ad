"""Outputs: a path at which a folder, device or FIFO exists is refused before any work, and stays as it was."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import colour_folder
from toy_stores import make_samples, write_store

from ig3d.errors import Ig3dError, RunError
from ig3d.features.atomic import replacing


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_store(tmp_path / "toy.h5", make_samples(20))


COMMANDS = {
    "extract": lambda images, store, out: ["extract", images, "--out", out],
    "split": lambda images, store, out: ["split", store, "--out", out],
    "export": lambda images, store, out: ["export", store, f"--{out.suffix[1:]}", out],
    "preview": lambda images, store, out: ["preview", store, "--out", out],
    "join": lambda images, store, out: ["join", store, "--out", out],
    "train-2d": lambda images, store, out: ["train-2d", images, "--out", out],
    "logits": lambda images, store, out: ["logits", images, "--network", "timm:test_resnet", "--out", out],
    "predict": lambda images, store, out: ["predict", store, "--2d-logits", store, "--out", out],
    "plot": lambda images, store, out: [
        *("fuse", "--2d-logits", store, "--3d-store", store, "--plot", out),
    ],
}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("extract", "a.h5"),
        ("split", "a.csv"),
        ("export", "a.csv"),
        ("export", "a.npz"),
        ("export", "a.parquet"),
        ("preview", "a.png"),
        ("join", "a.h5"),
        ("train-2d", "a.safetensors"),
        ("logits", "a.npz"),
        ("predict", "a.csv"),
        ("plot", "a.png"),
    ],
)
@pytest.mark.parametrize("kind", ["FIFO", "folder"])
def test_every_command_refuses_an_output_that_is_no_regular_file(
    tmp_path: Path, ig3d: Callable, store: Path, command: str, name: str, kind: str
) -> None:
    images, out = colour_folder(tmp_path / "images", 2), tmp_path / name
    fifo(out) if kind == "FIFO" else out.mkdir()
    ended = ig3d(*COMMANDS[command](images, store, out))
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1 and str(out) in ended.stderr and kind in ended.stderr
    assert stat.S_ISFIFO(out.lstat().st_mode) or out.is_dir()


def test_an_output_under_a_file_is_refused(tmp_path: Path, ig3d: Callable, store: Path) -> None:
    (tmp_path / "file").write_text("x")
    for arguments in (
        ("export", store, "--csv", tmp_path / "file" / "sub" / "a.csv"),
        ("extract", colour_folder(tmp_path / "images", 2), "--out", tmp_path / "file" / "a.h5"),
    ):
        ended = ig3d(*arguments)
        assert ended.returncode == 1 and ended.stderr.count("\n") == 1
        assert f"{tmp_path / 'file'} is a file, not a folder" in ended.stderr
    assert "/dev/null is a file, not a folder" in ig3d("export", store, "--csv", "/dev/null/a.csv").stderr
    ended = ig3d("export", store, "--obj", tmp_path / "file")
    assert ended.returncode == 2 and "is a file; meshes are written to a folder" in ended.stderr


def test_a_link_to_a_device_is_refused(tmp_path: Path, ig3d: Callable, store: Path) -> None:
    out = tmp_path / "a.csv"
    out.symlink_to("/dev/null")
    ended = ig3d("export", store, "--csv", out)
    assert ended.returncode == 1 and "character device" in ended.stderr
    assert out.is_symlink() and stat.S_ISCHR(out.stat().st_mode)


def test_a_folder_of_results_with_a_fifo_in_it_is_refused(
    tmp_path: Path, ig3d: Callable, store: Path
) -> None:
    folder = tmp_path / "fused"
    folder.mkdir()
    fifo(folder / "record.json")
    ended = ig3d("fuse", "--2d-logits", store, "--3d-store", store, "--out", folder)
    assert ended.returncode == 1 and "record.json" in ended.stderr and "FIFO" in ended.stderr


def test_the_writers_refuse_it_too(tmp_path: Path) -> None:
    out = fifo(tmp_path / "a.h5")
    with pytest.raises(RunError, match="FIFO"):
        write_store(out, make_samples(20))
    with pytest.raises(Ig3dError, match="FIFO"), replacing(out) as temporary:
        temporary.write_text("never")
    assert [*tmp_path.iterdir()] == [out] and stat.S_ISFIFO(out.lstat().st_mode)
