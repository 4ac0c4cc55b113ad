"""SMIRK, EMOCA and DECA against what the official code gave, with the same made-up numbers in the official layouts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest
import torch
from conftest import Ended, colour_folder
from listed import Sample, table_of
from made_up_weights import DATA, EMOCA_PLACE, made_up, pack, write_deca, write_emoca, write_smirk

from ig3d.errors import RunError, UsageError, WeightsError
from ig3d.extract.compiled import Compiled
from ig3d.extract.engine import Network
from ig3d.extract.regressors import REGRESSORS, find_regressor, load_regressor
from ig3d.extract.regressors.deca import checkpoint_parts
from ig3d.extract.regressors.emoca import expression_layout
from ig3d.extract.regressors.official import Checkpoint
from ig3d.extract.runtime import exact_arithmetic
from ig3d.features.blocks import choose_blocks
from ig3d.features.store import CodeStore
from ig3d.features.values import FaceBatch

# block -> where the official output has it
SMIRK = {
    "expression": ("expression_params", slice(None)),
    "pose": ("pose_params", slice(None)),
    "jaw": ("jaw_params", slice(None)),
    "eyelid": ("eyelid_params", slice(None)),
    "shape": ("shape_params", slice(None)),
    "camera": ("cam", slice(None)),
}
EMOCA = {
    "expression": ("exp", slice(None)),
    "pose": ("pose", slice(0, 3)),
    "jaw": ("pose", slice(3, 6)),
    "shape": ("shape", slice(None)),
    "camera": ("cam", slice(None)),
    "texture": ("tex", slice(None)),
    "light": ("light", slice(None)),
    "detail": ("detail", slice(None)),
}
BLOCKS = {"smirk": SMIRK, "emoca": EMOCA, "deca": {**EMOCA, "expression": ("deca_exp", slice(None))}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A weights folder with all three official files; large, so removed at once."""
    folder = tmp_path_factory.mktemp("weights")
    resnets = made_up("emoca")
    files = [write_smirk(folder), write_emoca(folder, resnets), write_deca(folder, resnets)]
    yield folder
    for file in files:
        file.unlink()
    rmtree(folder / "cache", ignore_errors=True)


