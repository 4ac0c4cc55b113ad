"""Class folders: samples whose class, split and group are the names of the folders around them.

On a disk, in zip files and on remote storage alike; :mod:`.levels` decides which level of folders is which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from heapq import nsmallest
from typing import Any, NamedTuple

from ...errors import listed, plural
from ...features.samples import Listing
from .base import Dataset, DatasetOptions
from .files import skipped_note
from .label_names import digit_notes, read_labels
from .levels import Folder, FolderMeaning, read_levels


class ImageFile(NamedTuple):
    """An image by name: the folders around it, the path and id of its sample, its size in bytes.

    A frame of a video has its time in seconds, and the video as group.
    """

    folders: Folder
    path: str
    id: str
    size: int
    time: float | None = None
    group: str = ""


def list_class_folders(
    dataset: Dataset,
    root: str,
    folders: Iterable[Folder],
    images: Iterable[ImageFile],
    options: DatasetOptions,
    *,
    skipped: Counter[str],
    present: str | None = None,
) -> tuple[Listing, Mapping[Folder, FolderMeaning]]:
    """The samples of class folders.

    Parameters
    ----------
    dataset, root : of the listing, and for messages
    folders : folders that hold images
    images : all images; gone through once, never held together
    options : DatasetOptions
    skipped : kind -> other files; complete once the images are gone through
    present : str, optional
        Contents of the root, for messages; read from the disk by default.

    Returns
    -------
    listing : Listing
    meanings : folder -> its class, split and group

    Raises
    ------
    LayoutError : there is no class folder, or other folders stand in their place.
    """
    meanings, notes = read_levels([folder for folder in folders if folder], dataset=dataset.name, root=root)
    if not meanings:
        raise dataset.wrong_layout(root, "images in class folders", present=present)
    labels = read_labels({meaning.label for meaning in meanings.values()}, options.label_map)
    counts: dict[str, Counter[str]] = {}
    outside, first_outside = 0, list[str]()

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal outside, first_outside
        for image in images:
            meaning = meanings.get(image.folders)
            if meaning is None:
                outside += 1
                first_outside = nsmallest(5, [*first_outside, image.path])
                continue
            counts.setdefault(meaning.split.name, Counter())[meaning.label] += 1
            yield {
                **row_of(image),
                "label": labels.index[meaning.label],
                "split": meaning.split,
                "group": meaning.group or image.group,
            }

    listing = dataset.listing(root, rows(), classes=labels.classes)
    notes += [*labels.notes, *digit_notes(counts, labels.classes if options.label_map else ())]
    if outside:
        shown = listed(first_outside + [""] * (outside - len(first_outside)))
        notes.append(f"{plural(outside, 'image')} left out, outside of class folders: {shown}")
    return replace(listing, notes=(*notes, *skipped_note(skipped))), meanings


def row_of(image: ImageFile) -> dict[str, Any]:
    """Columns of the sample table that an image has by itself."""
    row = {"id": image.id, "path": image.path, "size_bytes": image.size, "group": image.group}
    return row if image.time is None else {**row, "time": image.time}
