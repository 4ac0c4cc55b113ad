"""Videos: which frame is which, in every container; damaged files; times, groups and rows in the store."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ig3d.errors import DatasetError, UsageError
from ig3d.extract.datasets import DatasetOptions, list_samples
from ig3d.extract.read import Unreadable, read_image
from ig3d.extract.sources.video import VideoIndex, read_index
from ig3d.features.samples import Listing
from ig3d.features.store import CodeStore

av = pytest.importorskip("av")

BITS = 8


def numbered(number: int) -> np.ndarray:
    """A picture that shows a number below 256 as eight black or white columns."""
    pixels = np.zeros((64, BITS * 16, 3), np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            pixels[:, bit * 16 : (bit + 1) * 16] = 255
    return pixels


def number_in(pixels: np.ndarray) -> int:
    return sum(int(pixels[32, bit * 16 + 8].mean() > 128) << bit for bit in range(BITS))


def write_video(
    path: Path, stamps: list[int], *, codec: str = "libx264", rate: int = 25, b_frames: int = 2, gop: int = 12
) -> Path:
    """Video in which frame k shows the number k at ``stamps[k] / rate`` seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = BITS * 16, 64
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = gop
        if b_frames and codec != "mjpeg":
            stream.codec_context.max_b_frames = b_frames
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts = stamp
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


CONTAINERS = [
    ("mp4", "libx264", 2),
    ("mkv", "libx264", 2),
    ("mov", "libx264", 0),
    ("avi", "mpeg4", 2),
    ("avi", "libx264", 2),  # in which time stamps are out of order
    ("avi", "mjpeg", 0),
    ("mpg", "mpeg2video", 2),
    ("webm", "libvpx-vp9", 0),
    ("wmv", "wmv2", 0),
    ("flv", "libx264", 2),
]


@pytest.mark.parametrize(("suffix", "codec", "b_frames"), CONTAINERS)
def test_a_frame_is_the_same_in_any_order_of_reading(
    suffix: str, codec: str, b_frames: int, tmp_path: Path
) -> None:
    path = write_video(tmp_path / f"clip.{suffix}", list(range(60)), codec=codec, b_frames=b_frames)
    index = read_index(str(path))
    assert len(index) == 60
    np.testing.assert_allclose(index.seconds, np.arange(60) / 25, atol=1e-3)
    rng = np.random.default_rng(0)
    for frame in [*range(60), *rng.permutation(60).tolist()]:
        assert number_in(read_image(f"{path}#{frame:06d}").pixels) == frame


def test_reading_in_order_decodes_each_frame_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ig3d.extract.sources import video

    path = write_video(tmp_path / "clip.mp4", list(range(120)))
    decoded = 0
    frames = video._frames

    def counted(*arguments: object) -> object:
        nonlocal decoded
        for frame in frames(*arguments):
            decoded += 1
            yield frame

    monkeypatch.setattr(video, "_frames", counted)
    for frame in range(60, 120):  # a shard in the middle
        assert number_in(read_image(f"{path}#{frame:06d}").pixels) == frame
    assert decoded <= video._CHECKED + 1 + 12 + 60


