"""Workers: one that dies is replaced and its shard run again; the store does not tell where it was made."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FAKE, Ended, colour_folder, content, write_image
from slow_fakes import SLOW, SlowRegressor, start

from ig3d.errors import RunError, UsageError
from ig3d.extract import run
from ig3d.extract.config import ExtractConfig
from ig3d.extract.datasets import list_samples
from ig3d.extract.fakes import FakeRegressor
from ig3d.extract.run import extract_codes
from ig3d.features.store import CodeStore
from ig3d.features.values import FaceBatch, Status
from ig3d.workers import MAX_DEATHS, run_tasks

CONFIG = ExtractConfig(regressor=FAKE, detector="none", batch_size=8)
POISON = (3, 2, 1)
DEATHS, GO_ON = "IG3D_TEST_DEATHS", "IG3D_TEST_GO_ON"


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


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder whose files are taken; known to a cluster from its start."""
    folder = tmp_path_factory.mktemp("lives")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DEATHS, str(folder))
        yield folder


@pytest.fixture
def deaths(lives: Path) -> Iterator[Callable[[int], None]]:
    def will_die(times: int) -> None:
        for number in range(times):
            (lives / str(number)).touch()

    yield will_die
    for token in lives.iterdir():
        token.unlink()


def poisoned_run(root: Path, out: Path, **options: Any) -> list[str]:
    lines: list[str] = []
    config = replace(CONFIG, regressor="test_extract_workers:Poisoned")
    extract_codes(list_samples(root, "folder"), out, config, notify=lines.append, **options)
    return lines


def test_a_worker_that_dies_twice_costs_nothing(tmp_path: Path, deaths: Callable[[int], None]) -> None:
    root = colour_folder(tmp_path / "data", 150)
    write_image(root / "happy" / "0100.png", POISON)
    poisoned_run(root, tmp_path / "calm.h5", jobs=1)
    deaths(2)
    lines = poisoned_run(root, tmp_path / "killed.h5", jobs=2)
    assert not any(Path(os.environ[DEATHS]).iterdir())
    assert not [line for line in lines if "WARNING" in line]
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
    lines = poisoned_run(root, tmp_path / "killed.h5", jobs=2)
    assert len(list(Path(os.environ[DEATHS]).iterdir())) == 50 - MAX_DEATHS
    warnings = [line for line in lines if "WARNING" in line]
    assert warnings == [
        "WARNING shard 1: 64 rows marked as failed: the worker of this shard died 3 times (out of memory?)"
    ]
    with CodeStore(tmp_path / "calm.h5") as calm, CodeStore(tmp_path / "killed.h5") as killed:
        lost = np.arange(len(calm)) // 64 == 1
        assert (killed.status[lost] == Status.failed).all()
        assert set(killed.messages[lost]) == {"the worker of this shard died 3 times (out of memory?)"}
        assert killed.ok[~lost].all()
        assert np.array_equal(calm.codes("colour")[~lost], killed.codes("colour")[~lost])
        assert np.array_equal(calm.samples.id, killed.samples.id)
        assert killed.verify() == []


def test_of_several_shards_of_a_task_only_the_one_that_kills_its_worker_is_marked(
    tmp_path: Path, deaths: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker with a GPU gets several shards at a time."""
    root = colour_folder(tmp_path / "data", 120)
    write_image(root / "happy" / "0100.png", POISON)
    monkeypatch.setattr(run, "_workers", lambda *_: run._Workers({"environments": [{}]}))
    monkeypatch.setattr(run, "_shards_per_task", lambda *_: 3)
    deaths(50)
    lines = poisoned_run(root, tmp_path / "a.h5")
    assert len(list(Path(os.environ[DEATHS]).iterdir())) == 50 - 2 * MAX_DEATHS
    assert len([line for line in lines if "WARNING shard 1: 64 rows" in line]) == 1
    with CodeStore(tmp_path / "a.h5") as store:
        assert np.array_equal(store.status == Status.failed, np.arange(240) // 64 == 1)


def test_a_worker_fed_by_other_processes_gives_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: a worker that starts reading processes, and keeps them for its next tasks."""
    pytest.importorskip("torch")
    samples = list_samples(colour_folder(tmp_path / "data", 120), "folder")
    extract_codes(samples, tmp_path / "one.h5", CONFIG, jobs=1)
    monkeypatch.setattr(run, "_workers", lambda *_: run._Workers({"environments": [{}]}, readers=2))
    monkeypatch.setattr(run, "_shards_per_task", lambda *_: 3)
    extract_codes(samples, tmp_path / "fed.h5", CONFIG)
    assert content(tmp_path / "fed.h5") == content(tmp_path / "one.h5")


@pytest.mark.parametrize(("devices", "jobs", "readers"), [(1, 0, 16), (2, 0, 8), (2, 6, 3), (4, 1, 1)])
def test_each_gpu_has_one_worker_and_its_share_of_the_reading_processes(
    monkeypatch: pytest.MonkeyPatch, devices: int, jobs: int, readers: int
) -> None:
    monkeypatch.setattr(run, "cpu_count", lambda: 16)
    workers = run._workers(jobs, "loky", None, tuple(f"cuda:{index}" for index in range(devices)))
    assert workers.options is not None
    environments = workers.options["environments"]
    assert [of["CUDA_VISIBLE_DEVICES"] for of in environments] == [str(index) for index in range(devices)]
    assert workers.readers == readers


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


class Held(SlowRegressor):
    """Waits at one colour until a file named in the environment is there: until then the run has not ended."""

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        assert faces.crops is not None
        if (faces.crops == POISON).all(axis=(1, 2, 3)).any():
            while not Path(os.environ[GO_ON]).exists():
                time.sleep(0.01)
        return super().__call__(faces)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to find the workers in")
def test_workers_killed_at_random_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GO_ON, str(tmp_path / "go_on"))
    root = colour_folder(tmp_path / "data", 200)
    write_image(root / "sad" / "0199.png", POISON)
    config = replace(SLOW, detector="none", regressor="test_extract_workers:Held")
    options = ("--detector", "none", "--jobs", 2, "--regressor", config.regressor)
    started = [start(root, tmp_path / f"killed{seed}.h5", *options) for seed in range(2)]
    try:
        for seed, process in enumerate(started):
            kill_two_workers(process, random.Random(seed))
    finally:
        (tmp_path / "go_on").touch()
    extract_codes(list_samples(root, "folder"), tmp_path / "calm.h5", config, jobs=1)
    for seed, process in enumerate(started):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
        assert content(tmp_path / "calm.h5") == content(tmp_path / f"killed{seed}.h5")


