"""The FLAME layer against what the official layers gave, in official file layouts with made-up contents."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import flame_made_up as made_up
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ig3d.errors import ModelError, WeightsError
from ig3d.faces import flame_files
from ig3d.faces.flame import Flame, FlameCodes, project, rotation_matrices, to_image

GOLDEN_VERTICES = slice(None, None, 28)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up.write_all(tmp_path_factory.mktemp("flame"))


def build(folder: Path, file: str = "generic_model.pkl", dtype: torch.dtype = torch.float64) -> Flame:
    return Flame(
        flame_files.read_model(folder / file),
        eyelids=flame_files.read_eyelids(folder / "l_eyelid.npy", folder / "r_eyelid.npy"),
        dtype=dtype,
    )


@pytest.fixture(scope="module")
def layer(folder: Path) -> Flame:
    return build(folder)


def weights_file(regressor: str) -> dict[str, np.ndarray]:
    return {
        name.partition("/")[2]: values
        for name, values in made_up.golden().items()
        if name.startswith(regressor + "/")
    }


def smirk_codes(gold: dict[str, np.ndarray]) -> FlameCodes:
    names = ("shape", "expression", "pose", "jaw", "eyelid")
    return FlameCodes.from_blocks({"camera": gold["cam"]} | {name: gold[f"{name}_params"] for name in names})


def agrees(ours: torch.Tensor, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(ours.double().numpy() - theirs).max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("file", ["generic_model.pkl", "flame2023_Open.pkl"])
def test_smirks_layer(folder: Path, file: str, dtype: torch.dtype) -> None:
    layer, gold = build(folder, file, dtype), weights_file("smirk")
    codes = smirk_codes(gold)
    camera = torch.as_tensor(gold["cam"], dtype=dtype)
    vertices = layer.vertices(codes)
    agrees(vertices[:, GOLDEN_VERTICES], gold["vertices"])
    for name in ("fan", "fan_3d", "mp"):  # points of the official layer
        points = torch.as_tensor(gold[f"landmarks_{name}"], dtype=dtype)
        agrees(project(points, camera), gold[f"landmarks_{name}_projected"])
    turned = replace(codes, neck=gold["neck_pose_params"], eyes=gold["eye_pose_params"])
    vertices = layer.vertices(turned)
    agrees(vertices[:, GOLDEN_VERTICES], gold["vertices_neck_eyes"])


def test_emocas_layer(layer: Flame) -> None:
    gold = weights_file("emoca")
    codes = FlameCodes(gold["shape"], gold["exp"], gold["pose"][:, :3], gold["pose"][:, 3:])
    vertices = layer.vertices(codes)
    agrees(vertices[:, GOLDEN_VERTICES], gold["vertices"])
    points, camera = (torch.as_tensor(gold[name], dtype=torch.float64) for name in ("landmarks2d", "cam"))
    agrees(project(points, camera), gold["landmarks2d_projected"])


def test_rotations_are_scipys() -> None:
    vectors = np.random.default_rng(0).normal(0, 1, (50, 3))
    vectors[0] = 0
    ours = rotation_matrices(torch.as_tensor(vectors)).numpy()
    assert np.allclose(ours, Rotation.from_rotvec(vectors).as_matrix(), atol=3e-8)
    assert np.array_equal(ours[0], np.eye(3))


def test_one_vertex_after_another_gives_the_same(layer: Flame) -> None:
    """Blend shapes, joints, chain and skinning written out for one head, with scipy's rotations and no batch."""
    model = made_up.model()
    gold = weights_file("smirk")
    codes = replace(
        smirk_codes(gold), eyelid=None, neck=gold["neck_pose_params"], eyes=gold["eye_pose_params"]
    )
    head = 5
    weights = np.zeros(400)
    weights[:300], weights[300:350] = gold["shape_params"][head], gold["expression_params"][head]
    shaped = model["v_template"] + model["shapedirs"] @ weights
    joints = model["J_regressor"] @ shaped
    vectors = [gold["pose_params"][head], gold["neck_pose_params"][head], gold["jaw_params"][head]]
    vectors += [*gold["eye_pose_params"][head].reshape(2, 3)]
    turns = [Rotation.from_rotvec(vector).as_matrix() for vector in vectors]
    bent = np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    corrected = shaped + model["posedirs"] @ bent

    def move(joint: int, place: np.ndarray) -> np.ndarray:
        """A place of the resting head, moved by the joint and all above it."""
        while joint >= 0:
            place = turns[joint] @ (place - joints[joint]) + joints[joint]
            joint = flame_files.PARENTS[joint]
        return place

    ours = layer.vertices(codes)[head].numpy()
    for vertex in range(0, made_up.VERTICES, 251):
        moved = [move(joint, corrected[vertex]) for joint in range(5)]
        assert np.allclose(ours[vertex], model["weights"][vertex] @ moved, atol=1e-7)


def test_no_codes_but_zeros_is_the_mean_head(layer: Flame) -> None:
    vertices = layer.vertices(FlameCodes(shape=np.zeros((3, 100))))
    assert np.allclose(vertices, made_up.model()["v_template"], atol=1e-12)
    assert np.array_equal(layer.triangles, made_up.model()["f"])


