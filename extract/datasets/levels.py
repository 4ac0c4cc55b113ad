"""Meaning of the folders above the images: splits, persons or videos, classes.

Folders are tuples of names under the root, on a disk, in an archive or on remote storage; no file is read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from ...errors import LayoutError, listed, plural
from ...features.classes import CANONICAL, canonical
from ...features.image_names import natural
from ...features.samples import Split
from ...features.table_columns import split_named

Folder = tuple[str, ...]

# Names of folders above the classes, each of one person, video or fold: S010, AF01, subject_3, fold_2.
_GROUP = re.compile(r"([a-z]{1,14})[-_ ]?\d{1,6}[a-z]?", re.IGNORECASE)
# Names of folders of persons, videos or folds, which are not classes either if they contain no class folders.
_PERSON = re.compile(
    r"(s|p|f|m|w|id|sub|subj|subject|person|pers|actor|speaker|participant|patient|user|face_?id|vid|video|clip|seq|"
    r"sequence|session|film|movie|fold|cv)[-_ ]?\d+[a-z]?",
    re.IGNORECASE,
)
# Names of folders that lie beside class folders and are rarely meant as classes.
_NO_CLASSES = frozenset((
    "labels", "label", "annotations", "annotation", "masks", "mask", "landmarks", "landmark", "results",
    "result", "output", "outputs", "images", "image", "imgs", "faces", "data", "dataset", "raw", "original",
    "originals", "backup", "backups", "tmp", "temp", "cache", "csv", "txt", "xml", "json", "logs", "models",
    "misc", "extra", "unlabeled", "unlabelled", "unsorted", "old", "new", "debug", "samples",
))  # fmt: skip


class LevelError(LayoutError):
    """There are folders at the level of the class folders that are not classes."""


@dataclass(frozen=True, slots=True)
class FolderMeaning:
    """Class, split and group (person or video) of the images in a folder, by the names of the folders above them."""

    label: str
    split: Split = Split.none
    group: str = ""


@dataclass(frozen=True, slots=True)
class _Level:
    """A folder while its levels are read: the levels that are left, and the split and group from those above."""

    rest: Folder
    split: Split = Split.none
    group: str = ""


def read_levels(
    folders: Iterable[Folder], *, dataset: str, root: str
) -> tuple[dict[Folder, FolderMeaning], list[str]]:
    """Find which levels of folders are splits, groups and classes.

    Parameters
    ----------
    folders : iterable of tuples of str
        Folders with images, as names of folders from the root on.
    dataset, root : str
        Used in messages.

    Returns
    -------
    meanings : dict of folder to FolderMeaning
        Without folders above the class folders, whose images have no class.
    notes : list of str

    Raises
    ------
    LevelError : folders above the class folders have neither the names of splits nor of groups; or splits or groups are
        beside class folders.
    """
    levels = {folder: _Level(folder) for folder in folders}
    levels = _unwrapped(levels)
    notes: list[str] = []
    if named := split_names(_names(levels)):
        if others := sorted(_names(levels) - named.keys(), key=natural):
            raise LevelError(
                f"{dataset}: {root} has split folders ({listed(sorted(named))}) beside other folders "
                f"({listed(others)}); move one kind elsewhere"
            )
        levels = {
            folder: _once(_below(level, split=named[level.rest[0]]))
            for folder, level in levels.items()
            if level.rest
        }
        for split in set(named.values()):
            part = {folder: level for folder, level in levels.items() if level.split is split}
            levels |= _unwrapped(part, inside_split=True)
        notes.append(f"splits from the names of folders{_in_words(named)}")
        if levels and not any(level.rest for level in levels.values()):
            raise LevelError(
                f"{dataset}: {listed(sorted(named))} of {root} have images without class folders; list the images with "
                "their labels in a table (--dataset manifest)"
            )
    levels = _class_level(levels, notes, dataset=dataset, root=root)
    meanings = {
        folder: FolderMeaning(level.rest[0], level.split, level.group)
        for folder, level in levels.items()
        if level.rest
    }
    if odd := sorted(
        {meaning.label for meaning in meanings.values() if split_named(meaning.label) is not None}
    ):
        raise LevelError(
            f"{dataset}: folders named as splits ({listed(odd)}) lie inside other splits, persons or classes of "
            f"{root}; give a folder with only one kind of them as ROOT"
        )
    notes += _odd_classes({meaning.label for meaning in meanings.values()}) or _alike_inside(levels)
    return meanings, notes


def split_names(names: Collection[str]) -> dict[str, Split]:
    """Splits by the names of folders side by side; words that occur in all names are ignored.

    >>> split_names(["RAF_train", "RAF_test", "happy"])
    {}
    >>> split_names(["RAF_train", "RAF_test"])
    {'RAF_train': <Split.train: 0>, 'RAF_test': <Split.test: 2>}
    """
    alone = {name: split for name in names if (split := split_named(name)) is not None}
    if len(names) < 2 or len(alone) == len(names):
        return alone
    words = {name: _words(name) for name in names}
    shared = set.intersection(*map(set, words.values()))
    splits = {}
    for name, parts in words.items():
        split = split_named(" ".join(word for word in parts if word not in shared and not word.isdecimal()))
        if split is not None:
            splits[name] = split
    # numbers may count splits (1_train, 2_test), not parts of one (train1, train2)
    return splits if len(splits) > len(alone) and len({*splits.values()}) > 1 else alone


def _words(name: str) -> list[str]:
    """Words of a name in lower case: ``FER2013Train`` has fer, 2013 and train."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)]


