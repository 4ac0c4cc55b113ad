"""What a damaged or half copied dataset loses is refused or counted, never silent and never a wrong label."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import write_image

from ig3d.errors import DatasetError
from ig3d.extract.datasets import list_samples
from ig3d.features.values import SampleList


def said(samples: SampleList) -> str:
    return "\n".join(samples.notes)


# fer2013 and ferplus

USAGES = ("Training",) * 3 + ("PublicTest",) * 2 + ("PrivateTest",)


def fer_tables(root: Path, *, by_row: bool = True) -> tuple[list[str], list[str]]:
    """Lines of both tables: row k is of class k; row 1 is no face and has no name."""
    pixels, votes, named = ["emotion,pixels,Usage"], ["Usage,Image name,a,b,c,d,e,f,g,h,i,j"], 0
    for row, usage in enumerate(USAGES):
        name = "" if row == 1 else f"fer{row if by_row else named:07d}.png"
        named += row != 1
        pixels.append(f"0,{' '.join([str(row)] * 2304)},{usage}")
        votes.append(
            f"{usage},{name},{','.join('9' if k == (9 if row == 1 else row) else '0' for k in range(10))}"
        )
    (root / "fer2013.csv").write_text("\n".join(pixels))
    return pixels, votes


@pytest.mark.parametrize("by_row", [True, False])
def test_ferplus_names_count_rows_or_named_rows(tmp_path: Path, by_row: bool) -> None:
    _, votes = fer_tables(tmp_path, by_row=by_row)
    (tmp_path / "fer2013new.csv").write_text("\n".join(votes))
    assert list_samples(tmp_path, "ferplus").labels.tolist() == [0, -1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((0, 1, 3, 4, 5), "as many rows of votes in fer2013new.csv as of pixels in .*, got 5 and 6"),
        ((2, 1, 0, 3, 4, 5), "got 'fer0000002.png' in row 0"),
        ((5, 1, 2, 3, 4, 0), "one Usage for each row .* others in 2 rows \\(0, 5\\)"),
    ],
)
def test_ferplus_votes_cut_or_sorted_are_no_labels_of_other_pixels(
    tmp_path: Path, order: tuple[int, ...], message: str
) -> None:
    _, votes = fer_tables(tmp_path)
    (tmp_path / "fer2013new.csv").write_text("\n".join([votes[0], *(votes[1 + row] for row in order)]))
    with pytest.raises(DatasetError, match=message):
        list_samples(tmp_path, "ferplus")


def test_ferplus_images_without_votes_are_counted(tmp_path: Path) -> None:
    for folder, names in (("FER2013Train", ("fer0000000", "fer0000001")), ("FER2013Test", ("fer0000002",))):
        for name in names:
            write_image(tmp_path / folder / f"{name}.png")
    (tmp_path / "FER2013Train" / "label.csv").write_text(
        'fer0000000.png,"(0, 0, 48, 48)",9,0,0,0,0,0,0,0,0,0'
    )
    notes = said(list_samples(tmp_path, "ferplus"))
    assert "WARNING FER2013Train: 1 image left out, without votes: fer0000001.png" in notes
    assert "WARNING FER2013Test: 1 image left out, without label.csv" in notes
    (tmp_path / "fer2013new.csv").write_text("head\nTraining,fer0000000.png,9,0,0,0,0,0,0,0,0,0\n")
    notes = said(list_samples(tmp_path, "ferplus"))
    assert "WARNING FER2013Test: 1 image left out, without votes: FER2013Test/fer0000002.png" in notes


def test_a_table_of_pixels_without_header_is_a_short_line(tmp_path: Path) -> None:
    lines, _ = fer_tables(tmp_path)
    (tmp_path / "fer2013.csv").write_text("\n".join(lines[1:]))
    with pytest.raises(DatasetError, match=r"in the first line of .*got 0, 0 0 0") as refused:
        list_samples(tmp_path, "fer2013")
    assert len(str(refused.value)) < 400 + len(str(tmp_path))
