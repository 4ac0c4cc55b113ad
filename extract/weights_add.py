"""Recognising official files by their contents, and adding the user's copies.

A file is identified by its hash, else by its contents (:data:`FILE_KINDS`). Names only distinguish releases of one
kind. Files are written under a temporary name and renamed when they are complete.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import WeightsError, listed
from ..features.atomic import file_sha256, replacing
from ..features.safe_pickle import printable, read_arrays
from .weights import best_checkpoint, first_folder, is_published, write_record
from .weights_table import (
    FILE_KINDS,
    MAX_BYTES,
    TORCHSCRIPT,
    WEIGHTS_FILES,
    FileKind,
    WeightsFile,
    weights_file,
)

# Suffixes of the official files in distributions, which also contain documents and pictures.
_SUFFIXES = (".ckpt", ".pkl", ".pt", ".pth", ".tar", ".npy", ".npz", ".task", ".tflite")
_NOT_USED = re.compile(r"(?i)male|no_?jaw")
_SETTINGS = "cfg.yaml"


def recognise(path: Path) -> FileKind:
    """Kind of an official file by its contents; executes nothing of it.

    Raises
    ------
    WeightsError : the file is unreadable, of no kind in :data:`FILE_KINDS`, or its arrays have other shapes; the
        message describes the contents.
    """
    entries = _entries(path)
    for kind in FILE_KINDS:
        if all(mark in entries for mark in kind.marks):
            _check_shapes(path, kind, entries)
            return kind
    raise WeightsError(f"{path}: is {_describe(entries)}, not one of the files that ig3d weights lists")


def _check_shapes(path: Path, kind: FileKind, entries: Mapping[str, Any]) -> None:
    """Raise an error if an entry does not exist or has another shape."""
    for key, official in kind.shapes.items():
        shape = getattr(entries.get(key), "shape", None)
        if (
            shape is None
            or len(shape) != len(official)
            or any(length not in (None, size) for length, size in zip(official, shape, strict=True))
        ):
            present = "missing" if shape is None else " x ".join(map(str, shape)) or "a number"
            needed = " x ".join("n" if length is None else str(length) for length in official)
            raise WeightsError(
                f"{path}: seems to be {kind.title}, but its entry {key} is {present}, not {needed}; get the official "
                "file"
            )


def _entries(path: Path) -> dict[str, Any]:
    """Contents of a file by their keys, two levels deep; for a task file, the names of its parts."""
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if any("/code/" in name for name in names):  # only torch can read it
                    return {TORCHSCRIPT: None}
                if any(_is_graph_of_task(name) for name in names):
                    damaged = archive.testzip()
                    if damaged is not None:
                        raise WeightsError(
                            f"{path}: the part {printable(damaged)} of the task file is damaged; get the file again"
                        )
                    return dict.fromkeys(names)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise WeightsError(
                f"{path}: the zip archive is damaged ({printable(error)}); get it again"
            ) from error
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
        return f"an object of {printable(name)}" if name else f"a {type(content).__name__}"
    first = ", ".join(printable(key, 60) for key in list(entries)[:3])
    return f"a table of {len(entries)} entries ({first}{', ...' if len(entries) > 3 else ''})"


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
        Its name in the table, needed for releases of the same kind without a published hash (EMOCA, FLAME, eyelids).

    Returns
    -------
    list of Added, one or more; an earlier file at the same place is replaced.

    Raises
    ------
    WeightsError : not recognised (with a description of the contents), damaged, ambiguous, or the disk is full.
    UsageError : ``name`` is not in the table.
    """
    wanted = None if name is None else weights_file(name)
    try:
        if path.is_dir():
            return _add_many(path, _files_of(path), wanted)
        if path.exists() and not path.is_file():  # reading a device or a pipe might never end
            raise WeightsError(
                f"{path}: is a device, a pipe or another special file; pass a file or a folder"
            )
        if _is_distribution(path):
            with _unpacked(path) as files:
                return _add_many(path, files, wanted)
        return [_add_one(path, path.absolute().parts, wanted)]
    except OSError as error:
        raise WeightsError(
            f"{error.filename or path}: cannot be copied: {printable(error.strerror or error)}"
        ) from error


