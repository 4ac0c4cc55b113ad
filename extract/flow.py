"""The flow, on one shard: read → detect → crop → regress → write. Nothing else loops over images.

:mod:`ig3d.extract.run` cuts a run into shards and spreads them; a worker runs :func:`run_shard` on one at a time.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from ..errors import Ig3dError
from ..features.store import StoreInfo
from ..features.store_writer import StoreWriter
from ..features.values import CropSpec, Face, FaceBatch, LandmarkSpec, Rows, Sample, Status
from .boxes import Known, in_box, needs_search, surroundings
from .config import ExtractConfig, build
from .crop import prepare
from .detectors import Detector, choose_face
from .read import Image, Unreadable, bounded_images, read_image
from .regressors import Regressor

T = TypeVar("T")
R = TypeVar("R")


def run_shard(
    path: Path,
    samples: tuple[Sample, ...],
    known: tuple[Known | None, ...],
    root: str,
    config: ExtractConfig,
    info: StoreInfo,
) -> Counter[str]:
    """Run the flow over one shard and put it under its final name; returns its rows by status."""
    regress, detect = build(config)  # first, so that the libraries whose threads are limited are there
    with threadpool_limits(1), _one_torch_thread(), bounded_images():
        blocks = dict(regress.blocks)
        counts: Counter[str] = Counter()
        with StoreWriter(path, info, samples, blocks) as writer:
            for start in range(0, len(samples), config.batch_size):
                rows = flow(
                    samples[start : start + config.batch_size],
                    root,
                    detect,
                    regress,
                    whole=detect.name == "none",
                    known=known[start : start + config.batch_size],
                )
                writer.write(start, rows)
                counts += Counter(by_status(rows.status))
    return counts


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """One thread for torch, where a plug-in uses it; torch sets its own number, past what threadpoolctl limits."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def flow(
    samples: Sequence[Sample],
    root: str | Path,
    detect: Detector,
    regress: Regressor,
    *,
    whole: bool = False,
    known: Sequence[Known | None] = (),
) -> Rows:
    """read → detect → crop → regress on one batch: one row per sample, always.

    Parameters
    ----------
    samples : n samples
    root : folder of the dataset, or its address
    detect, regress : the plug-ins
    whole : bool
        The face is the whole image, resized.
    known : what is known of each sample's face, or nothing

    Returns
    -------
    Rows of length n; NaN codes where the status is not ok.
    """
    rows = Rows.pending(len(samples), dict(regress.blocks))
    images = _read(samples, root, rows)
    found = _found(images, known or [None] * len(samples), detect, regress.needs, rows)
    here = sorted(found)
    for row in here:
        rows.xyxy[row], rows.score[row] = found[row].xyxy, found[row].score

    def codes_of(chosen: Sequence[int]) -> list[tuple[FaceBatch, dict[str, np.ndarray]]]:
        batch = prepare(
            [images[row].pixels for row in chosen], [found[row] for row in chosen], regress.needs, whole=whole
        )
        codes = regress(batch)
        return [
            (batch[i : i + 1], {name: codes[name][i] for name in regress.blocks}) for i in range(len(chosen))
        ]

    results = _together_or_one_by_one(codes_of, here)
    for row, result in zip(here, results, strict=True):
        if isinstance(result, Exception):
            _end(rows, row, Status.failed, f"{type(result).__name__}: {result}")
            continue
        face, codes = result
        rows.transform[row] = face.transforms[0]
        bad = [name for name, values in codes.items() if not np.isfinite(values).all()]
        if bad:
            _end(rows, row, Status.failed, f"not finite: {', '.join(bad)}")
            continue
        rows.status[row] = Status.ok
        for name, values in codes.items():
            rows.codes[name][row] = values
    return rows


def _read(samples: Sequence[Sample], root: str | Path, rows: Rows) -> dict[int, Image]:
    """Row -> image; rows that cannot be read end here."""
    images = {}
    for row, sample in enumerate(samples):
        try:
            image = read_image(f"{root}/{sample.path}")
        except FileNotFoundError as exc:
            _end(rows, row, Status.missing, str(exc))
        except Unreadable as exc:
            _end(rows, row, Status.unreadable, str(exc))
        else:
            images[row] = image
            rows.digest[row] = image.digest
            rows.size_wh[row] = image.pixels.shape[1], image.pixels.shape[0]
    return images


def _found(
    images: dict[int, Image],
    known: Sequence[Known | None],
    detect: Detector,
    needs: CropSpec | LandmarkSpec,
    rows: Rows,
) -> dict[int, Face]:
    """Row -> the chosen face; rows without one end here."""
    chosen = _chosen_before(images, known, needs, rows)
    here = [row for row in images if row not in chosen and not rows.status[row]]
    shown = {row: surroundings(images[row].pixels, known[row]) for row in here}

    def faces_in(some: Sequence[int]) -> list[list[Face]]:
        return detect([shown[row][0] for row in some])

    results = _together_or_one_by_one(faces_in, here)
    for row, faces in zip(here, results, strict=True):
        if isinstance(faces, Exception):
            _end(rows, row, Status.failed, f"{type(faces).__name__}: {faces}")
        elif (given := known[row]) is not None:
            if (face := in_box(faces, given, shown[row][1])) is None:
                _end(rows, row, Status.no_face, "no face found around the box")
            else:
                rows.count[row] = given.count
                chosen[row] = face
        elif not faces:
            _end(rows, row, Status.no_face, "no face found")
        else:
            rows.count[row] = len(faces)
            chosen[row] = choose_face(faces)
    return chosen


def _chosen_before(
    images: dict[int, Image],
    known: Sequence[Known | None],
    needs: CropSpec | LandmarkSpec,
    rows: Rows,
) -> dict[int, Face]:
    """Row -> the face that is known; rows known to have none, or known from another file, end here."""
    chosen = {}
    for row, image in images.items():
        given = known[row]
        if given is None:
            continue
        if given.other_file(image.digest):
            _end(rows, row, Status.failed, "the file is not the one in which its box was found")
        elif given.face is None:
            _end(rows, row, given.status, given.message)
        elif not needs_search(given, needs):
            rows.count[row] = given.count
            chosen[row] = given.face
    return chosen


def _together_or_one_by_one(
    call: Callable[[Sequence[T]], list[R]], items: Sequence[T]
) -> list[R | Exception]:
    """``call`` over the batch; where that raises, over each item, so that one bad sample fails alone."""
    if not items:
        return []
    try:
        return list(call(items))
    except Ig3dError:
        raise  # a wrong setting, not a bad sample
    except Exception as exc:
        if len(items) == 1:
            return [exc]
        return [result for item in items for result in _together_or_one_by_one(call, [item])]


def _end(rows: Rows, row: int, status: Status, message: str) -> None:
    rows.status[row] = status
    rows.message[row] = " ".join(message.split())


def by_status(status: np.ndarray) -> dict[str, int]:
    """Rows by the name of their status."""
    values, counts = np.unique(status, return_counts=True)
    return {Status(int(value)).name: int(count) for value, count in zip(values, counts, strict=True)}
