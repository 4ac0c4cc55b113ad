"""Sheets of faces: captions that are too long for their tile, and contours."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageDraw

from ig3d.faces.draw import Tile, sheet


def test_long_ids_keep_their_end_and_long_reasons_are_wrapped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts: list[str] = []
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda self, place, text, *args, **options: texts.append(text)
    )
    title, caption = (
        "a_folder_with_a_long_name/images#000123",
        "unreadable: not an image of any format that is read",
    )
    sheet([Tile(np.zeros((40, 40, 3), np.uint8), title, caption, good=False)], side=120)
    assert texts[0].startswith("…") and texts[0].endswith("#000123")
    assert len(texts) > 2 and " ".join(texts[1:]) == caption
    texts.clear()
    sheet([Tile(None, "1", "unreadable: " + 100 * "no image ", good=False)], side=120)
    assert len(texts) == 5 and texts[-1].endswith(" …")
