"""``ig3d logits``: run a 2D network on a dataset and write its outputs with ids.

Rows have the order of the sample list, as in the store of ``ig3d extract``. A network is over-confident on its training
images. A checkpoint of ``ig3d train-2d`` records them, and they are left out unless their split is selected. They are
recognised by content, because the same photograph can occur in another dataset under another id.
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
from ..errors import DatasetError, listed, none_of, plural
from ..extract.runtime import exact_arithmetic
from ..features.classes import OPTIONAL
from ..features.content import hash_contents
from ..features.device import choose_device
from ..features.order import class_order_problem
from ..features.predictions import class_difference
from ..features.samples import Listing, Split
from .checkpoint import LoadedNetwork, check_place
from .crop import Crops, choose_crops
from .crop_scale import ScaleChoice, choose_scale, truth_of
from .fit import scores_of
from .images import Picture, batched, normalise, read_pictures
from .load import UserNetwork, load_network
from .load.values import input_warnings
from .options import AUTO, LogitsConfig, NetworkSpec
from .written import FeatureSpool, write_npz


@dataclass(frozen=True, slots=True)
class LogitsResult:
    """Summary of the file that was written.

    Attributes
    ----------
    path : Path
    rows : int
        Rows in the file.
    by_split : dict
        Split name -> rows in the file.
    columns : tuple of str
        Outputs in the file: class names, ``valence``, ``arousal``, ``features``.
    scores : dict
        Split name -> scores of the network on its labelled rows: accuracy, balanced_accuracy, macro_f1, and
        ccc_valence, ccc_arousal, rmse_joint.
    problems : tuple of str
        ``id: reason`` for each unreadable image, which has no row.
    notes : tuple of str
        Notes for the user, one line each.
    """

    path: Path
    rows: int
    by_split: dict[str, int]
    columns: tuple[str, ...] = ()
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def write_logits(
    listing: Listing,
    network: NetworkSpec | LoadedNetwork | str | Path,
    out: str | Path,
    config: LogitsConfig | None = None,
    *,
    progress: bool = False,
    notify: Callable[[str], object] | None = None,
) -> LogitsResult:
    """Run a network on a dataset and write its outputs by id to an ``.npz`` (keys: docs/networks.md).

    Parameters
    ----------
    listing : Listing
        From :func:`ig3d.extract.datasets.list_samples`, as for the extraction.
    network : NetworkSpec, path of a network that needs no options, or a loaded checkpoint
    out : path of the ``.npz``; an existing file is replaced
    config : LogitsConfig, optional
    progress : bool
        Show a progress bar on stderr.
    notify : callable, optional
        Called before the network runs with a warning if it was trained with another input; without ``notify``, the
        warning is one of the notes.

    Raises
    ------
    ModelError : the network is missing, damaged or unusable, or its outputs are not finite.
    DatasetError : no row remains, or none can be read.
    UsageError : options do not fit the network, a split or device does not exist, or the path cannot be written.
    MissingExtra : a package is missing, such as onnxruntime for ONNX files.

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
    with exact_arithmetic(), ExitStack() as stack:
        loaded = load_network(spec, device=device, dataset_classes=listing.classes)
        early = _input_warnings(loaded, crops, config)
        if notify is not None:
            for warning in early:
                notify(warning)
            early = []
        choice = None
        if config.crop_scale == AUTO:
            choice = _choose_scale(listing, loaded, crops, config, progress=progress)
            crops = crops.scaled(choice.scale)
        spool = None
        if loaded.layer:
            dtype: np.dtype[np.floating[Any]] = np.dtype(np.float16 if loaded.maps else np.float32)
            spool = stack.enter_context(FeatureSpool(dtype, Path(out).parent))
        run = run_network(listing, loaded, rows, config, crops, spool=spool, progress=progress)
        good = [picture for picture in run.pictures if not picture.problem]
        problems = tuple(picture.problem for picture in run.pictures if picture.problem)
        left_out = np.setdiff1d(rows, [picture.row for picture in run.pictures])
        if not good and len(left_out):
            raise DatasetError(
                f"{listing.dataset}: the network was trained on all readable images of {len(rows)}; pass --splits to "
                "write them anyway"
            )
        if not good:
            raise DatasetError(
                f"{listing.dataset}: no image of {plural(len(rows), 'row')} can be read ({listed(list(problems), 3)})"
            )
        done = np.array([picture.row for picture in good])
        ids = listing.samples["id"].to_numpy(dtype="U")[done]
        contents = hash_contents(np.stack([picture.digest for picture in good]))
        trained = int(np.isin(contents, loaded.seen.train).sum())
        write_npz(out, _arrays(loaded, crops, choice, run, ids, trained), features=spool)
    training = _training_notes(loaded, contents, ids)
    scores, warnings = _scores(listing, loaded, done, run)
    by_split = Counter(Split(int(code)).name for code in listing.splits[done])
    return LogitsResult(
        path=Path(out),
        rows=len(done),
        by_split={name: by_split[name] for name in Split.__members__ if by_split[name]},
        columns=loaded.written,
        scores=scores,
        problems=problems,
        notes=(
            *loaded.opened.notes,
            *crops.notes,
            *early,
            *([choice.note] if choice else []),
            *_left_out_notes(listing, left_out),
            *_class_notes(listing, loaded, done),
            *training,
            *warnings,
        ),
    )


