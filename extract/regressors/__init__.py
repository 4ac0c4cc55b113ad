"""Regressors, which compute the codes of faces: base class and table of names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar

import numpy as np

from ...errors import UsageError
from ...features.device import resolve_device
from ...features.values import Block, CropSpec, FaceBatch, LandmarkSpec
from ..plugins import Plugin, check_blocks, construct, find

# name -> "module:Class", imported on use; other packages register theirs as entry points in the group ig3d.regressors
REGRESSORS: Mapping[str, str] = {
    "deca": "ig3d.extract.regressors.deca:Deca",
    "emoca": "ig3d.extract.regressors.emoca:Emoca",
    "emoca_v1": "ig3d.extract.regressors.emoca:EmocaV1",
    "emoca_v2_cos": "ig3d.extract.regressors.emoca:EmocaV2Cos",
    "emoca_v2_mp": "ig3d.extract.regressors.emoca:EmocaV2Mp",
    "facemesh": "ig3d.extract.regressors.facemesh:FaceMeshCodes",
    "sheap": "ig3d.extract.regressors.sheap:Sheap",
    "sheap_paper": "ig3d.extract.regressors.sheap:SheapPaper",
    "smirk": "ig3d.extract.regressors.smirk:Smirk",
}


class Regressor(Plugin, ABC):
    """Base class of regressors, which compute the codes of faces.

    A subclass sets the class attributes and implements :meth:`__call__`.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda:0``, ...; see :class:`~ig3d.extract.plugins.Plugin`.
    precision : str
        Arithmetic of the networks, one of :attr:`precisions`.

    Attributes
    ----------
    needs : CropSpec or LandmarkSpec
        Input: crops or landmarks.
    detectors : tuple of str
        Suitable detectors, in order of preference.
    blocks : mapping of block name to Block
        Blocks of the output, in order. Of an instance: the blocks to return, without those of :attr:`optional` that
        the user did not ask for.
    optional : tuple of str
        Blocks that are only written if the user asks for them with ``--also``.
    sets : mapping of str to tuple of str
        Named sets of blocks for ``--blocks``, beyond those that every regressor has
        (:func:`~ig3d.features.blocks.named_sets`).
    precisions : tuple of str
        Supported values of ``--precision``; the first one is the default.
    """

    needs: ClassVar[CropSpec | LandmarkSpec]
    detectors: ClassVar[tuple[str, ...]]
    blocks: ClassVar[Mapping[str, Block]]
    optional: ClassVar[tuple[str, ...]] = ()
    sets: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)

    attributes: ClassVar[Mapping[str, type | tuple[type, ...]]] = {
        **Plugin.attributes,
        "needs": (CropSpec, LandmarkSpec),
        "detectors": tuple,
        "blocks": Mapping,
        "optional": tuple,
        "sets": Mapping,
        "precisions": tuple,
    }

    constructor: ClassVar[tuple[str, ...]] = ("device", "precision")

    def __init__(self, device: str = "cpu", precision: str = "fp32") -> None:
        super().__init__(device)
        self.precision = precision

    @property
    def takes_tensors(self) -> bool:
        """Whether crops are passed as torch tensors on :attr:`device`, and not as NumPy arrays."""
        return False

    @property
    def reduced_batches(self) -> dict[str, int]:
        """Networks whose batch was halved for lack of memory, with the batch that is used; recorded in the store."""
        return {}

    @abstractmethod
    def __call__(self, faces: FaceBatch) -> Mapping[str, np.ndarray]:
        """Codes of n faces: block name -> (n, width) float32."""

    def start(self, faces: FaceBatch) -> Callable[[], Mapping[str, np.ndarray]]:
        """Start computing; the returned function waits for the codes of n faces. Need not be overridden."""
        return partial(self, faces)

    @classmethod
    def problems(cls) -> Iterator[str]:
        yield from super().problems()
        yield from check_blocks(cls.blocks, cls.sets, cls.optional)
        if not cls.detectors:
            yield "detectors is empty"

    @classmethod
    def chosen_blocks(cls, also: Sequence[str] = ()) -> dict[str, Block]:
        """Blocks without the optional ones that are not in ``also``.

        Raises
        ------
        UsageError : ``also`` contains a name that is no optional block.
        """
        if unknown := [name for name in also if name not in cls.optional]:
            choices = f"choose one of {', '.join(cls.optional)}" if cls.optional else "it has none"
            raise UsageError(
                f"regressor {cls.name}: --also {', '.join(unknown)} is no optional block; {choices}"
            )
        return {name: block for name, block in cls.blocks.items() if name in also or name not in cls.optional}


def find_regressor(name: str) -> type[Regressor]:
    """Class of a regressor; nothing is built.

    Parameters
    ----------
    name : str
        In :data:`REGRESSORS`, of an entry point, or ``package.module:Class``.

    Raises
    ------
    UsageError, MissingExtra, PluginError : see :func:`~ig3d.extract.plugins.find`.
    """
    return find("regressor", name, REGRESSORS, Regressor)  # type: ignore[type-abstract]


def load_regressor(
    name: str, also: Sequence[str] = (), *, device: str = "auto", precision: str = "fp32"
) -> Regressor:
    """Build a regressor by name.

    Parameters
    ----------
    name : str
    also : names of optional blocks to return in addition
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``; not used by a regressor without networks on a GPU.
    precision : str
        Arithmetic of the networks.

    Raises
    ------
    UsageError : the regressor does not exist, or has no such block, device or precision.
    MissingExtra, WeightsError : a package or a weights file of the regressor is missing.
    PluginError : a class attribute is missing or wrong, or the constructor failed.
    """
    kind = find_regressor(name)
    if precision not in kind.precisions:
        raise UsageError(
            f"regressor {kind.name}: there is no precision {precision!r}; choose one of {', '.join(kind.precisions)}"
        )
    blocks = kind.chosen_blocks(also)
    where = resolve_device(device) if kind.gpu else "cpu"
    regressor = construct("regressor", kind, device=where, precision=precision)
    vars(regressor)["blocks"] = blocks  # hides those of the class
    return regressor
