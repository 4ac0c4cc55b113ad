"""``.tflite`` graphs: the same numbers on both back ends and in any batch, and one line for what is no such graph."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_tflite import Maker, classifier

from ig3d.errors import MissingExtra, ModelError
from ig3d.extract.engine import load_tflite
from ig3d.extract.tflite_ops import OPERATORS
from ig3d.extract.weights import find_weights

BACKENDS = ("openvino", "torch")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def outputs(content: bytes, *inputs: np.ndarray, batch: int = 2) -> tuple[np.ndarray, ...]:
    """Outputs that both back ends agree on."""
    fast, plain = (load_tflite(content, name="x", batch=batch, backend=name)(*inputs) for name in BACKENDS)
    for one, other in zip(fast, plain, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * max(1, np.abs(other).max()))
    return fast


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def native(content: bytes, rows: np.ndarray) -> list[np.ndarray]:
    """Outputs of OpenVINO's own reader, row by row: it has no way to give every graph a batch."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.tflite"
        path.write_bytes(content)
        model = openvino.Core().read_model(path)
        model.reshape([1, *rows.shape[1:]])
        run = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = [[np.array(one) for one in run([row[None]]).values()] for row in rows]
    return [np.stack(one).reshape(len(rows), *_without_one(one[0].shape)) for one in zip(*found, strict=True)]


