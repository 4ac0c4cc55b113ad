"""Rows are joined by the ids in their file, under any name; rows without ids are taken with care."""

from __future__ import annotations

import gzip
import os
import unicodedata

import numpy as np
import pandas
import pytest
from listed import Sample
from toy_stores import CLASSES, good_logits, make_samples, save, write_store

from ig3d.errors import PredictionsError
from ig3d.features.classes import PRESETS
from ig3d.features.inputs import Inputs
from ig3d.features.join import load_table
from ig3d.features.order import class_order_problem
from ig3d.features.predictions import load_predictions
from ig3d.features.samples import Split
from ig3d.features.table_reader import read_table


@pytest.fixture
def shuffled(tmp_path):
    """A store, its logits, and the order in which files list them: rows change places within their class only."""
    samples = make_samples(split=lambda row: (Split.train, Split.test)[row // 7 % 2])
    store = write_store(tmp_path / "toy.h5", samples)
    labels = np.array([sample.label for sample in samples])
    order = np.arange(len(labels))
    rng = np.random.default_rng(3)
    for label in range(7):
        order[labels == label] = rng.permutation(np.flatnonzero(labels == label))
    return store, good_logits(samples), [samples[row].path for row in order], order


def joined(path, store, **options):
    return load_table(Inputs(path, store), **options)


NAMES = ("img_path", "Image Name", "filepath", "fname", "KEY", "index", "", "Foto der Person")


@pytest.mark.parametrize("name", NAMES)
def test_a_text_column_or_array_that_matches_is_the_id(shuffled, tmp_path, name):
    store, logits, paths, order = shuffled
    frame = pandas.DataFrame(logits[order], columns=CLASSES)
    frame.insert(0, name, paths)
    frame.to_csv(tmp_path / "x.csv", index=False)
    np.savez(
        tmp_path / "x.npz", logits=logits[order], classes=np.array(CLASSES), **{name or "x": np.array(paths)}
    )
    for file in ("x.csv", "x.npz"):
        table = joined(tmp_path / file, store)
        assert np.array_equal(table.two_d, logits)
        assert any("rows matched" in note for note in table.notes)


def test_the_index_of_a_parquet_table_is_the_id(shuffled, tmp_path):
    store, logits, paths, order = shuffled
    for name in ("img", None):
        frame = pandas.DataFrame(logits[order], columns=CLASSES, index=pandas.Index(paths, name=name))
        frame.to_parquet(tmp_path / "x.parquet")
        assert np.array_equal(joined(tmp_path / "x.parquet", store).two_d, logits)


def test_ids_win_over_a_counter_and_other_text(shuffled, tmp_path):
    store, logits, paths, order = shuffled
    frame = pandas.DataFrame(logits[order], columns=CLASSES)
    frame.insert(0, "id", np.arange(len(paths)))
    frame["predicted"] = "happy"
    frame["seen_in"] = paths
    frame["image"] = [f"take {row // 2}" for row in range(len(paths))]
    frame.to_csv(tmp_path / "x.csv")
    assert np.array_equal(joined(tmp_path / "x.csv", store).two_d, logits)
    frame.drop(columns="id").to_csv(tmp_path / "x.csv")
    assert np.array_equal(joined(tmp_path / "x.csv", store).two_d, logits)


def test_text_that_matches_no_sample_is_refused_and_named(shuffled, tmp_path):
    store, logits, paths, _ = shuffled
    frame = pandas.DataFrame(logits, columns=CLASSES)
    frame["uuid"] = [f"a{row}" for row in range(len(paths))]
    frame["clip"] = [f"b{row}" for row in range(len(paths))]
    frame.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(PredictionsError, match=r"a0, a1.*uuid, clip"):
        joined(tmp_path / "x.csv", store)


def test_two_columns_that_match_different_samples_are_refused(shuffled, tmp_path):
    store, logits, paths, order = shuffled
    frame = pandas.DataFrame(logits[order], columns=CLASSES)
    frame["image"], frame["reference"] = paths, paths[::-1]
    frame.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(PredictionsError, match="image and reference"):
        joined(tmp_path / "x.csv", store)


def test_ids_saved_as_objects_are_read(shuffled, tmp_path):
    store, logits, paths, order = shuffled
    np.savez(tmp_path / "x.npz", ids=np.array(paths, dtype=object), logits=logits[order], classes=CLASSES)
    assert np.array_equal(joined(tmp_path / "x.npz", store).two_d, logits)
    np.save(tmp_path / "ids.npy", np.array(paths, dtype=object), allow_pickle=True)
    np.save(tmp_path / "x.npy", logits[order])
    table = load_table(Inputs(tmp_path / "x.npy", store, ids=tmp_path / "ids.npy"))
    assert np.array_equal(table.two_d, logits)


def test_a_class_with_two_columns_is_refused(tmp_path):
    for header in (
        "id,happy,sad,happy",
        "id,happy,sad,happy.1",
        "id,happy,sad,Happiness",
        "id,p_sad,happy,logit_sad",
    ):
        (tmp_path / "x.csv").write_text(f"{header}\na,1,2,3\n")
        with pytest.raises(PredictionsError, match=r"happy|sad"):
            load_predictions(tmp_path / "x.csv")


def spelt(text, encoding="utf-8", **changes):
    for old, new in changes.values():
        text = text.replace(old, new)
    return text.encode(encoding)


@pytest.mark.parametrize(
    "write",
    [
        lambda text: spelt(text, "utf-8-sig"),
        lambda text: spelt(text, "utf-16"),
        lambda text: spelt(text, "utf-16-le"),
        lambda text: spelt(text, ends=("\n", "\r\n")),
        lambda text: spelt(text, ends=("\n", "\r")),
        lambda text: spelt(text, ends=("\n", "\n\n")),
        lambda text: spelt(text, ends=("\n", "\n,,,,,,,\n")),
        lambda text: spelt(text, marks=(",", ";")),
        lambda text: spelt(text, points=(",", ";"), more=(".0", ",0")),
        lambda text: spelt(text, marks=(",", "\t")),
        lambda text: spelt(text, marks=(",", " , ")),
        lambda text: spelt(text, ends=("\n", ",\n")),
        lambda text: b"# made by hand\n" + spelt(text),
        lambda text: b"sep=;\n" + spelt(text, marks=(",", ";")),
        lambda text: gzip.compress(spelt(text)),
        lambda text: spelt(text, header=("id,", ""), ends=("\r", "")),
    ],
)
def test_a_table_reads_the_same_however_it_was_saved(tmp_path, write):
    text = "id," + ",".join(CLASSES) + "\n"
    text += "".join(f"b/é{row}," + ",".join(f"{row + c}.0" for c in range(7)) + "\n" for row in range(5))
    (tmp_path / "x.csv").write_bytes(write(text))
    read = load_predictions(tmp_path / "x.csv")
    assert read.ids.tolist() == [f"b/é{row}" for row in range(5)]
    assert read.columns == CLASSES and read.values[4].tolist() == [4, 5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_cells_stay_in_their_columns(tmp_path, end):
    # pandas' parser loses an empty first cell after a carriage return
    rows = ["a,b", "1,2", ",3", '"4', '5","6,7"', "\t ", " , ", " 8 ,'9"]
    (tmp_path / "x.csv").write_bytes(end.join(rows).encode())
    table, _ = read_table(tmp_path / "x.csv")
    assert table["a"].tolist() == ["1", "", f"4{end}5", "8"] and table["b"].tolist() == [
        "2",
        "3",
        "6,7",
        "'9",
    ]


def test_latin_1_is_read_with_a_warning(tmp_path):
    (tmp_path / "x.csv").write_bytes("id,happy,sad\nschön,1,2\n".encode("latin-1"))
    read = load_predictions(tmp_path / "x.csv")
    assert read.ids.tolist() == ["schön"] and any(
        "WARNING" in note and "Latin-1" in note for note in read.notes
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,happy,sad\na,1,2,3\n", "line 2 has 4 cells"),
        (b"id,happy,sad\na,1,2\nb,1\n", "line 3 has 2 cells"),
        (b"id,happy,sad\na,1,2\nb\x00,1,2\n", "line 3 has a NUL byte"),
        (b'id,happy,sad\n"' + b"a" * 200_000 + b'",1,2\n', "line 2: field larger"),
        (b"id,happy,sad\na,1," + b"9" * 5000 + b"\n", "infinity"),
        (b"id,happy,sad\na,1.7e308,-1.7e308\n", r"up to 1.7e\+308 in size"),
        (b'id,happy,sad\na,"1,2\nb,1,2\n', "line 3 has 2 cells"),
        (b"PK\x03\x04 sheet", "Excel workbook"),
        (gzip.compress(b"id,happy,sad\na,1,2\n", mtime=0)[:-9], "cannot be read as a table"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"a/1.jpg,.1,.9\nb/2.jpg,.2,.8\n", "add a header line"),
    ],
)
def test_a_damaged_table_is_one_clear_line(tmp_path, content, message):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(PredictionsError, match=message) as refusal:
        load_predictions(tmp_path / "x.csv")
    assert "\n" not in str(refusal.value)


def test_ids_in_another_case_are_refused_with_the_difference(shuffled, tmp_path):
    store, logits, paths, order = shuffled
    path = save(tmp_path / "x.npz", logits[order], ids=[name.upper() for name in paths], classes=CLASSES)
    with pytest.raises(
        PredictionsError, match=r"'TEST/1/IMG_\d+.JPG' is spelled differently from 'test/1/img_"
    ):
        joined(path, store)


def dotted(tmp_path, names):
    samples = make_samples(len(names), name=lambda row, label: f"happy/{names[row]}")
    samples = [Sample(s.id, s.id + ".jpg", s.label, s.split) for s in samples]
    return write_store(tmp_path / "dots.h5", samples), samples


def test_only_the_suffix_of_an_image_is_left_out(tmp_path):
    names = [f"clip{clip:03d}.{frame}00" for clip in range(10) for frame in range(1, 9)]
    store, samples = dotted(tmp_path, names)
    logits = good_logits(samples)
    for spell in (lambda s: s.id, lambda s: s.id.rpartition("/")[2], lambda s: s.id + ".png"):
        path = save(tmp_path / "x.npz", logits, ids=[spell(sample) for sample in samples], classes=CLASSES)
        assert np.array_equal(joined(path, store).two_d, logits)
    one_frame = [s.id.rpartition("/")[2].partition(".")[0] + ".900" for s in samples[::8]]
    path = save(tmp_path / "x.npz", logits[::8], ids=one_frame, classes=CLASSES)
    with pytest.raises(PredictionsError, match="10 of 10 ids cannot be matched"):
        joined(path, store)


def test_names_in_another_unicode_form_match_and_other_accents_do_not(tmp_path):
    store, samples = dotted(tmp_path, [f"caf\u00e9 {row}" for row in range(50)])
    logits = good_logits(samples)
    ids = [unicodedata.normalize("NFD", sample.id) for sample in samples]
    assert np.array_equal(
        joined(save(tmp_path / "x.npz", logits, ids=ids, classes=CLASSES), store).two_d, logits
    )
    ids = [sample.id.replace("\u00e9", "e") for sample in samples]
    with pytest.raises(
        PredictionsError, match=r"'happy/cafe 0' is spelled differently from 'happy/caf\\xe9 0'"
    ):
        joined(save(tmp_path / "x.npz", logits, ids=ids, classes=CLASSES), store)


@pytest.mark.parametrize("allow_missing", [False, True])
def test_rows_of_one_split_never_join_another(tmp_path, allow_missing):
    samples = make_samples(100, split=lambda row: Split.train, name=lambda row, label: f"train/{row:04d}")
    store = write_store(tmp_path / "toy.h5", samples)
    logits = good_logits(samples)
    for count in (100, 60):
        ids = [f"val/{row:04d}" for row in range(count)]
        path = save(tmp_path / "x.npz", logits[:count], ids=ids, classes=CLASSES)
        with pytest.raises(PredictionsError, match="cannot be matched"):
            joined(path, store, allow_missing=allow_missing)


def test_rows_that_match_by_file_name_only_are_never_left_out(tmp_path):
    samples = make_samples(100, name=lambda row, label: f"a/{row:04d}")
    store = write_store(tmp_path / "toy.h5", samples)
    ids = [f"b/{row:04d}" for row in range(50, 150)]
    path = save(tmp_path / "x.npz", good_logits(samples), ids=ids, classes=CLASSES)
    with pytest.raises(PredictionsError, match="cannot be matched"):
        joined(path, store, allow_missing=True)


def test_rows_without_ids_are_taken_with_a_warning_and_need_labels(tmp_path):
    samples = make_samples(100, split=lambda row: Split.train if row < 60 else Split.test)
    store = write_store(tmp_path / "toy.h5", samples)
    logits = good_logits(samples)
    np.save(tmp_path / "x.npy", logits)
    table = joined(tmp_path / "x.npy", store)
    assert any(note.startswith("WARNING x.npy: has no ids") for note in table.notes)
    bare = [Sample(s.id, s.path, -1, s.split) for s in samples]
    bare = write_store(tmp_path / "bare.h5", bare)
    with pytest.raises(PredictionsError, match="has no labels"):
        joined(tmp_path / "x.npy", bare, need_labels=False)


SIZES = (30, 30, 25, 160, 100, 70, 50)


def unequal(tmp_path):
    """Samples by class, of unequal sizes, as a folder lists them."""
    labels = np.repeat(np.arange(7), SIZES)
    samples = [
        Sample(f"{label}/{row:04d}", f"{label}/{row:04d}.jpg", int(label), Split.test)
        for row, label in enumerate(labels)
    ]
    return write_store(tmp_path / "toy.h5", samples), good_logits(samples, accuracy=0.65)


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 8, 11])
def test_rows_of_processes_are_a_problem_of_rows(tmp_path, processes):
    store, logits = unequal(tmp_path)
    order = [row for rank in range(processes) for row in range(rank, len(logits), processes)]
    if processes == 1:
        order = order[::-1]
    np.save(tmp_path / "x.npy", logits[order])
    with pytest.raises(PredictionsError, match=r"in the order of the samples.*--2d-ids") as refusal:
        joined(tmp_path / "x.npy", store)
    assert "class order" not in str(refusal.value) and "2d-classes" not in str(refusal.value)
    assert (f"{processes} processes" if processes > 1 else "backwards") in str(refusal.value)


