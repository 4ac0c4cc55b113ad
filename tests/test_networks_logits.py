"""Checkpoints, and the logits that a network writes with ids."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from listed import Sample, listing_of, samples_of, with_samples
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import accuracy_score

from ig3d.errors import DatasetError, ModelError, RunError, UsageError
from ig3d.features.network_features import load_features
from ig3d.features.predictions import load_predictions
from ig3d.features.samples import Listing, Split
from ig3d.networks.checkpoint import (
    LoadedNetwork,
    NetworkInfo,
    build,
    load_network,
    make_seen,
    normalisation,
    save_network,
)
from ig3d.networks.images import InputSpec, load_pictures, normalise
from ig3d.networks.load import NetworkSpec
from ig3d.networks.logits import LogitsConfig, write_logits
from ig3d.networks.options import parse_splits

CLASSES = ("anger", "happy", "sad")
SPLITS = ("train", "train", "train", "val", "test")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Listing:
    """Thirty noisy pictures: rows 0, 1, 2 of each five are train, 3 val, 4 test."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    listed = []
    for row in range(30):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(root / f"{row:02d}.png")
        listed.append(Sample(f"{row:02d}", f"{row:02d}.png", row % 3, Split[SPLITS[row % 5]]))
    return listing_of("toy", str(root), CLASSES, tuple(listed))


@pytest.fixture(scope="module")
def network(samples: Listing, tmp_path_factory: pytest.TempPathFactory) -> LoadedNetwork:
    """Untrained network with a record of train rows 0 and 1 of each five as training images, and 2 as validation."""
    return load_network(save(tmp_path_factory.mktemp("net") / "net.safetensors", samples))


def save(path: Path, samples: Listing, *, task: str = "classes", columns: tuple[str, ...] = CLASSES) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build("test_byobnet", outputs=len(columns), size=32)
        # running statistics that differ from those of any batch
        for name, buffer in module.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
    mean, std = normalisation(module)
    train = np.array([row for row in range(30) if row % 5 < 2])
    validation = np.arange(2, 30, 5)
    pictures = load_pictures(samples, [*validation, *train], view=InputSpec(size=32))
    seen = make_seen(samples, pictures.rows, pictures.digests, train=train, validation=validation)
    info = NetworkInfo("test_byobnet", task, columns, 32, mean, std, {"versions": {"timm": "1"}})
    save_network(path, module, info, seen)
    return path


def ids_of(rows: range | list[int]) -> list[str]:
    return [f"{row:02d}" for row in rows]


def test_logits_are_the_networks_own_one_by_one_with_ids_in_order(
    samples: Listing, network: LoadedNetwork, tmp_path: Path
) -> None:
    result = write_logits(
        samples, network, tmp_path / "x.npz", LogitsConfig(splits=parse_splits("all"), batch_size=7)
    )
    predictions = load_predictions(tmp_path / "x.npz")
    assert predictions.ids is not None and predictions.ids.tolist() == ids_of(range(30))
    assert (predictions.kind, predictions.columns, result.rows) == ("logits", CLASSES, 30)
    module = network.module.eval()
    for row in range(30):
        pixels = load_pictures(samples, [row], view=InputSpec(size=32)).pixels
        with torch.no_grad():
            alone = module(normalise(pixels, network.info.mean, network.info.std)).numpy()
        np.testing.assert_allclose(predictions.values[row], alone[0], atol=1e-5)
    assert np.ptp(predictions.values, axis=0).min() > 1e-3, "outputs differ between images"


def test_batch_size_and_readers_change_no_number(
    samples: Listing, network: LoadedNetwork, tmp_path: Path
) -> None:
    values = []
    for batch_size, jobs in [(1, 1), (64, 1), (64, 6), (5, 3)]:
        write_logits(samples, network, tmp_path / "x.npz", LogitsConfig(batch_size=batch_size, jobs=jobs))
        values.append(load_predictions(tmp_path / "x.npz").values)
    assert np.array_equal(values[1], values[2])
    for other in values[1:]:
        np.testing.assert_allclose(other, values[0], atol=1e-5)


