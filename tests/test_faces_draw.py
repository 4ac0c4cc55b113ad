"""Sheets of faces: captions that are too long for their tile."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageDraw

from ig3d.faces.draw import Tile, sheet


def test_a_long_caption_keeps_the_end_of_the_id_and_the_start_of_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts: list[str] = []
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda self, place, text, *args, **options: texts.append(text)
    )
    caption = "a_folder_with_a_long_name/images#000123\nunreadable: not an image of any format that is read"
    sheet([Tile(np.zeros((40, 40, 3), np.uint8), caption, good=False)], side=120)
    assert len(texts) == 2
    assert texts[0].startswith("…") and texts[0].endswith("#000123")
    assert texts[1].startswith("unreadable: not") and texts[1].endswith("…")