@pytest.mark.parametrize("shift", [17, 40, 90, 200])
def test_shifted_rows_are_a_problem_of_rows(tmp_path, shift):
    store, logits = unequal(tmp_path)
    np.save(tmp_path / "x.npy", np.roll(logits, shift, axis=0))
    try:
        joined(tmp_path / "x.npy", store)
    except PredictionsError as refusal:
        assert "in the order of the samples" in str(refusal) and "under" not in str(refusal)


def test_shifted_rows_that_a_preset_fits_are_a_problem_of_rows(tmp_path):
    labels = np.concatenate([np.repeat(np.arange(7), 20)] * 2)
    samples = [Sample(f"x/{row:04d}", f"x/{row:04d}.jpg", int(label)) for row, label in enumerate(labels)]
    store = write_store(tmp_path / "toy.h5", samples, classes=PRESETS["alphabetical7"])
    logits = np.roll(good_logits(samples, accuracy=0.9), 90, axis=0)
    assert class_order_problem(logits.argmax(axis=1), labels, PRESETS["alphabetical7"]).endswith(
        "under resemotenet"
    )
    np.save(tmp_path / "x.npy", logits)
    with pytest.raises(PredictionsError, match="in the order of the samples") as refusal:
        joined(tmp_path / "x.npy", store)
    assert "under" not in str(refusal.value)


