"""Training end to end on tiny pictures whose colour and brightness tell the truth."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from listed import Sample, listing_of, samples_of, with_samples
from PIL import Image
from safetensors.torch import save

from ig3d.errors import DatasetError, ModelError, UsageError
from ig3d.features.device import choose_device
from ig3d.features.samples import Listing, Split
from ig3d.networks import images
from ig3d.networks.checkpoint import build, load_network
from ig3d.networks.load import NetworkSpec
from ig3d.networks.logits import LogitsConfig, write_logits
from ig3d.networks.plan import plan_training
from ig3d.networks.train import start, train_2d
from ig3d.networks.train_config import TrainConfig

TINY = TrainConfig(
    network="test_byobnet", size=32, epochs=8, batch_size=16, lr=5e-3, seed=1, device="cpu", jobs=2
)
COLOURS = np.array([(200, 60, 60), (60, 200, 60), (60, 60, 200)])


def dataset(root: Path, *, splits: str = "train" * 20 + "test" * 4, va: bool = False) -> Listing:
    """Pictures of three colours under noise, brighter with arousal; ``splits`` gives each colour's rows."""
    rng = np.random.default_rng(0)
    names = [name for name in ("train", "val", "test") for _ in range(splits.count(name))]
    listed = []
    for label, colour in enumerate(COLOURS):
        for index, split in enumerate(names):
            name = f"{label}_{index:03d}"
            arousal = rng.uniform(-0.8, 0.8)
            pixels = colour * (1 + 0.5 * arousal * va) + rng.normal(0, 40, (24, 20, 3))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / f"{name}.png")
            valence = (label - 1) * 0.7
            listed.append(
                Sample(
                    name,
                    f"{name}.png",
                    label,
                    Split[split],
                    valence if va else math.nan,
                    arousal if va else math.nan,
                )
            )
    return listing_of("toy", str(root), ("anger", "happy", "sad"), tuple(listed))


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Listing:
    return dataset(tmp_path_factory.mktemp("colours"))


def plain(count: int, *, split: Split = Split.train, groups: int = 0, classes: int = 2) -> Listing:
    """A list without files, for plans."""
    samples = [
        Sample(f"{row:04d}", f"{row}.png", row % classes, split, group=str(row % groups) if groups else "")
        for row in range(count)
    ]
    return listing_of("toy", "nowhere", tuple("abcdefgh"[:classes]), tuple(samples))


