"""A made-up FLAME from a seed: an egg with FLAME's counts, in files laid out as the official ones.

The numbers are those on which the official layers of SMIRK and EMOCA were run for ``data/flame.npz``, so every draw
here is in a fixed order. The egg's triangles are stored, as a hull's order is the geometry library's affair.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

VERTICES, TRIANGLES, HULL = 5023, 9976, 10042
SEED = 20240607
GOLDEN = Path(__file__).parent / "data/flame.npz"


def draws(*labels: str) -> np.random.Generator:
    digest = hashlib.sha256(repr((SEED, *labels)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


@lru_cache(maxsize=1)
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return {name: file[name] for name in file.files}


def _waves(directions: np.ndarray, sizes: np.ndarray, label: str) -> np.ndarray:
    """(v, 3, n) smooth displacements: sines of the direction from the egg's middle."""
    rng, count = draws("flame", label), len(sizes)
    frequency = rng.normal(0, 1.5, (count, 3, 3))
    phase = rng.uniform(0, 2 * np.pi, (count, 3))
    field = np.sin(np.einsum("vd,nkd->vkn", directions, frequency) + phase.T)
    return field * sizes * rng.uniform(0.5, 1.5, count)


@lru_cache(maxsize=1)
def model() -> dict[str, Any]:
    """The keys of an official model file."""
    rng = draws("flame")
    turn = np.arange(VERTICES) + 0.5
    polar, round_ = np.arccos(1 - 2 * turn / VERTICES), np.pi * (1 + np.sqrt(5)) * turn
    sphere = np.column_stack([np.cos(round_) * np.sin(polar), np.cos(polar), np.sin(round_) * np.sin(polar)])
    sphere = sphere + rng.normal(0, 0.003, sphere.shape)
    sphere /= np.linalg.norm(sphere, axis=1)[:, None]
    rng.permutation(HULL)  # which of the hull's triangles stay is in the stored ones
    sphere = sphere[rng.permutation(VERTICES)]
    template = sphere * (0.075, 0.11, 0.095) + (0, -0.015, -0.02)
    joints = np.array(
        [(0, -0.1, -0.03), (0, -0.05, -0.03), (0, -0.03, -0.005), (0.032, 0.03, 0.045), (-0.032, 0.03, 0.045)]
    )
    regressor = np.zeros((5, VERTICES))
    for row, joint in zip(regressor, joints, strict=True):
        distance = np.square(template - joint).sum(1) + rng.uniform(0, 1e-3, VERTICES)
        row[np.argsort(distance)[:40]] = rng.dirichlet(np.ones(40))
    pull = np.exp(-np.square(template[:, None] - joints).sum(-1) / 2e-3)
    pull /= pull.sum(1)[:, None]
    pull[pull < 1e-4] = 0
    pull /= pull.sum(1)[:, None]
    fading = [0.006 / np.sqrt(1 + np.arange(count)) for count in (300, 100)]
    return {
        "f": golden()["triangles"].astype(np.uint32),
        "v_template": template,
        "shapedirs": _waves(sphere, np.concatenate(fading), "shape"),
        "posedirs": _waves(sphere, np.full(36, 0.002), "pose"),
        "weights": pull,
        "J_regressor": scipy.sparse.csc_matrix(regressor),
        "J": regressor @ template,
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], range(5)], np.uint32),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def write_all(folder: Path) -> Path:
    """Model files of both layouts and eyelids, under ``folder``."""
    write_python2(folder / "generic_model.pkl", model(), chumpy=("shapedirs", "v_template"))
    extra = {"supr_expression_metadata": {"n_expr": 100, "expr_components": "last_100"}}
    (folder / "flame2023_Open.pkl").write_bytes(pickle.dumps({**model(), **extra}, protocol=5))
    write_eyelids(folder)
    return folder


def write_eyelids(folder: Path) -> None:
    rng = draws("embeddings")
    # the golden file was computed with these eyelids, which were drawn after tables of landmarks
    for shape in (51, (79, 17)):
        rng.integers(0, TRIANGLES, shape), rng.dirichlet(np.ones(3), shape)
    rng.permutation(478), rng.integers(0, TRIANGLES, 105), rng.dirichlet(np.ones(3), 105)
    for side in ("l", "r"):
        lid = np.zeros((VERTICES, 3))
        moved = rng.permutation(VERTICES)[:430]
        lid[moved] = rng.normal(0, 0.003, (430, 3))
        np.save(folder / f"{side}_eyelid.npy", lid)


def write_python2(path: Path, content: Mapping[str, Any], *, chumpy: tuple[str, ...] = ()) -> None:
    """A pickle as Python 2's cPickle wrote it (protocol 2: 8-bit strings, old names), some arrays inside chumpy's."""
    parts = [b"}("]
    for key, value in content.items():
        parts += [_text(key), _chumpy(value) if key in chumpy else _value(value)]
    path.write_bytes(b"\x80\x02" + b"".join(parts) + b"u.")


def _text(text: str | bytes) -> bytes:
    raw = text.encode("latin1") if isinstance(text, str) else text
    return (
        b"U" + struct.pack("<B", len(raw)) if len(raw) < 256 else b"T" + struct.pack("<i", len(raw))
    ) + raw


def _number(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, np.ndarray):
        return _array(value)
    state = {
        "_shape": value.shape,
        "maxprint": 50,
        "data": value.data,
        "indices": value.indices,
        "indptr": value.indptr,
    }
    pairs = b"".join(
        _text(key)
        + (
            _array(part)
            if isinstance(part, np.ndarray)
            else _number(part)
            if isinstance(part, int)
            else _sizes(part)
        )
        for key, part in state.items()
    )
    return _name("scipy.sparse.csc", "csc_matrix") + b")\x81}(" + pairs + b"ub"


def _sizes(sizes: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_number, sizes)) + b"t"


def _array(array: np.ndarray) -> bytes:
    empty = _name("numpy.core.multiarray", "_reconstruct") + b"(" + _name("numpy", "ndarray") + _sizes((0,))
    dtype = _name("numpy", "dtype") + b"(" + _text(array.dtype.str[1:]) + _number(0) + _number(1) + b"tR"
    dtype += b"(" + _number(3) + _text("<") + b"NNN" + _number(-1) + _number(-1) + _number(0) + b"tb"
    content = np.ascontiguousarray(array).tobytes()
    return (
        empty
        + _text("b")
        + b"tR("
        + _number(1)
        + _sizes(array.shape)
        + dtype
        + b"\x89"
        + _text(content)
        + b"tb"
    )


def _chumpy(array: np.ndarray) -> bytes:
    made = (
        _name("copy_reg", "_reconstructor")
        + b"("
        + _name("chumpy.ch", "Ch")
        + _name("__builtin__", "object")
        + b"NtR"
    )
    dirty = _name("__builtin__", "set") + b"(](" + _text("x") + b"etR"
    return made + b"}(" + _text("_dirty_vars") + dirty + _text("x") + _array(array) + _text("_itr") + b"Nub"
