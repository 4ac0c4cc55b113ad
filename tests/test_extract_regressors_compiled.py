"""Encoders compiled for the processor: the same codes as torch's, converted once, torch where they cannot be had."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch

from ig3d.extract.regressors import compiled
from ig3d.extract.regressors.encoders import Encoders, Mobile

NETWORKS = {
    "pose": Mobile("tf_mobilenetv3_small_minimal_100", "first", 6),
    "shape": Mobile("test_resnet", "second", 9),
}


def tensors() -> dict[str, dict[str, np.ndarray]]:
    torch.manual_seed(0)
    return {
        name: {key: value.numpy() for key, value in network.build({}).state_dict().items()}
        for name, network in NETWORKS.items()
    }


def encoders(arrays: dict[str, dict[str, np.ndarray]], key: str = "a", runtime: str = "auto") -> Encoders:
    return Encoders(
        NETWORKS, lambda: arrays, what="made up", device="cpu", precision="fp32", key=key, runtime=runtime
    )


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def crops(n: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 224, 224, 3), np.uint8)


def test_the_numbers_are_torchs() -> None:
    arrays = tensors()
    fast, plain = encoders(arrays), encoders(arrays, runtime="torch")
    assert fast.describe()["runtime"].startswith("openvino ")
    assert plain.describe()["runtime"].startswith("torch ")
    for images in (crops(), crops().astype(np.float32) / np.float32(255)):
        one, other = fast(images), plain(images)
        for name in NETWORKS:
            assert one[name].dtype == np.float32
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5)
            assert np.ptp(one[name]) > 0.01


def test_company_and_a_second_start_change_no_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = tensors()
    first = encoders(arrays)
    together = first(crops())

    def never(*_: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(compiled, "_put", never)
    again = encoders(arrays)
    for name in NETWORKS:
        alone = [again(image[None])[name] for image in crops()]
        assert np.array_equal(together[name], np.concatenate(alone))
    with pytest.raises(AssertionError, match="converted again"):
        encoders(arrays, key="other weights")


def test_what_was_compiled_is_used_again_unless_it_is_damaged(tmp_path: Path) -> None:
    arrays = tensors()
    wanted = encoders(arrays)(crops())
    (kept,) = (tmp_path / "cache").rglob("*.blob")
    content = kept.read_bytes()
    starts = []
    for left in (b"", b"junk" * 1000, content[:-20]):
        kept.write_bytes(left)
        starts.append(encoders(arrays)(crops()))
        assert len(kept.read_bytes()) == pytest.approx(len(content), rel=0.01)
    (graph,) = (tmp_path / "cache").rglob("encoders.bin")
    graph.write_bytes(bytes(graph.stat().st_size))  # would be compiled to other numbers
    starts.append(encoders(arrays)(crops()))
    for outputs in starts:
        assert all(np.array_equal(wanted[name], outputs[name]) for name in NETWORKS)


def test_without_openvino_torch_runs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ig3d.extract.regressors.compiled", None)
    assert encoders(tensors()).describe()["runtime"].startswith("torch ")


def test_what_cannot_be_converted_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("an operator is unknown\nand more")

    monkeypatch.setattr(compiled, "_put", fails)
    with caplog.at_level(logging.WARNING, logger="ig3d"):
        run = encoders(tensors())
    assert "torch runs them: an operator is unknown" in caplog.text
    assert run.describe()["runtime"].startswith("torch ")
    assert run(crops(1))["pose"].shape == (1, 6)


def test_a_second_start_neither_reads_the_weights_nor_imports_torch() -> None:
    arrays = tensors()
    encoders(arrays)
    code = f"""
import sys
import numpy as np
from ig3d.extract.regressors.encoders import Encoders, Mobile

def never():
    raise AssertionError("read again")

networks = {{name: Mobile(*spec) for name, spec in {[(n, astuple(m)) for n, m in NETWORKS.items()]!r}}}
run = Encoders(networks, never, what="made up", device="cpu", precision="fp32", key="a")
outputs = run(np.zeros((3, 224, 224, 3), np.uint8))
assert outputs["shape"].shape == (3, 9)
assert run.describe()["runtime"].startswith("openvino ")
assert not {{"torch", "timm"}} & set(sys.modules), "imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AssertionError, match="read"):
        Encoders(NETWORKS, never, what="made up", device="cpu", precision="fp64", key="a")


def never() -> dict[str, dict[str, np.ndarray]]:
    raise AssertionError("read")
