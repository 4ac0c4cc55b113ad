"""Stores from anyone: what HDF5 would read from elsewhere, or would misread, is refused by every command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from toy_stores import CLASSES, good_logits, make_samples, save, write_store

from ig3d.features.store.format import content_hash

SAMPLES = make_samples(70)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_store(tmp_path / "toy.h5", SAMPLES, missing=(3,))


def refused_by_all(
    ig3d: Callable, tmp_path: Path, store: Path, why: str = "", *, commands: slice = slice(None)
) -> None:
    """Every command that reads a store ends with one line."""
    logits = save(tmp_path / "x.npz", good_logits(SAMPLES), ids=[one.id for one in SAMPLES], classes=CLASSES)
    fused = ["--3d-store", store, "--rules", "mean", "--no-controls", "--draws", 100]
    for command in (
        ["fuse", "--2d-logits", logits, *fused],
        ["export", store, "--csv", tmp_path / "a.csv"],
        ["inspect", store, "--verify"],
        ["split", store, "--out", tmp_path / "split.csv"],
        ["join", store, "--out", tmp_path / "joined.h5"],
        ["preview", store, "--out", tmp_path / "a.png"],
        ["predictions", "check", logits, "--3d-store", store],
    )[commands]:
        ended = ig3d(*command)
        assert ended.returncode == 1, (command, ended)
        assert ended.stderr.count("\n") == 1 and "Traceback" not in ended.stderr, ended.stderr
        assert why in ended.stderr, ended.stderr
    assert not [*tmp_path.glob("*.csv"), *tmp_path.glob("joined*")]


def move(file: h5py.File, name: str, other: Path) -> None:
    """A dataset that moves to a file beside the store."""
    with h5py.File(other, "w") as beside:
        file.copy(name, beside, "data")
    del file[name]


def soft(file: h5py.File, tmp_path: Path) -> None:
    file.move("sample/label", "hidden")
    file["sample/label"] = h5py.SoftLink("/hidden")


def external_link(file: h5py.File, tmp_path: Path) -> None:
    move(file, "sample/label", tmp_path / "side.hdf")
    file["sample/label"] = h5py.ExternalLink(str(tmp_path / "side.hdf"), "/data")


def external_group(file: h5py.File, tmp_path: Path) -> None:
    move(file, "codes", tmp_path / "side.hdf")
    file["codes"] = h5py.ExternalLink(str(tmp_path / "side.hdf"), "/data")


def dangling(file: h5py.File, tmp_path: Path) -> None:
    file["later/thing"] = h5py.SoftLink("/nowhere")


def virtual(file: h5py.File, tmp_path: Path) -> None:
    dtype = file["sample/label"].dtype
    move(file, "sample/label", tmp_path / "side.hdf")
    layout = h5py.VirtualLayout((70,), dtype)
    layout[:] = h5py.VirtualSource(str(tmp_path / "side.hdf"), "data", (70,))
    file.create_virtual_dataset("sample/label", layout)


def raw(file: h5py.File, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(70 * 200))
    del file["sample/message"]
    outside = [(str(tmp_path / "secret").encode(), 0, 70 * 200)]
    file.create_dataset("sample/message", (70,), "S200", external=outside)


def alias(file: h5py.File, tmp_path: Path) -> None:
    del file["sample/arousal"]
    file["sample/arousal"] = file["sample/valence"]


def cycle(file: h5py.File, tmp_path: Path) -> None:
    file["codes/again"] = file["/"]


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (soft, "sample/label is a link"),
        (external_link, "sample/label is a link"),
        (external_group, "codes is a link"),
        (dangling, "later/thing is a link"),
        (virtual, "sample/label is in another file"),
        (raw, "sample/message is in another file"),
        (alias, "second name"),
        (cycle, "second name"),
    ],
)
def test_data_from_elsewhere_are_refused(
    tmp_path: Path, ig3d: Callable, store: Path, damage: Callable, why: str
) -> None:
    with h5py.File(store, "r+") as file:
        damage(file, tmp_path)
    with h5py.File(store, "r+") as file:
        file.attrs["content_sha256"] = content_hash(file)
    refused_by_all(ig3d, tmp_path, store, why)


def put(name: str, values: object) -> Callable:
    """Another dataset in the place of one."""

    def damage(file: h5py.File) -> None:
        attrs = dict(file[name].attrs) if name in file else {"unit": "1", "basis": "b", "description": "d"}
        if name in file:
            del file[name]
        file[name] = values
        file[name].attrs.update(attrs)

    return damage


def cell(name: str, row: object, value: object) -> Callable:
    return lambda file: file[name].__setitem__(row, value)


def attribute(name: str, value: object, where: str = "/") -> Callable:
    return lambda file: file[where].attrs.__setitem__(name, value)


def no_rows(file: h5py.File) -> None:
    names: list[str] = []
    file.visit(names.append)
    for name in names:
        if isinstance(file[name], h5py.Dataset):
            put(name, file[name][:0])(file)


IDS = np.array([one.id for one in SAMPLES], "S")
DAMAGES = {
    "label float": put("sample/label", np.zeros(70)),
    "label of two columns": put("sample/label", np.zeros((70, 2), np.int16)),
    "label too large": cell("sample/label", 5, 7),
    "label too small": cell("sample/label", 5, -2),
    "label big-endian": put("sample/label", np.zeros(70, ">i2")),
    "split unknown": cell("sample/split", 0, 9),
    "status unknown": cell("sample/status", 3, 77),
    "valence far": cell("sample/valence", 0, 5.0),
    "arousal low": cell("sample/arousal", 0, -1.5),
    "arousal infinite": cell("sample/arousal", 0, -np.inf),
    "width negative": cell("sample/width", 0, -4),
    "height negative": cell("sample/height", 0, -4),
    "score above 1": cell("face/score", 0, 7.5),
    "score below 0": cell("face/score", 0, -0.5),
    "count negative": cell("face/count", 0, -1),
    "box infinite": cell("face/box", 0, np.inf),
    "box NaN in part": cell("face/box", 5, (1, np.nan, 3, 4)),
    "box with its corners exchanged": cell("face/box", 5, (9, 9, 3, 3)),
    "landmark box with its corners exchanged": cell("face/landmark_box", 5, (3, 9, 9, 3)),
    "crop box NaN in part": cell("face/crop_box", 5, (1, 2, 3, np.nan)),
    "box of three": put("face/box", np.zeros((70, 3), np.float32)),
    "digest narrow": put("sample/digest", np.zeros((70, 8), np.uint8)),
    "id number": put("sample/id", np.arange(70)),
    "id long": put("sample/id", np.concatenate([IDS, IDS])),
    "id twice": cell("sample/id", 1, IDS[0]),
    "id empty": cell("sample/id", 1, b""),
    "id not UTF-8": cell("sample/id", 1, b"\xff\xfe"),
    "id scalar": put("sample/id", np.array(b"x")),
    "path is a group": lambda file: (file.__delitem__("sample/path"), file.create_group("sample/path")),
    "codes double": put("codes/expression", np.zeros((70, 2))),
    "codes flat": put("codes/expression", np.zeros(70, np.float32)),
    "codes without columns": put("codes/expression", np.zeros((70, 0), np.float32)),
    "codes short": put("codes/expression", np.zeros((69, 2), np.float32)),
    "codes NaN in one block": cell("codes/camera", 0, np.nan),
    "codes where there is no face": cell("codes/camera", 3, 0.0),
    "codes in a group": lambda file: file.create_group("codes/more"),
    "codes no group": lambda file: (
        file.__delitem__("codes"),
        file.create_dataset("codes", data=np.zeros(70)),
    ),
    "no rows": no_rows,
    "no codes": lambda file: [file.__delitem__(f"codes/{name}") for name in ("expression", "camera")],
    "codes with a comma": lambda file: file.move("codes/expression", "codes/a,b"),
    "codes with a control character": lambda file: file.move("codes/expression", "codes/a\x1bb"),
    "classes twice": attribute("classes", '["a", "a", "b", "c", "d", "e", "f"]'),
    "classes too few": attribute("classes", '["a", "b"]'),
    "classes of numbers": attribute("classes", "[1, 2, 3, 4, 5, 6, 7]"),
    "classes nested deep": attribute("classes", "[" * 20_000 + "]" * 20_000),
    "classes an object": attribute("classes", '{"a": 1}'),
    "regressor a list": attribute("regressor", "[]"),
    "config no JSON": attribute("config", "{"),
    "dataset a number": attribute("dataset", 3),
    "no root": lambda file: file.attrs.__delitem__("root"),
    "unit a number": attribute("unit", 4, "codes/camera"),
    "columns too few": attribute("columns", '["a"]', "codes/expression"),
    "columns twice": attribute("columns", '["a", "a"]', "codes/expression"),
    "position a text": attribute("position", "first", "codes/camera"),
    "filter of another kind": lambda file: (
        file.__delitem__("sample/width"),
        file.create_dataset("sample/width", data=np.zeros(70, np.int32), compression="lzf"),
    ),
    "objects without end": lambda file: [file.create_group(f"later/{number}") for number in range(10_001)],
    "columns that no byte holds": lambda file: file.create_dataset(
        "codes/wide", (70, 1 << 26), np.float32, chunks=(1, 1 << 20), fillvalue=np.nan
    ).attrs.update(unit="1", basis="b", description="d"),
    "rows that no byte holds": lambda file: (
        file.__delitem__("sample/width"),
        file.create_dataset("sample/width", (1 << 40,), np.int32, chunks=(1 << 20,)),
    ),
}


# Stores of which no hash can be made, or not in a sensible time.
UNHASHED = ("columns that no byte holds", "rows that no byte holds", "id scalar")


@pytest.mark.parametrize("name", DAMAGES)
def test_values_out_of_the_format_are_refused(tmp_path: Path, ig3d: Callable, store: Path, name: str) -> None:
    with h5py.File(store, "r+") as file:
        DAMAGES[name](file)
        if name not in UNHASHED:
            file.attrs["content_sha256"] = content_hash(file)
    # refused before memory is taken for them, not by their hash
    why = "declares" if name == "columns that no byte holds" else ""
    refused_by_all(ig3d, tmp_path, store, why, commands=slice(3))


@pytest.mark.parametrize("change", ["label", "code"])
def test_changed_values_are_refused_by_every_command(
    tmp_path: Path, ig3d: Callable, store: Path, change: str
) -> None:
    with h5py.File(store, "r+") as file:
        if change == "label":
            file["sample/label"][0] = (file["sample/label"][0] + 1) % 7
        else:
            file["codes/camera"][0] += 1
    refused_by_all(ig3d, tmp_path, store)


def test_a_sound_store_is_accepted_by_every_command(tmp_path: Path, ig3d: Callable, store: Path) -> None:
    for command in (
        ["inspect", store, "--verify"],
        ["export", store, "--csv", tmp_path / "a.csv"],
        ["join", store, "--out", tmp_path / "joined.h5"],
    ):
        assert ig3d(*command).returncode == 0
