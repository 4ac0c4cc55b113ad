"""The column order of every preset is understood, and a wrong one is found out; the figures never depend on it."""

from __future__ import annotations

import numpy as np
import pytest
from toy_stores import good_logits, make_samples, save, write_store

from ig3d.errors import PredictionsError
from ig3d.features.classes import NETWORKS, PRESETS, parse_classes
from ig3d.features.inputs import Inputs
from ig3d.features.join import load_table
from ig3d.features.samples import Split
from ig3d.learn.evaluate.figures import figure
from ig3d.learn.fuse import FuseConfig, fuse_files

CONFIG = FuseConfig(rules=("mean",), head="linear", folds=2, draws=100, repeats=1, model=False)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_gives_the_figures_of_the_store_order_and_a_wrong_one_is_caught(tmp_path, preset):
    order = PRESETS[preset]
    classes, k = tuple(sorted(order)), len(order)  # the store has another order
    samples = make_samples(24 * k, k=k, split=lambda row: Split.train if row % (2 * k) < k else Split.test)
    labels = np.array([sample.label for sample in samples])
    codes = np.eye(k)[labels] + np.random.default_rng(2).normal(0, 0.6, (len(samples), k))
    store = write_store(tmp_path / "toy.h5", samples, classes=classes, codes={"expression": codes})
    reported = np.array([sample.split == Split.test for sample in samples])
    ids = np.array([sample.id for sample in samples])[reported]
    logits = good_logits(samples, k=k)[reported]
    theirs = logits[:, [classes.index(name) for name in order]]

    plain = fuse_files(Inputs(save(tmp_path / "store.npz", logits, ids=ids), store), CONFIG)
    path = save(tmp_path / "preset.npz", theirs, ids=ids)
    declared = fuse_files(Inputs(path, store, classes=preset), CONFIG)
    right = np.mean(logits.argmax(1) == labels[reported])
    assert figure(plain.figures, "2d", "accuracy").value == pytest.approx(right, abs=1e-9)
    assert declared.figures.equals(plain.figures)
    named = load_table(Inputs(save(tmp_path / "named.npz", theirs, ids=ids, classes=order), store))
    assert np.array_equal(named.two_d[named.has_2d], logits)

    wrong = [name for name, other in PRESETS.items() if set(other) == set(order) and other != order]
    wrong = wrong or [",".join(order[::-1])]
    if classes != order:
        wrong.append(",".join(classes))
    for other in wrong:
        with pytest.raises(
            PredictionsError, match=r"preset.npz: the class order seems wrong.* give the order with"
        ):
            load_table(Inputs(path, store, classes=other))


@pytest.mark.parametrize("preset", [name for name, order in PRESETS.items() if "contempt" in order])
def test_eight_classes_on_seven_are_the_same_in_every_order(tmp_path, preset):
    eight, seven = PRESETS[preset], PRESETS["rafdb"]
    samples = make_samples()
    store = write_store(tmp_path / "toy.h5", samples)
    ids, logits = [sample.id for sample in samples], good_logits(samples)
    whole = np.zeros((len(samples), 8))
    whole[:, [eight.index(name) for name in seven]] = logits
    path = save(tmp_path / "eight.npz", whole, ids=ids)
    assert np.array_equal(load_table(Inputs(path, store, classes=preset)).two_d, logits)
    other = "affectnet8" if preset == "alphabetical8" else "alphabetical8"
    with pytest.raises(PredictionsError, match=f"under {preset}; give the order with --2d-classes"):
        load_table(Inputs(path, store, classes=other))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_by_its_name_is_read_in_its_order_whatever_number_of_classes_it_has(tmp_path, network):
    for preset in NETWORKS[network]:
        order = PRESETS[preset]
        classes, k = tuple(sorted(order)), len(order)
        samples = make_samples(20 * k, k=k)
        store = write_store(tmp_path / "toy.h5", samples, classes=classes)
        ids, logits = [sample.id for sample in samples], good_logits(samples, k=k)
        path = save(tmp_path / "x.npz", logits[:, [classes.index(name) for name in order]], ids=ids)
        assert np.array_equal(load_table(Inputs(path, store, classes=network)).two_d, logits)
        if classes != order:
            with pytest.raises(PredictionsError, match="give the order with --2d-classes"):
                load_table(Inputs(path, store))


LETTERS = dict(zip(["N", "H", "Sa", "Su", "F", "D", "A", "C"], PRESETS["affectnet8"], strict=True))


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ("affectnet8 affectnet ddamfn poster-affectnet dan-affectnet cage pyfeat-v2", "N H Sa Su F D A C"),
        ("emonet openface3 libreface", "N H Sa Su F D A C"),
        ("affectnet7 affectnet ddamfn poster-affectnet dan-affectnet cage pyfeat-v2", "N H Sa Su F D A"),
        ("rafdb poster-rafdb dan-rafdb ddamfn-ig3d-rafdb", "Su F D H Sa A N"),
        ("alphabetical8 alphabetical emotiefflib hsemotion kollias", "A C D F H N Sa Su"),
        ("alphabetical7 alphabetical emotiefflib hsemotion kollias sfew", "A D F H N Sa Su"),
        ("fer2013 deepface pyfeat-v1", "A D F H Sa Su N"),
        ("apvit7 apvit", "A D F Sa H Su N"),
        ("apvit8 apvit", "A D F Sa H Su N C"),
        ("ferplus", "N H Su Sa A D F C"),
        ("resemotenet", "H Su Sa A D F N"),
    ],
)
def test_orders_are_those_of_the_networks(names, order):
    expected = tuple(LETTERS[letter] for letter in order.split())
    for name in names.split():
        assert parse_classes(name, columns=len(expected)) == expected
