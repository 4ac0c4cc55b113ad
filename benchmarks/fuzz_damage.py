"""Damage to files for ``fuzz_inputs.py``: bytes, text, members of a zip, objects of an HDF5 file."""

from __future__ import annotations

import io
import random
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from ig3d.features.store.format import content_hash


def damage_bytes(content: bytes, draw: random.Random) -> bytes:
    """Flip, truncate, repeat, insert or overwrite bytes."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(len(data)) if data else 0
        length = min(draw.choice((1, 2, 4, 8, 64, 1024)), len(data) - at)
        kind = draw.choice(("flip", "value", "zero", "cut", "repeat", "insert", "end", "random"))
        if kind == "flip" and data:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == "value" and data:
            data[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == "zero":
            data[at : at + length] = bytes(length)
        elif kind == "cut":
            del data[at : at + length]
        elif kind == "repeat":
            data[at:at] = data[at : at + length]
        elif kind == "insert":
            data[at:at] = draw.randbytes(draw.choice((1, 4, 32)))
        elif kind == "end":
            del data[at:]
        else:
            data[at : at + length] = draw.randbytes(length)
    return bytes(data)


WORDS = (
    "", ",", ";", "\t", '"', '""', "\n", "\r\n", "\r", "\0", "\ufeff", "nan", "inf", "-1", "1e400", "9" * 5000, "²",
    "3.0", "0x10", "é", "e\u0301", "../../etc/passwd", "/dev/zero", "C:\\x\\y.jpg", "[/b]", "[red]x", "$\\bad$",
    "<script>alert(1)</script>", "\x1b[31m", "\u202e", "{", "}", "[", "]", ": ", "- ", "&a ", "*a",
    "!!python/object:os.system ", "null", "true", "a" * 200_000,
)  # fmt: skip


def damage_text(content: bytes, draw: random.Random) -> bytes:
    """Replace, insert, duplicate, delete and swap cells and lines, or change the encoding of the text."""
    text = content.decode("utf-8", "replace")
    for _ in range(draw.choice((1, 1, 2, 5))):
        lines = text.split("\n")
        at = draw.randrange(len(lines))
        kind = draw.choice(("cell", "insert", "double", "drop", "swap", "blank", "end", "encoding"))
        if kind == "cell":
            cells = lines[at].split(",")
            cells[draw.randrange(len(cells))] = draw.choice(WORDS)
            lines[at] = ",".join(cells)
        elif kind == "insert":
            column = draw.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:column] + draw.choice(WORDS) + lines[at][column:]
        elif kind == "double":
            lines.insert(at, lines[at])
        elif kind == "drop":
            del lines[at]
        elif kind == "swap":
            other = draw.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == "blank":
            lines.insert(at, draw.choice(("", ",,,", "   ", "#", '""')))
        elif kind == "end":
            lines = lines[: at + 1]
        text = "\n".join(lines)
        if kind == "encoding":
            return text.encode(draw.choice(("utf-16", "utf-8-sig", "latin-1", "cp1252", "utf-32")), "replace")
    return text.encode("utf-8", "surrogatepass")


def damage_zip(content: bytes, draw: random.Random) -> bytes:
    """Damage a member of a zip file (also .npz, .skops, .pth) and write the archive again with correct checksums."""
    out = io.BytesIO()
    warnings.simplefilter("ignore")  # duplicate names are intended
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w") as target:
        names = source.namelist()
        chosen = draw.choice(names)
        for name in names:
            data = source.read(name)
            if name == chosen:
                kind = draw.choice(("bytes", "bytes", "bytes", "text", "drop", "rename", "twice"))
                if kind == "drop":
                    continue
                if kind == "rename":
                    name = draw.choice(("../x", "/abs", "a\\b", "\x01", name + "x", "\u202ex"))
                elif kind == "twice":
                    target.writestr(name or "x", data)
                else:
                    data = damage_text(data, draw) if kind == "text" else damage_bytes(data, draw)
            if name:
                target.writestr(name, data)
    return out.getvalue()


def damage_hdf5(content: bytes, draw: random.Random) -> bytes:
    """Change values, types, shapes, links or attributes of an HDF5 file through h5py."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.h5"
        path.write_bytes(content)
        with h5py.File(path, "r+") as file:
            names: list[str] = []
            file.visit(names.append)
            name = draw.choice(names)
            item = file[name]
            kind = draw.choice(
                ("value", "type", "shape", "delete", "soft", "external", "attribute", "group", "rename")
            )
            if kind == "value" and isinstance(item, h5py.Dataset) and item.size:
                at = tuple(draw.randrange(side) for side in item.shape)
                values = {"f": (np.nan, np.inf, 1e30), "S": (b"", b"\xff\xfe", b"../x")}
                item[at] = draw.choice(values.get(item.dtype.kind, (0, 1, 99)))
            elif kind == "attribute":
                keys = list(item.attrs) or ["new"]
                item.attrs[draw.choice(keys)] = draw.choice(("", "x", "{", -1, 10**9, "[red]", np.nan))
            elif kind != "value":
                old = item[()] if isinstance(item, h5py.Dataset) else None
                if kind == "rename":
                    file.move(name, name + "x")
                else:
                    del file[name]
                if kind == "soft":
                    file[name] = h5py.SoftLink("/" + draw.choice(names))
                elif kind == "external":
                    file[name] = h5py.ExternalLink("/etc/hostname", "/x")
                elif kind == "group":
                    file.create_group(name)
                elif kind == "type" and old is not None:
                    file[name] = np.zeros(np.shape(old), draw.choice(("f8", "i8", "S4", "f2", "?", "c8")))
                elif kind == "shape" and old is not None:
                    file[name] = np.asarray(old).reshape(-1)[: draw.choice((0, 1, 3))]
        return path.read_bytes()


def damage_hashed(content: bytes, draw: random.Random) -> bytes:
    """Like :func:`damage_hdf5`, with a new content hash, so that the store can pass verification."""
    content = damage_hdf5(content, draw)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.h5"
        path.write_bytes(content)
        with suppress(Exception), h5py.File(path, "r+") as file:
            file.attrs["content_sha256"] = content_hash(file)
        return path.read_bytes()


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bytes": damage_bytes,
    "text": damage_text,
    "zip": damage_zip,
    "hdf5": damage_hdf5,
    "hashed": damage_hashed,
}
# Suffix of a file -> kinds of damage; other files get damaged bytes.
KINDS = {
    **dict.fromkeys((".csv", ".txt", ".lst", ".json", ".yaml", ".cls"), ("text", "text", "bytes")),
    **dict.fromkeys((".zip", ".npz", ".skops", ".pth", ".pt"), ("zip", "zip", "bytes")),
    ".h5": ("hdf5", "hdf5", "bytes"),
}