def _names(levels: Mapping[Folder, _Level], depth: int = 0) -> set[str]:
    return {level.rest[depth] for level in levels.values() if len(level.rest) > depth}


def _is_class(name: str) -> bool:
    return canonical(name) in CANONICAL


def _below(level: _Level, *, split: Split | None = None) -> _Level:
    return replace(level, rest=level.rest[1:], split=level.split if split is None else split)


def _once(level: _Level) -> _Level:
    """Levels without a repeated split: ``train/train/happy``, common in unpacked archives, as ``train/happy``."""
    while level.rest and split_named(level.rest[0]) is level.split:
        level = _below(level)
    return level


def _unwrapped(levels: dict[Folder, _Level], *, inside_split: bool = False) -> dict[Folder, _Level]:
    """Levels without those that are one folder around all others, such as ``data/faces/``; a class is none.

    Inside a split, where a single folder may be a class, only what lies around known classes or has a name of
    :data:`_NO_CLASSES`.
    """
    while True:
        first, second = _names(levels), _names(levels, 1)
        if len(first) != 1 or not second:
            return levels
        name = min(first)
        has_classes = sum(map(_is_class, second)) > 1
        deeper = all(len(level.rest) != 1 for level in levels.values())
        around = has_classes or bool(split_names(second)) or (deeper and not inside_split)
        if _is_class(name) or split_named(name) is not None:
            return levels
        if not around and not (inside_split and deeper and name.lower() in _NO_CLASSES):
            return levels
        levels = {folder: _below(level) if level.rest else level for folder, level in levels.items()}


def _class_level(
    levels: dict[Folder, _Level], notes: list[str], *, dataset: str, root: str
) -> dict[Folder, _Level]:
    """Levels from the class folder on, with splits and groups from those above it."""
    first = _names(levels)
    below: dict[str, set[str]] = {name: set() for name in first if not _is_class(name)}
    for level in levels.values():
        if level.rest and (classes := below.get(level.rest[0])) is not None:
            classes |= {canonical(name) for name in level.rest[1:] if _is_class(name)}
    enough = 2 if len(below) < len(first) else 1  # beside classes, one known name below may be chance
    wrong = sorted((name for name, classes in below.items() if len(classes) >= enough), key=natural)
    if len(set().union(*(below[name] for name in wrong))) > 1:
        if len(below) < len(first):
            raise LevelError(
                f"{dataset}: {root} has class folders, and other folders with class folders in them ({listed(wrong)}); "
                "move the latter out of it"
            )
        return _groups_above(levels, notes, dataset=dataset, root=root)
    second = _names(levels, 1)
    named = split_names(second)
    if (
        len(set(named.values())) > 1
        and len(named) == len(second)
        and {level.split for level in levels.values()} == {Split.none}
    ):
        notes.append(f"splits from the names of the folders below the classes{_in_words(named)}")
        return {
            folder: replace(level, split=named[level.rest[1]]) if len(level.rest) > 1 else _Level(())
            for folder, level in levels.items()
        }
    return levels


def _is_group(name: str) -> bool:
    match = _GROUP.fullmatch(name)
    return match is not None and split_named(match[1]) is None


