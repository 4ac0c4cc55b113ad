"""The errors of ig3d, one tree; the command line prints each as one line and exits with its ``exit_code``.

::

    Ig3dError               1   anything below; catch this one
    ├── UsageError          2   options that contradict each other or name what does not exist
    ├── MissingExtra        1   an optional package is absent; says what to install
    ├── DatasetError        1   a dataset folder or table is not as its layout says
    │   └── LayoutError     1   nothing of the layout is there: another adapter may fit
    ├── WeightsError        1   weights are missing, wrong or damaged
    ├── RunError            1   an extraction cannot start or go on
    ├── StoreError          1   a store is of another version, cut short or changed
    ├── PredictionsError    1   2D or 3D predictions are malformed or do not join
    ├── ProtocolError       1   the rows do not allow the comparison that was asked for
    └── ModelError          1   a fitted model or checkpoint is unreadable or does not fit

Form of a message: *name: expected ..., got ...; what to do*.
"""

from __future__ import annotations

import re
from importlib import import_module
from types import ModuleType


class Ig3dError(Exception):
    """Anything that ig3d refuses, with a one-line reason."""

    exit_code = 1


class Terminated(SystemExit):
    """The program was told to end (SIGTERM): unlike a ``sys.exit`` in a user's own code, which is an error."""


class UsageError(Ig3dError):
    """Options that contradict each other or name what does not exist."""

    exit_code = 2


class MissingExtra(Ig3dError):
    """An optional package is absent."""


class DatasetError(Ig3dError):
    """A dataset folder or table is not as its layout says."""


class LayoutError(DatasetError):
    """A folder shows no mark of the layout that was looked for; another adapter may fit."""


class WeightsError(Ig3dError):
    """Weights are missing, wrong or damaged."""


class RunError(Ig3dError):
    """An extraction cannot start or go on."""


class StoreError(Ig3dError):
    """A store is of another version, cut short or changed."""


class PredictionsError(Ig3dError):
    """2D or 3D predictions are malformed or do not join."""


class ProtocolError(Ig3dError):
    """The rows do not allow the comparison that was asked for."""


class ModelError(Ig3dError):
    """A fitted model or checkpoint is unreadable or does not fit."""


# Import names of the optional packages by the extra of pyproject.toml that installs them.
_EXTRAS = {
    "extract": "cv2 filelock numba openvino PIL pooch requests tflite",
    "networks": "safetensors timm torch torchvision",
    "sfd": "face_alignment",
    "report": "jinja2 matplotlib",
    "parquet": "pyarrow",
    "remote": "fsspec",
    "dask": "dask distributed",
    "ray": "ray",
    "onnx": "onnxruntime",
}


def absent(error: ModuleNotFoundError, *, wanted_by: str) -> MissingExtra:
    """The error for a package that is not installed: the command or plug-in, the package, the extra to install."""
    package = (error.name or "unknown").partition(".")[0]
    extra = next((extra for extra, packages in _EXTRAS.items() if package in packages.split()), None)
    install = f"pip install 'ig3d[{extra}]'" if extra else "install it"
    return MissingExtra(f"{wanted_by}: needs the package {package!r}, which is not installed; {install}")


# Debian's packages of system libraries that wheels expect; other systems name theirs after the library too.
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
    """The error for a package or system library that is not installed; None for any other error."""
    if isinstance(error, ModuleNotFoundError):
        # our own modules are always there
        return None if (error.name or "ig3d").startswith("ig3d") else absent(error, wanted_by=wanted_by)
    if not (found := _NO_LIBRARY.search(str(error))):
        return None
    library = found["library"]
    package = _SYSTEM_PACKAGES.get(library)
    install = (
        f"apt-get install {package}, or your system's package of it" if package else "install its package"
    )
    return MissingExtra(f"{wanted_by}: needs the system library {library}, which is not installed; {install}")


def require(module: str, *, wanted_by: str) -> ModuleType:
    """Import an optional dependency or say what to install.

    Parameters
    ----------
    module : str
        Import name, such as ``"matplotlib.pyplot"``.
    wanted_by : str
        What the user asked for; opens the message.

    Raises
    ------
    MissingExtra : the package, or a system library that it loads, is not installed.
    """
    try:
        return import_module(module)
    except (ImportError, OSError) as error:
        if refusal := missing_part(error, wanted_by=wanted_by):
            raise refusal from error
        raise


def short(text: str, limit: int = 80) -> str:
    """A value as a message shows it: cut where it is long, with how long it is.

    >>> short("surprise"), short("0 255 " * 99, 12)
    ('surprise', '0 255 0 255 ... (594 characters)')
    """
    return text if len(text) <= limit else f"{text[:limit].rstrip()} ... ({len(text)} characters)"


def some(items: list[str], limit: int = 5) -> str:
    """The first few of ``items`` in words, with how many more there are."""
    shown = ", ".join(short(item, 160) for item in items[:limit])  # paths are long, and wanted whole
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def number(count: int, noun: str) -> str:
    """How many of something, in words.

    >>> number(1, "row"), number(2, "row"), number(3, "class")
    ('1 row', '2 rows', '3 classes')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('s') else 's'}"