def _without_one(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if shape[:1] == (1,) else shape


# --- the face networks ---


@pytest.mark.parametrize(
    ("member", "row", "shapes"),
    [
        ("face_detector.tflite", (128, 128, 3), [(896, 16), (896, 1)]),
        ("face_landmarks_detector.tflite", (256, 256, 3), [(1, 1, 1434), (1, 1, 1), (1,)]),
        ("face_blendshapes.tflite", (146, 2), [(52,)]),
    ],
)
def test_face_networks_take_batches_on_both_back_ends(
    member: str, row: tuple[int, ...], shapes: list[tuple[int, ...]]
) -> None:

    with zipfile.ZipFile(find_weights("facemesh")) as bundle:
        content = bundle.read(member)
    scale = 256 if member == "face_blendshapes.tflite" else 1
    rows = np.random.default_rng(0).random((3, *row), np.float32) * scale
    together = outputs(content, rows)
    assert [output.shape for output in together] == [(3, *shape) for shape in shapes]
    for ours, other in zip(together, native(content, rows), strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


def test_rows_do_not_depend_on_the_other_rows() -> None:
    rows = draw(5, 8, 8, 3)
    for name in BACKENDS:
        network = load_tflite(classifier(), name="x", batch=4, backend=name)
        (together,) = network(rows)
        alone = np.concatenate([network(row[None])[0] for row in rows])
        assert np.array_equal(together, alone)
        assert network(rows[:0])[0].shape == (0, 7)
        assert network.runtime.startswith(f"{name} ") and network.runtime.endswith(" cpu")


# --- operators ---


WINDOW = {"StrideH": 2, "StrideW": 2, "DilationHFactor": 1, "DilationWFactor": 1, "Padding": 0}
POOL = {"FilterHeight": 3, "FilterWidth": 2, "StrideH": 2, "StrideW": 2}
IMAGES = (1, 7, 6, 4)
INTEGERS = np.int32


@pytest.mark.parametrize(
    ("kind", "constants", "shape", "out", "options"),
    [
        (
            "CONV_2D",
            [draw(5, 3, 3, 4), draw(5)],
            IMAGES,
            (1, 4, 3, 5),
            {**WINDOW, "FusedActivationFunction": 3},
        ),
        ("CONV_2D", [draw(5, 3, 2, 4)], IMAGES, (1, 3, 3, 5), {**WINDOW, "Padding": 1}),
        (
            "CONV_2D",
            [draw(4, 2, 2, 4)],
            IMAGES,
            (1, 5, 4, 4),
            {**WINDOW, "StrideH": 1, "StrideW": 1, "DilationHFactor": 2, "DilationWFactor": 2, "Padding": 1},
        ),
        (
            "DEPTHWISE_CONV_2D",
            [draw(1, 3, 3, 8), draw(8)],
            IMAGES,
            (1, 4, 3, 8),
            {**WINDOW, "DepthMultiplier": 2},
        ),
        ("AVERAGE_POOL_2D", [], IMAGES, (1, 4, 3, 4), {**POOL, "Padding": 0}),
        ("MAX_POOL_2D", [], IMAGES, (1, 4, 3, 4), {**POOL, "Padding": 0}),
        ("MAX_POOL_2D", [], IMAGES, (1, 3, 3, 4), {**POOL, "Padding": 1}),
        ("FULLY_CONNECTED", [draw(3, 4), draw(3)], (1, 4), (1, 3), {"FusedActivationFunction": 1}),
        ("ADD", [draw(4)], IMAGES, IMAGES, {}),
        ("SUB", [draw(1, 7, 6, 1)], IMAGES, IMAGES, {}),
        ("MUL", [draw(1, 1, 1, 4)], IMAGES, IMAGES, {}),
        ("DIV", [draw(6, 4)], IMAGES, IMAGES, {}),
        ("MAXIMUM", [draw(1)], (1, 5), (1, 5), {}),
        ("SQUARED_DIFFERENCE", [draw(5)], (1, 5), (1, 5), {}),
        ("PRELU", [draw(1, 1, 4)], IMAGES, IMAGES, {}),
        ("PRELU", [draw(7, 6, 4)], IMAGES, IMAGES, {}),
        ("LEAKY_RELU", [], IMAGES, IMAGES, {"Alpha": 0.3}),
        *(
            (kind, [], IMAGES, IMAGES, {})
            for kind in ("RELU", "RELU6", "LOGISTIC", "TANH", "HARD_SWISH", "ELU", "EXP")
        ),
        *((kind, [], IMAGES, IMAGES, {}) for kind in ("ABS", "NEG", "SQUARE", "FLOOR")),
        ("SOFTMAX", [], (1, 5), (1, 5), {"Beta": 2.0}),
        ("L2_NORMALIZATION", [], (1, 5), (1, 5), {}),
        ("MEAN", [np.array([1, 2], INTEGERS)], IMAGES, (1, 4), {"KeepDims": False}),
        ("MEAN", [np.array([-1], INTEGERS)], IMAGES, (1, 7, 6, 1), {"KeepDims": True}),
        ("SUM", [np.array(1, INTEGERS)], IMAGES, (1, 6, 4), {"KeepDims": False}),
        ("REDUCE_MAX", [np.array([2], INTEGERS)], IMAGES, (1, 7, 1, 4), {"KeepDims": True}),
        ("PAD", [np.array([[0, 0], [1, 2], [0, 1], [3, 0]], INTEGERS)], IMAGES, (1, 10, 7, 7), {}),
        ("RESHAPE", [np.array([1, -1, 2], INTEGERS)], IMAGES, (1, 84, 2), {"NewShape": (1, 84, 2)}),
        ("TRANSPOSE", [np.array([0, 3, 1, 2], INTEGERS)], IMAGES, (1, 4, 7, 6), {}),
        ("CONCATENATION", [draw(1, 7, 6, 2)], IMAGES, (1, 7, 6, 6), {"Axis": -1}),
        ("CONCATENATION", [draw(1, 2, 6, 4)], IMAGES, (1, 9, 6, 4), {"Axis": 1}),
        (
            "STRIDED_SLICE",
            [np.array(bounds, INTEGERS) for bounds in ([0, 1, -1, 0], [1, 6, 0, 2], [1, 2, -2, 1])],
            IMAGES,
            (1, 3, 3, 2),
            {"BeginMask": 1, "EndMask": 1},
        ),
        (
            "SLICE",
            [np.array(bounds, INTEGERS) for bounds in ([0, 2, 0, 1], [1, 3, -1, 2])],
            IMAGES,
            (1, 3, 6, 2),
            {},
        ),
        ("SQUEEZE", [], (1, 1, 6, 1), (1, 6), {"SqueezeDims": (1, 3)}),
        ("EXPAND_DIMS", [np.array(1, INTEGERS)], (1, 6), (1, 1, 6), {}),
        ("RESIZE_BILINEAR", [np.array([10, 9], INTEGERS)], IMAGES, (1, 10, 9, 4), {"HalfPixelCenters": True}),
        ("RESIZE_BILINEAR", [np.array([14, 3], INTEGERS)], IMAGES, (1, 14, 3, 4), {"AlignCorners": True}),
        ("RESIZE_NEAREST_NEIGHBOR", [np.array([14, 12], INTEGERS)], IMAGES, (1, 14, 12, 4), {}),
        ("BATCH_MATMUL", [draw(1, 4, 5)], (1, 3, 4), (1, 3, 5), {}),
    ],
)
def test_an_operator_gives_what_openvinos_own_reader_gives(
    kind: str,
    constants: list[np.ndarray],
    shape: tuple[int, ...],
    out: tuple[int, ...],
    options: dict[str, Any],
) -> None:
    made = Maker()
    x = made.tensor(shape)
    content = made.write(
        [x], [made.op(kind, [x, *(made.constant(one, one.dtype) for one in constants)], out, **options)]
    )
    rows = draw(3, *shape[1:])
    (ours,) = outputs(content, rows)
    assert ours.shape == (3, *out[1:])
    np.testing.assert_allclose(ours, native(content, rows)[0], rtol=1e-5, atol=1e-5)


def test_constant_shapes_of_one_row_do_not_fold_a_batch() -> None:
    # as Keras flattens: the shape is computed, and begins with the batch
    made = Maker()
    x = made.tensor([1, 2, 3, 4])
    shape = made.op("SHAPE", [x], [4])
    first = made.op(
        "STRIDED_SLICE", [shape, *(made.constant([n], INTEGERS) for n in (0, 1, 1))], [], ShrinkAxisMask=1
    )
    wanted = made.op("PACK", [first, made.constant(24, INTEGERS)], [2], Axis=0)
    flat = made.op("RESHAPE", [x, wanted], [1, 24])
    both = made.op("CONCATENATION", [flat, flat], [2, 24], Axis=0)
    total = made.op("SUM", [both, made.constant([0], INTEGERS)], [24], KeepDims=False)
    rows = draw(5, 2, 3, 4)
    (result,) = outputs(made.write([x], [total]), rows)
    np.testing.assert_allclose(result, 2 * rows.reshape(5, 24), rtol=1e-6)


def test_integer_weights_are_scaled_and_integer_results_rounded() -> None:
    made = Maker()
    x = made.tensor([1, 3], dtype="int8", scale=(0.25,), zero_point=(3,))
    weights = np.array([[1, -2, 3], [4, 5, -6]], np.int8)
    w = made.constant(weights, np.int8, scale=(0.5, 0.25), zero_point=(1, 0))
    bias = made.constant([100, -100], np.int32, scale=(0.01,))
    content = made.write([x], [made.op("FULLY_CONNECTED", [x, w, bias], [1, 2])])
    rows = draw(4, 3)
    rounded = np.clip(np.round(rows / 0.25), -131, 124) * 0.25
    real = (weights - np.array([[1], [0]])) * np.array([[0.5], [0.25]])
    np.testing.assert_allclose(outputs(content, rows)[0], rounded @ real.T + [1, -1], rtol=1e-5, atol=1e-5)


# --- files that are no such graph ---


def refused(content: bytes) -> str:
    lines = set()
    for name in BACKENDS:
        with pytest.raises(ModelError) as caught:
            load_tflite(content, name="x.tflite", batch=2, backend=name)
        lines.add(str(caught.value))
    (line,) = lines
    assert "\n" not in line and line.startswith("x.tflite: ")
    return line


def test_other_and_damaged_files_are_refused() -> None:
    good = classifier()
    assert "not a .tflite file" in refused(b"")
    assert "not a .tflite file" in refused(b"PK\3\4" + bytes(1000))
    assert "damaged .tflite file" in refused(good[: len(good) // 2])
    assert "damaged .tflite file" in refused(good[:8])
    assert "damaged .tflite file" in refused(good[:8] + bytes(500))


def test_an_unknown_operator_is_named() -> None:
    for kind, custom, named in (
        ("CUSTOM", "TransformLandmarks", "operator 0 (CUSTOM 'TransformLandmarks') is not supported"),
        ("LSTM", "", "operator 0 (LSTM) is not supported"),
    ):
        made = Maker()
        x = made.tensor([1, 4])
        assert named in refused(made.write([x], [made.op(kind, [x], [1, 4], custom=custom)]))


def test_sizes_that_do_not_fit_are_named() -> None:
    made = Maker()
    x = made.tensor([1, 8, 8, 3])
    line = refused(
        made.write([x], [made.op("CONV_2D", [x, made.constant(draw(4, 3, 3, 5))], [1, 4, 4, 4], **WINDOW)])
    )
    assert "operator 0 (CONV_2D) does not fit its operands" in line and "(4, 5, 3, 3)" in line
    made = Maker()
    x = made.tensor([1, 8])
    short = made.tensor([4, 8], np.zeros(5, np.float32))
    assert "in 20 bytes" in refused(made.write([x], [made.op("FULLY_CONNECTED", [x, short], [1, 4])]))


def test_a_graph_of_enormous_tensors_is_refused_before_they_are_made() -> None:
    made = Maker()
    x = made.tensor([1, 50_000, 50_000, 3])
    assert "values for one image" in refused(made.write([x], [made.op("RELU", [x], [1, 50_000, 50_000, 3])]))
    made = Maker()
    x = made.tensor([1, 8])
    wide = made.constant([[0, 0], [0, 2**31 - 1]], np.int32)
    assert "operator 0 (PAD)" in refused(made.write([x], [made.op("PAD", [x, wide], [1, 8])]))


MUTATE = """
import sys
import numpy as np
from ig3d.errors import MissingExtra, ModelError
from ig3d.extract.engine import load_tflite

good = open(sys.argv[1], "rb").read()
loaded = 0
for seed in range(120):
    rng = np.random.default_rng(seed)
    content = bytearray(good)
    if seed % 4 == 0:
        content = content[: rng.integers(len(content))]
    elif seed % 4 == 1:
        del content[(at := int(rng.integers(len(content)))) : at + int(rng.integers(1, 40))]
    else:
        for _ in range(rng.integers(1, 5)):
            at = 4 * int(rng.integers(len(content) // 4))
            value = int(rng.choice([0, 1, -1, 2, 255, 2**31 - 1, -(2**31), int(rng.integers(256))]))
            content[at : at + 4] = value.to_bytes(4, "little", signed=True)
    try:
        load_tflite(bytes(content), name="x", batch=2, backend=sys.argv[2])(np.zeros((1, 8, 8, 3), np.float32))
        loaded += 1
    except ModelError as exc:
        assert "\\n" not in str(exc), exc
print(loaded)
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_mutated_files_end_in_one_line_or_in_a_network(backend: str, tmp_path: Path) -> None:
    if backend == "torch":
        pytest.importorskip("torch")
    (tmp_path / "x.tflite").write_bytes(classifier())
    ended = subprocess.run(
        [sys.executable, "-c", MUTATE, str(tmp_path / "x.tflite"), backend],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert 1 <= int(ended.stdout) < 100


def test_the_cpu_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "x.tflite").write_bytes(classifier())
    code = """
import sys
import numpy as np

sys.modules["torch"] = None  # as if it were not installed
from ig3d.errors import MissingExtra
from ig3d.extract.engine import load_tflite

content = open(sys.argv[1], "rb").read()
for device in ("cpu", "auto"):
    network = load_tflite(content, name="x", batch=2, device=device)
    assert network(np.zeros((3, 8, 8, 3), np.float32))[0].shape == (3, 7)
for options in ({"device": "cuda"}, {"backend": "torch"}):
    try:
        load_tflite(content, name="x", batch=2, **options)
    except MissingExtra as exc:
        assert "torch" in str(exc)
    else:
        raise AssertionError(options)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.tflite")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_a_second_start_reads_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    content, rows = classifier(), draw(3, 8, 8, 3)
    (first,) = load_tflite(content, name="x", batch=2)(rows)
    monkeypatch.setitem(sys.modules, "tflite", None)
    assert np.array_equal(load_tflite(content, name="x", batch=2)(rows)[0], first)
    with pytest.raises(MissingExtra, match="tflite"):
        load_tflite(content, name="x", batch=3)


def test_inputs_of_no_fixed_size_are_refused() -> None:
    for shape, signature in (((4, 8, 8, 3), ()), ((1, 1, 1, 3), (-1, -1, -1, 3))):
        made = Maker()
        x = made.tensor(shape, signature=signature)
        assert "export the network with fixed sizes" in refused(
            made.write([x], [made.op("RELU", [x], shape)])
        )


def test_a_cast_of_computed_values_to_integers_is_refused() -> None:
    made = Maker()
    x = made.tensor([1, 4], dtype="uint8")
    real = made.op("CAST", [x], [1, 4])
    np.testing.assert_array_equal(outputs(made.write([x], [real]), np.full((2, 4), 7.0))[0], 7)
    made = Maker()
    x = made.tensor([1, 4])
    assert "are converted to int32" in refused(made.write([x], [made.op("CAST", [x], [1, 4], dtype="int32")]))


def test_the_documentation_lists_the_operators() -> None:
    text = (Path(__file__).parents[1] / "docs" / "networks.md").read_text()
    assert all(f"`{kind}`" in text for kind in OPERATORS)


@pytest.mark.gpu
def test_the_gpu_gives_the_same_numbers() -> None:
    with zipfile.ZipFile(find_weights("facemesh")) as bundle:
        content = bundle.read("face_landmarks_detector.tflite")
    rows = np.random.default_rng(0).random((5, 256, 256, 3), np.float32)
    cpu, gpu = (load_tflite(content, name="x", batch=4, device=device) for device in ("cpu", "cuda"))
    assert gpu.runtime.endswith(" cuda")
    for one, other in zip(cpu(rows), gpu(rows), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(one).max())
    assert all(np.array_equal(one[:1], other) for one, other in zip(gpu(rows), gpu(rows[:1]), strict=True))


def test_openvino_is_imported_without_its_telemetry() -> None:
    code = "import sys, ig3d.extract.engine, openvino; print('openvino_telemetry.main' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"


def test_a_signal_after_networks_have_ended_does_not_kill_the_process(tmp_path: Path) -> None:
    (tmp_path / "a.tflite").write_bytes(classifier())
    code = (
        "import gc, os, pathlib, signal, sys\n"
        "from ig3d.extract.engine import load_tflite\n"
        "signal.signal(signal.SIGCHLD, lambda *_: None)\n"
        "content = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "first, second = (load_tflite(content, name='x', batch=batch) for batch in (1, 2))\n"
        "del first; gc.collect()\n"
        "del second; gc.collect()\n"
        "os.kill(os.getpid(), signal.SIGCHLD)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, tmp_path / "a.tflite"], check=False)
    assert ended.returncode == 0
