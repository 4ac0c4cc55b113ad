"""Synthetic faces: layout, repeatability, the truth beside them, and its way back through FaceMesh."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from listed import samples_of
from PIL import Image
from scipy.spatial.transform import Rotation
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ig3d.errors import Ig3dError, UsageError
from ig3d.extract.datasets import list_samples
from ig3d.faces import synth
from ig3d.faces.head import FOLDS, head
from ig3d.faces.model import load
from ig3d.faces.paint import paint
from ig3d.faces.raster import rasterise
from ig3d.faces.synth import CLASSES, SHARES, SynthConfig, draw_codes, pose_points, render, synthesize
from ig3d.features.samples import Split


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty small faces in RAF-DB's layout."""
    out = tmp_path_factory.mktemp("synth") / "faces"
    synthesize(out, SynthConfig(count=40, size=64, seed=3))
    return out


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_the_rafdb_adapter_reads_the_folder_and_the_truth_has_its_ids(written: Path) -> None:
    samples = list_samples(str(written), "rafdb")
    truth = pd.read_csv(written / "codes.csv").set_index("id")
    assert len(samples) == 40 and samples.classes == CLASSES
    assert [sample.split for sample in samples_of(samples)].count(Split.test) == 10
    assert set(truth.index) == {sample.id for sample in samples_of(samples)}
    for sample in samples_of(samples):
        assert truth.loc[sample.id, "label"] == CLASSES[sample.label]
        assert truth.loc[sample.id, "split"] == sample.split.name
        assert cv2.imread(str(written / sample.path)).shape == (64, 64, 3)


def test_list_file_is_as_rafdb_has_it(written: Path) -> None:
    text = (written / synth.LIST_FILE).read_bytes()
    lines = text.decode("ascii").split("\n")
    assert len(lines) == 40 and b"\r" not in text
    assert lines[0].startswith("train_00001.jpg ") and lines[-1].startswith("test_0010.jpg ")
    assert {line.split(" ")[1] for line in lines} <= set("1234567")


def test_truth_is_in_the_units_of_a_store(written: Path) -> None:
    config = SynthConfig(count=40, size=64, seed=3)
    truth, codes = pd.read_csv(written / "codes.csv"), draw_codes(config, np.arange(40))
    pose = truth[["pose:x", "pose:y", "pose:z"]].to_numpy()
    np.testing.assert_allclose(pose, codes.pose * [1, -1, -1], atol=1e-5)
    place = (truth[["camera:tx", "camera:ty"]].to_numpy() + 1) * 32
    np.testing.assert_allclose(place, codes.camera[:, 1:], atol=1e-3)
    np.testing.assert_allclose(truth["camera:scale"] * 32, codes.camera[:, 0], rtol=1e-4)
    np.testing.assert_allclose(truth["expression:2"], codes.expression[:, 2], atol=1e-4)
    facts = json.loads((written / "synth.json").read_text())
    assert facts == {
        "model": load().basis, "classes": list(CLASSES), "count": 40, "size": 64, "seed": 3, "test_share": 0.25,
    }  # fmt: skip


def test_same_seed_same_bytes_however_many_workers(written: Path, tmp_path: Path) -> None:
    synthesize(tmp_path / "again", SynthConfig(count=40, size=64, seed=3, jobs=2))
    assert _files(tmp_path / "again") == _files(written)


def test_a_face_depends_on_seed_and_index_only() -> None:
    (one, two), _ = render(SynthConfig(count=2, size=64, seed=3), np.array([17, 4]))
    alone, _ = render(SynthConfig(count=900, size=64, seed=3), np.array([4]))
    other, _ = render(SynthConfig(count=2, size=64, seed=4), np.array([4]))
    np.testing.assert_array_equal(two, alone[0])
    assert (one != two).mean() > 0.5 and (two != other[0]).mean() > 0.5


def test_classes_come_in_their_shares_and_overlap() -> None:
    codes = draw_codes(SynthConfig(count=600), np.arange(600))
    np.testing.assert_allclose(np.bincount(codes.label, minlength=7) / 600, SHARES, atol=0.005)
    # The best that anyone can do who sees the true codes: Bayes' rule with the densities they were drawn from.
    model = load()
    inverse = np.linalg.inv(model.class_spread)
    apart = (codes.expression[:, None] - synth.SEPARATION * model.class_mean) @ inverse.T
    best = (np.log(SHARES) - (apart**2).sum(2) / 2 / synth.SPREAD**2).argmax(1)
    assert 0.7 < (best == codes.label).mean() < 0.9


