"""Writer of the ``.npz`` file of a 2D network's outputs: atomic, with features buffered on disk.

docs/networks.md lists the keys. Predictions are read by :mod:`ig3d.features.predictions`, features by
:mod:`ig3d.features.network_features`.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from ..errors import PredictionsError, reason_of
from ..features.atomic import replacing


class FeatureSpool:
    """Buffer for features in a temporary file, so that memory does not grow with the number of rows.

    Parameters
    ----------
    dtype : number type of the features
    folder : folder of the temporary file, which is that of the output
    """

    def __init__(self, dtype: np.dtype[np.floating[Any]], folder: Path) -> None:
        self.dtype = dtype
        self.rows = 0
        self.shape: tuple[int, ...] = ()
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder, prefix=".ig3d-features-")  # noqa: SIM115

    def append(self, batch: np.ndarray) -> None:
        """Add (n, ...) rows."""
        if self.rows and batch.shape[1:] != self.shape:
            raise PredictionsError(
                f"features: the shape of a row changed from {self.shape} to {batch.shape[1:]}"
            )
        self.shape, self.rows = batch.shape[1:], self.rows + len(batch)
        self._file.write(np.ascontiguousarray(batch, self.dtype).tobytes())

    def write_to(self, handle: IO[bytes]) -> None:
        """Write all rows as one ``.npy``."""
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, *self.shape)}
        np.lib.format.write_array_header_2_0(handle, header)
        self._file.seek(0)
        shutil.copyfileobj(self._file, handle, 1 << 22)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def write_npz(
    path: str | Path, arrays: Mapping[str, np.ndarray], *, features: FeatureSpool | None = None
) -> None:
    """Write arrays, and ``features`` if given, under a temporary name, then rename the file.

    Raises
    ------
    PredictionsError, RunError : the file cannot be written; the path is a folder or lies under a file.
    """
    try:
        with (
            replacing(path) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
        ):
            for name, array in arrays.items():
                with archive.open(_member(name), "w", force_zip64=True) as handle:
                    np.lib.format.write_array(handle, np.asarray(array), allow_pickle=False)
            if features is not None:
                with archive.open(_member("features"), "w", force_zip64=True) as handle:
                    features.write_to(handle)
    except OSError as exc:
        raise PredictionsError(
            f"{path}: the predictions cannot be written: {reason_of(exc)}; choose another path"
        ) from exc


def _member(name: str) -> zipfile.ZipInfo:
    """Entry with a constant date, so that equal outputs give equal files."""
    return zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