def test_a_network_learns_the_signal_and_never_opens_a_test_image(
    colours: Listing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: set[str] = set()
    real = images.read_image

    def spy(location: str, **options: int) -> images.Picture:
        opened.add(Path(location).stem)
        return real(location, **options)

    monkeypatch.setattr(images, "read_image", spy)
    result = train_2d(colours, TINY, tmp_path / "net.safetensors")
    train = {sample.id for sample in samples_of(colours) if sample.split == Split.train}
    assert opened == train
    assert result.best.scores["accuracy"] > 0.9
    assert result.rows_train + result.rows_validation == len(train)
    assert result.best.selection == max(epoch.selection for epoch in result.history)
    assert any("of the train rows" in note for note in result.notes)
    info = load_network(result.path).info
    assert (info.task, info.columns, info.size) == ("classes", colours.classes, 32)
    assert info.training["rows_train"] == result.rows_train
    assert list(tmp_path.iterdir()) == [result.path]
    (tmp_path / "other").touch()
    assert result.path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_readers(
    colours: Listing, tmp_path: Path
) -> None:
    short = replace(TINY, epochs=2)
    files = []
    for name, config in [
        ("a", short), ("b", replace(short, jobs=5)), ("c", replace(short, seed=2))
    ]:  # fmt: skip
        torch.manual_seed(int.from_bytes(name.encode(), "big"))
        files.append(train_2d(colours, config, tmp_path / f"{name}.safetensors").path.read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_training_starts_from_a_checkpoint_but_for_its_last_layer(colours: Listing, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        other = build(TINY.network, outputs=1000, size=32).state_dict()
    given = {f"module.{name}": value for name, value in other.items()}
    torch.save({"state_dict": given, "epoch": 1}, tmp_path / "imagenet.pth")
    still = replace(TINY, weights=tmp_path / "imagenet.pth", epochs=1, lr=1e-12, weight_decay=0)
    result = train_2d(colours, still, tmp_path / "net.safetensors")
    learnt = load_network(result.path).module.state_dict()
    kernels = [name for name, value in learnt.items() if value.ndim == 4]
    same = [torch.allclose(learnt[name], other[name], atol=1e-6) for name in kernels]
    assert all(same) and len(same) > 4
    assert learnt["head.fc.weight"].shape[0] == 3
    assert str(tmp_path) not in str(result.info.training)
    for network, message in (
        ("test_resnet", "of the network: .* unknown"),
        ("test_byobnet", "does not exist"),
    ):
        wrong = replace(
            still, network=network, weights=still.weights if network == "test_resnet" else tmp_path / "no"
        )
        with pytest.raises(ModelError, match=message):
            train_2d(colours, wrong, tmp_path / "other.safetensors")


@pytest.mark.parametrize("network", ["test_resnet", "test_byobnet", "resnet18"])
def test_every_weight_has_a_slope_at_the_first_step(network: str) -> None:
    torch.manual_seed(0)
    module = start(TrainConfig(network=network, size=64), outputs=3)
    torch.nn.functional.cross_entropy(module(torch.randn(8, 3, 64, 64)), torch.arange(8) % 3).backward()
    still = [
        name for name, weight in module.named_parameters() if weight.grad is None or not weight.grad.any()
    ]
    assert not still  # a residual branch that begins closed has none, and may not open for ten epochs


def test_training_stops_early_and_keeps_the_best_epoch(colours: Listing, tmp_path: Path) -> None:
    # once all validation rows are right no later epoch is better: two more, then the end
    result = train_2d(colours, replace(TINY, epochs=60, patience=2), tmp_path / "net.safetensors")
    assert len(result.history) == result.best.number + 2 < 60


def test_the_scores_of_the_checkpoint_are_those_of_its_val_rows(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    samples = dataset(folder, splits="train" * 6 + "val" * 40)
    result = train_2d(samples, replace(TINY, epochs=4), tmp_path / "net.safetensors")
    written = write_logits(samples, result.path, tmp_path / "x.npz", LogitsConfig(device="cpu"))
    assert written.scores == {"val": pytest.approx(result.best.scores)}
    assert written.by_split == {"val": 120}
    assert [note.partition(" left")[0] for note in written.notes] == [
        "18 rows",
        "120 rows by which the network's epoch was chosen: usable to fit a fusion, but slightly optimistic as reported "
        "rows",
    ]


def test_valence_and_arousal_are_learnt_in_that_order(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    samples = dataset(folder, splits="train" * 30 + "val" * 8, va=True)
    config = replace(TINY, task="va", epochs=12)
    result = train_2d(samples, config, tmp_path / "net.safetensors")
    assert result.best.scores["ccc_valence"] > 0.7
    assert result.rows_validation == 24
    assert result.info.columns == ("valence", "arousal")
    assert "the val split" in result.notes[0]


def test_a_network_records_the_images_of_the_network_from_which_it_starts(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    samples = dataset(folder, splits="train" * 6 + "val" * 2 + "test" * 4)
    turned = {Split.train: Split.val, Split.val: Split.test, Split.test: Split.train}
    other = with_samples(samples, [replace(row, split=turned[row.split]) for row in samples_of(samples)])
    short = replace(TINY, epochs=1)
    first = train_2d(other, short, tmp_path / "first.safetensors")
    result = train_2d(samples, replace(short, weights=first.path), tmp_path / "net.safetensors")
    seen = load_network(result.path).seen
    assert (len(seen.train), len(seen.validation)) == (12 + 18, 18 + 6)
    assert any("first.safetensors records 30 images of its training" in note for note in result.notes)
    # its test images are training images of the first network: none remains
    with pytest.raises(DatasetError, match="the network was trained on all readable images of 12"):
        test_rows = with_samples(samples, [row for row in samples_of(samples) if row.split == Split.test])
        write_logits(test_rows, result.path, tmp_path / "x.npz", LogitsConfig(device="cpu"))
    # also as weights of a named architecture
    named = NetworkSpec("timm:test_byobnet", weights=result.path, classes="dataset", size=32)
    notes = write_logits(samples, named, tmp_path / "x.npz", LogitsConfig(device="cpu")).notes
    assert any(note.startswith("30 rows left out: the network was trained") for note in notes)
    # rows that choose its epoch
    again = train_2d(samples, replace(short, weights=first.path, seed=2), tmp_path / "again.safetensors")
    assert not any("WARNING" in note for note in again.notes)
    third = train_2d(other, replace(short, weights=result.path), tmp_path / "third.safetensors")
    assert any(
        "WARNING net.safetensors was trained on 18 of 18 validation rows" in note for note in third.notes
    )


def test_a_training_that_diverges_is_reported(colours: Listing, tmp_path: Path) -> None:
    result = train_2d(colours, replace(TINY, epochs=1, lr=1000.0), tmp_path / "net.safetensors")
    assert "WARNING the training diverged: its loss is" in result.notes[-1]


def test_the_choice_of_the_task_is_reported(tmp_path: Path) -> None:
    samples = dataset(tmp_path, splits="train" * 6 + "val" * 2, va=True)
    chosen, explicit = (plan_training(samples, task=task, fraction=0.2, seed=0) for task in (None, "classes"))
    assert chosen.notes == ("classes are trained; the samples also have valence and arousal (--task va)",)
    assert not explicit.notes


def test_unreadable_images_are_listed_and_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    samples = dataset(folder, splits="train" * 6 + "val" * 2)
    (folder / "0_000.png").write_bytes(b"")
    (folder / "1_001.png").unlink()
    result = train_2d(samples, replace(TINY, epochs=1), tmp_path / "net.safetensors")
    assert [problem.partition(":")[0] for problem in result.problems] == ["0_000", "1_001"]
    assert (result.rows_train, result.rows_validation) == (16, 6)
    seen = load_network(result.path).seen
    assert (len(seen.train), len(seen.held_out), len(seen.validation)) == (16, 0, 6)
    for path in folder.iterdir():
        path.write_bytes(b"GIF89a")
    with pytest.raises(DatasetError, match=r"toy: too few readable images: 0 of 18 for training and 0 of 6"):
        train_2d(samples, TINY, tmp_path / "net.safetensors")


def test_validation_rows_come_out_of_train_stratified_and_with_whole_groups() -> None:
    samples = plain(300, groups=50, classes=3)
    plan = plan_training(samples, task=None, fraction=0.2, seed=0)
    assert not set(plan.train) & set(plan.validation)
    assert sorted([*plan.train, *plan.validation]) == list(range(300))
    groups = [sample.group for sample in samples_of(samples)]
    assert not {groups[row] for row in plan.train} & {groups[row] for row in plan.validation}
    assert np.bincount(samples.labels[plan.validation]) == pytest.approx([20, 20, 20], abs=4)
    again = plan_training(samples, task=None, fraction=0.2, seed=0)
    other = plan_training(samples, task=None, fraction=0.2, seed=1)
    assert np.array_equal(plan.validation, again.validation)
    assert not np.array_equal(plan.validation, other.validation)


def test_a_val_split_is_taken_as_it_is_and_unlabelled_rows_are_not_used() -> None:
    train, val = plain(20), plain(10, split=Split.val)
    moved = [replace(sample, id=f"v{sample.id}") for sample in samples_of(val)]
    bare = [
        replace(samples_of(train)[0], id="x", label=-1),
        replace(samples_of(train)[0], id="y", split=Split.test),
    ]
    samples = listing_of("toy", "nowhere", ("a", "b", "c"), (*samples_of(train), *moved, *bare))
    plan = plan_training(samples, task=None, fraction=0.2, seed=0)
    ids = np.array([sample.id for sample in samples_of(samples)])
    assert sorted(ids[plan.train]) == [sample.id for sample in samples_of(train)]
    assert sorted(ids[plan.validation]) == [sample.id for sample in moved]
    assert plan.notes == (
        "1 train row without labels left out",
        "no training images of c: the network will never predict this",
    )


@pytest.mark.parametrize(
    ("samples", "task", "message"),
    [
        (plain(10, split=Split.test), None, "none of 10 samples is in a train split"),
        (plain(10), "va", "valence and arousal for only 0 of 10 train samples"),
        (plain(10, classes=1), "classes", "two or more classes are needed"),
        (plain(10, groups=1), "classes", "split in two without dividing a group"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_refused(samples: Listing, task: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        plan_training(samples, task=task, fraction=0.2, seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"network": "resnet10"},
            "timm has no network 'resnet10'; similar names: .*resnet10t",
        ),
        ({"network": "hf-hub:timm/resnet18"}, "timm has no network"),
        (
            {"network": "test_vit", "size": 20},
            "test_vit: it does not work with 20 x 20",
        ),
        ({"task": "faces"}, "task: 'faces' does not exist"),
        ({"device": "tpu"}, "choose auto, cpu, cuda"),
        ({"device": "cuda:99"}, "device: cuda:99 is not available .CUDA devices: [0-9]+.; use auto or cpu"),
    ],
)
def test_choices_that_cannot_be_are_refused(
    colours: Listing, changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        train_2d(colours, replace(TINY, **changes), tmp_path / "net.safetensors")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_an_unusable_path_is_refused_before_any_image_is_read(
    colours: Listing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "read_image", None)
    (tmp_path / "file").touch()
    (tmp_path / "folder.safetensors").mkdir()
    for place in (tmp_path / "folder.safetensors", tmp_path / "file" / "net.safetensors"):
        with pytest.raises(UsageError, match=r"out: .* cannot be (created|written)"):
            train_2d(colours, TINY, place)
    for name in ("my.h5", "net", "net.pt"):
        with pytest.raises(UsageError, match=r"out: the name must end in \.safetensors"):
            train_2d(colours, TINY, tmp_path / "new" / name)
    assert not (tmp_path / "new").exists()


def test_only_a_checkpoint_is_replaced(
    colours: Listing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, short = tmp_path / "net.safetensors", replace(TINY, epochs=1)
    train_2d(colours, short, out)
    first = out.read_bytes()
    train_2d(colours, replace(short, seed=2), out)
    assert out.read_bytes() != first
    monkeypatch.setattr(images, "read_image", None)
    foreign = save({"weight": torch.zeros(3)}, metadata={"ig3d": "[]"})
    for content in (b"\x89HDF\r\n\x1a\n" + bytes(100), b"", foreign):
        out.write_bytes(content)
        with pytest.raises(
            UsageError, match=r"net\.safetensors exists and is no checkpoint .*; choose another path"
        ) as caught:
            train_2d(colours, short, out)
        assert "\n" not in str(caught.value)
        assert out.read_bytes() == content


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0}, {"size": 8}, {"lr": 0.0}, {"lr": math.nan}, {"balance": 1.5}, {"smoothing": 1.0},
        {"validation": 0.0}, {"seed": -1}, {"batch_size": 1},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(
        UsageError, match=f"{next(iter(changes)).replace('_', '-')}: .* is out of range; choose "
    ):
        TrainConfig(**changes)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_cuda_device_is_used_and_learns(colours: Listing, tmp_path: Path) -> None:
    assert choose_device("auto").type == "cuda"
    result = train_2d(colours, replace(TINY, device="auto"), tmp_path / "net.safetensors")
    assert result.best.scores["accuracy"] > 0.9