def test_rows_are_frames_with_times_and_the_video_as_group(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    write_video(root / "a.mp4", list(range(30)))
    write_video(root / "b.mkv", [0, 1, 2, 10, 11, 30])  # of a variable rate
    samples = list_samples(root, "folder").samples
    assert samples["id"].tolist()[28:32] == ["a#000028", "a#000029", "b#000000", "b#000001"]
    assert samples["path"].iloc[-1] == "b.mkv#000005"
    assert samples["group"].tolist() == ["a"] * 30 + ["b"] * 6
    assert samples["label"].isna().all() and samples["split"].isna().all()
    np.testing.assert_allclose(samples["time"][30:], np.array([0, 1, 2, 10, 11, 30]) / 25, atol=1e-3)


def test_fps_takes_the_first_frame_of_each_period(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", list(range(50)))
    five = list_samples(path, "folder", DatasetOptions(fps=5)).samples
    assert five["id"].tolist() == [f"clip#{frame:06d}" for frame in range(0, 50, 5)]
    assert len(list_samples(path, "folder", DatasetOptions(fps=25))) == 50
    assert len(list_samples(path, "folder", DatasetOptions(fps=100))) == 50
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="fps"):
            DatasetOptions(fps=wrong)


def test_fps_of_a_variable_rate_and_of_a_long_pause(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", [0, 1, 2, 10, 11, 30, 40_000_000])
    samples = list_samples(path, "folder", DatasetOptions(fps=5)).samples
    assert [name[-1] for name in samples["id"]] == ["0", "3", "5", "6"]


def test_fps_of_images_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="has none"):
        list_samples(tmp_path, "folder", DatasetOptions(fps=5))


def test_frames_without_time_stamps_are_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "raw.h264", list(range(10))).rename(tmp_path / "raw.mp4")
    assert [number_in(read_image(f"{path}#{frame}").pixels) for frame in (3, 9, 0, 5)] == [3, 9, 0, 5]


def test_fps_of_a_video_without_times_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ig3d.extract.datasets import videos

    path = write_video(tmp_path / "clip.mp4", list(range(10)))
    timeless = VideoIndex(np.full(10, np.nan), None, np.zeros(1, np.int64), 0)
    monkeypatch.setattr(videos, "read_index", lambda path: timeless)
    assert list_samples(path, "folder").samples["time"].isna().all()
    with pytest.raises(DatasetError, match="leave out --fps"):
        list_samples(path, "folder", DatasetOptions(fps=5))


def test_class_folders_of_videos_have_labels(tmp_path: Path) -> None:
    for name in ("happy", "sad"):
        (tmp_path / name).mkdir()
        for clip in range(5):
            write_video(tmp_path / name / f"{clip}.mp4", list(range(4)))
    listing = list_samples(tmp_path, "folder")
    assert listing.classes == ("happy", "sad") and len(listing) == 40
    assert set(listing.samples["group"]) == {
        f"{name}/{clip}" for name in ("happy", "sad") for clip in range(5)
    }
    assert (listing.samples.groupby("group")["split"].nunique() == 1).all()


