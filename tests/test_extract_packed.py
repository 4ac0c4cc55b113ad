"""Datasets in containers: WebDataset's tars, Hugging Face's Parquet, zips of class folders; here and at an address."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FAKE, Ended, colour_folder, write_image
from listed import samples_of

from ig3d.errors import DatasetError, MissingExtra, UsageError
from ig3d.extract import sources
from ig3d.extract.config import ExtractConfig
from ig3d.extract.datasets import DatasetOptions, list_samples
from ig3d.extract.run import extract_codes
from ig3d.extract.sources import read_content, storage
from ig3d.features.samples import Listing, Split
from ig3d.features.store import CodeStore
from ig3d.features.values import Status

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

CONFIG = ExtractConfig(regressor=FAKE, batch_size=8)


@pytest.fixture
def images(tmp_path: Path) -> dict[str, bytes]:
    """Path under the root -> bytes, of a folder of colours with the classes happy and sad."""
    root = colour_folder(tmp_path / "plain", 12)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.png"))}


def tar_of(path: Path, files: dict[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            raw = content.encode() if isinstance(content, str) else content
            entry.size = len(raw)
            tar.addfile(entry, io.BytesIO(raw))
    return path


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def hugging_face(path: Path, images: dict[str, bytes], names: list[str], **columns: list[object]) -> Path:
    """A file as the datasets library writes it: a struct of bytes and path, a ClassLabel in the metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": content, "path": name} for name, content in images.items()]
    table = pa.table(
        {
            "image": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": [names.index(name.split("/")[0]) for name in images],
            **columns,
        }
    )
    about = {
        "info": {"features": {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}}
    }
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(about)}), path, row_group_size=5)
    return path


def codes(samples: Listing, out: Path, *, by: Callable[[str], str] = str) -> dict[str, list[float]]:
    """Id -> codes of a dataset whose images are all good."""
    extract_codes(samples, out, CONFIG, jobs=1)
    with CodeStore(out) as store:
        assert store.ok.all()
        return dict(zip(map(by, store.samples.id.tolist()), store.codes("colour").tolist(), strict=True))


def about(samples: Listing) -> dict[str, tuple[str, str]]:
    return {
        s.id: (samples.classes[s.label] if s.label >= 0 else "", s.split.name) for s in samples_of(samples)
    }


def test_a_zip_is_the_folder_it_was_made_from(tmp_path: Path, images: dict[str, bytes]) -> None:
    plain = list_samples(tmp_path / "plain", "folder")
    zip_of(tmp_path / "z" / "faces.zip", {f"faces/{name}": content for name, content in images.items()})
    for root in (tmp_path / "z", tmp_path / "z" / "faces.zip"):
        packed = list_samples(root, "zip")
        assert packed.classes == plain.classes
        assert {"faces/" + s.id: s.label for s in samples_of(plain)} == {
            s.id: s.label for s in samples_of(packed)
        }
        assert [s.size_bytes for s in samples_of(packed)] == [s.size_bytes for s in samples_of(plain)]
    assert samples_of(packed)[0].path == "faces.zip!faces/happy/0000.png"
    assert codes(packed, tmp_path / "z.h5") == {
        f"faces/{id}": values for id, values in codes(plain, tmp_path / "p.h5").items()
    }


@pytest.mark.parametrize(
    "layout",
    [
        {"train.zip": "happy/", "test.zip": "happy/"},
        {"train.zip": "train/happy/", "test.zip": "test/happy/"},
        {"all.zip": ("train/happy/", "test/happy/")},
        {"all.zip": ("data/train/happy/", "data/test/happy/")},
        {"train/happy.zip": "", "test/happy.zip": ""},
    ],
)
def test_zips_of_splits_and_classes(
    tmp_path: Path, images: dict[str, bytes], layout: dict[str, object]
) -> None:
    content = next(iter(images.values()))
    for name, inside in layout.items():
        folders = inside if isinstance(inside, tuple) else (inside,)
        zip_of(tmp_path / "z" / name, {f"{folder}{i}.png": content for folder in folders for i in range(2)})
    samples = list_samples(tmp_path / "z", "zip")
    assert samples.classes == ("happy",)
    assert sorted(s.split.name for s in samples_of(samples)) == ["test", "test", "train", "train"]


