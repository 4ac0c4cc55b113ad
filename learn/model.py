"""Fitted fusion model and its file.

The file is a dictionary of text, numbers and estimators of a fixed list of types. It is written with skops instead of
pickle, so that reading it does not execute code of the file.
"""

from __future__ import annotations

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
from ..errors import ModelError, listed, reason_of, shorten
from ..features.atomic import replacing
from ..features.content import hash_ids
from ..features.fusion_table import BlockUse, FusionTable
from . import heads, rules
from .class_shares import ClassCounts, RuleShares
from .tree_text import check_text, texts_in
from .versions import versions

MODEL = "model.skops"  # name in the folder of a run
FORMAT = "ig3d-fusion-model"
FORMAT_VERSION = 4
MAX_BYTES = 512 << 20  # of a file, compressed and uncompressed; models take a few MB
_MAX_MEMBERS = 20_000
# Types of ig3d that a model file may contain, in addition to those of scikit-learn and NumPy that skops trusts.
_TRUSTED = (*heads.SAVED_TYPES, *rules.SAVED_TYPES)
_PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True, slots=True)
class FusionModel:
    """A fitted head and fitted rules, to predict new rows.

    The rules are fitted on all calibration rows. Reported results are those of cross-fitted models, because the
    predictions of this model for its calibration rows are too optimistic.

    Attributes
    ----------
    task, classes : those of the table that the model was fitted on
    blocks : code blocks that the head uses, in order
    quality_columns : names of the columns of face quality that rules use
    head : scikit-learn estimator; None if the 3D predictions came from a file
    rules : name -> fitted rule; includes ``2d-recalibrated``
    calibrate : calibration of both predictions that is part of every rule, as in the configuration
    trained, calibration : (m,) int64
        Hashes (:func:`hashes_of`) of the rows with 3D that the head was fitted on, and that the rules were fitted on.
    fitted_on : str
        Description of the calibration rows, such as ``the val split (120 rows)``.
    network : str
        Name and weights of the 2D network; empty if its predictions do not name them.
    shares : ``2d`` and each rule -> class shares on the calibration rows; empty for valence-arousal
    """

    task: str
    classes: tuple[str, ...]
    blocks: tuple[BlockUse, ...]
    quality_columns: tuple[str, ...]
    head: Any
    rules: Mapping[str, rules.Rule]
    calibrate: str
    trained: np.ndarray
    calibration: np.ndarray
    fitted_on: str
    network: str = ""
    shares: Mapping[str, RuleShares] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the prediction columns."""
        return self.classes or ("valence", "arousal")

    def fits(self, rule: str) -> bool:
        """Whether the rule, or the calibration before it, was fitted to the calibration rows."""
        return rules.fits(rule, self.calibrate)

    @property
    def preferred(self) -> str:
        """The default rule for predictions: ``selected``, else ``stack``, else the last."""
        return next((name for name in ("selected", "stack") if name in self.rules), list(self.rules)[-1])

    def reference(self, rule: str) -> str:
        """Predictor of the rows without 3D: ``2d-recalibrated``, or ``2d`` if the rule was not fitted."""
        return rules.RECALIBRATED if self.fits(rule) else "2d"


def hashes_of(table: FusionTable, rows: np.ndarray) -> np.ndarray:
    """(m,) int64, ascending: hashes of the images of rows, and of their ids for new rows whose images are unknown."""
    part = table.take(rows)
    return np.union1d(part.content, hash_ids(part.id))


def without_threads(part: Any) -> Any:
    """Copy of a head or rule with ``num_threads=0`` (all cores) in it and in its nested estimators."""
    if isinstance(part, BaseEstimator) and type(part).__module__.partition(".")[0] in (_PACKAGE, "sklearn"):
        result = copy(part)
        for name, value in vars(part).items():
            setattr(result, name, 0 if name == "num_threads" else without_threads(value))
        return result
    if isinstance(part, list | tuple):
        return type(part)(without_threads(item) for item in part)
    return part


def parameters_hash(model: FusionModel) -> str:
    """Hash of the head and the rules with their fitted parameters: equal for equal commands on equal files.

    A hash of the model file would differ, because skops writes the time and addresses in memory.
    """
    return str(joblib.hash(_values([model.head, model.rules]), hash_name="sha1"))


def _values(part: Any) -> Any:
    """Nested parameters as lists, dictionaries and copied arrays, independent of objects shared in memory."""
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
    """Write a model file; an existing file is replaced only if writing succeeds.

    Raises
    ------
    ModelError : the file cannot be written.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(_model_bytes(model))
    except OSError as exc:
        raise ModelError(
            f"{path}: the model cannot be written ({reason_of(exc)}); choose another path"
        ) from exc


