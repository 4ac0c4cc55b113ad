"""Regressors, which compute the codes of faces: protocol and table of names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ...features.values import Block, CropSpec, FaceBatch, LandmarkSpec
from ..plugins import load

# name -> "module:Class", imported on use; other packages register theirs as entry points in the group ig3d.regressors
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
    """Protocol of regressors.

    Attributes
    ----------
    name : str
    needs : CropSpec or LandmarkSpec
        Input: crops or landmarks.
    detectors : tuple of str
        Suitable detectors, in order of preference.
    blocks : mapping of block name to Block
        Blocks of the output, in order.
    """

    name: str
    needs: CropSpec | LandmarkSpec
    detectors: tuple[str, ...]
    blocks: Mapping[str, Block]

    def describe(self) -> dict[str, Any]:
        """Name, version, runtime and SHA-256 of the weights; part of a run's identity and stored with the codes."""
        ...

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        """Codes of n faces: block name -> (n, width) float32."""
        ...


def load_regressor(
    name: str, also: Sequence[str] = (), *, device: str = "auto", precision: str = "fp32"
) -> Regressor:
    """Build a regressor by name.

    Parameters
    ----------
    name : str
    also : names of optional blocks to write in addition
    device : str
        Device of the networks; passed to regressors that have this parameter.
    precision : str
        Arithmetic of the networks; the default is not passed on, so that regressors need not have this parameter.

    Raises
    ------
    UsageError : the regressor does not exist, or has no such block, device or precision.
    MissingExtra, WeightsError : a package or a weights file of the regressor is missing.
    """
    options = {"also": tuple(also), "precision": precision}
    defaults = {"also": (), "precision": "fp32"}
    changed: dict[str, Any] = {
        option: value for option, value in options.items() if value != defaults[option]
    }
    regressor: Regressor = load("regressor", name, REGRESSORS, optional={"device": device}, **changed)
    return regressor
