"""``ig3d logits``: predictions of a 2D network for a dataset's images, with the ids of the sample list.

The rows are those of the same list, in the same order, that ``ig3d extract`` writes to the store. A network is
over-confident on what it learnt from; one of ``ig3d train-2d`` says what that was, and such rows are left out unless
they are asked for by name. They are told by the content of the image, as the same photograph may come under another
dataset and id.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..console import progress_bar
from ..errors import DatasetError, UsageError, some
from ..extract.engine import exact_arithmetic
from ..features.device import choose_device
from ..features.order import class_order_problem
from ..features.samples import Listing, Split
from .checkpoint import LoadedNetwork, check_place, hash_contents
from .crop import Crops, choose_crops
from .crop_scale import AUTO, ScaleChoice, choose_scale, truth_of
from .fit import class_scores, va_scores
from .images import Picture, batched, normalise, read_pictures
from .load import NetworkSpec, UserNetwork, load_network
from .written import FeatureSpool, write_npz


@dataclass(frozen=True, slots=True)
class LogitsConfig:
    """Choices of a run.

    Attributes
    ----------
    splits : tuple of str, or None
        Names of splits (``train``, ``val``, ``test``, ``none``); None is every row whose image the network was
        neither fitted on nor, out of the train split, validated on.
    batch_size : int
        Changes no number beyond rounding (1e-5).
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:0``.
    jobs : int or None
        Reading threads; None is one for each core. Changes no number.
    crop : str or None
        See :func:`ig3d.networks.crop.choose_crops`.
    crop_scale : float, or ``auto``
        Side of the crop over the mean side of the face box; ``auto`` chooses it
        (:func:`~ig3d.networks.crop_scale.choose_scale`).
    """

    splits: tuple[str, ...] | None = None
    batch_size: int = 64
    device: str = "auto"
    jobs: int | None = None
    crop: str | None = None
    crop_scale: float | str = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.crop_scale, str) and self.crop_scale != AUTO:
            raise UsageError(f"crop scale: expected a number or {AUTO}, got {self.crop_scale!r}")
        unknown = [name for name in self.splits or () if name not in Split.__members__]
        if unknown or self.splits == ():
            raise UsageError(
                f"splits: expected all, or some of {', '.join(Split.__members__)}, got "
                f"{', '.join(unknown) or 'none'}"
            )
        if self.batch_size < 1:
            raise UsageError(f"batch_size: expected 1 or more, got {self.batch_size}")


@dataclass(frozen=True, slots=True)
class LogitsResult:
    """What was written.

    Attributes
    ----------
    path : Path
    rows : int
        Rows in the file.
    by_split : dict
        Split name -> rows in the file.
    columns : tuple of str
        What was written: class names, ``valence``, ``arousal``, ``features``.
    scores : dict
        Split name -> the network's scores on the labelled rows of it: accuracy, balanced_accuracy, macro_f1, and
        ccc_valence, ccc_arousal, rmse.
    problems : tuple of str
        ``id: reason`` of each image that could not be read; it has no row.
    notes : tuple of str
        What the user should know, one line each.
    """

    path: Path
    rows: int
    by_split: dict[str, int]
    columns: tuple[str, ...] = ()
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def parse_splits(text: str | None) -> tuple[str, ...] | None:
    """``val,test`` or ``all`` as :class:`LogitsConfig` takes it.

    >>> parse_splits("val, test"), parse_splits("all"), parse_splits(None)
    (('val', 'test'), ('none', 'train', 'val', 'test'), None)
    """
    if text is None:
        return None
    if text.strip() == "all":
        return tuple(Split.__members__)
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_crop_scale(text: str) -> float | str:
    """A number or ``auto`` as :class:`LogitsConfig` takes it.

    >>> parse_crop_scale("1.25"), parse_crop_scale("auto")
    (1.25, 'auto')
    """
    try:
        return float(text)
    except ValueError:
        return text.strip()


def write_logits(
    listing: Listing,
    network: NetworkSpec | LoadedNetwork | str | Path,
    out: str | Path,
    config: LogitsConfig | None = None,
    *,
    progress: bool = False,
) -> LogitsResult:
    """Run a network over a dataset and write its outputs, by id, to an ``.npz`` (docs/networks.md lists its keys).

    Parameters
    ----------
    listing : Listing
        From :func:`ig3d.extract.datasets.list_samples`, as for the extraction.
    network : NetworkSpec, or the path of a network that needs no more words, or a checkpoint that was read
    out : path of the ``.npz``, replaced when it is there
    config : LogitsConfig, optional
    progress : bool
        Show a bar on stderr.

    Raises
    ------
    ModelError : the network is missing, damaged or unusable, or gives numbers that are not finite.
    DatasetError : no row is left, or none can be read.
    UsageError : what was said of the network does not fit it; no such split or device; no place for the file.
    MissingExtra : ONNX needs onnxruntime.

    Notes
    -----
    Valence and arousal are clipped to [-1, 1].
    """
    config = config or LogitsConfig()
    check_place(out, suffix=".npz")
    device = choose_device(config.device)
    spec = NetworkSpec(str(network)) if isinstance(network, (str, Path)) else network
    scale = 1.0 if isinstance(config.crop_scale, str) else config.crop_scale
    crops = choose_crops(listing, config.crop, scale=scale)
    rows = _choose(listing, config.splits)
    with exact_arithmetic(device), ExitStack() as stack:
        asked = load_network(spec, device=device, dataset_classes=listing.classes)
        choice = None
        if config.crop_scale == AUTO:
            choice = _choose_scale(listing, asked, crops, config, progress=progress)
            crops = crops.scaled(choice.scale)
        spool = None
        if asked.layer:
            kept: np.dtype[np.floating[Any]] = np.dtype(np.float16 if asked.maps else np.float32)
            spool = stack.enter_context(FeatureSpool(kept, Path(out).parent))
        run = run_network(listing, asked, rows, config, crops, spool=spool, progress=progress)
        good = [picture for picture in run.pictures if not picture.problem]
        problems = tuple(picture.problem for picture in run.pictures if picture.problem)
        left = np.setdiff1d(rows, [picture.row for picture in run.pictures])
        if not good and len(left):
            raise DatasetError(
                f"{listing.dataset}: expected readable images the network was not trained with, got none of "
                f"{len(rows)}; name splits to have them all the same"
            )
        if not good:
            raise DatasetError(
                f"{listing.dataset}: expected readable images, got none of {len(rows)} ({some(list(problems), 3)})"
            )
        done = np.array([picture.row for picture in good])
        ids = listing.samples["id"].to_numpy(dtype="U")[done]
        write_npz(out, _arrays(asked, crops, choice, run, ids), features=spool)
    seen = _told(asked, np.stack([picture.digest for picture in good]), ids)
    scores, wrong = _scores(listing, asked, done, run)
    by_split = Counter(Split(int(code)).name for code in listing.splits[done])
    return LogitsResult(
        path=Path(out),
        rows=len(done),
        by_split={name: by_split[name] for name in Split.__members__ if by_split[name]},
        columns=asked.written,
        scores=scores,
        problems=problems,
        notes=(
            *asked.opened.notes,
            *crops.notes,
            *([choice.note] if choice else []),
            *_left_out(listing, left),
            *seen,
            *wrong,
        ),
    )


@dataclass(frozen=True, slots=True)
class Run:
    """Every picture without its pixels, and the outputs of the readable ones, in order."""

    pictures: list[Picture]
    logits: np.ndarray
    va: np.ndarray


def _choose_scale(
    listing: Listing, network: UserNetwork, crops: Crops, config: LogitsConfig, *, progress: bool
) -> ScaleChoice:
    """:func:`choose_scale` with a progress bar."""
    with progress_bar(shown=progress) as bar:
        task = bar.add_task("crop scale", total=None, said="")
        return choose_scale(
            listing,
            network,
            crops,
            batch_size=config.batch_size,
            jobs=config.jobs,
            advance=lambda done, total: bar.update(task, total=total, advance=done),
        )


def _arrays(
    asked: UserNetwork, crops: Crops, choice: ScaleChoice | None, run: Run, ids: np.ndarray
) -> dict[str, np.ndarray]:
    """The file's arrays by key, without the features."""
    arrays = {"ids": ids}
    if asked.columns.logits:
        arrays |= {"logits": run.logits, "classes": np.array(asked.columns.classes)}
    if asked.columns.va:
        arrays |= {"va": run.va, "columns": np.array(("valence", "arousal"))}
    if asked.layer:
        arrays["feature_network"] = np.array(asked.feature_network(crops.identity))
    made_by = {**asked.identity, **crops.identity}
    if choice:
        made_by["crop_scale_choice"] = choice.record
    return arrays | {"made_by": np.array(json.dumps(made_by, sort_keys=True))}


