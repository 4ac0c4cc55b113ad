"""AffectNet's tiny files, ``{id}_exp.npy``, ``_val.npy`` and ``_aro.npy``: read once, and saved as one table.

The table lies beside the ``annotations`` folder, or in the user's cache where that cannot be written. It holds a
digest of the names, sizes and times of the files that it was read from, so that changed files are read again.
"""

from __future__ import annotations

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from ...errors import DatasetError, RunError, listed, reason_of
from ...features.atomic import replacing
from ..user_folders import cache_folder

TABLE = ".ig3d-annotations.npz"
_COLUMNS = ("stems", "expression", "valence", "arousal")
_KINDS = ("exp", "val", "aro")
_THREADS, _CHUNK = 8, 512


Annotations = dict[str, np.ndarray]


def read_annotations(folder: Path) -> Annotations:
    """All annotations of a folder, from the saved table unless a file has changed.

    Returns
    -------
    dict of ``stems`` (n,) str, sorted; ``expression`` (n,) int16; ``valence`` and ``arousal`` (n,) float32, NaN where
    there is no such file

    Raises
    ------
    DatasetError : a file is damaged or holds no number.
    """
    stems, digest = _listed(folder)
    caches = [folder.parent / TABLE]
    with suppress(FileNotFoundError):  # a user without a home folder
        caches.append(_user_cache(folder))
    for cache in caches:
        if (saved := _saved(cache, digest)) is not None:
            return saved
    annotations = _read(folder, stems)
    for cache in caches:
        with suppress(OSError, RunError):
            _save(cache, digest, annotations)
            break
    return annotations


def _listed(folder: Path) -> tuple[list[str], bytes]:
    """Stems that have an expression, and a digest of the files, independent of their order."""
    stems, total = [], 0
    ends = tuple(f"_{kind}.npy" for kind in _KINDS)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(ends):
                about = entry.stat()
                line = f"{entry.name}\0{about.st_size}\0{about.st_mtime_ns}".encode(errors="surrogateescape")
                total += int.from_bytes(hashlib.blake2b(line, digest_size=16).digest(), "little")
                if entry.name.endswith(ends[0]):
                    stems.append(entry.name.removesuffix(ends[0]))
    return sorted(stems), (total % (1 << 128)).to_bytes(16, "little")


def _user_cache(folder: Path) -> Path:
    name = hashlib.blake2b(os.fsencode(folder.resolve()), digest_size=8).hexdigest()
    return cache_folder() / f"annotations-{name}.npz"


def _saved(cache: Path, digest: bytes) -> Annotations | None:
    # a damaged table is replaced; the file is opened here because NumPy does not always close it
    with suppress(Exception), cache.open("rb") as file, np.load(file) as table:
        if table["digest"].tobytes() == digest:
            return {name: table[name] for name in _COLUMNS}
    return None


def _save(cache: Path, digest: bytes, annotations: Annotations) -> None:
    with replacing(cache) as temporary, temporary.open("wb") as handle:
        np.savez(
            handle,
            digest=np.frombuffer(digest, np.uint8),
            stems=annotations["stems"],
            expression=annotations["expression"],
            valence=annotations["valence"],
            arousal=annotations["arousal"],
        )


def _read(folder: Path, stems: list[str]) -> Annotations:
    chunks = [stems[start : start + _CHUNK] for start in range(0, len(stems), _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as pool:  # on a remote disk the time is spent waiting
        parts = list(pool.map(partial(_read_some, os.fspath(folder)), chunks))
    values = np.concatenate([np.zeros((0, 3)), *parts])
    odd = [
        f"{stem}_exp.npy: {value:g}"
        for stem, value in zip(stems, values[:, 0], strict=True)
        if value != round(value) or not 0 <= value <= 10
    ]
    if odd:
        raise DatasetError(
            f"affectnet: expressions in {folder} are no numbers from 0 to 10 ({listed(odd)}); copy these files again"
        )
    return {
        "stems": np.array(stems, dtype=str),
        "expression": values[:, 0].astype(np.int16),
        "valence": values[:, 1].astype(np.float32),
        "arousal": values[:, 2].astype(np.float32),
    }


def _read_some(folder: str, stems: list[str]) -> np.ndarray:
    """(n, 3) float64 expression, valence, arousal."""
    values = np.full((len(stems), 3), np.nan)
    for row, stem in enumerate(stems):
        for column, kind in enumerate(_KINDS):
            path = f"{folder}/{stem}_{kind}.npy"
            try:
                values[row, column] = _number(path)
            except FileNotFoundError:
                continue  # the expression was listed; the others may be absent
            except (
                Exception
            ) as exc:  # the border to NumPy's parser of headers, which raises errors of many kinds
                raise DatasetError(
                    f"affectnet: {path} does not hold a number ({reason_of(exc)}); copy that file again"
                ) from exc
    return values


def _number(path: str) -> float:
    """The one number of a .npy file; the release keeps numbers as text. Nothing in it is executed."""
    with open(path, "rb") as handle:  # noqa: PTH123  # a Path costs more than the read
        content = handle.read()
    start = 10 + int.from_bytes(content[8:10], "little")
    kind = _kind(content[:start])
    return float(np.frombuffer(content, kind, count=1, offset=start)[0])


@lru_cache(maxsize=256)
def _kind(head: bytes) -> np.dtype:
    """The element type that a .npy header of version 1 names."""
    file = io.BytesIO(head)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("a .npy file of another version than 1.0")
    _, _, kind = np.lib.format.read_array_header_1_0(file)
    if kind.hasobject:
        raise ValueError("Python objects, which are never loaded")
    return kind
