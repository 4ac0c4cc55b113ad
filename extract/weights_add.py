"""Putting official files in place: from the user's disk, or, when asked, from where they are published.

What a file is, is told by its hash, else by what it holds (:mod:`.weight_forms`); names only tell releases of one kind
apart. Files arrive under a temporary neighbour and are renamed when whole.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ..errors import UsageError, WeightsError, some
from ..features.unpickle import plain
from .weight_forms import recognise
from .weight_table import OFFICIAL, Official, official
from .weights import best_checkpoint, first_folder, is_published, write_record

BLOCK = 1 << 20
LARGEST = 4 << 30  # bytes; no official file comes near
TIMEOUT = 30.0
# What distributions contain beside documents and pictures.
_SUFFIXES = (".ckpt", ".pkl", ".pt", ".pth", ".tar", ".npy", ".npz", ".task")
_NOT_USED = re.compile(r"(?i)male|no_?jaw")
_SETTINGS = "cfg.yaml"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Added:
    """A file put in place: its name in the table and where it lies now."""

    name: str
    path: Path
    sha256: str


def add_weights(path: Path, *, name: str | None = None) -> list[Added]:
    """Recognise an official file, zip or unpacked folder, and copy what it holds into the first weights folder.

    Parameters
    ----------
    path : path
        A checkpoint, FLAME pickle, table or task file; a zip as distributed; a folder of such files.
    name : str, optional
        What it is, where releases of the same form cannot be told apart (EMOCA's, FLAME's, the eyelids).

    Returns
    -------
    list of Added, one or more; an earlier file in that place is replaced.

    Raises
    ------
    WeightsError : not recognised (says what was seen), damaged, ambiguous, or no room for it.
    UsageError : ``name`` is none of the table's.
    """
    wanted = None if name is None else official(name)
    try:
        if path.is_dir():
            return _add_many(path, _files_of(path), wanted)
        if _is_distribution(path):
            with _unpacked(path) as files:
                return _add_many(path, files, wanted)
        return [_add_one(path, path.absolute().parts, wanted)]
    except OSError as error:
        raise WeightsError(
            f"{error.filename or path}: expected to copy it, got: {plain(error.strerror or error)}"
        ) from error


def get_weights(
    name: str, *, base_url: str | None = None, progress: Callable[[int, int], None] | None = None
) -> Added:
    """Fetch one of the files that need no account, check its hash and put it in place.

    Parameters
    ----------
    name : str
        ``facemesh``, ``sfd`` or ``fan2d``.
    base_url : str, optional
        A mirror's folder (http or https) that has the file under its usual name.
    progress : callable, optional
        Called with the bytes that are there and their number in all (0 where the server does not say).

    Raises
    ------
    WeightsError : it needs an account, cannot be reached, or is not the published file.
    UsageError : no such name, or a mirror that is not on http or https.
    """
    entry = official(name)
    if not entry.url:
        raise WeightsError(
            f"{name}: expected a file that may be fetched without an account, got one that may not; "
            f"to get it: {entry.how}; then ig3d weights add FILE"
        )
    url = entry.url if base_url is None else f"{base_url.rstrip('/')}/{PurePosixPath(entry.place).name}"
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{name}: expected a mirror that starts with http:// or https://, got {plain(url)}")
    target = first_folder() / entry.place
    try:
        with _neighbour(target) as temporary:
            digest = _download(url, temporary, progress)
            if not digest.startswith(entry.sha256):
                raise WeightsError(
                    f"{name}: expected sha256 {entry.sha256} from {url}, got {digest}; nothing was kept"
                )
            _recognise_as(entry, temporary)
            temporary.replace(target)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            reason = error
        raise WeightsError(
            f"{name}: expected {url}, got: {plain(reason)}; fetch it on another machine, then ig3d weights add FILE"
        ) from error
    write_record(target, digest, form=entry.form)
    return Added(name, target, digest)


def _download(url: str, target: Path, progress: Callable[[int, int], None] | None) -> str:
    """Write what ``url`` gives to ``target``; its SHA-256."""
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, target.open("wb") as out:
        total = int(answer.headers.get("Content-Length") or 0)
        if total > LARGEST:
            raise ValueError(f"{total} bytes, more than any official file has")
        digest, done = hashlib.sha256(), 0
        while block := answer.read(BLOCK):
            done += len(block)
            if done > LARGEST:
                raise ValueError("more bytes than any official file has")
            digest.update(block)
            out.write(block)
            if progress is not None:
                progress(done, total)
        if total and done != total:
            raise ValueError(f"{done} of {total} bytes, then the connection ended")
        _to_disk(out)
    return digest.hexdigest()


def _recognise_as(entry: Official, path: Path) -> None:
    form = recognise(path)
    if form.name != entry.form:
        raise WeightsError(f"{path}: expected {entry.name}, got {form.title}; leave out --as")


def _add_one(path: Path, way: tuple[str, ...], wanted: Official | None) -> Added:
    """Put one file in place; ``way`` is the names on the way to it, the file's own last."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    entry = _which(path, digest, way, wanted)
    target = first_folder() / entry.place
    if not (target.exists() and target.samefile(path)):
        with _neighbour(target) as temporary:
            with path.open("rb") as source, temporary.open("wb") as out:
                shutil.copyfileobj(source, out, BLOCK)
                _to_disk(out)
            temporary.replace(target)
        _add_settings(path, target)
    write_record(target, digest, form=entry.form)
    return Added(entry.name, target, digest)


def _which(path: Path, digest: str, way: tuple[str, ...], wanted: Official | None) -> Official:
    """The table's entry: the one with this hash, else the only one of its form, else what a name on the way says."""
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
        raise WeightsError(f"{path}: expected FLAME's generic model, got another of its models; add that one")
    for part in reversed(way[-6:]):
        for entry in entries:
            if re.search(entry.hint, part, re.IGNORECASE):
                return entry
    choices = ", ".join(entry.name for entry in entries)
    raise WeightsError(
        f"{path}: expected to tell its release from its hash or name, got only that it is {form.title}; "
        f"say which: --as one of {choices}"
    )


def _add_settings(path: Path, target: Path) -> None:
    """EMOCA's settings file lies some folders above its checkpoint; it says how wide heads are to be read."""
    if target.suffix != ".ckpt":
        return
    for folder in path.absolute().parents[:4]:
        if (folder / _SETTINGS).is_file():
            with _neighbour(target.parent / _SETTINGS) as temporary:
                shutil.copyfile(folder / _SETTINGS, temporary)
                temporary.replace(target.parent / _SETTINGS)
            return


def _add_many(
    source: Path, files: list[tuple[Path, tuple[str, ...]]], wanted: Official | None
) -> list[Added]:
    """Put everything in place that is recognised; nothing recognised is an error that says why."""
    added: dict[str, Added] = {}
    reasons: list[str] = []
    # where several are one of the table's, the best is the last to be put there
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
    """A zip of files, as opposed to a checkpoint, table or task file, which are zips inside as well."""
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
    """The candidates of a zip as files in a temporary folder beside where they will lie; gone afterwards."""
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
            # its own numbered folder and a name of ours: what the archive calls it is never a path here
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
                    shutil.copyfileobj(source, out, BLOCK)
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
                raise WeightsError(f"{path}: expected a sound zip archive, got: {plain(error)}") from error
        yield files


@contextmanager
def _neighbour(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target``, removed afterwards where it was not renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())