def _choose(listing: Listing, splits: tuple[str, ...] | None) -> np.ndarray:
    """The rows to read, ascending."""
    if splits is None:
        return np.arange(len(listing))
    rows = np.flatnonzero(np.isin(listing.splits, [Split[name] for name in splits]))
    if not len(rows):
        raise DatasetError(
            f"{listing.dataset}: expected rows in {', '.join(splits)}, got none of {len(listing)}; choose other splits"
        )
    return rows


def _left_out(listing: Listing, rows: np.ndarray) -> list[str]:
    """What to say of rows that are not written because the network was trained with their images."""
    if not len(rows):
        return []
    notes = [f"{len(rows)} rows that the network was trained with are left out (--splits all writes them)"]
    elsewhere = listing.samples["id"].iloc[rows[listing.splits[rows] != Split.train]].tolist()
    if elsewhere:
        notes.append(
            f"{len(elsewhere)} of these are not in the train split but hold the very image of a row the network was "
            f"trained with ({some(elsewhere)})"
        )
    return notes


def _told(asked: UserNetwork, digests: np.ndarray, ids: np.ndarray) -> list[str]:
    """What to say of rows that are written though the network learnt from their images, or may have."""
    hashes, seen = hash_contents(digests), asked.seen
    if not len(seen.train):
        return [
            f"{asked.name} does not say what it was trained on: its outputs on those images are over-confident"
        ]
    fitted = np.isin(hashes, seen.train)
    selected = np.isin(hashes, np.union1d(seen.held_out, seen.validation)) & ~fitted
    notes = []
    if fitted.any():
        notes.append(
            f"{int(fitted.sum())} rows hold images the network was trained on ({some(ids[fitted].tolist())}): their "
            "outputs are over-confident, and no figure on them means anything"
        )
    if selected.any():
        notes.append(
            f"{int(selected.sum())} rows chose the network's best epoch: fit to calibrate a fusion with, slightly "
            "optimistic as a result"
        )
    return notes


