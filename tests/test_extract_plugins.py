"""Plug-ins of other packages: the examples of docs/plugins.md as printed, their names, and broken contracts."""

from __future__ import annotations

import hashlib
import http.server
import re
import subprocess
import sys
import threading
import tomllib
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from conftest import Ended, colour_folder, write_image
from PIL import Image

import ig3d
from ig3d.errors import PluginError, RunError, UsageError
from ig3d.extract.config import ExtractConfig, build, describe, resolve_config
from ig3d.extract.datasets import Dataset, adapter_of
from ig3d.extract.detectors import DETECTORS, Detector, find_detector
from ig3d.extract.fakes import FakeDetector, FakeRegressor
from ig3d.extract.plugins import check_codes, check_faces
from ig3d.extract.regressors import REGRESSORS, Regressor, find_regressor
from ig3d.features.store import CodeStore
from ig3d.features.values import Block, CropSpec, Face, Status

PAGE = (Path(ig3d.__file__).parent / "docs" / "plugins.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)
FILES = {match[1]: code for code in BLOCKS if (match := re.match(r"# (\w+\.py)\n", code))}
ENTRY_POINTS = tomllib.loads(re.findall(r"```toml\n(.*?)```", PAGE, re.S)[0])["project"]["entry-points"]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the page's three files."""
    folder = tmp_path_factory.mktemp("examples")
    for name, code in FILES.items():
        (folder / name).write_text(code)
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    import torch

    class Made(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean = x.mean(dim=(2, 3))
            return torch.cat([mean[:, :1].repeat(1, 10), mean], 1)

    file = tmp_path_factory.mktemp("network") / "smile.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.trace(Made(), torch.zeros(2, 3, 64, 64)).save(str(file))
    return file


Run = Callable[..., Ended]


@pytest.fixture
def run(ig3d: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``ig3d`` with the modules of a folder, as they are now, and a folder of weights."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def run(modules: Path, weights: Path, *arguments: object) -> Ended:
        for name in FILES:
            monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
        with monkeypatch.context() as changed:
            changed.syspath_prepend(modules)
            changed.setenv("IG3D_WEIGHTS", str(weights))
            return ig3d(*arguments)

    return run


def test_each_example_has_less_than_forty_lines() -> None:
    assert sorted(FILES) == ["jaffe_ig3d.py", "skin_ig3d.py", "smile_ig3d.py"]
    assert {name: len(code.splitlines()) for name, code in FILES.items() if code.count("\n") >= 40} == {}


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # is deprecated in newer versions of torch
@pytest.mark.parametrize("jobs", [1, 2])
def test_the_regressor_of_the_page(
    run: Run, examples: Path, network: Path, tmp_path: Path, jobs: int
) -> None:
    root, out = colour_folder(tmp_path / "data", 40), tmp_path / "a.h5"
    options = ("--regressor", "smile_ig3d:Smile", "--detector", "none", "--out", out, "--jobs", jobs)
    missing = run(examples, tmp_path / "none", "extract", root, *options)
    assert missing.returncode == 1 and not out.exists()
    assert "smile: found no smile.pt" in missing.stderr and "ask the authors for smile.pt" in missing.stderr
    ended = run(examples, network.parent, "extract", root, *options)
    assert ended.returncode == 0, ended.stderr
    with CodeStore(out) as store:
        assert store.ok.all()
        regressor = store.info.regressor
        assert regressor["name"] == "smile" and re.fullmatch(r"torch \S+ (cpu|cuda)", regressor["runtime"])
        assert regressor["weights_sha256"] == hashlib.sha256(network.read_bytes()).hexdigest()
        assert store.codes("expression").shape == (80, 10)
        assert np.ptp(store.codes("pose"), axis=0).min() > 0


def test_the_detector_of_the_page(run: Run, examples: Path, tmp_path: Path) -> None:
    pixels = np.full((60, 80, 3), 90, np.uint8)
    pixels[10:40, 20:60] = 200, 140, 110
    (tmp_path / "data").mkdir()
    Image.fromarray(pixels).save(tmp_path / "data" / "a.png")
    write_image(tmp_path / "data" / "b.png", (90, 90, 90))
    options = ("--regressor", "ig3d.extract.fakes:FakeRegressor", "--detector", "skin_ig3d:Skin")
    ended = run(
        examples, tmp_path, "extract", tmp_path / "data", *options, "--out", tmp_path / "a.h5", "--jobs", 1
    )
    assert ended.returncode == 0, ended.stderr
    with CodeStore(tmp_path / "a.h5") as store:
        assert store.info.detector["name"] == "skin"
        assert re.fullmatch(r"cv2 \S+ cpu", store.info.detector["runtime"])
        assert store.status.tolist() == [Status.ok, Status.no_face]
        assert store.column("face/box")[0].tolist() == [20, 10, 60, 40]


def test_the_dataset_of_the_page(run: Run, examples: Path, tmp_path: Path) -> None:
    for name in ("KA.AN1.39", "KA.HA1.29", "KL.SU2.7"):
        write_image(tmp_path / "jaffe" / f"{name}.tiff", (90, 120, 150))
    options = (
        "--dataset",
        "jaffe_ig3d:Jaffe",
        "--regressor",
        "ig3d.extract.fakes:FakeRegressor",
        "--jobs",
        1,
    )
    ended = run(examples, tmp_path, "extract", tmp_path / "jaffe", *options, "--out", tmp_path / "a.h5")
    assert ended.returncode == 0 and "no file for" not in ended.stderr, ended.stderr
    with CodeStore(tmp_path / "a.h5") as store:
        assert store.samples["label"].tolist() == ["anger", "happy", "surprise"]
        assert store.samples["group"].tolist() == ["KA", "KA", "KL"]
    (tmp_path / "empty").mkdir()
    ended = run(examples, tmp_path, "extract", tmp_path / "empty", *options, "--out", tmp_path / "b.h5")
    assert ended.returncode == 1 and "no files such as KA.AN1.39.tiff" in ended.stderr


@pytest.fixture
def address(network: Path) -> Iterator[str]:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(network.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/smile.pt"
        server.shutdown()


def test_the_recipe_for_fetching_weights(
    run: Run, network: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IG3D_OFFLINE", "0")
    digest = hashlib.sha256(network.read_bytes()).hexdigest()
    (recipe,) = (code for code in BLOCKS if code.startswith("FILE = "))
    entry = recipe.replace("https://example.org/smile.pt", address).replace("0" * 64, digest)
    old = re.search(r"^FILE = .*\n", FILES["smile_ig3d.py"], re.M)
    assert old and entry != recipe
    (tmp_path / "smile_ig3d.py").write_text(FILES["smile_ig3d.py"].replace(old[0], entry))
    target = tmp_path / "weights" / "smile.pt"
    ended = run(tmp_path, target.parent, "weights", "get", "smile_ig3d:Smile")
    assert ended.returncode == 0, ended.stderr
    assert hashlib.sha256(target.read_bytes()).hexdigest() == digest
    target.unlink()
    ended = run(tmp_path, target.parent, "weights", "add", network, "--as", "smile_ig3d:Smile")
    assert ended.returncode == 0 and target.is_file(), ended.stderr
    # another hash than that of the file
    (tmp_path / "smile_ig3d.py").write_text(
        FILES["smile_ig3d.py"].replace(old[0], entry.replace(digest, "1" * 64))
    )
    target.unlink()
    ended = run(tmp_path, target.parent, "weights", "get", "smile_ig3d:Smile")
    assert ended.returncode == 1 and "not the published 111111111111" in ended.stderr
    assert not target.exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # is deprecated in newer versions of torch
def test_registered_names_stand_beside_the_built_in_ones(run: Run, network: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"  # as pip installs the page's package
    metadata = site / "ig3d_examples-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: ig3d-examples\nVersion: 1.0\n")
    lines = [
        line
        for group, points in ENTRY_POINTS.items()
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in points.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for name, code in FILES.items():
        (site / name).write_text(code)
    root = tmp_path / "data"
    write_image(root / "KA.AN1.39.tiff", (90, 120, 150))
    options = ("--dataset", "jaffe", "--regressor", "smile", "--jobs", 1, "--out", tmp_path / "a.h5")
    ended = run(site, network.parent, "extract", root, *options, "--detector", "none")
    assert ended.returncode == 0, ended.stderr
    assert "detector none, regressor smile: blocks expression, pose" in ended.stderr
    ended = run(site, network.parent, "extract", root, "--regressor", "x", "--out", tmp_path / "b.h5")
    assert ended.returncode == 2 and "smile" in ended.stderr.splitlines()[-1]
    assert "jaffe: ROOT/PERSON" in run(site, tmp_path, "datasets").stdout
    ended = run(site, tmp_path / "weights", "weights", "add", network, "--as", "smile")
    assert ended.returncode == 0 and (tmp_path / "weights" / "smile.pt").is_file(), ended.stderr


# metadata


def test_metadata_of_regressors_need_no_network() -> None:
    code = (
        "import sys; from ig3d.extract.regressors import REGRESSORS, find_regressor as find\n"
        "for name in REGRESSORS:\n"
        "    print(name, find(name).name, *find(name).blocks)\n"
        "    assert not {'torch', 'openvino', 'timm'} & set(sys.modules), name\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, name] for name in REGRESSORS]
    assert all("expression" in line for line in lines)


def test_every_built_in_plugin_declares_licence_and_detector() -> None:
    for name in REGRESSORS:
        regressor = find_regressor(name)
        assert regressor.licence and regressor.name == name
        preferred = find_detector(regressor.detectors[0])
        assert preferred.gives(regressor.needs)
    assert all(find_detector(name).name == name for name in DETECTORS)


def test_no_network_is_built_to_settle_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a plug-in was built")

    monkeypatch.setattr(FakeRegressor, "__init__", refuse)
    monkeypatch.setattr(FakeDetector, "__init__", refuse)
    monkeypatch.setattr(Regressor, "problems", classmethod(lambda cls: iter(())))
    monkeypatch.setattr(Detector, "problems", classmethod(lambda cls: iter(())))
    config, _ = resolve_config(ExtractConfig(regressor="ig3d.extract.fakes:FakeRegressor"))
    assert (config.device, config.batch_size) == ("cpu", 32)
    assert config.detector == "ig3d.extract.fakes:FakeDetector"


# class attributes


class Bare:
    """Not derived from a base class."""


class NoNeeds(Regressor):
    name = "no-needs"
    detectors = ("none",)
    blocks: ClassVar = {"a": Block(1, "1", "x", "")}

    def __call__(self, faces):
        return {}


class OneText(NoNeeds):
    needs = CropSpec(size=8)
    detectors = "facemesh"  # type: ignore[assignment]


class BadSet(NoNeeds):
    needs = CropSpec(size=8)
    sets: ClassVar = {"short": ("a", "b")}


class BadBlock(NoNeeds):
    needs = CropSpec(size=8)
    blocks: ClassVar = {"a+b": Block(1, "1", "x", "")}


class BadConstructor(NoNeeds):
    needs = CropSpec(size=8)

    def __init__(self):
        super().__init__()


class BadCrop(FakeDetector):
    crop = "whole"


class NoLayout(Dataset):
    name = "no-layout"

    def read(self, root, options):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("regressor", "Bare", "Bare is not derived from ig3d.extract.regressors.Regressor"),
        ("regressor", "NoNeeds", r"the class attribute needs \(CropSpec or LandmarkSpec\) is missing"),
        ("regressor", "OneText", "the class attribute detectors is 'facemesh'; it must be a tuple"),
        ("regressor", "BadSet", "short contains b, which is no block"),
        ("regressor", "BadBlock", "the block name 'a.b' is empty or contains"),
        ("regressor", "BadConstructor", "the constructor must accept device and precision"),
        ("detector", "BadCrop", "crop is 'whole'; it must be one of face, full image"),
        ("dataset", "NoLayout", r"the class attribute layout \(str\) is missing"),
    ],
)
def test_wrong_class_attributes_are_one_line(kind: str, name: str, message: str) -> None:
    find = {"regressor": find_regressor, "detector": find_detector, "dataset": adapter_of}[kind]
    with pytest.raises(PluginError, match=message) as caught:
        find(f"{__name__}:{name}")
    assert "\n" not in str(caught.value) and str(caught.value).startswith(kind)


def test_a_device_without_use_and_landmarks_that_are_not_there() -> None:
    fake = "ig3d.extract.fakes:FakeRegressor"
    with pytest.raises(UsageError, match="fake and none cannot use cuda:0"):
        resolve_config(ExtractConfig(regressor=fake, detector="none", device="cuda:0"))
    with pytest.raises(
        UsageError, match="finds no landmarks, but facemesh needs 478 landmarks and blendshapes"
    ):
        resolve_config(ExtractConfig(detector="none"))


# returned codes and faces


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ({"colour": np.zeros((2, 4), np.float32)}, r"block colour is \(2, 4\) float32; .* floats \(2, 3\)"),
        ({"colour": np.zeros((3, 3), np.float32)}, r"block colour is \(3, 3\) float32; .* floats \(2, 3\)"),
        ({"colour": np.zeros((2, 3), int)}, r"block colour is \(2, 3\) int64; .* floats \(2, 3\)"),
        ({"colour": [[0.0] * 3] * 2}, "block colour is a list of 2"),
        ({"color": np.zeros((2, 3))}, "block colour is missing: it returned color; it must return colour"),
        ({"colour": np.zeros((2, 3)), "x": 0}, "block x is not declared"),
        (np.zeros((2, 3)), r"it returned \(2, 3\) float64; it must return a dict"),
        (None, "it returned a NoneType"),
    ],
)
def test_wrong_codes_are_one_line(codes: object, message: str) -> None:
    with pytest.raises(PluginError, match=f"regressor fake: {message}") as caught:
        check_codes(FakeRegressor(), codes, 2)
    assert "\n" not in str(caught.value)


def test_sound_codes_are_float32_in_the_order_of_the_blocks() -> None:
    checked = check_codes(FakeRegressor(), {"colour": np.ones((2, 3))}, 2)
    assert checked["colour"].dtype == np.float32


BOX = np.array([0, 0, 4, 4], np.float32)


@pytest.mark.parametrize(
    ("faces", "message"),
    [
        (None, "it returned a NoneType; it must return a list of 2 lists"),
        ([[]], "it returned a list of 1; it must return a list of 2 lists"),
        ([[], None], "it returned a NoneType for an image; it must be a list of faces"),
        ([[], [BOX]], r"it returned \(4,\) float32 as a face"),
        ([[], [Face(BOX[:3])]], r"xyxy of a face is \(3,\) float32; it must be \(4,\)"),
        ([[], [Face(BOX, landmarks=BOX.reshape(2, 2))]], "landmarks of a face .* attribute landmarks is 0"),
        ([[], [Face(BOX, blendshapes=BOX)]], r"blendshapes of a face is \(4,\) float32; it must be \(52,\)"),
        ([[], [Face(BOX, "high")]], "score of a face is a str"),  # type: ignore[arg-type]
    ],
)
def test_wrong_faces_are_one_line(faces: object, message: str) -> None:
    with pytest.raises(PluginError, match=f"detector fake: {message}") as caught:
        check_faces(FakeDetector(), faces, 2)
    assert "\n" not in str(caught.value)


def test_sound_faces_pass() -> None:
    assert check_faces(FakeDetector(), [(), [Face(BOX, 0.5)]], 2)[0] == []


class Narrow(FakeRegressor):
    """One column too few."""

    def __call__(self, faces):
        return {"colour": super().__call__(faces)["colour"][:, :2]}


class Broken(FakeRegressor):
    """Its network cannot be loaded."""

    def __init__(self, device: str, precision: str) -> None:
        raise RuntimeError("no zip archive")


@pytest.mark.parametrize(
    ("regressor", "message"),
    [
        ("Narrow", r"regressor fake: block colour is \(\d+, 2\) float32; .* \(\d+, 3\)"),
        ("Broken", r"regressor fake: the constructor raised RuntimeError: no zip archive; --verbose"),
    ],
)
def test_a_broken_contract_ends_the_command_in_one_line(
    run: Run, tmp_path: Path, regressor: str, message: str
) -> None:
    root = colour_folder(tmp_path / "data", 8)
    options = ("--regressor", f"{Path(__file__).stem}:{regressor}", "--detector", "none", "--jobs", 2)
    ended = run(Path(__file__).parent, tmp_path, "extract", root, *options, "--out", tmp_path / "a.h5")
    assert ended.returncode == 1, ended.stderr
    assert re.search(message, ended.stderr.strip().splitlines()[-1]), ended.stderr
    assert "Traceback" not in ended.stderr and not (tmp_path / "a.h5").exists()


def test_a_worker_with_another_runtime_refuses() -> None:
    config, _ = resolve_config(ExtractConfig(regressor="ig3d.extract.fakes:FakeRegressor"))
    recorded = {**describe(config)[0], "sets": {}, "licence": ""}
    assert build(config, recorded)[0].name == "fake"
    with pytest.raises(RunError, match=r"regressor fake: this worker differs .*: version is 1, not 2"):
        build(config, {**recorded, "version": "2"})