def kill_two_workers(process: subprocess.Popen[str], draw: random.Random) -> None:
    killed = 0
    while killed < MAX_DEATHS - 1:  # so many of one shard do no harm
        assert process.poll() is None, process.communicate()[1]
        time.sleep(draw.uniform(0, 0.3))
        if workers := children(process.pid):
            try:
                os.kill(draw.choice(workers), signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                continue


def test_devices_are_dealt_out_and_refused_when_they_differ(tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 70)
    samples = list_samples(root, "folder")
    with pytest.raises(UsageError, match="cpu,cuda:0 mixes kinds of devices"):
        ExtractConfig(device="cpu,cuda:0")
    assert ExtractConfig(device="cuda:0, cuda:1").devices == ("cuda:0", "cuda:1")
    # plug-ins without a device are a usage error, as with one device
    with pytest.raises(UsageError, match="--device"):
        extract_codes(samples, tmp_path / "a.h5", replace(CONFIG, device="cuda:0,cuda:1"))


@pytest.mark.parametrize(
    ("visible", "device", "expected"),
    [
        (None, "cuda", {}),
        (None, "cuda:1", {"CUDA_VISIBLE_DEVICES": "1"}),
        ("4,GPU-8f2a", "cuda:1", {"CUDA_VISIBLE_DEVICES": "GPU-8f2a"}),
    ],
)
def test_a_worker_sees_only_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, device: str, expected: dict[str, str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert run.environment_of(device) == expected


# clusters


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset and the store that one process makes of it."""
    place = tmp_path_factory.mktemp("plain")
    root = colour_folder(place / "data", 100)
    (root / "sad" / "text.png").write_text("no image")
    extract_codes(list_samples(root, "folder"), place / "one.h5", CONFIG, jobs=1)
    return place


@pytest.fixture(scope="module")
def dask_address(lives: Path) -> Iterator[str]:
    distributed = pytest.importorskip("distributed", reason="dask is not installed: pip install 'ig3d[dask]'")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="localhost:0"
    ) as cluster:
        yield cluster.scheduler_address


def test_two_dask_workers_give_the_same_store(
    plain: Path, tmp_path: Path, dask_address: str, ig3d: Callable[..., Ended]
) -> None:
    ended = ig3d(
        "extract", plain / "data", "--out", tmp_path / "a.h5", "--regressor", FAKE, "--batch-size", 8,
        "--detector", "none", "--backend", "dask", "--address", dask_address,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert content(plain / "one.h5") == content(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("backend", "address", "message"),
    [
        ("nope", None, "backend: there is no 'nope'; choose one of loky, dask, ray"),
        ("loky", "tcp://here:1", "tcp://here:1 needs --backend dask or ray"),
    ],
)
def test_an_invalid_backend_is_refused_before_any_work(
    plain: Path, tmp_path: Path, ig3d: Callable[..., Ended], backend: str, address: str | None, message: str
) -> None:
    options = ["--address", address] if address else []
    ended = ig3d(
        "extract", plain / "data", "--out", tmp_path / "a.h5", "--regressor", FAKE, "--backend", backend, *options
    )  # fmt: skip
    assert ended.returncode == 2 and message in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_on_which_nothing_listens_is_refused_at_once(scheme: str) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'ig3d[ray]'")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    message = f"no cluster answers at {scheme}127.0.0.1:{port} .*refused"
    with pytest.raises(RunError, match=message):
        list(run_tasks(refuse, [()], backend="ray", jobs=1, address=f"{scheme}127.0.0.1:{port}"))


@pytest.fixture(scope="module")
def ray_cluster(lives: Path) -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'ig3d[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # reaches ray's workers
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.mark.usefixtures("ray_cluster")
def test_two_ray_workers_give_the_same_store(plain: Path, tmp_path: Path) -> None:
    extract_codes(list_samples(plain / "data", "folder"), tmp_path / "a.h5", CONFIG, jobs=2, backend="ray")
    assert content(plain / "one.h5") == content(tmp_path / "a.h5")


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_dead_worker_of_a_cluster_changes_no_result(
    tmp_path: Path, lives: Path, deaths: Callable[[int], None], request: pytest.FixtureRequest, backend: str
) -> None:
    address = request.getfixturevalue({"dask": "dask_address", "ray": "ray_cluster"}[backend])
    root = colour_folder(tmp_path / "data", 100)
    write_image(root / "happy" / "0050.png", POISON)
    poisoned_run(root, tmp_path / "calm.h5", jobs=1)
    deaths(1)
    lines = poisoned_run(root, tmp_path / "killed.h5", jobs=2, backend=backend, address=address)
    assert not any(lives.iterdir())
    assert not [line for line in lines if "WARNING" in line]
    assert content(tmp_path / "calm.h5") == content(tmp_path / "killed.h5")


def refuse() -> None:
    raise UsageError("crops: expected x, got y; do z")


def test_an_exception_of_a_task_on_ray_keeps_its_type_and_message(ray_cluster: None) -> None:
    message = r"\Acrops: expected x, got y; do z\Z"
    with pytest.raises(UsageError, match=message) as refused:
        list(run_tasks(refuse, [()], backend="ray", jobs=1))
    assert refused.type is UsageError


def test_an_exception_of_a_task_on_dask_prints_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("distributed", reason="dask is not installed: pip install 'ig3d[dask]'")
    with pytest.raises(UsageError, match="expected x, got y"):
        list(run_tasks(refuse, [()], backend="dask", jobs=1))
    assert "Traceback" not in capfd.readouterr().err


def test_a_dask_cluster_that_is_shut_down_gives_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    distributed = pytest.importorskip("distributed", reason="dask is not installed: pip install 'ig3d[dask]'")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="localhost:0")
    with pytest.raises(RunError, match="was shut down during the run; finished shards are kept: repeat"):
        for _ in run_tasks(time.sleep, [(0,), (600,)], backend="dask", address=cluster.scheduler_address):
            cluster.close()
    assert "Traceback" not in capfd.readouterr().err


def test_a_run_waits_with_a_warning_while_a_dask_cluster_has_no_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    distributed = pytest.importorskip("distributed", reason="dask is not installed: pip install 'ig3d[dask]'")
    monkeypatch.setattr("ig3d.workers.QUIET_SECONDS", 0.5)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="localhost:0"
    ) as cluster:
        tasks = run_tasks(pow, [(2, 1), (2, 2)], backend="dask", address=cluster.scheduler_address)
        assert next(tasks).result == 2
        cluster.scale(0)
        while cluster.scheduler_info["workers"]:
            time.sleep(0.1)
        later = threading.Timer(2, cluster.scale, [1])
        later.start()
        assert next(tasks).result == 4
        later.join()
    assert "the cluster has no worker; the run waits until one is started" in caplog.text


def test_a_missing_cluster_is_refused(plain: Path, tmp_path: Path) -> None:
    samples = list_samples(plain / "data", "folder")
    with pytest.raises(UsageError, match="choose one of loky, dask, ray"):
        extract_codes(samples, tmp_path / "a.h5", CONFIG, backend="slurm")
    with pytest.raises(UsageError, match="needs --backend dask or ray"):
        extract_codes(samples, tmp_path / "a.h5", CONFIG, address="tcp://127.0.0.1:1")
    pytest.importorskip("distributed", reason="dask is not installed: pip install 'ig3d[dask]'")
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(RunError, match="no scheduler answers"),
    ):
        extract_codes(samples, tmp_path / "a.h5", CONFIG, backend="dask", address="tcp://127.0.0.1:1")


def inside(_: int, entered: list[int] = []) -> int:  # noqa: B006
    entered.append(1)
    most = len(entered)
    time.sleep(0.01)
    entered.pop()
    return most


def test_a_worker_of_a_cluster_runs_one_task_at_a_time() -> None:
    """Also one with several threads: plug-ins are not thread-safe."""
    distributed = pytest.importorskip("distributed", reason="dask is not installed: pip install 'ig3d[dask]'")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=4, dashboard_address="localhost:0"
    ) as cluster:
        tasks = [(number,) for number in range(8)]
        ended = run_tasks(inside, tasks, backend="dask", jobs=8, address=cluster.scheduler_address)
        assert {end.result for end in ended} == {1}


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_run_on_a_gpu_needs_workers_with_one(backend: str, request: pytest.FixtureRequest) -> None:
    address = request.getfixturevalue({"dask": "dask_address", "ray": "ray_cluster"}[backend])
    with pytest.raises(RunError, match="GPU"):
        list(run_tasks(refuse, [()], backend=backend, address=address, gpu=True))
