"""Files of datasets: find images and lists, read small tables, derive ids from paths."""

from __future__ import annotations

import csv
import io
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from heapq import nsmallest
from pathlib import Path

from ...errors import DatasetError, listed, plural
from ...features.classes import CANONICAL, canonical
from ...features.image_names import without_image_suffix
from ...features.samples import Listing
from ...features.table_reader import read_text
from ..image_formats import HEAD, is_system_file, is_system_folder, non_image_kind
from ..image_formats import is_image_name as is_image
from ..sources import parts_of


def images_under(folder: Path, root: Path, skipped: Counter[str] | None = None) -> Iterator[tuple[str, int]]:
    """POSIX path under ``root`` and size in bytes of each image in a folder and its sub-folders, in any order.

    A broken link has size -1. Other files are counted by kind in ``skipped``. :func:`walk` describes which folders are
    entered.

    Raises
    ------
    DatasetError : a path looks like that of a member of an archive.
    """
    for inside, files in walk(folder, root, skipped):
        for name, size in images_of(files, skipped):
            yield own_path(inside + name), size


def walk(
    folder: Path, root: Path, skipped: Counter[str] | None = None
) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Path under ``root``, with a slash at its end, and files of a folder and of each of its sub-folders.

    Only the paths of the folders to be listed are in memory. Links to folders are followed, except to a folder above,
    and within each class only once to the same folder, so that every walk ends. Folders of the operating system are
    counted in ``skipped`` and not entered.
    """
    waiting = [(os.fspath(folder), "" if folder == root else posix(folder, root) + "/")]
    followed: set[tuple[str, ...]] = set()
    while waiting:
        folder_path, prefix = waiting.pop()
        files = []
        with os.scandir(folder_path) as entries:
            for entry in entries:
                linked = entry.is_symlink()
                if not (is_folder(entry) if linked else entry.is_dir(follow_symlinks=False)):
                    files.append(entry)
                elif is_system_folder(entry.name):
                    if skipped is not None and not entry.name.startswith("."):
                        skipped[f"folder {entry.name}"] += 1
                elif not linked or _is_new(entry, folder_path, prefix, followed):
                    waiting.append((entry.path, f"{prefix}{entry.name}/"))
        yield prefix, files


def _is_new(entry: os.DirEntry[str], folder_path: str, prefix: str, followed: set[tuple[str, ...]]) -> bool:
    """Whether a link leads neither to a folder above it nor to a folder that its class has already reached."""
    target = os.path.realpath(entry.path)
    above = [
        folder_path
    ]  # the folders above, as far as the one where the walk began; links among them are resolved below
    above += [(folder_path := os.path.dirname(folder_path)) for _ in range(prefix.count("/"))]  # noqa: PTH120
    if any(f"{os.path.realpath(folder)}/".startswith(f"{target.rstrip('/')}/") for folder in above):
        return False
    parts = f"{prefix}{entry.name}".split("/")
    # depth of the class folder: the first folder with the name of a class, else the second folder
    levels = next((level for level, name in enumerate(parts, 1) if canonical(name) in CANONICAL), 2)
    key = (*parts[:levels], "", target)
    if key in followed:
        return False
    followed.add(key)
    return True


def images_of(
    files: Iterable[os.DirEntry[str]], skipped: Counter[str] | None = None
) -> Iterator[tuple[str, int]]:
    """Name and size in bytes of each image among files; other files are counted by kind in ``skipped``."""
    for entry in files:
        if not is_image(entry.name) and (kind := non_image_kind(entry.name, partial(_head, entry))):
            if skipped is not None and not is_system_file(entry.name):
                skipped[kind if is_file(entry) else "link to no file or special file"] += 1
            continue
        try:
            size = entry.stat().st_size
        except OSError:
            size = -1
        yield entry.name, size


def holds_image(files: Sequence[os.DirEntry[str]]) -> bool:
    """Whether one of the files of a folder is an image."""
    return any(is_image(entry.name) for entry in files) or any(
        not non_image_kind(entry.name, partial(_head, entry)) for entry in files
    )


def _head(entry: os.DirEntry[str]) -> bytes:
    """First bytes of a regular file that is not empty; opening anything else could block."""
    try:
        if not entry.is_file() or not entry.stat().st_size:
            return b""
        with open(entry.path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.read(HEAD)
    except OSError:
        return b""


def skipped_note(skipped: Counter[str]) -> list[str]:
    """Note on files and folders that were left out, by kind; no note if there are none."""
    if not skipped:
        return []
    kinds = [f"{kind} ({count})" for kind, count in skipped.most_common()]
    return [f"left out: {listed(kinds, 12)}"]


def own_path(path: str) -> str:
    """The path, unless it looks like that of a member of an archive, in which case the file could not be read.

    Raises
    ------
    DatasetError : the path contains, for instance, ``.zip!``.
    """
    archive, member = parts_of(path)
    if member:
        raise DatasetError(
            f"datasets: the name {path} reads as ARCHIVE!MEMBER ({member} inside {archive}); rename the file"
        )
    return path


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; false for a link that leads to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file or a link to one; false for a link that leads to itself."""
    try:
        return entry.is_file()
    except OSError:
        return False


