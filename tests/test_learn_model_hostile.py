"""Model files from anyone: mutated files end in one line, never in a crash, and no prediction is not finite."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from toy_fusion import make_table

from ig3d.errors import ModelError
from ig3d.learn.fuse import FuseConfig, fuse_predictions
from ig3d.learn.model import load_model, save_model
from ig3d.learn.predict import predict

RULES = ("weighted", "stack", "boost")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of both tasks, with the head gbm and every kind of rule."""
    folder = tmp_path_factory.mktemp("models")
    for task in ("classes", "va"):
        config = FuseConfig(rules=RULES, head="gbm", controls=False, draws=100, model=True, repeats=1)
        save_model(fuse_predictions(make_table(150, task=task), config).model, folder / f"{task}.skops")
    return folder


def parts_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, parts: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def changed(folder: Path, out: Path, change: Callable[[str], str], task: str = "classes") -> Path:
    """A model whose schema was changed."""
    parts = parts_of(folder / f"{task}.skops")
    schema = parts["schema.json"].decode()
    parts["schema.json"] = change(schema).encode()
    assert parts["schema.json"].decode() != schema
    return write(out, parts)


def number(key: str, value: str) -> Callable[[str], str]:
    """The first number after a key of the first tree that splits."""
    return lambda schema: re.sub(rf"(?<={key}=)-?[\d.e+-]+", value, schema, count=1)


TREES = {
    "a child that is not there": number("left_child", "99"),
    "a leaf that is not there": number("right_child", "-99"),
    "a circle": number("left_child", "0"),
    "a column that is not there": number("split_feature", "9999"),
    "a column below 0": number("split_feature", "-5"),
    "more leaves than there are": number("num_leaves", "2000000"),
    "no leaves": number("num_leaves", "0"),
    "categories": number("num_cat", "3"),
    "another decision": number("decision_type", "1"),
    "linear trees": number("is_linear", "1"),
    "a leaf that is not finite": number("leaf_value", "nan"),
    "an infinite leaf": number("leaf_value", "1e999"),
    "a wrong size": number("tree_sizes", "7"),
    "a negative size": number("tree_sizes", "-1"),
    "a huge size": number("tree_sizes", "999999999"),
    "more columns": number("max_feature_idx", "999999"),
    "more classes": number("num_class", "7"),
    "an entry less": lambda schema: re.sub(r"threshold=[^\\]+\\+n", "", schema, count=1),
    "a number less": lambda schema: re.sub(r"(threshold=\S+) \S+", r"\1", schema, count=1),
    "no end": lambda schema: schema.replace("end of trees", "end of tree", 1),
    "another objective": lambda schema: schema.replace("objective=multiclass", "objective=lambdarank", 1),
    "no text at all": lambda schema: re.sub(r"tree(\\+)nversion", r"bush\1nversion", schema, count=1),
}


@pytest.mark.parametrize("name", TREES)
def test_trees_that_lightgbm_would_not_survive_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError) as refusal:
        load_model(changed(folder, tmp_path / "m.skops", TREES[name]))
    assert "\n" not in str(refusal.value) and "tree" in str(refusal.value)


CRASH = """
import sys, warnings
warnings.simplefilter("ignore")
from toy_fusion import make_table
from ig3d.errors import Ig3dError
from ig3d.learn.model import load_model
from ig3d.learn.predict import predict
tables = {task: make_table(40, task=task, seed=3) for task in ("classes", "va")}
for path in sys.argv[1:]:
    try:
        model = load_model(path)
        predict(model, tables[model.task])
    except Ig3dError as error:
        assert "\\n" not in str(error), error
print("survived", len(sys.argv) - 1)
"""


def mutated(parts: dict[str, bytes], rng: np.random.Generator) -> dict[str, bytes]:
    """Some bytes of the trees, one value of the schema, or one array, changed."""
    schema = parts["schema.json"]
    kind = rng.integers(4)
    if kind < 2:
        raw, spots = bytearray(schema), [found.start() for found in re.finditer(b"Tree=", schema)]
        at = int(rng.choice(spots)) + int(rng.integers(-300, 900))
        if rng.random() < 0.5:
            raw[at : at + int(rng.integers(1, 9))] = bytes(rng.choice([*b"0123456789 -."], 3).tolist())
        else:
            raw[at:at] = raw[at + 40 : at + 120]
        return parts | {"schema.json": bytes(raw)}
    if kind == 2:
        content = json.loads(schema)["content"]
        name = str(rng.choice([*content]))
        content[name] = rng.choice([*content.values()])
        return parts | {"schema.json": json.dumps(json.loads(schema) | {"content": content}).encode()}
    name = str(rng.choice([name for name in parts if name.endswith(".npy")]))
    array = np.load(io.BytesIO(parts[name]))
    text = io.BytesIO()
    np.save(text, [array[..., None], array.ravel()[:1], array.astype(complex)][int(rng.integers(3))])
    return parts | {name: text.getvalue()}


def test_no_mutated_model_crashes(folder: Path, tmp_path: Path) -> None:
    paths = []
    for seed in range(30):
        parts = parts_of(folder / f"{('classes', 'va')[seed % 2]}.skops")
        paths.append(str(write(tmp_path / f"{seed}.skops", mutated(parts, np.random.default_rng(seed)))))
    ended = subprocess.run(
        [sys.executable, "-c", CRASH, *paths],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        timeout=120,
    )
    assert ended.stdout == "survived 30\n", (ended.returncode, ended.stderr[-2000:])


def test_parts_that_fail_are_an_error_of_the_model(folder: Path) -> None:
    model = load_model(folder / "classes.skops")
    vars(model.rules["stack"]).clear()
    with pytest.raises(ModelError, match="parts do not fit"):
        predict(model, make_table(40, seed=3), rules=("stack",))


@pytest.mark.parametrize("task", ["classes", "va"])
def test_numbers_that_are_not_finite_never_come_out(folder: Path, tmp_path: Path, task: str) -> None:
    parts, refused = parts_of(folder / f"{task}.skops"), 0
    for name in [name for name in parts if name.endswith(".npy")]:
        array = np.load(io.BytesIO(parts[name]))
        if array.dtype.kind != "f" or not array.size:
            continue
        text = io.BytesIO()
        np.save(text, np.full_like(array, np.nan))
        try:
            predict(
                load_model(write(tmp_path / "m.skops", parts | {name: text.getvalue()})),
                make_table(40, task=task, seed=3),
            )
        except ModelError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused


def test_a_bomb_is_refused_before_it_is_unpacked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ig3d.learn.model.MAX_BYTES", 1 << 20)
    bomb = {"1.npy": bytes(1 << 20)}
    with pytest.raises(ModelError, match="more than 1 MiB"):
        load_model(write(tmp_path / "m.skops", parts_of(folder / "classes.skops") | bomb))


def test_arrays_that_declare_a_terabyte_are_refused(folder: Path, tmp_path: Path) -> None:
    parts = parts_of(folder / "classes.skops")
    name = next(name for name in parts if name.endswith(".npy"))
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
    with pytest.raises(ModelError, match="damaged"):
        load_model(write(tmp_path / "m.skops", parts | {name: head.getvalue()}))


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"content": 3}', "\\u0000"])
def test_a_schema_that_is_none_is_one_line(tmp_path: Path, ig3d: Callable, text: str) -> None:
    path = write(tmp_path / "m.skops", {"schema.json": text.encode()})
    ended = ig3d("predict", path, "--2d-logits", "x.npz", "--3d-store", "y.h5", "--out", tmp_path / "a.csv")
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1, ended.stderr
