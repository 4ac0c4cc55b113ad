"""Damaged and hostile inputs for every reader: no traceback, no hang, no native crash, no wrong store that verifies.

Each input is a valid file with random damage (bytes, text, members of a zip, objects of an HDF5 file), read by a
command in a separate process. The command has to end by itself with exit code 0, 1 or 2 and without a traceback; a
store that still verifies has to hold the codes and labels of the undamaged one. Every input follows from ``--seed`` and
its number. Findings are printed, with the file that ``--keep`` keeps; the exit code is 1 where there are any.

    python benchmarks/fuzz_inputs.py --count 2000 --seed 0
    python benchmarks/fuzz_inputs.py --reader store --count 200 --keep /tmp/findings
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import numpy as np
from PIL import Image

FAKE = "ig3d.extract.fakes:FakeRegressor"
CLASSES = ("happy", "sad", "surprise")
SECONDS = 30  # of one input; the slowest valid one takes 2 s
MEMORY = 12 << 30  # bytes of address space of one input
ALLOWED = (0, 1, 2)

Command = list[str]


@dataclass(frozen=True)
class Reader:
    """A command that reads a file.

    Attributes
    ----------
    name : str
    content : bytes
        A valid file.
    place : function of a folder and the damaged bytes
        Writes the file and returns the command that reads it.
    kinds : kinds of damage, of :data:`DAMAGE`
    """

    name: str
    content: bytes
    place: Callable[[Path, bytes], Command]
    kinds: tuple[str, ...] = ("bytes",)


# --- damage ---


def damage_bytes(content: bytes, draw: random.Random) -> bytes:
    """Flip, cut, repeat, insert or overwrite bytes."""
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
    """Replace, insert, double, drop and swap cells and lines, or write the text in another encoding."""
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
            place = draw.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:place] + draw.choice(WORDS) + lines[at][place:]
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
    """Damage one member of a zip (also .npz, .skops, .pth) and pack it again, so that its checksum is right."""
    out = io.BytesIO()
    warnings.simplefilter("ignore")  # a name that occurs twice is meant
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
                    name = draw.choice(("../x", "/abs", "a\\b", "\0", name + "x", "\u202ex"))
                elif kind == "twice":
                    target.writestr(name, data)
                else:
                    data = damage_text(data, draw) if kind == "text" else damage_bytes(data, draw)
            with suppress(ValueError):
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
            one = file[name]
            kind = draw.choice(
                ("value", "type", "shape", "delete", "soft", "external", "attribute", "group", "rename")
            )
            if kind == "value" and isinstance(one, h5py.Dataset) and one.size:
                at = tuple(draw.randrange(side) for side in one.shape)
                values = {"f": (np.nan, np.inf, 1e30), "S": (b"", b"\xff\xfe", b"../x")}
                one[at] = draw.choice(values.get(one.dtype.kind, (0, 1, 99)))
            elif kind == "attribute":
                keys = list(one.attrs) or ["new"]
                one.attrs[draw.choice(keys)] = draw.choice(("", "x", "{", -1, 10**9, "[red]", np.nan))
            elif kind != "value":
                old = one[()] if isinstance(one, h5py.Dataset) else None
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


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bytes": damage_bytes,
    "text": damage_text,
    "zip": damage_zip,
    "hdf5": damage_hdf5,
}


# --- valid files and the commands that read them ---


def picture(seed: int, kind: str = "PNG") -> bytes:
    """A small image with some content."""
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 24, 3)).astype(np.uint8)
    handle = io.BytesIO()
    Image.fromarray(pixels).save(handle, kind)
    return handle.getvalue()


def class_folder(root: Path) -> Path:
    for index in range(24):
        path = root / CLASSES[index % 3] / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(index))
    return root


def in_folder(name: str, *command: str) -> Callable[[Path, bytes], Command]:
    """Write the file as ``name`` and run ``command``, in which FILE is its path and DIR its folder."""

    def place(folder: Path, content: bytes) -> Command:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return [word.replace("FILE", str(path)).replace("DIR", str(folder)) for word in command]

    return place


def beside(root: Path, name: str, *command: str) -> Callable[[Path, bytes], Command]:
    """As :func:`in_folder`, in a copy of the folder ``root``."""
    inner = in_folder(name, *command)

    def place(folder: Path, content: bytes) -> Command:
        shutil.copytree(root, folder, dirs_exist_ok=True)
        return inner(folder, content)

    return place


def readers(work: Path) -> list[Reader]:
    """Every reader with a valid file."""
    found = [*image_readers(), *archive_readers(), *table_readers(work)]
    images = class_folder(work / "images")
    run("extract", images, "--regressor", FAKE, "--detector", "none", "--out", work / "s.h5", "--jobs", "1")
    run("export", work / "s.h5", "--csv", work / "s.csv")
    with (work / "s.csv").open(newline="") as handle:
        ids = [row["id"] for row in csv.DictReader(handle)]
    logits = np.random.default_rng(0).normal(size=(len(ids), 3))
    logits[np.arange(len(ids)), [CLASSES.index(name.partition("/")[0]) for name in ids]] += 2
    np.savez(work / "x.npz", ids=np.array(ids), logits=logits, classes=np.array(CLASSES))
    np.save(work / "x.npy", logits)
    two_d = ("--2d-logits", "FILE", "--3d-store", str(work / "s.h5"))
    check = ("predictions", "check", "FILE", "--3d-store", str(work / "s.h5"))
    found += [
        Reader("npz", (work / "x.npz").read_bytes(), in_folder("x.npz", *check), ("bytes", "zip", "zip")),
        Reader(
            "npy",
            (work / "x.npy").read_bytes(),
            in_folder("x.npy", *check, "--2d-classes", ",".join(CLASSES)),
        ),
        Reader("predictions csv", csv_of(ids, logits), in_folder("x.csv", *check), ("text", "text", "bytes")),
        Reader(
            "store",
            (work / "s.h5").read_bytes(),
            in_folder("s.h5", "inspect", "FILE", "--verify"),
            ("hdf5", "hdf5", "bytes"),
        ),
        Reader(
            "store exported",
            (work / "s.h5").read_bytes(),
            in_folder("s.h5", "export", "FILE", "--csv", "DIR/out.csv"),
            ("hdf5", "bytes"),
        ),
        *optional_readers(work, ids, logits, two_d),
    ]
    return found


def csv_of(ids: list[str], logits: np.ndarray) -> bytes:
    lines = [",".join(("id", *CLASSES))]
    lines += [
        ",".join((name, *(f"{value:.4f}" for value in row))) for name, row in zip(ids, logits, strict=True)
    ]
    return ("\n".join(lines) + "\n").encode()


def image_readers() -> list[Reader]:
    """One image of each format in a folder of classes."""
    command = (
        "extract",
        "DIR",
        "--regressor",
        FAKE,
        "--detector",
        "none",
        "--out",
        "DIR/../out.h5",
        "--jobs",
        "1",
    )
    kinds = {
        "jpg": "JPEG",
        "png": "PNG",
        "bmp": "BMP",
        "webp": "WEBP",
        "tif": "TIFF",
        "gif": "GIF",
        "ppm": "PPM",
    }
    with suppress(Exception):  # a Pillow without AVIF or JPEG 2000
        picture(0, "AVIF")
        kinds["avif"] = "AVIF"
    with suppress(Exception):
        picture(0, "JPEG2000")
        kinds["jp2"] = "JPEG2000"

    def place_as(suffix: str) -> Callable[[Path, bytes], Command]:
        def place(folder: Path, content: bytes) -> Command:
            for index, name in enumerate(CLASSES):
                (folder / "d" / name).mkdir(parents=True, exist_ok=True)
                (folder / "d" / name / "good.png").write_bytes(picture(index))
            return in_folder(f"{CLASSES[0]}/x.{suffix}", *command)(folder / "d", content)

        return place

    return [Reader(f"image {suffix}", picture(1, kind), place_as(suffix)) for suffix, kind in kinds.items()]


def archive_readers() -> list[Reader]:
    """Archives of images and datasets in one file."""
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive, tarfile.open(fileobj=tarred, mode="w") as tar:
        for index in range(9):
            content = picture(index)
            archive.writestr(f"{CLASSES[index % 3]}/{index}.png", content)
            for suffix, data in (("png", content), ("cls", str(index % 3).encode())):
                info = tarfile.TarInfo(f"{index:03d}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    rows = ["emotion,pixels,Usage"]
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 255, 48 * 48)
        rows.append(f"{index},{' '.join(map(str, pixels))},Training")
    extract = ("--regressor", FAKE, "--detector", "none", "--out", "DIR/out.h5", "--jobs", "1")
    return [
        Reader(
            "zip",
            zipped.getvalue(),
            in_folder("d.zip", "extract", "FILE", "--dataset", "zip", *extract),
            ("bytes", "zip"),
        ),
        Reader(
            "tar",
            tarred.getvalue(),
            in_folder("d/s-000.tar", "extract", "DIR/d", "--dataset", "webdataset", *extract),
        ),
        Reader(
            "fer2013",
            "\n".join(rows).encode(),
            in_folder("d/fer2013.csv", "extract", "DIR/d", "--dataset", "fer2013", *extract),
            ("text", "bytes"),
        ),
    ]


def table_readers(work: Path) -> list[Reader]:
    """Tables that a user writes: manifests, splits, groups, imported codes."""
    images = class_folder(work / "tables")
    names = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    manifest = ["path,label,split,group"]
    manifest += [
        f"{n},{n.partition('/')[0]},{('train', 'val', 'test')[i % 3]},p{i % 5}" for i, n in enumerate(names)
    ]
    split = [
        "id,split",
        *(f"{n.removesuffix('.png')},{('train', 'test')[i % 2]}" for i, n in enumerate(names)),
    ]
    codes = [f"id,{','.join(f'expression:{k}' for k in range(5))}"]
    codes += [f"{n.removesuffix('.png')},0.1,0.2,0.3,0.4,{i}" for i, n in enumerate(names)]
    text = ("text", "text", "bytes")
    return [
        Reader(
            "manifest",
            "\n".join(manifest).encode(),
            beside(
                images, "m.csv", "datasets", "check", "DIR", "--dataset", "manifest", "--manifest", "FILE"
            ),
            text,
        ),
        Reader(
            "split",
            "\n".join(split).encode(),
            beside(images, "split.csv", "datasets", "check", "DIR", "--split", "FILE"),
            text,
        ),
        Reader(
            "imported csv",
            "\n".join(codes).encode(),
            beside(
                images,
                "c/codes.csv",
                "import",
                "DIR",
                "--from",
                "csv",
                "--codes",
                "FILE",
                "--columns",
                "expression:5",
                "--out",
                "DIR/o.h5",
            ),
            text,
        ),
        Reader(
            "imported json",
            json.dumps(
                {"expression_params": [0.1] * 50, "shape_params": [0.2] * 300, "pose_params": [0.1, 0, 0]}
            ).encode(),
            beside(
                images,
                f"c/{names[0].removesuffix('.png')}.json",
                "import",
                "DIR",
                "--from",
                "smirk-json",
                "--codes",
                "DIR/c",
                "--out",
                "DIR/o.h5",
            ),
            text,
        ),
    ]


def optional_readers(
    work: Path, ids: list[str], logits: np.ndarray, two_d: Command | tuple[str, ...]
) -> list[Reader]:
    """Fitted models, studies, checkpoints, weights and graphs: those whose packages are installed."""
    found = []
    run(
        "fuse", "--2d-logits", work / "x.npz", "--3d-store", work / "s.h5", "--out", work / "f", "--draws", "100",
        "--rules", "mean,stack", "--jobs", "1", "--fit-on", "reported",
    )  # fmt: skip
    model = work / "f" / "model.skops"
    if model.is_file():
        predict = ("predict", "FILE", "--2d-logits", str(work / "x.npz"), "--3d-store", str(work / "s.h5"))
        found.append(
            Reader(
                "model",
                model.read_bytes(),
                in_folder("m.skops", *predict, "--out", "DIR/p.csv"),
                ("bytes", "zip", "zip"),
            )
        )
    study = "name: toy\nrun: fuse\noptions:\n  draws: 100\n  rules: [mean]\ngrid:\n  head: [gbm, linear]\n"
    found.append(
        Reader(
            "study",
            study.encode(),
            in_folder(
                "a.yaml",
                "ablate",
                "FILE",
                "--2d-logits",
                str(work / "x.npy"),
                "--3d-store",
                str(work / "none.h5"),
                "--out",
                "DIR/o",
            ),
            ("text", "bytes"),
        )
    )
    with suppress(ModuleNotFoundError):
        import pandas as pd

        table = pd.DataFrame({"id": ids, **dict(zip(CLASSES, logits.T, strict=True))})
        table.to_parquet(work / "x.parquet")
        found.append(
            Reader(
                "parquet",
                (work / "x.parquet").read_bytes(),
                in_folder("x.parquet", "predictions", "check", "FILE", "--3d-store", str(work / "s.h5")),
            )
        )
    with suppress(ModuleNotFoundError):
        import timm
        import torch

        torch.manual_seed(0)
        torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), work / "w.pth")
        few = class_folder(work / "few")
        found.append(
            Reader(
                "checkpoint",
                (work / "w.pth").read_bytes(),
                in_folder(
                    "w.pth",
                    "logits",
                    str(few),
                    "--network",
                    "timm:test_resnet",
                    "--weights",
                    "FILE",
                    "--classes",
                    ",".join(CLASSES),
                    "--size",
                    "32",
                    "--device",
                    "cpu",
                    "--out",
                    "DIR/x.npz",
                ),
                ("bytes", "zip"),
            )
        )
        found.append(
            Reader(
                "weights",
                (work / "w.pth").read_bytes(),
                in_folder("w.pth", "weights", "add", "FILE"),
                ("bytes", "zip"),
            )
        )
    return found


# --- running ---


def run(*words: object) -> int:
    """Run a command in this process; its exit code."""
    from ig3d.cli import main

    sys.argv = ["ig3d", *map(str, words)]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@dataclass(frozen=True)
class Outcome:
    """How one input ended: exit code (negative: a signal), text, seconds."""

    code: int
    text: str
    seconds: float

    @property
    def fault(self) -> str:
        """Description of the fault; empty without one."""
        if self.code == -signal.SIGKILL and self.seconds >= SECONDS:
            return f"hang ({SECONDS} s)"
        if self.code < 0:
            return f"native crash ({signal.Signals(-self.code).name})"
        if "Traceback" in self.text:
            return "traceback"
        if self.code not in ALLOWED:
            return f"exit code {self.code}"
        if self.code and len([line for line in self.text.splitlines() if line.startswith("ig3d: ")]) > 1:
            return "more than one line of error"
        return ""


def forked(command: Command, home: Path) -> Outcome:
    """Run a command in a forked process, with limits of time and memory."""
    began = time.monotonic()
    log = home / "log"
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            os.environ.update(HOME=str(home), IG3D_OFFLINE="1", XDG_CACHE_HOME=str(home / "cache"))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            os.chdir(home)
            code = run(*command)
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 99
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if 0 <= code < 256 else 99)
    status = 0
    while time.monotonic() - began < SECONDS:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.005)
    else:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    text = log.read_text(errors="replace") if log.exists() else ""
    return Outcome(os.waitstatus_to_exitcode(status), text, time.monotonic() - began)


def content_of(path: Path) -> tuple[object, ...]:
    """Samples and codes of a store, to compare with those of another."""
    with h5py.File(path, "r") as file:
        values: list[object] = []

        def visit(name: str, one: object) -> None:
            if isinstance(one, h5py.Dataset):
                values.append((name, one.dtype.str, one.shape, one[()].tobytes()))

        file.visititems(visit)
        return tuple(values)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--count", type=int, default=2000, help="inputs, spread evenly over the readers")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--reader", default="", help="only readers whose name contains this")
    options.add_argument("--keep", type=Path, help="folder for the inputs of findings")
    asked = options.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        os.environ["HOME"] = str(work)
        silent = os.dup(1), os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            every = [reader for reader in readers(work) if asked.reader in reader.name]
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(silent[0], 1)
            os.dup2(silent[1], 2)
        findings = 0
        counts: Counter[tuple[str, str]] = Counter()
        for number in range(-len(every), asked.count):
            reader = every[number % len(every)]
            draw = random.Random(f"{asked.seed} {number}")
            kind = "none" if number < 0 else draw.choice(reader.kinds)
            content = reader.content if number < 0 else DAMAGE[kind](reader.content, draw)
            home = work / "run"
            shutil.rmtree(home, ignore_errors=True)
            (home / "in").mkdir(parents=True)
            outcome = forked(reader.place(home / "in", content), home)
            fault = outcome.fault
            if number < 0 and outcome.code and reader.name not in ("study", "weights"):
                fault = fault or "a valid file was refused"
            if not fault and reader.name == "store" and outcome.code == 0 and kind != "none":
                same = content_of(home / "in" / "s.h5") == content_of(work / "s.h5")
                fault = "" if same else "verified, but the content differs"
            counts[reader.name, "read" if outcome.code == 0 else "refused"] += 1
            if fault:
                findings += 1
                counts[reader.name, "FAULT"] += 1
                last = (outcome.text.strip().splitlines() or [""])[-1][:160]
                print(f"{reader.name} {kind} {number}: {fault}: {last}", flush=True)
                if asked.keep:
                    kept = asked.keep / f"{reader.name.replace(' ', '-')}-{asked.seed}-{number}"
                    shutil.copytree(home, kept, dirs_exist_ok=True)
        for reader in every:
            shown = ", ".join(f"{counts[reader.name, how]} {how}" for how in ("read", "refused", "FAULT"))
            print(f"{reader.name:<18} {shown}")
        print(
            f"{asked.count} damaged inputs, {len(every)} readers, seed {asked.seed}: {findings} findings in "
            f"{time.monotonic() - began:.0f} s"
        )
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
