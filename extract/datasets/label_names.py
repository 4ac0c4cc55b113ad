"""Labels of datasets: their numbering, ``--label-map``, and the orders that bare digits may stand for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...errors import DatasetError, UsageError, listed
from ...features.classes import PRESETS, canonical, canonical_all, parse_classes
from ...features.image_names import natural

# Images per class of published sets, in the order of a preset, by which folders of bare digits are recognised. RAF-DB:
# its list file; AffectNet and FER2013: their training parts.
PUBLISHED: Mapping[str, Mapping[str, int]] = {
    dataset: dict(zip(PRESETS[preset], counts, strict=True))
    for dataset, preset, counts in (
        ("RAF-DB", "rafdb", (1290, 281, 717, 4772, 1982, 705, 2524)),
        ("RAF-DB's test part", "rafdb", (329, 74, 160, 1185, 478, 162, 680)),
        ("AffectNet", "affectnet8", (74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750)),
        ("AffectNet's seven", "affectnet7", (74874, 134415, 25459, 14090, 6378, 3803, 24882)),
        ("FER2013", "fer2013", (3995, 436, 4097, 7215, 4830, 3171, 4965)),
    )
}
# Largest distance of the shares of the classes from the published ones: half the sum of absolute differences.
_NEAR = 0.03
# If there are more labels, they are names or values, not classes.
MAX_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Labels:
    """Classes of a dataset, and the class of each label.

    Attributes
    ----------
    index : dict of label text to index into ``classes``; -1 for labels without class
    classes : tuple of str
        Canonical names of the classes.
    notes : tuple of str
    """

    index: Mapping[str, int]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_labels(names: Iterable[str], label_map: str | None = None) -> Labels:
    """Number the labels of a dataset.

    Parameters
    ----------
    names : iterable of str
        Label texts, such as names of class folders.
    label_map : str, optional
        ``1=surprise,2=fear`` (``8=none`` leaves label 8 without class), a preset's name, or names in order. With a
        preset or names, numbers count from 0, or from 1 if there is no 0 and the largest is the number of names.

    Raises
    ------
    UsageError : the map has no class for a label.
    DatasetError : there are more than ``MAX_CLASSES`` labels.

    Examples
    --------
    >>> read_labels(["Happiness", "angry"]).classes
    ('happy', 'anger')
    >>> read_labels(["1", "2", "3"], "1=joy,2=sad,3=none").index
    {'1': 0, '2': 1, '3': -1}
    """
    labels = sorted(set(names), key=natural)
    if len(labels) > MAX_CLASSES:
        raise DatasetError(
            f"labels: {len(labels)} different labels ({listed(labels, 3)}), but at most {MAX_CLASSES} classes are "
            "supported; check that the column holds labels, not names"
        )
    if label_map is None:
        return Labels({name: row for row, name in enumerate(labels)}, canonical_all(labels))
    meaning, classes = _pairs(label_map) if "=" in label_map else _in_order(label_map, labels)
    index = {name: meaning[_key(name)] for name in labels if _key(name) in meaning}
    if unmapped := [name for name in labels if name not in index]:
        raise UsageError(
            f"label map: {label_map!r} has no class for {listed(unmapped)}; add {unmapped[0]}=NAME, or "
            f"{unmapped[0]}=none for no class"
        )
    names = {name: classes[label] if label >= 0 else "none" for name, label in index.items()}
    words = ", ".join(f"{name} = {word}" for name, word in names.items())
    mapped = any(canonical(name) != word for name, word in names.items())
    return Labels(index, classes, (f"labels as mapped: {words}",) if mapped else ())


def class_index(text: str, count: int, *, first: int = 0) -> int | None:
    """Index of a class from its number; None if the text is not the number of a class.

    Parameters
    ----------
    text : str
        Such as ``3``, ``3.0`` or ``3.0000000e+00``.
    count : int
        Number of classes.
    first : int
        Number of the first class.

    Examples
    --------
    >>> class_index("3.0", 7), class_index("7", 7, first=1), class_index("7", 7), class_index("joy", 7)
    (3, 6, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) - first if value.is_integer() and first <= value < first + count else None


