"""Workers: one that dies is replaced and its shard run again; the store does not tell where it was made."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import FAKE, Ended, colour_folder, write_image
from slow_fakes import SLOW, start

from ig3d.errors import RunError, UsageError
from ig3d.extract import run, shards
from ig3d.extract.clusters import lanes_of, one_at_a_time
from ig3d.extract.config import ExtractConfig
from ig3d.extract.datasets import list_samples
from ig3d.extract.fakes import FakeRegressor
from ig3d.extract.run import extract_codes
from ig3d.features.store import CodeStore
from ig3d.features.values import FaceBatch, Status
from ig3d.workers import MOST_DEATHS, Process, spread

CONFIG = ExtractConfig(regressor=FAKE, detector="none", batch_size=8)
POISON = (3, 2, 1)
DEATHS = "IG3D_TEST_DEATHS"


class Poisoned(FakeRegressor):
    """Kills its process at one colour, as often as a folder named in the environment has files to take."""

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        assert faces.crops is not None
        if (faces.crops == POISON).all(axis=(1, 2, 3)).any():
            lives = sorted(Path(os.environ[DEATHS]).iterdir())
            if lives:
                lives[0].unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(faces)


@pytest.fixture
def deaths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    folder = tmp_path / "deaths"
    folder.mkdir()
    monkeypatch.setenv(DEATHS, str(folder))

    def will_die(times: int) -> None:
        for number in range(times):
            (folder / str(number)).touch()

    return will_die


def poisoned_run(root: Path, out: Path, **options: object) -> list[str]:
    said: list[str] = []
    config = replace(CONFIG, regressor="test_extract_workers:Poisoned")
    extract_codes(list_samples(root, "folder"), out, config, say=said.append, **options)  # type: ignore[arg-type]
    return said


def test_a_worker_that_dies_twice_costs_nothing(tmp_path: Path, deaths: Callable[[int], None]) -> None:
    root = colour_folder(tmp_path / "data", 150)
    write_image(root / "happy" / "0100.png", POISON)
    poisoned_run(root, tmp_path / "calm.h5", jobs=1)
    deaths(2)
    said = poisoned_run(root, tmp_path / "killed.h5", jobs=2)
    assert not any(Path(os.environ[DEATHS]).iterdir())
    assert not [line for line in said if "WARNING" in line]
    with CodeStore(tmp_path / "calm.h5") as calm, CodeStore(tmp_path / "killed.h5") as killed:
        assert calm.content_sha256 == killed.content_sha256
    assert not list(tmp_path.glob("*.parts"))


def test_a_shard_that_kills_three_workers_is_marked_and_the_others_joined(
    tmp_path: Path, deaths: Callable[[int], None]
) -> None:
    root = colour_folder(tmp_path / "data", 150)
    write_image(root / "happy" / "0100.png", POISON)
    poisoned_run(root, tmp_path / "calm.h5", jobs=1)
    deaths(50)
    said = poisoned_run(root, tmp_path / "killed.h5", jobs=2)
    assert len(list(Path(os.environ[DEATHS]).iterdir())) == 50 - MOST_DEATHS
    warnings = [line for line in said if "WARNING" in line]
    assert warnings == [
        "WARNING shard 1: its 64 rows are marked as failed: its shard's worker died 3 times (out of memory?)"
    ]
    with CodeStore(tmp_path / "calm.h5") as calm, CodeStore(tmp_path / "killed.h5") as killed:
        lost = np.arange(len(calm)) // 64 == 1
        assert (killed.samples.status[lost] == Status.failed).all()
        assert set(killed.samples.message[lost]) == {"its shard's worker died 3 times (out of memory?)"}
        assert killed.samples.ok[~lost].all()
        assert np.array_equal(calm.codes("colour")[~lost], killed.codes("colour")[~lost])
        assert np.array_equal(calm.samples.id, killed.samples.id)
        assert killed.verify() == []


def test_rows_that_failed_are_done_again_and_the_others_kept(
    tmp_path: Path, deaths: Callable[[int], None]
) -> None:
    root = colour_folder(tmp_path / "data", 150)
    write_image(root / "happy" / "0100.png", POISON)
    poisoned_run(root, tmp_path / "calm.h5", jobs=1)
    deaths(50)
    poisoned_run(root, tmp_path / "killed.h5", jobs=2)
    config = replace(CONFIG, regressor="test_extract_workers:Poisoned")
    again = partial(extract_codes, list_samples(root, "folder"), tmp_path / "killed.h5", config, jobs=1)
    assert again().counts["failed"] == 64, "the same command alone leaves them"
    for token in Path(os.environ[DEATHS]).iterdir():
        token.unlink()
    summary = again(retry_failed=True)
    assert summary.resumed == 300 - 64 and summary.counts == {"ok": 300}
    with CodeStore(tmp_path / "calm.h5") as calm, CodeStore(tmp_path / "killed.h5") as killed:
        assert calm.content_sha256 == killed.content_sha256 and killed.verify() == []
    assert not list(tmp_path.glob("*.parts"))
    summary = again(retry_failed=True)
    assert summary.seconds == 0 and summary.resumed == 300, "no row failed: nothing is done"


def children(of: int) -> list[int]:
    """Worker processes of a run, by the system's table."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                worker = b"popen_loky" in (entry / "cmdline").read_bytes()
            except (OSError, IndexError, ValueError):
                continue
            if parent == of and worker:
                found.append(int(entry.name))
    return found