def test_zips_of_classes_and_what_is_no_class(tmp_path: Path, images: dict[str, bytes]) -> None:
    content = next(iter(images.values()))
    zip_of(tmp_path / "z" / "happy.zip", {"a.png": content, "__MACOSX/._a.png": b"", ".hidden/a.png": b""})
    zip_of(tmp_path / "z" / "sad.zip", {"deep/a.png": content, "readme.txt": b""})
    assert about(list_samples(tmp_path / "z", "zip")).keys() == {"happy/a", "sad/deep/a"}
    zip_of(tmp_path / "z" / "train.zip", {"happy/a.png": content})
    with pytest.raises(DatasetError, match=r"split folders \(train\) beside other folders \(happy, sad\)"):
        list_samples(tmp_path / "z", "zip")


def test_of_members_of_one_name_the_last_is_taken_as_it_is_unpacked(
    tmp_path: Path, images: dict[str, bytes]
) -> None:
    first, second, third = list(images.values())[:3]
    path = zip_of(tmp_path / "z" / "a.zip", {"happy/a.png": first, "sad/b.png": second})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("happy/a.png", third + b"longer")
    samples = list_samples(tmp_path / "z", "zip")
    assert [(s.id, s.size_bytes) for s in samples_of(samples)] == [
        ("happy/a", len(third) + 6),
        ("sad/b", len(second)),
    ]
    assert read_content(f"{samples.root}/{samples_of(samples)[0].path}") == third + b"longer"
    note = "WARNING a.zip: 1 name given to several images, of which the last is taken: happy/a.png"
    assert note in samples.notes


def test_webdataset_reads_classes_by_number_name_and_json(tmp_path: Path, images: dict[str, bytes]) -> None:
    content = next(iter(images.values()))
    root = tmp_path / "w"
    tar_of(
        root / "faces-train-000000.tar",
        {"a/01.jpg": content, "a/01.cls": "1", "a/02.jpg": content, "a/02.cls": "0\n"},
    )
    tar_of(root / "faces-val-000000.tar", {"01.cls": "0", "01.png": content, "02.webp": content})
    (root / "classes.txt").write_text("sad\nhappy\n")
    samples = list_samples(root, "webdataset")
    assert samples.classes == ("sad", "happy")
    assert about(samples) == {
        "faces-train-000000/a/01": ("happy", "train"),
        "faces-train-000000/a/02": ("sad", "train"),
        "faces-val-000000/01": ("sad", "val"),
        "faces-val-000000/02": ("", "val"),
    }
    assert samples_of(samples)[0].path == "faces-train-000000.tar!a/01.jpg"
    assert samples_of(samples)[0].size_bytes == len(content)


def test_webdataset_json_may_have_every_column(tmp_path: Path, images: dict[str, bytes]) -> None:
    content = next(iter(images.values()))
    fields = {
        "label": "Happiness",
        "split": "test",
        "valence": 0.5,
        "arousal": -0.25,
        "group": "p7",
        "box": [1, 2, 9, 8],
    }
    tar_of(
        tmp_path / "w" / "0.tar",
        {
            "a.png": content,
            "a.json": json.dumps(fields),
            "b.png": content,
            "b.txt": "sad",
            "b.json": '{"split": "train"}',
        },
    )
    samples = list_samples(tmp_path / "w", "webdataset")
    first, second = samples_of(samples)
    assert (samples.classes, first.label, second.label) == (("happy", "sad"), 0, 1)
    assert (first.valence, first.arousal, first.group, first.box) == (0.5, -0.25, "p7", (1, 2, 9, 8))
    assert (first.split, second.split, second.box) == (Split.test, Split.train, None)


def test_webdataset_codes_are_those_of_the_files(tmp_path: Path, images: dict[str, bytes]) -> None:
    names = list(images)
    for number in range(3):
        part = names[number::3]
        files: dict[str, bytes | str] = {}
        for name in part:
            key = name.replace("/", "_").removesuffix(".png")
            files |= {f"{key}.png": images[name], f"{key}.txt": name.split("/")[0]}
        tar_of(tmp_path / "w" / f"{number:03d}.tar", files)
    packed = codes(
        list_samples(tmp_path / "w", "webdataset"), tmp_path / "w.h5", by=lambda id: id.split("/")[-1]
    )
    plain = codes(
        list_samples(tmp_path / "plain", "folder"), tmp_path / "p.h5", by=lambda id: id.replace("/", "_")
    )
    assert packed == plain


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": "x"}, "no images in"),
        ({"a.png": b"x", "a.json": "[1]"}, r"0\.tar!a\.json is not a JSON object"),
        ({"a.png": b"x", "a.cls": b"\xff\xfe"}, r"0\.tar!a\.cls is not text"),
        ({"a.png": b"x", "a.json": '{"valence": 3}'}, "use valence in"),
        ({"a.png": b"x", "a.json": '{"box": [5, 5, 1, 1]}'}, "use boxes x0 < x1"),
        ({"a.png": b"x", "a.json": '{"split": "spare"}'}, "use split train"),
    ],
)
def test_odd_webdatasets_end_before_any_work(
    tmp_path: Path, files: dict[str, bytes | str], message: str
) -> None:
    tar_of(tmp_path / "w" / "0.tar", files)
    with pytest.raises(DatasetError, match=message):
        list_samples(tmp_path / "w", "webdataset")


