"""Tables of other programs: manifests, splits and codes are read alike, and nothing is taken for what it is not."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Ended, write_image
from listed import samples_of

from ig3d.errors import DatasetError, UsageError
from ig3d.extract.datasets import DatasetOptions, list_samples
from ig3d.extract.datasets.splits import apply_split
from ig3d.extract.imports import import_codes
from ig3d.features.samples import Split
from ig3d.features.store import CodeStore
from ig3d.features.values import Status

ROWS = [
    (f"im/{row}.png", ("happy", "sad", "fear")[row % 3], "train" if row < 6 else "test") for row in range(12)
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path, _, _ in ROWS:
        write_image(tmp_path / "data" / path)
    return tmp_path / "data"


def text(rows=ROWS, header="path,label,split", mark=",") -> str:
    lines = [header, *(",".join(row) for row in rows)]
    return "".join(line.replace(",", mark) + "\n" for line in lines)


def renamed(change) -> str:
    return text([(change(path), label, split) for path, label, split in ROWS])


MANIFESTS = {
    "bom": lambda root: text().encode("utf-8-sig"),
    "utf-16": lambda root: text().encode("utf-16"),
    "semicolons": lambda root: text(mark=";").encode("utf-8-sig"),
    "tabs": lambda root: text(mark="\t").encode(),
    "crlf": lambda root: text().replace("\n", "\r\n").encode(),
    "cr": lambda root: text().replace("\n", "\r").encode(),
    "gzip": lambda root: gzip.compress(text().encode()),
    "comment": lambda root: b"# made by me\n" + text().encode(),
    "blank lines": lambda root: text().replace("\n", "\n\n").encode(),
    "index": lambda root: "".join(
        f"{'' if n == 0 else n - 1},{line}\n" for n, line in enumerate(text().splitlines())
    ).encode(),
    "backslashes": lambda root: renamed(lambda path: path.replace("/", "\\")).encode(),
    "dots": lambda root: renamed(lambda path: "./" + path).encode(),
    "blanks": lambda root: renamed(lambda path: f" {path} ").encode(),
    "absolute": lambda root: renamed(lambda path: f"{root}/{path}").encode(),
    "another machine": lambda root: renamed(lambda path: f"/home/me/data/{path}").encode(),
    "windows": lambda root: renamed(lambda path: "D:\\me\\data\\" + path.replace("/", "\\")).encode(),
    "no suffix": lambda root: renamed(lambda path: path.removesuffix(".png")).encode(),
    "other case": lambda root: renamed(lambda path: path.replace("png", "PNG")).encode(),
    "names": lambda root: text(header="Img_Path,Emotion,Usage").encode(),
    "image name": lambda root: text(header="Image Name,LABEL, Split ").encode(),
    "fer": lambda root: (
        text(header="filepath,class,usage")
        .replace(",train", ",Training")
        .replace(",test", ",PrivateTest")
        .encode()
    ),
    "single quotes": lambda root: renamed(lambda path: f"'{path}'").encode(),
    "unknown name": lambda root: text(header="foto,label,split").encode(),
}


@pytest.mark.parametrize("form", MANIFESTS)
def test_a_manifest_reads_the_same_however_it_was_saved(root: Path, form: str) -> None:
    (root / "m.csv").write_bytes(MANIFESTS[form](root))
    samples = list_samples(root, "manifest", DatasetOptions(manifest=str(root / "m.csv")))
    assert [sample.path.casefold() for sample in samples_of(samples)] == sorted(path for path, _, _ in ROWS)
    assert all(sample.size_bytes > 0 for sample in samples_of(samples))
    assert {
        (sample.id, samples.classes[sample.label], sample.split.name) for sample in samples_of(samples)
    } == {(path.removesuffix(".png"), label, split) for path, label, split in ROWS}


def test_float_labels_are_numbers(root: Path) -> None:
    for cells in ("0.0 1.0 2.0", "0 1 2"):
        rows = [(path, cells.split()[n % 3], split) for n, (path, _, split) in enumerate(ROWS)]
        (root / "manifest.csv").write_text(text(rows))
        options = DatasetOptions(label_map="0=happy,1=sad,2=fear")
        samples = list_samples(root, "manifest", options)
        assert samples.classes == ("happy", "sad", "fear")
        assert samples_of(samples)[0].label == 0


def test_a_manifest_without_files_warns_with_the_full_path(ig3d: Callable[..., Ended], root: Path) -> None:
    (root / "manifest.csv").write_text("path,label,split\nfaces/0.png,happy,train\nfaces/1.png,sad,train\n")
    samples = list_samples(root, "manifest")
    assert any(
        f"{root / 'faces/0.png'} does not exist, nor does any other of the 2 files" in note
        for note in samples.notes
    )
    ended = ig3d("split", root, "--dataset", "manifest", "--out", root / "split.csv")
    assert ended.returncode == 1 and "faces/0.png" in ended.stderr and not (root / "split.csv").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (text().replace("sad", "sad,too"), "has 4 cells, the header has 3"),
        (text().replace(",sad", ""), "has 2 cells, the header has 3"),
        (text(header="path,label,label"), "several columns are named label"),
        (
            text(ROWS, header="im/9.png,sad,test"),
            "add a header line|the header has 3|no column path|no header line",
        ),
        (text().replace("im/3.png", ""), "empty"),
        ('[{"path": "im/0.png"}]', "is JSON"),
        (text().replace(",test", ",third"), "'third'"),
    ],
)
def test_a_bad_manifest_is_one_clear_line(root: Path, content: str, message: str) -> None:
    (root / "manifest.csv").write_text(content)
    with pytest.raises(DatasetError, match=message) as refusal:
        list_samples(root, "manifest")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_split_table_joins_by_path_and_in_any_form(root: Path, tmp_path: Path, mark: str) -> None:
    (root / "manifest.csv").write_text(text())
    lines = [
        "Image Name,number,Usage",
        *(f"{path},{n},{'Training' if n else 'dev'}" for n, (path, _, _) in enumerate(ROWS)),
    ]
    table = tmp_path / "split.tsv"
    table.write_bytes("".join(line.replace(",", mark) + "\r\n" for line in lines).encode("utf-8-sig"))
    samples = list_samples(root, "manifest", DatasetOptions(split_table=str(table)))
    assert {sample.id: sample.split for sample in samples_of(samples)} == {
        path.removesuffix(".png"): Split.train if n else Split.val for n, (path, _, _) in enumerate(ROWS)
    }


@pytest.mark.parametrize("labels", ["²", "9" * 5000, "1²"])
def test_odd_digits_are_names(root: Path, labels: str) -> None:
    (root / "manifest.csv").write_text(
        text([(path, labels if n else "1", split) for n, (path, _, split) in enumerate(ROWS)])
    )
    for label_map in (None, "1=happy"):
        try:
            samples = list_samples(root, "manifest", DatasetOptions(label_map=label_map))
        except UsageError as refusal:
            assert "has no class for" in str(refusal)
        else:
            assert len(samples.classes) == 2


def test_forty_thousand_labels_are_refused_at_once(root: Path) -> None:
    rows = [("im/0.png", f"name {n}", "train") for n in range(40_000)]
    lines = ["id,path,label,split", *(f"{n},{','.join(row)}" for n, row in enumerate(rows))]
    (root / "manifest.csv").write_text("\n".join(lines))
    with pytest.raises(DatasetError, match="40000 different"):
        list_samples(root, "manifest")


# codes


def imported(
    root: Path, tmp_path: Path, content: str | bytes, columns: str | None = None
) -> tuple[dict, list[str], CodeStore]:
    (root / "manifest.csv").write_text(text())
    (tmp_path / "c.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    samples, notes = list_samples(root, "manifest"), []
    (tmp_path / "o.h5").unlink(missing_ok=True)
    counts = import_codes(
        samples, "csv", tmp_path / "c.csv", tmp_path / "o.h5", columns=columns, notify=notes.append
    )
    return counts, notes, CodeStore(tmp_path / "o.h5")


def test_columns_are_placed_by_their_numbers(root: Path, tmp_path: Path) -> None:
    header = sorted([f"expression:{n}" for n in range(12)] + [f"code:pose:{n}" for n in range(3)])
    value = {name: float(name.rpartition(":")[2]) for name in header}
    lines = [",".join(["filename", *header, "extra"])]
    lines += [",".join([path, *(str(value[name]) for name in header), "x"]) for path, _, _ in ROWS]
    counts, notes, store = imported(root, tmp_path, "\n".join(lines))
    with store:
        assert counts == {"ok": 12}
        assert store.codes("expression")[5].tolist() == list(range(12))
        assert store.codes("pose")[5].tolist() == [0, 1, 2]
    assert any("not used: extra" in note for note in notes)


def test_columns_that_are_named_by_width_are_placed_by_their_numbers(root: Path, tmp_path: Path) -> None:
    header = [*sorted(f"exp_{n}" for n in range(12)), *sorted(f"p{n}" for n in range(1, 12))]
    lines = [",".join(["input", *header])]
    lines += [",".join([path, *(name.strip("exp_") for name in header)]) for path, _, _ in ROWS]
    for columns in ("expression:12,pose:11", "pose:p*,expression:12"):
        _, _, store = imported(root, tmp_path, "\n".join(lines), columns)
        with store:
            assert store.codes("expression")[3].tolist() == list(range(12))
            assert store.codes("pose")[3].tolist() == list(range(1, 12))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("id,e:0,e:1,e:3", "missing between e:0 and e:3: e:2"),
        ("id,e:1,e:2,e:3", "missing between e:0 and e:3: e:0"),
        ("id,e:0,code:e:0,e:1", "both stand for e:0"),
        ("id,e:0,e:0,e:1", "several columns are named e:0"),
    ],
)
def test_numbers_of_columns_must_be_complete(root: Path, tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        imported(root, tmp_path, f"{header}\nim/0,1,2,3\n")


HEADER = "frame, face_id, timestamp, confidence, success, pose_Rx, pose_Ry, pose_Rz, AU01_r, AU02_r"


def tracked(key: str, mark: str = ", ", found=lambda n: (0.98, 1)) -> str:
    lines = [f"{key}, {HEADER}"]
    for n, (path, _, _) in enumerate(ROWS):
        confidence, success = found(n)
        codes = [n, n + 1, n + 2, n + 3, n + 4] if success and confidence > 0.5 else [0] * 5
        lines.append(", ".join(map(str, (path, n, 0, n / 30, confidence, success, *codes))))
    return "".join(line.replace(", ", mark) + "\n" for line in lines)


@pytest.mark.parametrize("key", ["filename", "image_path", "input", "name"])
@pytest.mark.parametrize("mark", [", ", ",", ";"])
@pytest.mark.parametrize(
    "columns",
    [
        "pose:3,expression:2",
        "frame:1,face_id:1,timestamp:1,confidence:1,success:1,pose:3,expression:2",
        "pose:pose_R*,expression:AU*_r",
    ],
)
def test_rows_in_which_a_tracker_found_no_face_have_no_codes(
    root: Path, tmp_path: Path, key: str, mark: str, columns: str
) -> None:
    found = lambda n: {2: (0.0, 0), 5: (0.9, 0), 7: (0.2, 1)}.get(n, (0.98, 1))  # noqa: E731
    counts, _, store = imported(root, tmp_path, tracked(key, mark, found), columns)
    with store:
        assert counts == {"ok": 9, "no_face": 3} and list(store.blocks) == ["pose", "expression"]
        row = store.samples.id.tolist().index("im/4")
        assert store.codes("pose")[row].tolist() == [4, 5, 6] and store.codes("expression")[row].tolist() == [
            7,
            8,
        ]
        assert store.status[store.samples.id.tolist().index("im/5")] == Status.no_face


def test_columns_can_be_left_out(root: Path, tmp_path: Path) -> None:
    _, notes, store = imported(root, tmp_path, tracked("input"), "-:3,expression:2")
    with store:
        assert list(store.blocks) == ["expression"] and np.isfinite(store.codes("expression")).all()
    assert any("3 columns not used: pose_Rx, pose_Ry, pose_Rz" in note for note in notes)
    with pytest.raises(UsageError, match=r"5 columns remain.*-:WIDTH"):
        imported(root, tmp_path, tracked("input"), "expression:2")


def test_a_table_without_any_face_is_refused_with_the_reason(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"12 of them no_face: success 0"):
        imported(root, tmp_path, tracked("input", found=lambda n: (0.0, 0)), "pose:3,expression:2")


def test_vertical_bars_separate_and_other_names_of_labels_are_known(root: Path) -> None:
    header = "image name,facial_expression,data split,Subject"
    lines = [
        header,
        *(f"{path},{label},{split},{row // 2:.1f}" for row, (path, label, split) in enumerate(ROWS)),
    ]
    (root / "manifest.csv").write_text("\n".join(lines).replace(",", "|"))
    samples = list_samples(root, "manifest", DatasetOptions())
    found = {
        sample.path: (samples.classes[sample.label], sample.split.name) for sample in samples_of(samples)
    }
    assert found == {path: (label, split) for path, label, split in ROWS}
    assert {sample.group for sample in samples_of(samples)} == set("012345")
    assert any("vertical bars" in note for note in samples.notes)


def test_a_split_table_is_joined_by_the_column_that_matches(root: Path, tmp_path: Path) -> None:
    (root / "manifest.csv").write_text(text())
    samples = list_samples(root, "manifest", DatasetOptions())
    lines = ["id,seen in,split", *(f"{row},{path},val" for row, (path, _, _) in enumerate(reversed(ROWS)))]
    (tmp_path / "split.csv").write_text("\n".join(lines))
    found = apply_split(samples, tmp_path / "split.csv")
    assert {sample.split for sample in samples_of(found)} == {Split.val}


def test_labels_in_a_split_table_are_no_ids(root: Path, tmp_path: Path) -> None:
    (root / "manifest.csv").write_text(text())
    (tmp_path / "split.csv").write_text("path,label,split\nv.mp4,sad,test\nv.mp4,happy,val\n")
    with pytest.raises(DatasetError, match=r"column path of .*split.csv has duplicate ids \(v.mp4\)"):
        list_samples(root, "manifest", DatasetOptions(split_table=str(tmp_path / "split.csv")))
    with pytest.raises(DatasetError, match=r"nix.csv does not exist; check the path"):
        list_samples(root, "manifest", DatasetOptions(manifest="nix.csv"))
    with pytest.raises(DatasetError, match=r"faces.csv does not exist; .*faces.csv exists: pass this path"):
        (root / "faces.csv").write_text(text())
        list_samples(root, "manifest", DatasetOptions(manifest="faces.csv"))


def test_paths_whose_folders_differ_in_case_are_resolved(root: Path) -> None:
    (root / "manifest.csv").write_text("path,label\nIM/0.PNG,happy\nim/1.png,sad\n")
    listing = list_samples(root, "manifest")
    assert listing.samples["path"].tolist() == ["im/0.png", "im/1.png"]
    assert any("1 path found under another spelling: IM/0.PNG is im/0.png" in note for note in listing.notes)
