"""``zip``: class folders in zip files, read without unpacking them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from ...errors import listed, plural
from ...features.samples import Listing
from ..image_formats import is_system_file
from ..sources.archives import ZipMembers
from .archive_files import archives_in, is_hidden, without_suffix
from .base import Dataset, DatasetOptions
from .class_folders import ImageFile, list_class_folders
from .files import sample_id
from .splits import SHARES


class ZipDataset(Dataset):
    """Zip files with what ``folder`` expects inside; several (a split or a class each) are as many folders."""

    name = "zip"
    layout = (
        "zip expects class folders in a zip file, with train/val/test folders above them or without, or a zip file for "
        "each split or class"
    )
    split_fractions = SHARES
    maps_labels = True
    suffix = ".zip"
    remote = True

    def read(self, root: Path | str, options: DatasetOptions) -> Listing:
        archives = archives_in(root, self)
        images: list[ImageFile] = []
        skipped = Counter[str]()
        notes = archives.notes
        for path, _ in archives.files:
            inside = without_suffix(path)
            # the ids are those of the unpacked files: in place, or a folder for each of several
            above = "" if len(archives.files) == 1 else f"{inside}/"
            members, note = _members(path, archives.open(path, dataset=self.name), skipped)
            notes += note
            images += [
                ImageFile(
                    tuple(f"{inside}/{name}".split("/")[:-1]), f"{path}!{name}", sample_id(above + name), size
                )
                for name, size in members.items()
            ]
        folders = {image.folders for image in images}
        listing, _ = list_class_folders(
            self, archives.root, folders, images, options, skipped=skipped, present=""
        )
        return replace(listing, notes=(*notes, *listing.notes))


def _members(path: str, archive: ZipMembers, skipped: Counter[str]) -> tuple[dict[str, int], list[str]]:
    """Name and size of each image in a zip; of several of one name the last, which unpacking would leave."""
    images = []
    for name, size, kind in archive.members():
        if not kind and not is_hidden(name):
            images.append((name, size))
        elif not is_system_file(name.rpartition("/")[2]):
            skipped[kind or "hidden image"] += 1
    counts = Counter(name for name, _ in images)
    if not (twice := sorted(name for name, count in counts.items() if count > 1)):
        return dict(images), []
    return dict(images), [
        f"WARNING {path}: {plural(len(twice), 'name')} given to several images, of which the last is taken: "
        f"{listed(twice)}"
    ]