def test_a_damaged_shard_is_reported_and_one_that_is_no_tar_refused(
    tmp_path: Path, images: dict[str, bytes]
) -> None:
    content = next(iter(images.values()))
    tar = tar_of(tmp_path / "w" / "0.tar", {"a.png": content, "b.png": content})
    raw = bytearray(tar.read_bytes())
    second = 512 + (len(content) + 511) // 512 * 512
    raw[second : second + 512] = b"x" * 512  # the second header
    tar.write_bytes(raw)
    samples = list_samples(tmp_path / "w", "webdataset")
    assert [s.id for s in samples_of(samples)] == ["0/a"]
    assert any("WARNING 0.tar is damaged; taken: 1 image up to the damage" in note for note in samples.notes)
    sound = tar_of(tmp_path / "w" / "0.tar", {"a.png": content, "b.png": content}).read_bytes()
    # cut between members, after the last, and between the two closing blocks
    for size, images_left in ((second, 1), (2 * second, 2), (2 * second + 512, 2)):
        tar.write_bytes(sound[:size])
        samples = list_samples(tmp_path / "w", "webdataset")
        damage = f"{images_left} image{'s' if images_left > 1 else ''} up to the damage (cut short after"
        assert len(samples) == images_left and any(damage in note for note in samples.notes)
        assert read_content(f"{tar}!a.png") == content
    tar.write_bytes(sound[: 2 * second + 1024])  # only the padding is missing: the tar is whole
    assert not any("WARNING" in note for note in list_samples(tmp_path / "w", "webdataset").notes)
    tar.write_bytes(b"no tar at all" * 100)
    with pytest.raises(DatasetError, match=r"0\.tar is a damaged tar file"):
        list_samples(tmp_path / "w", "webdataset")
    tar.unlink()
    with pytest.raises(DatasetError, match=r"no \.tar files in"):
        list_samples(tmp_path / "w", "webdataset")


@pytest.mark.parametrize(("kind", "second"), [("cls", "12"), ("json", '{"label": 12}'), ("txt", "sadness")])
def test_half_of_a_record_is_no_record(
    tmp_path: Path, images: dict[str, bytes], kind: str, second: str
) -> None:
    """The first byte of 12 is another label, and that of an object is no JSON."""
    content = next(iter(images.values()))
    files: dict[str, bytes | str] = {"a.png": content, f"a.{kind}": second, "b.png": content}
    tar = tar_of(tmp_path / "w" / "0.tar", files | {f"b.{kind}": second})
    whole = list_samples(tmp_path / "w", "webdataset")
    assert len(whole.classes) == 1 and whole.labels.tolist() == [0, 0]
    tar_of(tmp_path / "w" / "1.tar", files)
    image = 512 + (len(content) + 511) // 512 * 512
    start = 2 * image + 1024 + 512  # of the record of b
    raw = tar.read_bytes()
    assert raw[start:].startswith(second.encode())
    for there in (0, 1, len(second) - 1):
        tar.write_bytes(raw[: start + there])
        samples = list_samples(tmp_path / "w", "webdataset")
        assert samples.classes == whole.classes  # and those of the sound shard are in use
        assert {s.id: s.label for s in samples_of(samples)} == {"0/a": 0, "0/b": -1, "1/a": 0, "1/b": -1}
        assert any(
            f"0.tar is damaged; taken: 2 images up to the damage (cut short in b.{kind}" in note
            for note in samples.notes
        )


def test_a_tar_that_goes_on_after_its_end_is_reported(tmp_path: Path, images: dict[str, bytes]) -> None:
    content = next(iter(images.values()))
    first = tar_of(tmp_path / "1.tar", {"a.png": content}).read_bytes()
    second = tar_of(tmp_path / "2.tar", {"b.png": content}).read_bytes()
    tar = tmp_path / "w" / "0.tar"
    tar.parent.mkdir()

    def warned() -> bool:
        samples = list_samples(tar.parent, "webdataset")
        assert [s.id for s in samples_of(samples)] == ["0/a"]
        return any("WARNING 0.tar goes on after its end" in note for note in samples.notes)

    for padding in (b"", bytes(10240), bytes(3 << 20)):
        tar.write_bytes(first + padding)
        assert not warned()
        tar.write_bytes(first + padding + second)
        assert warned()