def test_hardly_any_face_has_closed_eyes() -> None:
    codes = draw_codes(SynthConfig(count=1500, seed=51), np.arange(1500))
    points = load().decode(codes.shape, codes.expression)
    openings = [
        (points[:, low, 1] - points[:, high, 1]) / np.linalg.norm(points[:, a] - points[:, b], axis=1)
        for high, low, a, b in ((159, 145, 33, 133), (386, 374, 263, 362))
    ]
    opening = np.mean(openings, axis=0)  # of the width of the eye
    assert (opening < 0.08).mean() < 0.003 and 0.2 < np.median(opening) < 0.4


def test_the_rasteriser_interpolates_and_hides_what_is_behind() -> None:
    front = [[10, 10, 0], [50, 12, 0], [20, 55, 0]]
    back = [[0, 0, 9], [64, 0, 9], [0, 64, 9]]
    points = np.array(front + back, float)
    for order in ([[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]]):
        seen = rasterise(points, np.array(order), (64, 64))
        y, x = np.divmod(seen.pixel, 64)
        np.testing.assert_allclose(seen.interpolate(points)[:, :2], np.stack([x, y], axis=1) + 0.5, atol=2e-3)
        in_front = seen.corners.max(1) < 3
        mask = np.zeros((64, 64), np.uint8)
        mask.flat[seen.pixel[in_front]] = 1
        # OpenCV also fills pixels that the outline only touches.
        outline = cv2.fillPoly(np.zeros_like(mask), [np.array(front)[:, :2].astype(np.int32)], 1)
        assert (mask > outline).sum() == 0 and abs(int(mask.sum()) - 915) < 40
    turned = rasterise(points, np.array([[0, 2, 1]]), (64, 64))
    assert len(turned.pixel) == 0  # seen from behind


def test_true_codes_come_back_through_facemesh() -> None:
    """On 1,000 faces: all found, pose .95 to 1.00, the first three expression axes .96, .95, .87."""
    detectors = pytest.importorskip("ig3d.extract.detectors.facemesh")
    config = SynthConfig(count=70, seed=11)
    images, codes = render(config, np.arange(config.count))
    found = detectors.FaceMesh()(images)
    ok = np.array([len(faces) == 1 for faces in found])
    assert ok.mean() > 0.98
    points = np.array([faces[0].landmarks for faces in found if len(faces) == 1])
    model = load()
    fit = model.align(points)
    pose = Rotation.from_matrix(fit.rotation).as_rotvec()
    expression = model.encode(fit.aligned)["expression"]
    for axis, floor in enumerate((0.85, 0.95, 0.95)):
        assert np.corrcoef(pose[:, axis], codes.pose[ok, axis])[0, 1] > floor
    for axis, floor in enumerate((0.9, 0.88, 0.75)):
        assert np.corrcoef(expression[:, axis], codes.expression[ok, axis])[0, 1] > floor
    drawn = pose_points(head(), codes, hair=np.ones(len(ok)))[ok, :478]
    assert np.linalg.norm(points[..., :2] - drawn[..., :2], axis=2).mean() < 2.5  # pixels of 224