def test_an_order_of_classes_that_happens_to_fit_wrong_rows_is_not_accepted(tmp_path):
    store, logits = unequal(tmp_path)
    order = [row for rank in range(4) for row in range(rank, len(logits), 4)]
    np.save(tmp_path / "x.npy", logits[order])
    for classes in (
        "happy,disgust,fear,surprise,sad,anger,neutral",
        "neutral,anger,sad,happy,disgust,fear,surprise",
    ):
        with pytest.raises(PredictionsError):
            load_table(Inputs(tmp_path / "x.npy", store, classes=classes))


def test_a_preset_within_noise_of_the_best_permutation_is_suggested():
    columns = ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    meaning = np.array([columns.index(name) for name in CLASSES])  # of the file's columns, in RAF-DB's order
    column_of = np.argsort(meaning)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        labels = rng.choice(7, 400, p=[0.03, 0.03, 0.09, 0.45, 0.2, 0.15, 0.05])
        right = rng.random(400) < 0.7
        right[labels < 2] = False
        answers = np.where(right, labels, rng.integers(3, 7, 400))
        answers[labels == 0], answers[labels == 1] = 1, 0  # anger and disgust are taken for each other
        problem = class_order_problem(column_of[answers], labels, columns)
        assert problem is not None and "under rafdb" in problem, seed


