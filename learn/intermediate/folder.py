"""The folder of an intermediate fusion: what is in it, whose it is, and how a run goes on there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import RunError, some
from ...features.atomic import replacing
from ..report.files import run_files, write_texts
from ..report.findings import findings_of
from ..report.record import FIGURES, FILE, FINDINGS, PREDICTIONS, findings_name, json_text, run_of
from ..report.view import View
from ..versions import versions
from .config import ARMS
from .record import results_of

if TYPE_CHECKING:
    from .run import IntermediateResult

FORMAT = "ig3d-intermediate"
_OURS = re.compile(rf"({'|'.join(ARMS)})-\d+(-va\.npz|\.npz|\.safetensors|\.unfinished\.safetensors)")
_NAMES = (FILE, FIGURES, FINDINGS, "confusion.csv", "reliability.csv", PREDICTIONS, "predictions.csv")
_FIGURES = ("run.json", *_NAMES, *(name.replace(".", "-va.") for name in _NAMES))
_FINISHED = re.compile(rf"({'|'.join(ARMS)})-\d+\.safetensors")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a run writes.

    Attributes
    ----------
    path : Path
    identity : dict
        All that decides the trained weights, as JSON.
    """

    path: Path
    identity: Mapping[str, Any]

    def predictions(self, arm: str, seed: int) -> Path:
        """Predictions of one arm and seed, as ``ig3d fuse`` takes them."""
        return self.path / f"{arm}-{seed}.npz"

    def checkpoint(self, arm: str, seed: int) -> Path:
        """Written last: an arm whose checkpoint is there is finished."""
        return self.path / f"{arm}-{seed}.safetensors"

    def unfinished(self, arm: str, seed: int) -> Path:
        return self.path / f"{arm}-{seed}.unfinished.safetensors"

    def open(self, trainings: Sequence[tuple[str, int]], *, restart: bool) -> None:
        """Begin here, or go on.

        Parameters
        ----------
        trainings : arm and seed of all that is asked for
        restart : whether to throw away an earlier run

        Raises
        ------
        RunError : the folder holds another run, or more of this one, or something else, or cannot be written.
        """
        note = self.path / "run.json"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            there = sorted(item.name for item in self.path.iterdir())
            known = json.loads(note.read_text("utf-8")) if note.is_file() else {}
            ours = isinstance(known, dict) and known.get("format") == FORMAT
            if there and not ours:
                raise RunError(
                    f"{self.path}: expected a new folder or one of an earlier run, got {', '.join(there[:5])}; name "
                    "another --out"
                )
            mine = json.loads(json.dumps(self.identity))
            if ours and known.get("identity") != mine and not restart:
                raise RunError(
                    f"{self.path}: expected a run of these choices and rows, got one that differs in "
                    f"{', '.join(_differing(known.get('identity'), mine))}; name another --out, or --restart"
                )
            more = {name for name in there if _FINISHED.fullmatch(name)}
            more -= {self.checkpoint(*training).name for training in trainings}
            if more and not restart:
                raise RunError(
                    f"{self.path}: expected no more trainings than are asked for, got "
                    f"{some(sorted(name.removesuffix('.safetensors') for name in more))} as well; ask for these too "
                    "(--seeds, --controls), name another --out, or --restart"
                )
            if restart:
                for name in there:
                    if _OURS.fullmatch(name) or name in _FIGURES:
                        (self.path / name).unlink()
            self._write("run.json", {"format": FORMAT, "identity": self.identity, "versions": all_versions()})
        except (OSError, ValueError, RecursionError) as exc:
            raise RunError(f"{self.path}: expected a folder to write to, got {exc}; choose another") from exc

    def write_figures(self, result: IntermediateResult, command: str) -> None:
        """Record, figures, findings and predictions; with a task of both, those of valence and arousal beside them."""
        texts: dict[str, str | bytes] = {}
        for of in results_of(result):
            run = run_of(of, folder=self.path, command=command)
            run.record["versions"] = all_versions()
            texts |= {findings_name(run.record): json_text(findings_of(View(run))), **run_files(run, of)}
        write_texts(self.path, texts)

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        try:
            with replacing(self.path / name) as temporary:
                temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        except OSError as exc:
            raise RunError(f"{self.path}: expected to write {name} there, got {exc}") from exc


def all_versions() -> dict[str, str]:
    """What the bytes depend on: torch beside what every run depends on."""
    return versions() | {"torch": version("torch")}


def _differing(known: object, mine: Mapping[str, Any]) -> list[str]:
    theirs = known if isinstance(known, dict) else {}
    return sorted(name.replace("_", "-") for name in {*theirs, *mine} if theirs.get(name) != mine.get(name))
