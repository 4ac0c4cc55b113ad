"""``expw``: Expression in the Wild; photographs with the box of every labelled face.

Reference: Zhang, Luo, Loy and Tang, "From Facial Expression Recognition to Interpersonal Relation Prediction"
(IJCV 2018), and the readme that comes with ``label.lst``.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import DatasetError, LayoutError, number
from ...features.classes import PRESETS
from ...features.samples import Sample, SampleList
from . import DatasetOptions
from .files import find_file, first_folder, images_under, listing, posix, read_lines, sample_id, size_of

LIST_FILE = "label.lst"


class ExpW:
    """A sample for each face: ``file``, ``file#1`` ... by the list's face number; faces of a file are one group."""

    name = "expw"
    layout = "expw expects label/label.lst (name, face, top, left, right, bottom, confidence, label) and image/origin/"

    def __call__(self, root: Path, options: DatasetOptions) -> SampleList:
        list_file = find_file(root, {LIST_FILE}, skip={"image"})
        if list_file is None:
            raise LayoutError(
                f"expw: expected {LIST_FILE}, found {listing(root)} in {root}; {self.layout} (docs/datasets.md)"
            )
        images = _images(root, list_file)
        inside = "" if images == root else posix(images, root) + "/"
        sizes: dict[str, int] = {}
        samples = []
        for place, line in enumerate(read_lines(list_file), start=1):
            if not line:
                continue
            try:
                # from the right, for a name may hold spaces
                name, face, *numbers, _, label = line.rsplit(None, 7)
                top, left, right, bottom = map(float, numbers)
                index, expression = int(face), int(label)
            except ValueError:
                expression = -1
            if not 0 <= expression < 7 or not (left < right and top < bottom):
                raise DatasetError(
                    f"expw: expected name, face, top, left, right, bottom, confidence and a label 0 to 6, got {line!r} "
                    f"in line {place} of {list_file}"
                )
            path = inside + name
            if path not in sizes:
                sizes[path] = size_of(root / path)
            samples.append(
                Sample(
                    id=sample_id(path) + (f"#{index}" if index else ""),
                    path=path,
                    label=expression,
                    group=sample_id(name),
                    size_bytes=sizes[path],
                    box=(left, top, right, bottom),
                )
            )
        faces = f"{number(len(samples), 'face')} in {number(len(sizes), 'image')}"
        note = f"{faces}, with the boxes of {posix(list_file, root)}"
        return SampleList(self.name, str(root), PRESETS["fer2013"], tuple(samples), (note,))


def _images(root: Path, list_file: Path) -> Path:
    """The folder that the list's names are in."""
    for base in (list_file.parent.parent, list_file.parent, root):
        if not base.is_relative_to(root):
            continue
        found = first_folder(base / "image" / "origin", base / "origin", base / "image", base / "images")
        if found is not None:
            return found
        if next(images_under(base, root), None) is not None:
            return base
    raise DatasetError(
        f"expw: expected image/origin/ under {root}, found {listing(root)}; unpack the images there"
    )