def test_batch_equals_one_by_one_and_missing_blocks_are_zeros(layer: Flame) -> None:
    gold = weights_file("smirk")
    codes = smirk_codes(gold)
    together = layer.vertices(codes)
    for row in range(8):
        alone = FlameCodes(
            **{
                name: getattr(codes, name)[row : row + 1]
                for name in ("shape", "expression", "pose", "jaw", "eyelid")
            }
        )
        assert torch.allclose(layer.vertices(alone)[0], together[row], atol=1e-14)
    short = FlameCodes(gold["shape_params"][:, :10], gold["expression_params"][:, :7])
    padded = FlameCodes(*(np.zeros((8, 50)) for _ in range(2)))
    padded.shape[:, :10], padded.expression[:, :7] = short.shape, short.expression
    assert torch.allclose(layer.vertices(short), layer.vertices(padded), atol=1e-14)


def test_lids_close_by_smirks_offsets_left_first(layer: Flame, folder: Path) -> None:
    head = FlameCodes(pose=[[0.1, 0.4, 0]])
    moved = layer.vertices(replace(head, eyelid=[[0.5, 0.0]])) - layer.vertices(head)
    assert np.allclose(moved[0], 0.5 * np.load(folder / "l_eyelid.npy"), atol=1e-12)


def test_gradients_reach_the_codes(layer: Flame) -> None:
    pose = torch.zeros((2, 3), dtype=torch.float64, requires_grad=True)
    layer.vertices(FlameCodes(pose=pose))[:, 0].sum().backward()
    assert torch.isfinite(pose.grad).all()
    assert (pose.grad != 0).any()


def test_a_point_goes_to_its_pixel_of_the_image() -> None:
    """Of a crop that starts at (30, 50) and shows 2 image pixels in 1, the middle is at 30 + 2 * 112."""
    camera = torch.tensor([[8.0, 0.01, -0.02]], dtype=torch.float64)
    points = torch.tensor([[[-0.01, 0.02, 0.0], [0.04, 0.02, 0.1]]], dtype=torch.float64)
    seen = project(points, camera)
    assert np.allclose(seen, [[[0, 0, 0], [0.4, 0, -0.8]]])
    pixels = to_image(seen, np.array([[30, 50, 30 + 2 * 223, 50 + 2 * 223]]))
    assert np.allclose(pixels[0, :, :2], [(254, 274), (254 + 0.4 * 224, 274)])
    assert np.allclose(pixels[0, 1, 2], -0.8 * 224)


def test_codes_of_wrong_shape_are_refused(layer: Flame, folder: Path) -> None:
    bare = Flame(flame_files.read_model(folder / "flame2023_Open.pkl"))
    for codes, message in (
        (FlameCodes(pose=np.zeros((2, 6))), r"pose codes is \(2, 6\); it must be \(n, 3\)"),
        (FlameCodes(shape=np.zeros((2, 301))), r"shape codes is \(2, 301\); it must be \(n, at most 300\)"),
        (
            FlameCodes(shape=np.zeros((2, 3)), jaw=np.zeros((3, 3))),
            r"different numbers of heads: \[2, 3\]",
        ),
        (FlameCodes(), "numbers of heads"),
    ):
        with pytest.raises(ModelError, match=message):
            layer.vertices(codes)
    with pytest.raises(ModelError, match="SMIRK's eyelids"):
        bare.vertices(FlameCodes(eyelid=np.zeros((1, 2))))


def test_a_wrong_file_gives_a_one_line_error(tmp_path: Path, folder: Path) -> None:
    good = made_up.model()

    def changed(**entries: object) -> Path:
        path = tmp_path / "model.pkl"
        path.write_bytes(pickle.dumps({k: v for k, v in {**good, **entries}.items() if v is not None}))
        return path

    masks = tmp_path / "FLAME_masks.pkl"
    made_up.write_python2(masks, {"nose": np.arange(3), "lips": np.arange(4)})
    cut = tmp_path / "cut.pkl"
    cut.write_bytes((folder / "generic_model.pkl").read_bytes()[:100_000])
    lid = folder / "l_eyelid.npy"
    holes = good["v_template"].copy()
    holes[7] = np.nan
    for read, message in (
        (lambda: flame_files.read_model(masks), "not a FLAME model: v_template is missing"),
        (lambda: flame_files.read_model(lid), "a ndarray, not named arrays"),
        (lambda: flame_files.read_model(cut), "cut.pkl"),
        (lambda: flame_files.read_model(tmp_path / "no.pkl"), "No such file"),
        (
            lambda: flame_files.read_model(changed(v_template=np.zeros((6890, 3)))),
            "v_template is 6890 x 3, not 5023 x 3",
        ),
        (lambda: flame_files.read_model(changed(v_template=holes)), "v_template contains NaN"),
        (lambda: flame_files.read_model(changed(f=good["f"] + 5000)), "not in 0 to 5022"),
        (lambda: flame_files.read_model(changed(weights="none")), "weights is no array of numbers but a str"),
        (lambda: flame_files.read_model(changed(posedirs=None)), "posedirs is missing"),
        (
            lambda: flame_files.read_model(changed(kintree_table=np.zeros((2, 5), int))),
            "parents of the joints",
        ),
        (lambda: flame_files.read_eyelids(lid, masks), "an eyelid of SMIRK"),
        (lambda: flame_files.read_eyelids(lid, tmp_path / "r.npy"), "No such file"),
    ):
        with pytest.raises(WeightsError, match=message) as info:
            read()
        assert "\n" not in str(info.value)


def test_extracting_does_not_import_flame() -> None:
    code = "import sys, ig3d.extract.run, ig3d.extract.preview; print([m for m in sys.modules if 'faces.flame' in m])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
