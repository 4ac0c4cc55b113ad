"""The official files: which there are, where they are looked for, and whether they are what they were.

Regressors and detectors ask :func:`find_weights` for a file by ig3d's name of it; nothing is ever downloaded on the
way. :mod:`.weight_table` lists the files, :mod:`.weight_forms` knows what each kind holds, :mod:`.weights_add` puts
them in place.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from ..errors import WeightsError
from ..features.atomic import replacing
from ..features.unpickle import plain
from .places import home_folder
from .weight_forms import recognise
from .weight_table import OFFICIAL, Official, official

__all__ = [
    "OFFICIAL",
    "Official",
    "Status",
    "check_weights",
    "find_weights",
    "first_folder",
    "folders",
    "locate",
    "weights_sha256",
]

VARIABLE = "IG3D_WEIGHTS"
RECORD = ".ig3d.json"


def folders() -> list[Path]:
    """Folders that are searched, in order: those of ``$IG3D_WEIGHTS``, then the data folder of a user with a home."""
    found = [_expanded(part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    with suppress(FileNotFoundError):
        found.append(_user_folder())
    return found


def first_folder() -> Path:
    """The folder that new files are put into; may not exist.

    Raises
    ------
    WeightsError : there is none.
    """
    for folder in folders():
        return folder
    raise WeightsError(f"{VARIABLE}: expected a folder, as this user has no home, got none; set it to one")


def _user_folder() -> Path:
    base = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_DATA_HOME", "")
    return (Path(base) if base else home_folder() / ".local" / "share") / "ig3d" / "weights"


def _torch_cache() -> Path:
    """Where torch.hub, and so face-alignment, keeps what it downloads."""
    if not (home := os.environ.get("TORCH_HOME")):
        home = f"{os.environ.get('XDG_CACHE_HOME') or home_folder() / '.cache'}/torch"
    return _expanded(home) / "hub" / "checkpoints"


def _expanded(folder: str) -> Path:
    return Path(os.path.expanduser(folder))  # noqa: PTH111 - a ~ without a home is left as it is


def _searched(entry: Official) -> list[Path]:
    """Where this file is looked for, in order."""
    found = folders()
    if entry.torch_cache:
        with suppress(FileNotFoundError):
            found.append(_torch_cache())
    return found


def _candidates(entry: Official) -> Iterator[Path]:
    for folder in _searched(entry):
        for place in entry.places:
            if "*" not in place:
                yield folder / place
            elif folder.is_dir():
                yield from sorted(folder.glob(place), key=best_checkpoint)


def best_checkpoint(path: PurePath) -> tuple[bool, float, str]:
    """As EMOCA chooses: the detail stage, then the smallest metric behind the last ``=``."""
    try:
        metric = float(path.stem.rpartition("=")[2])
    except ValueError:
        metric = float("inf")
    return "detail" not in path.parts, metric, str(path)


def locate(name: str) -> Path | None:
    """Where the file is, None where it is not; only looks."""
    return next((path for path in _candidates(official(name)) if path.is_file()), None)


def find_weights(name: str) -> Path:
    """Path of an official file.

    Parameters
    ----------
    name : str
        ``smirk``, ``emoca`` (version 2, lr_mse_20), ``deca``, ``facemesh``, ``flame2020``, ...: see `OFFICIAL`.

    Returns
    -------
    Path : the first that is there of ``$IG3D_WEIGHTS`` and the user's data folder (face-alignment's files also in
        torch's cache).

    Raises
    ------
    WeightsError : it is nowhere, or its contents are not those recorded when it was first used; says how to get it.
    UsageError : no such name.
    """
    entry = official(name)
    path = locate(name)
    if path is None:
        searched = " or ".join(map(str, _searched(entry))) or f"${VARIABLE}"
        hashed = f" (sha256 {entry.sha256}{'...' if len(entry.sha256) < 64 else ''})" if entry.sha256 else ""
        add = "" if entry.url else "; then ig3d weights add FILE"
        raise WeightsError(
            f"{name}: expected {entry.place}{hashed} in {searched}, found none; to get it: {entry.how}{add}"
        )
    digest, recorded = _digests(path)
    if recorded not in (None, digest) and not is_published(entry, digest):
        raise WeightsError(_changed(name, path, recorded or "", digest))
    return path


def weights_sha256(path: Path) -> str:
    """SHA-256 of a weights file; read from the record beside it while size and time of change are the same."""
    return _digests(path)[0]


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of an official file on this machine.

    ``state`` is ``missing``, ``published`` (its SHA-256 is the published one), ``sound`` (of the right form, unchanged
    since first use; no hash is published), ``other`` (of the right form, with another hash than published), ``changed``
    (not what it was on first use) or ``wrong`` (not that kind of file, or damaged).
    """

    entry: Official
    state: Literal["missing", "published", "sound", "other", "changed", "wrong"]
    path: Path | None = None
    sha256: str = ""
    message: str = ""


def check_weights(name: str) -> Status:
    """Whether an official file is there and sound: its hash, and what it holds (the latter once for each hash)."""
    entry = official(name)
    path = locate(name)
    if path is None:
        return Status(entry, "missing", message=entry.how)
    try:
        digest, recorded = _digests(path)
        if recorded not in (None, digest) and not is_published(entry, digest):
            return Status(entry, "changed", path, digest, _changed(name, path, recorded or "", digest))
        if is_published(entry, digest):
            return Status(entry, "published", path, digest)
        if _read_record(path).get("form") != entry.form:
            form = recognise(path)
            if form.name != entry.form:
                return Status(
                    entry, "wrong", path, digest, f"{path}: expected {entry.form}, got {form.title}"
                )
            write_record(path, digest, form=form.name)
    except WeightsError as error:
        return Status(entry, "wrong", path, message=str(error))
    if entry.sha256:
        said = (
            f"of the right form, but its sha256 {digest[:12]}... is not the published {entry.sha256[:12]}..."
        )
        return Status(entry, "other", path, digest, said)
    return Status(entry, "sound", path, digest)


def is_published(entry: Official, digest: str) -> bool:
    """Whether a file with this SHA-256 is the official one, whatever we believe it holds."""
    return bool(entry.sha256) and digest.startswith(entry.sha256)


def _changed(name: str, path: Path, recorded: str, digest: str) -> str:
    return (
        f"{name}: expected {path} as it was on first use (sha256 {recorded[:12]}...), got {digest[:12]}...; "
        "put the old file back, or take the new one with ig3d weights add"
    )


def _digests(path: Path) -> tuple[str, str | None]:
    """The file's hash now, and the recorded one (None on first use, which records it)."""
    record = _read_record(path)
    try:
        stat = path.stat()
        recorded = record.get("sha256")
        if recorded and (record.get("size"), record.get("mtime_ns")) == (stat.st_size, stat.st_mtime_ns):
            return str(recorded), str(recorded)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"{path}: expected a readable file, got: {plain(error.strerror or error)}"
        ) from error
    if recorded in (None, digest):
        write_record(path, digest, form=str(record.get("form", "")))
    return digest, None if recorded is None else str(recorded)


def _read_record(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.with_name(path.name + RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_record(path: Path, digest: str, *, form: str) -> None:
    """Note a file's hash beside it; a folder that cannot be written to goes without."""
    record = path.with_name(path.name + RECORD)
    with suppress(OSError):
        stat = path.stat()
        text = {"sha256": digest, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "form": form}
        with replacing(record) as temporary:
            temporary.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