def _painted(yaw: float, folds: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """A mean face turned by ``yaw`` degrees with these folds: grey image, and its points in pixels."""
    scene = head()
    codes = draw_codes(SynthConfig(count=1), np.array([0]))
    codes.pose[:] = [0, np.radians(yaw), 0]
    codes.shape[:] = codes.expression[:] = 0
    look = synth.draw_look(np.random.default_rng(0), CLASSES.index("neutral"), scene.model)
    depths = np.array([folds.get(name, 0.0) for name in FOLDS])
    look = replace(look, folds=depths, noise=0.0, beard=0.0, hair_volume=0.2)
    points = pose_points(scene, codes, hair=np.array([look.hair_volume]))[0]
    image = paint(scene, points, look, size=224, rng=np.random.default_rng(0))
    return image.mean(2), points


@pytest.mark.parametrize("yaw", [-25, 0, 25])
@pytest.mark.parametrize(
    ("fold", "beside"), [("frown", [9]), ("nose", [6]), ("crow", [33, 263]), ("chin", [17, 199])]
)
def test_folds_turn_with_the_head(yaw: float, fold: str, beside: list[int]) -> None:
    plain, points = _painted(yaw, {})
    folded, _ = _painted(yaw, {fold: 0.5})
    darker, lighter = np.clip(plain - folded, 0, None), np.clip(folded - plain, 0, None)
    assert darker.max() > 15 and lighter.max() > 1 and darker.sum() > 1.5 * lighter.sum()
    y, x = np.nonzero(darker > 0.25 * darker.max())
    apart = np.linalg.norm(np.stack([x, y], axis=1)[:, None] - points[beside, :2], axis=2).min(1)
    assert apart.max() < 30 and apart.mean() < 16  # pixels of a face 134 high


def test_folds_tell_the_class_and_points_do_not_know_them() -> None:
    """Given the class, how deep the folds are has nothing to do with the expression codes."""
    config, scene = SynthConfig(count=1500, seed=5), head()
    codes = draw_codes(config, np.arange(config.count))
    rngs = [np.random.default_rng([config.seed, k, 1]) for k in range(config.count)]
    looks = [
        synth.draw_look(rng, int(label), scene.model) for rng, label in zip(rngs, codes.label, strict=True)
    ]
    folds = np.array([look.folds for look in looks])
    means = np.array([folds[codes.label == k].mean(0) for k in range(7)])
    deepest = {CLASSES[k]: FOLDS[(means[k] - means.mean(0)).argmax()] for k in range(6)}
    assert deepest["disgust"] == "nose" and deepest["anger"] == "frown" and deepest["surprise"] == "forehead"
    assert deepest["happy"] in ("crow", "cheek") and deepest["sad"] in ("grief", "corner", "chin")
    apart = folds - means[codes.label]
    means = np.array([codes.expression[codes.label == k].mean(0) for k in range(7)])
    linked = np.corrcoef(apart.T, (codes.expression - means[codes.label]).T)[: len(FOLDS), len(FOLDS) :]
    assert np.abs(linked).max() < 4.5 / config.count**0.5
    old = np.corrcoef(apart.T)[FOLDS.index("forehead"), FOLDS.index("bag")]
    assert old > 0.2  # both are deep in the old


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"count": 0}, "count is 0; it must be a whole number from 1 to 99999"),
        ({"size": 16}, "size is 16; .* from 48 to 1024"),
        ({"size": 5000}, "size is 5000"),
        ({"seed": -1}, "seed is -1"),
        ({"jobs": 0}, "jobs is 0"),
        ({"count": 2.5}, "count is 2.5"),
        ({"test_share": 1.5}, "test share is 1.5"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, float], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        SynthConfig(**options)


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not an empty folder"):
        synthesize(tmp_path, SynthConfig(count=2, size=48))
    with pytest.raises(UsageError, match="not an empty folder"):
        synthesize(tmp_path / "mine.txt", SynthConfig(count=2, size=48))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_full_disk_is_one_line_and_leaves_no_list_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full_after_two(path: Path, data: bytes) -> int:
        if "train_00003" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full_after_two)
    with pytest.raises(
        Ig3dError, match="6 faces cannot be written: No space left on device; free some space"
    ) as caught:
        synthesize(tmp_path / "out", SynthConfig(count=6, size=48))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / synth.LIST_FILE).exists()


def test_an_interrupted_run_leaves_no_list_file(tmp_path: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "out", SynthConfig(count=40, size=48), progress=interrupt)
    assert not (tmp_path / "out" / synth.LIST_FILE).exists()


def test_colours_are_red_green_blue_in_memory_and_in_the_files(written: Path) -> None:
    """Skin is redder than it is blue; with the channels swapped it would be the other way round."""
    config = SynthConfig(count=40, size=64, seed=3)
    images, codes = render(config, np.arange(config.count))
    drawn = pose_points(head(), codes, hair=np.ones(config.count))
    nose_and_cheeks = drawn[:, [4, 50, 280, 205, 425], :2].astype(int)
    names = [line.split(".")[0] for line in (written / synth.LIST_FILE).read_text().splitlines()]
    coloured = 0
    for row, (name, image) in enumerate(zip(names, images, strict=True)):
        x, y = nose_and_cheeks[row].T
        stored = np.asarray(Image.open(written / f"basic/Image/aligned/{name}_aligned.jpg"))
        for pixels in (image, stored):
            red, green, blue = pixels[y, x].mean(0)
            if np.ptp(image[y, x].mean(0)) > 15:  # some faces are grey
                assert red > green > blue
                coloured += 1
        assert np.abs(stored[y, x].mean(0) - image[y, x].mean(0)).max() < 12
    assert coloured > 40


def test_shape_codes_hold_little_of_the_class() -> None:
    """Classes differ in expression only; a linear learner reached .57 on the shape codes of the first face model."""
    config = SynthConfig(count=300, seed=11)
    codes = draw_codes(config, np.arange(config.count))
    found = load().align(pose_points(head(), codes, hair=np.ones(config.count))[:, :478])
    learner = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    accuracy = {
        name: cross_val_score(learner, values, codes.label, cv=folds).mean()
        for name, values in load().encode(found.aligned).items()
    }
    assert accuracy["shape"] < 0.35 and accuracy["expression"] > 0.64  # the commonest class: .26