@dataclass(frozen=True, slots=True)
class Run:
    """All images without their pixels, and the outputs of the readable ones, in order."""

    pictures: list[Picture]
    logits: np.ndarray
    va: np.ndarray


def _choose_scale(
    listing: Listing, network: UserNetwork, crops: Crops, config: LogitsConfig, *, progress: bool
) -> ScaleChoice:
    """:func:`choose_scale` with a progress bar."""
    with progress_bar(shown=progress) as bar:
        task = bar.add_task("crop scale", total=None, detail="")
        return choose_scale(
            listing,
            network,
            crops,
            batch_size=config.batch_size,
            jobs=config.jobs,
            advance=lambda done, total: bar.update(task, total=total, advance=done),
        )


def _arrays(
    network: UserNetwork, crops: Crops, choice: ScaleChoice | None, run: Run, ids: np.ndarray, trained: int
) -> dict[str, np.ndarray]:
    """Arrays of the file by key, without the features; ``trained`` rows have training images of the network."""
    arrays = {"ids": ids}
    if network.columns.logits:
        arrays |= {"logits": run.logits, "classes": np.array(network.columns.classes)}
    if network.columns.va:
        arrays |= {"va": run.va, "columns": np.array(("valence", "arousal"))}
    if network.layer:
        arrays["feature_network"] = np.array(network.feature_network(crops.identity))
    made_by = {**network.identity, **crops.identity}
    if trained:
        made_by["training_rows"] = trained
    if choice:
        made_by["crop_scale_choice"] = choice.record
    return arrays | {"made_by": np.array(json.dumps(made_by, sort_keys=True))}


def _choose(listing: Listing, splits: tuple[str, ...] | None) -> np.ndarray:
    """Rows to read, ascending."""
    if splits is None:
        return np.arange(len(listing))
    rows = np.flatnonzero(np.isin(listing.splits, [Split[name] for name in splits]))
    if not len(rows):
        raise DatasetError(
            f"{listing.dataset}: {none_of(len(listing), 'row', 'is')} in {', '.join(splits)}; choose other splits"
        )
    return rows


def _input_warnings(network: UserNetwork, crops: Crops, config: LogitsConfig) -> list[str]:
    """Warning if the network was trained with another input; a scale chosen by its loss is no reason for it."""
    crop = {key: value for key, value in crops.identity.items() if config.crop_scale != AUTO or key == "crop"}
    return input_warnings(network.name, network.opened.trained_with, network.input, crop)


def _left_out_notes(listing: Listing, rows: np.ndarray) -> list[str]:
    """Notes on rows that are left out because the network was trained on their images."""
    if not len(rows):
        return []
    notes = [
        f"{plural(len(rows), 'row')} left out: the network was trained, or its epoch was chosen, on their images "
        "(--splits all writes them)"
    ]
    not_in_train = listing.samples["id"].iloc[rows[listing.splits[rows] != Split.train]].tolist()
    if not_in_train:
        notes.append(
            f"{len(not_in_train)} of these in other splits than train, as copies of training images "
            f"({listed(not_in_train)})"
        )
    return notes


def _class_notes(listing: Listing, network: UserNetwork, rows: np.ndarray) -> list[str]:
    """Notes on classes that only the network or only the dataset has."""
    names = network.columns.classes
    if not names or not listing.classes:
        return []
    notes = []
    classes = [name for name in listing.classes if name in names or name != OPTIONAL]
    if difference := class_difference(names, classes, (OPTIONAL,), numbers=network.columns.logits):
        notes.append(f"ig3d fuse refuses these predictions: {network.name} {difference}")
    counts = Counter(listing.classes[label] for label in listing.labels[rows] if label >= 0)
    without = {name: count for name, count in counts.items() if name not in names}
    if without:
        per_class = ", ".join(f"{name} {count}" for name, count in without.items())
        notes.append(
            f"{sum(without.values())} of {plural(counts.total(), 'labelled row')} not scored: no column is of their "
            f"class ({per_class})"
        )
    return notes


