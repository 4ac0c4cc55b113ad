"""Samples of several sources as one list: the same ones twice, one dataset after another, labels from a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import PredictionsError, number, some
from .align import align_all
from .labels import SampleColumns, number_labels
from .samples import Split


def merge_same(parts: Sequence[SampleColumns]) -> SampleColumns:
    """Samples that several stores hold, in one order of the ids; what the first lacks is taken from the next.

    Raises
    ------
    PredictionsError : two of them disagree on the label or the split of a sample.
    """
    first, *others = parts
    source = " + ".join(part.source for part in parts)
    for other in others:
        for what, mine, theirs, none in (
            ("label", first.names, other.names, ""),
            ("split", first.split, other.split, int(Split.none)),
        ):
            odd = np.flatnonzero((mine != none) & (theirs != none) & (mine != theirs))
            if len(odd):
                raise PredictionsError(
                    f"{source}: expected one {what} for each sample, got different ones for {len(odd)} of {len(first)} "
                    f"({some(first.id[odd].tolist(), 3)}); extract both from the same list"
                )
    labelled = next((part for part in parts if part.has_classes), first)
    return replace(
        first,
        source=source,
        classes=labelled.classes,
        label=labelled.label,
        targets=next((part for part in parts if part.has_va), first).targets,
        split=next((part for part in parts if (part.split != Split.none).any()), first).split,
        group=next((part for part in parts if (part.group != "").any()), first).group,
    )


def stack(parts: Sequence[SampleColumns]) -> tuple[SampleColumns, list[str]]:
    """Datasets one after the other, trained on all but the last and reported on the last; and in words how.

    Classes are joined by name; a label that not all of them have becomes none. Groups of different datasets are kept
    apart. Rows have the role that their own split gives them: of the last dataset the test split is reported (``val``
    where there is none, all rows where there is neither), of the others the train split (all rows where nothing has a
    split) is trained on. Splits ``val`` that are neither stay ``val``; rows of any other part have none.

    Raises
    ------
    PredictionsError : they have classes, and none in common.
    """
    common = tuple(name for name in parts[0].classes if all(name in part.classes for part in parts))
    if any(part.classes for part in parts) and len(common) < 2:
        raise PredictionsError(
            f"{' + '.join(part.source for part in parts)}: expected at least two classes in common, got "
            f"{', '.join(common) or 'none'}"
        )
    notes, turned = [], []
    for part in parts:
        last = part is parts[-1]
        split, said = _reported(part) if last else _trained(part)
        dropped = [name for name in part.classes if name not in common]
        label = number_labels(part, common, spare=dropped) if common else part.label
        lost = int(np.sum((part.label >= 0) & (label < 0)))
        notes.append(
            f"{part.source}: {said}"
            + (
                f"; {number(lost, 'row')} of classes that not all stores have left without a label "
                f"({', '.join(dropped)})"
                if dropped
                else ""
            )
        )
        stem = part.source.partition(".")[0]
        group = np.where(part.group != "", np.char.add(f"{stem}:", part.group), "")
        turned.append(replace(part, split=split, label=label, group=group))
    columns = ("id", "path", "group", "split", "label", "targets")
    joined = {name: np.concatenate([getattr(part, name) for part in turned]) for name in columns}
    source = " + ".join(part.source for part in parts)
    spare = tuple(dict.fromkeys(name for part in parts for name in part.classes if name not in common))
    return SampleColumns(source=source, classes=common, **joined, spare=spare), notes


def _trained(part: SampleColumns) -> tuple[np.ndarray, str]:
    """Splits of a dataset that is trained on, and in words."""
    train, val = part.split == Split.train, part.split == Split.val
    if (part.split == Split.none).all():
        train = ~train
    what = "all its rows" if train.all() else "its train split"
    return _roles(
        train, Split.train, val
    ), f"{what} ({number(int(train.sum()), 'row')}) trained on{_rest(train, val)}"


def _reported(part: SampleColumns) -> tuple[np.ndarray, str]:
    """Splits of the dataset that is reported, and in words."""
    name = next((name for name in ("test", "val") if (part.split == Split[name]).any()), None)
    chosen = np.ones(len(part), bool) if name is None else part.split == Split[name]
    val = (part.split == Split.val) & ~chosen
    what = "all its rows" if name is None else f"its {name} split"
    return _roles(
        chosen, Split.test, val
    ), f"{what} ({number(int(chosen.sum()), 'row')}) as test{_rest(chosen, val)}"


def _roles(chosen: np.ndarray, role: Split, val: np.ndarray) -> np.ndarray:
    return np.where(chosen, role, np.where(val, Split.val, Split.none)).astype(np.int8)


def _rest(chosen: np.ndarray, val: np.ndarray) -> str:
    counts = {"as val": int(val.sum()), "not used": int((~chosen & ~val).sum())}
    return "".join(f", {number(count, 'row')} {how}" for how, count in counts.items() if count)


def overlay(samples: SampleColumns, table: SampleColumns) -> tuple[SampleColumns, str]:
    """The samples of a store with the truth of a table of labels, and in words how they were joined.

    Labels, or valence and arousal, are the table's where it has them at all, and none where it lacks the row; so are
    splits and groups. Rows of the table that no sample has the id of are left out, and counted.

    Raises
    ------
    PredictionsError : no row of the table is a sample, or a label is none of the store's.
    """
    alignment = align_all(table.id, samples, source=table.source, to=samples.source, allow_missing=True)
    here, rows = alignment.aligned, alignment.rows
    how = alignment.report(table.source, samples.source)

    def spread(new: np.ndarray, none: object) -> np.ndarray:
        filled = np.full((len(samples), *new.shape[1:]), none, new.dtype)
        filled[rows[here]] = new[here]
        return filled

    result, taken = samples, []
    if table.label_names is not None:
        taken.append("labels")
        found = set(np.unique(table.label_names).tolist()) - {""}
        result = replace(
            result,
            classes=samples.classes if found <= set(samples.classes) else (),
            label=np.full(len(samples), -1, np.int16),
            label_names=spread(table.label_names, ""),
        )
    elif table.has_classes:
        taken.append("labels")
        classes, worst = samples.classes, int(table.label.max())
        if classes and worst >= len(classes):
            raise PredictionsError(
                f"{table.source}: expected labels below {len(classes)} ({', '.join(classes)}), got {worst}"
            )
        result = replace(result, label=spread(table.label, -1))
    if table.has_va:
        taken.append("valence and arousal")
        result = replace(result, targets=spread(table.targets, np.nan))
    if (table.split != Split.none).any():
        taken.append("splits")
        result = replace(result, split=spread(table.split, int(Split.none)))
    if (table.group != "").any():
        taken.append("groups")
        result = replace(result, group=spread(table.group, ""))
    return result, f"{how}; its {', '.join(taken) or 'nothing'} instead of the store's"
