"""``ig3d logits``: what a trained 2D network says of a dataset's images, with the ids of the sample list.

The rows are those of the same list, in the same order, that ``ig3d extract`` writes to the store. A network is
over-confident on what it learnt from, so such rows are left out unless they are asked for by name. What it learnt
from is told by the content of the image, as the same photograph may come under another dataset and id.
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
from .checkpoint import LoadedNetwork, check_place, hash_contents, load_network
from .fit import class_scores, predict, va_scores
from .images import Picture, read_pictures
from .train import progress_bar


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
    rows = _choose(samples, config.splits)
    pictures, outputs = _run(samples, loaded, rows, config, device=device, progress=progress)
    good = [picture for picture in pictures if not picture.problem]
    problems = tuple(picture.problem for picture in pictures if picture.problem)
    left = np.setdiff1d(rows, [picture.row for picture in pictures])
    if not good and len(left):
        raise DatasetError(
            f"{samples.dataset}: expected readable images the network was not trained with, got none of "
            f"{len(rows)}; name splits to have them all the same"
        )
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
    notes = _left_out(samples, left) + _told(loaded, np.stack([picture.digest for picture in good]), ids)
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


def _choose(samples: SampleList, splits: tuple[str, ...] | None) -> np.ndarray:
    """The rows to read, ascending."""
    if splits is None:
        return np.arange(len(samples))
    rows = np.flatnonzero(np.isin(samples.splits, [Split[name] for name in splits]))
    if not len(rows):
        raise DatasetError(
            f"{samples.dataset}: expected rows in {', '.join(splits)}, got none of {len(samples)}; choose other splits"
        )
    return rows


def _left_out(samples: SampleList, rows: np.ndarray) -> list[str]:
    """What to say of rows that are not written because the network was trained with their images."""
    if not len(rows):
        return []
    notes = [f"{len(rows)} rows that the network was trained with are left out (--splits all writes them)"]
    elsewhere = [samples.samples[row].id for row in rows if samples.splits[row] != Split.train]
    if elsewhere:
        notes.append(
            f"{len(elsewhere)} of these are not in the train split but hold the very image of a row the network was "
            f"trained with ({some(elsewhere)})"
        )
    return notes


def _told(loaded: LoadedNetwork, digests: np.ndarray, ids: np.ndarray) -> list[str]:
    """What to say of rows that are written though the network learnt from their images."""
    hashes, seen = hash_contents(digests), loaded.seen
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


def _run(
    samples: SampleList,
    loaded: LoadedNetwork,
    rows: np.ndarray,
    config: LogitsConfig,
    *,
    device: torch.device,
    progress: bool,
) -> tuple[list[Picture], np.ndarray]:
    """Every picture without its pixels, and (m, k) float32 outputs of the readable ones, in order.

    Without named splits, pictures that the network was trained with are not among them.
    """
    info = loaded.info
    barred = np.empty(0, np.int64)
    if config.splits is None:
        barred = np.union1d(loaded.seen.train, loaded.seen.held_out)
    module = loaded.module.to(device).to(memory_format=torch.channels_last)
    seen: list[Picture] = []
    outputs = [np.empty((0, len(info.columns)), np.float32)]
    with progress_bar(shown=progress) as bar:
        task = bar.add_task("logits", total=len(rows), said="")
        read = read_pictures(samples, rows, size=info.size, jobs=config.jobs)
        stream = _allowed(read, barred, advance=lambda: bar.advance(task))
        for batch in _batched(stream, config.batch_size):
            pixels = [picture.pixels.transpose(2, 0, 1) for picture in batch if picture.pixels is not None]
            if pixels:
                tensor = torch.from_numpy(np.stack(pixels))
                outputs.append(predict(module, tensor, mean=info.mean, std=info.std, device=device))
            seen += [Picture(picture.row, None, picture.digest, picture.problem) for picture in batch]
    return seen, np.concatenate(outputs)


def _allowed(
    pictures: Iterator[Picture], barred: np.ndarray, *, advance: Callable[[], object]
) -> Iterator[Picture]:
    """Pictures whose content is not barred, and those that have none to tell by: they could not be read."""
    contents = set(barred.tolist())
    for picture in pictures:
        advance()
        if picture.problem or int(hash_contents(picture.digest[None])[0]) not in contents:
            yield picture


def _batched(pictures: Iterator[Picture], size: int) -> Iterator[list[Picture]]:
    batch: list[Picture] = []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


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
