"""``ig3d logits --like STORE``: the samples of a store, so that both files have the same rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FAKE, colour_folder

from ig3d.features.predictions import load_predictions
from ig3d.features.store import CodeStore

pytest.importorskip("torch")

from ig3d.networks import train


def test_logits_have_the_rows_of_a_store(ig3d, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = colour_folder(tmp_path / "data", 6)
    table = tmp_path / "manifest.csv"
    rows = [f"{name}/{path.name},{name},{'test' if k % 3 == 0 else 'train'},S{k}"
            for name in ("happy", "sad") for k, path in enumerate(sorted((root / name).iterdir())[1:])]  # fmt: skip
    table.write_text("path,label,split,group\n" + "\n".join(rows) + "\n")
    store = tmp_path / "x.h5"
    ended = ig3d(
        "extract", root, "--dataset", "manifest", "--manifest", table, "--out", store, "--regressor", FAKE,
        "--jobs", 1,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    out = tmp_path / "x.npz"
    ended = ig3d("logits", "--like", store, "--network", "fer", "--splits", "all", "--out", out)
    assert ended.returncode == 0, ended.stderr
    with CodeStore(store) as opened:
        ids = opened.samples["id"].tolist()
        groups = opened.samples["group"].nunique()
    assert load_predictions(out).ids.tolist() == ids and len(ids) == len(rows)
    assert f"Groups (persons, videos): {groups}" in ended.stderr
    net = tmp_path / "net.safetensors"
    ended = ig3d("train-2d", "--like", store, "--out", net, "--epochs", 1, "--size", 32, "--device", "cpu")
    assert ended.returncode == 0 and net.exists(), ended.stderr
    # --crop trains on the faces of a store
    seen: list[np.ndarray] = []
    load = train.load_pictures

    def recorded(*args: Any, boxes: np.ndarray, **options: Any) -> Any:
        seen.append(boxes)
        return load(*args, boxes=boxes, **options)

    monkeypatch.setattr(train, "load_pictures", recorded)
    for crop in ("whole", store):
        ended = ig3d(
            "train-2d", "--like", store, "--crop", crop, "--out", net, "--epochs", 1, "--size", 32, "--device", "cpu",
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
    assert np.isnan(seen[0]).all() and np.isfinite(seen[1]).all()
    # where the images were moved, ROOT names their folder
    moved = Path(shutil.move(root, tmp_path / "moved"))
    again = tmp_path / "again.npz"
    ended = ig3d("logits", moved, "--like", store, "--network", "fer", "--splits", "all", "--out", again)
    assert ended.returncode == 0, ended.stderr
    with np.load(out) as one, np.load(again) as two:
        np.testing.assert_array_equal(one["logits"], two["logits"])


def test_like_and_options_of_a_dataset_contradict_each_other(ig3d, tmp_path: Path) -> None:
    out = tmp_path / "x.npz"
    ended = ig3d("logits", "--network", "fer", "--out", out)
    assert ended.returncode == 2 and "--like STORE" in ended.stderr
    ended = ig3d("logits", "--like", "x.h5", "--groups", "(a)", "--network", "fer", "--out", out)
    assert ended.returncode == 2 and "remove --groups" in ended.stderr
    ended = ig3d(
        "logits", "--like", "x.h5", "--dataset", "rafdb", "--split-seed", 3, "--network", "fer", "--out", out
    )
    assert ended.returncode == 2 and "remove --dataset, --split-seed" in ended.stderr