def _training_notes(network: UserNetwork, hashes: np.ndarray, ids: np.ndarray) -> list[str]:
    """Notes on written rows on whose images the network was trained, or may have been trained."""
    seen = network.seen
    if not len(seen.train):
        return [
            f"{network.name} does not record its training images; on these its outputs are over-confident"
        ]
    fitted = np.isin(hashes, seen.train)
    selected = np.isin(hashes, np.union1d(seen.held_out, seen.validation)) & ~fitted
    notes = []
    if fitted.any():
        notes.append(
            f"{plural(int(fitted.sum()), 'row')} with training images of the network ({listed(ids[fitted].tolist())}): "
            "their outputs are over-confident, and figures on them are not valid"
        )
    if selected.any():
        notes.append(
            f"{plural(int(selected.sum()), 'row')} by which the network's epoch was chosen: usable to fit a fusion, "
            "but slightly optimistic as reported rows"
        )
    return notes


def run_network(
    listing: Listing,
    network: UserNetwork,
    rows: np.ndarray,
    config: LogitsConfig,
    crops: Crops,
    *,
    spool: FeatureSpool | None,
    progress: bool,
) -> Run:
    """Read images and run the network; without ``config.splits``, its training images are left out."""
    excluded = np.empty(0, np.int64)
    if config.splits is None:
        excluded = np.union1d(network.seen.train, network.seen.held_out)
    done: list[Picture] = []
    logits = [np.empty((0, len(network.columns.logits)), np.float32)]
    va = [np.empty((0, len(network.columns.va)), np.float32)]
    with progress_bar(shown=progress) as bar:
        task = bar.add_task("logits", total=len(rows), detail="")
        read = read_pictures(listing, rows, view=network.input, boxes=crops.boxes, jobs=config.jobs)
        stream = _without_contents(read, excluded, advance=lambda: bar.advance(task))
        for batch in batched(stream, config.batch_size):
            pixels = [picture.pixels.transpose(2, 0, 1) for picture in batch if picture.pixels is not None]
            if pixels:
                images = torch.from_numpy(np.stack(pixels)).to(network.device)
                outputs = network(normalise(images, network.input.mean, network.input.std))
                if outputs.logits is not None:
                    logits.append(outputs.logits.cpu().numpy())
                if outputs.va is not None:
                    va.append(outputs.va.clamp(-1, 1).cpu().numpy())
                if outputs.features is not None and spool is not None:
                    spool.append(outputs.features.cpu().numpy())
            done += [Picture(picture.row, None, picture.digest, picture.problem) for picture in batch]
    return Run(done, np.concatenate(logits), np.concatenate(va))


def _without_contents(
    pictures: Iterator[Picture], excluded: np.ndarray, *, advance: Callable[[], object]
) -> Iterator[Picture]:
    """Images whose content is not excluded, and unreadable images."""
    contents = set(excluded.tolist())
    for picture in pictures:
        advance()
        if picture.problem or int(hash_contents(picture.digest[None])[0]) not in contents:
            yield picture


def _scores(
    listing: Listing, network: UserNetwork, rows: np.ndarray, run: Run
) -> tuple[dict[str, dict[str, float]], tuple[str, ...]]:
    """Scores of the network by split, on labelled rows, and a warning if the order of its classes looks wrong."""
    splits = listing.splits[rows]
    scores: dict[str, dict[str, float]] = {}
    warnings: tuple[str, ...] = ()
    if network.columns.logits:
        truth, labelled = truth_of(listing, network)
        truth, labelled = truth[rows], labelled[rows]
        for name, code in Split.__members__.items():
            if (chosen := labelled & (splits == code)).any():
                scores[name] = scores_of(run.logits[chosen], truth[chosen])
        problem = class_order_problem(
            run.logits[labelled].argmax(1), truth[labelled], network.columns.classes
        )
        if problem:
            warnings = (f"{network.name}: {problem}; check --classes, or the dataset's labels",)
    if network.columns.va:
        values = listing.samples[["valence", "arousal"]].to_numpy()[rows]
        labelled = np.isfinite(values).all(1)
        for name, code in Split.__members__.items():
            if (chosen := labelled & (splits == code)).any():
                scores[name] = scores.get(name, {}) | scores_of(run.va[chosen], values[chosen])
    return scores, warnings
