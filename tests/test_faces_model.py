"""The face model: alignment against SciPy and known rotations, the split into shape and expression, refused files."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ig3d.errors import ModelError
from ig3d.faces.model import EMBEDDED, FORMAT_VERSION, SHA256, align, load

MODEL = load()


def _faces(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = rng.standard_normal((n, len(MODEL.shape_basis)))
    expression = rng.standard_normal((n, len(MODEL.expression_basis)))
    return MODEL.decode(shape, expression), shape, expression


def _moved(faces: np.ndarray, seed: int = 1) -> tuple[np.ndarray, Rotation, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(rng.normal(0, 0.5, (len(faces), 3)))
    scale, shift = rng.uniform(100, 2000, len(faces)), rng.normal(0, 300, (len(faces), 3))
    turned = np.einsum("nij,npj->npi", turn.as_matrix(), faces)
    return scale[:, None, None] * turned + shift[:, None], turn, scale, shift


def test_known_motions_of_the_mean_face_come_back() -> None:
    points, turn, scale, shift = _moved(np.repeat(MODEL.mean[None], 20, axis=0))
    found = MODEL.align(points)
    assert np.abs(found.rotation - turn.as_matrix()).max() < 1e-9
    np.testing.assert_allclose(found.scale, scale, rtol=1e-9)
    np.testing.assert_allclose(found.translation, shift, rtol=1e-7, atol=1e-6)
    assert np.abs(found.aligned - MODEL.mean).max() < 1e-9


def test_rotation_is_scipys_and_the_parts_put_the_points_back() -> None:
    points = _moved(_faces(8)[0])[0]
    found = MODEL.align(points)
    anchor = MODEL.rigid @ MODEL.mean
    for k in range(len(points)):
        middle = MODEL.rigid @ points[k]
        best, _ = Rotation.align_vectors(points[k] - middle, MODEL.mean - anchor, weights=MODEL.rigid)
        assert np.abs(found.rotation[k] - best.as_matrix()).max() < 1e-7
    back = found.scale[:, None, None] * np.einsum("nij,npj->npi", found.rotation, found.aligned)
    np.testing.assert_allclose(back + found.translation[:, None], points, atol=1e-7)


def test_a_mirrored_face_is_not_reflected_back() -> None:
    found = align(MODEL.mean[None] * [-1, 1, 1], MODEL.mean)
    np.testing.assert_allclose(np.linalg.det(found.rotation), 1, atol=1e-9)


def test_a_batch_equals_its_faces_one_by_one_and_none_stays_none() -> None:
    points = _moved(_faces(5)[0])[0]
    together, codes = MODEL.align(points), MODEL.encode(MODEL.align(points).aligned)
    for k in range(5):
        alone = MODEL.align(points[k : k + 1])
        np.testing.assert_allclose(alone.aligned[0], together.aligned[k], atol=1e-12)
        np.testing.assert_allclose(MODEL.encode(alone.aligned)["shape"][0], codes["shape"][k], atol=1e-9)
    empty = MODEL.align(np.empty((0, 478, 3)))
    assert empty.aligned.shape == (0, 478, 3) and MODEL.encode(empty.aligned)["expression"].shape[0] == 0


def test_faces_without_extent_or_with_nan_give_nan_and_leave_the_others_alone() -> None:
    points = _moved(_faces(3)[0])[0]
    points[0], points[1, 5, 1] = 7.0, np.nan
    found = MODEL.align(points)
    assert np.isnan(found.aligned[:2]).all() and np.isnan(found.scale[:2]).all()
    assert np.isfinite(found.aligned[2]).all()


def test_points_of_another_number_are_refused() -> None:
    with pytest.raises(ModelError, match=r"\(2, 468, 3\) and must be \(n, 478, 3\)"):
        MODEL.align(np.zeros((2, 468, 3)))


def test_an_opening_mouth_does_not_pitch_the_head() -> None:
    lower = np.isin(
        np.arange(478), [14, 17, 84, 87, 178, 181, 314, 317, 402, 405, 152, 148, 377, 175, 199, 200]
    )
    opened = MODEL.mean + 0.02 * np.outer(lower, [0, 1, 0])
    pitch = [
        abs(Rotation.from_matrix(fit.rotation).as_rotvec()[0, 0])
        for fit in (MODEL.align(opened[None]), align(opened[None], MODEL.mean))
    ]
    assert pitch[0] < 0.65 * pitch[1] and np.degrees(pitch[0]) < 0.1


def test_codes_are_the_posterior_mean_of_a_linear_model() -> None:
    """Drawn towards 0 and towards each other by what one face leaves open, and never beyond the truth on average."""
    faces, shape, expression = _faces(4000)
    codes = MODEL.encode(faces)
    for found, true, floor in ((codes["shape"], shape, 0.55), (codes["expression"], expression, 0.7)):
        slope = (found * true).mean(0)
        correlation = np.array([np.corrcoef(found[:, k], true[:, k])[0, 1] for k in range(found.shape[1])])
        assert (slope > 0).all() and (slope < 1.06).all()
        assert correlation.mean() > floor
    strongest = [np.corrcoef(codes["expression"][:, k], expression[:, k])[0, 1] for k in range(3)]
    assert min(strongest) > 0.85
    np.testing.assert_allclose(MODEL.encode(MODEL.mean[None])["shape"], 0, atol=1e-9)


def test_expression_changes_expression_codes_more_than_shape_codes() -> None:
    rng = np.random.default_rng(3)
    one = np.repeat(rng.standard_normal((1, len(MODEL.shape_basis))), 400, axis=0)
    faces = MODEL.decode(one, rng.standard_normal((400, len(MODEL.expression_basis))))
    codes = MODEL.encode(faces)
    assert codes["shape"].std(0).mean() < 0.35 * codes["expression"].std(0).mean()


def test_the_mean_is_even_and_its_mirror_pairs_are_an_involution() -> None:
    np.testing.assert_array_equal(MODEL.mirror[MODEL.mirror], np.arange(478))
    np.testing.assert_allclose((MODEL.mean * [-1, 1, 1])[MODEL.mirror], MODEL.mean, atol=1e-6)
    np.testing.assert_allclose((MODEL.mean**2).sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(MODEL.mean.mean(0), 0, atol=1e-7)
    # Nose in front of the ears, chin below the forehead, the subject's right eye on the image's left.
    assert MODEL.mean[1, 2] < MODEL.mean[234, 2] and MODEL.mean[152, 1] > MODEL.mean[10, 1]
    assert MODEL.mean[33, 0] < 0 < MODEL.mean[263, 0]


def test_triangles_are_one_closed_sheet_turned_one_way() -> None:
    corners = MODEL.triangles
    sides = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    assert len(np.unique(sides, axis=0)) == len(sides)  # a side is run through once each way
    points, edges = len(np.unique(corners)), len(np.unique(np.sort(sides, axis=1), axis=0))
    assert (points - edges + len(corners), points) == (1, 468)  # a disk: eyes and mouth are filled
    assert np.bincount(MODEL.part).tolist() == [852, 28, 18]


def test_classes_differ_as_their_names_say() -> None:
    """A smile widens the mouth, surprise opens it and raises the brows, anger lowers them."""
    faces = MODEL.decode(np.zeros((7, len(MODEL.shape_basis))), MODEL.class_mean)
    by_name = dict(zip(MODEL.classes, faces, strict=True))
    width = {name: face[291, 0] - face[61, 0] for name, face in by_name.items()}
    gap = {name: face[14, 1] - face[13, 1] for name, face in by_name.items()}
    brow = {name: face[[105, 334], 1].mean() for name, face in by_name.items()}
    assert max(width, key=width.get) == "happy" and gap["surprise"] > 3 * gap["neutral"]
    assert min(brow, key=brow.get) == "surprise" and max(brow, key=brow.get) == "anger"  # y grows downwards


def test_the_embedded_file_is_small_and_names_the_basis() -> None:
    data = EMBEDDED.read_bytes()
    assert len(data) < 1_000_000
    assert hashlib.sha256(data).hexdigest() == SHA256
    assert MODEL.basis == f"ig3d-face-{FORMAT_VERSION}:{SHA256[:12]}"
    assert load() is MODEL


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    data = bytearray(EMBEDDED.read_bytes())
    data[len(data) // 2] ^= 1
    changed = tmp_path / "model.npz"
    changed.write_bytes(data)
    with pytest.raises(ModelError, match=r"model.npz has SHA-256 .* reinstall ig3d"):
        load(changed, sha256=SHA256)
    with pytest.raises(ModelError, match=r"model.npz is no .npz file"):
        load(changed)


def test_another_version_an_incomplete_a_foreign_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with np.load(EMBEDDED) as file:
        arrays = {name: file[name] for name in file.files}
    path = tmp_path / "model.npz"
    shutil.copy(EMBEDDED, path)
    np.testing.assert_array_equal(load(path).mean, MODEL.mean)
    np.savez(path, **(arrays | {"format_version": np.int16(1)}))
    with pytest.raises(ModelError, match="has format version 1, not 2; rebuild it"):
        load(path)
    np.savez(path, **{name: values for name, values in arrays.items() if name != "encoder"})
    with pytest.raises(ModelError, match="missing or wrong"):
        load(path)
    path.write_text("no model")
    with pytest.raises(ModelError, match=r"no \.npz file"):
        load(path)
    with pytest.raises(ModelError, match=r"nowhere.npz cannot be read"):
        load(tmp_path / "nowhere.npz")
