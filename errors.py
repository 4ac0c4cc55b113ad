"""The errors of ig3d, one tree; the command line prints an error as one line and exits with its ``exit_code``.

::

    Ig3dError               1   base class of all errors below
    ├── UsageError          2   options that contradict each other or name what does not exist
    ├── MissingExtra        1   an optional package or a system library is not installed
    ├── DatasetError        1   a dataset folder or table does not have the documented layout
    │   └── LayoutError     1   no part of the layout exists: the folder may hold another dataset
    ├── WeightsError        1   weights are missing, wrong or damaged
    ├── RunError            1   an extraction cannot start or continue
    │   └── DeviceError     1   a GPU failed, or a process that prepares images for it
    ├── PluginError         1   a plug-in has a wrong attribute, or returns what its class does not declare
    ├── StoreError          1   a store has another format version, is truncated, or its content changed
    ├── PredictionsError    1   predictions are malformed or cannot be aligned with the samples
    ├── ProtocolError       1   the rows do not allow the requested comparison
    └── ModelError          1   a fitted model or checkpoint is unreadable or incompatible

A message is one line: what is wrong, with the values, then what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType


class Ig3dError(Exception):
    """Base class of the errors of ig3d; the message is one line."""

    exit_code = 1


class Terminated(SystemExit):
    """The program received SIGTERM. A separate class, because ``sys.exit`` in a plug-in is an error."""


class UsageError(Ig3dError):
    """Options that contradict each other or name what does not exist."""

    exit_code = 2


class MissingExtra(Ig3dError):
    """An optional package or a system library is not installed."""


class DatasetError(Ig3dError):
    """A dataset folder or table does not have the documented layout."""


class LayoutError(DatasetError):
    """A folder has no part of the expected layout; it may hold another dataset."""


class WeightsError(Ig3dError):
    """Weights are missing, wrong or damaged."""


class RunError(Ig3dError):
    """An extraction cannot start or continue."""


class DeviceError(RunError):
    """A GPU failed, or a process that prepares images for it; a new process can repeat the work."""


class PluginError(Ig3dError):
    """A plug-in has a wrong or missing attribute, or returns what its class does not declare."""


class StoreError(Ig3dError):
    """A store has another format version, is truncated, or its content changed."""


class PredictionsError(Ig3dError):
    """2D or 3D predictions are malformed or cannot be aligned with the samples."""


class ProtocolError(Ig3dError):
    """The rows do not allow the requested comparison."""


class ModelError(Ig3dError):
    """A fitted model or checkpoint is unreadable or incompatible."""


# Extra in pyproject.toml -> import names of the packages that it installs.
_EXTRAS = {
    "extract": "cv2 filelock numba openvino PIL requests tflite",
    "networks": "safetensors timm torch torchvision",
    "sfd": "face_alignment",
    "report": "jinja2 matplotlib",
    "parquet": "pyarrow",
    "remote": "fsspec",
    "video": "av",
    "dask": "dask distributed",
    "ray": "ray",
    "onnx": "onnxruntime",
}


# Packages that no extra installs -> how to install them.
_BY_HAND = {"pytorch3d": "docs/face_model.md explains how to install it"}


def absent(error: ModuleNotFoundError, *, wanted_by: str) -> MissingExtra:
    """Error for a missing package; the message names the command or plug-in, the package and the extra to install."""
    package = (error.name or "unknown").partition(".")[0]
    extra = next((extra for extra, packages in _EXTRAS.items() if package in packages.split()), None)
    install = f"pip install 'ig3d[{extra}]'" if extra else _BY_HAND.get(package, f"install {package}")
    return MissingExtra(f"{wanted_by}: needs the package {package!r}, which is not installed; {install}")


# System library that wheels load -> its Debian package; other systems use similar names.
_SYSTEM_PACKAGES = {
    "libgomp.so.1": "libgomp1",
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libGLESv2.so.2": "libgles2",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libstdc++.so.6": "libstdc++6",
    "libSM.so.6": "libsm6",
    "libXext.so.6": "libxext6",
    "libXrender.so.1": "libxrender1",
}
_NO_LIBRARY = re.compile(r"(?P<library>lib[\w.+-]+\.so[\w.]*): cannot open shared object file")


def missing_part(error: ImportError | OSError, *, wanted_by: str) -> MissingExtra | None:
    """Error for a missing package or system library; None if ``error`` has another cause."""
    if isinstance(error, ModuleNotFoundError):
        # a missing module of ig3d itself is a bug, not a missing package
        return None if (error.name or "ig3d").startswith("ig3d") else absent(error, wanted_by=wanted_by)
    if not (match := _NO_LIBRARY.search(str(error))):
        return None
    library = match["library"]
    package = _SYSTEM_PACKAGES.get(library)
    install = (
        f"apt-get install {package}, or the package of your system that provides it"
        if package
        else "install the package that provides it"
    )
    return MissingExtra(f"{wanted_by}: needs the system library {library}, which is not installed; {install}")


def require(module: str, *, wanted_by: str) -> ModuleType:
    """Import an optional dependency; if it is missing, the error names the package to install.

    Parameters
    ----------
    module : str
        Import name, such as ``"matplotlib.pyplot"``.
    wanted_by : str
        Command or plug-in that needs the package; the message begins with it.

    Raises
    ------
    MissingExtra : the package or a system library that it loads is not installed.
    """
    try:
        return import_module(module)
    except (ImportError, OSError) as error:
        if refusal := missing_part(error, wanted_by=wanted_by):
            raise refusal from error
        raise


def reason_of(error: Exception) -> str:
    """Short reason from an error of the system or of a library, without its number.

    >>> reason_of(FileNotFoundError(2, "No such file or directory", "a.txt"))
    'No such file or directory'
    """
    if isinstance(error, MemoryError):
        return "out of memory"
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


def shorten(text: str, limit: int = 80) -> str:
    """Text for a message: long text is cut and followed by its length.

    >>> shorten("surprise"), shorten("0 255 " * 99, 12)
    ('surprise', '0 255 0 255 ... (594 characters)')
    """
    return text if len(text) <= limit else f"{text[:limit].rstrip()} ... ({len(text)} characters)"


def listed(items: list[str], limit: int = 5) -> str:
    """First items, separated by commas, and the number of the others.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    shown = ", ".join(shorten(item, 160) for item in items[:limit])  # long enough to show paths in full
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def plural(count: int, noun: str) -> str:
    """Count and noun, in singular or plural.

    >>> plural(1, "row"), plural(2, "row"), plural(3, "class")
    ('1 row', '2 rows', '3 classes')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


def none_of(count: int, noun: str, verb: str) -> str:
    """Beginning of a sentence about a number of things of which none is as expected.

    >>> none_of(1, "row", "is"), none_of(3, "row", "is")
    ('the only row is not', 'none of 3 rows is')
    """
    return f"the only {noun} {verb} not" if count == 1 else f"none of {plural(count, noun)} {verb}"


def one_of(names: Iterable[str]) -> str:
    """Names as alternatives.

    >>> one_of(["a"]), one_of(["a", "b"]), one_of(["a", "b", "c"])
    ('a', 'a or b', 'a, b or c')
    """
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
