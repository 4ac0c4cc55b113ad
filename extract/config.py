"""What decides the codes of a run: its configuration, and the plug-ins that it names, built once in each process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from ..errors import Ig3dError, MissingExtra, UsageError, WeightsError
from ..features.values import CropSpec, LandmarkSpec
from .detectors import Detector, load_detector
from .regressors import Regressor, load_regressor

# By the regressor's device; a GPU wants several times what its networks see at once, so that copying never stops.
BATCH_SIZE: Mapping[str, int] = {"cpu": 32, "cuda": 256}


@dataclass(frozen=True, slots=True)
class ExtractConfig:
    """What decides the codes; all of it is part of the run's identity.

    Attributes
    ----------
    regressor : str
        Name of a regressor.
    detector : str or None
        Name of a detector; None takes the regressor's first choice.
    also : tuple of str
        Blocks that the regressor writes on request only.
    batch_size : int or None
        Images per call of detector and regressor; None is :data:`BATCH_SIZE` of the device. Large images are fewer.
    device : str
        Where the networks of regressor and detector run: ``auto`` (CUDA where there is some), ``cpu``, ``cuda``,
        ``cuda:1``, or several by comma, a worker for each. The identity holds the kind of device that was found, not
        this wish.
    precision : str
        Arithmetic of the regressor's networks: ``fp32``, ``fp64``, ``bf16``, ``fp16``.
    boxes : str
        Faces that need not be looked for: ``dataset`` (the boxes that it has itself), ``none``, or the path of an
        earlier run's store. The identity holds what is in that store, not its path.
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
            raise UsageError(f"batch size: expected at least 1, got {self.batch_size}")
        if len({device.partition(":")[0] for device in self.devices}) > 1:
            raise UsageError(
                f"device: expected devices of one kind, got {self.device}; their codes would differ"
            )

    @property
    def devices(self) -> tuple[str, ...]:
        """The device of each worker, in turn."""
        return tuple(device.strip() for device in self.device.split(","))


# A process builds a plug-in once, not for every shard.
_regressor = lru_cache(maxsize=1)(load_regressor)
_detector = lru_cache(maxsize=1)(load_detector)


def regressor_of(config: ExtractConfig) -> Regressor:
    """The regressor of a configuration, built once in each process."""
    return _regressor(config.regressor, config.also, device=config.device, precision=config.precision)


def settle(config: ExtractConfig, *, all_known: bool = False) -> tuple[ExtractConfig, list[str]]:
    """The configuration with its batch size and its detector settled, and what to say about the choice.

    Parameters
    ----------
    config : ExtractConfig
    all_known : bool
        Whether every face is known; then a regressor that is fed crops needs no detector.

    Raises
    ------
    UsageError : ``--detector`` beside a store of boxes.
    WeightsError, MissingExtra : none of the regressor's detectors can be had; says what the first one lacks.
    """
    regress = regressor_of(config)
    if config.batch_size is None:
        config = replace(config, batch_size=BATCH_SIZE[getattr(regress, "device", "cpu")])
    if config.detector is not None:
        if config.boxes not in ("dataset", "none"):
            raise UsageError(
                f"detector: expected no --detector with --boxes {config.boxes}, got --detector {config.detector}; "
                "leave it out"
            )
        return config, []
    if all_known and isinstance(regress.needs, CropSpec):
        return replace(config, detector="boxes"), []
    preferred = regress.detectors
    lacking: list[Ig3dError] = []
    for name in preferred:
        try:
            _detector(name, device=config.device)
        except (WeightsError, MissingExtra) as error:
            lacking.append(error)
            continue
        notes = [f"{config.regressor}: {name} stands in for {preferred[0]} ({lacking[0]})"] if lacking else []
        return replace(config, detector=name), notes
    raise lacking[0]


def build(config: ExtractConfig) -> tuple[Regressor, Detector]:
    """The regressor and the detector of a settled configuration, fitting each other.

    Raises
    ------
    UsageError : the regressor needs landmarks and the detector is ``none``; a GPU that neither of them can use.
    """
    regress = regressor_of(config)
    if config.detector in ("boxes", "none") and isinstance(regress.needs, LandmarkSpec):
        raise UsageError(
            f"detector {config.detector}: expected a regressor that takes crops, got {regress.name}, which needs "
            f"landmarks; use --detector {regress.detectors[0]}"
        )
    detect = _detector(config.detector or regress.detectors[0], device=config.device)
    on_gpu = any(device not in ("auto", "cpu") for device in config.devices)
    if on_gpu and not any(hasattr(plugin, "device") for plugin in (regress, detect)):
        raise UsageError(
            f"device: expected no --device {config.device}, which neither {regress.name} nor {detect.name} can use; "
            "leave it out"
        )
    return regress, detect
