"""Rows and members that are listed once and read later: both count alike, with anything between them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from listed import samples_of
from PIL import Image

from ig3d.errors import DatasetError
from ig3d.extract.datasets import list_samples
from ig3d.extract.read import Unavailable, read_image

USAGES = ("Training", "Training", "PublicTest", "PrivateTest", "Training", "PublicTest")


def row(number: int, *, quote: str = "", between: str = " ", delimiter: str = ",") -> str:
    """A row of fer2013.csv, whose pixels all have the value of its label."""
    pixels = quote + between.join([str(number)] * 16) + quote
    return delimiter.join([str(number), pixels, USAGES[number]])


HEADER = "emotion,pixels,Usage"
ROWS = [row(number) for number in range(6)]


def table(*lines: str, end: str = "\n") -> bytes:
    return (end.join(lines) + end).encode()


FORMS = {
    "plain": table(HEADER, *ROWS),
    "blank line": table(HEADER, ROWS[0], "", *ROWS[1:]),
    "blanks and tabs": table(HEADER, ROWS[0], " \t ", ROWS[1], "   ", *ROWS[2:]),
    "bare commas": table(HEADER, *ROWS[:3], ",,", ",", *ROWS[3:], ",,,,"),
    "bare quotes": table(HEADER, *ROWS[:3], '"","",""', *ROWS[3:]),
    "blank lines everywhere": b"\n\r\n" + table("", HEADER, "", *ROWS, "", "", "") + b"\r\n\n",
    "quoted newlines": table(HEADER, *(row(n, quote='"', between="\n" if n == 1 else " ") for n in range(6))),
    "quoted blank lines": table(HEADER, row(0, quote='"', between="\n\n"), "", *ROWS[1:]),
    "CRLF": table(HEADER, *ROWS[:2], "", *ROWS[2:], end="\r\n"),
    "CR": table(HEADER, *ROWS[:2], "", *ROWS[2:], end="\r"),
    "mixed ends": table(HEADER, ROWS[0]) + b"\r\n" + table(*ROWS[1:], end="\r\n"),
    "BOM": b"\xef\xbb\xbf" + table(HEADER, *ROWS[:2], "", *ROWS[2:]),
    "no last end": table(HEADER, "", *ROWS)[:-1],
    "semicolons": table(HEADER.replace(",", ";"), *(row(n, delimiter=";") for n in range(6)), ";;", ""),
    "float labels": table(HEADER, *(line.replace(",", ".0,", 1) for line in ROWS)),
    "form feed": table(HEADER, ROWS[0], "\f", *ROWS[1:]),
}


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_each_row_of_a_pixel_table_has_its_own_image(tmp_path: Path, form: str) -> None:
    (tmp_path / "fer2013.csv").write_bytes(FORMS[form])
    listed = list_samples(tmp_path, "fer2013")
    assert [sample.label for sample in samples_of(listed)] == list(range(6))
    for sample in samples_of(listed):
        pixels = read_image(f"{listed.root}/{sample.path}", size=sample.size_bytes).pixels
        assert pixels.shape == (4, 4, 3)
        assert (pixels == sample.label).all(), (sample.id, pixels[0, 0])


def test_large_images_of_a_table_are_read(tmp_path: Path) -> None:
    pixels = " ".join(["200"] * 300 * 300)
    (tmp_path / "fer2013.csv").write_text(f"emotion,pixels,Usage\n0,{pixels},Training\n1,1 2 3,Training\n")
    listed = list_samples(tmp_path, "fer2013")
    assert read_image(f"{listed.root}/{samples_of(listed)[0].path}").pixels.shape == (300, 300, 3)


def test_votes_are_those_of_the_row(tmp_path: Path) -> None:
    (tmp_path / "fer2013.csv").write_bytes(FORMS["bare commas"])
    votes = [[10 if place == n else 0 for place in range(10)] for n in range(6)]
    names = [f"fer{n:07d}.png" for n in range(6)]
    lines = [",".join(map(str, [USAGES[n], names[n], *votes[n]])) for n in range(6)]
    (tmp_path / "fer2013new.csv").write_text(
        "\n".join(["Usage,Image name,...", lines[0], "", *lines[1:], ",,,"])
    )
    listed = list_samples(tmp_path, "ferplus")
    for number, sample in enumerate(samples_of(listed)):
        assert sample.label == number
        assert (read_image(f"{listed.root}/{sample.path}").pixels == number).all()


@pytest.mark.parametrize(
    "content",
    [
        table(HEADER, *ROWS[:2], '3,"1 1', *ROWS[3:]),
        table(HEADER, ROWS[0], "3,1 1"),
        table("a,b", *ROWS),
        b"",
        b"\0\0",
    ],
    ids=["open quote", "few cells", "columns", "empty", "zeros"],
)
def test_odd_tables_are_refused_before_any_work(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fer2013.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=r"fer2013: .*fer2013\.csv"):
        list_samples(tmp_path, "fer2013")


def test_a_table_that_changes_after_it_was_listed_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "fer2013.csv").write_bytes(FORMS["plain"])
    listed = list_samples(tmp_path, "fer2013")
    (tmp_path / "fer2013.csv").write_bytes(table(HEADER, *ROWS[1:]))
    with pytest.raises(Unavailable, match="changed"):
        read_image(f"{listed.root}/{samples_of(listed)[0].path}", size=samples_of(listed)[0].size_bytes)


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 8), value).save(stream, "PNG")
    return stream.getvalue()


def test_members_of_one_name_are_listed_and_read_as_the_last(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    with tarfile.open(tmp_path / "w" / "a.tar", "w") as tar:
        for name, content in (
            ("x.png", png(1)), ("x.cls", b"1"), ("./y.png", png(0)), ("y.cls", b"0"), ("x.png", png(0)),
            ("x.cls", b"0"), ("y.png", png(1)), ("./y.cls", b"1"), ("z.png", png(1)), ("z.cls", b"1"),
        ):  # fmt: skip
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    listed = list_samples(tmp_path / "w", "webdataset")
    assert len(listed) == 3
    for sample in samples_of(listed):
        assert (read_image(f"{listed.root}/{sample.path}").pixels == sample.label).all(), sample.id

    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, value in (("0/x.png", 1), ("1\\y.png", 0), ("0/x.png", 0), ("1/y.png", 1)):
            archive.writestr(name, png(value))
    listed = list_samples(tmp_path / "a.zip", "zip")
    assert len(listed) == 2
    for sample in samples_of(listed):
        assert (
            read_image(f"{listed.root}/{sample.path}", size=sample.size_bytes).pixels == sample.label
        ).all()
    assert any("2 names given to several images" in note for note in listed.notes)


def test_rows_of_parquet_across_groups_and_empty_cells(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    labels = [n % 2 for n in range(100)]
    content = pyarrow.table(
        {"label": labels, "image": [None if n == 3 else png(labels[n]) for n in range(100)]}
    )
    parquet.write_table(content, tmp_path / "a.parquet", row_group_size=7)
    listed = list_samples(tmp_path, "parquet")
    for sample in reversed(list(samples_of(listed))):
        if not sample.path.endswith("!03"):
            assert (read_image(f"{listed.root}/{sample.path}").pixels == sample.label).all(), sample.id
