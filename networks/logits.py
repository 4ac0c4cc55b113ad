"""``ig3d logits``: what a trained 2D network says of a dataset's images, with the ids of the sample list.

The rows are those of the same list, in the same order, that ``ig3d extract`` writes to the store. A network is
over-confident on what it learnt from, so such rows are left out unless they are asked for by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ..errors import DatasetError, ModelError, UsageError, some
from ..extract.device import choose_device
from ..features.predictions import Predictions
from ..features.values import SampleList, Split
from .checkpoint import LoadedNetwork, check_place, hash_contents, hash_rows, load_network
from .fit import class_scores, predict, va_scores
from .images import Picture, read_pictures
from .train import progress_bar


@dataclass(frozen=True, slots=True)
class LogitsConfig:
    """Choices of a run.

    Attributes
    ----------
    splits : tuple of str, or None
        Names of splits (``train``, ``val``, ``test``, ``none``); None is every row that the network was neither
        fitted on nor, out of the train split, validated on.
    batch_size : int
        Changes no number beyond rounding (1e-5).
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:0``.
    jobs : int or None
        Reading threads; None is one for each core. Changes no number.
    """

    splits: tuple[str, ...] | None = None
    batch_size: int = 64
    device: str = "auto"
    jobs: int | None = None

    def __post_init__(self) -> None:
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
    scores : dict
        Split name -> the network's scores on the labelled rows of it: accuracy, balanced_accuracy, macro_f1; or
        ccc_valence, ccc_arousal, rmse.
    problems : tuple of str
        ``id: reason`` of each image that could not be read; it has no row.
    notes : tuple of str
        What the user should know, one line each.
    """

    path: Path
    rows: int
    by_split: dict[str, int]
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


def write_logits(
    samples: SampleList,
    network: LoadedNetwork | str | Path,
    out: str | Path,
    config: LogitsConfig | None = None,
    *,
    progress: bool = False,
) -> LogitsResult:
    """Run a network over a dataset and write ``ids``, ``logits`` and ``classes`` (or ``va``) to an ``.npz``.

    Parameters
    ----------
    samples : SampleList
        From :func:`ig3d.extract.datasets.list_samples`, as for the extraction.
    network : LoadedNetwork, or the path of a checkpoint
    out : path of the ``.npz``, replaced when it is there
    config : LogitsConfig, optional
    progress : bool
        Show a bar on stderr.

    Raises
    ------
    ModelError : the checkpoint is missing, damaged or not one of ig3d's, or gives numbers that are not finite.
    DatasetError : no row is left, or none can be read.
    UsageError : no such split or device; the file's name does not end in .npz.

    Notes
    -----
    Valence and arousal are clipped to [-1, 1].
    """
    config = config or LogitsConfig()
    check_place(out, suffix=".npz")
    device = choose_device(config.device)
    loaded = network if isinstance(network, LoadedNetwork) else load_network(network)
    rows, notes = _choose(samples, loaded, config.splits)
    pictures, outputs = _run(samples, loaded, rows, config, device=device, progress=progress)
    good = [picture for picture in pictures if not picture.problem]
    problems = tuple(picture.problem for picture in pictures if picture.problem)
    if not good:
        raise DatasetError(
            f"{samples.dataset}: expected readable images, got none of {len(rows)} ({some(list(problems), 3)})"
        )
    if not np.isfinite(outputs).all():
        raise ModelError(
            f"{loaded.source}: expected finite outputs, got others; the network is unusable: train again"
        )
    info = loaded.info
    if info.task == "va":
        outputs = np.clip(outputs, -1, 1)
    done = np.array([picture.row for picture in good])
    ids = np.array([samples.samples[row].id for row in done])
    kind = "logits" if info.task == "classes" else "va"
    Predictions(outputs, kind, columns=info.columns, ids=ids, source=str(out)).save(out)
    notes += _leaks(samples, loaded, done, np.stack([picture.digest for picture in good]))
    splits = samples.splits[done]
    by_split = Counter(Split(int(code)).name for code in splits)
    return LogitsResult(
        path=Path(out),
        rows=len(done),
        by_split={name: by_split[name] for name in Split.__members__ if by_split[name]},
        scores=_scores(samples, loaded, done, outputs),
        problems=problems,
        notes=tuple(notes),
    )


