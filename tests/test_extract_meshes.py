"""Meshes of a store: files read by an independent reader, renderers, and input that has no mesh."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import flame_made_up as made_up
import numpy as np
import pytest
from conftest import Ended
from PIL import Image
from scipy.spatial.transform import Rotation
from test_extract_preview_flame import store_path, with_flame  # noqa: F401 (a fixture)

from ig3d.errors import StoreError, UsageError
from ig3d.extract.config import ExtractConfig
from ig3d.extract.datasets import list_samples
from ig3d.extract.meshes import image_meshes, meshes, write_meshes
from ig3d.extract.preview import preview
from ig3d.extract.run import extract_codes
from ig3d.faces import model
from ig3d.faces.mesh_files import write_mesh
from ig3d.faces.render import Mesh, shaded, visible_pixels
from ig3d.faces.synth import SEPARATION, SynthConfig, synthesize
from ig3d.features.store import CodeStore
from ig3d.features.store.rows import rows_of

trimesh = pytest.importorskip("trimesh")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory, _home: Path) -> Path:
    """Store of eight synthetic faces."""
    root = tmp_path_factory.mktemp("faces")
    synthesize(root / "faces", SynthConfig(count=8, seed=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(_home))
        samples = list_samples(root / "faces", "rafdb")
        extract_codes(samples, root / "a.h5", ExtractConfig(), jobs=1)
    return root / "a.h5"


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles by trimesh, in the order of the file."""
    mesh = trimesh.load(path, process=False, maintain_order=True)
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


@pytest.mark.parametrize("suffix", [".obj", ".ply"])
def test_written_meshes_have_the_vertices_of_the_face_model(
    ig3d: Callable[..., Ended], faces: Path, tmp_path: Path, suffix: str
) -> None:
    ended = ig3d("export", faces, f"--{suffix[1:]}", tmp_path / "out", "--rows", "*train*")
    assert ended.stdout == f"{tmp_path / 'out'}: 6 mesh files\n"
    face = model.load()
    with CodeStore(faces) as store:
        ids = store.samples["id"].tolist()
        shape, expression, pose = (store.codes(name) for name in ("shape", "expression", "pose"))
    assert len(list((tmp_path / "out").rglob(f"*{suffix}"))) == 6
    for row, sample in enumerate(ids):
        if "train" not in sample:
            continue
        vertices, triangles = read(tmp_path / "out" / f"{sample}{suffix}")
        points = face.decode(shape[row], expression[row]) * [1, -1, -1]
        assert np.allclose(vertices, Rotation.from_rotvec(pose[row]).apply(points), rtol=0, atol=1e-7)
        assert len(triangles) == len(face.triangles)
        # triangles are counterclockwise, seen from the camera (z towards it)
        corners = vertices[triangles]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert (normals[:, 2] > 0).mean() > 0.8
        nose, chin = vertices[1], vertices[152]
        assert nose[2] > vertices[:, 2].mean() and chin[1] < nose[1]


def test_frontal_meshes_look_into_the_camera(faces: Path, tmp_path: Path) -> None:
    with CodeStore(faces) as store:
        row = int(np.flatnonzero(store.ok)[0])
        write_meshes(store, tmp_path, suffix=".ply", rows=np.array([row]), frontal=True)
        (file,) = tmp_path.rglob("*.ply")
        points = model.load().decode(store.codes("shape")[row], store.codes("expression")[row])
    assert np.allclose(read(file)[0], points * [1, -1, -1], atol=1e-7)


