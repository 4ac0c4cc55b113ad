"""Interrupted runs: their files, which commands continue them, and which are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FAKE, colour_folder, content, write_image
from filelock import FileLock

from ig3d.errors import RunError
from ig3d.extract import run
from ig3d.extract.batches import Shard
from ig3d.extract.boxes import FaceBoxes
from ig3d.extract.config import ExtractConfig
from ig3d.extract.datasets import list_samples
from ig3d.extract.fakes import FakeRegressor
from ig3d.extract.run import Summary, extract_codes
from ig3d.extract.shards import Run
from ig3d.extract.stages import extract_shards
from ig3d.features.store import CodeStore
from ig3d.features.values import FaceBatch, Status

CONFIG = ExtractConfig(regressor=FAKE, batch_size=8)
OTHER = ExtractConfig(regressor="test_extract_resume:Brighter", batch_size=8)


class Brighter(FakeRegressor):
    """Codes that no :class:`FakeRegressor` writes."""

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        return {name: codes + 1000 for name, codes in super().__call__(faces).items()}


class Shards:
    """The shards that runs to ``out`` have begun in this process; Ctrl-C comes at the one after ``left`` of them."""

    def __init__(self, root: Path, out: Path, wanted: dict[ExtractConfig, str]) -> None:
        self.root, self.out, self.wanted = root, out, wanted
        self.begun: list[int] = []
        self.left = 1000

    def __call__(self, work: list[Shard], **options: Any) -> Any:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.begun += [int(shard.path.name[:5]) for shard in work]
        return extract_shards(work, **options)

    def extract(self, config: ExtractConfig = CONFIG, **options: Any) -> Summary:
        return extract(self.root, self.out, config, **options)

    def interrupt(self, after: int, config: ExtractConfig = CONFIG, **options: Any) -> None:
        self.left = after
        with pytest.raises(KeyboardInterrupt):
            self.extract(config, **options)
        self.left, self.begun[:] = 1000, []

    def wrote(self, config: ExtractConfig = CONFIG) -> bool:
        return content(self.out) == self.wanted[config]


@pytest.fixture
def shards(
    root: Path, wanted: dict[ExtractConfig, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Shards:
    watched = Shards(root, tmp_path / "a.h5", wanted)
    monkeypatch.setattr(run, "extract_shards", watched)
    return watched


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 images, five shards; those of the second, the fourth and the fifth hold one that fails."""
    root = colour_folder(tmp_path_factory.mktemp("resume") / "data", 150)
    for name in ("happy/0100", "sad/0060", "sad/0140"):
        write_image(root / f"{name}.png", (0, 0, 255))  # FakeRegressor gives up on pure blue
    return root


def extract(root: Path, out: Path, config: ExtractConfig = CONFIG, **options: Any) -> Summary:
    return extract_codes(list_samples(root, "folder"), out, config, jobs=1, **options)


