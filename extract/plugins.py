"""Plug-ins: found by name, checked before any work, and checked in what they return.

A regressor, detector or dataset is a class derived from :class:`~ig3d.extract.regressors.Regressor`,
:class:`~ig3d.extract.detectors.Detector` or :class:`~ig3d.extract.datasets.Dataset`. Everything static is a class
attribute, so that nothing is built to read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from inspect import signature
from typing import Any, ClassVar, TypeVar

import numpy as np

from ..errors import Ig3dError, PluginError, UsageError, absent, reason_of
from ..features.installed import installed_plugins
from ..features.values import Block, Face
from .weights import find_weights, weights_sha256
from .weights_table import WeightsFile, weights_file

T = TypeVar("T")
GUIDE = "see docs/plugins.md"
BLENDSHAPES = 52
_NOT_IN_NAMES = frozenset(",+:/")  # separate block names in options and columns


class Plugin:
    """Base class of regressors and detectors.

    Parameters
    ----------
    device : str
        Where the networks run: ``cpu``, ``cuda:0``, ...; always ``cpu`` if :attr:`gpu` is false.

    Attributes
    ----------
    name : str
    version : str
        Changed with the numbers that the plug-in computes; part of a run's identity.
    licence : str
        Terms of code and weights.
    gpu : bool
        Whether the networks can run on a GPU.
    packages : tuple of str
        Packages that compute, by import name; they must be installed, and their versions are recorded.
    weights : tuple of str or WeightsFile
        Files that the plug-in reads: names in the list of ``ig3d weights``, or entries that the class declares.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    licence: ClassVar[str] = ""
    gpu: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ()
    weights: ClassVar[tuple[str | WeightsFile, ...]] = ()

    attributes: ClassVar[Mapping[str, type | tuple[type, ...]]] = {
        "name": str,
        "version": str,
        "licence": str,
        "gpu": bool,
        "packages": tuple,
        "weights": tuple,
    }

    # arguments of the constructor
    constructor: ClassVar[tuple[str, ...]] = ("device",)

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    @classmethod
    def runtime(cls, device: str, precision: str) -> str:
        """Libraries that compute, with their versions, and the kind of device.

        Raises
        ------
        MissingExtra : one of them is not installed.
        """
        for package in cls.packages:
            if find_spec(package) is None:
                raise absent(ModuleNotFoundError(name=package), wanted_by=cls.name)
        libraries = [f"{package} {_version(package)}" for package in cls.packages]
        return " ".join([*libraries, device.partition(":")[0]]) if libraries else ""

    @classmethod
    def describe(cls, device: str = "cpu", precision: str = "fp32") -> dict[str, Any]:
        """Name, version, runtime and SHA-256 of the weights; part of a run's identity and stored with the codes.

        Raises
        ------
        WeightsError, MissingExtra : a weights file or a package is missing.
        """
        runtime = cls.runtime(device, precision)
        identity = {
            "name": cls.name,
            "version": cls.version,
            **({"runtime": runtime} if runtime else {}),
        }
        for number, entry in enumerate(cls.weights):
            name = entry if isinstance(entry, str) else entry.name
            identity[f"{name if number else 'weights'}_sha256"] = weights_sha256(find_weights(entry))
        return identity

    @classmethod
    def problems(cls) -> Iterator[str]:
        """Faults of the class attributes, beyond their types."""
        try:
            signature(cls).bind(**dict.fromkeys(cls.constructor, ""))
        except TypeError as exc:
            yield f"the constructor must accept {' and '.join(cls.constructor)} ({exc})"
        for entry in cls.weights:
            if isinstance(entry, str):
                weights_file(entry)
            elif not isinstance(entry, WeightsFile):
                yield f"weights contains {entry!r}; each entry must be a name or a WeightsFile"


def declared_files(name: str) -> list[WeightsFile]:
    """Entries of weights files that plug-ins of other packages declare.

    Parameters
    ----------
    name : str
        ``package.module:Class`` of a plug-in, or the name of an entry that a registered plug-in declares.
    """
    if ":" in name:
        return _entries(name)
    targets = [*installed_plugins("regressors").values(), *installed_plugins("detectors").values()]
    entries = {entry.name: entry for target in targets for entry in _entries(target)}
    return [entries[name]] if name in entries else []


def _entries(target: str) -> list[WeightsFile]:
    weights = getattr(_import(target, target), "weights", ())
    return [entry for entry in weights if isinstance(entry, WeightsFile)]


