"""Modules in the engine: the same numbers on both back ends, converted once, the cache checked and optional."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ig3d.errors import ModelError
from ig3d.extract import compiled
from ig3d.extract.engine import Network, load_module

SIDE = 32


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(3, 16, 3, stride=2)
        self.middle = torch.nn.Conv2d(16, 300, 3)
        self.last = torch.nn.Linear(300, 9)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        planes = images.permute(0, 3, 1, 2).float() / 255
        pooled = self.middle(self.first(planes).relu()).relu().mean((2, 3))
        return self.last(pooled), pooled


def network(
    build: Callable[[], torch.nn.Module] = Small, key: str = "a", backend: str | None = None
) -> Network:
    return load_module(
        build, key=key, name="made up", inputs=[((SIDE, SIDE, 3), "uint8")], batch=4, backend=backend
    )


def never() -> torch.nn.Module:
    raise AssertionError("built again")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("IG3D_COMPILED", "")  # so that a temporary folder is forgotten after its test
    return tmp_path / "cache"


def images(n: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, SIDE, SIDE, 3), np.uint8)


def same(one: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...]) -> bool:
    return all(np.array_equal(first, second) for first, second in zip(one, other, strict=True))


def test_both_back_ends_give_the_same_numbers() -> None:
    fast, plain = network(), network(backend="torch")
    assert fast.runtime.startswith("openvino ") and fast.runtime.endswith(" cpu")
    assert plain.runtime.startswith("torch ") and plain.runtime.endswith(" cpu")
    for first, second in zip(fast(images()), plain(images()), strict=True):
        assert first.dtype == second.dtype == np.float32
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)
        assert np.ptp(first) > 0.01


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_rows_do_not_depend_on_the_other_rows(backend: str) -> None:
    run = network(backend=backend)
    together = run(images())
    alone = [run(image[None]) for image in images()]
    assert same(together, tuple(map(np.concatenate, zip(*alone, strict=True))))
    assert [output.shape for output in run(images(0))] == [(0, 9), (0, 300)]


def test_a_second_start_builds_nothing_and_another_key_does() -> None:
    first = network()(images())
    assert same(network(never)(images()), first)
    with pytest.raises(AssertionError, match="built again"):
        network(never, key="other weights")


def test_a_second_start_does_not_import_torch() -> None:
    network()
    code = f"""
import sys
import numpy as np
from ig3d.extract.engine import load_module

def never():
    raise AssertionError("built again")

run = load_module(never, key="a", name="made up", inputs=[(({SIDE}, {SIDE}, 3), "uint8")], batch=4, device="auto")
assert run(np.zeros((3, {SIDE}, {SIDE}, 3), np.uint8))[0].shape == (3, 9)
assert run.runtime.startswith("openvino ")
assert "torch" not in sys.modules, "imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(
    len(getattr(os, "sched_getaffinity", lambda _: {0})(0)) < 2,
    reason="one core, or the system has no such question",
)
def test_workers_are_not_bound_to_one_core() -> None:
    mine, cores = threading.get_native_id(), os.sched_getaffinity(0)
    for run in (network(), network()):  # compiled, and taken from the cache
        run(images())
        seen, done = set[frozenset[int]](), threading.Event()

        def watch(seen: set[frozenset[int]] = seen, done: threading.Event = done) -> None:
            seen.add(frozenset(os.sched_getaffinity(mine)))
            while not done.is_set():
                seen.add(frozenset(os.sched_getaffinity(mine)))

        watcher = threading.Thread(target=watch)
        watcher.start()
        for _ in range(20):
            run(images())
        done.set()
        watcher.join()
        assert seen == {frozenset(cores)}


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def with_zeros(content: bytes) -> bytes:
    middle = len(content) // 2
    length = min(1 << 14, middle // 2)
    return content[:middle] + bytes(length) + content[middle + length :]


@pytest.mark.parametrize("damage", [half, with_zeros, lambda _: b"", lambda _: b"junk" * 1000])
def test_damaged_files_in_the_cache_are_made_again(
    damage: Callable[[bytes], bytes], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = network()(images())
    (blob,), (model,) = cache.rglob("*.blob"), cache.rglob("*.model")
    content = blob.read_bytes()
    blob.write_bytes(damage(content))
    assert same(network(never)(images()), wanted)  # compiled again of what was converted
    assert len(blob.read_bytes()) == pytest.approx(len(content), rel=0.01)
    model.write_bytes(damage(model.read_bytes()))
    assert same(network(never)(images()), wanted)  # the compiled network is sufficient
    blob.unlink()
    run = network()
    assert run.runtime.startswith("openvino ") and same(run(images()), wanted)
    assert blob.exists() and not caplog.text
    assert sorted(blob.parent.glob("[!.]*")) == sorted([blob, model])


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("home", [True, False])
def test_a_cache_that_cannot_be_written_to_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, home: bool
) -> None:
    wanted = network()(images())
    (tmp_path / "file").touch()  # read-only to everyone, even where the tests run as root
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    if not home:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", no_home)
    with caplog.at_level(logging.WARNING, logger="ig3d"):
        run = network()
    (line,) = caplog.messages
    assert line.startswith("compiled networks cannot be cached") and "XDG_CACHE_HOME" in line
    assert ("no home" if not home else str(tmp_path / "file")) in line
    assert same(run(images()), wanted)
    # a worker uses what this process has put into the temporary folder
    assert same(network(never)(images()), wanted)


def test_the_temporary_folder_is_removed_with_its_process() -> None:
    code = """
import os
from pathlib import Path
from ig3d.extract.compiled import _temporary_folder
folder = _temporary_folder(PermissionError(13, "Permission denied"))
(folder / "a.blob").touch()
assert os.environ["IG3D_COMPILED"] == str(folder)
print(folder)
"""
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not Path(ended.stdout.strip()).exists()
    assert "denied" in ended.stderr


def test_torch_runs_what_openvino_cannot(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("an operator is unknown\nand more")

    monkeypatch.setattr(compiled, "_convert", fails)
    with caplog.at_level(logging.WARNING, logger="ig3d"):
        run = network()
    assert caplog.messages == [
        "made up: torch runs the network, because OpenVINO cannot (an operator is unknown)"
    ]
    assert run.runtime.startswith("torch ") and run(images())[0].shape == (6, 9)
    with pytest.raises(ModelError, match="OpenVINO cannot run the network"):
        network(backend="openvino")


def test_torch_runs_modules_where_openvino_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ig3d.extract.compiled", None)
    assert network().runtime.startswith("torch ")
