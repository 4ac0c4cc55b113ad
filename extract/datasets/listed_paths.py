"""Find the files that a table lists, although it may spell their paths in another way than the disk."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ...errors import DatasetError, listed, plural
from ...features.image_names import without_image_suffix
from ..sources import parts_of
from .files import contents, size_of
from .videos import is_video

# Absolute paths without a file that are tried, and folders under the root that may hold everything.
_TRIES, _FOLDERS = 20, 200


def find_listed(
    root: Path, cells: Sequence[str], *, table: Path
) -> tuple[list[str], list[int], tuple[str, ...]]:
    """POSIX path under the root and size in bytes of each listed file (-1: there is none), and notes.

    A path is taken as it is where it names a file. Else with slashes for backslashes; an absolute one without its
    leading folders; without regard to case, to the Unicode form, and with the suffix of the image that has its name;
    and, where no file is found so, under the table's folder. A warning names a folder of the root that holds them.

    Raises
    ------
    DatasetError : a path is empty, leads out of the root, or is absolute and not under it; or no file exists and they
        are videos.
    """
    paths, moved = _under_root(root, [_slashes(root, cell) for cell in cells])
    bad = [
        cell
        for cell, path in zip(cells, paths, strict=True)
        if not path or _is_absolute(path) or ".." in PurePosixPath(path).parts
    ]
    if bad:
        raise DatasetError(
            f"manifest: {plural(len(bad), 'path')} empty, absolute or outside the root: "
            f"{listed([repr(path) for path in bad])}; give paths relative to the root"
        )
    paths = [posixpath.normpath(path) for path in paths]
    sizes = [size_of(root / parts_of(path)[0]) for path in paths]
    notes = [f"{plural(moved, 'absolute path')} of {table.name} taken under {root}"] if moved else []
    if all(size < 0 for size in sizes):
        folder = _folder_of_table(root, paths, table)
        if folder:
            notes.append(f"paths of {table.name} are those under {folder}/")
            paths = [f"{folder}/{path}" for path in paths]
            sizes = [size_of(root / parts_of(path)[0]) for path in paths]
    other = _Alike(root)
    renamed = []
    for row, size in enumerate(sizes):
        if size < 0 and (name := other.find(paths[row])) is not None:
            renamed.append(f"{paths[row]} is {name}")
            paths[row], sizes[row] = name, size_of(root / name)
    if renamed:
        notes.append(f"{plural(len(renamed), 'path')} found under another spelling: {listed(renamed, 2)}")
    if paths and all(size < 0 for size in sizes):
        folder = _folder_of_all(root, paths)
        remedy = (
            f"the files are in {root / folder}: pass it as ROOT, or write {folder}/ before the paths"
            if folder
            else f"the folder holds {contents(root)}"
        )
        files = len({*paths})
        nor = f", nor does any other of the {files} files that {table.name} lists" if files > 1 else ""
        problem = f"{root / paths[0]} does not exist{nor}; {remedy}"
        if is_video(paths[0]):  # its frames are unknown
            raise DatasetError(f"manifest: {problem}")
        notes.append(f"WARNING {problem}")
    return paths, sizes, tuple(notes)


def _slashes(root: Path, cell: str) -> str:
    path = cell.removeprefix("file://")
    return path.replace("\\", "/") if "\\" in path and not (root / path).exists() else path


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or bool(re.match(r"[A-Za-z]:/", path))


def _under_root(root: Path, paths: list[str]) -> tuple[list[str], int]:
    """Absolute paths relative to the root, where they lie under it here or did on another machine; and how many."""
    heads = [f"{root.absolute().as_posix()}/", f"{root.resolve().as_posix()}/"]
    moved, tries = 0, 0
    result = []
    for path in paths:
        if _is_absolute(path):
            head = next((head for head in heads if path.startswith(head)), None)
            if head is None and tries < _TRIES:
                tries += 1
                parts = path.split("/")
                ends = ("/".join(parts[first:]) for first in range(1, len(parts)))
                end = next((end for end in ends if end and (root / parts_of(end)[0]).is_file()), None)
                if end is not None:
                    head, tries = path.removesuffix(end), 0
                    heads.append(head)
            if head is not None:
                path, moved = path.removeprefix(head), moved + 1
        result.append(path)
    return result, moved


def _folder_of_table(root: Path, paths: Sequence[str], table: Path) -> str:
    """The table's folder under the root, where the first paths are files; else an empty string."""
    own = table.resolve().parent
    if own != root.resolve() and own.is_relative_to(root.resolve()) and _holds(own, paths):
        return own.relative_to(root.resolve()).as_posix()
    return ""


def _folder_of_all(root: Path, paths: Sequence[str]) -> str:
    """The only folder of the root in which the first paths are files; else an empty string."""
    with os.scandir(root) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    holding = [name for name in folders[:_FOLDERS] if _holds(root / name, paths)]
    return holding[0] if len(holding) == 1 else ""


def _holds(folder: Path, paths: Sequence[str]) -> bool:
    step = max(1, len(paths) // _TRIES)
    return any((folder / parts_of(path)[0]).is_file() for path in paths[::step][:_TRIES])


class _Alike:
    """Files by folder and name, without regard to case, Unicode form and an image's suffix."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[str, dict[str, list[str]]] = {}

    def find(self, path: str) -> str | None:
        """The only file of such a name in the path's folder, which is searched alike; None for members of archives."""
        if parts_of(path)[1]:
            return None
        folder, _, name = path.rpartition("/")
        if folder and not (self._root / folder).is_dir():
            folder = self.find(folder) or folder
        if folder not in self._folders:
            self._folders[folder] = self._list(folder)
        by_name = self._folders[folder]
        names = by_name.get(_key(name), [])
        if not names and without_image_suffix(name) == name:
            names = by_name.get(f"{_key(name)}.", [])
        return posixpath.join(folder, names[0]) if len(names) == 1 else None

    def _list(self, folder: str) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        try:
            with os.scandir(self._root / folder) as entries:
                for entry in entries:
                    names.setdefault(_key(entry.name), []).append(entry.name)
                    if (stem := without_image_suffix(entry.name)) != entry.name:
                        names.setdefault(f"{_key(stem)}.", []).append(entry.name)
        except OSError:
            pass
        return names


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