@pytest.fixture(scope="module")
def wanted(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[ExtractConfig, str]:
    """The content of undisturbed stores."""
    place, found = tmp_path_factory.mktemp("wanted"), {}
    for name, config in (("a", CONFIG), ("b", OTHER)):
        extract(root, place / f"{name}.h5", config)
        found[config] = content(place / f"{name}.h5")
    return found


def test_a_run_that_ended_before_its_first_shard_is_in_nobodys_way(shards: Shards) -> None:
    shards.interrupt(0, OTHER)
    assert (shards.out.with_name("a.h5.parts") / "run.json").exists()
    shards.extract()
    assert shards.wrote()


def test_a_worker_that_outlives_its_run_has_no_way_into_another(
    root: Path, wanted: dict[ExtractConfig, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.h5"
    given: list[Callable[[], object]] = []

    def given_and_killed(work: list[Shard], **options: Any) -> None:
        for shard in range(5):
            path = work[0].path.with_name(work[0].path.name.replace("00000", f"{shard:05d}"))
            samples = list_samples(root, "folder").samples[shard * 64 : (shard + 1) * 64]
            outlived = [Shard(path, samples, FaceBoxes.unknown(len(samples)))]
            given.append(lambda outlived=outlived: extract_shards(outlived, **options))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(run, "extract_shards", given_and_killed)
        extract(root, out, OTHER)

    def beside_them(*arguments: Any, **options: Any) -> object:
        done = extract_shards(*arguments, **options)
        for outlived in given:  # before this run's next shards, and over those that it has done
            outlived()
        return done

    given[1]()  # before the run that follows
    monkeypatch.setattr(run, "extract_shards", beside_them)
    assert extract(root, out, CONFIG, restart=True).resumed == 0
    assert content(out) == wanted[CONFIG]
    assert not list(tmp_path.glob("*.parts"))


def test_a_damaged_shard_is_done_again(tmp_path: Path, shards: Shards) -> None:
    shards.interrupt(3)
    (shard,) = (tmp_path / "a.h5.parts").glob("00001*.h5")
    content_of = shard.read_bytes()
    half = len(content_of) // 2
    shard.write_bytes(content_of[:half] + bytes(len(content_of) - half))  # as a loss of power leaves it
    assert shards.extract().resumed == 2 * 64
    assert shards.begun == [1, 3, 4]
    assert shards.wrote()


def test_another_identity_does_not_go_on_with_an_interrupted_run(shards: Shards) -> None:
    shards.interrupt(2)
    with pytest.raises(RunError, match=r"options.batch_size: 8 -> 4.*with --restart"):
        shards.extract(replace(CONFIG, batch_size=4))
    assert shards.extract().resumed == 2 * 64
    assert shards.wrote()


@pytest.mark.parametrize("repeated", [True, False], ids=["same-command", "without-restart"])
def test_an_interrupted_restart_goes_on(tmp_path: Path, shards: Shards, repeated: bool) -> None:
    shards.extract()
    for _ in range(2):
        shards.interrupt(2, OTHER, restart=True)
        assert shards.wrote(), "the old store stays until the new one is whole"
    with pytest.raises(RunError, match=r"options\.batch_size: 8 -> 4"):
        shards.extract(replace(OTHER, batch_size=4))
    assert shards.extract().seconds == 0, "the old store is there still"
    assert shards.extract(OTHER, restart=repeated).resumed == 4 * 64
    assert shards.begun == [4]
    assert shards.wrote(OTHER)
    assert not list(tmp_path.glob("*.parts"))
    shards.begun.clear()
    assert shards.extract(OTHER).seconds == 0
    assert shards.extract(OTHER, restart=True).resumed == 0, "what is finished is done anew"
    assert shards.begun == [0, 1, 2, 3, 4]


def test_a_restart_throws_away_what_it_has_not_begun_itself(tmp_path: Path, shards: Shards) -> None:
    shards.interrupt(3)
    shards.interrupt(1, restart=True)
    assert len(list((tmp_path / "a.h5.parts").glob("0*.h5"))) == 1
    shards.interrupt(1, restart=True)
    assert shards.extract().resumed == 2 * 64
    assert shards.begun == [2, 3, 4]
    assert shards.wrote()


@pytest.mark.parametrize("finished", [True, False], ids=["store", "interrupted-run"])
def test_an_interrupted_retry_goes_on(tmp_path: Path, shards: Shards, finished: bool) -> None:
    if finished:
        shards.extract()
        with CodeStore(shards.out) as store:
            assert {*(np.flatnonzero(store.status == Status.failed) // 64)} == {1, 3, 4}
    else:
        shards.interrupt(4)  # the fifth is missing
    shards.interrupt(1, retry_failed=True)
    assert shards.out.exists() == finished
    shards.interrupt(1, retry_failed=True)
    assert shards.extract(retry_failed=True).resumed == 4 * 64
    assert shards.begun == [4], "those that failed again while they were retried are kept"
    assert shards.wrote()
    assert not list(tmp_path.glob("*.parts"))
    shards.begun.clear()
    shards.extract(retry_failed=True)
    assert shards.begun == [1, 3, 4], "asked for again after the end, they are tried again"


def test_a_retry_killed_while_it_splits_the_store_begins_again(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards.extract()

    def split_and_killed(self: Run) -> None:
        self.shard_path(0).write_bytes(b"half a shard")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Run, "_split_store", split_and_killed)
        shards.extract(retry_failed=True)
    assert shards.extract().seconds == 0
    shards.begun.clear()
    assert shards.extract(retry_failed=True).resumed == 2 * 64
    assert shards.begun == [1, 3, 4] and shards.wrote()


def test_a_run_killed_between_the_store_and_the_end_ends_by_the_same_command(
    tmp_path: Path, shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Run) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Run, "end", killed)
        shards.extract()
    shards.begun.clear()
    shards.extract()
    assert shards.begun == [] and shards.wrote()
    assert not list(tmp_path.glob("*.parts"))


def test_a_run_that_begins_as_another_ends_keeps_its_files(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, parts = tmp_path / "a.h5", tmp_path / "a.h5.parts"
    begun: list[FileLock] = []
    release = FileLock.release

    def released(lock: FileLock, force: bool = False) -> None:
        release(lock, force)
        if not begun:
            parts.mkdir(exist_ok=True)
            begun.append(FileLock(parts / "lock"))
            begun[0].acquire(timeout=0)
            (parts / "00000-0123456789ab.h5").touch()

    with monkeypatch.context() as patched:
        patched.setattr(FileLock, "release", released)
        extract(root, out)
    assert (parts / "00000-0123456789ab.h5").exists()
    with pytest.raises(RunError, match="another extraction is writing"):
        extract(root, out)
    begun[0].release()
    assert extract(root, out).seconds == 0
    assert not parts.exists()
