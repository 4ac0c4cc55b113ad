"""Extraction: one row for every sample, also if files, workers or the disk fail."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import FAKE, colour_folder, write_image
from slow_fakes import SLOW, start, wait_for_shards
from stage_rows import rows_of

from ig3d.errors import MissingExtra, RunError, StoreError, UsageError
from ig3d.extract import run
from ig3d.extract.config import ExtractConfig
from ig3d.extract.datasets import list_samples
from ig3d.extract.detectors import choose_face
from ig3d.extract.fakes import FakeDetector, FakeRegressor
from ig3d.extract.identity import differences
from ig3d.extract.run import extract_codes
from ig3d.extract.shards import shard_size
from ig3d.features.samples import files_of
from ig3d.features.store import CodeStore
from ig3d.features.values import Face, Status

CONFIG = ExtractConfig(regressor=FAKE, batch_size=8)


def extract(root: Path, out: Path, config: ExtractConfig = CONFIG, **options: Any) -> CodeStore:
    extract_codes(list_samples(root, "folder"), out, config, **options)
    return CodeStore(out)


def test_one_row_for_every_sample_whatever_it_is(tmp_path: Path) -> None:
    write_image(tmp_path / "good.png", (200, 100, 50))
    write_image(tmp_path / "black.png", (0, 0, 0))
    write_image(tmp_path / "red.png", (255, 0, 0))
    write_image(tmp_path / "blue.png", (0, 0, 255))
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").touch()
    names = ["good", "black", "red", "blue", "text", "empty", "gone"]
    files = [(f"{name}.png", -1) for name in names]
    rows = rows_of(files, tmp_path, FakeDetector(), FakeRegressor())
    status = dict(zip(names, [Status(int(code)).name for code in rows.status], strict=True))
    assert status == {
        "good": "ok",
        "black": "no_face",
        "red": "failed",
        "blue": "failed",
        "text": "unreadable",
        "empty": "unreadable",
        "gone": "missing",
    }
    messages = dict(zip(names, rows.message, strict=True))
    assert messages["red"] == "not finite: colour"
    assert messages["blue"] == "ValueError: a crop is pure blue"
    assert messages["empty"] == "the file is empty"
    assert np.allclose(rows.codes["colour"][0] * 255, (200, 100, 50))
    assert np.isnan(rows.codes["colour"][1:]).all()
    assert rows.size_wh[0].tolist() == [24, 20]
    assert rows.count.tolist() == [1, 0, 1, 1, 0, 0, 0]
    assert rows.digest[5:].sum() == 0


def test_a_crop_around_the_box_and_the_whole_image(tmp_path: Path) -> None:
    image = np.zeros((20, 24, 3), np.uint8)
    image[5:15, 6:18] = (90, 120, 150)  # just what FakeDetector calls a face
    from PIL import Image

    Image.fromarray(image).save(tmp_path / "a.png")
    cropped = rows_of([("a.png", -1)], tmp_path, FakeDetector(), FakeRegressor())
    # a square of 11 by 11 around a box of 12 by 10: the crop's edge rows lie outside of it
    assert cropped.crop_box[0].tolist() == [6.5, 4.5, 17.5, 15.5]
    assert np.isnan(cropped.landmark_box).all()
    from ig3d.extract.detectors.full_image import FullImage

    resized = rows_of([("a.png", -1)], tmp_path, FullImage(), FakeRegressor())
    assert np.allclose(resized.crop_box[0], [1, 0.75, 22, 18.25])  # centres of pixels of 3 by 2.5
    assert resized.codes["colour"][0, 2] * 255 < cropped.codes["colour"][0, 2] * 255


def test_choice_of_the_face() -> None:
    def face(side: float, score: float) -> Face:
        return Face(np.array([0, 0, side, side], np.float32), score)

    assert choose_face([face(10, 0.9), face(30, 0.8), face(50, 0.2)]).xyxy[2] == 30
    assert choose_face([face(10, 0.1), face(30, 0.3)]).xyxy[2] == 30
    assert choose_face([face(10, float("nan")), face(30, float("nan"))]).xyxy[2] == 30


def test_batches_do_not_mix_rows(tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 10)
    files = files_of(list_samples(root, "folder").samples)
    together = rows_of(files, root, FakeDetector(), FakeRegressor())
    alone = [rows_of([file], root, FakeDetector(), FakeRegressor()) for file in files]
    assert np.array_equal(together.codes["colour"], np.concatenate([rows.codes["colour"] for rows in alone]))


def test_one_and_four_workers_give_equal_stores(tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 60)
    with (
        extract(root, tmp_path / "one.h5", jobs=1) as one,
        extract(root, tmp_path / "four.h5", jobs=4) as four,
    ):
        assert one.content_sha256 == four.content_sha256
        assert one.verify() == four.verify() == []
        assert one.ok.all()
    assert not list(tmp_path.glob("*.parts"))


def test_long_joins_are_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing, config, lines = (
        list_samples(colour_folder(tmp_path / "data", 5), "folder"),
        ExtractConfig(FAKE),
        [],
    )
    extract_codes(listing, tmp_path / "a.h5", config, jobs=1, notify=lines.append)
    monkeypatch.setattr(run, "_SLOW_JOIN", 10)
    extract_codes(listing, tmp_path / "b.h5", config, jobs=1, notify=lines.append)
    assert [line for line in lines if "joining" in line] == [f"joining 1 shard to {tmp_path / 'b.h5'}"]


def test_a_finished_store_is_left_alone_and_another_run_is_refused(tmp_path: Path) -> None:
    root, out = colour_folder(tmp_path / "data", 5), tmp_path / "a.h5"
    extract(root, out, jobs=1).close()
    before = out.stat().st_mtime_ns
    extract(root, out, jobs=1).close()
    assert out.stat().st_mtime_ns == before
    write_image(root / "sad" / "new.png")
    with pytest.raises(RunError, match=r"samples: 10 -> 11.*--restart"):
        extract(root, out, jobs=1)
    with extract(root, out, jobs=1, restart=True) as store:
        assert len(store) == 11


def test_a_moved_dataset_is_the_same_run(tmp_path: Path) -> None:
    root, out = colour_folder(tmp_path / "data", 5), tmp_path / "a.h5"
    extract(root, out, jobs=1).close()
    before = out.stat().st_mtime_ns
    extract(root.rename(tmp_path / "moved"), out, jobs=1).close()
    assert out.stat().st_mtime_ns == before


def test_differences_name_what_changed() -> None:
    before = {"options": {"batch_size": 8}, "samples_sha256": "a", "regressor": {"version": "1"}}
    now = {"options": {"batch_size": 16}, "samples_sha256": "b", "regressor": {"version": "1"}}
    assert differences(before, now) == [
        "options.batch_size: 8 -> 16",
        "samples: other ids, labels, splits, groups or file sizes",
    ]


@pytest.mark.parametrize(("n", "size"), [(1, 64), (6400, 64), (10_000, 100), (290_000, 1024)])
def test_shard_size(n: int, size: int) -> None:
    assert shard_size(n) == size


def kill_when(process: subprocess.Popen[str], out: Path, shards: int, sign: signal.Signals) -> int:
    """Kill the run's whole process group once that many shards are there; the exit code."""
    wait_for_shards(process, out, shards)
    if process.poll() is None:
        os.killpg(process.pid, sign)
    process.communicate(timeout=300)
    return process.returncode


