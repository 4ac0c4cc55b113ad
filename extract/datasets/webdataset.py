"""``webdataset``: tar shards in which the files of a sample share a key: ``0001.jpg``, ``0001.cls``, ``0001.json``.

The convention is that of the webdataset library: the key is the path up to the first dot of the file's name.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import DatasetError, listed, plural
from ...features.samples import BOX_COLUMNS, Listing
from ..image_formats import is_system_file, non_image_kind
from ..sources import Unavailable, Unreadable
from ..sources.archives import TarMembers
from .archive_files import Archives, archives_in, is_hidden, split_in, without_suffix
from .base import Dataset, DatasetOptions
from .files import skipped_note
from .splits import SHARES
from .tabular import COLUMNS, find_label, list_table

# Annotations of a sample are small; a larger file is something else.
_MAX_BYTES = 1 << 20
_CLASS_FILES = ("classes.txt", "classes.json")
_KINDS = ("cls", "json", "txt")


class WebDataset(Dataset):
    """Plain tar files; the annotations of an image are in ``key.cls``, ``key.txt`` or ``key.json`` beside it."""

    name = "webdataset"
    layout = (
        "webdataset expects tar files (not compressed) under ROOT with KEY.jpg and KEY.cls (class number or name), "
        "KEY.txt (class name) or KEY.json (label, split, valence, arousal, group, box)"
    )
    split_fractions = SHARES
    maps_labels = True
    suffix = ".tar"
    remote = True

    def read(self, root: Path | str, options: DatasetOptions) -> Listing:
        shards = archives_in(root, self)
        records: list[dict[str, Any]] = []
        notes: list[str] = []
        packed: list[str] = []
        skipped: Counter[str] = Counter()
        for path, _ in shards.files:
            if shards.is_compressed(path):
                packed.append(path)
                continue
            archive: TarMembers = shards.open(path, dataset=self.name)
            shard, damage = _records(path, archive, skipped)
            if damage and not shard:
                raise shards.damaged(path, damage, dataset=self.name)
            note = _notes(path, archive, damage, len(shard))
            records += shard
            notes += note
        if not records:
            present = f"compressed files only ({listed(packed)}), to be unpacked" if packed else ""
            raise self.wrong_layout(root, "images", present=present)
        notes = [*replace(shards, packed=(*shards.packed, *packed)).notes, *notes, *skipped_note(skipped)]
        names = {*COLUMNS} & {name for record in records for name in record}
        table = {name: [record.get(name) for record in records] for name in names}
        sizes = [record["size"] for record in records]
        return list_table(
            self, shards.root, table, sizes, options, class_names=_class_names(shards), notes=notes
        )


def _records(path: str, archive: TarMembers, skipped: Counter[str]) -> tuple[list[dict[str, Any]], str]:
    """The columns of each image in one shard, and its damage; of a damaged shard, of the images before the damage."""
    images: dict[str, dict[str, Any]] = {}
    annotations: dict[str, dict[str, Any]] = {}
    damage = archive.damage
    split, above = split_in(path), without_suffix(path)
    for name, size in archive.members():
        folder, _, base = name.rpartition("/")
        stem, _, kind = base.partition(".")
        if is_hidden(name):
            continue
        key = f"{folder}/{stem}" if folder else stem
        if kind in _KINDS and size <= _MAX_BYTES:
            try:
                content = archive.read(name)
            except Unavailable:
                raise
            except Unreadable:  # the beginning of 12 is 1: half of a record is none
                damage = f"cut short in {name}, which is left out"
                break
            fields = _annotation(kind, content, f"{path}!{name}")
            # a text may be a caption: it is the class where no other file gives one
            before = annotations.get(key, {})
            annotations[key] = fields | before if kind == "txt" else before | fields
        elif other := non_image_kind(base, partial(archive.head, name)):
            if not is_system_file(base):
                skipped[other] += 1
        else:
            # a sample of several images has an id for each
            which = f".{kind.rpartition('.')[0]}" if "." in kind else ""
            images[name] = {
                "id": f"{above}/{key}{which}",
                "path": f"{path}!{name}",
                "size": size,
                "split": None if split is None else split.name,
                "key": key,
            }
    return [record | annotations.get(record["key"], {}) for record in images.values()], damage


def _notes(path: str, archive: TarMembers, damage: str, images: int) -> list[str]:
    """Warnings on a damaged shard, or on data after its end."""
    if damage:
        return [f"WARNING {path} is damaged; taken: {plural(images, 'image')} up to the damage ({damage})"]
    if archive.followed:
        return [
            f"WARNING {path} goes on after its end, and what follows is left out; where tars were joined, unpack "
            f"them (tar -xif {path}) and pack them anew"
        ]
    return []


def _annotation(kind: str, content: bytes, where: str) -> dict[str, Any]:
    """Columns from one file beside an image.

    Raises
    ------
    DatasetError : it is no text, or no JSON object.
    """
    try:
        text = content.decode("utf-8-sig").strip()
        if kind != "json":
            return {"label": text} if text else {}
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as exc:
        raise DatasetError(
            f"webdataset: {where} is not {'a JSON object' if kind == 'json' else 'text'}: {exc}; write the file again"
        ) from exc
    columns = {name: fields[name] for name in COLUMNS if name in fields and name not in ("path", "id")}
    if (label := find_label(fields)) is not None:
        columns["label"] = fields[label]
    box = fields.get("box")
    if isinstance(box, list) and len(box) == len(BOX_COLUMNS):
        columns |= dict(zip(BOX_COLUMNS, box, strict=True))
    return {name: value for name, value in columns.items() if value is not None}


def _class_names(shards: Archives) -> tuple[str, ...]:
    """Names of the classes from ``classes.txt`` (a line each) or ``classes.json`` (a list) beside the shards."""
    for name in _CLASS_FILES:
        path = Path(shards.root, name)
        if path.is_file():
            try:
                text = path.read_text(encoding="utf-8-sig")
                names = json.loads(text) if name.endswith("json") else text.split("\n")
                if not isinstance(names, list):
                    raise ValueError("no list")
            except Exception as exc:
                raise DatasetError(
                    f"webdataset: {path} is no list of class names: {exc}; write one name per line"
                ) from exc
            return tuple(str(name).strip() for name in names if str(name).strip())
    return ()
