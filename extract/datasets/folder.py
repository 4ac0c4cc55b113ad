"""``folder``: images and videos in class folders, with split or person folders above them; or without labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from ...errors import LayoutError, listed, plural
from ...features.classes import CANONICAL, canonical
from ...features.image_names import IMAGE_SUFFIXES, VIDEO_SUFFIXES, natural
from ...features.samples import Listing
from ..image_formats import is_image_name, is_system_file, non_image_kind
from ..sources.remote import list_remote
from .archive_files import is_hidden
from .base import Dataset, DatasetOptions
from .class_folders import ImageFile, list_class_folders, row_of
from .files import holds_image, images_of, own_path, sample_id, size_of, skipped_note, walk
from .levels import Folder, FolderMeaning, LevelError
from .manifest import find_manifest
from .splits import SHARES
from .videos import Videos, is_video, video_id


class FolderDataset(Dataset):
    """Class folders; samples of a flat folder, of a single image or of a single video have no labels."""

    name = "folder"
    layout = (
        "folder expects ROOT/<class>/*.jpg, or ROOT/train|val|test/<class>/*.jpg; without labels ROOT/*.jpg, an image "
        "or a video"
    )
    split_fractions = SHARES
    maps_labels = True
    remote = True
    suffix = tuple(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))

    def read(self, root: Path | str, options: DatasetOptions) -> Listing:
        skipped = Counter[str]()
        if isinstance(root, Path) and root.is_file():
            return self._one_file(root, options)
        videos = Videos(str(root), options.fps)
        if isinstance(root, str):
            images = list(_remote_images(root, skipped, videos))
            folders = {image.folders for image in images}
            if folders == {()}:
                return self._unlabelled(root, images, skipped, videos)
            listing, _ = list_class_folders(self, root, folders, images, options, skipped=skipped, present="")
            return replace(listing, notes=(*videos.notes(), *listing.notes))
        # the folder is walked twice, because a list of all files would take much memory
        has_media = {_parts(inside): _holds_media(files) for inside, files in walk(root, root)}
        full = [folder for folder, images in has_media.items() if images]
        images_here = _images(root, skipped, videos)
        if full == [()]:
            listing = self._unlabelled(str(root), images_here, skipped, videos)
            if table := find_manifest(root):
                note = f"WARNING {table.name} is not used: --dataset manifest reads labels from it"
                listing = replace(listing, notes=(*listing.notes, note))
            return listing
        listing, meanings = list_class_folders(self, str(root), full, images_here, options, skipped=skipped)
        labels = {meaning.label for meaning in meanings.values()}
        notes = (*videos.notes(), *listing.notes, *_empty(has_media, labels), *_same_folders(root, meanings))
        return replace(listing, notes=notes)

    def _one_file(self, path: Path, options: DatasetOptions) -> Listing:
        """Samples of a single image or video."""
        videos = Videos(str(path.parent), options.fps)
        name, size = own_path(path.name), path.stat().st_size
        images = _media((), "", [(name, size)], videos)
        return self._unlabelled(str(path.parent), images, Counter(), videos)

    def _unlabelled(
        self, root: str, images: Iterable[ImageFile], skipped: Counter[str], videos: Videos
    ) -> Listing:
        """Samples without labels: codes and predictions, but no figures."""
        listing = self.listing(root, map(row_of, images))
        note = "no labels: the images and videos are not in class folders"
        return replace(listing, notes=(*videos.notes(), note, *skipped_note(skipped)))


def read_folders(dataset: Dataset, root: Path, expected: str, options: DatasetOptions) -> Listing:
    """List class folders of a dataset; the classes are the preset with the name of the dataset.

    Raises
    ------
    LayoutError : there are no class folders.
    """
    try:
        listing = FolderDataset().read(root, replace(options, label_map=dataset.name))
    except LevelError:
        raise
    except LayoutError as exc:
        raise dataset.wrong_layout(root, expected) from exc
    return replace(listing, dataset=dataset.name)


def _images(root: Path, skipped: Counter[str], videos: Videos) -> Iterator[ImageFile]:
    for inside, files in walk(root, root, skipped):
        others = [entry for entry in files if not is_video(entry.name)]
        moving = [(entry.name, size_of(entry.path)) for entry in files if is_video(entry.name)]
        still = images_of(others, skipped)
        yield from _media(_parts(inside), inside, chain(still, moving), videos)


def _media(
    folders: Folder, inside: str, files: Iterable[tuple[str, int]], videos: Videos
) -> Iterator[ImageFile]:
    """Images of a folder, and frames of its videos; ``inside`` is the path of the folder with a slash at its end."""
    for name, size in files:
        path = own_path(inside + name)
        if is_video(path):
            for frame in videos.frames(path):
                yield ImageFile(folders, frame.path, frame.id, size, frame.time, video_id(path))
        else:
            yield ImageFile(folders, path, sample_id(path), size)


def _holds_media(files: Sequence[os.DirEntry[str]]) -> bool:
    return any(is_video(entry.name) for entry in files) or holds_image(files)


def _remote_images(address: str, skipped: Counter[str], videos: Videos) -> Iterator[ImageFile]:
    """Images and videos on remote storage, recognised by name; no file is opened."""
    for path, size in list_remote(address.rstrip("/")):
        *folders, name = path.split("/")
        if is_hidden(path):
            continue
        if is_image_name(name) or is_video(name):
            inside = path.removesuffix(name)
            yield from _media(tuple(folders), inside, [(name, size)], videos)
        elif not is_system_file(name):
            skipped[non_image_kind(name, lambda: b"unknown")] += 1


def _parts(inside: str) -> Folder:
    """Names of the folders in the path of a folder, which ends with a slash."""
    return tuple(inside.split("/")[:-1])


def _empty(has_media: Mapping[Folder, bool], labels: Collection[str]) -> list[str]:
    """Notes on folders that contain no image at any depth; only the uppermost ones are named."""
    full = {
        folder[:depth] for folder, images in has_media.items() if images for depth in range(len(folder) + 1)
    }
    empty = [folder for folder in has_media if folder not in full and folder[:-1] in full]
    if not empty:
        return []
    paths = sorted(("/".join(folder) for folder in empty), key=natural)
    notes = [f"left out, {plural(len(empty), 'folder')} without images: {listed(paths)}"]
    if missing := {name for *_, name in empty if canonical(name) in CANONICAL} - {*labels}:
        notes.append(
            f"WARNING no image in any folder of {listed(sorted(missing))}, which is no class therefore"
        )
    return notes


def _same_folders(root: Path, meanings: Mapping[Folder, FolderMeaning]) -> list[str]:
    """Warnings on links by which folders of different classes or splits are the same folder."""
    folders_of: dict[str, dict[FolderMeaning, str]] = {}
    for folder, meaning in meanings.items():
        path = root.joinpath(*folder)
        folders_of.setdefault(os.path.realpath(path), {})[meaning] = "/".join(folder)
    return [
        f"WARNING {' and '.join(sorted(folders.values()))} are one folder: its images have several labels or splits"
        for folders in folders_of.values()
        if len(folders) > 1
    ]
