"""Features beside the logits, what part of a picture a network sees, and in which colours."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from listed import samples_of, with_samples
from made_up_networks import features_by_formula, outputs_by_formula, pictures, weights, write_clone
from PIL import Image

from ig3d.errors import DatasetError, PredictionsError, RunError, UsageError
from ig3d.extract.read import digest_of
from ig3d.features.network_features import Features, load_features
from ig3d.features.predictions import load_predictions
from ig3d.features.samples import Listing
from ig3d.features.values import Status
from ig3d.networks import crop as cropping
from ig3d.networks.crop import choose_crops
from ig3d.networks.load import NetworkSpec
from ig3d.networks.logits import LogitsConfig, write_logits
from ig3d.networks.written import FeatureSpool, write_npz

HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Listing:
    return pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> NetworkSpec:
    path = write_clone(tmp_path_factory.mktemp("clone"))
    torch.save(weights(), path.with_suffix(".pth"))
    return NetworkSpec(
        f"{path}:Net(form='triple')", weights=path.with_suffix(".pth"), classes="affectnet8", output="0",
        columns="0:8", va="9,8", size=16, mean=HALF, std=HALF,
    )  # fmt: skip


def run(samples: Listing, network: NetworkSpec, tmp_path: Path, **config: Any) -> Path:
    out = tmp_path / "x.npz"
    write_logits(samples, network, out, LogitsConfig(device="cpu", **config))
    return out


@pytest.mark.parametrize("features", ["auto", "body", "output:1"])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_features_are_what_the_last_layer_is_fed(
    samples: Listing, clone: NetworkSpec, tmp_path: Path, features: str, batch_size: int
) -> None:
    # the attention runs after the last layer, and is as wide as nothing that the network gives
    found = load_features(run(samples, replace(clone, features=features), tmp_path, batch_size=batch_size))
    assert found.ids.tolist() == [sample.id for sample in samples_of(samples)]
    assert found.values.dtype == np.float32 and not found.maps
    np.testing.assert_allclose(found.values, features_by_formula(samples, HALF, HALF), atol=1e-5)


def test_arousal_first_is_written_as_valence_first(
    samples: Listing, clone: NetworkSpec, tmp_path: Path
) -> None:
    expected = outputs_by_formula(features_by_formula(samples, HALF, HALF))
    path = run(samples, clone, tmp_path)
    va = load_predictions(path, task="va")
    assert va.columns == ("valence", "arousal") and va.notes == ()
    np.testing.assert_allclose(va.values, np.clip(expected[:, [9, 8]], -1, 1), atol=1e-5)
    with pytest.raises(PredictionsError, match="has no array features"):
        load_features(path)


@pytest.mark.parametrize("features", ["body", "output:1"])
def test_maps_average_to_the_features(
    samples: Listing, clone: NetworkSpec, tmp_path: Path, features: str
) -> None:
    found = load_features(
        run(samples, replace(clone, features=features, feature_maps=True), tmp_path, batch_size=3)
    )
    assert found.maps and found.values.dtype == np.float16 and found.values.shape == (7, 4, 16, 16)
    averaged = found.values.astype(np.float64).mean((2, 3))
    np.testing.assert_allclose(averaged, features_by_formula(samples, HALF, HALF), atol=2e-3)


@pytest.mark.parametrize(("name", "size"), [("test_byobnet.r160_in1k", 64), ("test_vit.r160_in1k", 160)])
def test_timm_gives_its_own_features_and_maps(samples: Listing, tmp_path: Path, name: str, size: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model(name, num_classes=3).eval()
    torch.save(module.state_dict(), tmp_path / "w.pth")
    network = NetworkSpec(
        f"timm:{name}",
        weights=tmp_path / "w.pth",
        classes="dataset",
        features="auto",
        size=size,
        mean=HALF,
        std=HALF,
    )
    path = run(samples, network, tmp_path)
    picture = Image.open(Path(samples.root) / "02.png").resize((size, size), Image.Resampling.BICUBIC)
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255 * 2 - 1
    with torch.no_grad():
        maps = module.forward_features(image)
        pooled = module.forward_head(maps, pre_logits=True)
        logits = module(image)
    np.testing.assert_allclose(load_features(path).values[2], pooled[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(load_predictions(path).values[2], logits[0].numpy(), atol=1e-4)
    got = load_features(run(samples, replace(network, feature_maps=True), tmp_path)).values[2]
    if maps.ndim == 3:  # the class token is no position; rows of the grid come one after another
        side = int((maps.shape[1] - 1) ** 0.5)
        maps = maps[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    np.testing.assert_allclose(got, maps[0].numpy(), atol=1e-2)


def test_the_features_network_is_named_by_what_changes_them(
    samples: Listing, clone: NetworkSpec, tmp_path: Path
) -> None:
    def name(**options: Any) -> str:
        return load_features(
            run(samples, replace(clone, **({"features": "auto"} | options)), tmp_path)
        ).network

    other = weights()
    other["body.bias"] += 1
    torch.save(other, tmp_path / "other.pth")
    first = name()
    assert first == name() == name(classes="", columns="", va="8,9"), "columns are no matter of features"
    others = [
        name(weights=tmp_path / "other.pth"), name(size=8), name(mean=(0.1, 0.5, 0.5)), name(features="body"),
        name(colour="bgr"), name(features="body", feature_maps=True),
    ]  # fmt: skip
    assert len({first, *others}) == 7


def test_the_same_run_writes_the_same_bytes(samples: Listing, clone: NetworkSpec, tmp_path: Path) -> None:
    first = run(samples, replace(clone, features="auto"), tmp_path).read_bytes()
    assert run(samples, replace(clone, features="auto"), tmp_path).read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]
    with np.load(tmp_path / "x.npz") as file:
        made_by = json.loads(str(file["made_by"]))
    assert made_by["input"]["size"] == 16 and str(tmp_path) not in json.dumps(made_by)


# --- reading features ---


def test_rows_by_id() -> None:
    found = Features(np.array(["b", "a"]), np.eye(2, dtype=np.float32), "n")
    assert found.rows_of(np.array(["a", "c", "b"])).tolist() == [1, -1, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.zeros((2, 3))}, "for 2 rows of features; give one text per row"),
        (
            {"features": np.zeros((3, 2, 2))},
            r"must be floats of shape \(n, d\) or .* holds float64 of shape \(3, 2, 2\)",
        ),
        ({"ids": np.array(["a", "a", "b"])}, r"1 duplicate id \(a\)"),
        (
            {"features": np.array([[0.0], [np.nan], [np.inf]])},
            r"2 rows of features have NaN or infinity \(b, c\)",
        ),
        ({"ids": np.array(["a", "b", {}], object)}, "Python objects, which are never executed"),
        ({"feature_network": None}, "has no array feature_network"),
    ],
)
def test_features_that_are_not_sound_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    arrays = {
        "ids": np.array(["a", "b", "c"]),
        "features": np.zeros((3, 2), np.float32),
        "feature_network": "n",
    }
    kept = {name: value for name, value in (arrays | changes).items() if value is not None}
    np.savez(tmp_path / "x.npz", **kept)
    with pytest.raises(PredictionsError, match=message) as caught:
        load_features(tmp_path / "x.npz")
    assert "\n" not in str(caught.value)


def test_files_that_hold_no_features(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match="no such file of features"):
        load_features(tmp_path / "x.npz")
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(PredictionsError, match=r"cannot be read as a NumPy file|is not a NumPy file"):
        load_features(tmp_path / "x.npz")
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(PredictionsError, match="a single array without ids"):
        load_features(tmp_path / "x.npy")


def test_spooled_rows_are_one_array(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(10, 2, 3)).astype(np.float32)
    with FeatureSpool(np.dtype(np.float32), tmp_path) as spool:
        for part in (rows[:4], rows[4:4], rows[4:]):
            spool.append(part)
        write_npz(tmp_path / "x.npz", {"ids": np.array(["é"])}, features=spool)
        with pytest.raises(PredictionsError, match="the shape of a row changed"):
            spool.append(rows[:, :1])
    with np.load(tmp_path / "x.npz") as file:
        assert np.array_equal(file["features"], rows) and file["ids"].tolist() == ["é"]
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file, not a folder"):
        write_npz(tmp_path / "file" / "x.npz", {})


# --- what is seen ---


def grid(root: Path, **boxes: tuple[float, float, float, float]) -> Listing:
    """40 x 20 pictures: the left half is red, the right half blue."""
    listed = pictures(root, 2)
    for sample in samples_of(listed):
        pixels = np.zeros((20, 40, 3), np.uint8)
        pixels[:, :20, 0], pixels[:, 20:, 2] = 200, 100
        Image.fromarray(pixels).save(root / sample.path)
    marked = tuple(replace(sample, box=boxes.get(f"b{sample.id}")) for sample in samples_of(listed))
    return with_samples(listed, marked)


PLAIN = {"classes": "dataset", "size": 8, "mean": (0.0,) * 3, "std": (1 / 255,) * 3}


def test_colour_orders(clone: NetworkSpec, tmp_path: Path) -> None:
    samples = grid(tmp_path / "images")
    network = NetworkSpec(clone.network.replace("Net(form='triple')", "plain"), **PLAIN)
    luma = 0.299 * 100 + 0.114 * 50
    for colour, expected in (("rgb", (100, 0, 50)), ("bgr", (50, 0, 100)), ("grey", (luma,) * 3)):
        values = load_predictions(run(samples, replace(network, colour=colour), tmp_path)).values
        np.testing.assert_allclose(values, [expected] * 2, atol=1)


def test_a_box_is_what_is_seen_and_whole_is_the_image(clone: NetworkSpec, tmp_path: Path) -> None:
    samples = grid(tmp_path / "images", b01=(22.0, 2.0, 38.0, 18.0))
    network = NetworkSpec(clone.network.replace("Net(form='triple')", "plain"), **PLAIN)
    result = write_logits(samples, network, tmp_path / "x.npz")
    values = load_predictions(tmp_path / "x.npz").values
    np.testing.assert_allclose(values, [(100, 0, 50), (0, 0, 100)], atol=1)
    assert any("1 of 2 images cropped to the face box of the dataset" in note for note in result.notes)
    values = load_predictions(run(samples, network, tmp_path, crop="whole")).values
    np.testing.assert_allclose(values, [(100, 0, 50)] * 2, atol=1)
    # twice the side about (30, 10): columns 14 to 46 and rows -6 to 26; black outside, red is 6 of 32 columns
    values = load_predictions(run(samples, network, tmp_path, crop_scale=2.0)).values
    np.testing.assert_allclose(values[1], (200 * 6 / 32 * 20 / 32, 0, 100 * 20 / 32 * 20 / 32), atol=1.5)


class FakeStore:
    """Data read from a store."""

    images: Path
    path = "my.h5"
    info = SimpleNamespace(detector={"name": "facemesh"})

    def __init__(self, path: object) -> None:
        nan = (np.nan,) * 4
        digests = [digest_of((self.images / f"{name}.png").read_bytes()) for name in ("01", "00", "00")]
        self.samples = pd.DataFrame({"id": ["01", "00", "zz"]})
        boxes = np.array([(0, 0, 10, 20), nan, nan], np.float32)
        self.columns = {"sample/digest": np.stack(digests), "face/box": boxes}
        self.status = np.array([Status.ok, Status.no_face, Status.ok], np.int8)

    def check_content(self) -> None: ...

    def column(self, name: str) -> np.ndarray:
        return self.columns[name]

    def __enter__(self) -> FakeStore:
        return self

    def __exit__(self, *error: object) -> None: ...


def test_a_stores_boxes_go_by_id_and_faceless_rows_are_seen_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = grid(tmp_path / "images")
    monkeypatch.setattr(FakeStore, "images", tmp_path / "images", raising=False)
    monkeypatch.setattr(cropping, "CodeStore", FakeStore)
    crops = choose_crops(samples, "my.h5", scale=2.0)
    assert np.isnan(crops.boxes[0]).all()
    # the mean side is 15: a square of 30 about (5, 10)
    assert crops.boxes[1].tolist() == [-10, -5, 20, 25]
    assert crops.notes[-1] == "1 of 2 samples without a face in my.h5, used as full images (00)"
    first = with_samples(samples, samples_of(samples)[:1])
    assert choose_crops(first, "my.h5").notes == (
        "0 of 1 image cropped to the face box of my.h5",
        "1 of 1 sample without a face in my.h5, used as full images (00)",
    )
    other = with_samples(samples, tuple(replace(one, id=f"x{one.id}") for one in samples_of(samples)))
    with pytest.raises(UsageError, match=r"crop: my.h5 does not have 2 of 2 samples \(x00, x01\)"):
        choose_crops(other, "my.h5")
    shutil.copytree(tmp_path / "images", tmp_path / "others")
    Image.new("RGB", (40, 20), "white").save(tmp_path / "others" / "01.png")
    message = r"crop: other content than in my.h5 in 1 of 2 compared files \(01\)"
    with pytest.raises(DatasetError, match=message):
        choose_crops(replace(samples, root=str(tmp_path / "others")), "my.h5")
    with pytest.raises(UsageError, match=r"crop scale is .* from 0.1 to 10"):
        choose_crops(samples, scale=0)
