"""The store: what is written comes back, and what was changed, cut or not finished is refused."""

from __future__ import annotations

import errno
import re
from io import FileIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from listed import Sample, table_of

from ig3d.errors import RunError, StoreError
from ig3d.features.samples import Split
from ig3d.features.store import CodeStore, read_rows
from ig3d.features.store.format import StoreInfo, content_hash
from ig3d.features.store.summary import summarise
from ig3d.features.store.writer import StoreWriter
from ig3d.features.values import Block, Rows, Status

BLOCKS = {
    "pose": Block(3, "rad", "axis-angle", "Head rotation.", ("x", "y", "z")),
    "expression": Block(50, "1", "made-up", "Expression."),
}


def samples(n: int) -> tuple[Sample, ...]:
    return tuple(
        Sample(
            id=f"ordner/ü{row:05d}",
            path=f"ordner/ü{row:05d}.jpg",
            label=row % 3 - 1,
            split=Split(row % 4 - 1),
            valence=row / n if row % 2 else np.nan,
            arousal=-row / n if row % 2 else np.nan,
            group=f"person {row // 5}",
        )
        for row in range(n)
    )


def outcome(n: int, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    rows = Rows.pending(n, BLOCKS)
    rows.status[:] = rng.choice([1, 1, 1, 2, 3, 4, 5], n)
    rows.size_wh[:] = rng.integers(1, 999, (n, 2))
    rows.digest[:] = rng.integers(0, 256, (n, 16))
    for boxes in (rows.xyxy, rows.landmark_box, rows.crop_box):
        boxes[:] = np.sort(rng.normal(size=(n, 2, 2)), axis=1).reshape(n, 4)
        boxes[rng.random(n) < 0.2] = np.nan
    rows.score[:] = rng.random(n)
    rows.count[:] = rng.integers(0, 5, n)
    for row in range(n):
        rows.message[row] = "" if rows.status[row] == 1 else f"because of ü {row}"
    for name, block in BLOCKS.items():
        rows.codes[name][rows.status == 1] = rng.normal(size=((rows.status == 1).sum(), block.width))
    return rows


def write(path: Path, n: int = 200, info: StoreInfo | None = None, rows: Rows | None = None) -> Path:
    info = info or StoreInfo("folder", "/somewhere", ("happy", "sad"), regressor={"name": "made-up"})
    with StoreWriter(path, info, table_of(samples(n)), BLOCKS) as writer:
        writer.write(0, rows or outcome(n))
    return path


@pytest.mark.parametrize("n", [1, 2, 200, 5000])
def test_what_is_written_comes_back(tmp_path: Path, n: int) -> None:
    path, rows, given = write(tmp_path / "a.h5", n), outcome(n), samples(n)
    with CodeStore(path) as store:
        assert len(store) == n
        for column in ("id", "path", "group", "split", "label", "valence", "arousal"):
            wanted = np.array([getattr(sample, column) for sample in given])
            found = store.samples[column]
            if wanted.dtype.kind == "f":
                assert np.array_equal(found, wanted.astype(np.float32), equal_nan=True), column
            else:
                assert (found.cat.codes if hasattr(found, "cat") else found).tolist() == wanted.tolist(), (
                    column
                )
        assert np.array_equal(store.status, rows.status)
        assert store.messages.tolist() == rows.message
        assert np.array_equal(store.column("sample/digest"), rows.digest)
        assert np.array_equal(store.column("sample/width"), rows.size_wh[:, 0])
        assert np.array_equal(store.column("face/box"), rows.xyxy, equal_nan=True)
        assert np.array_equal(store.column("face/landmark_box"), rows.landmark_box, equal_nan=True)
        assert np.array_equal(store.column("face/crop_box"), rows.crop_box, equal_nan=True)
        assert np.array_equal(store.column("face/count"), rows.count)
        for name in BLOCKS:
            assert np.array_equal(store.codes(name), rows.codes[name], equal_nan=True)
            assert np.array_equal(store.codes(name, slice(1, 3)), rows.codes[name][1:3], equal_nan=True)
        assert store.blocks == BLOCKS
        assert store.info.classes == ("happy", "sad")
        assert store.info.regressor == {"name": "made-up"}
        assert store.verify() == []
        parts = list(read_rows(store))
        assert sum(map(len, parts)) == n
        assert np.array_equal(
            np.concatenate([part.codes["pose"] for part in parts]), rows.codes["pose"], equal_nan=True
        )


def test_rows_may_come_in_any_order(tmp_path: Path) -> None:
    whole, rows = write(tmp_path / "whole.h5"), outcome(200)
    info = StoreInfo(
        "folder", "/elsewhere", ("happy", "sad"), regressor={"name": "made-up"}, created="another day"
    )
    with StoreWriter(tmp_path / "parts.h5", info, table_of(samples(200)), BLOCKS) as writer:
        for start in (150, 0, 50, 100):
            part = {
                name: getattr(rows, name)[start : start + 50] for name in Rows.__slots__ if name != "codes"
            }
            writer.write(start, Rows(**part, codes={k: v[start : start + 50] for k, v in rows.codes.items()}))
    with CodeStore(whole) as one, CodeStore(tmp_path / "parts.h5") as other:
        # where and when are no part of the hash; everything else is
        assert one.content_sha256 == other.content_sha256
        assert one.info.root != other.info.root


@pytest.mark.parametrize("change", ["code", "label", "status", "message", "attribute", "basis"])
def test_any_change_is_noticed(tmp_path: Path, change: str) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        if change == "code":
            row = int(np.flatnonzero(file["sample/status"][:] == 1)[0])
            file["codes/pose"][row, 1] += 1e-6
        elif change in ("label", "status"):
            file[f"sample/{change}"][3] = 1 if file[f"sample/{change}"][3] != 1 else 2
        elif change == "message":
            file["sample/message"][0] = b"other"
        elif change == "attribute":
            file.attrs["classes"] = '["sad", "happy"]'
        else:
            file["codes/pose"].attrs["basis"] = "another"
    with CodeStore(path) as store:
        assert any("bytes were changed" in problem for problem in store.verify())


def test_codes_where_there_should_be_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        row = int(np.flatnonzero(file["sample/status"][:] == 2)[0])
        file["codes/pose"][row] = 0
        file.attrs["content_sha256"] = content_hash(file)
    with CodeStore(path) as store:
        assert store.verify() == [
            f"codes/pose has numbers where the status is not ok, in 1 row (ordner/ü{row:05d})"
        ]


def test_flipped_bytes_are_never_silently_used(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.h5", 400).read_bytes()
    rng = np.random.default_rng(0)
    hit = 0
    for place in rng.integers(0, len(whole), 150):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        (tmp_path / "b.h5").write_bytes(broken)
        try:
            with CodeStore(tmp_path / "b.h5") as store, CodeStore(tmp_path / "a.h5") as good:
                if store.verify():
                    hit += 1
                    continue
                # the byte was in a gap of the file: what is read is what was written
                assert content_hash(store._file) == good.content_sha256
        except StoreError:
            hit += 1
    assert hit > 50


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.h5").read_bytes()
    for share in (0, 0.001, 0.2, 0.5, 0.9, 0.999):
        (tmp_path / "b.h5").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(StoreError, match="cut short" if share else "is no HDF5 file"):
            CodeStore(tmp_path / "b.h5")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(
            lambda f: f.attrs.__setitem__("format_version", 3), "format version 3.*update ig3d", id="version"
        ),
        pytest.param(lambda f: f.attrs.__setitem__("format", "other"), "no ig3d store", id="kind"),
        pytest.param(lambda f: f.__delitem__("sample/split"), "dataset sample/split is missing", id="column"),
        pytest.param(lambda f: f.__delitem__("codes"), "dataset codes is missing", id="codes"),
        pytest.param(
            lambda f: f["sample/status"].__setitem__(5, 0), "status pending in 1 of 200 rows", id="pending"
        ),
    ],
)
def test_other_files_are_refused_with_advice(tmp_path: Path, damage: object, message: str) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        damage(file)  # type: ignore[operator]
    with pytest.raises(StoreError, match=message):
        CodeStore(path)


