"""Configuration of an extraction, and the detector and regressor that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ..errors import Ig3dError, MissingExtra, RunError, UsageError, WeightsError
from ..features.device import device_kind, resolve_device
from ..features.values import Block, CropSpec, LandmarkSpec
from .detectors import Detector, find_detector, load_detector
from .plugins import Plugin
from .regressors import Regressor, find_regressor, load_regressor

# Default batch size by device. On a GPU it is several times the networks' batch, so that uploads never wait.
BATCH_SIZE: Mapping[str, int] = {"cpu": 32, "cuda": 256}

# Entries of a store's regressor that are not part of its description.
NOT_IN_DESCRIPTION = ("sets", "licence")


@dataclass(frozen=True, slots=True)
class ExtractConfig:
    """Options that determine the codes; they are part of the identity of a run.

    Attributes
    ----------
    regressor : str
        Name of a regressor.
    detector : str or None
        Name of a detector; None takes the first available one of the regressor's ``detectors``.
    also : tuple of str
        Optional blocks to write in addition.
    batch_size : int or None
        Faces per call of the regressor, and on the CPU images per call of the detector; None is :data:`BATCH_SIZE`.
    device : str
        Device of the networks of regressor and detector: ``auto`` (CUDA if available), ``cpu``, ``cuda``, ``cuda:1``,
        or several separated by commas, one for each worker. :func:`resolve_config` replaces it by concrete devices
        (``cpu``, ``cuda:0``). Only their kind is part of the identity.
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


def resolve_config(
    config: ExtractConfig, *, all_boxes_known: bool = False
) -> tuple[ExtractConfig, list[str]]:
    """Complete a configuration: detector, device and batch size. No network is built.

    Only the coordinating process calls this function; the workers get the result.

    Parameters
    ----------
    config : ExtractConfig
    all_boxes_known : bool
        Whether the face boxes of all images are stored, so that a regressor that takes crops needs no detector.

    Returns
    -------
    config : ExtractConfig
        The complete configuration.
    notes : list of str
        Messages for the user about a detector that is used in place of the preferred one.

    Raises
    ------
    UsageError : options contradict each other, or a plug-in, precision, block or device does not exist.
    PluginError : a class attribute of regressor or detector is missing or wrong.
    WeightsError, MissingExtra : a file or package of the regressor is missing, or no detector of the regressor is
        available; the message is that of the first one.
    """
    regressor = find_regressor(config.regressor)
    if config.precision not in regressor.precisions:
        raise UsageError(
            f"regressor {regressor.name}: there is no precision {config.precision!r}; choose one of "
            f"{', '.join(regressor.precisions)}"
        )
    regressor.chosen_blocks(config.also)
    if config.detector is not None and config.boxes not in ("dataset", "none"):
        raise UsageError(
            f"detector: --boxes {config.boxes} replaces the detector; leave out --detector {config.detector}"
        )
    config, notes = _with_detector(config, regressor, all_boxes_known=all_boxes_known)
    describe(config)
    if config.batch_size is None:
        config = replace(config, batch_size=BATCH_SIZE[device_kind(config.device)])
    return config, notes


def _with_detector(
    config: ExtractConfig, regressor: type[Regressor], *, all_boxes_known: bool
) -> tuple[ExtractConfig, list[str]]:
    """The configuration with the chosen or the first available detector and its concrete device."""
    if config.detector is not None:
        return _on_device(config, regressor, find_detector(config.detector)), []
    if all_boxes_known and isinstance(regressor.needs, CropSpec):
        return _on_device(replace(config, detector="boxes"), regressor, find_detector("boxes")), []
    errors: list[Ig3dError] = []
    for name in regressor.detectors:
        try:
            detector = find_detector(name)
            resolved = _on_device(replace(config, detector=name), regressor, detector)
            detector.describe(_device_of(detector, resolved.devices[0]))
        except (WeightsError, MissingExtra) as error:
            errors.append(error)
            continue
        first = regressor.detectors[0]
        notes = (
            [f"{config.regressor}: detector {name} is used instead of {first} ({errors[0]})"]
            if errors
            else []
        )
        return resolved, notes
    raise errors[0]