def test_meshes_of_flame_codes_are_flames_vertices(
    ig3d: Callable[..., Ended],
    store_path: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    for option, value in (("--smooth", [0.2]), ("--blocks", ["pose"])):
        refused = ig3d("export", store_path, "--obj", tmp_path / "refused", option, *value)
        assert refused.returncode == 2 and f"{option} applies to tables" in refused.stderr
    refused = ig3d("export", store_path, "--csv", tmp_path / "refused.csv", "--frontal")
    assert refused.returncode == 2 and "--frontal applies to meshes" in refused.stderr
    ended = ig3d("export", store_path, "--obj", tmp_path / "out")
    assert ended.returncode == 1
    assert "FLAME2020" in ended.stderr and len(ended.stderr.splitlines()) == 1
    with_flame(tmp_path / "weights")
    ended = ig3d("export", store_path, "--obj", tmp_path / "out", "--rows", "happy/0001")
    assert ended.returncode == 0, ended.stderr
    vertices, triangles = read(tmp_path / "out/happy/0001.obj")
    turn = Rotation.from_rotvec([0, 0.3, 0])
    template, root = made_up.model()["v_template"], made_up.model()["J"][0]
    assert np.allclose(vertices, turn.apply(template - root) + root, atol=1e-6)
    assert np.array_equal(triangles, made_up.model()["f"])
    head = (tmp_path / "out/happy/0001.obj").read_text().splitlines()[:3]
    assert head[0] == "# sample happy/0001" and "metres" in head[2]


def test_rows_by_id_and_pattern(faces: Path) -> None:
    with CodeStore(faces) as store:
        ids = store.samples["id"].tolist()
        assert rows_of(store, [ids[5], "*"]).tolist() == [5, 0, 1, 2, 3, 4, 6, 7]
        assert rows_of(store, [ids[0][:-1] + "?"]).tolist()[0] == 0
        with pytest.raises(UsageError, match=r"no id of .* 'absent'"):
            rows_of(store, ["absent"])


def test_comments_are_one_ascii_line_each(tmp_path: Path) -> None:
    points, triangles = np.eye(3), np.array([[0, 1, 2]])
    for name in ("a.obj", "a.ply"):
        write_mesh(tmp_path / name, points, triangles, comments=("façade\nv 9 9 9", "it's"))
        vertices, faces = read(tmp_path / name)
        assert np.array_equal(vertices, points) and np.array_equal(faces, triangles)
    with pytest.raises(UsageError, match=r"\.obj or \.ply"):
        write_mesh(tmp_path / "a.stl", points, triangles)


@pytest.mark.parametrize("sample", ["../out", "/etc/x", "a/../../b"])
def test_an_id_that_leads_out_of_the_folder_is_refused(
    faces: Path, tmp_path: Path, sample: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CodeStore(faces) as store:
        samples = store.samples.copy()
        samples.loc[0, "id"] = sample
        monkeypatch.setitem(store.__dict__, "samples", samples)
        with pytest.raises(StoreError, match="no path inside"):
            write_meshes(store, tmp_path / "in", suffix=".obj", rows=np.array([0]))
    assert not list(tmp_path.iterdir())


def test_codes_without_a_face_model_are_one_line(ig3d: Callable[..., Ended], tmp_path: Path) -> None:
    from conftest import FAKE, colour_folder

    root = colour_folder(tmp_path / "data", 2)
    extract_codes(list_samples(root, "folder"), tmp_path / "a.h5", ExtractConfig(regressor=FAKE), jobs=1)
    ended = ig3d("export", tmp_path / "a.h5", "--ply", tmp_path / "out")
    assert ended.returncode == 2 and "shape and expression" in ended.stderr
    assert ig3d("export", tmp_path / "a.h5", "--csv", tmp_path / "a.csv", "--rows", "happy/*").stdout == (
        f"{tmp_path / 'a.csv'}: 2 rows\n"
    )


def test_the_rendered_mesh_lies_on_the_face(faces: Path, tmp_path: Path) -> None:
    with CodeStore(faces) as store:
        rows = np.flatnonzero(store.ok)[:2]
        found = image_meshes(store, rows)
        box = store.column("face/landmark_box")[rows[0]]
        seen = found[int(rows[0])].points
        assert np.allclose([*seen[:, :2].min(0), *seen[:, :2].max(0)], box, atol=6)
        assert len(meshes(store, rows).vertices) == 2
        assert preview(store, tmp_path / "mesh.png", rows=rows, mesh=True) == (2, 0)
        assert preview(store, tmp_path / "contours.png", rows=rows) == (2, 0)
        with pytest.raises(UsageError, match="smaller --size"):
            preview(store, tmp_path / "large.png", rows=np.repeat(rows, 200), size=1000)
    mesh, contours = (
        np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in ("mesh", "contours")
    )
    assert 0.05 < (mesh != contours).any(-1).mean() < 0.8


def test_an_open_mouth_is_dark_and_its_lips_are_lit_as_the_skin() -> None:
    face = model.load()
    points = face.decode(np.zeros(20), SEPARATION * face.class_mean[0])  # surprise
    points = points * 400 / 0.18 + [200, 200, 0]
    mesh = Mesh(points, face.triangles[:, ::-1], face.part)
    grey = np.full((400, 400, 3), 128, np.uint8)
    drawn = shaded(grey, mesh, opaque=True).astype(int)

    def at(*vertices: int) -> np.ndarray:
        x, y = points[list(vertices), :2].mean(0).astype(int)
        return drawn[y, x]

    upper, lower = 13, 14  # middle of the lips, on their inner outline
    mouth, lip, forehead, chin = at(upper, lower), at(15), at(151), at(199)
    assert points[lower, 1] - points[upper, 1] > 10
    assert mouth.mean() < 0.5 * min(lip.mean(), forehead.mean())
    assert lip.mean() < 1.1 * forehead.mean() and chin.mean() > 0.6 * lip.mean()
    x, y = points[[upper, lower], :2].mean(0).astype(int)
    over = shaded(grey, mesh)
    assert (over[y, x] == 128).all() and over[y + 60, x, 2] > over[
        y + 60, x, 0
    ] + 20  # the mouth is left open


def test_an_unknown_or_absent_renderer_is_one_line(
    ig3d: Callable[..., Ended], faces: Path, tmp_path: Path
) -> None:
    ended = ig3d("preview", faces, "--out", tmp_path / "a.png", "--mesh", "--renderer", "blender")
    assert ended.returncode == 2
    assert ended.stderr == "ig3d: renderer: 'blender' does not exist; choose built-in or pytorch3d\n"
    try:
        import pytorch3d  # noqa: F401
    except ImportError:
        ended = ig3d("preview", faces, "--out", tmp_path / "a.png", "--renderer", "pytorch3d")
        assert ended.returncode == 1
        assert "docs/face_model.md" in ended.stderr and len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("size_wh", [(160, 120), (90, 130)])
def test_both_renderers_cover_the_same_pixels(size_wh: tuple[int, int]) -> None:
    pytest.importorskip("pytorch3d.renderer.mesh", reason="pytorch3d is not installed", exc_type=ImportError)
    face = model.load()
    turned = Rotation.from_rotvec([0.2, 0.5, 0.1]).apply(face.mean.copy())
    points = turned * 0.7 * min(size_wh) / 0.14 + [size_wh[0] / 2 + 5, size_wh[1] / 2 - 3, 0]
    ours = visible_pixels(points, face.triangles, size_wh)
    theirs = visible_pixels(points, face.triangles, size_wh, renderer="pytorch3d")
    assert len(ours.pixel) > 2000
    assert len(np.setxor1d(ours.pixel, theirs.pixel)) <= 0.002 * len(ours.pixel)
    _, first, second = np.intersect1d(ours.pixel, theirs.pixel, return_indices=True)
    same = ours.triangle[first] == theirs.triangle[second]
    assert same.mean() > 0.98  # the built-in one sorts triangles by their centre
    assert np.abs(ours.weights[first] - theirs.weights[second])[same].max() < 1e-3
    black = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    mesh = Mesh(points, face.triangles[:, ::-1], face.part)
    pictures = [
        shaded(black, mesh, renderer=renderer, opaque=True).astype(int)
        for renderer in ("built-in", "pytorch3d")
    ]
    assert np.abs(pictures[0] - pictures[1]).mean() < 0.5
    with pytest.raises(UsageError, match="does not exist"):
        visible_pixels(points, face.triangles, size_wh, renderer="nothing")


def test_trimesh_keeps_all_vertices_as_documented(
    faces: Path, tmp_path: Path, ig3d: Callable[..., Ended]
) -> None:
    ended = ig3d("export", faces, "--obj", tmp_path / "obj", "--ply", tmp_path / "ply")
    assert ended.returncode == 0, ended.stderr
    with CodeStore(faces) as store:
        ok, rows = int(store.ok.sum()), len(store)
    assert (f"; {rows - ok} row" in ended.stdout) == (ok < rows)
    obj, ply = (next(iter((tmp_path / kind).rglob(f"*.{kind}"))) for kind in ("obj", "ply"))
    kept = trimesh.load(obj, process=False, maintain_order=True)
    assert len(kept.vertices) == len(trimesh.load(ply, process=False).vertices) == 478


def test_rows_without_codes_are_counted(tmp_path: Path, faces: Path, ig3d: Callable[..., Ended]) -> None:
    images = tmp_path / "images" / "happy"
    images.mkdir(parents=True)
    source = next(path for path in (faces.parent / "faces").rglob("*.*") if path.suffix in (".jpg", ".png"))
    (images / f"a{source.suffix}").write_bytes(source.read_bytes())
    (images / "bad.png").write_bytes(b"not an image")
    two = tmp_path / "two.h5"
    assert ig3d("extract", tmp_path / "images", "--out", two, "--jobs", 1).returncode == 0
    ended = ig3d("export", two, "--obj", tmp_path / "obj")
    assert f"{tmp_path / 'obj'}: 1 mesh file; 1 row without codes left out" in ended.stdout