def _choose(
    samples: SampleList, loaded: LoadedNetwork, splits: tuple[str, ...] | None
) -> tuple[np.ndarray, list[str]]:
    """The rows to run, ascending, and what to say about the choice."""
    hashes = hash_rows(samples.dataset, (sample.id for sample in samples.samples))
    fitted = np.isin(hashes, loaded.seen.train)
    selected = np.isin(hashes, loaded.seen.validation)
    in_train = samples.splits == Split.train
    if splits is None:
        wanted = ~fitted & ~(selected & in_train)
        left = int((~wanted).sum())
        notes = (
            [f"{left} rows that the network was trained with are left out (--splits all writes them)"]
            if left
            else []
        )
    else:
        wanted = np.isin(samples.splits, [Split[name] for name in splits])
        notes = []
    if not wanted.any():
        asked = "rows the network was not trained on" if splits is None else f"rows in {', '.join(splits)}"
        raise DatasetError(
            f"{samples.dataset}: expected {asked}, got none of {len(samples)}; choose other splits"
        )
    if (count := int((fitted & wanted).sum())) > 0:
        notes.append(
            f"{count} rows are those the network was trained on: their outputs are over-confident, and no figure on "
            "them means anything"
        )
    if (count := int((selected & wanted).sum())) > 0:
        notes.append(
            f"{count} rows chose the network's best epoch: fit to calibrate a fusion with, slightly optimistic as a "
            "result"
        )
    return np.flatnonzero(wanted), notes


def _run(
    samples: SampleList,
    loaded: LoadedNetwork,
    rows: np.ndarray,
    config: LogitsConfig,
    *,
    device: torch.device,
    progress: bool,
) -> tuple[list[Picture], np.ndarray]:
    """Every picture without its pixels, and (m, k) float32 outputs of the readable ones, in order."""
    info = loaded.info
    module = loaded.module.to(device).to(memory_format=torch.channels_last)
    seen: list[Picture] = []
    outputs = [np.empty((0, len(info.columns)), np.float32)]
    with progress_bar(shown=progress) as bar:
        task = bar.add_task("logits", total=len(rows), said="")
        stream = read_pictures(samples, rows, size=info.size, jobs=config.jobs)
        for batch in _batched(stream, config.batch_size):
            pixels = [picture.pixels.transpose(2, 0, 1) for picture in batch if picture.pixels is not None]
            if pixels:
                tensor = torch.from_numpy(np.stack(pixels))
                outputs.append(predict(module, tensor, mean=info.mean, std=info.std, device=device))
            seen += [Picture(picture.row, None, picture.digest, picture.problem) for picture in batch]
            bar.advance(task, len(batch))
    return seen, np.concatenate(outputs)


def _batched(pictures: Iterator[Picture], size: int) -> Iterator[list[Picture]]:
    batch: list[Picture] = []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _leaks(samples: SampleList, loaded: LoadedNetwork, rows: np.ndarray, digests: np.ndarray) -> list[str]:
    """Rows whose very file the network learnt from under another id: duplicates across splits."""
    hashes = hash_rows(samples.dataset, (samples.samples[row].id for row in rows))
    known = np.isin(hashes, loaded.seen.train) | np.isin(hashes, loaded.seen.validation)
    same = np.flatnonzero(np.isin(hash_contents(digests), loaded.seen.contents) & ~known)
    if not len(same):
        return []
    names = [samples.samples[rows[index]].id for index in same]
    return [f"{len(same)} rows hold the very image of a row the network was trained with ({some(names)})"]


def _scores(
    samples: SampleList, loaded: LoadedNetwork, rows: np.ndarray, outputs: np.ndarray
) -> dict[str, dict[str, float]]:
    """The network's scores per split, where the rows have truth and its classes are among the dataset's."""
    splits = samples.splits[rows]
    measure: Callable[[np.ndarray, np.ndarray], dict[str, float]]
    if loaded.info.task == "va":
        measure = va_scores
        truth = np.array([(samples.samples[row].valence, samples.samples[row].arousal) for row in rows])
        labelled = np.isfinite(truth).all(1)
    else:
        measure = class_scores
        column = {name: index for index, name in enumerate(loaded.info.columns)}
        # labels the network does not know have no column and are left out, as are rows without a label
        translated = np.array([*(column.get(name, -1) for name in samples.classes), -1])
        truth = translated[samples.labels[rows]]
        labelled = truth >= 0
    return {
        name: measure(outputs[chosen], truth[chosen])
        for name, code in Split.__members__.items()
        if (chosen := labelled & (splits == code)).any()
    }
