"""Predictions as files hold them: formats, kinds, ids, and what is refused."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ig3d.errors import MissingExtra, PredictionsError, UsageError
from ig3d.features.prediction_files import load_ids
from ig3d.features.predictions import Predictions, load_predictions, log_softmax

LOGITS = np.array([[2.0, -1.0, 0.5], [0.1, 0.2, 3.0]])
CLASSES = ("happy", "sad", "anger")
IDS = np.array(["a/1", "a/2"])


def softmax(scores):
    odds = np.exp(scores)
    return odds / odds.sum(axis=1, keepdims=True)


def test_saved_predictions_come_back_with_ids_and_classes_and_equal_bytes(tmp_path):
    predictions = Predictions(LOGITS, "logits", CLASSES, IDS)
    predictions.save(tmp_path / "x.npz")
    predictions.save(tmp_path / "y.npz")
    back = load_predictions(tmp_path / "x.npz")
    assert np.array_equal(back.values, LOGITS) and back.kind == "logits"
    assert back.columns == CLASSES and back.ids.tolist() == IDS.tolist()
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "y.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npz", "y.npz"]


def test_saved_valence_and_arousal_come_back(tmp_path):
    Predictions(LOGITS[:, :2] / 2, "va", ("valence", "arousal"), IDS).save(tmp_path / "x.npz")
    back = load_predictions(tmp_path / "x.npz")
    assert back.kind == "va" and back.columns == ("valence", "arousal")
    assert np.array_equal(back.values, LOGITS[:, :2] / 2)


@pytest.mark.parametrize(
    ("values", "kind", "word"),
    [
        (LOGITS, "logits", "logits"),
        (softmax(LOGITS), "probabilities", "probabilities"),
        (softmax(LOGITS) * 100, "probabilities", "per cent"),
        (np.log(softmax(LOGITS)), "logits", "log-probabilities"),
        (softmax(LOGITS).astype(np.float16), "probabilities", "probabilities"),
    ],
    ids=["logits", "probabilities", "per-cent", "log-probabilities", "half-precision"],
)
def test_logits_and_probabilities_are_distinguished_and_equivalent(tmp_path, values, kind, word):
    np.save(tmp_path / "x.npy", values)
    read = load_predictions(tmp_path / "x.npy")
    assert read.kind == kind and word in read.notes[0]
    assert np.allclose(log_softmax(read.scores()), np.log(softmax(LOGITS)), atol=2e-3)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[0.2, 0.3, 0.1], [0.2, 0.3, 0.5]]), r"in \[0, 1\], but 1 row of 2 do not sum to 1"),
        (np.vstack([softmax(LOGITS), [[4.0, -2.0, 1.0]]]), "2 of 3 rows look like probabilities"),
    ],
    ids=["cut after the softmax", "mixed"],
)
def test_what_is_neither_probabilities_nor_logits_is_warned_of(tmp_path, values, words):
    np.save(tmp_path / "x.npy", values)
    read = load_predictions(tmp_path / "x.npy")
    assert read.kind == "logits" and np.array_equal(read.values, values)
    assert read.notes[0].startswith("WARNING") and re.search(words, read.notes[0])


def test_out_of_fold_is_stored_and_read(tmp_path):
    for stated in (True, False):
        Predictions(LOGITS, "logits", CLASSES, out_of_fold=stated).save(tmp_path / "x.npz")
        assert load_predictions(tmp_path / "x.npz").out_of_fold == stated
    np.savez(tmp_path / "x.npz", logits=LOGITS, out_of_fold=np.array(["yes", "no"]))
    with pytest.raises(PredictionsError, match=r"out_of_fold is .*; save it as true or false"):
        load_predictions(tmp_path / "x.npz")


def test_log_softmax_agrees_with_scipy():
    from scipy.special import log_softmax as reference

    scores = np.random.default_rng(0).normal(size=(50, 8)) * 40
    assert np.allclose(log_softmax(scores), reference(scores, axis=1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_tables_are_read_by_column_name(tmp_path, suffix):
    import pandas

    frame = pandas.DataFrame(
        {
            "p_Anger": LOGITS[:, 2],
            "extra": ["x", "y"],
            "ID": ["0001", "0002"],
            "joy": LOGITS[:, 0],
            "Sadness": LOGITS[:, 1],
        }
    )
    path = tmp_path / f"x.{suffix}"
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="needs the extra parquet")
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    read = load_predictions(path)
    assert read.columns == ("anger", "happy", "sad")
    assert read.ids.tolist() == ["0001", "0002"]
    assert np.allclose(read.values, LOGITS[:, [2, 0, 1]])


def test_a_table_with_classes_and_valence_is_read_as_asked(tmp_path):
    (tmp_path / "x.csv").write_text("id,happy,sad,arousal,valence\na,1,2,.3,.4\nb,3,4,.5,.6\n")
    assert load_predictions(tmp_path / "x.csv").columns == ("happy", "sad")
    va = load_predictions(tmp_path / "x.csv", task="va")
    assert va.kind == "va" and va.values.tolist() == [[0.4, 0.3], [0.6, 0.5]]


def test_numbered_columns_and_foreign_names(tmp_path):
    (tmp_path / "x.csv").write_text("image,logit_1,logit_0\na,1,2\n")
    read = load_predictions(tmp_path / "x.csv")
    assert read.columns == () and read.values.tolist() == [[2.0, 1.0]]
    (tmp_path / "y.csv").write_text("id,Confusion,Boredom\na,1,2\n")
    assert load_predictions(tmp_path / "y.csv", more_classes=("Boredom", "Confusion")).columns == (
        "Confusion",
        "Boredom",
    )
    with pytest.raises(PredictionsError, match="give a column per class"):
        load_predictions(tmp_path / "y.csv")


def test_npz_of_valence_and_arousal_arrays(tmp_path):
    np.savez(tmp_path / "x.npz", ids=np.array([b"a", b"b"]), arousal=[0.1, 0.2], valence=[0.3, 0.4])
    read = load_predictions(tmp_path / "x.npz")
    assert read.values.tolist() == [[0.3, 0.1], [0.4, 0.2]] and read.ids.tolist() == ["a", "b"]


@pytest.mark.parametrize("name", ["ids.txt", "ids.npy", "ids.npz", "ids.csv"])
def test_ids_come_from_a_file_of_their_own(tmp_path, name):
    np.save(tmp_path / "x.npy", LOGITS)
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, IDS)
    elif name.endswith("npz"):
        np.savez(path, ids=IDS)
    else:
        path.write_text("id,other\na/1,3\na/2,4\n" if name.endswith("csv") else "a/1\na/2\n\n")
    assert next(iter(load_ids(path).values())).tolist() == IDS.tolist()
    assert load_predictions(tmp_path / "x.npy", ids_file=path).ids.tolist() == IDS.tolist()


def test_ids_from_two_places_must_be_the_same(tmp_path):
    np.savez(tmp_path / "x.npz", logits=LOGITS, ids=IDS)
    (tmp_path / "same.txt").write_text("a/1\na/2\n")
    (tmp_path / "other.txt").write_text("a/2\na/1\n")
    assert load_predictions(tmp_path / "x.npz", ids_file=tmp_path / "same.txt").ids.tolist() == IDS.tolist()
    with pytest.raises(
        PredictionsError, match=r"its ids \(a/1, a/2\) differ from those of .*; omit --2d-ids"
    ):
        load_predictions(tmp_path / "x.npz", ids_file=tmp_path / "other.txt")


@pytest.mark.parametrize("suffix", ["npz", "npy", "csv"])
def test_valence_and_arousal_on_another_scale_are_refused(tmp_path, suffix):
    def written(values):
        path = tmp_path / f"x.{suffix}"
        if suffix == "npz":
            np.savez(path, va=values)
        elif suffix == "npy":
            np.save(path, values)
        else:
            path.write_text("id,valence,arousal\n" + "".join(f"{v},{v},{a}\n" for v, a in values))
        return load_predictions(path, task="va")

    assert not any("outside" in note for note in written(np.array([[-1.0, 0.5], [0.2, 1.0]])).notes)
    near = written(np.array([[-1.25, 0.5], [0.2, 1.0]]))
    assert near.values[0, 0] == -1.25 and "from -1.25 to 1, 1 row outside [-1, 1]" in near.notes[-1]
    for far in ([[-98.0, 50.0], [20.0, 97.0]], [[0.1, 0.2], [0.3, 1.6]], [[0.1, -1.6], [0.3, 0.4]]):
        with pytest.raises(PredictionsError, match=f"range from {np.min(far):g} to {np.max(far):g}"):
            written(np.array(far))


@pytest.mark.parametrize("name", ["ids", "paths", "classes"])
def test_text_saved_as_objects_is_read(tmp_path, name):
    text = ["happy", "sad", "anger"] if name == "classes" else ["a", "b"]
    np.savez(tmp_path / "x.npz", logits=LOGITS, **{name: np.array(text, dtype=object)})
    read = load_predictions(tmp_path / "x.npz")
    assert list(read.columns if name == "classes" else read.ids) == text


def test_python_objects_are_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was executed",))

    np.save(tmp_path / "x.npy", np.array([Trap(), Trap()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", logits=LOGITS, ids=np.array([Trap(), Trap()], dtype=object))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(PredictionsError, match="Python objects, which are never executed"):
            load_predictions(tmp_path / name)


@pytest.mark.parametrize("ids", [IDS.tolist(), tuple(IDS)])
def test_torch_files_are_read_as_tensors_or_dicts(tmp_path, ids):
    torch = pytest.importorskip("torch")
    torch.save(torch.tensor(LOGITS), tmp_path / "x.pt")
    read = load_predictions(tmp_path / "x.pt")
    assert read.ids is None and np.array_equal(read.values, LOGITS)
    content = {"ids": ids, "logits": torch.tensor(LOGITS), "classes": list(CLASSES), "out_of_fold": True}
    torch.save(content | {"epoch": 3, "options": Path("x")}, tmp_path / "y.pth")
    read = load_predictions(tmp_path / "y.pth")
    assert read.ids.tolist() == IDS.tolist() and read.columns == CLASSES and read.out_of_fold
    assert np.array_equal(read.values, LOGITS)
    torch.save({"logits": [torch.tensor(row) for row in LOGITS], "paths": ids}, tmp_path / "z.pt")
    read = load_predictions(tmp_path / "z.pt")
    assert read.ids.tolist() == IDS.tolist() and np.array_equal(read.values, LOGITS)
    torch.save({"conv.weight": torch.zeros(3, 3)}, tmp_path / "net.pt")
    with pytest.raises(PredictionsError, match=r"no array named logits .* has conv\.weight"):
        load_predictions(tmp_path / "net.pt")
    torch.save(torch.tensor(LOGITS), tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert np.array_equal(load_predictions(tmp_path / "x.pt").values, LOGITS)


NAN = np.array([[1.0, np.nan], [np.inf, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((NAN, "logits"), r"in 2 of 3 rows \(row 0, row 1\)"),
        ((NAN, "logits", (), np.array(["u", "v", "w"])), r"in 2 of 3 rows \(u, v\)"),
        ((LOGITS, "logits", CLASSES, np.array(["u", "u"])), r"1 duplicate id \(u\)"),
        ((LOGITS, "logits", CLASSES, np.array(["u"])), "1 id for 2 rows"),
        ((LOGITS, "logits", CLASSES, np.array(["u", ""])), "empty id"),
        ((LOGITS, "logits", CLASSES[:2]), r"3 columns, but 2 names \(happy, sad\)"),
        ((LOGITS[:, :1], "logits"), "at least 2 columns"),
        ((LOGITS[0], "logits"), "shape"),
        ((LOGITS[:0], "logits"), "shape"),
        ((np.array([["a", "b"]]), "logits"), "must be numbers"),
        ((LOGITS, "odds"), "choose one of logits"),
    ],
)
def test_malformed_rows_are_refused_with_counts(arguments, message):
    with pytest.raises(PredictionsError, match=message):
        Predictions(*arguments)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", b"", "cannot be read as a NumPy file"),
        ("x.npz", b"PK\x03\x04 cut short", "cannot be read as a NumPy file"),
        (
            "x.npz",
            b"id,happy\n",
            r"is not a NumPy file \(it begins with b'id,happy'\); save a",
        ),
        (
            "x.npy",
            pickle.dumps([1]),
            "is a Python pickle, which is never executed; save",
        ),
        ("x.csv", b"", "the table is empty"),
        ("x.csv", b"id,happy,sad\n", "has no rows"),
        ("x.csv", b"id,happy,sad\na,1,none\n", r"NaN, infinity or text in 1 of 1 row \(a\)"),
        ("x.csv", b"\xff\xfe\x00", "UTF-16.* cannot be decoded"),
        ("x.parquet", b"no parquet", "cannot be read as a table"),
        ("x.txt", b"", "save them as .npz, .npy"),
        ("x.pt", b"", "no checkpoint"),
        ("x.pt", b"id,happy\n", "no checkpoint"),
        ("x.pt", pickle.dumps({"logits": Fraction(1)}), "Python objects, which are never executed"),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PredictionsError, match=message) as refusal:
        load_predictions(tmp_path / name)
    assert "\n" not in str(refusal.value)


def test_npz_without_predictions_and_false_probabilities(tmp_path):
    np.savez(tmp_path / "x.npz", ids=IDS, features=LOGITS)
    with pytest.raises(PredictionsError, match="the file has ids, features"):
        load_predictions(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", probabilities=LOGITS)
    with pytest.raises(PredictionsError, match="in 2 of 2 rows the probabilities do not sum to 1 or 100"):
        load_predictions(tmp_path / "y.npz")


def test_given_class_names_go_before_the_files_own(tmp_path):
    np.savez(tmp_path / "x.npz", logits=LOGITS, classes=np.array(CLASSES))
    assert load_predictions(tmp_path / "x.npz", classes=("joy", "sad", "angry")).columns == CLASSES
    assert not any("instead of" in n for n in load_predictions(tmp_path / "x.npz", classes=CLASSES).notes)
    read = load_predictions(tmp_path / "x.npz", classes=("sad", "happy", "anger"))
    assert read.columns == ("sad", "happy", "anger") and np.array_equal(read.values, LOGITS)
    assert (
        "read as sad, happy, anger, as requested, instead of the names in the file (happy, sad, anger)"
        in read.notes[0]
    )
    (tmp_path / "x.csv").write_text("id,happy,sad\na,1,2\n")
    read = load_predictions(tmp_path / "x.csv", classes=("sad", "happy"))
    assert read.columns == ("sad", "happy") and read.values.tolist() == [[1.0, 2.0]]
    np.savez(tmp_path / "y.npz", logits=LOGITS, classes=np.array(["joy", "happy", "sad"]))
    with pytest.raises(UsageError, match="happy occurs twice"):
        load_predictions(tmp_path / "y.npz")


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'ig3d\[parquet\]'"):
        load_predictions(tmp_path / "x.parquet")


def test_reading_predictions_imports_nothing_heavy():
    code = (
        "import sys, ig3d.features.join, ig3d.learn.config; "
        "print([name for name in ('pandas', 'scipy', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_of_columns_may_hold_valence_and_arousal(tmp_path):
    values = np.concatenate([LOGITS, [[0.1, 0.2], [0.3, 0.4]]], axis=1)
    np.savez(tmp_path / "x.npz", logits=values[:, [4, 0, 1, 2, 3]], ids=IDS)
    names = ",".join(("Arousal", *CLASSES, "valence"))
    read = load_predictions(tmp_path / "x.npz", classes=names)
    assert read.columns == CLASSES and np.array_equal(read.values, LOGITS)
    assert "x.npz: valence and arousal left out (--task va takes them)" in read.notes
    read = load_predictions(tmp_path / "x.npz", classes=names, task="va")
    assert (read.kind, read.columns) == ("va", ("valence", "arousal"))
    assert read.values.tolist() == [[0.1, 0.2], [0.3, 0.4]]


@pytest.mark.parametrize("form", ["csv", "npz"])
def test_a_note_reports_valence_and_arousal_beside_classes(tmp_path, form):
    path = tmp_path / f"x.{form}"
    if form == "csv":
        path.write_text("id,happy,sad,arousal,valence\na,1,2,.3,.4\nb,3,4,.5,.6\n")
    else:
        np.savez(path, logits=LOGITS, ids=IDS, va=LOGITS[:, :2] / 9)
    note = f"{path.name}: its valence and arousal left out (--task va takes them)"
    assert note in load_predictions(path).notes
    assert note not in load_predictions(path, task="va").notes