def _key(name: str) -> str:
    """Normalised label: equal for ``01`` and ``1``, and for ``Happy`` and ``happiness``."""
    return (name.strip().lstrip("0") or "0") if _is_number(name) else canonical(name)


def _is_number(name: str) -> bool:
    """Whether a label consists of the digits 0 to 9 (not of others, such as ``²``)."""
    return bool(re.fullmatch(r"\s*[0-9]+\s*", name))


def _pairs(text: str) -> tuple[dict[str, int], tuple[str, ...]]:
    """Index of each label, and classes in the order of their first mention, of ``1=surprise,2=fear,3=none``."""
    meaning: dict[str, int] = {}
    classes: dict[str, int] = {}
    for pair in text.split(","):
        key, equals, name = (part.strip() for part in pair.partition("="))
        if not key or not equals or not name or _key(key) in meaning:
            raise UsageError(
                f"label map: cannot read {pair!r} in {text!r}; write LABEL=CLASS once for each label"
            )
        name = canonical(name)
        if name.lower() == "none":
            meaning[_key(key)] = -1
            continue
        meaning[_key(key)] = classes.setdefault(name, len(classes))
    return meaning, tuple(classes)


def _in_order(text: str, labels: list[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Index of each label, a number or a name, and classes, of a preset or of names in order."""
    classes = parse_classes(text)
    meaning = {name: label for label, name in enumerate(classes)}
    digits = {int(_key(name)) for name in labels if _is_number(name) and len(_key(name)) < 10}
    if digits:
        first = 0 if 0 in digits else 1
        if first == 1 and max(digits) != len(classes):
            raise UsageError(
                f"label map: the labels are {listed(sorted(map(str, digits), key=int), 12)}, which are neither from 0 "
                f"nor 1 to {len(classes)} as {text!r} requires; write the map out: {min(digits)}=NAME,..."
            )
        meaning |= {str(first + label): label for label in range(len(classes))}
    return meaning, classes


def digit_notes(counts: Mapping[str, Mapping[str, int]], mapped: tuple[str, ...]) -> list[str]:
    """Notes on labels that are numbers: the order of classes whose published counts agree with those of the dataset.

    Parameters
    ----------
    counts : dict of part of the dataset to dict of label to number of images
    mapped : tuple of str
        Classes of ``--label-map`` in the order of the numbers; empty without this option.
    """
    digits = sorted({label for part in counts.values() for label in part}, key=natural)
    if not digits or not all(map(_is_number, digits)):
        return []
    likely = next((order for part in counts.values() if (order := _likely_order(part))), None)
    if mapped:
        if likely is None or PRESETS[likely[1]][: len(mapped)] == mapped:
            return []
        return [
            f"WARNING label map: the counts per label are those of {likely[0]} in the order "
            f"{', '.join(PRESETS[likely[1]])}, not as mapped; use --label-map {likely[1]}"
        ]
    labels = f"labels are bare digits ({listed(digits, 12)})"
    if likely is not None:
        return [
            f"WARNING {labels}: their counts are those of {likely[0]} in the order {', '.join(PRESETS[likely[1]])}; "
            f"name the classes with --label-map {likely[1]}"
        ]
    fitting = [name for name, order in PRESETS.items() if len(order) == len(digits)]
    why = "orders differ between datasets, and the counts fit no published set; " if fitting else ""
    choice = ", ".join([*fitting, f"{digits[0]}=NAME,..."])
    return [f"WARNING {labels}: {why}name the classes with --label-map ({choice})"]


def _likely_order(part: Mapping[str, int]) -> tuple[str, str] | None:
    """Published dataset whose counts per class agree best with ``part``, and preset of the order; None if none does."""
    own = [part[label] for label in sorted(part, key=natural)]
    total = sum(own)
    best: tuple[float, str, str] = (_NEAR, "", "")
    for dataset, published in PUBLISHED.items():
        for preset, order in PRESETS.items():
            if set(order) == set(published) and len(order) == len(own) and total:
                whole = sum(published.values())
                shares = (
                    abs(count / total - published[name] / whole)
                    for count, name in zip(own, order, strict=True)
                )
                best = min(best, (sum(shares) / 2, dataset, preset), key=lambda option: option[0])
    return (best[1], best[2]) if best[1] else None
