"""Reading a large store: it opens at once, and a block or a slice of rows is read without the rest."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from listed import Sample, table_of

from ig3d.errors import StoreError, UsageError
from ig3d.features.store import CodeStore
from ig3d.features.store.format import StoreInfo
from ig3d.features.store.writer import StoreWriter
from ig3d.features.values import Block, Rows, Status

ROWS, WIDTH = 3000, 300


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store whose block ``shape`` is damaged from its second chunk on."""
    blocks = {name: Block(WIDTH, "1", "made up", "numbers") for name in ("expression", "shape")}
    rows = Rows.pending(ROWS, blocks)
    rows.status[:] = Status.ok
    for values in rows.codes.values():
        values[:] = np.arange(ROWS)[:, None]
    samples = tuple(Sample(f"{row:05d}", f"{row:05d}.jpg") for row in range(ROWS))
    with StoreWriter(tmp_path / "a.h5", StoreInfo("made up", "", ()), table_of(samples), blocks) as writer:
        writer.write(0, rows)
    with h5py.File(tmp_path / "a.h5", "r") as file:
        shape = file["codes/shape"]
        chunks = [shape.id.get_chunk_info(place) for place in range(shape.id.get_num_chunks())]
    assert len(chunks) > 4
    with (tmp_path / "a.h5").open("r+b") as content:
        for chunk in chunks:
            if chunk.chunk_offset[0]:
                content.seek(chunk.byte_offset + 40)
                content.write(b"damage")
    return tmp_path / "a.h5"


def test_only_what_is_asked_for_is_read(store: Path) -> None:
    with CodeStore(store) as opened:
        assert len(opened) == ROWS
        assert opened.samples.id.iat[-1] == f"{ROWS - 1:05d}"
        assert (opened.codes("expression")[:, 7] == np.arange(ROWS)).all()
        part = opened.codes("shape", slice(20, 90))
        assert part.shape == (70, WIDTH)
        assert (part == np.arange(20, 90)[:, None]).all()
        # a checksum stands over every chunk that is read
        with pytest.raises(StoreError, match="codes/shape cannot be read"):
            opened.codes("shape", slice(ROWS - 10, ROWS))
        with pytest.raises(StoreError):
            opened.codes("shape")
        # which is no fault of the store
        with pytest.raises(UsageError, match="rows: ndarray is not a slice"):
            opened.codes("expression", np.array([7, 2]))  # type: ignore[arg-type]


def test_a_chunk_is_small_beside_the_block(store: Path) -> None:
    with h5py.File(store, "r") as file:
        for name in ("codes/shape", "codes/expression"):
            length, width = file[name].chunks
            assert width == WIDTH
            assert 100 < length <= (1 << 18) // (4 * WIDTH)
            assert file[name].fletcher32
            assert file[name].compression is None