def test_killed_at_any_moment_and_repeated_gives_the_undisturbed_store(tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 200)
    with extract(root, tmp_path / "whole.h5", SLOW, jobs=1) as whole:
        wanted = whole.content_sha256
    out, killed = tmp_path / "killed.h5", 0
    for shards, jobs in ((0, 1), (1, 2), (3, 1)):  # of seven
        killed += kill_when(start(root, out, "--jobs", jobs), out, shards, signal.SIGKILL) == -signal.SIGKILL
    assert killed
    assert not out.exists()
    finished = start(root, out, "--jobs", 2)
    assert "resumed an interrupted run" in finished.communicate(timeout=300)[1]
    with CodeStore(out) as store:
        assert store.content_sha256 == wanted
        assert store.verify() == []
    assert not out.with_name("killed.h5.parts").exists()


def test_ctrl_c_is_130_and_keeps_what_is_done(tmp_path: Path) -> None:
    root, out = colour_folder(tmp_path / "data", 200), tmp_path / "a.h5"
    assert kill_when(start(root, out, "--jobs", 1), out, 1, signal.SIGINT) == 130
    assert list((tmp_path / "a.h5.parts").glob("0*.h5"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_sigterm_ends_the_run_and_its_workers(tmp_path: Path, jobs: int) -> None:
    root, out = colour_folder(tmp_path / "data", 600), tmp_path / "a.h5"
    process = start(root, out, "--jobs", jobs)
    wait_for_shards(process, out, 1)
    process.terminate()  # the program alone, as a scheduler does it; its workers hold the pipes as long as they live
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 143
    assert not out.exists()
    assert "interrupted; finished shards are kept" in stderr
    assert "Traceback" not in stderr


def test_two_runs_on_one_store(tmp_path: Path) -> None:
    from filelock import FileLock

    root, out = colour_folder(tmp_path / "data", 5), tmp_path / "a.h5"
    (tmp_path / "a.h5.parts").mkdir()
    with (
        FileLock(tmp_path / "a.h5.parts" / "lock"),
        pytest.raises(RunError, match="another extraction is writing"),
    ):
        extract(root, out, jobs=1)


@pytest.mark.parametrize("limit", [30_000, 90_000], ids=["in-a-shard", "in-the-join"])
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(ig3d, tmp_path: Path, limit: int) -> None:
    root, out = colour_folder(tmp_path / "data", 350), tmp_path / "a.h5"

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "ig3d", "extract", root, "--out", out, "--regressor", FAKE, "--jobs", 1]
    command = [str(part) for part in command]
    ended = subprocess.run(command, capture_output=True, text=True, preexec_fn=small_files, check=False)
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert (
        last.startswith("ig3d: ") and "the store cannot be written" in last and "repeat the command" in last
    )
    assert "Traceback" not in ended.stderr
    assert not out.exists()
    assert not list(tmp_path.glob("**/*.tmp"))
    assert ig3d(*command[3:]).returncode == 0
    with CodeStore(out) as store:
        assert store.ok.all()


def test_files_that_vanish_or_change_after_the_listing(tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 5)
    samples = list_samples(root, "folder")
    (root / "happy" / "0001.png").unlink()
    (root / "sad" / "0002.png").write_bytes(b"")
    extract_codes(samples, tmp_path / "a.h5", CONFIG, jobs=1)
    with CodeStore(tmp_path / "a.h5") as store:
        status = dict(zip(store.samples.id, store.status, strict=True))
        assert status["happy/0001"] == Status.missing
        assert status["sad/0002"] == Status.failed
        assert (store.status == Status.ok).sum() == 8


@pytest.mark.parametrize("restart", [False, True])
def test_what_is_no_store_is_never_replaced(tmp_path: Path, restart: bool) -> None:
    root = colour_folder(tmp_path / "data", 5)
    (tmp_path / "a.h5").write_text("precious")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.attrs["format"] = "another format"
    for name in ("a.h5", "b.h5"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(RunError, match="is no store; choose another --out"):
            extract(root, tmp_path / name, jobs=1, restart=restart)
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(RunError, match="the output is an existing folder"):
        extract(root, tmp_path, jobs=1, restart=restart)


def test_a_damaged_store_is_written_anew_when_asked(tmp_path: Path) -> None:
    root, out = colour_folder(tmp_path / "data", 5), tmp_path / "a.h5"
    extract(root, out, jobs=1).close()
    out.write_bytes(out.read_bytes()[:5000])
    with pytest.raises(RunError, match="--restart replaces it"):
        extract(root, out, jobs=1)
    with extract(root, out, jobs=1, restart=True) as store:
        assert store.ok.all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param({"regressor": "smirkk"}, "regressor: .* choose one of .*facemesh", id="regressor"),
        pytest.param({"detector": "sdf"}, "detector: .* choose one of .*facemesh, .*none", id="detector"),
        pytest.param({"detector": "none"}, "no landmarks.* use --detector facemesh", id="none"),
        pytest.param(
            {"detector": "ig3d.extract.fakes:FakeDetector"},
            "finds no landmarks, but facemesh needs 478",
            id="no-landmarks",
        ),
        pytest.param({"also": ("texture",)}, "--also texture .* choose one of landmarks", id="also"),
        pytest.param({"regressor": "ig3d.extract.fakes:Nothing"}, "fakes has no 'Nothing'", id="attribute"),
    ],
)
def test_wrong_settings_end_before_any_work(tmp_path: Path, config: dict[str, object], message: str) -> None:
    root = colour_folder(tmp_path / "data", 3)
    with pytest.raises(UsageError, match=message):
        extract_codes(list_samples(root, "folder"), tmp_path / "a.h5", ExtractConfig(**config), jobs=1)  # type: ignore[arg-type]
    assert not (tmp_path / "a.h5").exists()


