"""Presets of published networks, by the command line: columns get the right names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_networks import features_by_formula, pictures, weights, write_clone

from ig3d.features.predictions import load_predictions
from ig3d.networks.load import NetworkSpec, load_network
from ig3d.networks.presets import PRESETS

Program = Callable[..., object]

WORDS = {
    "N": "neutral", "H": "happy", "Sa": "sad", "Su": "surprise", "F": "fear", "D": "disgust", "A": "anger",
    "C": "contempt",
}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """Published network: its official class order, and the form of its outputs.

    ``va`` has a letter each for valence and arousal, in the order in which they follow the classes.
    """

    preset: str
    order: str
    va: str = ""
    form: str = "tensor"
    size: int = 224


AFFECTNET = "N H Sa Su F D A C"
RAF = "Su F D H Sa A N"
FORMS = [
    Form("ddamfn", AFFECTNET, form="triple", size=112),
    Form("ddamfn", AFFECTNET[:-2], form="triple", size=112),
    Form("ddamfn-ig3d-rafdb", RAF, form="triple", size=112),
    Form("poster-rafdb", RAF),
    Form("poster-affectnet", AFFECTNET),
    Form("poster-affectnet", AFFECTNET[:-2]),
    Form("dan-rafdb", RAF, form="triple"),
    Form("dan-affectnet", AFFECTNET, form="triple"),
    Form("dan-affectnet", AFFECTNET[:-2], form="triple"),
    Form("cage", AFFECTNET, va="va"),
    Form("cage", AFFECTNET[:-2], va="va"),
    Form("cage-va", "", va="va"),
    Form("hsemotion", "A C D F H N Sa Su"),
    Form("hsemotion", "A D F H N Sa Su"),
    Form("hsemotion", "A C D F H N Sa Su", va="va"),
    Form("apvit", "A D F Sa H Su N", size=112),
    Form("apvit", "A D F Sa H Su N C", size=112),
    Form("emonet", AFFECTNET, va="va", form="dict", size=256),
    Form("openface3", AFFECTNET),
    Form("resemotenet", "H Su Sa A D F N", size=64),
    Form("ferplus", "N H Su Sa A D F C"),
    Form("kollias", "A C D F H N Sa Su"),
    Form("kollias", "A D F H N Sa Su"),
    Form("pyfeat-v1", "A D F H Sa Su N"),
    Form("pyfeat-v2", AFFECTNET, va="va"),
    Form("pyfeat-v2", AFFECTNET[:-2], va="va"),
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    pictures(root / "happy", 2)
    pictures(root / "sad", 2)
    return root


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.preset}-{len(form.order.split())}{form.va}")
def test_columns_have_the_right_names(
    ig3d: Program, clone: Path, images: Path, tmp_path: Path, form: Form
) -> None:
    order = [WORDS[letter] for letter in form.order.split()]
    call = f"{clone}:Fixed({len(order)}, va={form.va!r}, form={form.form!r})"
    out = tmp_path / "x.npz"
    ended = ig3d("logits", images, "--network", call, "--preset", form.preset, "--out", out)
    assert ended.returncode == 0, ended.stderr  # type: ignore[attr-defined]
    if order:
        read = load_predictions(out)
        assert read.kind == "logits" and len(read) == 4
        # column i of the network is the constant i, so a value is the index of its class in the official order
        values = dict(zip(read.columns, read.values[0], strict=True))
        assert values == {name: index for index, name in enumerate(order)}
    if form.va:
        va = load_predictions(out, task="va")
        assert dict(zip(va.columns, va.values[0], strict=True)) == {"valence": -0.5, "arousal": 0.25}
    network = load_network(NetworkSpec(call, preset=form.preset), device=torch.device("cpu"))
    assert network.input.size == form.size


def test_every_preset_is_tested() -> None:
    assert {form.preset for form in FORMS} == set(PRESETS)


def test_heads_of_the_published_ig3d_code_have_arousal_first(
    ig3d: Program, clone: Path, images: Path, tmp_path: Path
) -> None:
    network, out = f"{clone}:Fixed(8, va='av')", tmp_path / "x.npz"
    options = ("--classes", "rafdb", "--columns", "0:7", "--va", "9,8")
    ended = ig3d("logits", images, "--network", network, *options, "--out", out)
    assert ended.returncode == 0, ended.stderr  # type: ignore[attr-defined]
    assert load_predictions(out, task="va").values[0].tolist() == [-0.5, 0.25]
    assert load_predictions(out).columns == tuple(WORDS[letter] for letter in RAF.split())


def test_per_cent_are_distinguished_from_logits(
    ig3d: Program, clone: Path, images: Path, tmp_path: Path
) -> None:
    # DeepFace's form: per cent, A D F H Sa Su N
    network, out = f"{clone}:Fixed(7, scale={100 / 21!r})", tmp_path / "x.npz"
    ended = ig3d("logits", images, "--network", network, "--classes", "fer2013", "--out", out)
    assert ended.returncode == 0, ended.stderr  # type: ignore[attr-defined]
    read = load_predictions(out)
    assert read.kind == "probabilities" and "per cent" in " ".join(read.notes)
    np.testing.assert_allclose(read.values[0], np.arange(7) / 21, atol=1e-6)
    assert read.columns[0] == "anger" and read.columns[-1] == "neutral"


def test_all_options_of_logits_together(ig3d: Program, clone: Path, tmp_path: Path) -> None:
    samples = pictures(tmp_path / "images" / "happy")
    torch.save({"model_state_dict": weights()}, tmp_path / "w.pth")
    out = tmp_path / "x.npz"
    ended = ig3d(
        "logits", tmp_path / "images", "--network", f"{clone}:Net(form='triple')", "--weights", tmp_path / "w.pth",
        "--key", "model_state_dict", "--classes", "affectnet8", "--output", 0, "--columns", "0:8", "--va", "8,9",
        "--size", 16, "--mean", "0.4", "--std", "0.2,0.25,0.3", "--colour", "rgb", "--interpolation", "bicubic",
        "--features", "auto", "--crop", "whole", "--splits", "all", "--batch-size", 3, "--device", "cpu", "--out", out,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr  # type: ignore[attr-defined]
    with np.load(out) as file:
        expected = features_by_formula(samples, (0.4,) * 3, (0.2, 0.25, 0.3))
        np.testing.assert_allclose(file["features"], expected, atol=1e-5)
    wrong = ig3d("logits", tmp_path, "--network", f"{clone}:Net", "--mean", "a,b,c", "--out", out)
    assert wrong.returncode == 2 and "mean: cannot read" in wrong.stderr  # type: ignore[attr-defined]
