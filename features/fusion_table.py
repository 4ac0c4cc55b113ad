"""Fusion table: one row per sample with its truth, its 2D prediction and its 3D codes or predictions.

:func:`ig3d.features.join.load_table` makes it from files. It is the only data that ``learn`` uses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import PredictionsError
from .content import hash_ids
from .predictions import VA
from .samples import Split


@dataclass(frozen=True, slots=True)
class BlockUse:
    """A block of codes in a table: name, width, and basis (the meaning of its columns)."""

    name: str
    width: int
    basis: str


@dataclass(frozen=True, slots=True)
class FusionTable:
    """n samples in the order of their ids; arrays are aligned, and missing values are NaN.

    Attributes
    ----------
    task : ``classes`` or ``va``
    classes : tuple of str
        Canonical names of the classes, in the order of ``labels`` and of the columns of the predictions; empty for
        valence-arousal.
    id : (n,) str, unique and sorted
    group : (n,) str
        Person or video; empty if unknown.
    split : (n,) int8 codes of :class:`~ig3d.features.samples.Split`
    labels : (n,) int16, -1 if missing
    targets : (n, 2) float64 valence and arousal in [-1, 1], NaN if missing
    two_d : (n, k) float64
        2D predictions. Classes: logits, or logarithms of probabilities. Valence-arousal: values.
    codes : (n, d) float32 or None
    code_columns : d names such as ``code:expression:0``
    blocks : the blocks of ``codes``, in order
    three_d : (n, k) float64 or None
        3D predictions from a file, as ``two_d``. A table has either these or ``codes``.
    notes : tuple of str
        Assumptions and warnings about the files.
    sources : name of an input -> its file or store
    others : name of a further 2D network -> (n, k) float64
        Its predictions, as ``two_d``.
    quality : (n, q) float64 or None
        Quality of the faces, for the rule ``gate`` (:func:`~.quality.face_quality`); NaN if unknown.
    quality_columns : q names such as ``quality:yaw``
    two_d_out_of_fold : bool
        Whether the file of ``two_d`` states that its predictions of the train split are out of fold.
    two_d_training_rows : int
        Number of rows in the file of ``two_d`` that it records as training images of its network.
    two_d_network : str
        Name and weights of the network of ``two_d``; empty if the file does not name them.
    image_hash : (n,) int64 or None
        Hash of each sample's image (:func:`~.content.hash_contents`), 0 if unknown.
    """

    task: str
    classes: tuple[str, ...]
    id: np.ndarray
    group: np.ndarray
    split: np.ndarray
    labels: np.ndarray
    targets: np.ndarray
    two_d: np.ndarray
    codes: np.ndarray | None = None
    code_columns: tuple[str, ...] = ()
    blocks: tuple[BlockUse, ...] = ()
    three_d: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, np.ndarray] = field(default_factory=dict)
    quality: np.ndarray | None = None
    quality_columns: tuple[str, ...] = ()
    two_d_out_of_fold: bool = False
    two_d_training_rows: int = 0
    two_d_network: str = ""
    image_hash: np.ndarray | None = None

    def __post_init__(self) -> None:
        n, k = len(self.id), len(self.columns)
        shapes = {
            "group": (n,),
            "split": (n,),
            "labels": (n,),
            "targets": (n, 2),
            "two_d": (n, k),
            **({} if self.three_d is None else {"three_d": (n, k)}),
            **({} if self.codes is None else {"codes": (n, len(self.code_columns))}),
            **({} if self.quality is None else {"quality": (n, len(self.quality_columns))}),
            **({} if self.image_hash is None else {"image_hash": (n,)}),
        }
        for name, shape in shapes.items():
            got = np.shape(getattr(self, name))
            if got != shape:
                raise PredictionsError(f"table: {name} has shape {got}; it must be {shape}")
        for name, values in self.others.items():
            if np.shape(values) != (n, k):
                raise PredictionsError(f"table: {name} has shape {np.shape(values)}; it must be {(n, k)}")
        if (self.codes is None) == (self.three_d is None):
            raise PredictionsError("table: give either codes or 3D predictions, not both or neither")
        if sum(block.width for block in self.blocks) != len(self.code_columns):
            raise PredictionsError(
                "table: the widths of the blocks do not add up to the number of code columns"
            )
        order = np.argsort(self.id, kind="stable")
        if not np.array_equal(order, np.arange(n)):
            # Folds and bootstrap samples depend on the order of the rows, so that it must not be that of the files.
            for name in ("id", *shapes):
                object.__setattr__(self, name, getattr(self, name)[order])
            object.__setattr__(self, "others", {name: other[order] for name, other in self.others.items()})

    def __len__(self) -> int:
        return len(self.id)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the k prediction columns."""
        return VA if self.task == "va" else self.classes

    @property
    def truth(self) -> np.ndarray:
        """Labels (n,), or targets (n, 2) for the task ``va``."""
        return self.targets if self.task == "va" else self.labels

    @property
    def labelled(self) -> np.ndarray:
        """(n,) bool: rows with a label, or with both targets."""
        return np.isfinite(self.targets).all(axis=1) if self.task == "va" else np.asarray(self.labels >= 0)

    @property
    def has_2d(self) -> np.ndarray:
        """(n,) bool: rows with a 2D prediction."""
        return np.asarray(np.isfinite(self.two_d).all(axis=1))

    @property
    def covered(self) -> np.ndarray:
        """(n,) bool: rows with codes, or with a 3D prediction from a file."""
        values = self.codes if self.three_d is None else self.three_d
        return np.asarray(np.isfinite(values).all(axis=1))  # type: ignore[arg-type]  # one of them is an array

    @property
    def grouped(self) -> bool:
        """Whether a sample has a group."""
        return bool((self.group != "").any())

    @property
    def group_codes(self) -> np.ndarray:
        """(n,) int64: one number per group; a row without a group is a separate group."""
        # The prefixes distinguish a group from a sample whose id is equal to the name of the group.
        keys = np.where(self.group != "", np.char.add("g:", self.group), np.char.add("i:", self.id))
        return np.unique(keys, return_inverse=True)[1].reshape(-1)

    @property
    def content(self) -> np.ndarray:
        """(n,) int64: hash of each sample's image, or of its id if the image is unknown."""
        ids = hash_ids(self.id)
        return ids if self.image_hash is None else np.where(self.image_hash != 0, self.image_hash, ids)

    def take(self, rows: np.ndarray) -> FusionTable:
        """The table reduced to these rows (mask or indices)."""
        names = (
            "id",
            "group",
            "split",
            "labels",
            "targets",
            "two_d",
            "codes",
            "three_d",
            "quality",
            "image_hash",
        )
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in names if getattr(self, name) is not None},
            others={name: values[rows] for name, values in self.others.items()},
        )

    def split_mask(self, name: str) -> np.ndarray:
        """(n,) bool: rows of a split, by its name."""
        return np.asarray(self.split == Split[name])


def digest_of(ids: np.ndarray) -> str:
    """SHA-256 of the sorted ids, as hexadecimal text; equal for equal sets of rows."""
    return hashlib.sha256("\n".join(sorted(ids.tolist())).encode()).hexdigest()
