"""A fitted fusion model as a file: written with skops, never as a pickle; reading executes nothing foreign.

The file is a plain dictionary of text, numbers and estimators out of a fixed list of types.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import ModelError, some
from ..features.predictions import log_softmax
from ..features.table import BlockUse, FusionTable, digest_of
from . import heads
from .versions import versions

FORMAT = "ig3d-fusion-model"
FORMAT_VERSION = 1
# A head is never quite sure; what it has not seen keeps a chance.
_HEAD_FLOOR = 1e-6
# The types of ours that a model file may hold, beside those of scikit-learn and numpy that skops trusts.
_TRUSTED = (
    *heads.TYPES,
    *(f"ig3d.learn.fusion.{name}" for name in ("FixedRule", "Weighted", "Stack")),
)


@dataclass(frozen=True, slots=True)
class FusionModel:
    """A head and rules, fitted on all calibration rows.

    The figures of a report come from cross-fitted copies, not from this model: it has seen the calibration rows.

    Attributes
    ----------
    task, classes : of the table it was fitted on
    blocks : the code blocks that the head reads, in order, with basis
    head : scikit-learn estimator, or None where 3D predictions came ready
    rules : name -> estimator of :mod:`.fusion`; ``2d-recalibrated`` is among them
    seen_ids, calibration_ids : (m,) str
        Or their hashes, in a model that was read from a file.
    fitted_on : str
        The calibration rows in words.
    """

    task: str
    classes: tuple[str, ...]
    blocks: tuple[BlockUse, ...]
    head: Any
    rules: Mapping[str, Any]
    seen_ids: np.ndarray
    calibration_ids: np.ndarray
    fitted_on: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the prediction columns."""
        return self.classes or ("valence", "arousal")


def head_scores(head: Any, codes: np.ndarray, task: str, k: int) -> np.ndarray:
    """(n, k) scores of a head: log-probabilities over all k classes, whichever it has seen; or values in [-1, 1]."""
    if task == "va":
        return np.clip(head.predict(codes), -1, 1)
    p = np.zeros((len(codes), k))
    p[:, np.asarray(head.classes_, np.intp)] = head.predict_proba(codes)
    return log_softmax(np.log(np.maximum(p, _HEAD_FLOOR)))


def predict(model: FusionModel, table: FusionTable) -> dict[str, np.ndarray]:
    """Fused predictions of every row with a 2D prediction.

    Parameters
    ----------
    model : FusionModel
    table : rows to fuse; labels are not looked at

    Returns
    -------
    rule -> (n, k) log-probabilities or values; NaN in rows without a 2D prediction

    Raises
    ------
    ModelError : another task, other classes, or codes of other blocks or another basis.
    """
    _check_fits(model, table)
    two = table.two_d
    plain = two if model.task == "va" else log_softmax(two)
    three = np.full(two.shape, np.nan)
    if table.three_d is not None:
        three = table.three_d
    elif table.codes is not None and table.covered.any():
        three[table.covered] = head_scores(model.head, table.codes[table.covered], model.task, two.shape[1])
    there = table.has_2d
    both = there & np.isfinite(three).all(axis=1)
    result = {"2d": plain, "3d": three}
    recalibrated = np.full(two.shape, np.nan)
    if there.any():
        recalibrated[there] = model.rules["2d-recalibrated"].apply(np.hstack([two[there], two[there]]))
    for name, rule in model.rules.items():
        fused = (recalibrated if hasattr(rule, "describe") else plain).copy()
        if name != "2d-recalibrated" and both.any():
            fused[both] = rule.apply(np.hstack([two[both], three[both]]))
        result[name] = fused
    return result


def seen(model: FusionModel, ids: np.ndarray) -> np.ndarray:
    """(n,) bool: rows that the head or the rules were fitted on."""
    known = model.seen_ids if model.seen_ids.dtype.kind == "u" else _hashes(model.seen_ids)
    return np.isin(_hashes(ids), known)