@pytest.mark.parametrize(
    ("splits", "positions", "starts"),
    [
        (
            None,
            {3, 4},
            ["18 rows left out: the network was trained, or its epoch was chosen, on their images"],
        ),
        ("test", {4}, []),
        ("val,test", {3, 4}, []),
        ("train", {0, 1, 2}, ["12 rows with training images of the network", "6 rows by which the network"]),
        (
            "all",
            {0, 1, 2, 3, 4},
            ["12 rows with training images of the network", "6 rows by which the network"],
        ),
    ],
)
def test_which_rows_are_written(
    samples: Listing,
    network: LoadedNetwork,
    tmp_path: Path,
    splits: str | None,
    positions: set[int],
    starts: list[str],
) -> None:
    result = write_logits(samples, network, tmp_path / "x.npz", LogitsConfig(splits=parse_splits(splits)))
    ids = load_predictions(tmp_path / "x.npz").ids
    assert ids is not None and ids.tolist() == ids_of([row for row in range(30) if row % 5 in positions])
    assert len(result.notes) == len(starts)
    assert all(note.startswith(start) for note, start in zip(result.notes, starts, strict=True))
    assert result.by_split == {
        name: 6 * sum(SPLITS[position] == name for position in positions)
        for name in ("train", "val", "test")
        if any(SPLITS[position] == name for position in positions)
    }


def test_another_dataset_with_the_same_ids_is_written_whole(
    samples: Listing, network: LoadedNetwork, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    for sample in samples_of(samples):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(tmp_path / sample.path)
    result = write_logits(replace(samples, root=str(tmp_path)), network, tmp_path / "x.npz")
    assert (result.rows, result.notes) == (30, ())


def test_the_same_images_are_known_under_any_name(
    samples: Listing, network: LoadedNetwork, tmp_path: Path
) -> None:
    listed = tuple(replace(sample, id=f"z{sample.id}", split=Split.none) for sample in samples_of(samples))
    other = replace(with_samples(samples, listed), dataset="other")
    result = write_logits(other, network, tmp_path / "x.npz")
    ids = load_predictions(tmp_path / "x.npz").ids
    assert ids is not None and ids.tolist() == [f"z{row:02d}" for row in range(30) if row % 5 > 2]
    assert result.notes == (
        "18 rows left out: the network was trained, or its epoch was chosen, on their images "
        "(--splits all writes them)",
        "18 of these in other splits than train, as copies of training images (z00, "
        "z01, z02, z05, z06 and 13 more)",
    )
    result = write_logits(other, network, tmp_path / "x.npz", LogitsConfig(splits=("none",)))
    assert result.rows == 30
    assert [note.partition(":")[0] for note in result.notes] == [
        "12 rows with training images of the network (z00, z01, z05, z06, z10 and 7 more)",
        "6 rows by which the network's epoch was chosen",
    ]
    only = with_samples(other, tuple(listed[row] for row in (0, 2)))
    with pytest.raises(DatasetError, match="trained on all readable images of 2"):
        write_logits(only, network, tmp_path / "y.npz")
    assert not (tmp_path / "y.npz").exists()


def test_a_copy_of_a_train_image_in_the_test_split_is_left_out_and_named(
    samples: Listing, network: LoadedNetwork, tmp_path: Path
) -> None:
    listed = list(samples_of(samples))
    listed[4] = replace(listed[4], path=listed[0].path)
    result = write_logits(with_samples(samples, tuple(listed)), network, tmp_path / "x.npz")
    assert result.by_split == {"val": 6, "test": 5}
    assert result.notes[0].startswith("19 rows left out")
    assert result.notes[1].startswith("1 of these in other splits than train") and "(04)" in result.notes[1]


def test_unreadable_images_have_no_row_and_are_named(
    samples: Listing, network: LoadedNetwork, tmp_path: Path
) -> None:
    for path in Path(samples.root).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "04.png").write_bytes(b"\x89PNG")
    (tmp_path / "09.png").unlink()
    moved = replace(samples, root=str(tmp_path))
    out = tmp_path / "out" / "x.npz"
    result = write_logits(moved, network, out, LogitsConfig(splits=("test",), batch_size=2))
    ids = load_predictions(out).ids
    assert ids is not None and ids.tolist() == ids_of([14, 19, 24, 29])
    assert [problem.partition(":")[0] for problem in result.problems] == ["04", "09"]
    with pytest.raises(DatasetError, match="toy: no image of 6 rows can be read"):
        write_logits(
            replace(samples, root=str(tmp_path / "gone")), network, out, LogitsConfig(splits=("test",))
        )
    one = with_samples(replace(samples, root=str(tmp_path / "gone")), samples_of(samples)[4:5])
    with pytest.raises(DatasetError, match="toy: no image of 1 row can be read"):
        write_logits(one, network, out)
    with pytest.raises(DatasetError, match="toy: the only row is not in none"):
        write_logits(one, network, out, LogitsConfig(splits=("none",)))


