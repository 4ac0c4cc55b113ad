"""Several stores and several 2D files in one table; contempt; labels from a table; rows without labels."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from listed import Sample
from scipy.spatial.transform import Rotation
from toy_stores import CLASSES, good_logits, make_samples, save, write_store

from ig3d.errors import PredictionsError, StoreError, UsageError
from ig3d.features.blocks import choose_blocks, choose_blocks_of
from ig3d.features.check import check_predictions
from ig3d.features.classes import PRESETS
from ig3d.features.inputs import Inputs
from ig3d.features.join import load_table
from ig3d.features.samples import Split

EIGHT = PRESETS["affectnet8"]


@pytest.fixture
def toy(tmp_path):
    """Samples, and a file of their logits with ids."""
    samples = make_samples()
    logits = good_logits(samples)
    return samples, logits, save(tmp_path / "two.npz", logits, ids=[s.id for s in samples], classes=CLASSES)


def numbers(samples, width, seed):
    return np.random.default_rng(seed).normal(size=(len(samples), width)).astype(np.float32)


def smirk_and_emoca(tmp_path, samples, *, theirs=None, regressor="emoca"):
    """Stores of the same samples by two regressors; ``theirs`` are those of the second."""
    ours = {
        "pose": numbers(samples, 3, 1),
        "eyelid": numbers(samples, 2, 2),
        "camera": numbers(samples, 3, 3),
    }
    others = {"pose": numbers(samples, 3, 4), "jaw": numbers(samples, 3, 5)}
    first = write_store(tmp_path / "a.h5", samples, regressor="smirk", codes=ours, missing=(0, 1))
    second = write_store(
        tmp_path / "b.h5", theirs or samples, regressor=regressor, codes=others, missing=(1, 2)
    )
    return [first, second], [ours, others]


def test_stores_of_the_same_samples_stand_side_by_side(toy, tmp_path):
    samples, _, two = toy
    stores, codes = smirk_and_emoca(tmp_path, samples)
    table = load_table(Inputs(two, stores), blocks="pose,smirk:eyelid,emoca:jaw")
    assert [(block.name, block.width) for block in table.blocks] == [
        ("smirk:pose", 3), ("smirk:eyelid", 2), ("emoca:pose", 3), ("emoca:jaw", 3),
    ]  # fmt: skip
    assert table.code_columns[0] == "code:smirk:pose:0" and table.code_columns[-1] == "code:emoca:jaw:2"
    expected = np.hstack([codes[0]["pose"], codes[0]["eyelid"], codes[1]["pose"], codes[1]["jaw"]])
    assert np.array_equal(table.codes[3:], expected[3:])
    # A row counts as covered where both have codes.
    assert np.flatnonzero(~table.covered).tolist() == [0, 1, 2]
    assert any(
        "210 rows, of which 207 have codes in each (smirk 208, emoca 208)" in note for note in table.notes
    )
    assert table.sources["3d_regressor"] == "smirk, emoca"
    alone = load_table(Inputs(two, stores), blocks="emoca:jaw")
    assert [block.name for block in alone.blocks] == ["emoca:jaw"] and alone.covered.sum() == 208
    with pytest.raises(UsageError, match="has the block 'texture'"):
        load_table(Inputs(two, stores), blocks="pose,texture")


def test_stores_in_another_order_of_rows_are_joined_by_id(toy, tmp_path):
    samples, _, two = toy
    codes = numbers(samples, 3, 1)
    first = write_store(tmp_path / "a.h5", samples, regressor="mine", codes={"pose": codes})
    turned = write_store(tmp_path / "b.h5", samples[::-1], regressor="yours", codes={"jaw": codes[::-1]})
    for stores in ([first, turned], [turned, first]):
        table = load_table(Inputs(two, stores))
        assert table.id.tolist() == [sample.id for sample in samples]
        assert np.array_equal(table.codes[:, :3], codes) and np.array_equal(table.codes[:, 3:], codes)
        assert table.labels.tolist() == [sample.label for sample in samples]


def test_stores_of_the_same_regressor_are_named_by_file(toy, tmp_path):
    samples, _, two = toy
    stores, _ = smirk_and_emoca(tmp_path, samples, regressor="smirk")
    table = load_table(Inputs(two, stores), blocks="pose")
    assert [block.name for block in table.blocks] == ["a:pose", "b:pose"]


def test_stores_that_share_some_samples_are_refused_with_counts(toy, tmp_path):
    samples, _, two = toy
    first = write_store(tmp_path / "a.h5", samples[:150])
    second = write_store(tmp_path / "b.h5", samples[100:])
    with pytest.raises(StoreError, match=r"50 ids in both, 100 only in the first, 60 only in the second"):
        load_table(Inputs(two, [first, second]))


@pytest.mark.parametrize(
    ("change", "what"), [({"label": 3}, "label"), ({"split": Split.val}, "split")], ids=["label", "split"]
)
def test_stores_that_disagree_on_a_sample_are_refused(toy, tmp_path, change, what):
    samples, _, two = toy
    other = [replace(sample, **change) if row < 20 else sample for row, sample in enumerate(samples)]
    stores, _ = smirk_and_emoca(tmp_path, samples, theirs=other)
    words = rf"different {what} in each for \d+ of 210 samples"
    with pytest.raises(PredictionsError, match=words):
        load_table(Inputs(two, stores), blocks="pose")


def test_what_one_store_lacks_is_taken_from_the_other(toy, tmp_path):
    samples, _, two = toy
    bare = [Sample(sample.id, sample.path) for sample in samples]
    first = write_store(tmp_path / "a.h5", bare, classes=(), regressor="mine")
    second = write_store(tmp_path / "b.h5", samples, regressor="yours")
    for stores in ([first, second], [second, first]):
        table = load_table(Inputs(two, stores))
        assert table.classes == CLASSES and table.labels.tolist() == [sample.label for sample in samples]
        assert (table.split == Split.test).all()


def dataset(path, prefix, classes, splits, *, k, **options):
    """A store of another dataset: 30 rows in each split, ids under ``prefix``."""
    samples = sorted(
        (
            Sample(
                f"{prefix}/{split.name}/{row:03d}",
                f"{prefix}/{split.name}/{row:03d}.jpg",
                row % k,
                split,
                group="p",
            )
            for split in splits
            for row in range(30)
        ),
        key=lambda sample: sample.id,
    )
    return write_store(path, samples, classes=classes, **options), samples


def test_datasets_are_stacked_by_class_name_and_reported_on_the_last(tmp_path):
    every = (Split.train, Split.val, Split.test)
    first, _ = dataset(tmp_path / "raf.h5", "raf", CLASSES, (Split.train, Split.test), k=7)
    second, theirs = dataset(tmp_path / "affect.h5", "affect", EIGHT, every[:2], k=8)
    reported = [sample for sample in theirs if sample.split == Split.val]
    logits = good_logits(reported, k=8)
    two = save(tmp_path / "two.npz", logits, ids=[sample.id for sample in reported], classes=EIGHT)
    table = load_table(Inputs(two, [first, second]))
    assert table.classes == CLASSES
    role = {
        (name.split("/")[0], name.split("/")[1]): Split(split).name
        for name, split in zip(table.id, table.split, strict=True)
    }
    assert role == {
        ("raf", "train"): "train", ("raf", "test"): "none", ("affect", "train"): "none", ("affect", "val"): "test",
    }  # fmt: skip
    # Labels mean the same name in both; contempt has none, and its column is gone.
    by_id = dict(zip(table.id.tolist(), table.labels.tolist(), strict=True))
    for sample in theirs:
        name = EIGHT[sample.label]
        assert by_id[sample.id] == (CLASSES.index(name) if name in CLASSES else -1)
    assert (table.labels == -1).sum() == sum(EIGHT[sample.label] == "contempt" for sample in theirs)
    there = table.two_d[table.has_2d]
    assert np.array_equal(there, logits[:, [EIGHT.index(name) for name in CLASSES]])
    assert set(table.group) == {"raf:p", "affect:p"}
    notes = "\n".join(table.notes)
    assert (
        "its train split (30 rows) trained on, 30 rows not used" in notes
        and "its val split (30 rows) as test, 30 rows not used" in notes
    )
    assert "(contempt)" in notes


def test_a_dataset_without_splits_is_trained_on_whole_and_val_stays_val(tmp_path):
    every = (Split.train, Split.val, Split.test)
    bare, theirs = dataset(tmp_path / "a.h5", "a", CLASSES, (Split.none,), k=7)
    whole, ours = dataset(tmp_path / "b.h5", "b", CLASSES, every, k=7)
    samples = [*theirs, *ours]
    ids = [sample.id for sample in samples]
    two = save(tmp_path / "two.npz", good_logits(samples), ids=ids, classes=CLASSES)

    def role(stores):
        table = load_table(Inputs(two, stores))
        names = {tuple(name.split("/")[:2]) for name in table.id}
        pairs = list(zip(table.id, table.split, strict=True))
        return {
            name: {Split(split).name for row, split in pairs if row.startswith("/".join(name))}
            for name in names
        }

    assert role([bare, whole]) == {
        ("a", "none"): {"train"}, ("b", "train"): {"none"}, ("b", "val"): {"val"}, ("b", "test"): {"test"},
    }  # fmt: skip
    assert role([whole, bare]) == {
        ("a", "none"): {"test"}, ("b", "train"): {"train"}, ("b", "val"): {"val"}, ("b", "test"): {"none"},
    }  # fmt: skip


def test_datasets_of_other_codes_or_classes_are_refused(tmp_path):
    first, samples = dataset(tmp_path / "a.h5", "a", CLASSES, (Split.train,), k=7)
    two = save(
        tmp_path / "two.npz", good_logits(samples), ids=[sample.id for sample in samples], classes=CLASSES
    )
    other, _ = dataset(tmp_path / "b.h5", "b", CLASSES, (Split.test,), k=7, basis="toy-2")
    with pytest.raises(
        StoreError, match=r"expression is 2 numbers of toy-2, that of a.h5 is 2 numbers of toy-1"
    ):
        load_table(Inputs(two, [first, other]))
    other, _ = dataset(tmp_path / "b.h5", "b", CLASSES, (Split.test,), k=7, regressor="smirk")
    with pytest.raises(StoreError, match=r"codes of different regressors \(toy; smirk\)"):
        load_table(Inputs(two, [first, other]))
    other, _ = dataset(tmp_path / "b.h5", "b", CLASSES, (Split.test,), k=7, weights="another")
    notes = load_table(Inputs(two, [first, other]), need_labels=False).notes
    assert "WARNING a.h5 and b.h5: toy had different weights; their codes may not be comparable" in notes
    compound = PRESETS["rafdb-compound"]
    other, _ = dataset(tmp_path / "b.h5", "b", compound, (Split.test,), k=7)
    with pytest.raises(PredictionsError, match=r"fewer than two classes in common \(none\)"):
        load_table(Inputs(two, [first, other]))


def test_further_2d_files_are_placed_beside_the_first(toy, tmp_path):
    samples, logits, two = toy
    store = write_store(tmp_path / "toy.h5", samples)
    order = PRESETS["affectnet7"]
    theirs = good_logits(samples, accuracy=0.6)[:, [CLASSES.index(name) for name in order]]
    np.save(tmp_path / "second.npy", theirs)
    (tmp_path / "run").mkdir()
    third = save(
        tmp_path / "run" / "two.npz", logits[:100] * 2, ids=[s.id for s in samples[:100]], classes=CLASSES
    )
    table = load_table(Inputs([two, tmp_path / "second.npy"], store, classes=["rafdb", "affectnet7"]))
    assert np.array_equal(table.two_d, logits) and list(table.others) == ["second"]
    assert np.array_equal(table.others["second"], good_logits(samples, accuracy=0.6))
    table = load_table(Inputs([two, third], store))
    ((name, values),) = table.others.items()
    assert (
        name == "run/two" and np.array_equal(values[:100], logits[:100] * 2) and np.isnan(values[100:]).all()
    )
    assert table.take(np.arange(5)).others[name].shape == (5, 7)
    # Its order is checked as that of the first is.
    with pytest.raises(
        PredictionsError, match=r"second.npy: .* under affectnet7; give the order with --2d-classes"
    ):
        load_table(Inputs([two, tmp_path / "second.npy"], store, classes="rafdb"))
    with pytest.raises(
        UsageError, match="--2d-classes is given 2 times for 3 2D files; give it 0 or 1 or 3 times"
    ):
        Inputs([two, two, two], store, classes=["rafdb", "rafdb"])


def softmax(scores):
    values = np.exp(scores - scores.max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_contempt_of_the_network_alone_is_dropped_and_the_rest_renormalised(toy, tmp_path, kind):
    samples, logits, _ = toy
    store = write_store(tmp_path / "toy.h5", samples)
    whole = np.zeros((len(samples), 8))
    whole[:, [EIGHT.index(name) for name in CLASSES]] = logits
    values = whole if kind == "logits" else softmax(whole)
    np.savez(tmp_path / "x.npz", ids=[s.id for s in samples], classes=EIGHT, **{kind: values})
    table = load_table(Inputs(tmp_path / "x.npz", store))
    assert table.classes == CLASSES
    assert np.allclose(softmax(table.two_d), softmax(logits), atol=1e-9)
    assert any("contempt left out and the others renormalised" in note for note in table.notes)


def test_contempt_of_the_dataset_alone_leaves_its_rows_without_a_label(tmp_path):
    samples = make_samples(k=8)
    store = write_store(tmp_path / "toy.h5", samples, classes=EIGHT)
    logits = good_logits(samples, k=8)[:, :7]
    ids = [sample.id for sample in samples]
    table = load_table(Inputs(save(tmp_path / "x.npz", logits, ids=ids, classes=EIGHT[:7]), store))
    contempt = np.array([sample.label == 7 for sample in samples])
    assert table.classes == EIGHT[:7] and np.array_equal(table.labels < 0, contempt)
    assert any(f"{contempt.sum()} rows labelled contempt left out" in note for note in table.notes)
    # With a second network that has it, it is dropped from that one as well.
    second = save(tmp_path / "y.npz", good_logits(samples, k=8), ids=ids, classes=EIGHT)
    table = load_table(Inputs([tmp_path / "x.npz", second], store))
    assert table.others["y"].shape == (210, 7)
    # Both have it: it stays.
    assert load_table(Inputs(second, store)).classes == EIGHT


def test_compound_classes_are_no_basic_ones(toy, tmp_path):
    samples, _, two = toy
    store = write_store(tmp_path / "toy.h5", samples, classes=PRESETS["rafdb-compound"])
    with pytest.raises(PredictionsError, match=r"has columns of .* 11 classes .*of the same classes"):
        load_table(Inputs(two, store))


def write_labels(path, samples, *, names=True):
    lines = ["id,label,split"]
    lines += [
        f"{s.id},{CLASSES[s.label] if names else s.label},{'val' if s.label else 'test'}" for s in samples
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("names", [True, False], ids=["names", "numbers"])
@pytest.mark.parametrize("classes", [CLASSES, ()], ids=["named store", "bare store"])
def test_a_table_of_labels_replaces_those_of_a_store(toy, tmp_path, names, classes):
    samples, _, two = toy
    bare = [Sample(sample.id, sample.path) for sample in samples]
    store = write_store(tmp_path / "toy.h5", bare, classes=classes)
    with pytest.raises(PredictionsError, match=r"has no labels .*; give them with --labels TABLE"):
        load_table(Inputs(two, store))
    labels = write_labels(tmp_path / "labels.csv", samples[:0:-1], names=names)
    table = load_table(Inputs(two, store, labels=labels))
    assert table.classes == CLASSES and table.labels.tolist() == [-1, *(s.label for s in samples[1:])]
    assert Split(table.split[0]) is Split.none and set(table.split[1:]) == {Split.val, Split.test}
    assert any("its labels, splits instead of the store's" in note for note in table.notes)
    # A table of a larger dataset is cut to the store's samples; one of another dataset is refused.
    with labels.open("a") as handle:
        handle.write(f"elsewhere/1,{CLASSES[0] if names else 0},test\n")
    more = load_table(Inputs(two, store, labels=labels))
    assert np.array_equal(more.labels, table.labels)
    assert any("1 row left out, no sample has their id" in note for note in more.notes)
    labels.write_text("id,label\nelsewhere/1,0\n")
    with pytest.raises(PredictionsError, match="1 of 1 id cannot be matched"):
        load_table(Inputs(two, store, labels=labels))


def test_numbers_of_labels_follow_the_first_file_when_contempt_is_dropped(tmp_path):
    order = PRESETS["alphabetical8"]
    samples = [s for s in make_samples(240, k=8) if order[s.label] != "contempt"]
    ids, eight = [sample.id for sample in samples], good_logits(samples, k=8)
    first = save(tmp_path / "first.npz", eight, ids=ids, classes=order)
    rest = [column for column, name in enumerate(order) if name != "contempt"]
    names = [order[column] for column in rest]
    second = save(tmp_path / "second.npz", eight[:, rest], ids=ids, classes=names)
    labels = write_labels(tmp_path / "labels.csv", samples, names=False)
    table = load_table(Inputs([first, second], three_d=second, labels=labels))
    assert table.classes == tuple(names)
    assert [names[label] for label in table.labels] == [order[sample.label] for sample in samples]


def test_a_table_of_groups_alone_is_enough_beside_a_store(toy, tmp_path):
    samples, _, two = toy
    store = write_store(tmp_path / "toy.h5", samples)
    plain = load_table(Inputs(two, store))
    labels = tmp_path / "groups.csv"
    labels.write_text("id,person\n" + "".join(f"{s.id},p{row % 3}\n" for row, s in enumerate(samples)))
    table = load_table(Inputs(two, store, labels=labels))
    of = {s.id: f"p{row % 3}" for row, s in enumerate(samples)}
    assert table.group.tolist() == [of[name] for name in table.id.tolist()]
    assert np.array_equal(table.labels, plain.labels) and np.array_equal(table.split, plain.split)
    assert any("its groups instead of the store's" in note for note in table.notes)
    labels.write_text("id,age\n" + "".join(f"{s.id},3\n" for s in samples))
    with pytest.raises(PredictionsError, match=r"no column label, .* or split, or group among id, age"):
        load_table(Inputs(two, store, labels=labels))


def test_a_fitted_model_gets_a_table_of_rows_without_labels(toy, tmp_path):
    samples, logits, two = toy
    store = write_store(tmp_path / "toy.h5", [Sample(s.id, s.path) for s in samples], classes=())
    order = PRESETS["affectnet7"]
    table = load_table(Inputs(two, store), need_labels=False, classes=order)
    assert table.classes == order and not table.labelled.any()
    assert np.array_equal(table.two_d, logits[:, [CLASSES.index(name) for name in order]])
    # Labels that are there are put into the model's classes, and others are left out.
    labelled = write_store(tmp_path / "more.h5", samples)
    few = ("happy", "sad", "anger")
    three = save(tmp_path / "three.npz", logits[:, :3], ids=[s.id for s in samples], classes=few)
    table = load_table(Inputs(three, labelled), need_labels=False, classes=few, force=True)
    assert {few[label] for label in set(table.labels) - {-1}} == set(few)
    assert (table.labels >= 0).sum() == sum(CLASSES[s.label] in few for s in samples)


def test_out_of_fold_comes_from_the_file_for_train_rows(toy, tmp_path):
    samples, logits, _ = toy
    for split, expected in ((Split.train, True), (Split.test, False)):
        store = write_store(tmp_path / "toy.h5", [replace(sample, split=split) for sample in samples])
        np.savez(
            tmp_path / "x.npz", logits=logits, ids=[s.id for s in samples], classes=CLASSES, out_of_fold=True
        )
        assert load_table(Inputs(tmp_path / "x.npz", store)).two_d_out_of_fold == expected


def test_the_quality_of_a_face_is_in_degrees_and_shares_of_the_image(toy, tmp_path):
    samples, _, two = toy
    n = len(samples)
    angles = np.random.default_rng(0).uniform(-40, 40, (n, 3))  # yaw, pitch, roll
    pose = Rotation.from_euler("ZYX", angles[:, [2, 0, 1]], degrees=True).as_rotvec()
    faces = {
        "score": np.linspace(0, 1, n, dtype=np.float32),
        "size_wh": np.full((n, 2), (200, 100), np.int32),
        "xyxy": np.tile(np.array([10, 10, 60, 60], np.float32), (n, 1)),
        "count": np.full(n, 2, np.int16),
    }
    store = write_store(tmp_path / "toy.h5", samples, codes={"pose": pose}, missing=(4,), faces=faces)
    table = load_table(Inputs(two, store))
    quality = dict(zip(table.quality_columns, table.quality.T, strict=True))
    there = np.arange(n) != 4
    for column, name in enumerate(("yaw", "pitch", "roll")):
        assert np.allclose(quality[f"quality:{name}"][there], np.abs(angles[there, column]), atol=1e-3)
        assert np.isnan(quality[f"quality:{name}"][4])
    assert np.allclose(quality["quality:size"], 50 / np.sqrt(200 * 100))
    assert np.allclose(quality["quality:score"], np.linspace(0, 1, n)) and set(quality["quality:faces"]) == {
        2
    }
    assert table.take(np.array([3])).quality.shape == (1, 6)


def test_named_sets_and_blocks_may_be_joined():
    names = ["pose", "shape", "expression", "eyelid", "jaw"]
    sets = {"short": ["pose", "shape", "expression"]}
    assert choose_blocks("short,jaw", names, sets) == ("pose", "shape", "expression", "jaw")
    assert choose_blocks("jaw+full", names, sets) == ("jaw", "pose", "shape", "expression", "eyelid")
    assert choose_blocks("expression+pose", names) == ("expression", "pose")
    assert choose_blocks("expression+jaw", names) == ("expression", "jaw")
    with pytest.raises(
        UsageError,
        match=r"no block jaw; choose full, expression\+pose, short, or names among expression, pose",
    ):
        choose_blocks("jaw", ["expression", "pose"], {"short": ["pose"]})


def test_a_named_set_of_one_of_several_stores():
    stores = {"a": (["expression", "pose", "jaw"], {}), "b": (["expression", "jaw"], {})}
    assert choose_blocks_of("a:expression+jaw", stores) == {"a": ("expression", "jaw"), "b": ()}
    assert choose_blocks_of("a:expression+pose,b:jaw", stores) == {"a": ("expression", "pose"), "b": ("jaw",)}
    both = ("expression", "jaw")
    assert choose_blocks_of("expression+jaw", stores) == {"a": both, "b": both}


def test_predictions_of_the_first_dataset_alone_are_never_reported_as_the_last(tmp_path):
    parts = (Split.train, Split.test)
    first, ours = dataset(tmp_path / "a.h5", "a", CLASSES, parts, k=7)
    last, theirs = dataset(tmp_path / "b.h5", "b", CLASSES, parts, k=7)
    two = save(tmp_path / "two.npz", good_logits(ours), ids=[sample.id for sample in ours], classes=CLASSES)
    message = r"two.npz: no 2D predictions for the 30 labelled test rows of b.h5"
    with pytest.raises(PredictionsError, match=message):
        load_table(Inputs(two, [first, last]), allow_missing=True)
    _, (outcome,) = check_predictions(Inputs(two, [first, last]))
    assert len(outcome.problems) == 1 and "test rows of b.h5" in outcome.problems[0]
    # rows that are not used lack nothing
    both = [*ours[30:], *theirs[:30]]
    two = save(tmp_path / "two.npz", good_logits(both), ids=[sample.id for sample in both], classes=CLASSES)
    _, (outcome,) = check_predictions(Inputs(two, [first, last]))
    assert outcome.problems == ()


def test_one_store_under_two_names_is_refused(toy, tmp_path):
    samples, _, two = toy
    store = write_store(tmp_path / "once.h5", samples)
    shutil.copy(store, tmp_path / "again.h5")
    with pytest.raises(StoreError, match=r"and again.h5: both stores have the same content"):
        load_table(Inputs(two, [store, tmp_path / "again.h5"]))
