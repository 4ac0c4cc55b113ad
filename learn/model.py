"""Fitted fusion model and its file: written with skops, never as a pickle; reading executes nothing foreign.

The file is a plain dictionary of text, numbers and estimators out of a fixed list of types.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.base import BaseEstimator

from .. import __version__
from ..errors import ModelError, listed, shorten
from ..features.atomic import replacing
from ..features.fusion_table import BlockUse, digest_of
from . import heads, rules
from .class_shares import ClassCounts, RuleShares
from .tree_text import check_text, texts_in
from .versions import versions

FORMAT = "ig3d-fusion-model"
FORMAT_VERSION = 3
MOST_BYTES = 512 << 20  # of a file, packed and unpacked; models take a few MB
_MOST_MEMBERS = 20_000
# The types of ours that a model file may hold, beside those of scikit-learn and numpy that skops trusts.
_TRUSTED = (*heads.TYPES, *rules.TYPES)
_OURS = __name__.partition(".")[0]


@dataclass(frozen=True, slots=True)
class FusionModel:
    """A head and rules, fitted on all calibration rows.

    The figures of a report come from cross-fitted copies, not from this model: it has seen the calibration rows.

    Attributes
    ----------
    task, classes : of the table it was fitted on
    blocks : the code blocks that the head reads, in order, with basis
    quality_columns : what rules know of a face beside the predictions
    head : scikit-learn estimator, or None where 3D predictions came ready
    rules : name -> fitted rule; ``2d-recalibrated`` is among them
    calibrate : what is done to both predictions before every rule; the rules do it
    trained_ids, calibration_ids : (m,) str: rows with 3D that the head, and that the rules were fitted on
        Or their hashes, in a model that was read from a file.
    fitted_on : str
        The calibration rows in words.
    network : str
        Name and weights of the 2D network; empty where its predictions did not say.
    shares : ``2d`` and each rule -> class shares on the calibration rows; empty for valence-arousal
    """

    task: str
    classes: tuple[str, ...]
    blocks: tuple[BlockUse, ...]
    quality_columns: tuple[str, ...]
    head: Any
    rules: Mapping[str, rules.Rule]
    calibrate: str
    trained_ids: np.ndarray
    calibration_ids: np.ndarray
    fitted_on: str
    network: str = ""
    shares: Mapping[str, RuleShares] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the prediction columns."""
        return self.classes or ("valence", "arousal")

    def fits(self, rule: str) -> bool:
        """Whether anything was fitted to the calibration rows under this name."""
        return rules.fits(rule, self.calibrate)

    @property
    def preferred(self) -> str:
        """The rule to take where none is named: ``best``, else ``stack``, else the last."""
        return next((name for name in ("best", "stack") if name in self.rules), list(self.rules)[-1])

    def reference(self, rule: str) -> str:
        """Predictor of the rows without 3D: the one that was fitted to the same rows as the rule."""
        return rules.RECALIBRATED if self.fits(rule) else "2d"


def hashes_of(ids: np.ndarray) -> np.ndarray:
    """(n,) uint64 hashes of ids, or the hashes themselves: a file records its rows without their names."""
    if ids.dtype.kind == "u":
        return ids
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids.tolist())
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def without_threads(part: Any) -> Any:
    """A head or rule that does not keep how many threads fitted it, and predicts on all cores."""
    if isinstance(part, BaseEstimator) and type(part).__module__.partition(".")[0] in (_OURS, "sklearn"):
        twin = copy(part)
        for name, value in vars(part).items():
            setattr(twin, name, 0 if name == "num_threads" else without_threads(value))
        return twin
    if isinstance(part, list | tuple):
        return type(part)(without_threads(item) for item in part)
    return part


def parameters_hash(model: FusionModel) -> str:
    """Hash of the head and the rules with their fitted parameters: the same for the same command on the same files.

    The bytes of a model's file also depend on the time and on addresses in memory, which skops writes.
    """
    return str(joblib.hash(_values([model.head, model.rules]), hash_name="sha1"))


def _values(part: Any) -> Any:
    """Parameters by value: whether two of them are one object in memory, and the order of arrays, are left out."""
    if isinstance(part, BaseEstimator):
        return [type(part).__qualname__, _values(vars(part))]
    if isinstance(part, Mapping):
        return {key: _values(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [_values(item) for item in part]
    if isinstance(part, np.ndarray):
        return part.copy()
    return part.item() if isinstance(part, np.generic) else part


def save_model(model: FusionModel, path: str | Path) -> None:
    """Write a model, all or nothing.

    Raises
    ------
    ModelError : it cannot be written.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(_model_bytes(model))
    except OSError as exc:
        raise ModelError(f"{path}: expected to write the model, got {exc}") from exc


def _model_bytes(model: FusionModel) -> bytes:
    """Content of a model's file."""
    from skops.io import dumps

    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "ig3d_version": __version__,
        "versions": versions(),
        "task": model.task,
        "classes": list(model.classes),
        "blocks": [[block.name, block.width, block.basis] for block in model.blocks],
        "quality_columns": list(model.quality_columns),
        "calibrate": model.calibrate,
        "head": model.head,
        "rules": dict(model.rules),
        "trained_ids": np.sort(hashes_of(model.trained_ids)),
        "calibration_ids": np.sort(hashes_of(model.calibration_ids)),
        "calibration_sha256": ""
        if model.calibration_ids.dtype.kind == "u"
        else digest_of(model.calibration_ids),
        "fitted_on": model.fitted_on,
        "network": model.network,
        "shares": {
            name: {
                "implied": shares.implied.tolist(),
                "counts": shares.predicted.counts.tolist(),
                "groups": shares.predicted.groups,
                "design_effect": shares.predicted.design_effect,
            }
            for name, shares in model.shares.items()
        },
        "note": "Reported figures come from cross-fitted copies; this model has seen all calibration rows.",
    }
    return bytes(dumps(content))


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
    try:
        raw = _read(source)
        _check_version(path, raw)
        foreign = sorted(set(get_untrusted_types(data=raw)) - set(_TRUSTED))
        if foreign:
            raise ModelError(
                f"{path}: expected a model of ig3d, got foreign objects in it ({listed(foreign)})"
            )
        content = loads(raw, trusted=list(_TRUSTED))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ModelError(f"{path}: expected a model of ig3d, got another file")
        return _model(content)
    except ModelError:
        raise
    except Exception as exc:  # skops and numpy raise anything on damaged files
        text = " ".join(str(exc).split())
        raise ModelError(
            f"{path}: expected a model of ig3d, got a file that is none or is damaged ({shorten(text, 200)})"
        ) from exc


def _read(source: Path) -> bytes:
    """A file's bytes, if what it unpacks to is no larger than a model may be."""
    if source.stat().st_size > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES >> 20} MiB")
    raw = source.read_bytes()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = archive.infolist()
    if len(members) > _MOST_MEMBERS or sum(member.file_size for member in members) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES >> 20} MiB, or {_MOST_MEMBERS} parts")
    return raw


