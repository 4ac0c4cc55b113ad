"""What a dataset holds, before anything is extracted: recognised, counted, every image read once.

``ig3d datasets check`` prints it. Nothing is written, no network runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from joblib import Parallel, cpu_count, delayed

from ...errors import DatasetError, LayoutError, UsageError
from ...features.samples import SampleList
from ..plugins import load, names
from ..read import Unreadable, bounded_images, read_image
from ..sources.remote import is_remote
from . import ADAPTERS, Dataset, DatasetOptions, list_samples
from .files import listing
from .levels import LevelError

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Check:
    """What reading every image of a dataset found.

    Attributes
    ----------
    images : int
        Different files; several samples may be faces of one.
    missing, unreadable : tuple of str
        Paths that are not there, and ``path: reason`` of those that cannot be decoded.
    sizes : (width, height) -> images, the most frequent first
    across : tuple of tuples of str
        Paths of one content, for each content that stands in more than one split: such images leak.
    disputed : tuple of tuples of str
        Paths of one content with different labels.
    repeated : int
        Images that repeat another one of their own split.
    """

    images: int
    missing: tuple[str, ...]
    unreadable: tuple[str, ...]
    sizes: dict[tuple[int, int], int]
    across: tuple[tuple[str, ...], ...]
    disputed: tuple[tuple[str, ...], ...]
    repeated: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """One image file, read."""

    path: str
    digest: bytes = b""
    size_wh: tuple[int, int] = (0, 0)
    problem: str = ""


def recognise(root: str | Path, options: DatasetOptions | None = None) -> SampleList:
    """The samples of a folder by the first adapter that understands it, the most specific first.

    Raises
    ------
    LayoutError : none does; says what is there.
    UsageError : one understands the layout, and not what was said of it or the names of its classes.
    DatasetError : the first that sees its layout cannot read it.
    """
    options = options or DatasetOptions()
    if not is_remote(root) and not Path(root).exists():
        raise DatasetError(f"datasets: expected a dataset at {root}, found nothing")
    refusal: UsageError | None = None
    intention: LevelError | None = None
    also: list[str] = []
    for name in _candidates(root, options):
        adapter: Dataset = load("dataset", name, ADAPTERS)
        marked = getattr(adapter, "marked", None)
        try:
            # what another error says is for the user: a layout that is half there, a damaged table
            samples = list_samples(root, name, options)
        except LevelError as exc:
            intention = exc
            continue
        except LayoutError:
            continue
        except UsageError as exc:
            if marked is None:
                refusal = refusal or exc
            continue
        if marked is None or marked(samples):
            note = f"also fits {' and '.join(also)}: choose with --dataset"
            return replace(samples, notes=(*samples.notes, note)) if also and marked is None else samples
        if set(samples.labels.tolist()) >= set(range(len(samples.classes))):
            also.append(name)
    if options.label_map is not None:
        named = recognise(root, replace(options, label_map=None)).dataset
        if not getattr(load("dataset", named, ADAPTERS), "maps_labels", False):
            raise UsageError(
                f"label map: expected class folders or a table with --label-map, got {named}, which knows its labels; "
                "leave it out"
            )
    if refusal is not None or intention is not None:
        raise refusal or intention  # type: ignore[misc]
    found = f": {listing(Path(root))}" if Path(root).is_dir() else ""
    raise LayoutError(
        f"datasets: expected a layout that ig3d datasets lists in {root}, found none{found}; name the one you mean "
        "with --dataset to see what is wrong with it"
    )


def _candidates(root: str | Path, options: DatasetOptions) -> list[str]:
    """The adapters that may be asked, by what was said: a manifest, a meaning of labels, a remote root."""
    if options.manifest is not None:
        return ["manifest"]
    wanted = [
        *(["maps_labels"] if options.label_map is not None else []),
        *(["remote"] if is_remote(root) else []),
    ]
    return [
        name
        for name in names("dataset", ADAPTERS)
        if all(getattr(load("dataset", name, ADAPTERS), word, False) for word in wanted)
    ]


def check_images(
    samples: SampleList, *, jobs: int = 0, progress: Callable[[Counter[str]], None] | None = None
) -> Check:
    """Read every image of a dataset once and compare their contents.

    Parameters
    ----------
    samples : SampleList
    jobs : int
        Threads; 0 is two for each core, for part of the time is spent waiting for the disk.
    progress : function of a Counter of ``ok``, ``missing``, ``unreadable``, optional
    """
    paths = list(dict.fromkeys(sample.path for sample in samples.samples))
    seen = []
    with bounded_images():
        for batch in _read(samples.root, paths, jobs or 2 * cpu_count()):
            seen += batch
            if progress is not None:
                progress(Counter(_outcome(one) for one in batch))
    copies: dict[bytes, list[str]] = {}
    for one in sorted(seen, key=lambda one: one.path):
        if not one.problem:
            copies.setdefault(one.digest, []).append(one.path)
    splits: dict[str, set[int]] = {}
    labels: dict[str, set[int]] = {}
    for sample in samples.samples:
        splits.setdefault(sample.path, set()).add(sample.split)
        labels.setdefault(sample.path, set()).add(sample.label)
    several = [tuple(same) for same in copies.values() if len(same) > 1]
    across = tuple(same for same in several if len(set().union(*(splits[path] for path in same))) > 1)
    return Check(
        images=len(paths),
        missing=tuple(sorted(one.path for one in seen if one.problem == "missing")),
        unreadable=tuple(
            sorted(f"{one.path}: {one.problem}" for one in seen if one.problem not in ("", "missing"))
        ),
        sizes=dict(Counter(one.size_wh for one in seen if not one.problem).most_common()),
        across=across,
        disputed=tuple(same for same in several if len(set().union(*(labels[path] for path in same))) > 1),
        repeated=sum(len(same) - len(set().union(*(splits[path] for path in same))) for same in several),
    )


def _read(root: str, paths: Sequence[str], jobs: int) -> Iterator[list[_Seen]]:
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    # threads: Pillow and the disk leave the interpreter's lock while they work
    yield from Parallel(n_jobs=jobs, backend="threading", return_as="generator_unordered", batch_size=1)(
        delayed(_look)(root, batch) for batch in batches
    )


def _look(root: str, paths: Sequence[str]) -> list[_Seen]:
    seen = []
    for path in paths:
        try:
            image = read_image(f"{root}/{path}")
        except FileNotFoundError:
            seen.append(_Seen(path, problem="missing"))
        except Unreadable as exc:
            seen.append(_Seen(path, problem=" ".join(str(exc).split())))
        else:
            height, width = image.pixels.shape[:2]
            seen.append(_Seen(path, np.asarray(image.digest).tobytes(), (width, height)))
    return seen


def _outcome(one: _Seen) -> str:
    return "ok" if not one.problem else "missing" if one.problem == "missing" else "unreadable"