@pytest.fixture(autouse=True)
def _found(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IG3D_WEIGHTS", str(weights))
    monkeypatch.setenv("XDG_CACHE_HOME", str(weights / "cache"))


def images() -> np.ndarray:
    with np.load(DATA / "official_crops.npz") as stored:
        return np.array(stored["images"])


def batch(crops: np.ndarray) -> FaceBatch:
    n = len(crops)
    return FaceBatch(np.full((n, 2), 224), np.zeros((n, 4)), None, crops, np.zeros((n, 4)))


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_is_the_officials(name: str) -> None:
    expected = pack("smirk" if name == "smirk" else "emoca")
    crops = images() if name == "smirk" else images() / np.float32(255)
    # the made-up networks magnify rounding: the official code in float32 is 5e-5 from itself in float64
    # torch on the CPU stands in for the GPU
    for precision, backend, tolerance in (
        ("fp32", None, 2e-4),
        ("fp32", "torch", 2e-4),
        ("fp64", None, 1e-6),
    ):
        regress = find_regressor(name)("cpu", precision, backend=backend)  # type: ignore[call-arg]
        codes = regress(batch(crops))
        assert list(codes) == list(regress.blocks) == list(BLOCKS[name])
        for block, (output, columns) in BLOCKS[name].items():
            official = expected[f"out/{output}"].reshape(2, -1)[:, columns]
            assert codes[block].dtype == np.float32
            assert codes[block].shape == (2, regress.blocks[block].width)
            assert np.abs(codes[block] - official).max() < tolerance, (precision, block)
        runtime = "torch" if backend or precision == "fp64" else "openvino"
        assert regress._network.runtime.startswith(runtime)
        if not backend:  # the record is made without a network
            assert regress._network.runtime == regress.describe("cpu", precision)["runtime"]
    described = regress.describe("cpu", "fp64")
    assert described["precision"] == "fp64"
    assert described["runtime"] == f"torch {torch.__version__.partition('+')[0]} cpu"
    assert len(described["weights_sha256"]) == 64


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_a_second_start_does_not_read_the_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_regressor(name, device="cpu")

    def never(_: Checkpoint) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(Checkpoint, "read", never)
    again = load_regressor(name, device="cpu")
    assert again.describe() == first.describe()
    assert again.blocks == first.blocks


def test_codes_are_the_same_in_any_company() -> None:
    regress = load_regressor("smirk", device="cpu")
    crops = np.concatenate([images(), images()[:, ::-1], images()[:, :, ::-1]])
    together = regress(batch(crops))
    alone = [regress(batch(crops[i : i + 1])) for i in range(len(crops))]
    for block, codes in together.items():
        assert np.array_equal(codes, np.concatenate([one[block] for one in alone])), block
    assert {block: codes.shape for block, codes in regress(batch(crops[:0])).items()} == {
        name: (0, block.width) for name, block in regress.blocks.items()
    }


def test_half_precision_is_near_and_keeps_the_limits() -> None:
    exact = load_regressor("smirk", device="cpu")(batch(images()))
    for precision, tolerance in (("bf16", 1.0), ("fp16", 0.2)):
        codes = load_regressor("smirk", device="cpu", precision=precision)(batch(images()))
        worst = max(np.abs(codes[block] - exact[block]).max() for block in exact)
        assert 1e-4 < worst < tolerance, precision
        assert codes["jaw"].dtype == np.float32
        assert (codes["jaw"][:, 0] >= 0).all()
        assert (np.abs(codes["jaw"][:, 1:]) <= np.float32(0.2)).all()
        assert ((codes["eyelid"] >= 0) & (codes["eyelid"] <= 1)).all()


def test_out_of_memory_halves_the_batch_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    regress = load_regressor("smirk", device="cpu")
    crops = np.concatenate([images(), images()[:, ::-1], images()[:1]])
    whole = regress(batch(crops))
    forward, limit = Compiled.__call__, 2

    def little_memory(self: Compiled, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        if len(inputs[0]) > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return forward(self, inputs)

    monkeypatch.setattr(Compiled, "__call__", little_memory)
    with caplog.at_level(logging.WARNING, logger="ig3d"):
        codes = regress(batch(crops))
    assert [record.getMessage() for record in caplog.records] == [
        "smirk (SMIRK_em1.pt): out of memory on cpu with 4 images at once; continuing with 2"
    ]
    for block in whole:
        assert np.allclose(codes[block], whole[block], atol=2e-4), block
    limit = 0
    with pytest.raises(RunError, match=r"not enough memory on cpu for one image .CUDA out of memory"):
        regress(batch(crops))


def test_a_store_records_a_batch_that_was_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ig3d import ExtractConfig, extract_codes, list_samples
    from ig3d.extract import config as configuration

    forward = Compiled.__call__

    def little_memory(self: Compiled, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        if len(inputs[0]) > 1:
            raise MemoryError
        return forward(self, inputs)

    samples = list_samples(colour_folder(tmp_path / "data", 2), "folder")
    config = ExtractConfig(regressor="smirk", detector="none", device="cpu")
    with monkeypatch.context() as patched:
        patched.setattr(Compiled, "__call__", little_memory)
        configuration._regressor.cache_clear()
        extract_codes(samples, tmp_path / "a.h5", config, jobs=1)
    configuration._regressor.cache_clear()
    extract_codes(samples, tmp_path / "b.h5", config, jobs=1)
    with CodeStore(tmp_path / "a.h5") as store, CodeStore(tmp_path / "b.h5") as other:
        assert store.info.regressor["reduced_batches"] == {"smirk (SMIRK_em1.pt)": 1}
        assert "reduced_batches" not in other.info.regressor
        assert np.allclose(store.codes("expression"), other.codes("expression"), atol=2e-4)


def without(*starts: str) -> Callable[[dict[str, torch.Tensor]], dict[str, None]]:
    return lambda state: {key: None for key in state if key.startswith(starts)}


HEAD = "smirk_encoder.pose_encoder.pose_cam_layers.0.bias"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({HEAD: None}, r"1 missing \(pose_encoder.pose_cam_layers.0.bias\)", id="missing"),
        pytest.param(
            {"smirk_encoder.pose_encoder.extra": torch.zeros(1)},
            r"1 unknown \(pose_encoder.extra\)",
            id="extra",
        ),
        pytest.param({"flame.v": torch.zeros(1)}, r"1 unknown .*\(flame.v\)", id="extra-part"),
        pytest.param(
            {HEAD: None, HEAD[:-4] + "biases": torch.zeros(6)},
            "1 missing .*; 1 unknown .*biases",
            id="renamed",
        ),
        pytest.param({HEAD: torch.zeros(7)}, r"1 of another shape .*\(7,\) for \(6,\)", id="shape"),
        pytest.param({HEAD: torch.full((6,), torch.nan)}, "1 without finite numbers", id="not-finite"),
        pytest.param(
            without("smirk_encoder.shape_encoder."), r"278 missing .* and 275 more", id="no-shape-encoder"
        ),
    ],
)
def test_anything_but_smirks_tensors_is_refused_with_the_differences(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, torch.Tensor | None] | Callable[[dict[str, torch.Tensor]], dict[str, None]],
    message: str,
) -> None:
    monkeypatch.setenv("IG3D_WEIGHTS", str(tmp_path))
    write_smirk(tmp_path, changes(made_up("smirk")) if callable(changes) else changes)
    with pytest.raises(WeightsError, match=rf"^smirk \(SMIRK_em1.pt\): .*{message}"):
        load_regressor("smirk", device="cpu")