def _model(content: dict[str, Any]) -> FusionModel:
    """The model that a file holds.

    Raises
    ------
    ValueError, KeyError, TypeError : it is not what :func:`save_model` writes.
    """
    model = FusionModel(
        task=content["task"],
        classes=tuple(content["classes"]),
        blocks=tuple(BlockUse(name, width, basis) for name, width, basis in content["blocks"]),
        quality_columns=tuple(content["quality_columns"]),
        head=content["head"],
        rules=content["rules"],
        calibrate=content["calibrate"],
        trained_ids=content["trained_ids"],
        calibration_ids=content["calibration_ids"],
        fitted_on=content["fitted_on"],
        network=content.get("network", ""),
        shares={name: _shares(stored) for name, stored in content["shares"].items()},
    )
    texts = (
        *(
            model.task,
            *model.classes,
            *model.quality_columns,
            model.calibrate,
            model.fitted_on,
            model.network,
        ),
        *(text for block in model.blocks for text in (block.name, block.basis)),
        *model.rules,
    )
    if not all(isinstance(text, str) for text in texts) or model.task not in ("classes", "va"):
        raise ValueError("texts that are none")
    if len({*model.classes}) != len(model.classes) or bool(model.classes) != (model.task == "classes"):
        raise ValueError("classes that do not fit the task")
    if any(type(block.width) is not int or block.width < 1 for block in model.blocks):
        raise ValueError("blocks without a width")
    kinds = [(model.head, heads.TYPES)] if model.head is not None else []
    kinds += [(rule, rules.TYPES) for rule in model.rules.values()]
    for part, types in kinds:
        if f"{type(part).__module__}.{type(part).__qualname__}" not in types:
            raise ValueError(f"{type(part).__qualname__} in place of a head or a rule")
    if rules.RECALIBRATED not in model.rules:
        raise ValueError(f"no rule {rules.RECALIBRATED}")
    if set(model.shares) != ({"2d", *model.rules} if model.task == "classes" else set()):
        raise ValueError("class shares of other rules")
    if any(len(shares.implied) != len(model.classes) for shares in model.shares.values()):
        raise ValueError("class shares of other classes")
    for ids in (model.trained_ids, model.calibration_ids):
        if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype.kind != "u":
            raise ValueError("ids that are no hashes")
    for text in texts_in([model.head, dict(model.rules)]):
        if text != "":  # of a single class, or where trees did not help
            check_text(text)
    return model


def _shares(stored: Mapping[str, Any]) -> RuleShares:
    """Class shares of a rule as a file holds them.

    Raises
    ------
    ValueError : they are no shares.
    """
    implied, counts = np.array(stored["implied"], np.float64), np.array(stored["counts"])
    groups, effect = stored["groups"], stored["design_effect"]
    if (
        implied.ndim != 1
        or not (np.isfinite(implied) & (implied >= 0)).all()
        or abs(implied.sum() - 1) > 1e-6
    ):
        raise ValueError("class shares that do not add up to 1")
    if counts.shape != implied.shape or counts.dtype.kind != "i" or counts.min() < 0 or not counts.sum():
        raise ValueError("class counts that are none")
    if type(groups) is not int or groups < 1 or type(effect) is not float or not 1 <= effect < np.inf:
        raise ValueError("a design effect that is none")
    return RuleShares(implied, ClassCounts(counts, groups, effect))


def _check_version(path: str | Path, raw: bytes) -> None:
    """Refuse a model of another version by its text, before any type of it is looked at."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        schema = json.loads(archive.read("schema.json"))
    plain = schema.get("content", {}) if isinstance(schema, dict) else {}
    values = {
        name: json.loads(plain[name]["content"])
        for name in ("format", "format_version", "ig3d_version")
        if isinstance(plain, dict) and plain.get(name, {}).get("is_json")
    }
    if values.get("format") == FORMAT and values.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise ModelError(
            f"{path}: expected model version {FORMAT_VERSION}, got {values.get('format_version')}; use the ig3d that "
            f"wrote it ({values.get('ig3d_version')})"
        )
