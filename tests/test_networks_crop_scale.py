"""``ig3d logits --crop-scale auto``: pictures with one right scale by construction, and the rows that choose."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listed import Sample, listing_of, samples_of, with_samples
from made_up_networks import write_clone
from PIL import Image

from ig3d.errors import UsageError
from ig3d.features.samples import Listing, Split
from ig3d.networks import crop_scale, images
from ig3d.networks.crop import choose_crops
from ig3d.networks.crop_scale import SCALES, choose_scale, rows_to_choose_by
from ig3d.networks.load import NetworkSpec, load_network
from ig3d.networks.logits import LogitsConfig, write_logits
from ig3d.networks.train import train_2d
from ig3d.networks.train_config import TrainConfig

CLASSES = ("anger", "happy", "sad")
SIDE, BOX = 100, 40
CPU = torch.device("cpu")


def paint(path: Path, label: int, scale: float) -> None:
    """A picture whose crop shows most of its class at one scale.

    Around the box, the ring between the next smaller scale and ``scale`` has the colour of the class, what is inside is
    black, what is outside has the colour of another class.
    """
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[:, :, (label + 1) % 3] = 250

    def centre(scale: float) -> slice:
        half = round(BOX * scale / 2)
        return slice(SIDE // 2 - half, SIDE // 2 + half)

    ring = centre(scale)
    pixels[ring, ring] = 0
    pixels[ring, ring, label] = 250
    if scale > SCALES[0]:
        inside = centre(SCALES[SCALES.index(scale) - 1])
        pixels[inside, inside] = 0
    Image.fromarray(pixels).save(path)


def faces(root: Path, scales: dict[Split, float], count: int = 9, groups: bool = False) -> Listing:
    """``count`` labelled pictures in each split, with boxes; each split has a scale that is right."""
    root.mkdir(parents=True, exist_ok=True)
    low, high = (SIDE - BOX) / 2, (SIDE + BOX) / 2
    listed = []
    for split, scale in scales.items():
        for number in range(count):
            name = f"{split.name}{number:03d}"
            paint(root / f"{name}.png", number % 3, scale)
            group = f"{split.name}{number // 3}" if groups else ""
            listed.append(
                Sample(name, f"{name}.png", number % 3, split, group=group, box=(low, low, high, high))
            )
    return listing_of("toy", str(root), CLASSES, listed)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> NetworkSpec:
    """Logits are the means of the three colours, 0 to 5."""
    path = write_clone(tmp_path_factory.mktemp("clone"))
    return NetworkSpec(f"{path}:plain", classes="dataset", size=20, mean=(0.0,) * 3, std=(0.2,) * 3)


def record_of(path: Path) -> dict[str, Any]:
    with np.load(path) as arrays:
        return dict(json.loads(str(arrays["made_by"])))


@pytest.mark.parametrize("scale", SCALES)
def test_the_right_scale_of_the_val_rows_is_chosen_printed_and_recorded(
    network: NetworkSpec, tmp_path: Path, scale: float
) -> None:
    other = SCALES[(SCALES.index(scale) + 2) % len(SCALES)]
    samples = faces(tmp_path / "images", {Split.train: other, Split.val: scale, Split.test: other})
    config = LogitsConfig(device="cpu", crop_scale="auto", jobs=1, batch_size=7)
    result = write_logits(samples, network, tmp_path / "auto.npz", config)
    made_by = record_of(tmp_path / "auto.npz")
    choice = made_by["crop_scale_choice"]
    assert made_by["crop_scale"] == scale and (choice["split"], choice["rows"]) == ("val", 9)
    assert min(choice["losses"], key=choice["losses"].get) == f"{scale:g}" and len(choice["losses"]) == len(
        SCALES
    )
    note = next(
        note for note in result.notes if note.startswith(f"crop scale {scale:g}: smallest log loss on 9 rows")
    )
    assert all(f"{value:g}: {choice['losses'][f'{value:g}']:.4f}" in note for value in SCALES)
    # the outputs are those of the scale given as a number
    write_logits(samples, network, tmp_path / "number.npz", replace(config, crop_scale=scale))
    with np.load(tmp_path / "auto.npz") as auto, np.load(tmp_path / "number.npz") as number:
        np.testing.assert_array_equal(auto["logits"], number["logits"])
    assert "crop_scale_choice" not in record_of(tmp_path / "number.npz")


def test_another_crop_or_size_than_that_of_the_training_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = faces(tmp_path / "images", {Split.train: 1.0, Split.val: 1.0, Split.test: 1.0})
    config = TrainConfig(network="test_byobnet", size=32, epochs=1, batch_size=8, device="cpu", jobs=1)
    result = train_2d(samples, config, tmp_path / "net.safetensors")
    assert result.notes[0].startswith("27 of 27 images cropped to the face box of the dataset")

    def warnings(size: int | None = None, **options: Any) -> list[str]:
        config = LogitsConfig(device="cpu", jobs=1, splits=("test",), **options)
        spec = NetworkSpec(str(result.path), size=size)
        written = write_logits(samples, spec, tmp_path / "x.npz", config)
        return [note for note in written.notes if "trained with another input" in note]

    assert warnings() == warnings(crop_scale="auto") == []
    assert "crop dataset, now crop whole" in warnings(crop="whole")[0]
    assert "crop_scale 1, now crop_scale 1.5" in warnings(crop_scale=1.5)[0]
    assert "size 32, now size 48" in warnings(size=48)[0]

    def stop(warning: str) -> None:  # called before any image is read
        raise KeyboardInterrupt(warning)

    config = LogitsConfig(device="cpu", jobs=1, splits=("test",), crop="whole")
    with pytest.raises(KeyboardInterrupt, match="now crop whole"):
        write_logits(samples, NetworkSpec(str(result.path)), tmp_path / "none.npz", config, notify=stop)
    config = LogitsConfig(device="cpu", jobs=1, splits=("test",), crop_scale="auto")
    monkeypatch.setattr("ig3d.networks.logits.choose_scale", lambda *_, **__: pytest.fail("too early"))
    with pytest.raises(KeyboardInterrupt, match="now size 48"):
        write_logits(
            samples, NetworkSpec(str(result.path), size=48), tmp_path / "none.npz", config, notify=stop
        )
    assert not (tmp_path / "none.npz").exists()


@pytest.mark.parametrize("crop", [None, "whole"])
def test_a_scale_for_full_images_is_refused(network: NetworkSpec, tmp_path: Path, crop: str | None) -> None:
    samples = faces(tmp_path / "images", {Split.test: 1.0})
    if crop is None:
        samples = with_samples(samples, [replace(one, box=(np.nan,) * 4) for one in samples_of(samples)])
    config = LogitsConfig(device="cpu", crop=crop, crop_scale=1.5)
    with pytest.raises(UsageError, match=r"crop-scale: 1\.5 needs face boxes"):
        write_logits(samples, network, tmp_path / "x.npz", config)


def test_losses_are_those_of_a_run_at_each_scale(network: NetworkSpec, tmp_path: Path) -> None:
    samples = faces(tmp_path / "images", {Split.val: 1.25, Split.test: 1.0})
    choice = choose_scale(
        samples, load_network(network, device=CPU, dataset_classes=CLASSES), choose_crops(samples)
    )
    for scale in SCALES:
        config = LogitsConfig(device="cpu", crop_scale=scale, splits=("val",))
        write_logits(samples, network, tmp_path / "x.npz", config)
        with np.load(tmp_path / "x.npz") as arrays:
            logits = torch.from_numpy(arrays["logits"])
        labels = torch.from_numpy(samples.labels[samples.splits == Split.val].astype(np.int64))
        loss = torch.nn.functional.cross_entropy(logits, labels)
        assert choice.losses[scale] == pytest.approx(float(loss), abs=1e-5)


def test_without_a_test_split_the_train_rows_choose_as_val_is_reported(
    network: NetworkSpec, tmp_path: Path
) -> None:
    samples = faces(tmp_path / "images", {Split.train: 1.5, Split.val: 0.8})
    asked = load_network(network, device=CPU, dataset_classes=CLASSES)
    choice = choose_scale(samples, asked, choose_crops(samples))
    assert (choice.scale, choice.split) == (1.5, "train")


def test_groups_with_a_reported_row_do_not_choose(network: NetworkSpec, tmp_path: Path) -> None:
    samples = faces(tmp_path / "images", {Split.train: 1.5, Split.val: 0.8, Split.test: 1.0}, groups=True)
    every = np.ones(len(samples), bool)
    rows, split = rows_to_choose_by(samples, every, every)
    assert split == "val" and rows.tolist() == np.flatnonzero(samples.splits == Split.val).tolist()
    shared = {"val0": "test0", "val1": "train0"}
    mixed = tuple(replace(one, group=shared.get(one.group, one.group)) for one in samples_of(samples))
    rows, split = rows_to_choose_by(with_samples(samples, mixed), every, every)
    assert {mixed[row].group for row in rows} == {"train0", "val2"} and split == "val"


def test_of_many_rows_whole_groups_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crop_scale, "MAX_ROWS", 10)
    samples = faces(tmp_path / "images", {Split.val: 1.0, Split.test: 1.0}, count=24, groups=True)
    every = np.ones(len(samples), bool)
    rows, _ = rows_to_choose_by(samples, every, every)
    chosen = [samples.samples["group"].iloc[row] for row in rows]
    assert len(rows) == 9 and all(chosen.count(group) == 3 for group in chosen)
    assert rows.tolist() == rows_to_choose_by(samples, every, every)[0].tolist()


def test_each_image_is_decoded_once(
    network: NetworkSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = faces(tmp_path / "images", {Split.val: 1.25, Split.test: 1.0})
    read: list[str] = []
    original = images.read_image
    monkeypatch.setattr(
        images, "read_image", lambda path, **rest: [read.append(path), original(path, **rest)][1]
    )
    choose_scale(
        samples, load_network(network, device=CPU, dataset_classes=CLASSES), choose_crops(samples), jobs=1
    )
    assert len(read) == len(set(read)) == 9


def test_probabilities_are_recognised(network: NetworkSpec, tmp_path: Path) -> None:
    samples = faces(tmp_path / "images", {Split.val: 2.0, Split.test: 1.0})
    folder = tmp_path / "net"
    write_clone(folder)
    with (folder / "net.py").open("a") as file:
        file.write("\n\ndef softmax():\n    return lambda images: images.mean((2, 3)).softmax(1)\n")
    spec = replace(network, network=f"{folder / 'net.py'}:softmax")
    losses = [
        choose_scale(
            samples, load_network(one, device=CPU, dataset_classes=CLASSES), choose_crops(samples)
        ).losses
        for one in (network, spec)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_valence_and_arousal_choose_by_rmse(tmp_path: Path) -> None:
    samples = faces(tmp_path / "images", {Split.val: 1.5, Split.test: 1.0})
    values = {0: (0.6, 0.0), 1: (0.0, 0.6), 2: (0.0, 0.0)}
    marked = tuple(
        replace(one, label=-1, valence=values[one.label][0], arousal=values[one.label][1])
        for one in samples_of(samples)
    )
    path = write_clone(tmp_path / "net")
    with path.open("a") as file:
        file.write("\n\ndef two():\n    return lambda images: images.mean((2, 3))[:, :2]\n")
    spec = NetworkSpec(f"{path}:two", va="0,1", size=20, mean=(0.0,) * 3, std=(1.0,) * 3)
    asked = load_network(spec, device=CPU, dataset_classes=CLASSES)
    choice = choose_scale(with_samples(samples, marked), asked, choose_crops(samples))
    assert choice.metric == "rmse" and choice.scale == 1.5


def test_what_cannot_choose_is_refused_in_one_line(network: NetworkSpec, tmp_path: Path, ig3d: Any) -> None:
    config = LogitsConfig(device="cpu", crop_scale="auto")
    samples = faces(tmp_path / "images", {Split.train: 1.0, Split.val: 1.0, Split.test: 1.0}, count=3)

    def refused(samples: Listing, config: LogitsConfig = config) -> str:
        with pytest.raises(UsageError) as caught:
            write_logits(samples, network, tmp_path / "x.npz", config)
        assert not (tmp_path / "x.npz").exists() and "\n" not in str(caught.value)
        return str(caught.value)

    unlabelled = tuple(
        replace(one, label=-1) if one.split != Split.test else one for one in samples_of(samples)
    )
    none = (
        "auto needs labelled rows with a face box in a train or val split that is not reported, and none of 9"
    )
    assert none in refused(with_samples(samples, unlabelled))
    without = tuple(replace(one, split=Split.none) for one in samples_of(samples))
    assert none in refused(with_samples(samples, without))
    only_val = tuple(replace(one, split=Split.val) for one in samples_of(samples))
    assert none in refused(with_samples(samples, only_val))
    boxless = tuple(replace(one, box=None) for one in samples_of(samples))
    assert "auto needs face boxes" in refused(with_samples(samples, boxless))
    assert "auto needs face boxes" in refused(samples, replace(config, crop="whole"))
    with pytest.raises(UsageError, match="'large' is neither a number nor auto"):
        LogitsConfig(crop_scale="large")
    (tmp_path / "folder").mkdir()
    for number in range(3):
        (tmp_path / "folder/train" / CLASSES[number]).mkdir(parents=True)
        paint(tmp_path / "folder/train" / CLASSES[number] / "a.png", number, 1.0)
    common = (
        "logits",
        tmp_path / "folder",
        "--network",
        network.network,
        "--classes",
        "dataset",
        "--size",
        20,
    )
    for scale, reason in (
        ("auto", "auto needs face boxes"),
        ("large", "'large' is neither a number nor auto"),
    ):
        ended = ig3d(*common, "--crop-scale", scale, "--out", tmp_path / "y.npz", "--device", "cpu")
        assert ended.returncode == 2 and reason in ended.stderr.splitlines()[-1], ended.stderr