def damaged(tmp_path: Path) -> dict[str, Path]:
    whole = write_video(tmp_path / "whole.mp4", list(range(60))).read_bytes()
    kinds = {"empty": b"", "text": b"hello " * 100, "cut": whole[: len(whole) // 2]}
    for name, content in kinds.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return {name: tmp_path / f"{name}.mp4" for name in (*kinds, "sound")}


def test_a_video_that_cannot_be_read_has_one_row_and_a_reason(tmp_path: Path) -> None:
    for name, path in damaged(tmp_path).items():
        listing = list_samples(path, "folder")
        assert listing.samples["id"].tolist() == [f"{name}#000000"]
        assert any("1 video cannot be read, and has one row, unreadable" in note for note in listing.notes)
        with pytest.raises(Unreadable):
            read_image(f"{path}#000000")


def test_reasons_name_a_video_once(tmp_path: Path) -> None:
    videos = damaged(tmp_path).values()
    notes = list_samples(tmp_path, "folder").notes
    assert any("4 videos cannot be read, and have one row each" in note for note in notes)
    for path in videos:
        with pytest.raises(Unreadable) as error:
            read_image(f"{path}#000000")
        assert str(error.value).count(path.name) == 1, error.value


def test_a_video_that_is_cut_short_keeps_the_frames_before(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", list(range(120)), b_frames=0)
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    frames = len(read_index(str(tmp_path / "cut.mkv")))
    assert 5 < frames < 120
    notes = list_samples(tmp_path, "folder").notes
    assert any("cut short: cut.mkv (frames end at" in note and "whole.mkv" not in note for note in notes), (
        notes
    )
    for frame in range(frames - 1):
        assert number_in(read_image(f"{tmp_path / 'cut.mkv'}#{frame}").pixels) == frame


def test_bytes_changed_in_the_middle_end_with_rows_not_with_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", list(range(60)))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(np.random.default_rng(0).integers(0, 256, 200, np.uint8))
    path.write_bytes(content)
    good = 0
    for frame, second in enumerate(read_index(str(path)).seconds):
        try:
            good += number_in(read_image(f"{path}#{frame}").pixels) == round(second * 25)
        except Unreadable:
            continue
    assert good >= 10


def test_a_file_named_as_a_frame_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "clip.mp4#000001"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    folder.write_bytes((tmp_path / "a.png").read_bytes())
    with pytest.raises(DatasetError, match="rename"):
        list_samples(tmp_path, "folder")


def test_extract_video_resumes_to_the_same_store(tmp_path: Path) -> None:
    from ig3d.extract.config import ExtractConfig
    from ig3d.extract.run import extract_codes

    path = write_video(tmp_path / "clip.mp4", [*range(0, 80, 2), *range(80, 200)])
    config = ExtractConfig(regressor="ig3d.extract.fakes:FakeRegressor", detector="none")
    listing = list_samples(path, "folder")
    extract_codes(listing, tmp_path / "one.h5", config, jobs=1)
    seen = 0

    def stop(counts: object) -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_codes(listing, tmp_path / "two.h5", config, jobs=1, progress=stop)
    extract_codes(listing, tmp_path / "two.h5", config, jobs=1)
    with CodeStore(tmp_path / "one.h5") as one, CodeStore(tmp_path / "two.h5") as two:
        assert one.content_sha256 == two.content_sha256 and not one.verify()
        np.testing.assert_array_equal(one.samples["time"], listing.samples["time"])
        assert "time" in one.frame() and one.ok.all()


def manifest(root: Path, text: str, **options: float) -> Listing:
    (root / "manifest.csv").write_text(text)
    return list_samples(root, "manifest", DatasetOptions(**options))  # type: ignore[arg-type]


def test_a_table_labels_videos_intervals_and_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", list(range(50)))
    write_video(tmp_path / "b.mp4", list(range(10)))
    Image.new("RGB", (8, 8)).save(tmp_path / "c.png")
    listing = manifest(
        tmp_path,
        "video,start,end,frame,label,split,valence\n"
        "a.mp4,0,0.4,,happy,train,0.5\n"
        "a.mp4,1.0,,,sad,test,\n"
        "b.mp4,,,3,neutral,val,\n"
        "c.png,,,,happy,train,\n",
    )
    samples = listing.samples.set_index("id")
    assert samples.index.tolist() == [
        *(f"a#{frame:06d}" for frame in [*range(10), *range(25, 50)]),
        "b#000003",
        "c",
    ]
    assert set(samples["label"][:10]) == {"happy"} and set(samples["label"][10:35]) == {"sad"}
    assert samples["group"].tolist() == ["a"] * 35 + ["b", ""]
    assert samples.loc["a#000025", "time"] == pytest.approx(1.0) and np.isnan(samples.loc["c", "time"])
    assert samples.loc["a#000000", "valence"] == 0.5 and samples.loc["b#000003", "split"] == "val"
    assert any("24 frames left out, in no row of manifest.csv" in note for note in listing.notes)


def test_a_table_names_ranges_of_frames_and_ids(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", list(range(50)))
    samples = manifest(
        tmp_path,
        "id,path,first_frame,last_frame,group,label\nclip,a.mp4,10,12,S1,sad\nclip,a.mp4,20,20,S1,happy\n",
    ).samples
    assert samples["id"].tolist() == ["clip#000010", "clip#000011", "clip#000012", "clip#000020"]
    assert set(samples["group"]) == {"S1"} and samples["path"].iloc[0] == "a.mp4#000010"
    five = manifest(tmp_path, "path,start,label\na.mp4,1,sad\n", fps=5).samples
    assert five["id"].tolist() == [f"a#{frame:06d}" for frame in range(25, 50, 5)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,start,end\na.mp4,0,1\na.mp4,0.9,2\n", "2 frames in more than one row"),
        ("path,start\na.mp4,early\n", "column start has early"),
        (
            "path,start\na.mp4,99\n",
            r"no row has frames; 1 row of .* \(row 1, a.mp4: start 99; the last frame is 59, 2.95 s\)",
        ),
        ("path,start,end\na.mp4,2,1\n", "row 1: end 1 is not after start 2"),
        ("path,start,end\na.mp4,0,2\na.mp4,2,2\n", "row 2: end 2 is not after start 2"),
        ("path,first_frame,last_frame\na.mp4,7,5\n", "row 1: last_frame 5 is before first_frame 7"),
        ("path,frame\na.mp4,60\n", "frame 60; the last frame is 59"),
        ("path,start,end\na.mp4,0.51,0.54\n", "start 0.51, end 0.54; no frame is in this interval"),
        ("path,first_frame\na.mp4,-2\na.mp4,1.5\n", r"first_frame has -2, 1.5; write whole numbers from 0"),
        ("path,start\na.mp4,-1\n", "start has -1; write seconds from 0"),
        ("path\nb.mp4\nc.mp4\n", r"b.mp4 does not exist, nor does any other of the 2 files"),
    ],
)
def test_tables_of_videos_that_are_refused(table: str, message: str, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", list(range(60)), rate=20)
    with pytest.raises(DatasetError, match=message):
        manifest(tmp_path, table)


def test_a_damaged_or_missing_video_of_a_table_has_one_row(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    samples = manifest(tmp_path, "path,start,label\na.mp4,1,sad\nb.mp4,,happy\n").samples
    assert samples["id"].tolist() == ["a#000000", "b#000000"]
    assert samples["size_bytes"].tolist() == [0, -1]
    notes = manifest(tmp_path, "path,start,label\na.mp4,1,sad\nb.mp4,,happy\n").notes
    assert [note for note in notes if "b.mp4" in note] == [
        "no file for 1 listed image (b.mp4#000000); the rows are kept, as missing or unreadable"
    ]


def test_intervals_of_a_missing_video_are_one_row(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", list(range(10)))
    samples = manifest(
        tmp_path, "path,start,end,label\na.mp4,,,sad\nb.mp4,0,1,sad\nb.mp4,1,2,happy\n"
    ).samples
    assert samples["id"].tolist() == [*(f"a#{frame:06d}" for frame in range(10)), "b#000000"]


def test_rows_whose_frames_fps_leaves_out_are_reported(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", list(range(50)))
    listing = manifest(tmp_path, "path,frame,label\na.mp4,0,sad\na.mp4,3,happy\na.mp4,77,sad\n", fps=5)
    assert listing.samples["id"].tolist() == ["a#000000"]
    notes = " ".join(listing.notes)
    assert (
        "WARNING --fps 5 leaves out every frame of 1 row of manifest.csv (row 2, a.mp4: frame 3); omit"
        in notes
    )
    assert "1 row of manifest.csv without frames (row 3, a.mp4: frame 77; the last frame is 49" in notes
    with pytest.raises(DatasetError, match=r"no row has frames; --fps 5 leaves out every frame of 1 row"):
        manifest(tmp_path, "path,frame\na.mp4,3\n", fps=5)


def test_splits_of_thinned_videos(ig3d, tmp_path: Path) -> None:
    for name in ("happy/a.mp4", "sad/b.mp4", "happy/c.mp4"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / "data" / name, list(range(50)))
    table = tmp_path / "split.csv"
    ended = ig3d("split", tmp_path / "data", "--fps", 5, "--out", table)
    assert ended.returncode == 0, ended.stderr
    options = DatasetOptions(fps=5, split_table=str(table))
    assert len(list_samples(tmp_path / "data", "folder", options)) == 30
    ended = ig3d("datasets", "check", tmp_path / "data", "--fps", 5)
    assert "30 samples in 30 images" in ended.stdout


def test_other_names_of_columns_are_noted(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", list(range(50)))
    notes = manifest(tmp_path, "video,begin,Stop,label\na.mp4,0,1,sad\n").notes
    assert [note for note in notes if "read as" in note] == [
        "column video of manifest.csv read as path",
        "column begin of manifest.csv read as start",
        "column Stop of manifest.csv read as end",
    ]


def test_annotations_of_affwild2_beside_its_videos(tmp_path: Path) -> None:
    lists = tmp_path / "EXPR_Set" / "Train_Set"
    lists.mkdir(parents=True)
    (tmp_path / "batch1").mkdir()
    header = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n"
    (lists / "v1.txt").write_text(header + "\n".join(map(str, [0, -1, 4, 7])))
    (lists / "v2_left.txt").write_text(header + "1\n")
    (lists / "v3.txt").write_text(header + "1\n")
    write_video(tmp_path / "batch1" / "v1.mp4", list(range(6)))
    write_video(tmp_path / "batch1" / "v2.mp4", list(range(6)))
    listing = list_samples(tmp_path, "affwild2")
    assert listing.samples["id"].tolist() == ["batch1/v1#000000", "batch1/v1#000002", "batch1/v1#000003"]
    assert listing.samples["label"].tolist() == ["neutral", "happy", "other"]
    assert set(listing.samples["group"]) == {"v1"} and set(listing.samples["split"]) == {"train"}
    notes = " ".join(listing.notes)
    assert (
        "2 frames left out, without a line" in notes
        and "v2_left" in notes
        and "not under the root: v3" in notes
    )


def test_only_a_few_videos_hold_decoded_frames(tmp_path: Path) -> None:
    from ig3d.extract.sources import open_archive, video

    paths = [write_video(tmp_path / f"{k}.mp4", list(range(12))) for k in range(6)]
    for frame in (3, 7):
        for path in paths:
            assert number_in(read_image(f"{path}#{frame}").pixels) == frame
    holding = [bool(open_archive(str(path))._kept) for path in paths]
    assert sum(holding) <= video._MAX_ACTIVE


def test_threads_read_one_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", list(range(100)))
    with ThreadPoolExecutor(8) as pool:
        read = pool.map(lambda frame: number_in(read_image(f"{path}#{frame}").pixels), range(100))
        assert list(read) == list(range(100))


def test_without_pyav_the_error_names_the_extra(
    ig3d, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "clip.mp4", list(range(4)))
    monkeypatch.setitem(sys.modules, "av", None)
    ended = ig3d("extract", path, "--out", tmp_path / "x.h5")
    assert ended.returncode == 1 and "pip install 'ig3d[video]'" in ended.stderr


def test_workers_get_runs_of_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ig3d.extract import run
    from ig3d.extract.config import ExtractConfig
    from ig3d.extract.shards import shard_size

    tasks: list[list[str]] = []
    run_tasks = run.run_tasks

    def recorded(function: object, calls: object, **options: object) -> object:
        calls = list(calls)  # type: ignore[call-overload]
        tasks.extend([sample for shard in shards for sample in shard.samples["id"]] for (shards,) in calls)
        return run_tasks(function, calls, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "run_tasks", recorded)
    listing = list_samples(write_video(tmp_path / "clip.mp4", list(range(500))), "folder")
    config = ExtractConfig(regressor="ig3d.extract.fakes:FakeRegressor", detector="none")
    run.extract_codes(listing, tmp_path / "two.h5", config, jobs=2)
    run.extract_codes(listing, tmp_path / "one.h5", config, jobs=1)
    assert shard_size(500) == 64 and [len(task) for task in tasks] == [256, 244]
    assert [sample for task in tasks for sample in task] == listing.samples["id"].tolist()
    with CodeStore(tmp_path / "one.h5") as one, CodeStore(tmp_path / "two.h5") as two:
        assert one.content_sha256 == two.content_sha256