def find_file(root: Path, names: Collection[str], *, skip: Collection[str] = ()) -> Path | None:
    """First file or folder with one of ``names`` (lower case) that :func:`find_all` finds; None if there is none."""
    return min(find_all(root, lambda name: name in names, skip=skip), default=None)


def find_all(
    root: Path, wanted: Callable[[str], bool], *, skip: Collection[str] = (), further: int = 0
) -> list[Path]:
    """Files and folders in the uppermost level of folders that has any whose lower-case name is ``wanted``.

    Parameters
    ----------
    root : Path
    wanted : function of a name in lower case
    skip : names in lower case of folders that are not entered
        Hidden folders and those with a number as name are not entered either: they have images and no lists.
    further : int
        Number of levels below that are searched, too; their files come last.
    """
    level, linked = [root], {_identity(root)}
    every: list[Path] = []
    while level and further >= 0:
        paths: list[Path] = []
        below: list[Path] = []
        for parent in level:
            with os.scandir(parent) as entries:
                for entry in entries:
                    name = entry.name.lower()
                    if wanted(name):
                        if is_folder(entry) or is_file(entry):  # opening a pipe or a device would block
                            paths.append(Path(entry.path))
                    elif (
                        not (is_image(name) or name.isdigit() or is_system_folder(name))
                        and name not in skip
                        and is_folder(entry)
                    ):
                        if entry.is_symlink():
                            if (target := _identity(entry.path)) in linked:
                                continue
                            linked.add(target)
                        below.append(Path(entry.path))
        every += sorted(paths)
        further -= bool(every)
        level = below
    return every


def _identity(folder: Path | str) -> tuple[int, int]:
    """Device and inode: the same for a folder and a link to it."""
    about = os.stat(folder)  # noqa: PTH116
    return about.st_dev, about.st_ino


def files_in(folder: Path) -> dict[str, tuple[str, int]]:
    """Stem of each image in a folder -> its name and its size in bytes."""
    with os.scandir(folder) as entries:
        files = sorted(
            (entry.name, entry.stat().st_size) for entry in entries if is_image(entry.name) and is_file(entry)
        )
    return {posixpath.splitext(name)[0]: (name, size) for name, size in files}


def unlisted_note(present: Iterable[str], names: Collection[str], *, inside: str, why: str) -> list[str]:
    """Note on images in a folder that are not in its list or table; no note if there are none."""
    unlisted = sorted(set(present).difference(names))
    if not unlisted:
        return []
    return [f"WARNING {inside}: {plural(len(unlisted), 'image')} left out, {why}: {listed(unlisted)}"]


def first_folder(*candidates: Path) -> Path | None:
    """The first of the folders that exists; None if none does."""
    return next((folder for folder in candidates if folder.is_dir()), None)


def read_csv(path: Path, *, dataset: str) -> Iterator[list[str]]:
    """Rows of a table with comma-separated values; cells are stripped, and empty rows left out.

    Raises
    ------
    DatasetError : the file is not text.
    """
    text = io.StringIO(read_text(path, error=DatasetError, nul=True), newline="")
    try:
        for row in csv.reader(text, skipinitialspace=True):
            if any(cells := [cell.strip() for cell in row]):
                yield cells
    except csv.Error as exc:
        raise DatasetError(
            f"{dataset}: {path} cannot be read as a text table: {exc}; get the file again"
        ) from exc


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a text file, stripped; raises as :func:`read_csv`."""
    return (line.strip() for line in read_text(path, error=DatasetError, nul=True).splitlines())


def sample_id(path: str) -> str:
    """The id of an image: its POSIX path under the root, without the suffix of an image.

    >>> sample_id("val_set/images/0.jpg"), sample_id("clip000.500")
    ('val_set/images/0', 'clip000.500')
    """
    return without_image_suffix(posixpath.normpath(path))


def posix(path: Path, root: Path) -> str:
    """``path`` under ``root`` in POSIX form."""
    return path.relative_to(root).as_posix()


def size_of(path: Path | str) -> int:
    """Size in bytes of a file, or of the archive that has the image; -1 if the file does not exist."""
    try:
        return os.stat(parts_of(str(path))[0]).st_size  # noqa: PTH116
    except (OSError, ValueError):  # a NUL in a list is a ValueError
        return -1


def contents(folder: Path, limit: int = 5) -> str:
    """The first names in a folder, for messages."""
    with os.scandir(folder) as entries:
        names = [entry.name + ("/" if is_folder(entry) else "") for entry in entries]
    if not names:
        return "nothing"
    return listed(nsmallest(limit, names) + [""] * (len(names) - limit), limit)


def missing_note(listing: Listing) -> list[str]:
    """Note on listed images without a file; no note if there are none."""
    samples = listing.samples
    # plug-ins need not state the sizes of files
    missing = [
        path
        for path in samples["path"][samples["size_bytes"] < 0].tolist()
        if size_of(os.path.join(listing.root, path)) < 0  # noqa: PTH118 - the root may be an address
    ]
    if not missing:
        return []
    images = plural(len(missing), "listed image")
    return [f"no file for {images} ({listed(missing)}); the rows are kept, as missing or unreadable"]
