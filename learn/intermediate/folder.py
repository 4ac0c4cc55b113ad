"""Output folder of an intermediate fusion, in which an interrupted run continues."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import RunError, listed, reason_of
from ...features.atomic import replacing
from ..report.files import run_files, write_texts
from ..report.findings import findings_of
from ..report.record import FIGURES, FILE, FINDINGS, PREDICTIONS, findings_name, json_text, run_of
from ..report.view import View
from ..versions import versions
from .config import CONDITIONS
from .results import results_of

if TYPE_CHECKING:
    from .run import IntermediateResult

FORMAT = "ig3d-intermediate"
_RUN_FILE = re.compile(
    rf"({'|'.join(CONDITIONS)})-\d+(-va\.npz|\.npz|\.safetensors|\.unfinished\.safetensors)"
)
_NAMES = (FILE, FIGURES, FINDINGS, "confusion.csv", "reliability.csv", PREDICTIONS, "predictions.csv")
_FIGURES = ("run.json", *_NAMES, *(name.replace(".", "-va.") for name in _NAMES))
_FINISHED = re.compile(rf"({'|'.join(CONDITIONS)})-\d+\.safetensors")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Output folder of a run.

    Attributes
    ----------
    path : Path
    identity : dict
        Everything on which the trained weights depend, as JSON.
    """

    path: Path
    identity: Mapping[str, Any]

    def predictions(self, condition: str, seed: int) -> Path:
        """Predictions of a condition and seed, a file for ``ig3d fuse``."""
        return self.path / f"{condition}-{seed}.npz"

    def checkpoint(self, condition: str, seed: int) -> Path:
        """Checkpoint of a condition and seed; it is written last."""
        return self.path / f"{condition}-{seed}.safetensors"

    def unfinished(self, condition: str, seed: int) -> Path:
        return self.path / f"{condition}-{seed}.unfinished.safetensors"

    def open(self, trainings: Sequence[tuple[str, int]], *, restart: bool) -> None:
        """Start or continue a run.

        Parameters
        ----------
        trainings : conditions and seeds of the run
        restart : whether to delete an earlier run

        Raises
        ------
        RunError : the folder contains another run, more trainings or other files, or cannot be written.
        """
        run_file = self.path / "run.json"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            names = sorted(item.name for item in self.path.iterdir())
            earlier = json.loads(run_file.read_text("utf-8")) if run_file.is_file() else {}
            is_run = isinstance(earlier, dict) and earlier.get("format") == FORMAT
            if names and not is_run:
                raise RunError(
                    f"{self.path}: the folder has other files ({', '.join(names[:5])}); choose a new --out"
                )
            identity = json.loads(json.dumps(self.identity))
            if is_run and earlier.get("identity") != identity and not restart:
                raise RunError(
                    f"{self.path}: the folder has a run with other options or rows; different: "
                    f"{', '.join(_differing(earlier.get('identity'), identity))}; choose another --out, or --restart"
                )
            others = {name for name in names if _FINISHED.fullmatch(name)}
            others -= {self.checkpoint(*training).name for training in trainings}
            if others and not restart:
                raise RunError(
                    f"{self.path}: the folder has further trainings "
                    f"({listed(sorted(name.removesuffix('.safetensors') for name in others))}); include them (--seeds, "
                    "--controls), or choose another --out, or --restart"
                )
            if restart:
                for name in names:
                    if _RUN_FILE.fullmatch(name) or name in _FIGURES:
                        (self.path / name).unlink()
            self._write("run.json", {"format": FORMAT, "identity": self.identity, "versions": all_versions()})
        except (OSError, ValueError, RecursionError) as exc:
            raise RunError(
                f"{self.path}: cannot be used as output folder ({reason_of(exc)}); choose another --out"
            ) from exc

    def write_figures(self, result: IntermediateResult, command: str) -> None:
        """Write record, figures, findings and predictions; with the task ``both``, two sets of files."""
        texts: dict[str, str | bytes] = {}
        for result_of_task in results_of(result):
            run = run_of(result_of_task, folder=self.path, command=command)
            run.record["versions"] = all_versions()
            texts |= {findings_name(run.record): json_text(findings_of(View(run)))}
            texts |= run_files(run, result_of_task)
        write_texts(self.path, texts)

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        try:
            with replacing(self.path / name) as temporary:
                temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        except OSError as exc:
            raise RunError(f"{self.path}: {name} cannot be written: {reason_of(exc)}") from exc


def all_versions() -> dict[str, str]:
    """Versions of the packages on which the bytes of a run depend, with torch."""
    return versions() | {"torch": version("torch")}


def _differing(earlier: object, identity: Mapping[str, Any]) -> list[str]:
    """Names of options in which two identities differ, as on the command line."""
    before = earlier if isinstance(earlier, dict) else {}
    names = {name for name in {*before, *identity} if before.get(name) != identity.get(name)}
    if "epochs" in names:
        names.discard("patience")  # in train-joint it depends on the epochs
    return sorted("seed" if name == "first_seed" else name.replace("_", "-") for name in names)