def test_scores_join_labels_by_class_name(samples: Listing, tmp_path: Path) -> None:
    # the network's order is another than the dataset's, and one of its classes is unknown to the dataset
    network = load_network(save(tmp_path / "net", samples, columns=("sad", "fear", "anger", "happy")))
    result = write_logits(samples, network, tmp_path / "x.npz")
    predictions = load_predictions(tmp_path / "x.npz")
    predicted = np.array(predictions.columns)[predictions.values.argmax(1)]
    rows = np.array([row for row in range(30) if row % 5 in (3, 4)])
    names = np.array(CLASSES)[rows % 3]
    for split, place in (("val", 3), ("test", 4)):
        here = rows % 5 == place
        assert result.scores[split]["accuracy"] == pytest.approx(accuracy_score(names[here], predicted[here]))
    assert any("--columns 2,3,0" in note and "ig3d fuse refuses" in note for note in result.notes), (
        result.notes
    )


def test_labelled_rows_of_other_classes_are_counted(samples: Listing, tmp_path: Path) -> None:
    network = load_network(save(tmp_path / "net", samples, columns=("sad", "anger", "contempt")))
    result = write_logits(samples, network, tmp_path / "x.npz", LogitsConfig(splits=("val", "test")))
    (counted,) = [note for note in result.notes if "not scored" in note]
    assert counted.startswith("4 of 12 labelled rows") and counted.endswith("(happy 4)")
    assert any(
        "has columns of contempt and none of happy" in note and "--columns" not in note
        for note in result.notes
    )
    both = load_network(save(tmp_path / "both", samples, columns=(*CLASSES, "contempt")))
    result = write_logits(samples, both, tmp_path / "y.npz", LogitsConfig(splits=("val", "test")))
    assert not any("fuse refuses" in note or "not scored" in note for note in result.notes)


def test_valence_and_arousal_stay_within_their_range(samples: Listing, tmp_path: Path) -> None:
    network = load_network(save(tmp_path / "net", samples, task="va", columns=("valence", "arousal")))
    with torch.no_grad():
        network.module.get_parameter("head.fc.bias").copy_(torch.tensor([9.0, -9.0]))
    result = write_logits(samples, network, tmp_path / "x.npz")
    predictions = load_predictions(tmp_path / "x.npz")
    assert predictions.kind == "va" and predictions.columns == ("valence", "arousal")
    assert (predictions.values == [1, -1]).all()
    assert result.scores == {}, "no truth, no figures"


def test_choices_that_cannot_be_are_refused(samples: Listing, network: LoadedNetwork, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"splits: tset is not a split; pass all, or some of train, val, test, none"
    ):
        LogitsConfig(splits=parse_splits("val,tset"))
    with pytest.raises(UsageError, match=r"is not a split; pass all"):
        LogitsConfig(splits=parse_splits(","))
    with pytest.raises(UsageError, match="batch-size is 0"):
        LogitsConfig(batch_size=0)
    with pytest.raises(UsageError, match=r"out: the name must end in \.npz"):
        write_logits(samples, network, tmp_path / "x.csv")
    with pytest.raises(DatasetError, match="toy: none of 30 rows is in none"):
        write_logits(samples, network, tmp_path / "x.npz", LogitsConfig(splits=("none",)))
    if not torch.cuda.is_available():
        with pytest.raises(
            UsageError, match=r"device: cuda is not available \(CUDA devices: 0\); use auto or cpu"
        ):
            write_logits(samples, network, tmp_path / "x.npz", LogitsConfig(device="cuda"))


def test_a_checkpoint_with_classes_refuses_others(samples: Listing, tmp_path: Path) -> None:
    path = str(save(tmp_path / "net.safetensors", samples))
    plain = NetworkSpec(path, classes="dataset")
    assert write_logits(samples, plain, tmp_path / "x.npz").columns == CLASSES
    for wrong, message in (
        (
            replace(plain, classes="sad,happy,anger"),
            r"defines its classes \(anger, happy, sad\)",
        ),
        (replace(plain, preset="ddamfn"), "preset: test_byobnet defines its own columns"),
        (replace(plain, weights=Path(path)), "--weights and --key are only for timm:NAME"),
    ):
        with pytest.raises(UsageError, match=message):
            write_logits(samples, wrong, tmp_path / "x.npz")