def _groups_above(
    levels: dict[Folder, _Level], notes: list[str], *, dataset: str, root: str
) -> dict[Folder, _Level]:
    """Levels from the class folder on, where others lie above it: splits or groups by their names.

    Raises
    ------
    LevelError : their names say neither.
    """
    depths = (
        next((depth for depth, name in enumerate(of_folder.rest) if depth and _is_class(name)), 0)
        for of_folder in levels.values()
    )
    depth = min(filter(None, depths))
    deep = {folder: of_folder for folder, of_folder in levels.items() if len(of_folder.rest) > depth}
    splits_at, groups_at = _roles_above(deep, depth, dataset=dataset, root=root)
    named = split_names(_names(deep, splits_at)) if splits_at >= 0 else {}
    if groups_at >= 0:
        groups = sorted(_names(deep, groups_at), key=natural)
        notes.append(
            f"groups (persons, videos or folds) from the names of the folders above the classes: {listed(groups)}"
        )
    if splits_at >= 0:
        notes.append(f"splits from the names of folders{_in_words(named)}")
    assigned = {}
    for folder, of_folder in levels.items():
        if len(of_folder.rest) <= depth:
            assigned[folder] = _Level(())
            continue
        group = of_folder.rest[groups_at] if groups_at >= 0 else ""
        split = named[of_folder.rest[splits_at]] if splits_at >= 0 else of_folder.split
        assigned[folder] = _Level(of_folder.rest[depth:], split, group)
    return assigned


def _roles_above(deep: Mapping[Folder, _Level], depth: int, *, dataset: str, root: str) -> tuple[int, int]:
    """Depths of the folders with names of splits and of groups among ``depth`` levels; -1 if there are none.

    Raises
    ------
    LevelError : several folders of a level have names of neither.
    """
    splits_at = groups_at = -1
    for level in range(depth):
        names = sorted(_names(deep, level), key=natural)
        if len(split_names(names)) == len(names):
            splits_at = level
        elif all(map(_is_group, names)):
            groups_at = level
        elif len(names) > 1:
            classes = sorted(_names(deep, depth), key=natural)
            raise LevelError(
                f"{dataset}: the folders {listed(names)} of {root} are no classes: the class folders "
                f"({listed(classes)}) are {plural(depth, 'level')} below them; if they are splits, rename them to "
                "train, val and test; if persons or videos, to S1, S2, ...; or pass one of them as ROOT, or list the "
                "images in a table (--dataset manifest)"
            )
    return splits_at, groups_at


def _in_words(named: Mapping[str, Split]) -> str:
    """Folders and their splits, for folders whose name is not that of the split."""
    odd = [f"{name} = {split.name}" for name, split in sorted(named.items()) if name.lower() != split.name]
    return f" ({', '.join(odd)})" if odd else ""


def _alike_inside(levels: Mapping[Folder, _Level]) -> list[str]:
    """A warning on class folders of unknown names that all hold folders of the same names: these may be the classes."""
    inside: dict[str, set[str]] = {}
    for level in levels.values():
        if level.rest:
            inside.setdefault(level.rest[0], set()).update(level.rest[1:2])
    names = next(iter(inside.values()), set())
    if len(inside) < 2 or len(names) < 2 or any(map(_is_class, inside)):
        return []
    if any(others != names for others in inside.values()):
        return []
    return [
        f"WARNING the folders {listed(sorted(inside, key=natural))} are read as classes, and each of them has folders "
        f"{listed(sorted(names, key=natural))}; if these are the classes, rename the folders above (persons to S1, S2, "
        "..., splits to train and test), or list the images in a table (--dataset manifest)"
    ]


def _odd_classes(labels: Collection[str]) -> list[str]:
    """Warnings on class folders whose names are rather those of persons, folds or side files."""
    groups = [name for name in labels if _PERSON.fullmatch(name)]
    if len(groups) > 1 and len(groups) == len(labels):
        return [
            "WARNING the class folders have names of persons, videos or folds "
            f"({listed(sorted(groups, key=natural))}); if they are no "
            "classes, list the images with their labels in a table (--dataset manifest)"
        ]
    both = [
        name
        for name in labels
        if {*map(split_named, _words(name))} - {None} and any(map(_is_class, _words(name)))
    ]
    if len(both) > 1:
        return [
            f"WARNING the class folders name splits as well ({listed(sorted(both, key=natural))}): move them into "
            "folders train, val and test"
        ]
    if sum(map(_is_class, labels)) < 2:
        return []
    odd = sorted(name for name in labels if name.lower() in _NO_CLASSES)
    folders = f"folder{'s' if len(odd) > 1 else ''} {listed(odd)}"
    return (
        [f"WARNING {folders} beside the classes: read as a class; if not, move it out of ROOT"] if odd else []
    )
