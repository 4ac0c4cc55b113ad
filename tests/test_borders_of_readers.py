"""Damaged files whose readers raise unusual exceptions: one line of error, or one row that failed."""

from __future__ import annotations

import io
import json
import os
import re
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Ended, colour_folder
from made_up_features import make

from ig3d.console import progress_bar, steps

OPEN_HEADER = np.lib.format.magic(1, 0) + b"\x76\x00" + b"{'descr': '<f4', 'shape': (3,".ljust(117) + b"\n"
DEEP = "[" * 100_000


def npz(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(value: object) -> bytes:
    handle = io.BytesIO()
    np.save(handle, np.asarray(value))
    return handle.getvalue()


NO_UNICODE = npy(["abc"]).replace("b".encode("utf-32-le"), b"\xff" * 4)


@pytest.mark.parametrize(
    "members",
    [
        {"features.npy": OPEN_HEADER},
        {"features": b"no array"},
        {"feature_network.npy": OPEN_HEADER},
        {"ids.npy": npy("ids")[:-3]},
        {"ids.npy": NO_UNICODE},
    ],
)
def test_damaged_features_are_one_line(
    ig3d: Callable[..., Ended], tmp_path: Path, members: dict[str, bytes]
) -> None:
    made = make(tmp_path / "made", 24)
    damaged = {name.removesuffix(".npy") for name in members}
    with np.load(made.features) as file:
        whole = {f"{name}.npy": npy(file[name]) for name in file.files if name not in damaged}
    path = npz(tmp_path / "x.npz", whole | members)
    ended = ig3d("fuse-features", "--features", path, "--3d-store", made.store, "--out", tmp_path / "out")
    assert ended.returncode == 1
    assert "x.npz: cannot be read as a NumPy file" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("content", [DEEP, "[1, 2]", '"expression_params"', '{"exp": {"a": 1}}', "9" * 5000])
def test_a_json_file_that_is_no_record_is_one_failed_row(
    ig3d: Callable[..., Ended], tmp_path: Path, content: str
) -> None:
    root = colour_folder(tmp_path / "data", 2)
    codes = tmp_path / "codes"
    paths = sorted(path.relative_to(root).with_suffix(".json") for path in root.rglob("*.png"))
    for row, path in enumerate(paths):
        (codes / path).parent.mkdir(parents=True, exist_ok=True)
        (codes / path).write_text(content if row == 0 else json.dumps({"expression_params": [0.1] * 50}))
    ended = ig3d("import", root, "--from", "smirk-json", "--codes", codes, "--out", tmp_path / "o.h5")
    assert ended.returncode == 0, ended.stderr
    with h5py.File(tmp_path / "o.h5") as file:
        status = file["sample/status"][()]
        assert file["sample/message"][0]
    assert (status == status[-1]).sum() == len(status) - 1


def test_an_array_with_a_damaged_header_is_one_failed_row(ig3d: Callable[..., Ended], tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 2)
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        path.rename(path.with_name(f"face{number}.png"))
    stems = sorted(path.stem for path in root.rglob("*.png"))
    for row, stem in enumerate(stems):
        folder = tmp_path / "codes" / f"{stem}00"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "exp.npy").write_bytes(OPEN_HEADER if row == 0 else npy(np.zeros(50, np.float32)))
    ended = ig3d(
        "import", root, "--from", "emoca-npy", "--codes", tmp_path / "codes", "--out", tmp_path / "o.h5"
    )
    assert ended.returncode == 0, ended.stderr
    with h5py.File(tmp_path / "o.h5") as file:
        status = file["sample/status"][()]
        assert file["sample/message"][0]
    assert (status == status[-1]).tolist() == [False, True, True, True]


def test_a_split_table_may_be_a_pipe_but_no_folder_or_device(
    ig3d: Callable[..., Ended], tmp_path: Path
) -> None:
    root = colour_folder(tmp_path / "data", 2)
    names = [path.relative_to(root).with_suffix("").as_posix() for path in sorted(root.rglob("*.png"))]
    os.mkfifo(tmp_path / "pipe")
    # opened for both, so that writing does not wait for the reader; a small table fits into the pipe
    pipe = os.open(tmp_path / "pipe", os.O_RDWR)
    os.write(pipe, "\n".join(["id,split", *(f"{name},train" for name in names)]).encode())
    threading.Timer(2.0, os.close, [pipe]).start()
    check = ("datasets", "check", root, "--dataset", "folder", "--split")
    ended = ig3d(*check, tmp_path / "pipe")
    assert ended.returncode == 0, ended.stderr
    for refused in (tmp_path, "/dev/zero", "x" * 5000):
        ended = ig3d(*check, refused)
        assert ended.returncode in (1, 2)
        assert re.search("(give|pass) .*table", ended.stderr) and "Errno" not in ended.stderr


@pytest.mark.parametrize("members", [{"ids": b"no array"}, {"ids.npy": NO_UNICODE}, {"classes": b"a,b"}])
def test_damaged_members_of_predictions_are_one_line(
    ig3d: Callable[..., Ended], tmp_path: Path, members: dict[str, bytes]
) -> None:
    made = make(tmp_path / "made", 24)
    path = npz(tmp_path / "x.npz", {"logits.npy": npy(np.zeros((24, 3)))} | members)
    ended = ig3d("fuse", "--2d-logits", path, "--3d-store", made.store, "--out", tmp_path / "out")
    assert ended.returncode == 1
    assert "x.npz: cannot be read as a NumPy file: " in ended.stderr


def test_names_in_progress_bars_are_data(capsys: pytest.CaptureFixture[str]) -> None:
    name = "[/b]\x1b[31m\u202e$x"
    with steps(name, 2, delay=0) as progress:
        progress(2)
    with progress_bar() as bar:
        bar.update(bar.add_task(name, total=1, detail=name), advance=1)
    shown = capsys.readouterr().err
    assert shown.count("[/b]\\x1b[31m\\u202e$x") == 3
    assert "\x1b[31m" not in shown and "\u202e" not in shown


def test_a_pipe_is_no_record_of_a_run(ig3d: Callable[..., Ended], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "record.json")
    for path in (tmp_path, tmp_path / "record.json", "/dev/zero"):
        ended = ig3d("report", path)
        assert ended.returncode == 1
        assert "is not a file; name the folder of a run" in ended.stderr