def names(kind: str, builtin: Mapping[str, str]) -> list[str]:
    """Names of all plug-ins of a kind (``dataset``, ``detector``, ``regressor``), built-in ones first."""
    return list(dict.fromkeys((*builtin, *installed_plugins(f"{kind}s"))))


def find(kind: str, name: str, builtin: Mapping[str, str], base: type[T]) -> type[T]:
    """Import the class of a plug-in and check its attributes; nothing is built.

    Parameters
    ----------
    kind : ``dataset``, ``detector`` or ``regressor``
    name : name of the plug-in, or ``package.module:Class``
    builtin : name -> ``module:Class`` of the built-in plug-ins
    base : class from which it must be derived

    Raises
    ------
    UsageError : no plug-in has this name, its module has no such class, or ``name`` is no text.
    MissingExtra : the plug-in needs a package that is not installed.
    PluginError : it is not derived from ``base``, or a class attribute is missing or wrong.
    """
    if not isinstance(name, str):
        raise UsageError(f"{kind}: {name!r} is not a name; choose one of {', '.join(names(kind, builtin))}")
    if name in builtin:
        target = builtin[name]
    elif ":" in name:
        target = name
    else:
        installed = installed_plugins(f"{kind}s")
        if name not in installed:
            raise UsageError(f"{kind}: there is no {name!r}; choose one of {', '.join(names(kind, builtin))}")
        target = installed[name]
    plugin = _import(target, kind, wanted_by=f"{kind} {name}")
    attribute = target.partition(":")[2]
    if not (isinstance(plugin, type) and issubclass(plugin, base)):
        raise PluginError(
            f"{kind} {name}: {attribute} is not derived from {base.__module__}.{base.__qualname__}; {GUIDE}"
        )
    _check_attributes(kind, plugin)
    return plugin


def construct(kind: str, plugin: type[T], **arguments: str) -> T:
    """Instance of a plug-in.

    Raises
    ------
    PluginError : the constructor of a plug-in of another package raised an exception that is not of ig3d.
    """
    try:
        return plugin(**arguments)
    except (Ig3dError, ImportError, MemoryError):
        raise
    except Exception as exc:
        if plugin.__module__.startswith(f"{__name__.partition('.')[0]}."):
            raise
        raise PluginError(
            f"{kind} {getattr(plugin, 'name', plugin.__qualname__)}: the constructor raised {type(exc).__name__}: "
            f"{reason_of(exc)}; --verbose shows where"
        ) from exc


def _import(target: str, what: str, *, wanted_by: str | None = None) -> Any:
    """The object ``module:attribute``.

    Raises
    ------
    UsageError, MissingExtra : the module has no such attribute, or a package is missing.
    """
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except AttributeError as exc:
        raise UsageError(
            f"{what}: the module {module} has no {attribute!r}; correct the name in {target!r}"
        ) from exc
    except ModuleNotFoundError as exc:
        raise absent(exc, wanted_by=wanted_by or what) from exc


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # the distribution has another name
        return str(getattr(import_module(package), "__version__", "unknown"))


def _check_attributes(kind: str, plugin: Any) -> None:
    """Refuse a class with missing or wrong attributes.

    Raises
    ------
    PluginError : names the class, the attribute, its value and the required type.
    """
    what = f"{kind} {plugin.__module__}:{plugin.__qualname__}"
    for name, types in plugin.attributes.items():
        required = " or ".join(one.__name__ for one in (types if isinstance(types, tuple) else (types,)))
        if not hasattr(plugin, name):
            raise PluginError(f"{what}: the class attribute {name} ({required}) is missing; {GUIDE}")
        value = getattr(plugin, name)
        if not isinstance(value, types):
            raise PluginError(
                f"{what}: the class attribute {name} is {value!r}; it must be a {required}; {GUIDE}"
            )
    if not plugin.name or _NOT_IN_NAMES & set(plugin.name):
        raise PluginError(f"{what}: the name {plugin.name!r} is empty or contains one of , + : /; {GUIDE}")
    for problem in plugin.problems():
        raise PluginError(f"{what}: {problem}; {GUIDE}")


def check_blocks(
    blocks: Mapping[str, Any], sets: Mapping[str, Any], optional: Sequence[str]
) -> Iterator[str]:
    """Faults of the blocks, named sets and optional blocks of a regressor."""
    if not blocks:
        yield "blocks is empty"
    for name, block in blocks.items():
        if not isinstance(block, Block):
            yield f"block {name} is {block!r}; it must be a Block"
        if not name or _NOT_IN_NAMES & set(name):
            yield f"the block name {name!r} is empty or contains one of , + : /"
    for name, chosen in {**sets, "optional": optional}.items():
        if isinstance(chosen, str):
            yield f"{name} is the text {chosen!r}; it must be a tuple of block names"
        if unknown := [block for block in chosen if block not in blocks]:
            yield f"{name} contains {', '.join(map(str, unknown))}, which is no block"