def _hashes(ids: np.ndarray) -> np.ndarray:
    """(n,) uint64 hashes of ids: a file says which rows it saw without naming them."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids.tolist())
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _check_fits(model: FusionModel, table: FusionTable) -> None:
    if table.task != model.task or table.classes != model.classes:
        raise ModelError(
            f"model: expected {model.task} ({', '.join(model.columns)}), got {table.task} ({', '.join(table.columns)})"
        )
    if (model.head is None) != (table.three_d is not None):
        raise ModelError(
            "model: expected "
            + ("ready 3D predictions, got codes" if model.head is None else "codes, got ready 3D predictions")
        )
    if table.blocks != model.blocks:
        wanted, got = (
            ", ".join(f"{block.name} ({block.width}, {block.basis})" for block in blocks)
            for blocks in (model.blocks, table.blocks)
        )
        raise ModelError(
            f"model: expected the code blocks {wanted}, got {got}; extract with the same regressor"
        )


def save_model(model: FusionModel, path: str | Path) -> None:
    """Write a model, all or nothing; the same model gives the same bytes.

    Raises
    ------
    ModelError : it cannot be written.
    """
    final = Path(path)
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(model_bytes(model))
        temporary.replace(final)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise ModelError(f"{path}: expected to write the model, got {exc}") from exc


def model_bytes(model: FusionModel) -> bytes:
    """The bytes of a model's file."""
    from skops.io import dumps

    hashed = model.seen_ids if model.seen_ids.dtype.kind == "u" else np.sort(_hashes(model.seen_ids))
    calibrated = model.calibration_ids
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "ig3d_version": __version__,
        "versions": versions(),
        "task": model.task,
        "classes": list(model.classes),
        "blocks": [[block.name, block.width, block.basis] for block in model.blocks],
        "head": model.head,
        "rules": dict(model.rules),
        "seen_ids": hashed,
        "calibration_ids": calibrated if calibrated.dtype.kind == "u" else np.sort(_hashes(calibrated)),
        "calibration_sha256": "" if calibrated.dtype.kind == "u" else digest_of(calibrated),
        "fitted_on": model.fitted_on,
        "note": "Reported figures come from cross-fitted copies; this model has seen all calibration rows.",
    }
    return _settled(dumps(content))


def _settled(raw: bytes) -> bytes:
    """A skops file without clock times and memory addresses: addresses become numbers in order of appearance."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    schema = parts.pop("schema.json").decode()
    number: dict[str, str] = {}
    fresh = count(1)

    def renumber(match: re.Match[str]) -> str:
        # Plain values stand in full wherever they occur; which of them were one object in memory says nothing.
        if match["plain"]:
            return f"{match['plain']}{next(fresh)}"
        if match["address"] not in number:
            number[match["address"]] = str(next(fresh))
        return match["name"] + number[match["address"]]

    schema = re.sub(
        r'(?P<plain>"is_json": true,\s*"__id__": )\d+|(?P<name>"__id__": |"file": "(?=\d+\.npy"))(?P<address>\d+)',
        renumber,
        schema,
    )
    settled = io.BytesIO()
    with zipfile.ZipFile(settled, "w") as archive:
        named = {
            f"{number.get(Path(name).stem, Path(name).stem)}{Path(name).suffix}": data
            for name, data in parts.items()
        }
        for name, data in sorted([*named.items(), ("schema.json", schema.encode())]):
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return settled.getvalue()


def load_model(path: str | Path) -> FusionModel:
    """Read a model; types outside of a fixed list are refused before anything of them is made.

    Raises
    ------
    ModelError : no model, of another version, or with foreign objects.
    """
    from skops.io import get_untrusted_types, loads

    source = Path(path)
    if not source.is_file():
        raise ModelError(f"{path}: expected a fitted model, found no file; make one with ig3d fuse --out")
    raw = source.read_bytes()
    try:
        foreign = sorted(set(get_untrusted_types(data=raw)) - set(_TRUSTED))
        if foreign:
            raise ModelError(f"{path}: expected a model of ig3d, got foreign objects in it ({some(foreign)})")
        content = loads(raw, trusted=list(_TRUSTED))
    except (
        zipfile.BadZipFile,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        ImportError,
    ) as exc:
        raise ModelError(
            f"{path}: expected a model of ig3d, got a file that is none or is damaged ({exc})"
        ) from exc
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ModelError(f"{path}: expected a model of ig3d, got another file")
    if content["format_version"] != FORMAT_VERSION:
        raise ModelError(
            f"{path}: expected model version {FORMAT_VERSION}, got {content['format_version']}; use the ig3d that "
            f"wrote it ({content.get('ig3d_version')})"
        )
    return FusionModel(
        task=content["task"],
        classes=tuple(content["classes"]),
        blocks=tuple(BlockUse(name, width, basis) for name, width, basis in content["blocks"]),
        head=content["head"],
        rules=content["rules"],
        seen_ids=content["seen_ids"],
        calibration_ids=content["calibration_ids"],
        fitted_on=content["fitted_on"],
    )