def test_a_file_cut_short_or_of_another_kind_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IG3D_WEIGHTS", str(tmp_path))
    file = write_smirk(tmp_path)
    file.write_bytes(file.read_bytes()[:1_000_000])
    with pytest.raises(WeightsError, match=r"SMIRK_em1\.pt"):
        load_regressor("smirk", device="cpu")
    (tmp_path / "SMIRK_em1.pt.ig3d.json").unlink(missing_ok=True)
    torch.save([torch.zeros(3)], file)
    with pytest.raises(WeightsError, match="a list, not named tensors"):
        load_regressor("smirk", device="cpu")


def checkpoint(path: Path = Path("x.ckpt")) -> Checkpoint:
    return Checkpoint("emoca (x.ckpt)", path, "0")


def parts_of(arrays: dict[str, object]) -> dict[str, Mapping[str, object]]:
    return checkpoint_parts(arrays, what="emoca (x.ckpt)")


def test_the_parts_of_a_checkpoint_are_told_apart() -> None:
    weight = np.zeros(1, np.float32)
    lightning = {"deca.E_flame.a": weight, "deca.E_detail.b": weight, "deca.flame.v": weight}
    parts = parts_of({"state_dict": lightning, "epoch": 3})
    assert {name: list(part) for name, part in parts.items()} == {"E_flame": ["a"], "E_detail": ["b"]}
    assert list(parts_of({"state_dict": {**lightning, "deca.E_expression.c": weight}})) == [
        "E_flame",
        "E_expression",
        "E_detail",
    ]
    with pytest.raises(WeightsError, match=r"1 unknown tensors \(deca.surprise\)"):
        parts_of({"state_dict": {**lightning, "deca.surprise": weight}})
    with pytest.raises(WeightsError, match=r"1 unknown tensors \(surprise\)"):
        parts_of({"E_flame": {}, "E_detail": {}, "surprise": 1})
    with pytest.raises(WeightsError, match=r"neither state_dict .* model, epoch"):
        parts_of({"model": {}, "epoch": 1})


def test_what_the_expression_encoder_replaces(tmp_path: Path) -> None:
    expression = {"expression": slice(0, 50)}
    assert expression_layout(50, checkpoint()) == expression
    assert expression_layout(56, checkpoint()) == {
        **expression,
        "pose": slice(50, 53),
        "jaw": slice(53, 56),
    }
    place = checkpoint(tmp_path / "detail" / "checkpoints" / "x.ckpt")
    with pytest.raises(WeightsError, match=r"need cfg\.yaml in a folder above"):
        expression_layout(53, place)
    settings = "detail: {model: {exp_deca_global_pose: %s, exp_deca_jaw_pose: %s}}"
    for head, jaw, block in (("false", "true", "jaw"), ("true", "false", "pose")):
        (tmp_path / "cfg.yaml").write_text(settings % (head, jaw))
        assert expression_layout(53, place) == {**expression, block: slice(50, 53)}
    (tmp_path / "cfg.yaml").write_text("coarse: {}")
    with pytest.raises(WeightsError, match=r"detail\.model\.exp_deca_global_pose"):
        expression_layout(53, place)


