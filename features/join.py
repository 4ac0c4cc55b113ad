"""Which sample does each row of a predictions file belong to? Joined by id or refused, never by luck.

Files (:mod:`.predictions`) and samples (:mod:`.labels`) come in, a :class:`~.table.FusionTable` goes out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import PredictionsError, StoreError, UsageError, some
from .blocks import choose_blocks, column_names
from .classes import parse_classes, preset_of
from .inputs import Inputs
from .labels import SampleColumns, number_labels, of_file, of_store
from .order import class_order_problem, row_order_problem, va_row_problem, va_swap_problem
from .predictions import VA, Predictions, in_va_range, load_predictions
from .quality import QUALITY_COLUMNS, face_quality
from .store import CodeStore
from .table import BlockUse, FusionTable
from .values import Split

_DEEPEST = 12
_GIVE_IDS, _SAY_ORDER = "give the ids with --2d-ids", "say the order with --2d-classes"
_INSIDE = {_GIVE_IDS: "save its ids with it", _SAY_ORDER: "name its columns in that order"}


def _clean(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def _stemmed(name: str) -> str:
    """A path without its extension; ``face.2#1`` has none."""
    path = PurePosixPath(_clean(name))
    return str(path.with_suffix("")) if path.suffix and "#" not in path.suffix else str(path)


def _tail(name: str, drop: int) -> str:
    return "/".join(_clean(name).strip("/").split("/")[drop:])


# How ids may match, strictest first: what is compared of the file's ids and of the samples (their path or id).
_LEVELS: tuple[tuple[str, Callable[[str], str], str, Callable[[str], str]], ...] = (
    ("id", lambda name: name, "id", lambda name: name),
    ("path", _clean, "path", _clean),
    ("path without extension", _stemmed, "id", _stemmed),
    (
        "file name",
        lambda name: PurePosixPath(_clean(name)).name,
        "path",
        lambda name: PurePosixPath(name).name,
    ),
    (
        "stem",
        lambda name: PurePosixPath(_stemmed(name)).name,
        "id",
        lambda name: PurePosixPath(_stemmed(name)).name,
    ),
)