def test_a_detector_that_cannot_be_had_is_stood_in_for_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        FakeRegressor, "detectors", ("no.such.package:Detector", "ig3d.extract.fakes:FakeDetector")
    )
    messages: list[str] = []
    samples = list_samples(colour_folder(tmp_path / "data", 3), "folder")
    extract_codes(samples, tmp_path / "a.h5", CONFIG, jobs=1, notify=messages.append)
    assert "is used instead of no.such.package:Detector" in messages[0]
    with CodeStore(tmp_path / "a.h5") as store:
        assert store.info.detector == {"name": "fake", "version": "1"}
    monkeypatch.setattr(FakeRegressor, "detectors", ("no.such.package:Detector",))
    with pytest.raises(MissingExtra, match="needs the package 'no'"):
        extract_codes(samples, tmp_path / "b.h5", CONFIG, jobs=1)


def test_batch_size_and_jobs_must_make_sense(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batch size"):
        ExtractConfig(batch_size=0)
    with pytest.raises(UsageError, match="jobs"):
        extract(colour_folder(tmp_path / "data", 3), tmp_path / "a.h5", jobs=-1)


def test_a_folder_that_is_not_there_for_the_store(tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 3)
    (tmp_path / "file").touch()
    with pytest.raises((RunError, StoreError), match="is a file, not a folder; choose another path"):
        extract(root, tmp_path / "file" / "a.h5", jobs=1)


def test_detector_that_fails_on_one_image_fails_that_row_only(tmp_path: Path) -> None:
    class Moody(FakeDetector):
        def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
            if any((image == 77).all() for image in images):
                raise RuntimeError("not in the mood")
            return super().__call__(images)

    write_image(tmp_path / "a.png", (10, 20, 30))
    write_image(tmp_path / "b.png", (77, 77, 77))
    rows = rows_of([("a.png", -1), ("b.png", -1)], tmp_path, Moody(), FakeRegressor())
    assert rows.status.tolist() == [Status.ok, Status.failed]
    assert rows.message[1] == "RuntimeError: not in the mood"


def test_what_fails_by_itself_fails_again_and_an_interrupted_retry_leaves_the_store(
    ig3d, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = colour_folder(tmp_path / "data", 150)
    write_image(root / "happy" / "0100.png", (0, 0, 255))  # FakeRegressor gives up on pure blue
    with extract(root, tmp_path / "a.h5", jobs=1) as store:
        before, failed = store.content_sha256, store.status == Status.failed
    assert failed.sum() == 1

    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(run, "extract_shards", stop)
        extract(root, tmp_path / "a.h5", jobs=1, retry_failed=True)
    with CodeStore(tmp_path / "a.h5") as store:
        assert store.content_sha256 == before
    same = ["--regressor", FAKE, "--batch-size", 8, "--jobs", 1, "--out", tmp_path / "a.h5"]
    ended = ig3d("extract", root, *same, "--retry-failed")
    assert ended.returncode == 0, ended.stderr
    assert "ok 299 · failed 1" in ended.stdout and "kept 236 rows" in ended.stderr
    with CodeStore(tmp_path / "a.h5") as store:
        assert store.content_sha256 == before
    assert not list(tmp_path.glob("*.parts"))
    calls = []
    work = run.extract_shards

    def count(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        return work(*arguments, **options)

    monkeypatch.setattr(run, "extract_shards", count)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(run, "write_joined", stop)
        extract(root, tmp_path / "b.h5", jobs=1)
    whole, calls[:] = len(calls), []
    with extract(root, tmp_path / "b.h5", jobs=1, retry_failed=True) as store:
        assert store.content_sha256 == before
    assert whole == 5 and len(calls) == 1, "of an interrupted run the shard with the failed row alone"
    with pytest.raises(UsageError, match=r"--restart and --retry-failed exclude each other"):
        extract(root, tmp_path / "a.h5", restart=True, retry_failed=True)