def _model_bytes(model: FusionModel) -> bytes:
    """Content of a model file."""
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
        "trained": model.trained,
        "calibration": model.calibration,
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
    """Read a model file, or that in the folder of a run.

    A file with types outside of a fixed list is refused before any object is created.

    Raises
    ------
    ModelError : the file is missing, damaged, not a model, of another version, or contains foreign types.
    """
    source = Path(path)
    if source.is_dir():
        source /= MODEL
    if not source.is_file():
        raise ModelError(f"{source}: no such file; make a model with ig3d fuse --out")
    from skops.io import get_untrusted_types, loads

    try:
        raw = _read(source)
        _check_version(path, raw)
        foreign = sorted(set(get_untrusted_types(data=raw)) - set(_TRUSTED))
        if foreign:
            raise ModelError(
                f"{path}: contains types that are not part of a model ({listed(foreign)}); use a file of ig3d fuse"
            )
        content = loads(raw, trusted=list(_TRUSTED))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ModelError(f"{path}: is not a model; use a file of ig3d fuse")
        return _model(content)
    except ModelError:
        raise
    except Exception as exc:  # skops and numpy raise anything on damaged files
        text = " ".join(str(exc).split())
        raise ModelError(
            f"{path}: is not a model, or is damaged ({shorten(text, 200)}); use a file of ig3d fuse"
        ) from exc


def _read(source: Path) -> bytes:
    """Bytes of a file.

    Raises
    ------
    ValueError : the file, or its uncompressed content, is larger than a model may be.
    """
    if source.stat().st_size > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES >> 20} MiB")
    raw = source.read_bytes()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = archive.infolist()
    if len(members) > _MAX_MEMBERS or sum(member.file_size for member in members) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES >> 20} MiB, or {_MAX_MEMBERS} parts")
    return raw


def _model(content: dict[str, Any]) -> FusionModel:
    """The model from the content of a file.

    Raises
    ------
    ValueError, KeyError, TypeError : the content is not what :func:`save_model` writes.
    """
    model = FusionModel(
        task=content["task"],
        classes=tuple(content["classes"]),
        blocks=tuple(BlockUse(name, width, basis) for name, width, basis in content["blocks"]),
        quality_columns=tuple(content["quality_columns"]),
        head=content["head"],
        rules=content["rules"],
        calibrate=content["calibrate"],
        trained=content["trained"],
        calibration=content["calibration"],
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
        raise ValueError("a text has another type, or the task is unknown")
    if len({*model.classes}) != len(model.classes) or bool(model.classes) != (model.task == "classes"):
        raise ValueError("the classes are repeated, or do not fit the task")
    if any(type(block.width) is not int or block.width < 1 for block in model.blocks):
        raise ValueError("a code block has no width")
    kinds = [(model.head, heads.SAVED_TYPES)] if model.head is not None else []
    kinds += [(rule, rules.SAVED_TYPES) for rule in model.rules.values()]
    for part, types in kinds:
        if f"{type(part).__module__}.{type(part).__qualname__}" not in types:
            raise ValueError(f"{type(part).__qualname__} is not a head or a rule")
    if rules.RECALIBRATED not in model.rules:
        raise ValueError(f"no rule {rules.RECALIBRATED}")
    if set(model.shares) != ({"2d", *model.rules} if model.task == "classes" else set()):
        raise ValueError("the class shares are not those of the rules")
    if any(len(shares.implied) != len(model.classes) for shares in model.shares.values()):
        raise ValueError("the class shares are not those of the classes")
    for hashes in (model.trained, model.calibration):
        if not isinstance(hashes, np.ndarray) or hashes.ndim != 1 or hashes.dtype.kind != "i":
            raise ValueError("the rows are not hashes")
    for text in texts_in([model.head, dict(model.rules)]):
        if text != "":  # empty for a single class, or if trees did not improve the rule
            check_text(text)
    return model


def _shares(stored: Mapping[str, Any]) -> RuleShares:
    """Class shares of a rule from the content of a file.

    Raises
    ------
    ValueError : the numbers are not class shares.
    """
    implied, counts = np.array(stored["implied"], np.float64), np.array(stored["counts"])
    groups, effect = stored["groups"], stored["design_effect"]
    if (
        implied.ndim != 1
        or not (np.isfinite(implied) & (implied >= 0)).all()
        or abs(implied.sum() - 1) > 1e-6
    ):
        raise ValueError("class shares do not add up to 1")
    if counts.shape != implied.shape or counts.dtype.kind != "i" or counts.min() < 0 or not counts.sum():
        raise ValueError("class counts are not counts")
    if type(groups) is not int or groups < 1 or type(effect) is not float or not 1 <= effect < np.inf:
        raise ValueError("the groups or the design effect are invalid")
    return RuleShares(implied, ClassCounts(counts, groups, effect))


def _check_version(path: str | Path, raw: bytes) -> None:
    """Raise an error for a model of another version, from the JSON text of the file, before its types are checked."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        schema = json.loads(archive.read("schema.json"))
    content = schema.get("content", {}) if isinstance(schema, dict) else {}
    values = {
        name: json.loads(content[name]["content"])
        for name in ("format", "format_version", "ig3d_version")
        if isinstance(content, dict) and content.get(name, {}).get("is_json")
    }
    if values.get("format") == FORMAT and values.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise ModelError(
            f"{path}: has format version {values.get('format_version')}, but this ig3d reads version "
            f"{FORMAT_VERSION}; use the ig3d that wrote the file ({values.get('ig3d_version')})"
        )