def test_one_regressors_file_under_anothers_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IG3D_WEIGHTS", str(tmp_path))
    last = torch.zeros(50, 4)
    small = {"deca.E_flame.a": last, "deca.E_detail.a": last}
    torch.save(
        {"state_dict": {**small, "deca.E_expression.layers.2.weight": last}}, tmp_path / "deca_model.tar"
    )
    with pytest.raises(WeightsError, match="EMOCA, not DECA; use --regressor emoca"):
        load_regressor("deca", device="cpu")
    write_emoca(tmp_path, small)
    with pytest.raises(WeightsError, match="DECA, not EMOCA; use --regressor deca"):
        load_regressor("emoca", device="cpu")


def test_an_expression_encoder_of_another_kind_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IG3D_WEIGHTS", str(tmp_path))
    write_emoca(tmp_path, {"deca.E_expression.resnet.conv1.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"a separate ResNet .* 1 tensors of another network"):
        load_regressor("emoca", device="cpu")


def test_settings_that_are_not_there() -> None:
    with pytest.raises(
        UsageError, match="regressor smirk: there is no precision 'int8'; choose one of fp32, fp64"
    ):
        load_regressor("smirk", precision="int8")
    with pytest.raises(UsageError, match=r"device: cuda:99 is not available \(CUDA devices: \d+\)"):
        load_regressor("smirk", device="cuda:99")
    with pytest.raises(
        UsageError, match="regressor facemesh: there is no precision 'fp16'; choose one of fp32"
    ):
        load_regressor("facemesh", precision="fp16")
    with pytest.raises(
        UsageError, match="regressor smirk: --also landmarks is no optional block; it has none"
    ):
        load_regressor("smirk", ("landmarks",))


@pytest.mark.parametrize("name", [name for name in REGRESSORS if name.startswith("emoca_")])
def test_each_release_of_emoca_has_its_own_file(
    name: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IG3D_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=rf"^{name}: .*EMOCA"):
        load_regressor(name, device="cpu")
    if name != "emoca_v1":
        return  # reading one of the large files is enough
    (tmp_path / "EMOCA").symlink_to(weights / EMOCA_PLACE.partition("/")[0], target_is_directory=True)
    regress = load_regressor(name, device="cpu")
    assert regress.describe()["name"] == name
    assert regress.blocks["expression"].basis == "flame-2020"
    assert regress.blocks["detail"].basis == f"{name}-detail"  # a latent space of the release's own


@pytest.mark.parametrize(
    ("name", "text", "width", "first"),
    [
        # the paper's feature sets
        ("smirk", "short", 353, "pose"),
        ("smirk", "full", 358, "pose"),
        ("emoca", "short", 156, "expression"),
        ("emoca", "full", 334, "expression"),
        ("deca", "full", 334, "expression"),
        ("smirk", "expression+jaw", 53, "expression"),
    ],
)
def test_named_sets_have_the_papers_widths(name: str, text: str, width: int, first: str) -> None:
    outputs = pack("smirk" if name == "smirk" else "emoca")
    widths = {
        block: outputs[f"out/{output}"].reshape(2, -1)[:, columns].shape[1]
        for block, (output, columns) in BLOCKS[name].items()
    }
    chosen = choose_blocks(text, widths, find_regressor(name).sets)
    assert sum(widths[block] for block in chosen) == width
    assert chosen[0] == first


def test_the_command_writes_smirks_codes(ig3d: Callable[..., Ended], tmp_path: Path) -> None:
    from ig3d.faces.synth import SynthConfig, synthesize

    synthesize(tmp_path / "faces", SynthConfig(count=6, jobs=1))
    common = ("extract", tmp_path / "faces", "--dataset", "rafdb", "--regressor", "smirk", "--jobs", 1)
    ended = ig3d(*common, "--out", tmp_path / "a.h5", "--device", "cpu")
    assert ended.returncode == 0, ended.stderr
    assert "stands in" not in ended.stderr
    with CodeStore(tmp_path / "a.h5") as store:
        assert list(store.blocks) == list(SMIRK)
        assert store.blocks["shape"].basis == "flame-2020"
        assert store.info.regressor["name"] == "smirk"
        assert store.info.detector["name"] == "facemesh-smirk"
        assert store.info.regressor["runtime"].endswith("cpu")
        assert store.info.crop["scale"] == 1.4
        assert store.info.config["options"]["precision"] == "fp32"
        assert "device" not in store.info.config["options"]
        codes = store.codes("expression")
        assert np.isfinite(codes).all()
        assert codes.std(0).min() > 0
    refused = ig3d(*common, "--out", tmp_path / "a.h5", "--device", "cpu", "--precision", "bf16")
    assert refused.returncode == 1
    assert "options.precision: fp32 -> bf16" in refused.stderr
    whole = ig3d(*common, "--out", tmp_path / "b.h5", "--detector", "none")
    assert whole.returncode == 0, whole.stderr
    with CodeStore(tmp_path / "b.h5") as store:
        assert store.info.crop["whole_image"]
        assert np.abs(store.codes("expression") - codes).max() > 1e-2
    absent = ig3d(*common, "--out", tmp_path / "c.h5", "--device", "cuda:99")
    assert absent.returncode == 2
    assert absent.stderr.splitlines()[-1].startswith("ig3d: device: cuda:99 is not available")


def test_a_run_gives_torch_one_thread_and_then_takes_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ig3d import ExtractConfig, extract_codes, list_samples

    seen = []
    start = Network.start

    def watched(self: Network, *inputs: np.ndarray) -> Callable[[], tuple[np.ndarray, ...]]:
        seen.append(torch.get_num_threads())
        return start(self, *inputs)

    monkeypatch.setattr(Network, "start", watched)
    samples = list_samples(colour_folder(tmp_path / "data", 2), "folder")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        config = ExtractConfig(regressor="smirk", detector="none", device="cpu")
        extract_codes(samples, tmp_path / "a.h5", config, jobs=1)
        assert seen == [1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.gpu
@pytest.mark.parametrize("name", BLOCKS)
def test_the_gpu_gives_the_same_codes_and_keeps_its_settings(name: str) -> None:
    crops = images() if name == "smirk" else images() / np.float32(255)
    expected = load_regressor(name, device="cpu", precision="fp64")(batch(crops))
    settings = torch.backends.cudnn
    before = (settings.allow_tf32, settings.benchmark, settings.deterministic)
    regress = load_regressor(name, device="cuda")
    codes = regress(batch(crops))
    assert (settings.allow_tf32, settings.benchmark, settings.deterministic) == before
    for block in codes:
        assert np.abs(codes[block] - expected[block]).max() < 2e-4, block
    alone = regress(batch(crops[:1]))
    assert all(np.array_equal(codes[block][:1], alone[block]) for block in codes)


@pytest.mark.parametrize(
    ("device", "precision"), [("cpu", "fp64"), pytest.param("cuda:0", "fp32", marks=pytest.mark.gpu)]
)
def test_reading_processes_and_batches_change_no_byte(tmp_path: Path, device: str, precision: str) -> None:
    """Torch on the CPU takes the way of a GPU: tensors of other processes, copied to the device, batches in advance."""
    from PIL import Image

    from ig3d import CodeStore, ExtractConfig
    from ig3d.extract.batches import Shard
    from ig3d.extract.boxes import FaceBoxes
    from ig3d.extract.stages import extract_shards
    from ig3d.features.store.format import StoreInfo

    samples = tuple(Sample(f"{number:02d}", f"{number:02d}.png") for number in range(14))
    for sample, pixels in zip(
        samples, np.random.default_rng(0).integers(0, 256, (14, 90, 120, 3), np.uint8), strict=True
    ):
        Image.fromarray(pixels).save(tmp_path / sample.path)
    (tmp_path / "07.png").write_bytes(b"")
    config = ExtractConfig(regressor="smirk", detector="none", device=device, precision=precision)
    hashes = set()
    for readers, batch_size in ((0, 6), (2, 5)):
        shards = [
            Shard(tmp_path / f"{number}.h5", table_of(part), FaceBoxes.unknown(len(part)))
            for number, part in enumerate((samples[:8], samples[8:]))
        ]
        config = replace(config, batch_size=batch_size)
        counts = extract_shards(shards, str(tmp_path), config, StoreInfo("a", "", ()), readers)
        assert counts == {"ok": 13, "unreadable": 1}
        found = []
        for shard in shards:
            with CodeStore(shard.path) as store:
                assert store.verify() == []
                found.append(store.content_sha256)
        hashes.add(tuple(found))
    assert len(hashes) == 1


def test_tf32_is_off_while_the_networks_run_and_back_afterwards() -> None:
    settings = torch.backends.cudnn
    before = (settings.allow_tf32, settings.benchmark)
    with exact_arithmetic():
        assert not settings.allow_tf32
        assert not settings.benchmark
        assert not torch.backends.cuda.matmul.allow_tf32
    assert (settings.allow_tf32, settings.benchmark) == before