def _recognise_as(entry: WeightsFile, path: Path) -> None:
    if not entry.kind:
        return
    kind = recognise(path)
    if kind.name != entry.kind:
        raise WeightsError(f"{path}: is {kind.title}, not {entry.name}; omit --as, or name the right file")


def _add_one(path: Path, parts: tuple[str, ...], wanted: WeightsFile | None) -> Added:
    """Copy a file to the weights folder; ``parts`` are the parts of its path, its own name last."""
    digest = file_sha256(path)
    entry = _which(path, digest, parts, wanted)
    if entry.wheel and not is_published(entry, digest):
        raise WeightsError(
            f"{path}: is another version of {entry.name}: sha256 {digest[:12]}..., not {entry.sha256[:12]}..."
        )
    target = first_folder() / entry.target
    if not (target.exists() and target.samefile(path)):
        with replacing(target) as temporary:
            shutil.copyfile(path, temporary)
        _add_settings(path, target)
    write_record(target, digest, kind=entry.kind)
    return Added(entry.name, target, digest)


def _which(path: Path, digest: str, parts: tuple[str, ...], wanted: WeightsFile | None) -> WeightsFile:
    """The entry of the table for a file: by its hash, else the only one of its kind, else by a name on its path."""
    entries = [*WEIGHTS_FILES.values(), *([wanted] if wanted else [])]
    published = next((entry for entry in entries if is_published(entry, digest)), None)
    if published is not None and wanted in (None, published):
        return published
    if wanted is not None:
        _recognise_as(wanted, path)
        return wanted
    kind = recognise(path)
    entries = [entry for entry in WEIGHTS_FILES.values() if entry.kind == kind.name]
    if not entries:
        raise WeightsError(f"{path}: is {kind.title}, not one of the files that ig3d weights lists")
    if len(entries) == 1:
        return entries[0]
    if kind.name == "flame" and _NOT_USED.search(parts[-1]):
        raise WeightsError(f"{path}: is FLAME's male or female model; add the generic model")
    for part in reversed(parts[-6:]):
        for entry in entries:
            if re.search(entry.hint, part, re.IGNORECASE):
                return entry
    choices = ", ".join(entry.name for entry in entries)
    raise WeightsError(
        f"{path}: is {kind.title}, but neither hash nor path identify the release; pass --as with one of {choices}"
    )


def _add_settings(path: Path, target: Path) -> None:
    """Copy EMOCA's settings file, which has the widths of the heads, from a folder above the checkpoint."""
    if target.suffix != ".ckpt":
        return
    for folder in path.absolute().parents[:4]:
        if (folder / _SETTINGS).is_file():
            with replacing(target.parent / _SETTINGS) as temporary:
                shutil.copyfile(folder / _SETTINGS, temporary)
            return


def _add_many(
    source: Path, files: list[tuple[Path, tuple[str, ...]]], wanted: WeightsFile | None
) -> list[Added]:
    """Copy all recognised files to the weights folder; without any, raise an error with the reasons."""
    added: dict[str, Added] = {}
    reasons: list[str] = []
    # if several are the same entry, the best is copied last
    for path, parts in sorted(files, key=lambda file: best_checkpoint(PurePosixPath(*file[1])), reverse=True):
        if wanted is not None and len(files) > 1 and _NOT_USED.search(parts[-1]):
            continue
        try:
            file = _add_one(path, parts, wanted)
        except WeightsError as error:
            reasons.append(str(error).replace(f"{path}: ", f"{printable(parts[-1])}: "))
        else:
            added[file.name] = file
    if not added:
        reason = f": {listed(reasons, 2)}" if reasons else ""
        raise WeightsError(f"{source}: has none of the files that ig3d weights lists{reason}")
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
        _is_graph_of_task(name) or name.rpartition("/")[2] == "data.pkl" for name in names
    )


def _is_graph_of_task(name: str) -> bool:
    """Whether a zip's member is a graph of a task file; a wheel has graphs in a package's folder."""
    return name.endswith(".tflite") and "/" not in name


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
        if total > MAX_BYTES:
            raise WeightsError(
                f"{path}: its contents have {total} bytes, more than any file that ig3d weights lists"
            )
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
                raise WeightsError(
                    f"{path}: the zip archive is damaged ({printable(error)}); get it again"
                ) from error
        yield files