def test_datasets_of_other_lengths_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file["codes/pose"]
        file["codes/pose"] = np.zeros((10, 3), np.float32)
    with pytest.raises(StoreError, match="differ in their number of rows"):
        CodeStore(path)


def test_groups_that_are_not_known_are_ignored(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["future/thing"] = np.zeros(3)
    with CodeStore(path) as store:
        assert len(store) == 200


def test_not_there_and_not_hdf5(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such store"):
        CodeStore(tmp_path / "a.h5")
    with pytest.raises(StoreError, match="is a folder; pass a store"):
        CodeStore(tmp_path)
    (tmp_path / "a.h5").write_text("hello")
    with pytest.raises(StoreError, match="is no HDF5 file; pass a store"):
        CodeStore(tmp_path / "a.h5")


def test_an_error_while_writing_leaves_the_old_store(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    before = path.read_bytes()
    with (
        pytest.raises(KeyError),
        StoreWriter(path, StoreInfo("folder", "/", ()), table_of(samples(3)), BLOCKS) as writer,
    ):
        writer.write(0, Rows.pending(3, {}))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file is a file, not a folder; choose another path"):
        write(tmp_path / "file" / "a.h5")
    assert len(CodeStore(write(tmp_path / "new" / "folder" / "a.h5"))) == 200


def test_a_full_disk_is_reported_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5's own error, for what it then reads and is not there, would name the wrong thing to do."""
    whole = write(tmp_path / "whole.h5", 3000).stat().st_size
    room = 0

    class Disk(FileIO):
        def write(self, content: Any) -> int:
            if self.tell() >= room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content[: room - self.tell()])

    really_open = Path.open

    def opened(self: Path, mode: str = "r", *how: Any, **more: Any) -> Any:
        return Disk(self, mode) if mode == "w+b" else really_open(self, mode, *how, **more)

    monkeypatch.setattr(Path, "open", opened)
    for bytes_free in np.linspace(0, whole - 1, 24).astype(int):
        room = bytes_free
        with pytest.raises(StoreError, match=r"written: No space left .*; free the disk and repeat"):
            write(tmp_path / "a.h5", 3000)
        assert not (tmp_path / "a.h5").exists()
    room = whole
    with CodeStore(write(tmp_path / "a.h5", 3000)) as store:
        assert store.verify() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "whole.h5"]


def test_long_messages_are_cut_between_characters(tmp_path: Path) -> None:
    rows = outcome(1)
    rows.message[0] = "ü" * 500
    with CodeStore(write(tmp_path / "a.h5", 1, rows=rows)) as store:
        assert store.messages[0] == "ü" * 100


def test_unknown_block_names_those_there_are(tmp_path: Path) -> None:
    with (
        CodeStore(write(tmp_path / "a.h5")) as store,
        pytest.raises(StoreError, match="no block 'jaw'; choose one of pose, expression"),
    ):
        store.codes("jaw")


def test_summary_counts(tmp_path: Path) -> None:
    with CodeStore(write(tmp_path / "a.h5")) as store:
        summary = summarise(store)
        ok = store.ok
        assert summary["rows"] == sum(sum(counts.values()) for counts in summary["splits"].values()) == 200
        here = (store.samples.split.cat.codes == Split.val) & (store.samples.label.cat.codes == 1)
        assert summary["splits"]["val"]["sad"] == here.sum()
        assert summary["status"]["no_face"] == (store.status == Status.no_face).sum()
        assert summary["groups"] == 40
        assert summary["valence_arousal"] == 100
        assert summary["blocks"]["pose"]["max"] == pytest.approx(float(store.codes("pose")[ok].max()))


@pytest.mark.parametrize("n", [1, 200])
def test_a_frame_has_samples_and_codes_by_name(tmp_path: Path, n: int) -> None:
    rows, given = outcome(n), samples(n)
    with CodeStore(write(tmp_path / "a.h5", n)) as store:
        frame, few = store.frame(), store.frame(["pose"])
    assert list(few.columns[-4:]) == ["message", "pose:0", "pose:1", "pose:2"]
    assert len(frame) == n and len(frame.columns) == len(few.columns) + 50
    for name in ("id", "path", "group"):
        assert frame[name].tolist() == [getattr(sample, name) for sample in given]
    assert list(frame["label"].cat.categories) == ["happy", "sad"]
    assert frame["label"].cat.codes.tolist() == [sample.label for sample in given]
    assert list(frame["split"].cat.categories) == ["train", "val", "test"]
    assert frame["split"].cat.codes.tolist() == [int(sample.split) for sample in given]
    assert frame["status"].tolist() == [Status(code).name for code in rows.status]
    assert frame["message"].tolist() == rows.message
    codes = frame[[f"expression:{column}" for column in range(50)]].to_numpy()
    assert codes.dtype == np.float32
    assert np.array_equal(codes, rows.codes["expression"], equal_nan=True)


def test_a_frame_of_an_unknown_block_is_refused(tmp_path: Path) -> None:
    with CodeStore(write(tmp_path / "a.h5")) as store, pytest.raises(StoreError, match="no block 'jaw'"):
        store.frame(["pose", "jaw"])


def test_the_examples_of_the_page_on_the_format_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parent.parent / "docs" / "format.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    write(tmp_path / "out" / "rafdb-facemesh.h5")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for example in examples:
        exec(example, names)
    assert len(examples) == 2
    assert names["good"].shape == (len(names["ids"]), 9 + 53)
    assert np.array_equal(names["good"][["pose:0", "pose:1", "pose:2"]].to_numpy(), names["pose"])


ARCHIVES = Path(__file__).parent / "data"


def test_an_archived_store_is_read() -> None:
    # written once by write(path, 12) at format version 2; never written again
    with CodeStore(ARCHIVES / "store-v2.h5") as store:
        assert store.verify() == []
        assert np.array_equal(store.codes("pose"), outcome(12).codes["pose"], equal_nan=True)
        assert np.array_equal(store.column("face/crop_box"), outcome(12).crop_box, equal_nan=True)
        assert store.samples.id[3] == "ordner/ü00003"


def test_an_archived_store_of_version_1_is_refused_with_advice() -> None:
    with pytest.raises(StoreError, match=r"format version 1, .*reads version 2; extract it again"):
        CodeStore(ARCHIVES / "store-v1.h5")
