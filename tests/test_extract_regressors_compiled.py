"""Encoders compiled for the processor: the same codes as torch's, converted once, torch where they cannot be had."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
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
    monkeypatch.setenv("IG3D_COMPILED", "")  # so that a temporary folder is forgotten after its test


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

    monkeypatch.setattr(compiled, "_convert", never)
    again = encoders(arrays)
    for name in NETWORKS:
        alone = [again(image[None])[name] for image in crops()]
        assert np.array_equal(together[name], np.concatenate(alone))
    with pytest.raises(AssertionError, match="converted again"):
        encoders(arrays, key="other weights")


@pytest.mark.skipif(
    len(getattr(os, "sched_getaffinity", lambda _: {0})(0)) < 2,
    reason="one core, or they cannot be asked for",
)
def test_workers_are_not_bound_to_one_core() -> None:
    arrays, images = tensors(), crops(8)
    mine, cores = threading.get_native_id(), os.sched_getaffinity(0)
    for started in (encoders(arrays), encoders(arrays)):  # compiled, and taken from the cache
        started(images)
        seen, done = set[frozenset[int]](), threading.Event()

        def watch(seen: set[frozenset[int]] = seen, done: threading.Event = done) -> None:
            seen.add(frozenset(os.sched_getaffinity(mine)))
            while not done.is_set():
                seen.add(frozenset(os.sched_getaffinity(mine)))

        watcher = threading.Thread(target=watch)
        watcher.start()
        for _ in range(20):
            started(images)
        done.set()
        watcher.join()
        assert seen == {frozenset(cores)}


def test_what_was_compiled_is_used_again_unless_it_is_damaged(tmp_path: Path) -> None:
    arrays = tensors()
    wanted = encoders(arrays)(crops())
    (kept,) = (tmp_path / "cache").rglob("*.blob")
    content = kept.read_bytes()
    changed = with_zeros(content)
    for left in (b"", b"junk" * 1000, content[:-20], changed):
        kept.write_bytes(left)
        started = encoders(arrays)
        assert started.describe()["runtime"].startswith("openvino ")
        assert same(started(crops()), wanted)
        assert len(kept.read_bytes()) == pytest.approx(len(content), rel=0.01)
    (graph,) = (tmp_path / "cache").rglob("encoders.bin")
    graph.write_bytes(bytes(graph.stat().st_size))  # would be compiled to other numbers
    assert same(encoders(arrays)(crops()), wanted)


def test_a_damaged_graph_is_converted_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays = tensors()
    wanted = encoders(arrays)(crops())
    (blob,) = (tmp_path / "cache").rglob("*.blob")
    folder = blob.parent
    for name, damage in (("encoders.bin", with_zeros), ("encoders.xml", half), ("digests.json", half)):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(damage(content))
        blob.unlink()  # what was compiled is used without a look at the graph
        started = encoders(arrays)
        assert started.describe()["runtime"].startswith("openvino ")
        assert same(started(crops()), wanted)
        # the graph has a number in its name that is another each time
        assert len((folder / name).read_bytes()) == pytest.approx(len(content), abs=3)
        assert blob.exists()
    assert not caplog.text
    assert list(folder.parent.iterdir()) == [folder]


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def with_zeros(content: bytes) -> bytes:
    middle = len(content) // 2
    length = min(1 << 16, middle // 2)
    return content[:middle] + bytes(length) + content[middle + length :]


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in NETWORKS)


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("home", [True, False])
def test_a_cache_that_cannot_be_written_to_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, home: bool
) -> None:
    arrays = tensors()
    wanted = encoders(arrays)(crops())
    (tmp_path / "file").touch()  # read-only to everyone, even where the tests run as root
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    if not home:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", no_home)
    with caplog.at_level(logging.WARNING, logger="ig3d"):
        started = encoders(arrays)
    (line,) = caplog.messages
    assert line.startswith("converted networks: expected a folder") and "XDG_CACHE_HOME" in line
    assert ("a user without one" if not home else str(tmp_path / "file")) in line
    assert started.describe()["runtime"].startswith("openvino ")
    assert same(started(crops()), wanted)

    # a worker finds what this process has put there
    monkeypatch.setattr(compiled, "_convert", never)
    assert same(encoders(arrays)(crops()), wanted)


def test_the_temporary_folder_goes_with_its_process() -> None:
    code = """
import os, sys
from pathlib import Path
from ig3d.extract.regressors.compiled import _temporary_folder
folder = _temporary_folder(PermissionError(13, "Permission denied"))
(folder / "encoders.bin").touch()
assert os.environ["IG3D_COMPILED"] == str(folder)
print(folder)
"""
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not Path(ended.stdout.strip()).exists()
    assert ended.stderr.startswith("converted networks: expected") and "denied" in ended.stderr


def test_without_openvino_torch_runs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ig3d.extract.regressors.compiled", None)
    assert encoders(tensors()).describe()["runtime"].startswith("torch ")


def test_what_cannot_be_converted_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("an operator is unknown\nand more")

    monkeypatch.setattr(compiled, "_convert", fails)
    with caplog.at_level(logging.WARNING, logger="ig3d"):
        run = encoders(tensors())
    assert "torch runs the networks, as OpenVINO cannot: an operator is unknown" in caplog.text
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


def never(*_: object) -> dict[str, dict[str, np.ndarray]]:
    raise AssertionError("read")