def test_a_checkpoint_gives_its_features(samples: Listing, tmp_path: Path) -> None:
    path = str(save(tmp_path / "net.safetensors", samples))
    everything = LogitsConfig(splits=parse_splits("all"))
    write_logits(samples, NetworkSpec(path, features="auto"), tmp_path / "x.npz", everything)
    found, module = load_features(tmp_path / "x.npz"), load_network(path).module
    assert found.ids.tolist() == ids_of(range(30))
    with torch.no_grad():
        logits = module.get_submodule("head.fc")(torch.from_numpy(found.values)).numpy()
    np.testing.assert_allclose(logits, load_predictions(tmp_path / "x.npz").values, atol=1e-5)


def test_a_network_of_nan_is_refused(samples: Listing, tmp_path: Path) -> None:
    network = load_network(save(tmp_path / "net", samples))
    with torch.no_grad():
        network.module.get_parameter("head.fc.bias").fill_(float("nan"))
    with pytest.raises(ModelError, match="outputs are not finite"):
        write_logits(samples, network, tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()


# --- checkpoints that are not what they should be ---


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


class Bomb:
    """Would leave a mark if anybody unpickled it."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return Path.write_text, (Path("exploded"), "")  # type: ignore[return-value]


def rewrite(path: Path, **changes: object) -> None:
    """Change metadata, leave tensors."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    described = json.loads(header["__metadata__"]["ig3d"]) | changes
    header["__metadata__"]["ig3d"] = json.dumps(
        {key: value for key, value in described.items() if value is not None}
    )
    new = json.dumps(header).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + content[8 + length :])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (Path.unlink, "the file does not exist"),
        (lambda path: path.write_bytes(b""), "damaged or of another kind"),
        (lambda path: path.write_text("hello, this is no network"), "damaged or of another kind"),
        (lambda path: path.write_bytes(pickle.dumps(Bomb())), "damaged or of another kind"),
        (lambda path: torch.save({"weight": torch.zeros(3)}, path), "damaged or of another kind"),
        (cut, "damaged or of another kind"),
        (flip_a_byte, "the file is damaged"),
        (lambda path: save_file({"a": torch.zeros(2)}, path), "this safetensors file is not"),
        (lambda path: rewrite(path, format_version=1), "format version 1, this ig3d reads version 2"),
        (lambda path: rewrite(path, size=None), "the description of the network is incomplete"),
        (
            lambda path: rewrite(path, columns=["a", "b"]),
            "the weights do not fit test_byobnet with 2 outputs",
        ),
        (lambda path: rewrite(path, columns=["a", "a", "b"]), "are not two or more distinct names"),
        (lambda path: rewrite(path, architecture="os.system"), "timm has no network"),
    ],
)
def test_damaged_checkpoints_are_refused_in_one_line_and_never_executed(
    samples: Listing,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[Path], None],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "net.safetensors", samples)
    harm(path)
    with pytest.raises(ModelError, match=message) as caught:
        load_network(path)
    assert "\n" not in str(caught.value)
    assert "net.safetensors" in str(caught.value) or "distinct names" in message
    assert not Path("exploded").exists()


def test_an_unwritable_place_is_one_line_and_leaves_nothing(samples: Listing, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file, not a folder"):
        save(tmp_path / "file" / "net.safetensors", samples)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_importing_ig3d_networks_loads_no_torch() -> None:
    import subprocess
    import sys

    code = "import ig3d.networks, sys; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_options_are_checked_before_torch_is_imported(tmp_path: Path) -> None:
    store = tmp_path / "no.h5"
    for words, reason in (
        (["--network", tmp_path / "no.onnx", "--like", store], "no.onnx: the file does not exist"),
        (["--network", f"{tmp_path / 'no.py'}:Net", "--like", store], "no.py does not exist"),
        (
            ["--network", "timm:resnet18", "--weights", tmp_path / "no.pth", "--like", store],
            "no.pth: the checkpoint",
        ),
        (["--network", "fer", "--preset", "nix", "--like", store], "preset: 'nix' is unknown"),
        (["--network", "fer", "--classes", "nix", "--like", store], "'nix' is not a preset"),
        (["--network", "fer", "--splits", "nix", "--like", store], "nix is not a split"),
        (["--network", "fer", "--like", store], "no.h5: no such store"),
    ):
        code = (
            "import sys; from ig3d.cli import main; sys.modules['torch'] = sys.modules['timm'] = None; "
            f"sys.argv = {['ig3d', 'logits', '--out', str(tmp_path / 'x.npz'), *map(str, words)]}; main()"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert ended.returncode in (1, 2) and reason in ended.stderr, (words, ended.stderr)