def test_a_free_order_of_classes_is_suggested_for_rows_with_ids_only(tmp_path):
    store, logits = unequal(tmp_path)
    order = [3, 0, 6, 1, 5, 2, 4]
    ids = [f"{label}/{row:04d}" for row, label in enumerate(np.repeat(np.arange(7), SIZES))]
    np.savez(tmp_path / "x.npz", ids=ids, logits=logits[:, order])
    names = ",".join(CLASSES[column] for column in order)
    with pytest.raises(PredictionsError, match=f"under {names}; give the order"):
        joined(tmp_path / "x.npz", store)
    np.save(tmp_path / "x.npy", logits[:, order])
    with pytest.raises(PredictionsError, match="in the order of the samples") as refusal:
        joined(tmp_path / "x.npy", store)
    assert names not in str(refusal.value)
    np.save(tmp_path / "x.npy", logits[:, [CLASSES.index(name) for name in PRESETS["affectnet7"]]])
    with pytest.raises(PredictionsError, match="under affectnet7"):
        joined(tmp_path / "x.npy", store)


def test_valence_and_arousal_in_wrong_rows_are_a_problem_of_rows(tmp_path):
    samples = make_samples(300)
    store = write_store(tmp_path / "toy.h5", samples)
    values = np.array([(sample.arousal, sample.valence) for sample in samples])[::-1]
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(PredictionsError, match=r"backwards.*--2d-ids"):
        load_table(Inputs(tmp_path / "x.npy", store, task="va"))