def _find(keys: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row in ``among`` of each key, -1 where there is none or several; and whether there are several."""
    order = np.argsort(among, kind="stable")
    first = np.searchsorted(among, keys, side="left", sorter=order)
    count = np.searchsorted(among, keys, side="right", sorter=order) - first
    rows = np.where(count == 1, order[np.minimum(first, len(order) - 1)], -1)
    return rows, count > 1


def match_ids(
    ids: np.ndarray, samples: SampleColumns, *, source: str, allow_missing: bool = False
) -> tuple[np.ndarray, str]:
    """Row of the samples for each id of a file, and in words how they matched.

    Exact ids first, else paths (also with the file's leading folders dropped), file names, stems; a level counts
    only when every id of the file finds exactly one sample by it, and no two the same one.

    Parameters
    ----------
    ids : (m,) str
    samples : n samples
    source : str
        The file, for messages.
    allow_missing : bool
        Rows of the file whose exact id or path no sample has are left out (-1) instead of refused.

    Raises
    ------
    PredictionsError : ids that no sample has, or that several have; with counts and the first of them.
    """
    best_rows, best_how, clash = np.full(len(ids), -1), "", np.zeros(len(ids), bool)
    for how, of_id, column, of_sample in _levels(ids):
        keys = np.array([of_id(name) for name in ids.tolist()], dtype=str)
        among = np.array([of_sample(name) for name in getattr(samples, column).tolist()], dtype=str)
        rows, several = _find(keys, among)
        found = rows[rows >= 0]
        if len(np.unique(found)) != len(found):
            continue
        if len(found) == len(ids):
            return rows, f"{source}: {len(ids)} rows joined to {samples.source} by {how}"
        if len(found) > np.sum(best_rows >= 0):
            best_rows, best_how = rows, how
        clash |= several
    left = np.flatnonzero(best_rows < 0)
    if allow_missing and best_how in ("id", "path", "path without extension"):
        return best_rows, (
            f"{source}: {len(ids) - len(left)} rows joined to {samples.source} by {best_how}; "
            f"{len(left)} rows left out, no sample has their id"
        )
    by = f" by {best_how}" if best_how else ""
    several_words = f"; {int(clash.sum())} ids fit several samples by file name" if clash.any() else ""
    raise PredictionsError(
        f"{source}: expected every id to be one of the {len(samples)} samples of {samples.source} "
        f"({some(samples.id.tolist(), 2)}), got {len(left)} of {len(ids)} that are not{by} "
        f"({some(ids[left].tolist(), 3)}){several_words}"
    )


def _levels(ids: np.ndarray) -> list[tuple[str, Callable[[str], str], str, Callable[[str], str]]]:
    """The levels of matching, with one more for every leading folder that all ids of the file could lose."""
    depth = min((_clean(name).strip("/").count("/") for name in ids.tolist()), default=0)
    dropped = [
        (
            f"path less {drop or 'no'} leading folders",
            lambda name, drop=drop: _tail(_stemmed(name), drop),
            "path",
            _stemmed,
        )
        for drop in range(min(depth, _DEEPEST))
    ]
    return [*_LEVELS[:3], *dropped, *_LEVELS[3:]]


def match_order(n: int, samples: SampleColumns, *, source: str) -> tuple[np.ndarray, str]:
    """Rows of the samples, in their order, that a file of ``n`` rows without ids can only be.

    Raises
    ------
    PredictionsError : no split and not the whole fits in length, or several do.
    """
    lengths = {"all samples": np.arange(len(samples))}
    for split in Split:
        rows = np.flatnonzero(samples.split == split)
        if split is not Split.none and 0 < len(rows) < len(samples):
            lengths[f"the {split.name} split"] = rows
    fitting = [name for name, rows in lengths.items() if len(rows) == n]
    said = ", ".join(f"{name} {len(rows)}" for name, rows in lengths.items())
    if len(fitting) != 1:
        got = "which fits none" if not fitting else f"which fits {' and '.join(fitting)}"
        raise PredictionsError(
            f"{source}: expected ids, or as many rows as one part of {samples.source} ({said}), got {n} rows, {got}; "
            "give the ids with --2d-ids"
        )
    return lengths[fitting[0]], (
        f"{source}: has no ids; its {n} rows were taken as {fitting[0]} of {samples.source} in order of their ids "
        "(assumed)"
    )


def align_columns(predictions: Predictions, classes: Sequence[str]) -> tuple[np.ndarray, str]:
    """Scores (n, k) with columns in the order of ``classes``, and in words how they were taken.

    Raises
    ------
    PredictionsError : another number of classes, or other classes.
    """
    scores, names = predictions.scores(), predictions.columns
    source = predictions.source
    if scores.shape[1] != len(classes):
        raise PredictionsError(
            f"{source}: expected {len(classes)} classes ({', '.join(classes)}), got {scores.shape[1]} columns"
            + (f" ({', '.join(names)})" if names else "")
            + "; use predictions of the same classes"
        )
    if not names:
        preset = preset_of(tuple(classes))
        order = f"{', '.join(classes)}" + (f" (preset {preset})" if preset else "")
        return scores, f"{source}: classes assumed in the order {order}; say otherwise with --2d-classes"
    if set(names) != set(classes):
        odd = [name for name in names if name not in classes]
        lacking = [name for name in classes if name not in names]
        raise PredictionsError(
            f"{source}: expected the classes {', '.join(classes)}, got {', '.join(odd)} instead of {', '.join(lacking)}"
        )
    return scores[:, [names.index(name) for name in classes]], f"{source}: classes joined by name"


def place(
    predictions: Predictions,
    samples: SampleColumns,
    *,
    classes: tuple[str, ...],
    labels: np.ndarray,
    allow_missing: bool = False,
    force: bool = False,
    two_d: bool = True,
) -> tuple[np.ndarray, list[str]]:
    """(n, k) values in the samples' order, NaN where the file has none; with notes.

    Where there are labels, the order of classes, of rows without ids, and of valence and arousal is checked.

    Parameters
    ----------
    predictions : m rows
    samples : n samples
    classes : the k classes of the labels; empty for valence and arousal
    labels : (n,) int16
    force : bool
        Go on, with a note, where an order is likely wrong.
    two_d : bool
        Whether the options for the 2D file mend these predictions.

    Raises
    ------
    PredictionsError : rows or columns do not join, or their order is likely wrong.
    """
    source = Path(predictions.source).name
    predictions = replace(predictions, source=source)
    if predictions.ids is None:
        rows, how = match_order(len(predictions), samples, source=source)
    else:
        rows, how = match_ids(predictions.ids, samples, source=source, allow_missing=allow_missing)
    notes = [*predictions.notes, how]
    if classes:
        values, said = align_columns(predictions, classes)
        notes.append(said)
    elif predictions.kind != "va":
        raise PredictionsError(f"{source}: expected valence and arousal, got {predictions.kind}")
    else:
        values = predictions.values
    joined = rows >= 0
    problem = _order_problem(
        values[joined],
        rows[joined],
        samples,
        labels,
        classes,
        predictions.columns or classes,
        predictions.ids is None,
    )
    if problem is not None:
        if not force:
            # The --2d options speak of the 2D file alone; ready 3D predictions say it inside of them.
            remedy = problem[1] if two_d else _INSIDE.get(problem[1], problem[1])
            raise PredictionsError(f"{source}: {problem[0]}; {remedy}, or go on with --force")
        notes.append(f"WARNING {source}: {problem[0]}; went on as forced")
    placed = np.full((len(samples), values.shape[1]), np.nan)
    placed[rows[joined]] = values[joined]
    return placed, notes


def _order_problem(
    values: np.ndarray,
    rows: np.ndarray,
    samples: SampleColumns,
    labels: np.ndarray,
    classes: tuple[str, ...],
    declared: tuple[str, ...],
    without_ids: bool,
) -> tuple[str, str] | None:
    """What is likely wrong and what to do about it."""
    give_ids, paths = _GIVE_IDS, samples.path[rows].tolist()
    if not classes:
        targets = samples.targets[rows]
        known = np.isfinite(targets).all(axis=1)
        problem = va_swap_problem(values[known], targets[known])
        if problem is not None:
            return problem, "swap or rename them"
        problem = va_row_problem(values, targets, paths) if without_ids else None
        return None if problem is None else (problem, give_ids)
    predicted, truth = values.argmax(axis=1), labels[rows].astype(np.int64)
    known = truth >= 0
    problem = class_order_problem(predicted[known], truth[known], classes, declared=declared)
    if problem is not None:
        if not samples.classes and samples.label_names is None:
            # Numbers mean whatever the file's columns are called: another name for a column moves them along.
            return problem, "give the labels as class names"
        return problem, _SAY_ORDER
    problem = row_order_problem(predicted, truth, paths, len(classes)) if without_ids else None
    return None if problem is None else (problem, give_ids)


def choose_task(samples: SampleColumns, two_d: Predictions, task: str | None) -> str:
    """``classes`` or ``va``: what was asked for, else what both the samples and the predictions have."""
    if task not in (None, "classes", "va"):
        raise UsageError(f"task: expected classes or va, got {task!r}")
    has = {"classes": samples.has_classes, "va": samples.has_va}
    if task is None:
        pair = two_d.values.shape[1] == 2 and not two_d.columns and len(samples.classes) != 2
        task = "va" if two_d.kind == "va" or (has["va"] and (pair or not has["classes"])) else "classes"
    if not has[task]:
        other = next((name for name, there in has.items() if there), None)
        wanted = "valence and arousal" if task == "va" else "classes"
        raise PredictionsError(
            f"{samples.source}: expected labels to measure by ({wanted}), found none"
            + (f"; it has those of --task {other}" if other else "")
        )
    return task


def load_table(
    inputs: Inputs, *, blocks: str = "full", allow_missing: bool = False, force: bool = False
) -> FusionTable:
    """The joined table from files: 2D predictions, and a store of codes or ready 3D predictions.

    Parameters
    ----------
    inputs : Inputs
    blocks : which code blocks (:func:`~ig3d.features.blocks.choose_blocks`)
    allow_missing, force : see :func:`match_ids` and :func:`place`

    Raises
    ------
    UsageError : an unknown block.
    PredictionsError : a file is malformed or does not join.
    StoreError : the store cannot be read.
    """
    two_d, ids_file, task = inputs.two_d[0], next(iter(inputs.ids), None), inputs.task
    given = parse_classes(inputs.classes[0]) if inputs.classes else None
    if inputs.stores:
        with CodeStore(inputs.stores[0]) as codes:
            samples = of_store(codes)
            read = load_predictions(two_d, ids_file=ids_file, classes=given, known=samples.classes, task=task)
            return _join(
                read, samples, codes, None, task=task, blocks=blocks, allow_missing=allow_missing, force=force
            )
    assert inputs.three_d is not None and inputs.labels is not None  # Inputs checks; for the type checker
    samples = of_file(inputs.labels)
    known = () if samples.label_names is None else tuple(np.unique(samples.label_names).tolist())
    read = load_predictions(two_d, ids_file=ids_file, classes=given, known=known, task=task)
    task = choose_task(samples, read, task)
    ready = load_predictions(inputs.three_d, known=known, task=task)
    return _join(
        read, samples, None, ready, task=task, blocks=blocks, allow_missing=allow_missing, force=force
    )


def _join(
    two_d: Predictions,
    samples: SampleColumns,
    store: CodeStore | None,
    ready: Predictions | None,
    *,
    task: str | None,
    blocks: str,
    allow_missing: bool,
    force: bool,
) -> FusionTable:
    task = choose_task(samples, two_d, task)
    if task == "va" and two_d.kind != "va" and two_d.values.shape[1] == 2 and not two_d.columns:
        note = f"{Path(two_d.source).name}: columns taken as valence, arousal in this order (the file does not say)"
        two_d = in_va_range(replace(two_d, kind="va", columns=VA, notes=(note,)))
    classes, notes = ((), []) if task == "va" else _classes(samples, two_d, ready)
    labels = number_labels(samples, classes) if classes else samples.label
    options = {"classes": classes, "labels": labels, "allow_missing": allow_missing, "force": force}
    placed, said = place(two_d, samples, **options)  # type: ignore[arg-type]
    notes += said
    sources = {"2d": Path(two_d.source).name}
    three_d = codes = None
    quality = None
    names: tuple[str, ...] = ()
    used: tuple[BlockUse, ...] = ()
    if ready is not None:
        three_d, said = place(ready, samples, two_d=False, **options)  # type: ignore[arg-type]
        notes += said
        sources |= {"3d": Path(ready.source).name, "labels": samples.source}
    if store is not None:
        regressor = str(store.info.regressor.get("name", ""))
        chosen = choose_blocks(blocks, store.blocks, regressor)
        codes = np.concatenate([store.codes(name) for name in chosen], axis=1)
        damaged = np.flatnonzero(store.samples.ok & ~np.isfinite(codes).all(axis=1))
        if len(damaged):
            raise StoreError(
                f"{store.path}: expected finite codes in every row with the status ok, got NaN or infinity in "
                f"{len(damaged)} of them ({some(samples.id[damaged].tolist())}); look at it with "
                f"ig3d inspect {store.path} --verify"
            )
        quality = face_quality(store)
        names = tuple(column for name in chosen for column in column_names(name, store.blocks[name]))
        used = tuple(BlockUse(name, store.blocks[name].width, store.blocks[name].basis) for name in chosen)
        notes.append(
            f"{samples.source}: blocks {', '.join(f'{block.name} ({block.width})' for block in used)}"
        )
        sources |= {
            "3d": samples.source,
            "3d_content_sha256": store.content_sha256,
            "3d_regressor": regressor,
        }
    return FusionTable(
        task=task,
        classes=classes,
        id=samples.id,
        group=samples.group,
        split=samples.split,
        labels=labels,
        targets=samples.targets,
        two_d=placed,
        codes=codes,
        code_columns=names,
        blocks=used,
        three_d=three_d,
        notes=tuple(note for note in notes if note),
        sources=sources,
        quality=quality,
        quality_columns=() if quality is None else QUALITY_COLUMNS,
        two_d_out_of_fold=two_d.out_of_fold
        and bool((np.isfinite(placed).all(axis=1) & (samples.split == Split.train)).any()),
    )


def _classes(
    samples: SampleColumns, two_d: Predictions, ready: Predictions | None
) -> tuple[tuple[str, ...], list[str]]:
    """The classes that labels and columns are put in, with a note where they were assumed."""
    if samples.classes:
        return samples.classes, []
    for predictions in (two_d, ready):
        if predictions is not None and predictions.columns:
            return predictions.columns, [
                f"classes: {', '.join(predictions.columns)}, as {predictions.source} has them"
            ]
    if samples.label_names is not None:
        raise PredictionsError(
            f"{samples.source}: expected class names in a predictions file beside labels given by name, got none; say "
            "what the columns are with --2d-classes"
        )
    numbers = tuple(str(column) for column in range(two_d.values.shape[1]))
    return numbers, [
        f"classes: no file names them; numbered 0 to {len(numbers) - 1} as the columns and labels are"
    ]