def test_a_lane_closed_just_after_a_task_was_given_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[object]()
    monkeypatch.setattr(threading, "excepthook", told.append)
    for _ in range(5):  # closed at such a moment, loky's own thread died with a traceback nine times in ten
        lane = Process()
        lane.submit(pow, 2, 3).result()
        lane.submit(time.sleep, 60)
        lane.close()
    assert not told


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to find the workers in")
@pytest.mark.parametrize("seed", [0, 1])
def test_workers_killed_at_random_moments(tmp_path: Path, seed: int) -> None:
    root = colour_folder(tmp_path / "data", 300)
    config = replace(SLOW, detector="none")
    extract_codes(list_samples(root, "folder"), tmp_path / "calm.h5", config, jobs=1)
    process = start(root, tmp_path / "killed.h5", "--detector", "none", "--jobs", 2)
    draw, killed = random.Random(seed), 0
    while process.poll() is None and killed < MOST_DEATHS - 1:  # so many of one shard do no harm
        time.sleep(draw.uniform(0, 0.3))
        if workers := children(process.pid):
            try:
                os.kill(draw.choice(workers), signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                continue
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert killed == 2
    assert "Traceback" not in said
    with CodeStore(tmp_path / "calm.h5") as calm, CodeStore(tmp_path / "killed.h5") as store:
        assert store.content_sha256 == calm.content_sha256
        assert store.verify() == []


class HereAndNow:
    """A lane that runs a task where it is asked to, and dies when the task says so."""

    deaths_told = 1

    def __init__(self) -> None:
        self.renewed, self.closed = 0, False

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def lost(self, error: BaseException) -> bool:
        return isinstance(error, ConnectionError)

    def renew(self) -> None:
        self.renewed += 1

    def close(self) -> None:
        self.closed = True


def test_a_death_is_told_from_an_error() -> None:
    left = {"a": 2, "b": 99}

    def call(name: str) -> str:
        if left.get(name, 0) > 0:
            left[name] -= 1
            raise ConnectionError
        if name == "c":
            raise ValueError("c itself")
        return name

    lanes = [HereAndNow(), HereAndNow()]
    ended = {one.task: one for one in spread([("a",), ("b",), ("d",)], lanes, [call, call])}
    assert (ended[0].result, ended[0].deaths, ended[0].given_up) == ("a", 2, False)
    assert (ended[1].result, ended[1].deaths, ended[1].given_up) == (None, 3, True)
    assert ended[2].result == "d"
    assert sum(lane.renewed for lane in lanes) == 5
    assert all(lane.closed for lane in lanes)
    lanes = [HereAndNow()]
    with pytest.raises(ValueError, match="c itself"):
        list(spread([("c",)], lanes, [call]))
    assert lanes[0].closed


def test_a_task_is_asked_for_when_a_lane_is_free() -> None:
    asked: list[int] = []

    def tasks() -> Iterator[tuple[int]]:
        for task in range(20):
            asked.append(task)
            yield (task,)

    lanes = [HereAndNow(), HereAndNow()]
    ahead = [
        len(asked) - done for done, _ in enumerate(spread(tasks(), lanes, [lambda task: task] * 2), start=1)
    ]
    assert asked == list(range(20))
    assert max(ahead) <= 2  # as many as there are lanes: the others are not made yet


def test_each_lane_has_its_own_call() -> None:
    lanes = [HereAndNow() for _ in range(3)]
    calls = [lambda x, lane=lane: (lane, x) for lane in range(3)]
    found = {one.result for one in spread([(i,) for i in range(3)], lanes, calls)}
    assert found == {(0, 0), (1, 1), (2, 2)}


def test_a_worker_that_died_with_nothing_to_do_is_replaced() -> None:
    lane = Process()
    try:
        pid = lane.submit(os.getpid).result()
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)
        assert [one.result for one in spread([(2, 3)], [lane], [pow])] == [8]
    finally:
        lane.close()


def test_devices_are_dealt_out_and_refused_when_they_differ(tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 70)
    samples = list_samples(root, "folder")
    with pytest.raises(UsageError, match="expected devices of one kind, got cpu,cuda:0"):
        ExtractConfig(device="cpu,cuda:0")
    assert ExtractConfig(device="cuda:0, cuda:1").devices == ("cuda:0", "cuda:1")
    # what takes no device is a usage error, as with one
    with pytest.raises(UsageError, match="no --device"):
        extract_codes(samples, tmp_path / "a.h5", replace(CONFIG, device="cuda:0,cuda:1"))