def check_codes(regressor: Any, codes: Any, n: int) -> dict[str, np.ndarray]:
    """Check what a regressor returned for n faces.

    Parameters
    ----------
    regressor : Regressor
    codes : what it returned
    n : int
        Number of faces.

    Returns
    -------
    block name -> (n, width) float32, the regressor's blocks in order

    Raises
    ------
    PluginError : a block is missing or undeclared, or is not an array (n, width) of floats.
    """
    what, blocks = f"regressor {regressor.name}", regressor.blocks
    if not isinstance(codes, Mapping):
        raise PluginError(
            f"{what}: it returned {_described(codes)}; it must return a dict of block names to arrays; {GUIDE}"
        )
    declared = {*blocks, *type(regressor).blocks}
    wrong = [f"block {name} is missing" for name in blocks if name not in codes]
    wrong += [f"block {name} is not declared" for name in codes if name not in declared]
    if wrong:
        raise PluginError(
            f"{what}: {wrong[0]}: it returned {', '.join(map(str, codes)) or 'no block'}; it must return "
            f"{', '.join(blocks)}; {GUIDE}"
        )
    for name, block in blocks.items():
        values, shape = codes[name], (n, block.width)
        if not isinstance(values, np.ndarray) or values.shape != shape or values.dtype.kind != "f":
            raise PluginError(
                f"{what}: block {name} is {_described(values)}; it must be a NumPy array of floats {shape}; {GUIDE}"
            )
    return {name: codes[name].astype(np.float32, copy=False) for name in blocks}


def check_faces(detector: Any, faces: Any, n: int) -> list[list[Face]]:
    """Check what a detector returned for n images.

    Parameters
    ----------
    detector : Detector
    faces : what it returned
    n : int
        Number of images.

    Returns
    -------
    list of n lists of faces

    Raises
    ------
    PluginError : another number of lists, something that is no face, or arrays of another shape than
        :class:`~ig3d.features.values.Face` requires.
    """
    what = f"detector {detector.name}"
    if not isinstance(faces, list | tuple) or len(faces) != n:
        raise PluginError(
            f"{what}: it returned {_described(faces)}; it must return a list of {n} lists of faces, one for each "
            f"image; {GUIDE}"
        )
    for of_image in faces:
        if not isinstance(of_image, list | tuple):
            raise PluginError(
                f"{what}: it returned {_described(of_image)} for an image; it must be a list of faces, empty without "
                f"a face; {GUIDE}"
            )
        for face in of_image:
            if problem := _face_problem(face, detector.landmarks):
                raise PluginError(f"{what}: {problem}; {GUIDE}")
    return [list(of_image) for of_image in faces]


def _face_problem(face: Any, points: int) -> str:
    """Fault of the types or shapes of a face; empty if there is none."""
    if not isinstance(face, Face):
        return f"it returned {_described(face)} as a face; it must be a Face(xyxy, score, landmarks, blendshapes)"
    shapes: dict[str, list[tuple[int, ...]]] = {
        "xyxy": [(4,)],
        "landmarks": [(points, 2), (points, 3)] if points else [],
        "blendshapes": [(BLENDSHAPES,)],
    }
    for name, allowed in shapes.items():
        values = getattr(face, name)
        if values is None and name != "xyxy":
            continue
        if (
            not isinstance(values, np.ndarray)
            or values.shape not in allowed
            or values.dtype.kind not in "fiu"
        ):
            required = " or ".join(map(str, allowed)) or "None, because the class attribute landmarks is 0"
            return f"{name} of a face is {_described(values)}; it must be {required}"
    if isinstance(face.score, bool) or not isinstance(face.score, int | float | np.floating | np.integer):
        return f"score of a face is {_described(face.score)}; it must be a number"
    return ""


def _described(value: Any) -> str:
    """Type and shape of a value: ``(4, 49) float32``, ``Tensor (4, 50)``, ``list of 3``."""
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype}"
    name = type(value).__name__
    if hasattr(value, "shape"):
        return f"a {name} {tuple(value.shape)}"
    return f"a {name} of {len(value)}" if isinstance(value, list | tuple | dict) else f"a {name}"
