"""A row is ok only if all of its blocks are finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import write_image

from ig3d.extract.fakes import FakeRegressor
from ig3d.features.store import CodeStore
from ig3d.features.values import Block, FaceBatch, Status


class TwoBlocks(FakeRegressor):
    """A second block, of which one value is not finite where the crop is pure green."""

    name = "two-blocks"
    blocks: ClassVar = {**FakeRegressor.blocks, "grey": Block(2, "1", "rgb", "Grey, twice.")}
    value = np.nan

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        colour = super().__call__(faces)["colour"]
        grey = np.repeat(colour.mean(axis=1, keepdims=True), 2, axis=1)
        grey[(colour == (0, 1, 0)).all(axis=1), 1] = self.value
        return {"colour": colour, "grey": grey}


class Backwards(TwoBlocks):
    """The blocks in the other order, and infinity."""

    blocks: ClassVar = dict(reversed(TwoBlocks.blocks.items()))
    value = np.inf


@pytest.mark.parametrize("regressor", ["TwoBlocks", "Backwards"])
def test_a_row_with_one_block_that_is_not_finite_failed(
    tmp_path: Path, ig3d: Callable[..., Any], regressor: str
) -> None:
    for name, colour in {"a": (200, 10, 30), "b": (0, 255, 0), "c": (255, 0, 0), "d": (9, 9, 90)}.items():
        write_image(tmp_path / "images" / "happy" / f"{name}.png", colour)
    out = tmp_path / "a.h5"
    ended = ig3d(
        *("extract", tmp_path / "images", "--out", out, "--jobs", 1),
        *("--regressor", f"test_extract_two_blocks:{regressor}"),
    )
    assert ended.returncode == 0 and "ok 2" in ended.stdout and "failed 2" in ended.stdout, ended
    with CodeStore(out) as store:
        assert store.status.tolist() == [Status.ok, Status.failed, Status.failed, Status.ok]
        assert "not finite: grey" in str(store.messages[1])
        for name in store.blocks:
            assert np.isnan(store.codes(name)[1:3]).all() and np.isfinite(store.codes(name)[[0, 3]]).all()
    assert ig3d("inspect", out, "--verify").returncode == 0