def _on_device(config: ExtractConfig, regressor: type[Regressor], detector: type[Detector]) -> ExtractConfig:
    """The configuration with concrete devices.

    Raises
    ------
    UsageError : the detector does not find the landmarks that the regressor needs, or neither can use a GPU.
    """
    if not detector.gives(regressor.needs):
        raise UsageError(
            f"detector {detector.name}: it finds {_landmarks(detector.landmarks, detector.blendshapes)}, but "
            f"{regressor.name} needs {_needs(regressor.needs)}; use --detector {regressor.detectors[0]}"
        )
    uses_gpu = regressor.gpu or detector.gpu
    if config.device == "auto" and not uses_gpu:
        return replace(config, device="cpu")
    if not uses_gpu and config.device != "cpu":
        names = " and ".join(dict.fromkeys((regressor.name, detector.name)))
        raise UsageError(f"device: {names} cannot use {config.device}; omit --device")
    return replace(config, device=",".join(resolve_device(device) for device in config.devices))


def _needs(needs: CropSpec | LandmarkSpec) -> str:
    return "crops" if isinstance(needs, CropSpec) else _landmarks(needs.points, needs.blendshapes)


def _landmarks(points: int, blendshapes: bool) -> str:
    return f"{points or 'no'} landmarks" + (" and blendshapes" if blendshapes else "")


def _device_of(plugin: type[Plugin], device: str) -> str:
    """Device of the networks of a plug-in: the CPU if it cannot use a GPU."""
    return device if plugin.gpu else "cpu"


def describe(config: ExtractConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Descriptions of the regressor and the detector of a complete configuration, for the identity of a run.

    Raises
    ------
    WeightsError, MissingExtra : a file or a package is missing.
    """
    regressor, detector, device = find_regressor(config.regressor), detector_of(config), config.devices[0]
    return (
        regressor.describe(_device_of(regressor, device), config.precision),
        detector.describe(_device_of(detector, device)),
    )


def detector_of(config: ExtractConfig) -> type[Detector]:
    """Class of the detector; nothing is built."""
    return find_detector(config.detector or find_regressor(config.regressor).detectors[0])


def blocks_of(config: ExtractConfig) -> dict[str, Block]:
    """Blocks that a run writes, by name and in order."""
    return find_regressor(config.regressor).chosen_blocks(config.also)


# Each process builds its networks once, not for every shard.
_regressor = lru_cache(maxsize=1)(load_regressor)
_detector = lru_cache(maxsize=1)(load_detector)


def build(config: ExtractConfig, recorded: Mapping[str, Any] | None = None) -> tuple[Regressor, Detector]:
    """Build regressor and detector of a complete configuration, once in each process.

    Parameters
    ----------
    config : ExtractConfig, complete
    recorded : mapping, optional
        Description of the regressor in the coordinating process, with which that of this process must agree.

    Raises
    ------
    RunError : the regressor of this process has another version, runtime or weights file than the recorded one.
    """
    device = config.devices[0]
    if recorded:
        cls = find_regressor(config.regressor)
        _check_same(cls.describe(_device_of(cls, device), config.precision), recorded)
    regressor = _regressor(config.regressor, config.also, device=device, precision=config.precision)
    return regressor, _detector(config.detector or regressor.detectors[0], device=device)


def _check_same(own: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
    """Refuse a worker whose regressor is not the one that the store records."""
    differing = [
        f"{key} is {own.get(key)}, not {recorded[key]}"
        for key in recorded
        if key not in NOT_IN_DESCRIPTION and own.get(key) != recorded[key]
    ]
    if differing:
        raise RunError(
            f"regressor {own['name']}: this worker differs from the process that started the run: {differing[0]}; "
            "install the same packages and files on all machines"
        )
