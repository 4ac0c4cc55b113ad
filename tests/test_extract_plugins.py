"""Another package's regressor, detector and dataset, with no change here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import colour_folder

import ig3d
from ig3d.faces.synth import SynthConfig, synthesize
from ig3d.features.store import CodeStore

PLUGIN = '''
import numpy as np
from ig3d.extract.datasets import Dataset
from ig3d.features.values import Block, CropSpec, Face


class Brightness:
    """The mean of a crop, in [0, 1]."""

    name = "brightness"
    needs = CropSpec(size=16, scale=1.0)
    detectors = ("middle",)
    blocks = {"expression": Block(1, "1", "brightness", "Mean grey value.")}

    def describe(self):
        return {"name": self.name, "version": "1"}

    def __call__(self, faces):
        return {"expression": faces.crops.reshape(len(faces), -1).mean(1, keepdims=True).astype(np.float32) / 255}


class Middle:
    name = "middle"

    def describe(self):
        return {"name": self.name}

    def __call__(self, images):
        return [[Face(np.array([5, 5, 15, 15], np.float32), 1.0)] for image in images]


class Flat(Dataset):
    name = "flat"
    layout = "flat expects ROOT/*/*.png"

    def read(self, root, options):
        paths = [path.relative_to(root).as_posix() for path in root.glob("*/*.png")]
        return self.listing(root, [{"id": path[:-4], "path": path} for path in paths])
'''
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "ig3d-brightness"
version = "1.0"

[project.entry-points."ig3d.regressors"]
brightness = "ig3d_brightness:Brightness"

[project.entry-points."ig3d.detectors"]
middle = "ig3d_brightness:Middle"

[project.entry-points."ig3d.datasets"]
flat = "ig3d_brightness:Flat"

[tool.setuptools]
py-modules = ["ig3d_brightness"]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the tiny package is installed, as pip does it."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "ig3d_brightness.py").write_text(PLUGIN)
    (source / "pyproject.toml").write_text(PROJECT)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, capture_output=True)
    return target


def run(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ig3d", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_installed_package_brings_its_regressor(site: Path, tmp_path: Path, jobs: int) -> None:
    root, out = colour_folder(tmp_path / "data", 40), tmp_path / "a.h5"
    ended = run(
        site, "extract", root, "--dataset", "flat", "--regressor", "brightness", "--out", out, "--jobs", jobs
    )
    assert ended.returncode == 0, ended.stderr
    assert "detector middle, regressor brightness: blocks expression" in ended.stderr
    with CodeStore(out) as store:
        assert store.info.regressor == {"name": "brightness", "version": "1"}
        from PIL import Image

        pixels = np.asarray(Image.open(root / store.samples.path[5]))
        assert store.codes("expression")[5, 0] == pytest.approx(pixels.mean() / 255, abs=1e-3)


def test_its_name_stands_among_the_others(site: Path, tmp_path: Path) -> None:
    ended = run(
        site, "extract", colour_folder(tmp_path / "data", 2), "--regressor", "x", "--out", tmp_path / "a.h5"
    )
    assert ended.returncode == 2
    assert "brightness" in ended.stderr.splitlines()[-1]


def test_the_example_of_the_docs_works_as_printed(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    page = (Path(ig3d.__file__).parent / "docs" / "plugins.md").read_text()
    (tmp_path / "sheap_ig3d.py").write_text(re.findall(r"```python\n(.*?)```", page, re.S)[0])
    make_network = """
import sys, torch
class Made(torch.nn.Module):
    def forward(self, x):
        mean = x.mean(dim=(2, 3))
        return {"expression": mean[:, :1].repeat(1, 50), "pose": mean}
torch.jit.trace(Made(), torch.zeros(2, 3, 224, 224), strict=False).save(sys.argv[1])
"""
    subprocess.run(
        [sys.executable, "-c", make_network, str(tmp_path / "sheap.pt")], check=True, capture_output=True
    )
    synthesize(tmp_path / "faces", SynthConfig(count=6))
    ended = subprocess.run(
        [sys.executable, "-m", "ig3d", "extract", str(tmp_path / "faces"), "--dataset", "rafdb", "--jobs", "1",
         "--regressor", "sheap_ig3d:Sheap", "--out", str(tmp_path / "a.h5")],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "SHEAP_FILE": str(tmp_path / "sheap.pt")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    with CodeStore(tmp_path / "a.h5") as store:
        assert store.ok.all()
        assert store.codes("expression").shape == (6, 50)
        assert np.ptp(store.codes("pose"), axis=0).min() > 0
