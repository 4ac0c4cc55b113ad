"""Valid files for ``fuzz_inputs.py`` and the commands that read them."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_damage import KINDS
from PIL import Image

FAKE = "ig3d.extract.fakes:FakeRegressor"
CLASSES = ("happy", "sad", "surprise")
NAMES = ",".join(CLASSES)
GROUPS = ("images", "archives", "datasets", "tables", "predictions", "stores", "models", "networks")


@dataclass(frozen=True)
class Reader:
    """Command that reads files, with valid files for it.

    Attributes
    ----------
    name : str
    home : Path
        Folder of valid files; each input is a copy of it.
    files : tuple of str
        Names in ``home``; one of them is damaged.
    command : tuple of str
        Arguments. DIR stands for the copy, FILE for the damaged file, TEXT for its content.
    kinds : tuple of str
        Kinds of damage; default: those of :data:`fuzz_damage.KINDS`.
    store : str
        Store in the copy that must equal ``same`` if the command succeeds; empty for none.
    same : Path or None
    refused : bool
        Whether the valid file is refused too.
    """

    name: str
    home: Path
    files: tuple[str, ...]
    command: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    store: str = ""
    same: Path | None = None
    refused: bool = False

    def kinds_of(self, file: str) -> tuple[str, ...]:
        return self.kinds or KINDS.get(Path(file).suffix, ("bytes",))

    def words(self, folder: Path, file: str) -> list[str]:
        """Command that reads this file in a copy of ``home``."""
        path = folder / file
        text = path.read_bytes().decode(errors="replace").replace("\0", "") if "TEXT" in self.command else ""
        return [
            text if word == "TEXT" else word.replace("FILE", str(path)).replace("DIR", str(folder))
            for word in self.command
        ]


def run(*words: object) -> int:
    """Run a command in this process; return its exit code."""
    from ig3d.cli import main

    sys.argv = ["ig3d", *map(str, words)]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def picture(seed: int, kind: str = "PNG") -> bytes:
    """Small random image, encoded."""
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 24, 3)).astype(np.uint8)
    handle = io.BytesIO()
    Image.fromarray(pixels).save(handle, kind)
    return handle.getvalue()


def class_folder(root: Path, count: int = 24) -> Path:
    """Write images, with a folder for each class."""
    for index in range(count):
        path = root / CLASSES[index % 3] / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(index))
    return root


def lines(*rows: str) -> bytes:
    return ("\n".join(rows) + "\n").encode()


def extract(root: str, out: str, *more: str) -> tuple[str, ...]:
    return ("extract", root, "--regressor", FAKE, "--detector", "none", "--out", out, "--jobs", "1", *more)


class Shelf:
    """Folder that contains folders of valid files."""

    def __init__(self, work: Path) -> None:
        self.work = work

    def reader(
        self,
        name: str,
        files: dict[str, bytes],
        *command: str,
        damaged: tuple[str, ...] = (),
        copied: Path | None = None,
        **more: object,
    ) -> Reader:
        """Write ``files`` and a copy of ``copied`` to a new folder; ``damaged`` are those to damage (default all)."""
        home = self.work / "readers" / name.replace(" ", "-")
        home.mkdir(parents=True)
        if copied:
            shutil.copytree(copied, home, dirs_exist_ok=True)
        for file, content in files.items():
            path = home / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return Reader(name, home, damaged or tuple(files), command, **more)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Basis:
    """Files that most commands need: images, a store and predictions."""

    work: Path
    ids: list[str]
    logits: np.ndarray

    @property
    def store(self) -> str:
        return str(self.work / "s.h5")

    @property
    def npz(self) -> str:
        return str(self.work / "x.npz")


def make_basis(work: Path) -> Basis:
    """Extract a store from a folder of images, and write random logits for its samples."""
    images = class_folder(work / "images", 48)
    run(*extract(str(images), str(work / "s.h5")))
    run("export", work / "s.h5", "--csv", work / "s.csv")
    with (work / "s.csv").open(newline="") as handle:
        ids = [row["id"] for row in csv.DictReader(handle)]
    logits = np.random.default_rng(0).normal(size=(len(ids), 3))
    logits[np.arange(len(ids)), [CLASSES.index(name.partition("/")[0]) for name in ids]] += 2
    np.savez(work / "x.npz", ids=np.array(ids), logits=logits, classes=np.array(CLASSES))
    np.save(work / "x.npy", logits)
    return Basis(work, ids, logits)


def images(shelf: Shelf) -> Iterator[Reader]:
    """Readers of datasets with an image of each format."""
    kinds = {
        "jpg": "JPEG",
        "png": "PNG",
        "bmp": "BMP",
        "webp": "WEBP",
        "tif": "TIFF",
        "gif": "GIF",
        "ppm": "PPM",
    }
    for suffix, kind in (("avif", "AVIF"), ("jp2", "JPEG2000")):
        with suppress(Exception):  # this Pillow does not support the format
            picture(0, kind)
            kinds[suffix] = kind
    good = {f"d/{name}/good.png": picture(index) for index, name in enumerate(CLASSES)}
    for suffix, kind in kinds.items():
        name = f"d/{CLASSES[0]}/x.{suffix}"
        yield shelf.reader(
            f"image {suffix}",
            {**good, name: picture(1, kind)},
            *extract("DIR/d", "DIR/out.h5"),
            damaged=(name,),
        )


def archives(shelf: Shelf) -> Iterator[Reader]:
    """Readers of archives of images."""
    for name, method in (("stored", 0), ("deflated", 8), ("bzip2", 12), ("lzma", 14)):
        handle = io.BytesIO()
        with zipfile.ZipFile(handle, "w", method) as archive:
            for index in range(9):
                archive.writestr(f"{CLASSES[index % 3]}/{index}.png", picture(index))
        command = extract("FILE", "DIR/out.h5", "--dataset", "zip")
        yield shelf.reader(
            f"zip {name}", {"d.zip": handle.getvalue()}, *command, kinds=("bytes", "bytes", "zip")
        )
    for name, form in (("pax", tarfile.PAX_FORMAT), ("gnu", tarfile.GNU_FORMAT)):
        handle = io.BytesIO()
        with tarfile.open(fileobj=handle, mode="w", format=form) as tar:
            for index in range(9):
                stem = "x" * (120 if index == 2 else 1) + f"{index:03d}"
                label = json.dumps(
                    {"label": CLASSES[index % 3], "valence": 0.1, "box": [1, 2, 9, 9]}
                ).encode()
                for member, data in ((f"{stem}.png", picture(index)), (f"{stem}.json", label)):
                    info = tarfile.TarInfo(member)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        command = extract("DIR/d", "DIR/out.h5", "--dataset", "webdataset")
        yield shelf.reader(f"tar {name}", {"d/s-000.tar": handle.getvalue()}, *command)


def tables(shelf: Shelf, basis: Basis) -> Iterator[Reader]:
    """Readers of user tables and of imported codes."""
    folder = class_folder(shelf.work / "tables")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    stems = [name.removesuffix(".png") for name in names]
    splits = [("train", "val", "test")[index % 3] for index in range(len(names))]
    manifest = lines(
        "path,label,split,group,valence,arousal,x0,y0,x1,y1",
        *(
            f"{name},{name.partition('/')[0]},{splits[i]},p{i % 5},0.1,-0.2,1,1,9,9"
            for i, name in enumerate(names)
        ),
    )
    split = lines("id,split", *(f"{stem},{s}" for stem, s in zip(stems, splits, strict=True)))
    codes = lines(
        f"id,{','.join(f'expression:{k}' for k in range(5))}",
        *(f"{stem},0.1,0.2,0.3,0.4,{i}" for i, stem in enumerate(stems)),
    )
    faces = lines(
        "frame,filename,confidence,success,AU01_r,AU02_r",
        *(f"{i},{name},0.9,{i % 2},0.1,{i}" for i, name in enumerate(names)),
    )
    check = ("datasets", "check", "DIR", "--dataset", "folder")
    bring = ("import", "DIR", "--out", "DIR/o.h5", "--dataset", "folder", "--codes")
    yield shelf.reader(
        "manifest",
        {"m.csv": manifest},
        *("datasets", "check", "DIR", "--dataset", "manifest", "--manifest", "FILE"),
        copied=folder,
    )
    yield shelf.reader("split", {"split.csv": split}, *check, "--split", "FILE", copied=folder)
    yield shelf.reader(
        "label map",
        {"map.txt": b"happy=joy,sad=sad,surprise=none"},
        *check,
        "--label-map",
        "TEXT",
        copied=folder,
    )
    yield shelf.reader(
        "groups", {"groups.txt": rb"([^/]*)/\d\d(\d)"}, *check, "--groups", "TEXT", copied=folder
    )
    yield shelf.reader(
        "imported csv", {"c/a.csv": codes}, *bring, "FILE", "--from", "csv", "--columns", "expression:5", copied=folder
    )  # fmt: skip
    yield shelf.reader(
        "imported faces", {"c/a.csv": faces}, *bring, "FILE", "--from", "csv", copied=folder, refused=True
    )
    smirk = json.dumps(
        {"expression_params": [0.1] * 50, "shape_params": [0.2] * 300, "pose_params": [0.1, 0, 0]}
    )
    yield shelf.reader(
        "imported json", {f"c/{stems[0]}.json": smirk.encode()}, *bring, "DIR/c", "--from", "smirk-json", copied=folder
    )  # fmt: skip
    arrays = {}
    for key, width in (("exp", 50), ("shape", 100), ("pose", 6)):
        handle = io.BytesIO()
        np.save(handle, np.full(width, 0.1, np.float32))
        arrays[f"c/{Path(stems[0]).name}00/{key}.npy"] = handle.getvalue()
    yield shelf.reader("imported npy", arrays, *bring, "DIR/c", "--from", "emoca-npy", copied=folder)
    truth = lines(
        "id,label,group,split", *(f"{n},{n.partition('/')[0]},p{i % 7},val" for i, n in enumerate(basis.ids))
    )
    yield shelf.reader(
        "labels",
        {"labels.csv": truth},
        *("predictions", "check", basis.npz, "--3d-logits", basis.npz, "--labels", "FILE"),
        refused=True,
    )


def predictions(shelf: Shelf, basis: Basis) -> Iterator[Reader]:
    """Readers of 2D predictions."""
    check = ("predictions", "check", "FILE", "--3d-store", basis.store)
    ids = lines(*basis.ids)
    rows = lines(
        f"id,{NAMES}",
        *(
            f"{name},{','.join(f'{value:.4f}' for value in row)}"
            for name, row in zip(basis.ids, basis.logits, strict=True)
        ),
    )
    yield shelf.reader("npz", {"x.npz": Path(basis.npz).read_bytes()}, *check)
    npy = (basis.work / "x.npy").read_bytes()
    yield shelf.reader("npy", {"x.npy": npy}, *check, "--2d-classes", NAMES)
    yield shelf.reader("predictions csv", {"x.csv": rows}, *check)
    yield shelf.reader(
        "ids", {"ids.txt": ids}, "predictions", "check", str(basis.work / "x.npy"), "--2d-ids", "FILE",
        "--2d-classes", NAMES, "--3d-store", basis.store,
    )  # fmt: skip
    with suppress(ModuleNotFoundError):
        import torch

        handle = io.BytesIO()
        torch.save({"ids": basis.ids, "logits": torch.tensor(basis.logits), "classes": list(CLASSES)}, handle)
        yield shelf.reader("pt", {"x.pt": handle.getvalue()}, *check)
    with suppress(ModuleNotFoundError):
        import pandas as pd

        handle = io.BytesIO()
        table = pd.DataFrame({"id": basis.ids, **dict(zip(CLASSES, basis.logits.T, strict=True))})
        table.to_parquet(handle)
        yield shelf.reader("parquet", {"x.parquet": handle.getvalue()}, *check)


def stores(shelf: Shelf, basis: Basis) -> Iterator[Reader]:
    """Readers of stores, and of the folder of an interrupted extraction."""
    content = {"s.h5": Path(basis.store).read_bytes()}
    same = Path(basis.store)
    yield shelf.reader("store", content, "inspect", "FILE", "--verify", store="s.h5", same=same)
    yield shelf.reader("store exported", content, "export", "FILE", "--csv", "DIR/out.csv")
    yield shelf.reader("store rehashed", content, "inspect", "FILE", "--verify", kinds=("hashed",))
    yield shelf.reader("store previewed", content, "preview", "FILE", "--out", "DIR/p.png", kinds=("hashed",))
    yield parts(shelf)


def parts(shelf: Shelf) -> Reader:
    """Reader of ``STORE.h5.parts``, from an extraction that was interrupted after two shards."""
    from ig3d.extract import run as extraction

    home = shelf.work / "parts"
    root = class_folder(home / "images", 150)
    same = home / "same.h5"
    run(*extract(str(root), str(same)))
    extract_shards = extraction.extract_shards
    done: list[Path] = []

    def interrupted(shards: Sequence[Any], *arguments: object, **options: object) -> object:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(shards[0].path)
        return extract_shards(shards, *arguments, **options)  # type: ignore[arg-type]

    extraction.extract_shards = interrupted  # type: ignore[assignment]
    try:
        run(*extract(str(root), str(home / "o.h5")))
    finally:
        extraction.extract_shards = extract_shards
    files = {f"o.h5.parts/{path.name}": path.read_bytes() for path in (home / "o.h5.parts").iterdir()}
    damaged = tuple(sorted(name for name in files if not name.endswith("lock")))
    return shelf.reader(
        "parts", files, *extract(str(root), "DIR/o.h5"), damaged=damaged, store="o.h5", same=same
    )


def readers(work: Path, groups: Sequence[str]) -> list[Reader]:
    """All readers of these groups in :data:`GROUPS`."""
    from fuzz_datasets import datasets
    from fuzz_networks import models, networks

    shelf = Shelf(work)
    basis = make_basis(work)
    makers: dict[str, Callable[[], Iterator[Reader]]] = {
        "images": lambda: images(shelf),
        "archives": lambda: archives(shelf),
        "datasets": lambda: datasets(shelf),
        "tables": lambda: tables(shelf, basis),
        "predictions": lambda: predictions(shelf, basis),
        "stores": lambda: stores(shelf, basis),
        "models": lambda: models(shelf, basis),
        "networks": lambda: networks(shelf, basis),
    }
    return [reader for group in groups for reader in makers[group]()]
