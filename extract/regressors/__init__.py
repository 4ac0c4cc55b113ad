"""Regressors: faces to code blocks. An object with a name, what it needs, its blocks, and a call over a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ...features.values import Block, CropSpec, FaceBatch, LandmarkSpec
from ..plugins import load

# name -> "module:Class", imported on use; other packages add theirs by the entry point group ig3d.regressors
REGRESSORS: Mapping[str, str] = {
    "deca": "ig3d.extract.regressors.deca:Deca",
    "emoca": "ig3d.extract.regressors.emoca:Emoca",
    "emoca_v1": "ig3d.extract.regressors.emoca:EmocaV1",
    "emoca_v2_cos": "ig3d.extract.regressors.emoca:EmocaV2Cos",
    "emoca_v2_mp": "ig3d.extract.regressors.emoca:EmocaV2Mp",
    "facemesh": "ig3d.extract.regressors.facemesh:FaceMeshCodes",
    "smirk": "ig3d.extract.regressors.smirk:Smirk",
}


class Regressor(Protocol):
    """What a regressor has.

    Attributes
    ----------
    name : str
    needs : CropSpec or LandmarkSpec
        What it is fed.
    detectors : tuple of str
        In order of preference.
    blocks : mapping of block name to Block
        What it writes, in order.
    """

    name: str
    needs: CropSpec | LandmarkSpec
    detectors: tuple[str, ...]
    blocks: Mapping[str, Block]

    def describe(self) -> dict[str, Any]:
        """Name, version, runtime and weights' SHA-256, for the run's identity and the store."""
        ...

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        """(n, width) float32 codes per block."""
        ...


def load_regressor(
    name: str, also: Sequence[str] = (), *, device: str = "auto", precision: str = "fp32"
) -> Regressor:
    """A regressor by name.

    Parameters
    ----------
    name : str
    also : names of blocks that it writes on request only
    device : str
        Where its networks run; passed to a regressor that has some.
    precision : str
        Passed on where it is not the default, which every regressor takes.

    Raises
    ------
    UsageError : there is no such regressor, or it has no such block, device or precision.
    MissingExtra, WeightsError : it cannot be built here.
    """
    options = {"also": tuple(also), "precision": precision}
    usual = {"also": (), "precision": "fp32"}
    asked: dict[str, Any] = {option: value for option, value in options.items() if value != usual[option]}
    regressor: Regressor = load("regressor", name, REGRESSORS, where_taken={"device": device}, **asked)
    return regressor
