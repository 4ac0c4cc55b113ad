"""Configuration of an extraction, and the detector and regressor that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from ..errors import Ig3dError, MissingExtra, UsageError, WeightsError
from ..features.values import CropSpec, LandmarkSpec
from .detectors import Detector, load_detector
from .regressors import Regressor, load_regressor

# Default batch size by device. On a GPU it is several times the networks' batch, so that uploads never wait.
BATCH_SIZE: Mapping[str, int] = {"cpu": 32, "cuda": 256}


@dataclass(frozen=True, slots=True)
class ExtractConfig:
    """Options that determine the codes; all of them belong to the identity of a run.

    Attributes
    ----------
    regressor : str
        Name of a regressor.
    detector : str or None
        Name of a detector; None takes the first available one of the regressor's ``detectors``.
    also : tuple of str
        Optional blocks to write in addition.
    batch_size : int or None
        Images per call of detector and regressor, fewer for large images; None is :data:`BATCH_SIZE` of the device.
    device : str
        Where the networks of regressor and detector run: ``auto`` (CUDA if available), ``cpu``, ``cuda``,
        ``cuda:1``, or several separated by commas, one for each worker. The identity of a run contains the device that
        was used, not this option.
    precision : str
        Arithmetic of the regressor's networks: ``fp32``, ``fp64``, ``bf16``, ``fp16``.
    boxes : str
        Source of face boxes that replace detection: ``dataset`` (the boxes of the dataset, if any), ``none``, or the
        path of an earlier store. The identity contains the content of that store, not its path.
    """

    regressor: str = "facemesh"
    detector: str | None = None
    also: tuple[str, ...] = ()
    batch_size: int | None = None
    device: str = "auto"
    precision: str = "fp32"
    boxes: str = "dataset"

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch size is {self.batch_size}; it must be at least 1")
        if len({device.partition(":")[0] for device in self.devices}) > 1:
            raise UsageError(
                f"device: {self.device} mixes kinds of devices, whose codes differ; use one kind"
            )

    @property
    def devices(self) -> tuple[str, ...]:
        """Devices of the workers."""
        return tuple(device.strip() for device in self.device.split(","))


# Plug-ins are built once in each process, not for every shard.
_regressor = lru_cache(maxsize=1)(load_regressor)
_detector = lru_cache(maxsize=1)(load_detector)


def regressor_of(config: ExtractConfig) -> Regressor:
    """The regressor of a configuration, built once in each process."""
    return _regressor(config.regressor, config.also, device=config.device, precision=config.precision)


def settle(config: ExtractConfig, *, all_known: bool = False) -> tuple[ExtractConfig, list[str]]:
    """Choose batch size and detector where the configuration leaves them open.

    Parameters
    ----------
    config : ExtractConfig
    all_known : bool
        Whether all face boxes are known; then a regressor that takes crops needs no detector.

    Returns
    -------
    the complete configuration, and notes about the choice for the user

    Raises
    ------
    UsageError : both ``--detector`` and a store of boxes are given.
    WeightsError, MissingExtra : no detector of the regressor is available; the message is that of the first one.
    """
    regress = regressor_of(config)
    if config.batch_size is None:
        config = replace(config, batch_size=BATCH_SIZE[getattr(regress, "device", "cpu")])
    if config.detector is not None:
        if config.boxes not in ("dataset", "none"):
            raise UsageError(
                f"detector: --boxes {config.boxes} replaces the detector; leave out --detector {config.detector}"
            )
        return config, []
    if all_known and isinstance(regress.needs, CropSpec):
        return replace(config, detector="boxes"), []
    preferred = regress.detectors
    errors: list[Ig3dError] = []
    for name in preferred:
        try:
            _detector(name, device=config.device)
        except (WeightsError, MissingExtra) as error:
            errors.append(error)
            continue
        notes = (
            [f"{config.regressor}: detector {name} is used instead of {preferred[0]} ({errors[0]})"]
            if errors
            else []
        )
        return replace(config, detector=name), notes
    raise errors[0]


def build(config: ExtractConfig) -> tuple[Regressor, Detector]:
    """Build regressor and detector of a complete configuration.

    Raises
    ------
    UsageError : the regressor needs landmarks that the detector does not give, or neither of them can use the GPU.
    """
    regress = regressor_of(config)
    if config.detector in ("boxes", "none") and isinstance(regress.needs, LandmarkSpec):
        raise UsageError(
            f"detector {config.detector}: it gives no landmarks, which {regress.name} needs; "
            f"use --detector {regress.detectors[0]}"
        )
    detect = _detector(config.detector or regress.detectors[0], device=config.device)
    on_gpu = any(device not in ("auto", "cpu") for device in config.devices)
    if on_gpu and not any(hasattr(plugin, "device") for plugin in (regress, detect)):
        raise UsageError(
            f"device: neither {regress.name} nor {detect.name} can use {config.device}; leave out --device"
        )
    return regress, detect