def test_lists_of_ids_are_read_in_any_encoding(tmp_path):
    np.save(tmp_path / "x.npy", np.eye(2))
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "latin-1"):
        (tmp_path / "ids.txt").write_bytes("caf\u00e9\r\nb\r\n\r\n".encode(encoding))
        read = load_predictions(tmp_path / "x.npy", ids_file=tmp_path / "ids.txt")
        assert read.ids.tolist() == ["caf\u00e9", "b"]


def test_more_columns_than_classes_can_be_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 40_000)))
    with pytest.raises(PredictionsError, match="40000 columns, more than the 1000 classes"):
        load_predictions(tmp_path / "x.npy")


def test_pipes_without_a_writer_and_devices_do_not_hang(tmp_path):
    for name in ("x.npy", "x.csv"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(PredictionsError, match=r"is a device, a pipe|the table is empty"):
            load_predictions(tmp_path / name)
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    with pytest.raises(PredictionsError, match="device"):
        load_predictions(tmp_path / "zero.csv")


def numbered(tmp_path, order=None):
    """A store whose samples are named by numbers (happy/12), its logits, and the number in each sample's name."""
    samples = make_samples(split=lambda row: (Split.train, Split.test)[row // 7 % 2])
    samples = [
        Sample(f"{CLASSES[s.label]}/{row + 1}", f"{row}.jpg", s.label, s.split)
        for row, s in enumerate(samples)
    ]
    samples.sort(key=lambda sample: sample.id.encode())
    store = write_store(tmp_path / "numbers.h5", samples)
    return store, good_logits(samples), np.array([int(s.id.rpartition("/")[2]) for s in samples])


@pytest.mark.parametrize("name", ["photo_id", "picture number", "idx", "frame", "arr_0"])
def test_numbers_that_all_name_samples_are_the_ids(tmp_path, name):
    store, logits, numbers = numbered(tmp_path)
    order = np.arange(len(numbers))
    order[::2] = order[::2][::-1]
    frame = pandas.DataFrame(logits[order], columns=CLASSES)
    frame[name], frame["width"], frame["person"] = numbers[order], 224, "S1"
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    np.savez(tmp_path / "x.npz", logits=logits[order], classes=np.array(CLASSES), **{name: numbers[order]})
    for file in ("x.csv", "x.parquet", "x.npz"):
        table = joined(tmp_path / file, store)
        assert np.array_equal(table.two_d, logits)
        assert any(f"(ids: {name})" in note for note in table.notes)


def test_numbers_that_may_count_the_rows_or_name_samples_are_refused(tmp_path):
    samples = [
        Sample(f"{CLASSES[s.label]}/{row}", f"{row}.jpg", s.label, s.split)
        for row, s in enumerate(make_samples())
    ]
    samples.sort(key=lambda sample: sample.id.encode())
    store = write_store(tmp_path / "numbers.h5", samples)
    frame = pandas.DataFrame(good_logits(samples), columns=CLASSES)
    frame.to_csv(tmp_path / "x.csv")
    with pytest.raises(PredictionsError, match=r"numbers in column Unnamed: 0.* rename the column to id"):
        joined(tmp_path / "x.csv", store)
    frame.to_csv(tmp_path / "x.csv", index=False)
    assert np.array_equal(joined(tmp_path / "x.csv", store).two_d, frame.to_numpy())


def test_file_names_that_several_samples_have_are_refused(tmp_path):
    samples = make_samples(name=lambda row, label: f"{CLASSES[label]}/clip.{row // 7}")
    store = write_store(tmp_path / "toy.h5", samples)
    frame = pandas.DataFrame(good_logits(samples), columns=CLASSES)
    frame["class folder"] = [sample.id.partition("/")[0] for sample in samples]
    assert np.array_equal(joined(save_table(frame, tmp_path), store).two_d, frame[list(CLASSES)].to_numpy())
    for names in (
        [sample.id.partition("/")[2] for sample in samples],
        [sample.path.rpartition("/")[2] for sample in samples],
    ):
        frame["clip"] = names
        with pytest.raises(PredictionsError, match=r"the names in column clip .* \(clip\.0"):
            joined(save_table(frame, tmp_path), store)


def save_table(frame, tmp_path):
    frame.to_csv(tmp_path / "x.csv", index=False)
    return tmp_path / "x.csv"


def test_ids_in_one_column_of_a_table_of_text_are_found(shuffled, tmp_path):
    store, logits, paths, order = shuffled
    text = np.array([["happy", path] for path in paths])
    np.savez(tmp_path / "x.npz", logits=logits[order], classes=np.array(CLASSES), meta=text)
    assert np.array_equal(joined(tmp_path / "x.npz", store).two_d, logits)


def test_lists_in_a_parquet_table_are_no_ids(shuffled, tmp_path):
    store, logits, paths, order = shuffled
    frame = pandas.DataFrame({"file": paths, "logits": list(logits[order])})
    frame.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(PredictionsError, match="a column per class"):
        joined(tmp_path / "x.parquet", store)
    frame[list(CLASSES)] = logits[order]
    frame.to_parquet(tmp_path / "x.parquet")
    assert np.array_equal(joined(tmp_path / "x.parquet", store).two_d, logits)


@pytest.mark.parametrize("column", ["id", "name", "sha"])
def test_the_labels_are_joined_by_the_column_that_matches(shuffled, tmp_path, column):
    store, logits, paths, order = shuffled
    path = save(tmp_path / "x.npz", logits[order], ids=paths, classes=CLASSES)
    labels = joined(path, store).labels
    frame = pandas.DataFrame({column: [f"u{row}" for row in range(len(paths))], "seen in": paths})
    frame["label"] = [CLASSES[label] for label in labels[order]]
    frame.to_csv(tmp_path / "labels.csv", index=False)
    table = load_table(Inputs(path, store, labels=tmp_path / "labels.csv"))
    assert np.array_equal(table.labels, labels)


def test_a_file_of_ids_is_read_by_the_column_or_array_that_matches(shuffled, tmp_path):
    store, logits, paths, order = shuffled
    np.save(tmp_path / "x.npy", logits[order])
    frame = pandas.DataFrame({"id": range(len(paths)), "sha": [f"u{row}" for row in order], "seen in": paths})
    frame.to_csv(tmp_path / "ids.csv", index=False)
    np.savez(tmp_path / "ids.npz", places=np.array(paths), sha=np.array(frame["sha"], str), n=np.arange(3))
    for ids in ("ids.csv", "ids.npz"):
        table = load_table(Inputs(tmp_path / "x.npy", store, ids=tmp_path / ids))
        assert np.array_equal(table.two_d, logits)


def test_predictions_of_images_for_a_store_of_all_faces_have_advice(tmp_path):
    ids = [f"test/happy/{n}{face}" for n in range(4) for face in ("", "@1")]
    samples = [Sample(sample, f"{sample.removesuffix('@1')}.jpg", label=0) for sample in ids]
    store = write_store(tmp_path / "all.h5", samples)
    path = save(tmp_path / "x.npz", np.eye(7)[[0] * 5], ids=[*ids[::2], "test/happy/9"])
    with pytest.raises(PredictionsError, match=r"4 further faces of images .*ig3d logits --like STORE"):
        load_table(Inputs(path, store))