def run_network(
    listing: Listing,
    asked: UserNetwork,
    rows: np.ndarray,
    config: LogitsConfig,
    crops: Crops,
    *,
    spool: FeatureSpool | None,
    progress: bool,
) -> Run:
    """Read and ask; without named splits, pictures that the network was trained with are not among them."""
    barred = np.empty(0, np.int64)
    if config.splits is None:
        barred = np.union1d(asked.seen.train, asked.seen.held_out)
    seen: list[Picture] = []
    logits = [np.empty((0, len(asked.columns.logits)), np.float32)]
    va = [np.empty((0, len(asked.columns.va)), np.float32)]
    with progress_bar(shown=progress) as bar:
        task = bar.add_task("logits", total=len(rows), said="")
        read = read_pictures(listing, rows, view=asked.input, boxes=crops.boxes, jobs=config.jobs)
        stream = _allowed(read, barred, advance=lambda: bar.advance(task))
        for batch in batched(stream, config.batch_size):
            pixels = [picture.pixels.transpose(2, 0, 1) for picture in batch if picture.pixels is not None]
            if pixels:
                images = torch.from_numpy(np.stack(pixels)).to(asked.device)
                said = asked(normalise(images, asked.input.mean, asked.input.std))
                if said.logits is not None:
                    logits.append(said.logits.cpu().numpy())
                if said.va is not None:
                    va.append(said.va.clamp(-1, 1).cpu().numpy())
                if said.features is not None and spool is not None:
                    spool.append(said.features.cpu().numpy())
            seen += [Picture(picture.row, None, picture.digest, picture.problem) for picture in batch]
    return Run(seen, np.concatenate(logits), np.concatenate(va))


def _allowed(
    pictures: Iterator[Picture], barred: np.ndarray, *, advance: Callable[[], object]
) -> Iterator[Picture]:
    """Pictures whose content is not barred, and those that have none to tell by: they could not be read."""
    contents = set(barred.tolist())
    for picture in pictures:
        advance()
        if picture.problem or int(hash_contents(picture.digest[None])[0]) not in contents:
            yield picture


def _scores(
    listing: Listing, asked: UserNetwork, rows: np.ndarray, run: Run
) -> tuple[dict[str, dict[str, float]], tuple[str, ...]]:
    """The network's scores per split where the rows have truth, and what looks wrong with the order of its classes."""
    splits = listing.splits[rows]
    scores: dict[str, dict[str, float]] = {}
    wrong: tuple[str, ...] = ()
    if asked.columns.logits:
        every, known = truth_of(listing, asked)
        truth, labelled = every[rows], known[rows]
        for name, code in Split.__members__.items():
            if (chosen := labelled & (splits == code)).any():
                scores[name] = class_scores(run.logits[chosen], truth[chosen])
        problem = class_order_problem(run.logits[labelled].argmax(1), truth[labelled], asked.columns.classes)
        wrong = (f"{asked.name}: {problem}; check --classes, or the dataset's labels",) if problem else ()
    if asked.columns.va:
        values = listing.samples[["valence", "arousal"]].to_numpy()[rows]
        labelled = np.isfinite(values).all(1)
        for name, code in Split.__members__.items():
            if (chosen := labelled & (splits == code)).any():
                scores[name] = scores.get(name, {}) | va_scores(run.va[chosen], values[chosen])
    return scores, wrong
