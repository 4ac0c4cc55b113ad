"""Codes that people have go in by id, and what a store holds comes out as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import FAKE, Ended, colour_folder, write_image

from ig3d.errors import DatasetError, RunError, UsageError
from ig3d.extract.config import ExtractConfig
from ig3d.extract.datasets import list_samples
from ig3d.extract.imports import import_codes
from ig3d.extract.run import extract_codes
from ig3d.features.samples import Listing
from ig3d.features.store import CodeStore
from ig3d.features.store.export import export_store
from ig3d.features.values import Status

RNG = np.random.default_rng(0)
SMIRK = {
    "pose_params": 3,
    "cam": 3,
    "shape_params": 300,
    "expression_params": 50,
    "eyelid_params": 2,
    "jaw_params": 3,
}
EMOCA = {"shape": 100, "exp": 50, "tex": 50, "pose": 6, "detail": 128}


@pytest.fixture
def samples(tmp_path: Path) -> Listing:
    for name in ("happy/1.jpg", "happy/2.jpg", "sad/3.jpg", "sad/4.png"):
        write_image(tmp_path / "data" / name)
    return list_samples(tmp_path / "data", "folder")


def numbers(widths: dict[str, int]) -> dict[str, list[float]]:
    return {name: RNG.normal(size=width).astype(np.float32).tolist() for name, width in widths.items()}


def row(store: CodeStore, identifier: str) -> int:
    return store.samples.id.tolist().index(identifier)


def test_smirk_json_in_each_of_its_places(tmp_path: Path, samples: Listing) -> None:
    codes = tmp_path / "codes"
    records = {name: numbers(SMIRK) for name in ("by id", "by path", "by name")}
    for name, place in {
        "by id": "happy/1.json",
        "by path": "happy/2.jpg.json",
        "by name": "other/3.json",
    }.items():
        (codes / place).parent.mkdir(parents=True, exist_ok=True)
        (codes / place).write_text(json.dumps(records[name], indent=4))
    counts = import_codes(samples, "smirk-json", codes, tmp_path / "a.h5")
    assert counts == {"ok": 3, "failed": 1}
    with CodeStore(tmp_path / "a.h5") as store:
        assert store.verify() == []
        assert store.info.regressor["name"] == "smirk"
        assert {name: block.width for name, block in store.blocks.items()} == {
            "pose": 3, "camera": 3, "shape": 300, "expression": 50, "eyelid": 2, "jaw": 3,
        }  # fmt: skip
        assert store.blocks["expression"].basis == "flame-2020"
        for name, identifier in {"by id": "happy/1", "by path": "happy/2", "by name": "sad/3"}.items():
            there = row(store, identifier)
            assert np.allclose(store.codes("jaw")[there], records[name]["jaw_params"])
            assert np.allclose(store.codes("shape")[there], records[name]["shape_params"])
        assert store.messages[row(store, "sad/4")] == "no codes in the source"
        assert np.isnan(store.codes("pose")[row(store, "sad/4")]).all()


def test_emoca_json_parts_pose_and_jaw(tmp_path: Path, samples: Listing) -> None:
    record = numbers(EMOCA)
    (tmp_path / "codes").mkdir()
    (tmp_path / "codes" / "1.json").write_text(json.dumps(record))
    import_codes(samples, "smirk-json", tmp_path / "codes", tmp_path / "a.h5")
    with CodeStore(tmp_path / "a.h5") as store:
        assert store.info.regressor["name"] == "emoca"
        there = row(store, "happy/1")
        assert np.allclose(store.codes("pose")[there], record["pose"][:3])
        assert np.allclose(store.codes("jaw")[there], record["pose"][3:])


def test_emoca_folders_with_their_traps(tmp_path: Path, samples: Listing) -> None:
    write_image(tmp_path / "data" / "sad" / "5.a.jpg")
    write_image(tmp_path / "data" / "sad" / "5.b.jpg")
    samples = list_samples(tmp_path / "data", "folder")
    records = {}
    for folder in ("100", "200", "300", "500", "4"):
        here = tmp_path / "out" / "EMOCA_v2_lr_mse_20" / folder
        here.mkdir(parents=True)
        records[folder] = numbers(EMOCA | {"cam": 3})
        for name, values in records[folder].items():
            np.save(here / f"{name}.npy", np.array(values, np.float32))
    lines: list[str] = []
    counts = import_codes(samples, "emoca-npy", tmp_path / "out", tmp_path / "a.h5", notify=lines.append)
    assert counts == {"ok": 3, "failed": 3}
    assert any("one character are left out" in line and line.endswith("(4)") for line in lines)
    assert any("1 name of several images left out" in line and "5" in line for line in lines)
    with CodeStore(tmp_path / "a.h5") as store:
        assert np.allclose(store.codes("jaw")[row(store, "sad/3")], records["300"]["pose"][3:])
        assert np.allclose(store.codes("camera")[row(store, "happy/1")], records["100"]["cam"])


def test_emicas_folders_of_inferno(ig3d: Callable[..., Ended], tmp_path: Path, samples: Listing) -> None:
    widths = {"exp": 100, "shape": 300, "tex": 50, "globalpose": 3, "jawpose": 3, "cam": 3, "lightcode": 27}
    records = {}
    for folder in ("100", "300"):
        here = tmp_path / "out" / folder
        here.mkdir(parents=True)
        records[folder] = numbers(widths)
        for name, values in records[folder].items():
            np.save(here / f"{name}.npy", np.array(values, np.float32))
    root, out = samples.root, tmp_path / "a.h5"
    ended = ig3d("import", root, "--from", "emica-npy", "--codes", tmp_path / "out", "--out", out)
    assert ended.returncode == 0, ended.stderr
    with CodeStore(out) as store:
        assert store.info.regressor["name"] == "emica"
        assert {name: block.width for name, block in store.blocks.items()} == {
            "expression": 100, "shape": 300, "camera": 3, "texture": 50, "light": 27, "pose": 3, "jaw": 3,
        }  # fmt: skip
        there = row(store, "sad/3")
        assert np.allclose(store.codes("pose")[there], records["300"]["globalpose"])
        assert np.allclose(store.codes("jaw")[there], records["300"]["jawpose"])
        assert store.blocks["expression"].basis == "flame-2020" and store.blocks["jaw"].unit == "rad"


def test_npy_that_holds_objects_is_not_unpickled(tmp_path: Path, samples: Listing) -> None:
    here = tmp_path / "out" / "100"
    here.mkdir(parents=True)
    np.save(here / "exp.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(DatasetError, match=r"1 row without valid codes.*Object arrays"):
        import_codes(samples, "emoca-npy", tmp_path / "out", tmp_path / "a.h5")


def test_csv_with_columns_in_order(tmp_path: Path, samples: Listing) -> None:
    values = RNG.normal(size=(3, 334)).astype(np.float32)
    frame = pd.DataFrame(values, columns=[f"c{i}" for i in range(334)])
    for place, (name, column) in enumerate(
        (("number", ["3", "1", "9"]), ("exp", [0, 1, 2]), ("val", [0.0] * 3))
    ):
        frame.insert(place, name, column)
    frame.to_csv(tmp_path / "codes.csv", index=False)
    columns = "expression:50,pose:3,jaw:3,texture:50,detail:128,shape:100"
    import_codes(samples, "csv", tmp_path / "codes.csv", tmp_path / "a.h5", columns=columns)
    with CodeStore(tmp_path / "a.h5") as store:
        assert np.allclose(store.codes("expression")[row(store, "sad/3")], values[0, :50])
        assert np.allclose(store.codes("shape")[row(store, "happy/1")], values[1, 234:])
        assert store.ok.sum() == 2


def test_status_and_message_of_rows_without_codes_are_imported(tmp_path: Path, samples: Listing) -> None:
    """A status decides, also beside codes: a word for neither is a failure."""
    (tmp_path / "codes.csv").write_text(
        'id,status,message,pose:0\nhappy/1,no_face,NA,\nhappy/2,"odd",why,\nsad/3,no_face,,0.5\nsad/4,ok,,1\n'
    )
    import_codes(samples, "csv", tmp_path / "codes.csv", tmp_path / "a.h5")
    with CodeStore(tmp_path / "a.h5") as store:
        assert store.verify() == []
        lines = zip(store.samples.id, store.status, store.messages, strict=True)
        assert {name: (status, message) for name, status, message in lines} == {
            "happy/1": (Status.no_face, "NA"),
            "happy/2": (Status.failed, "why"),
            "sad/3": (Status.no_face, ""),
            "sad/4": (Status.ok, ""),
        }


def test_an_id_that_reads_as_an_empty_cell_is_an_id(tmp_path: Path) -> None:
    for name in ("NA.jpg", "null.jpg"):
        write_image(tmp_path / "data" / "happy" / name)
    (tmp_path / "codes.csv").write_text("image,pose:0\nNA,1\nnull,2\n")
    samples = list_samples(tmp_path / "data", "folder")
    assert import_codes(samples, "csv", tmp_path / "codes.csv", tmp_path / "a.h5") == {"ok": 2}


@pytest.mark.parametrize(
    ("kind", "content", "columns", "message"),
    [
        pytest.param(
            "csv", "id,expression:0\nnowhere,1\n", None, "matches the id or file name of any", id="no-id-fits"
        ),
        pytest.param("csv", "a,b\n1,2\n", None, "no column id", id="no-id-column"),
        pytest.param("csv", "id,a,b\n1,2,3\n", None, "--columns", id="no-names"),
        pytest.param("csv", "id,a,b\n1,2,3\n", "pose:3", "sum to 3, but 2 columns", id="widths"),
        pytest.param("csv", "id,a,b\n1,2,3\n", "pose", "block:WIDTH", id="form"),
        pytest.param("xml", "", None, "use --from smirk-json", id="kind"),
    ],
)
def test_imports_that_cannot_be(
    tmp_path: Path, samples: Listing, kind: str, content: str, columns: str | None, message: str
) -> None:
    (tmp_path / "codes.csv").write_text(content)
    with pytest.raises((DatasetError, UsageError), match=message):
        import_codes(samples, kind, tmp_path / "codes.csv", tmp_path / "a.h5", columns=columns)
    assert not (tmp_path / "a.h5").exists()


def test_files_of_two_regressors_are_refused(tmp_path: Path, samples: Listing) -> None:
    (tmp_path / "1.json").write_text(json.dumps(numbers(SMIRK)))
    (tmp_path / "2.json").write_text(json.dumps(numbers(SMIRK | {"shape_params": 100})))
    with pytest.raises(DatasetError, match="the width of shape differs between rows"):
        import_codes(samples, "smirk-json", tmp_path, tmp_path / "a.h5")


def test_damaged_and_infinite_rows_keep_their_place(tmp_path: Path, samples: Listing) -> None:
    (tmp_path / "1.json").write_text(json.dumps(numbers(SMIRK)))
    (tmp_path / "2.json").write_text('{"pose_params": [1, 2')
    (tmp_path / "3.json").write_text(json.dumps(numbers(SMIRK) | {"cam": [float("inf"), 0, 0]}))
    import_codes(samples, "smirk-json", tmp_path, tmp_path / "a.h5")
    with CodeStore(tmp_path / "a.h5") as store:
        assert store.ok.sum() == 1
        assert store.messages[row(store, "happy/2")].startswith("2.json: ")
        assert store.messages[row(store, "sad/3")] == "not finite: camera"


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_what_is_exported_is_what_was_stored(tmp_path: Path, suffix: str) -> None:
    root = colour_folder(tmp_path / "data", 6)
    write_image(root / "sad" / "black.png", (0, 0, 0))
    (root / "sad" / "gone.png").symlink_to("nowhere")
    (root / "sad" / "text.png").write_text('no picture, "at\nall"')
    samples = list_samples(root, "folder")
    extract_codes(samples, tmp_path / "a.h5", ExtractConfig(regressor=FAKE), jobs=1)
    out = tmp_path / "tables" / f"a{suffix}"
    with CodeStore(tmp_path / "a.h5") as store:
        assert export_store(store, out) == 15
        wanted = store.codes("colour")
        if suffix == ".npz":
            with np.load(out) as file:
                found = file["colour"]
                assert file["status"].tolist().count("no_face") == 1
                assert file["message"].tolist() == store.messages.tolist()
                assert file["label"].tolist() == [
                    store.info.classes[label] for label in store.samples.label.cat.codes
                ]
        else:
            frame = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
            found = frame[["colour:0", "colour:1", "colour:2"]].to_numpy(np.float32)
            assert frame["id"].tolist() == store.samples.id.tolist()
            assert frame["split"].tolist() == [
                ["train", "val", "test"][code] for code in store.samples.split.cat.codes
            ]
        assert np.array_equal(found, wanted, equal_nan=True)
        if suffix != ".npz":  # and in again
            import_codes(samples, "csv", out, tmp_path / "b.h5")
            with CodeStore(tmp_path / "b.h5") as again:
                assert np.array_equal(again.codes("colour"), wanted, equal_nan=True)
                assert sorted({*again.status}) == [
                    Status.ok, Status.no_face, Status.missing, Status.unreadable,
                ]  # fmt: skip
                assert again.status.tolist() == store.status.tolist()
                assert again.messages.tolist() == store.messages.tolist()


def test_import_and_export_as_commands(ig3d: Callable[..., Ended], tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 3)
    store, table = tmp_path / "a.h5", tmp_path / "a.csv"
    assert ig3d("extract", root, "--out", store, "--regressor", FAKE, "--jobs", 1).returncode == 0
    assert ig3d("export", store, "--csv", table, "--blocks", "colour").stdout == f"{table}: 6 rows\n"
    ended = ig3d("import", root, "--from", "csv", "--codes", table, "--out", tmp_path / "b.h5")
    assert ended.stdout == f"{tmp_path / 'b.h5'}: 6 rows (ok 6)\n"
    lines = table.read_text().splitlines(keepends=True)
    (tmp_path / "few.csv").write_text("".join(lines[:-1]))
    few = ("--codes", tmp_path / "few.csv", "--out", tmp_path / "d.h5")
    ended = ig3d("import", root, "--from", "csv", *few)
    assert "failed: 1 row (sad/0002): " in ended.stderr
    assert ig3d("export", store).returncode == 2
    assert "does not end in .csv" in ig3d("export", store, "--csv", tmp_path / "a.txt").stderr
    assert "no block 'jaw'" in ig3d("export", store, "--csv", table, "--blocks", "jaw").stderr
    ended = ig3d("import", root, "--from", "csv", "--codes", tmp_path / "no.csv", "--out", tmp_path / "c.h5")
    assert (ended.returncode, "does not exist" in ended.stderr) == (1, True)


def test_export_that_cannot_be(tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 3)
    extract_codes(list_samples(root, "folder"), tmp_path / "a.h5", ExtractConfig(regressor=FAKE), jobs=1)
    with CodeStore(tmp_path / "a.h5") as store:
        with pytest.raises(UsageError, match=r"ends in .csv, .parquet or .npz"):
            export_store(store, tmp_path / "a.xlsx")
        (tmp_path / "file").touch()
        with pytest.raises(RunError, match="is a file, not a folder"):
            export_store(store, tmp_path / "file" / "a.csv")