class OnGpu(FakeRegressor):
    """Says that it runs on a GPU; keeps on which one it was built, and which of them were called."""

    device = "cuda"
    called: ClassVar[list[str]] = []

    def __init__(self, device: str = "auto") -> None:
        self._place = device

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        OnGpu.called.append(self._place)
        return super().__call__(faces)


@pytest.mark.parametrize(
    ("cores", "devices", "jobs", "expected"),
    [
        (16, "cuda", 0, 4),  # several share a GPU
        (3, "cuda", 0, 3),
        (16, "cuda:0,cuda:1", 0, 8),
        (2, "cuda:0,cuda:1,cuda:2", 0, 3),  # none stays idle
        (16, "cuda:0,cuda:1", 5, 5),
    ],
)
def test_workers_share_the_gpus_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, devices: str, jobs: int, expected: int
) -> None:
    opened = []

    @contextmanager
    def here(backend: str, jobs: int, address: str | None) -> Iterator[list[HereAndNow]]:
        opened.append(jobs)
        yield [HereAndNow() for _ in range(jobs)]

    monkeypatch.setattr(run, "lanes_of", here)
    monkeypatch.setattr(run, "cpu_count", lambda: cores)
    monkeypatch.setattr(shards, "shard_size", lambda samples: 2)
    OnGpu.called.clear()
    samples = list_samples(colour_folder(tmp_path / "data", 12), "folder")
    config = ExtractConfig(regressor="test_extract_workers:OnGpu", detector="none", device=devices)
    done = extract_codes(samples, tmp_path / "a.h5", config, jobs=jobs)
    assert done.counts == {"ok": 24}
    assert opened == [expected]
    names = devices.split(",")
    turns = [names[lane % len(names)] for lane in range(expected)]
    assert OnGpu.called[:expected] == turns
    assert set(OnGpu.called) == set(names)


# clusters


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset and the store that one process makes of it."""
    place = tmp_path_factory.mktemp("plain")
    root = colour_folder(place / "data", 100)
    (root / "sad" / "text.png").write_text("no image")
    extract_codes(list_samples(root, "folder"), place / "one.h5", CONFIG, jobs=1)
    return place


def same_store(first: Path, second: Path) -> bool:
    with CodeStore(first) as one, CodeStore(second) as other:
        return one.content_sha256 == other.content_sha256 and other.verify() == []


@pytest.fixture(scope="module")
def dask_address() -> Iterator[str]:
    distributed = pytest.importorskip("distributed", reason="dask is not installed: pip install 'ig3d[dask]'")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


@pytest.mark.filterwarnings("ignore")
def test_two_dask_workers_give_the_same_store(
    plain: Path, tmp_path: Path, dask_address: str, ig3d: Callable[..., Ended]
) -> None:
    ended = ig3d(
        "extract", plain / "data", "--out", tmp_path / "a.h5", "--regressor", FAKE, "--batch-size", 8,
        "--detector", "none", "--backend", "dask", "--address", dask_address,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert same_store(plain / "one.h5", tmp_path / "a.h5")


@pytest.mark.filterwarnings("ignore")
def test_two_ray_workers_give_the_same_store(plain: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'ig3d[ray]'")
    extract_codes(list_samples(plain / "data", "folder"), tmp_path / "a.h5", CONFIG, jobs=2, backend="ray")
    assert same_store(plain / "one.h5", tmp_path / "a.h5")


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_is_not_there(plain: Path, tmp_path: Path) -> None:
    samples = list_samples(plain / "data", "folder")
    with pytest.raises(UsageError, match="expected one of loky, dask, ray, got 'slurm'"):
        extract_codes(samples, tmp_path / "a.h5", CONFIG, backend="slurm")
    with pytest.raises(UsageError, match="expected --backend dask or ray with --address"):
        extract_codes(samples, tmp_path / "a.h5", CONFIG, address="tcp://127.0.0.1:1")
    pytest.importorskip("distributed", reason="dask is not installed: pip install 'ig3d[dask]'")
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(RunError, match="expected a scheduler"),
    ):
        extract_codes(samples, tmp_path / "a.h5", CONFIG, backend="dask", address="tcp://127.0.0.1:1")


def test_a_process_runs_one_shard_at_a_time() -> None:
    from concurrent.futures import ThreadPoolExecutor

    inside: list[int] = []

    def call(_: int) -> int:
        inside.append(1)
        most = len(inside)
        time.sleep(0.01)
        inside.pop()
        return most

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda i: one_at_a_time(call, i), range(8))) == {1}
    with lanes_of("loky", 3, None) as lanes:
        assert len(lanes) == 3
