"""``expw``: Expression in the Wild; photographs with the box of every labelled face.

Reference: Zhang, Luo, Loy and Tang, "From Facial Expression Recognition to Interpersonal Relation Prediction"
(IJCV 2018), and the readme that comes with ``label.lst``.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import DatasetError, plural
from ...features.classes import PRESETS
from ...features.samples import BOX_COLUMNS, Listing
from .base import Dataset, DatasetOptions
from .files import contents, find_file, first_folder, images_under, posix, read_lines, sample_id, size_of
from .label_names import class_index

LIST_FILE = "label.lst"


class ExpW(Dataset):
    """A sample for each face: ``file``, ``file@1`` ... by the list's face number; faces of a file are one group."""

    name = "expw"
    layout = "expw expects label/label.lst (name, face, top, left, right, bottom, confidence, label) and image/origin/"
    classes = PRESETS["fer2013"]

    def read(self, root: Path, options: DatasetOptions) -> Listing:
        list_file = find_file(root, {LIST_FILE}, skip={"image"})
        if list_file is None:
            raise self.wrong_layout(root, LIST_FILE)
        images = _images(root, list_file)
        inside = "" if images == root else posix(images, root) + "/"
        sizes: dict[str, int] = {}
        rows = []
        for line_number, line in enumerate(read_lines(list_file), start=1):
            if not line:
                continue
            try:
                # from the right, for a name may hold spaces
                name, face, *corners, _, digit = line.rsplit(None, 7)
                top, left, right, bottom = map(float, corners)
                index, label = int(face), class_index(digit, len(self.classes))
            except ValueError:
                label = None
            if label is None or not (left < right and top < bottom):
                raise DatasetError(
                    f"expw: line {line_number} of {list_file} is {line!r}; it must hold name, face, top, left, right, "
                    "bottom, confidence and a label 0 to 6"
                )
            path = inside + name
            if path not in sizes:
                sizes[path] = size_of(root / path)
            rows.append(
                {
                    "id": sample_id(path) + (f"@{index}" if index else ""),
                    "path": path,
                    "label": label,
                    "group": sample_id(name),
                    "size_bytes": sizes[path],
                    **dict(zip(BOX_COLUMNS, (left, top, right, bottom), strict=True)),
                }
            )
        faces = f"{plural(len(rows), 'face')} in {plural(len(sizes), 'image')}"
        return self.listing(root, rows, [f"{faces}, with the boxes of {posix(list_file, root)}"])


def _images(root: Path, list_file: Path) -> Path:
    """The folder that the list's names are in."""
    for base in (list_file.parent.parent, list_file.parent, root):
        if not base.is_relative_to(root):
            continue
        folder = first_folder(base / "image" / "origin", base / "origin", base / "image", base / "images")
        if folder is not None:
            return folder
        if next(images_under(base, root), None) is not None:
            return base
    raise DatasetError(
        f"expw: no image/origin/ under {root}, which holds {contents(root)}; unpack the images there"
    )
