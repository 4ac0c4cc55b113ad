"""``webdataset``: tar shards in which the files of a sample share a key: ``0001.jpg``, ``0001.cls``, ``0001.json``.

The convention is that of the webdataset library: the key is the path up to the first dot of the file's name.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import DatasetError, LayoutError, number, some
from ...features.samples import SampleList
from ..kinds import HEAD, is_leaving, other_kind
from ..sources.archives import tar_members
from . import DatasetOptions
from .containers import Containers, containers_in, is_compressed, is_hidden, split_in, without_suffix
from .files import skipped_note
from .table import BOX, COLUMNS, OTHER_NAMES, from_table

# Files with what is known of a sample are small; a larger one is something else.
_MOST_BYTES = 1 << 20
_CLASS_FILES = ("classes.txt", "classes.json")
_KINDS = ("cls", "json", "txt")


class WebDataset:
    """Plain tar files; what is known of an image stands in ``key.cls``, ``key.txt`` or ``key.json`` beside it."""

    name = "webdataset"
    layout = (
        "webdataset expects tar files (not compressed) under ROOT with KEY.jpg and KEY.cls (class number or name), "
        "KEY.txt (class name) or KEY.json (label, split, valence, arousal, group, box)"
    )
    shares = (0.6, 0.2, 0.2)
    maps_labels = True
    container = ".tar"
    remote = True

    def __call__(self, root: str | Path, options: DatasetOptions) -> SampleList:
        shards = containers_in(root, self.container, dataset=self.name, layout=self.layout)
        records: list[dict[str, Any]] = []
        notes: list[str] = []
        packed: list[str] = []
        skipped: Counter[str] = Counter()
        for path, _ in shards.files:
            with shards.open(path, dataset=self.name) as file:
                if is_compressed(file):
                    packed.append(path)
                    continue
                found, note = _records(path, file, skipped)
            records += found
            notes += note
        if not records:
            there = f"compressed files only ({some(packed)}), to be unpacked" if packed else "none"
            raise LayoutError(
                f"webdataset: expected images in {root}, found {there}; {self.layout} (docs/datasets.md)"
            )
        notes = [*replace(shards, packed=(*shards.packed, *packed)).notes, *notes, *skipped_note(skipped)]
        names = {*COLUMNS} & {name for record in records for name in record}
        table = {name: [record.get(name) for record in records] for name in names}
        sizes = [record["size"] for record in records]
        return from_table(
            self.name, shards.root, table, sizes, options, class_names=_class_names(shards), notes=notes
        )


def _records(path: str, file: BinaryIO, skipped: Counter[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """What one shard says of each of its images; a damaged shard says what comes before the damage."""
    images: dict[str, dict[str, Any]] = {}
    known: dict[str, dict[str, Any]] = {}
    notes = []
    split, above = split_in(path), without_suffix(path)
    try:
        for name, start, size in tar_members(file):
            folder, _, base = name.rpartition("/")
            stem, _, kind = base.partition(".")
            if is_hidden(name):
                continue
            key = f"{folder}/{stem}" if folder else stem
            if kind in _KINDS and size <= _MOST_BYTES:
                file.seek(start)
                content = file.read(size)
                if len(content) < size:  # the beginning of 12 is 1: half of a record is none
                    raise tarfile.ReadError(f"cut short in {name}, which is left out")
                said = _said(kind, content, f"{path}!{name}")
                # a text may be a caption: it says the class where nothing else does
                before = known.get(key, {})
                known[key] = said | before if kind == "txt" else before | said
            elif other := other_kind(base, partial(_head, file, start, size)):
                if not is_leaving(base):
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
        if _goes_on(file):
            notes.append(
                f"WARNING {path} goes on after its end, and what follows is left out; where tars were joined, unpack "
                f"them (tar -xif {path}) and pack them anew"
            )
    except tarfile.ReadError as exc:
        if not images:
            raise
        notes.append(
            f"WARNING {path} is damaged; taken: {number(len(images), 'image')} up to the damage ({exc})"
        )
    return [record | known.get(record["key"], {}) for record in images.values()], notes


def _head(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(min(size, HEAD))


def _goes_on(file: BinaryIO) -> bool:
    """Whether anything but the padding follows the two closing blocks of a tar, after which the file stands."""
    while block := file.read(_MOST_BYTES):
        if block.strip(b"\0"):
            return True
    return False


def _said(kind: str, content: bytes, where: str) -> dict[str, Any]:
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
            f"webdataset: expected {'a JSON object' if kind == 'json' else 'text'} in {where}, got {exc}"
        ) from exc
    found = {name: fields[name] for name in COLUMNS if name in fields and name not in ("path", "id")}
    other = next((other for other in OTHER_NAMES["label"] if other in fields), None)
    if "label" not in found and other is not None:
        found["label"] = fields[other]
    box = fields.get("box")
    if isinstance(box, list) and len(box) == len(BOX):
        found |= dict(zip(BOX, box, strict=True))
    return {name: value for name, value in found.items() if value is not None}


def _class_names(shards: Containers) -> tuple[str, ...]:
    """Names of the classes from ``classes.txt`` (a line each) or ``classes.json`` (a list) beside the shards."""
    for name in _CLASS_FILES:
        path = Path(shards.root, name)
        if path.is_file():
            try:
                text = path.read_text(encoding="utf-8-sig")
                found = json.loads(text) if name.endswith("json") else text.split("\n")
                if not isinstance(found, list):
                    raise ValueError("no list")
            except Exception as exc:
                raise DatasetError(f"webdataset: expected a list of names in {path}, got {exc}") from exc
            return tuple(str(one).strip() for one in found if str(one).strip())
    return ()
