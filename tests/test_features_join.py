"""Rows are joined to samples by id or refused; orders that do not fit the labels are found out."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from listed import Sample
from toy_stores import CLASSES, good_logits, make_samples, save, write_store

from ig3d.errors import PredictionsError, StoreError, UsageError
from ig3d.features.align import align_or_raise
from ig3d.features.classes import PRESETS, preset_of
from ig3d.features.inputs import Inputs
from ig3d.features.join import load_table
from ig3d.features.labels import read_labels
from ig3d.features.order import class_order_problem
from ig3d.features.samples import Split
from ig3d.features.store.format import content_hash


@pytest.fixture
def toy(tmp_path):
    samples = make_samples()
    return write_store(tmp_path / "toy.h5", samples, missing=(3, 5)), samples, good_logits(samples)


def test_rows_are_joined_by_id_whatever_their_order(toy, tmp_path):
    store, samples, logits = toy
    ids = [sample.id for sample in samples]
    order = np.random.default_rng(2).permutation(len(ids))
    plain = load_table(Inputs(save(tmp_path / "a.npz", logits, ids=ids, classes=CLASSES), store))
    mixed = load_table(
        Inputs(save(tmp_path / "b.npz", logits[order], ids=np.array(ids)[order], classes=CLASSES), store)
    )
    assert np.array_equal(plain.two_d, logits) and np.array_equal(mixed.two_d, logits)
    assert plain.id.tolist() == ids
    assert np.flatnonzero(~plain.covered).tolist() == [3, 5]
    # The camera is the position of the face, no expression.
    assert plain.code_columns == ("code:expression:smile", "code:expression:frown")
    assert [(block.name, block.basis) for block in plain.blocks] == [("expression", "toy-1")]
    assert plain.codes[7].tolist() == [14.0, 15.0]


@pytest.mark.parametrize(
    ("spell", "how"),
    [
        (lambda sample: sample.id, "by id"),
        (lambda sample: sample.path, "by path"),
        (lambda sample: "./" + sample.path, "by path"),
        (lambda sample: sample.path.replace("/", "\\"), "by path"),
        (lambda sample: sample.id + ".png", "by id without suffix"),
        (lambda sample: "/home/someone/raf/" + sample.path, "leading folders"),
        (lambda sample: sample.path.rpartition("/")[2], "by file name"),
        (lambda sample: sample.id.rpartition("/")[2], "by file name without suffix"),
    ],
)
def test_ids_may_be_spelt_as_paths_names_or_stems(toy, tmp_path, spell, how):
    store, samples, logits = toy
    path = save(
        tmp_path / "x.npz", logits[::-1], ids=[spell(sample) for sample in samples][::-1], classes=CLASSES
    )
    table = load_table(Inputs(path, store))
    assert np.array_equal(table.two_d, logits)
    assert any(how in note for note in table.notes)


def test_names_that_fit_several_samples_are_refused(tmp_path):
    samples = make_samples(name=lambda row, label: f"{'val' if row % 2 else 'test'}/{row // 2}")
    store = write_store(tmp_path / "toy.h5", samples)
    logits = good_logits(samples)
    path = save(tmp_path / "x.npz", logits[:50], ids=[str(row) for row in range(50)], classes=CLASSES)
    with pytest.raises(PredictionsError, match=r"50 of 50 ids cannot be matched .*fit several samples"):
        load_table(Inputs(path, store))


def test_unknown_ids_are_refused_with_count_and_first(toy, tmp_path):
    store, samples, logits = toy
    ids = [sample.id for sample in samples]
    ids[7] = "elsewhere/9"
    path = save(tmp_path / "x.npz", logits, ids=ids, classes=CLASSES)
    with pytest.raises(PredictionsError, match=r"1 of 210 ids cannot be matched .* by id: elsewhere/9"):
        load_table(Inputs(path, store))
    table = load_table(Inputs(path, store), allow_missing=True)
    assert (~table.has_2d).sum() == 1 and any("1 row left out" in note for note in table.notes)


def test_two_ids_never_share_a_sample(toy):
    store, samples, _ = toy
    from ig3d.features.codes import read_codes

    columns, _ = read_codes([store])
    same = np.array([samples[0].id, samples[0].path])
    with pytest.raises(PredictionsError, match="of 2 ids cannot be matched"):
        align_or_raise(same, columns, source="x", to="y")


def splits(row):
    return (Split.train, Split.train, Split.train, Split.val, Split.test)[row % 5]


def test_rows_without_ids_take_the_one_split_that_fits(tmp_path):
    samples = make_samples(300, split=splits, name=lambda row, label: f"x{row:04d}")
    samples[4] = Sample(id=samples[4].id, path=samples[4].path, label=samples[4].label, split=Split.val)
    store = write_store(tmp_path / "toy.h5", samples)
    logits = good_logits(samples)
    test = np.array([sample.split == Split.test for sample in samples])
    np.save(tmp_path / "x.npy", logits[test])
    table = load_table(Inputs(tmp_path / "x.npy", store))
    assert np.array_equal(table.has_2d, test) and np.array_equal(table.two_d[test], logits[test])
    assert any("the test split" in note and "assumed" in note for note in table.notes)
    assert any("classes assumed in the order" in note and "preset rafdb" in note for note in table.notes)


def test_rows_without_ids_that_fit_two_splits_or_none_are_refused(tmp_path):
    samples = make_samples(300, split=splits, name=lambda row, label: f"x{row:04d}")
    store = write_store(tmp_path / "toy.h5", samples)
    np.save(tmp_path / "x.npy", good_logits(samples)[:60])
    with pytest.raises(PredictionsError, match=r"60 rows fit the val split and the test split of toy.h5"):
        load_table(Inputs(tmp_path / "x.npy", store))
    np.save(tmp_path / "x.npy", good_logits(samples)[:61])
    with pytest.raises(PredictionsError, match=r"61 rows fit none .*all samples 300, the train split 180"):
        load_table(Inputs(tmp_path / "x.npy", store))


def test_rows_in_another_order_are_found_out_and_named(tmp_path):
    # The samples are sorted as text (10 before 2), the file by the numbers' value.
    samples = make_samples(210, name=lambda row, label: f"img_{row}")
    store = write_store(tmp_path / "toy.h5", samples)
    logits = good_logits(samples)
    natural = sorted(range(210), key=lambda row: int(samples[row].id.partition("_")[2]))
    np.save(tmp_path / "x.npy", logits[natural])
    with pytest.raises(PredictionsError, match=r"in another order: sorted by path, numbers by value"):
        load_table(Inputs(tmp_path / "x.npy", store))
    table = load_table(Inputs(tmp_path / "x.npy", store), force=True)
    assert np.array_equal(table.two_d, logits[natural])  # never applied by itself
    assert any(note.startswith("WARNING") for note in table.notes)


def test_rows_at_chance_in_any_order_are_refused_without_ids_only(tmp_path):
    samples = make_samples()
    store = write_store(tmp_path / "toy.h5", samples)
    noise = np.random.default_rng(5).normal(size=(210, 7))
    np.save(tmp_path / "x.npy", noise)
    with pytest.raises(PredictionsError, match="which is chance, and no usual order"):
        load_table(Inputs(tmp_path / "x.npy", store))
    load_table(Inputs(save(tmp_path / "x.npz", noise, ids=[sample.id for sample in samples]), store))


@pytest.mark.parametrize("preset", [name for name, order in PRESETS.items() if set(order) == set(CLASSES)])
def test_the_class_order_of_every_preset_is_found_out(toy, tmp_path, preset):
    store, samples, logits = toy
    ids, order = [sample.id for sample in samples], PRESETS[preset]
    theirs = logits[:, [CLASSES.index(name) for name in order]]
    path = save(tmp_path / "x.npz", theirs, ids=ids)
    if order == CLASSES:
        load_table(Inputs(path, store))
        return
    with pytest.raises(PredictionsError, match=f"under {preset_of(order)}; give the order with --2d-classes"):
        load_table(Inputs(path, store))
    assert np.array_equal(load_table(Inputs(path, store, classes=preset)).two_d, logits)
    assert np.array_equal(load_table(Inputs(path, store), force=True).two_d, theirs)


SHUFFLED = ("sad", "happy", "neutral", "disgust", "surprise", "anger", "fear")


@pytest.mark.parametrize("named", ["by option", "in the file"])
@pytest.mark.parametrize(
    ("true", "declared"),
    [("alphabetical7", "fer2013"), ("affectnet7", "resemotenet"), ("rafdb", "apvit7"), (None, "fer2013")],
)
def test_the_suggested_class_order_can_be_typed_as_it_is(toy, tmp_path, true, declared, named):
    store, samples, logits = toy
    order, named = PRESETS.get(true, SHUFFLED), PRESETS[declared]
    theirs = logits[:, [CLASSES.index(name) for name in order]]
    ids, inside = [sample.id for sample in samples], named == "in the file"
    path = save(tmp_path / "x.npz", theirs, ids=ids, classes=named if inside else ())
    with pytest.raises(PredictionsError) as refusal:
        load_table(Inputs(path, store, classes=None if inside else declared))
    message = str(refusal.value)
    assert f"of the rows are right as {','.join(named)}" in message
    suggested = message.partition(" under ")[2].partition(";")[0]
    assert suggested == (true or ",".join(SHUFFLED)) and "give the order with --2d-classes" in message
    table = load_table(Inputs(path, store, classes=suggested))
    assert np.array_equal(table.two_d, logits)
    assert any("instead of the file's own names" in note for note in table.notes) == inside


def test_ready_3d_predictions_in_another_order_are_mended_in_their_file(tmp_path):
    samples = make_samples()
    ids, logits = [sample.id for sample in samples], good_logits(samples)
    labels = write_labels(tmp_path / "labels.csv", samples)
    two = save(tmp_path / "two.npz", logits, ids=ids, classes=CLASSES)
    theirs = logits[:, [CLASSES.index(name) for name in PRESETS["fer2013"]]]
    three = save(tmp_path / "three.npz", theirs, ids=ids)
    with pytest.raises(
        PredictionsError, match=r"three.npz: .* under fer2013; name its columns in that order, or"
    ):
        load_table(Inputs(two, three_d=three, labels=labels))
    load_table(Inputs(two, three_d=save(three, theirs, ids=ids, classes=PRESETS["fer2013"]), labels=labels))


def test_ready_3d_predictions_without_ids_are_mended_in_their_file(tmp_path):
    samples = make_samples()
    logits = good_logits(samples)
    labels = write_labels(tmp_path / "labels.csv", samples)
    two = save(tmp_path / "two.npz", logits, ids=[sample.id for sample in samples], classes=CLASSES)
    np.save(tmp_path / "three.npy", logits[:9])
    with pytest.raises(PredictionsError, match=r"three.npy: .* its 9 rows fit none .*; save its ids"):
        load_table(Inputs(two, three_d=tmp_path / "three.npy", labels=labels))


def test_labels_by_number_are_to_be_named_where_the_class_order_does_not_fit(tmp_path):
    samples = make_samples()
    ids, logits = [sample.id for sample in samples], good_logits(samples)
    theirs = logits[:, [CLASSES.index(name) for name in PRESETS["fer2013"]]]
    path = save(tmp_path / "x.npz", theirs, ids=ids, classes=PRESETS["fer2013"])
    numbers = write_labels(tmp_path / "numbers.csv", samples, names=False)
    with pytest.raises(PredictionsError, match="; give the labels as class names, or continue"):
        load_table(Inputs(path, three_d=path, labels=numbers))
    names = write_labels(tmp_path / "names.csv", samples)
    assert load_table(Inputs(path, three_d=path, labels=names)).classes == PRESETS["fer2013"]


def test_a_weak_network_in_the_right_order_passes(tmp_path):
    samples = make_samples()
    store = write_store(tmp_path / "toy.h5", samples)
    weak = good_logits(samples, accuracy=0.15)
    load_table(Inputs(save(tmp_path / "x.npz", weak, ids=[sample.id for sample in samples]), store))


def test_another_order_has_to_be_ten_points_better():
    labels = np.arange(10_000) % 2
    for right, found in (
        (0.475, False),
        (0.44, True),
    ):  # 5 and 12 points worse than swapped, both significant
        predicted = np.where(np.arange(10_000) < right * 10_000, labels, 1 - labels)
        assert (class_order_problem(predicted, labels, ("happy", "sad")) is not None) == found


def test_other_classes_are_refused(toy, tmp_path):
    store, samples, logits = toy
    ids = [sample.id for sample in samples]
    eight = np.hstack([logits, logits[:, :1]])
    with pytest.raises(
        PredictionsError, match=r"has columns of other, .* 7 classes .*leave out the other columns"
    ):
        load_table(Inputs(save(tmp_path / "x.npz", eight, ids=ids, classes=(*CLASSES, "other")), store))
    with pytest.raises(PredictionsError, match=r"8 columns, but .*; name all columns with --2d-classes"):
        load_table(Inputs(save(tmp_path / "x.npz", eight, ids=ids), store))
    with pytest.raises(PredictionsError, match=r"9 columns, .*--2d-classes, valence and arousal included"):
        load_table(Inputs(save(tmp_path / "x.npz", np.hstack([logits, logits[:, :2]]), ids=ids), store))
    names = ("contempt", *CLASSES[1:])
    with pytest.raises(PredictionsError, match="has columns of contempt and none of surprise"):
        load_table(Inputs(save(tmp_path / "x.npz", logits, ids=ids, classes=names), store))


def test_swapped_valence_and_arousal_are_noticed(tmp_path):
    samples = make_samples(120)
    store = write_store(tmp_path / "toy.h5", samples)
    truth = np.array([[sample.valence, sample.arousal] for sample in samples])
    values = truth * 0.7 + np.random.default_rng(3).normal(0, 0.2, truth.shape)
    ids = np.array([sample.id for sample in samples])
    np.savez(tmp_path / "x.npz", ids=ids, va=values)
    table = load_table(Inputs(tmp_path / "x.npz", store, task="va"))
    assert table.task == "va" and table.classes == () and np.allclose(table.two_d, values)
    assert np.allclose(table.targets, truth, atol=1e-6)
    np.savez(tmp_path / "y.npz", ids=ids, va=values[:, ::-1])
    with pytest.raises(PredictionsError, match=r"with the columns swapped; swap or rename them"):
        load_table(Inputs(tmp_path / "y.npz", store))
    np.save(tmp_path / "z.npy", np.random.default_rng(0).permutation(values))
    with pytest.raises(PredictionsError, match="which is chance"):
        load_table(Inputs(tmp_path / "z.npy", store, task="va"))


def test_two_columns_that_turn_out_valence_and_arousal_have_their_scale_checked(tmp_path):
    plain = make_samples(120)
    store = write_store(
        tmp_path / "toy.h5", [Sample(s.id, s.path, valence=s.valence, arousal=s.arousal) for s in plain]
    )
    truth = np.array([[sample.valence, sample.arousal] for sample in plain])
    np.save(tmp_path / "x.npy", truth)
    assert load_table(Inputs(tmp_path / "x.npy", store)).task == "va"
    np.save(tmp_path / "x.npy", truth * 100)
    with pytest.raises(PredictionsError, match=r"range from -\d\d.* to \d\d"):
        load_table(Inputs(tmp_path / "x.npy", store))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_ok_row_without_codes_is_refused(toy, tmp_path, value):
    store, samples, logits = toy
    path = save(tmp_path / "x.npz", logits, ids=[sample.id for sample in samples], classes=CLASSES)
    with h5py.File(store, "r+") as file:
        file["codes/expression"][7, 1] = value
        file.attrs["content_sha256"] = content_hash(file)
    with pytest.raises(
        StoreError, match=rf"NaN or infinity .* in 1 row \({samples[7].id}\).*extract it again"
    ) as refusal:
        load_table(Inputs(path, store))
    assert "\n" not in str(refusal.value)


def test_codes_that_were_changed_since_they_were_written_are_refused(toy, tmp_path):
    store, samples, logits = toy
    path = save(tmp_path / "x.npz", logits, ids=[sample.id for sample in samples], classes=CLASSES)
    with h5py.File(store, "r+") as file:
        file["codes/expression"][7, 1] += 1  # with HDF5's own checksum set right
    with pytest.raises(StoreError, match="bytes were changed"):
        load_table(Inputs(path, store))


def write_labels(path, samples, *, column="label", names=True):
    lines = [f"id,{column},split,group"]
    lines += [f"{s.id},{CLASSES[s.label].title() if names else s.label},test,p" for s in samples]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("names", [True, False], ids=["names", "numbers"])
def test_ready_3d_predictions_need_no_store(tmp_path, names):
    samples = make_samples()
    ids, logits = [sample.id for sample in samples], good_logits(samples)
    labels = write_labels(tmp_path / "labels.csv", samples[::-1], names=names)
    two = save(tmp_path / "two.npz", logits, ids=ids, classes=CLASSES)
    # The 3D file has its own column order, and has one row less.
    alphabetical = sorted(CLASSES)
    columns = logits[:, [CLASSES.index(name) for name in alphabetical]] * 0.5
    three = save(tmp_path / "three.npz", columns[1:], ids=ids[1:], classes=alphabetical)
    table = load_table(Inputs(two, three_d=three, labels=labels))
    assert table.id.tolist() == ids and table.classes == CLASSES
    assert table.labels.tolist() == [sample.label for sample in samples]
    assert (
        np.allclose(table.three_d[1:], logits[1:] * 0.5) and not table.covered[0] and table.covered[1:].all()
    )
    assert table.codes is None and set(table.group) == {"p"} and (table.split == Split.test).all()


def test_labels_by_name_need_classes_from_somewhere(tmp_path):
    samples = make_samples()
    ids, logits = [sample.id for sample in samples], good_logits(samples)
    labels = write_labels(tmp_path / "labels.csv", samples)
    two, three = save(tmp_path / "two.npz", logits, ids=ids), save(tmp_path / "three.npz", logits, ids=ids)
    with pytest.raises(PredictionsError, match="name them with --2d-classes"):
        load_table(Inputs(two, three_d=three, labels=labels))
    assert load_table(Inputs(two, three_d=three, labels=labels, classes="rafdb")).classes == CLASSES
    with pytest.raises(UsageError, match="give --3d-store STORE, or --3d-logits FILE with --labels"):
        load_table(Inputs(two, three_d=three))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\na,0\na,1\n", r"1 duplicate id \(a\)"),
        ("label\n0\n", "no column of ids"),
        ("id,other\na,0\n", "no column label"),
        ("id,valence,arousal\na,.5,3\n", r"outside \[-1, 1\] \(a\)"),
        ("id,label,split\na,0,somewhere\n", "unknown split somewhere"),
        ("id,label\na,0.5\n", "neither class names nor the numbers"),
    ],
)
def test_malformed_labels_are_refused(tmp_path, text, message):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(PredictionsError, match=message):
        read_labels(tmp_path / "labels.csv")


def test_missing_labels_of_the_task_are_named(tmp_path):
    samples = [Sample(id=s.id, path=s.path, label=s.label, split=s.split) for s in make_samples()]
    store = write_store(tmp_path / "toy.h5", samples)
    np.save(tmp_path / "x.npy", np.zeros((210, 2)))
    with pytest.raises(PredictionsError, match=r"\(valence and arousal\).*; use --task classes"):
        load_table(Inputs(tmp_path / "x.npy", store, task="va"))


def test_valence_and_arousal_for_a_store_of_classes_name_the_cause(tmp_path):
    samples = [Sample(s.id, s.path, label=s.label) for s in make_samples(30)]
    store = write_store(tmp_path / "toy.h5", samples)
    np.savez(tmp_path / "x.npz", ids=[s.id for s in samples], va=np.zeros((30, 2)))
    with pytest.raises(PredictionsError, match=r"^x.npz: has valence and arousal, but .* toy.h5 are classes"):
        load_table(Inputs(tmp_path / "x.npz", store))