@pytest.mark.parametrize("packed", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_tars_are_recognised_by_content(
    tmp_path: Path, images: dict[str, bytes], packed: Callable[[bytes], bytes]
) -> None:
    content = next(iter(images.values()))
    raw = tar_of(tmp_path / "w" / "a.tar", {"a.png": content}).read_bytes()
    (tmp_path / "w" / "b.tar.gz").write_bytes(packed(raw))
    (tmp_path / "w" / "c.tar").write_bytes(packed(raw))
    samples = list_samples(tmp_path / "w", "webdataset")
    assert [s.id for s in samples_of(samples)] == ["a/a"]
    assert "WARNING 2 compressed files left out: b.tar.gz, c.tar; unpack" in samples.notes
    with pytest.raises(DatasetError, match=r"holds compressed files only \(c\.tar\), to be unpacked"):
        list_samples(tmp_path / "w" / "c.tar", "webdataset")


def test_hugging_faces_parquet(tmp_path: Path, images: dict[str, bytes]) -> None:
    names = list(images)
    for split, part in (("train", names[:15]), ("validation", names[15:])):
        hugging_face(
            tmp_path / "q" / "data" / f"{split}-00000-of-00001.parquet",
            {n: images[n] for n in part},
            ["sad", "happy"],
        )
    samples = list_samples(tmp_path / "q", "parquet")
    assert samples.classes == ("sad", "happy")
    assert [s.id for s in samples_of(samples)][:2] == [f"data/train-00000-of-00001/{i:02d}" for i in range(2)]
    assert samples_of(samples)[14].path == "data/train-00000-of-00001.parquet!14"
    assert [samples.classes[s.label] for s in samples_of(samples)] == [name.split("/")[0] for name in names]
    assert [s.split.name for s in samples_of(samples)] == ["train"] * 15 + ["val"] * 9
    packed = codes(samples, tmp_path / "q.h5")
    assert list(packed.values()) == list(
        codes(list_samples(tmp_path / "plain", "folder"), tmp_path / "p.h5").values()
    )


def test_parquet_columns_and_the_label_map(tmp_path: Path, images: dict[str, bytes]) -> None:
    part = dict(list(images.items())[:3])
    hugging_face(
        tmp_path / "q" / "a.parquet", part, ["x", "happy"], id=["u", "v", "w"], split=["train", "test", None],
        valence=[0.1, None, -2], group=["p", "q", ""], box=[[0, 0, 5, 5], None, [1.0, 1.0, 2.0, 2.0]], hair=[1, 2, 3],
    )  # fmt: skip
    samples = list_samples(tmp_path / "q" / "a.parquet", "parquet", DatasetOptions(label_map="1=joy"))
    assert (samples.root, samples.classes) == (str(tmp_path / "q"), ("happy",))
    assert [(s.id, s.split.name, s.group, s.box) for s in samples_of(samples)] == [
        ("u", "train", "p", (0, 0, 5, 5)),
        ("v", "test", "q", None),
        ("w", "none", "", (1, 1, 2, 2)),
    ]
    assert np.allclose([s.valence for s in samples_of(samples)], [0.1, np.nan, np.nan], equal_nan=True)
    assert "columns left unread: hair" in samples.notes


def test_parquet_without_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"label": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(DatasetError, match=r"parquet: no column of image bytes among label in a\.parquet"):
        list_samples(tmp_path, "parquet")
    (tmp_path / "a.parquet").write_bytes(b"PAR1" * 20)
    with pytest.raises(DatasetError, match="is a damaged parquet file"):
        list_samples(tmp_path, "parquet")


def test_a_manifest_may_list_members(tmp_path: Path, images: dict[str, bytes]) -> None:
    root = tmp_path / "m"
    zip_of(root / "faces.zip", images)
    write_image(root / "own.png")
    (root / "manifest.csv").write_text(
        "path,label\nfaces.zip!happy/0000.png,happy\nown.png,sad\nfaces.zip!gone.png,sad\n"
    )
    samples = list_samples(root, "manifest")
    extract_codes(samples, tmp_path / "m.h5", CONFIG, jobs=1)
    with CodeStore(tmp_path / "m.h5") as store:
        assert dict(zip(store.samples.id, store.status, strict=True)) == {
            "faces.zip!happy/0000": Status.ok,
            "faces.zip!gone": Status.missing,
            "own": Status.ok,
        }


def test_an_address_is_read_as_the_folder(
    tmp_path: Path, images: dict[str, bytes], ig3d: Callable[..., Ended]
) -> None:
    storage = pytest.importorskip("fsspec").filesystem("memory")
    storage.pipe({f"/packed/plain/{name}": content for name, content in images.items()})
    zipped = zip_of(tmp_path / "faces.zip", images)
    storage.pipe("/packed/zips/faces.zip", zipped.read_bytes())
    plain = codes(list_samples(tmp_path / "plain", "folder"), tmp_path / "p.h5")
    assert codes(list_samples("memory://packed/plain", "folder"), tmp_path / "a.h5") == plain
    assert codes(list_samples("memory://packed/zips", "zip"), tmp_path / "b.h5") == plain
    ended = ig3d(
        "extract", "memory://packed/zips/faces.zip", "--dataset", "zip", "--out", tmp_path / "c.h5",
        "--regressor", FAKE, "--jobs", 1,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout.split(":")[1].strip()) == (0, "24 rows (ok 24)")
    with CodeStore(tmp_path / "c.h5") as store:
        assert store.info.root == "memory://packed/zips"
    with pytest.raises(UsageError, match=r"rafdb: cannot be read from a remote address .memory://packed"):
        list_samples("memory://packed", "rafdb")
    with pytest.raises(DatasetError, match="no images in class folders"):
        list_samples("memory://nothing", "folder")
    with pytest.raises(DatasetError, match=r"zip: memory://packed/none\.zip no longer exists"):
        list_samples("memory://packed/none.zip", "zip")
    with pytest.raises((UsageError, MissingExtra), match="fsspec does not support this scheme"):
        list_samples("nosuchscheme://packed", "folder")


@pytest.mark.parametrize("kind", ["webdataset", "zip", "parquet"])
def test_an_archive_is_indexed_once_for_listing_and_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    image = write_image(tmp_path / "a.png").read_bytes()
    if kind == "webdataset":
        path, source = tmp_path / "train.tar", "archives.TarMembers"
        tar_of(path, {"0.png": image, "0.cls": b"1", "1.png": image, "1.cls": b"0"})
    elif kind == "zip":
        path, source = tmp_path / "train.zip", "archives.ZipMembers"
        zip_of(path, {"happy/0.png": image, "sad/1.png": image})
    else:
        path, source = tmp_path / "train.parquet", "parquet.ParquetRows"
        hugging_face(path, {"happy/0.png": image, "sad/1.png": image}, ["happy", "sad"])
    module = import_module("ig3d.extract.sources." + source.partition(".")[0])
    cls = getattr(module, source.partition(".")[2])
    really_index, indexed = cls.__init__, []

    def counted(self: Any, file: Any) -> None:
        indexed.append(file.name)
        really_index(self, file)

    monkeypatch.setattr(cls, "__init__", counted)
    listing = list_samples(path, kind)
    assert [read_content(f"{listing.root}/{sample}") for sample in listing.samples["path"]] == [image] * 2
    assert indexed == [path.name]


@pytest.mark.parametrize("kind", ["webdataset", "zip", "parquet"])
def test_an_error_of_the_disk_while_listing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    image = write_image(tmp_path / "a.png").read_bytes()
    suffix = {"webdataset": "tar"}.get(kind, kind)
    path = tmp_path / f"a.{suffix}"
    if kind == "parquet":
        hugging_face(path, {"happy/0.png": image, "sad/1.png": image}, ["happy", "sad"])
    else:
        {"tar": tar_of, "zip": zip_of}[suffix](
            path, {"happy/0": image, "happy/0.txt": b"happy", "sad/1": image}
        )
    really_read, reads, at = storage._pread, 0, 0

    def flaky(*where: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads == at:
            raise OSError(errno.EIO, "Input/output error")
        return really_read(*where)

    monkeypatch.setattr(storage, "_pread", flaky)
    for at in range(1, 100):
        sources._open.cache_clear()
        reads = 0
        try:
            list_samples(path, kind)
        except DatasetError as exc:
            assert str(exc) == f"{kind}: a.{suffix} could not be read: Input/output error; run it again"
        if reads < at:
            break
    assert 2 < at < 99
