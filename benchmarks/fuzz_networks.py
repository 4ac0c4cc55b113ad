"""Valid models, studies and networks for ``fuzz_inputs.py``; kinds whose packages are missing are left out."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from fuzz_readers import CLASSES, NAMES, Basis, Reader, Shelf, class_folder, lines, run

STUDY = lines(
    "name: toy", "run: fuse", "options:", "  draws: 100", "  rules: [mean]", "grid:", "  head: [gbm, linear]"
)


def models(shelf: Shelf, basis: Basis) -> Iterator[Reader]:
    """Readers of fitted models, runs and studies."""
    out = basis.work / "f"
    run(
        "fuse", "--2d-logits", basis.npz, "--3d-store", basis.store, "--out", out, "--draws", 100,
        "--rules", "mean,stack,boost", "--jobs", 1, "--no-controls",
    )  # fmt: skip
    predict = ("predict", "FILE", "--2d-logits", basis.npz, "--3d-store", basis.store, "--out", "DIR/p.csv")
    yield shelf.reader("model", {"m.skops": (out / "model.skops").read_bytes()}, *predict)
    store = {"s.h5": Path(basis.store).read_bytes()}
    fuse = ("fuse", "--2d-logits", basis.npz, "--3d-store", "FILE", "--out", "DIR/f", "--rules", "mean")
    fuse += ("--draws", "100", "--jobs", "1", "--head", "linear", "--no-controls")
    yield shelf.reader("store fused", store, *fuse, kinds=("hashed", "hashed", "hdf5"))
    yield shelf.reader(
        "run", {}, "report", "DIR", "--out", "DIR/../report", copied=out, damaged=("record.json",)
    )
    study = (
        "ablate",
        "FILE",
        "--2d-logits",
        basis.npz,
        "--3d-store",
        str(basis.work / "none.h5"),
        "--out",
        "DIR/o",
    )
    yield shelf.reader("study", {"a.yaml": STUDY}, *study, refused=True)


def networks(shelf: Shelf, basis: Basis) -> Iterator[Reader]:
    """Readers of 2D networks, checkpoints and features."""
    pictures = class_folder(basis.work / "few", 9)
    logits = ("logits", str(pictures), "--dataset", "folder", "--device", "cpu", "--out", "DIR/x.npz")
    alone = (*logits, "--classes", NAMES, "--network", "FILE")
    with suppress(ModuleNotFoundError):
        sys.path.append(str(Path(__file__).parent.parent / "tests"))
        from made_up_tflite import classifier

        yield shelf.reader("tflite", {"x.tflite": classifier(side=16, classes=3)}, *alone)
    with suppress(ModuleNotFoundError):
        yield shelf.reader("onnx", {"x.onnx": onnx_graph()}, *alone)
    with suppress(ModuleNotFoundError):
        import timm
        import torch

        torch.manual_seed(0)
        torch.set_num_threads(1)
        handle = io.BytesIO()
        torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), handle)
        weights = {"w.pth": handle.getvalue()}
        timm_net = (
            *logits,
            "--classes",
            NAMES,
            "--network",
            "timm:test_resnet",
            "--size",
            "32",
            "--weights",
            "FILE",
        )
        yield shelf.reader("checkpoint", weights, *timm_net)
        yield shelf.reader("weights", weights, "weights", "add", "FILE", refused=True)
        net = basis.work / "net.safetensors"
        images = basis.work / "images"
        run(
            "train-2d",
            images,
            "--network",
            "test_resnet",
            "--size",
            32,
            "--epochs",
            1,
            "--device",
            "cpu",
            "--out",
            net,
        )
        yield shelf.reader("safetensors", {"x.safetensors": net.read_bytes()}, *logits, "--network", "FILE")
        yield shelf.reader("weights safetensors", {"w.safetensors": net.read_bytes()}, *timm_net)
    features = io.BytesIO()
    rng = np.random.default_rng(0)
    np.savez(
        features,
        ids=np.array(basis.ids),
        logits=basis.logits,
        classes=np.array(CLASSES),
        feature_network=np.array("toy"),
        features=rng.normal(size=(len(basis.ids), 4)).astype(np.float32),
    )
    fuse = (
        "fuse-features",
        "--features",
        "FILE",
        "--3d-store",
        basis.store,
        "--out",
        "DIR/o",
        "--device",
        "cpu",
    )
    yield shelf.reader(
        "features", {"x.npz": features.getvalue()}, *fuse, "--epochs", "1", "--seeds", "1", "--draws", "100",
        "--no-controls",
    )  # fmt: skip


def onnx_graph() -> bytes:
    """ONNX network: mean colours and a linear layer."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(size=(3, 3)), "b": rng.normal(size=3)}
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
            helper.make_node("Gemm", ["means", "w", "b"], ["logits"]),
        ],
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ("n", 3, 16, 16))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("n", 3))],
        [
            numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
            *(numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())
