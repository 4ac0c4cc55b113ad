"""What adapters share of the file system: finding images and lists, ids from paths, natural order."""

from __future__ import annotations

import csv
import os
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from heapq import nsmallest
from pathlib import Path

import numpy as np

from ...errors import DatasetError, number, some
from ...features.samples import SampleList, Samples, Split
from ..read import SUFFIXES
from ..sources import parts_of

_SPLIT_NAMES = {
    "train": Split.train, "training": Split.train, "train_set": Split.train, "train_aligned_faces": Split.train,
    "val": Split.val, "valid": Split.val, "validation": Split.val, "val_set": Split.val, "valid_set": Split.val,
    "validation_set": Split.val, "val_aligned_faces": Split.val,
    "test": Split.test, "testing": Split.test, "test_set": Split.test, "test_aligned_faces": Split.test,
}  # fmt: skip


def images_under(folder: Path, root: Path) -> Iterator[tuple[str, int]]:
    """POSIX path under ``root`` and size in bytes of each image under a folder, as the disk lists them.

    Nothing is held but the folders still to be listed, so that a million files cost no memory here. Links to folders
    are not followed, so none can loop; a link that leads nowhere has size -1.

    Raises
    ------
    DatasetError : a path reads as that of a member of a container.
    """
    prefix = "" if folder == root else posix(folder, root) + "/"
    waiting = [(os.fspath(folder), prefix)]
    while waiting:
        place, prefix = waiting.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, f"{prefix}{entry.name}/"))
                elif is_image(entry.name) and not is_folder(entry):
                    try:
                        size = entry.stat().st_size
                    except OSError:
                        size = -1
                    yield own_path(prefix + entry.name), size


def own_path(path: str) -> str:
    """The path itself, which must not read as that of a member of a container: such a file would never be found.

    Raises
    ------
    DatasetError : it does.
    """
    container, member = parts_of(path)
    if member:
        raise DatasetError(
            f"datasets: expected names that do not read as CONTAINER!MEMBER, got {path}, which means {member} inside "
            f"{container}; rename it"
        )
    return path


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file or a link to one; a link that leads to itself is none."""
    try:
        return entry.is_file()
    except OSError:
        return False


def is_image(name: str) -> bool:
    """Whether a file name is that of an image, whatever the case of its extension, and not of a hidden file."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122


def find_file(root: Path, names: Collection[str], *, skip: Collection[str] = ()) -> Path | None:
    """The first file or folder with one of ``names`` (lower case) under a root, the shallowest first.

    It looks where :func:`find_all` does.
    """
    return min(find_all(root, lambda name: name in names, skip=skip), default=None)


def find_all(
    root: Path, wanted: Callable[[str], bool], *, skip: Collection[str] = (), further: int = 0
) -> list[Path]:
    """Files and folders whose lower-case name is wanted, all of the shallowest level that has some.

    Those of ``further`` levels below come after them.
    Folders in ``skip`` (lower case), bare digits and hidden ones are not entered: image folders hold no lists, and
    walking them would take a while. A linked folder is entered once, so none can loop.
    """
    level, linked = [root], {_identity(root)}
    every: list[Path] = []
    while level and further >= 0:
        found: list[Path] = []
        below: list[Path] = []
        for place in level:
            with os.scandir(place) as entries:
                for entry in entries:
                    name = entry.name.lower()
                    if wanted(name):
                        found.append(Path(entry.path))
                    elif (
                        not (is_image(name) or name.isdigit() or name.startswith("."))
                        and name not in skip
                        and is_folder(entry)
                    ):
                        if entry.is_symlink():
                            if (target := _identity(entry.path)) in linked:
                                continue
                            linked.add(target)
                        below.append(Path(entry.path))
        every += sorted(found)
        further -= bool(every)
        level = below
    return every


def _identity(folder: Path | str) -> tuple[int, int]:
    """Device and inode: the same for a folder and a link to it."""
    about = os.stat(folder)  # noqa: PTH116
    return about.st_dev, about.st_ino


def files_in(folder: Path) -> dict[str, tuple[str, int]]:
    """Stem of each image in a folder -> its name and size, whatever the case of its extension."""
    with os.scandir(folder) as entries:
        found = sorted(
            (entry.name, entry.stat().st_size) for entry in entries if is_image(entry.name) and is_file(entry)
        )
    return {posixpath.splitext(name)[0]: (name, size) for name, size in found}


def unlisted_note(
    there: Iterable[str], listed: Collection[str], *, inside: str, said: str
) -> tuple[str, ...]:
    """A note on images of a folder that its list or table does not name; empty where it names all."""
    left = sorted(set(there).difference(listed))
    if not left:
        return ()
    return (f"WARNING {inside}: {number(len(left), 'image')} left out, {said}: {some(left)}",)


def first_folder(*candidates: Path) -> Path | None:
    """The first of some folders that is there."""
    return next((folder for folder in candidates if folder.is_dir()), None)


def read_csv(path: Path, *, dataset: str, delimiter: str = ",") -> Iterator[list[str]]:
    """Rows of a text table, stripped, one at a time, empty lines left out.

    Raises
    ------
    DatasetError : it is no text.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            for row in csv.reader(handle, delimiter=delimiter, skipinitialspace=True):
                if any(cells := [cell.strip() for cell in row]):
                    yield cells
    except (UnicodeDecodeError, csv.Error) as exc:
        raise DatasetError(f"{dataset}: expected a text table in {path}, got {exc}") from exc


def read_lines(path: Path, *, dataset: str) -> Iterator[str]:
    """Lines of a text file, stripped, one at a time; raises as :func:`read_csv`."""
    try:
        with path.open(encoding="utf-8-sig") as handle:
            for line in handle:
                yield line.strip()
    except UnicodeDecodeError as exc:
        raise DatasetError(f"{dataset}: expected a text table in {path}, got {exc}") from exc


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key that puts ``img2`` before ``img10``."""
    return tuple(
        (0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", name) if part
    )


def sample_id(path: str) -> str:
    """The id of an image: its POSIX path under the root, without extension.

    >>> sample_id("val_set/images/0.jpg")
    'val_set/images/0'
    """
    return posixpath.splitext(posixpath.normpath(path))[0]


def posix(path: Path, root: Path) -> str:
    """``path`` under ``root`` in POSIX form."""
    return path.relative_to(root).as_posix()


def size_of(path: Path | str) -> int:
    """Bytes of a file, or of the container that an image lies in; -1 where there is none."""
    try:
        return os.stat(parts_of(str(path))[0]).st_size  # noqa: PTH116
    except OSError:
        return -1


def split_named(name: str) -> Split | None:
    """The split that a folder or a table cell names, None where it names none."""
    return _SPLIT_NAMES.get(name.strip().lower())


def listing(folder: Path, limit: int = 5) -> str:
    """What a folder holds, in a few words, for messages."""
    with os.scandir(folder) as entries:
        names = [entry.name + ("/" if is_folder(entry) else "") for entry in entries]
    if not names:
        return "an empty folder"
    return some(nsmallest(limit, names) + [""] * (len(names) - limit), limit)


def missing_note(samples: SampleList) -> tuple[str, ...]:
    """A note on listed images that are no files, nor links to files; empty where all are."""
    rows = Samples.of(samples.samples)
    gone = [sample.path for sample in rows.take(np.flatnonzero(rows.column("size_bytes") < 0))]
    if not gone:
        return ()
    images = number(len(gone), "listed image")
    return (f"no file for {images} ({some(gone)}); the rows are kept, as missing or unreadable",)
