"""The safe reader against torch, NumPy, scipy and pickle themselves, and against files that mean harm."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import subprocess
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.sparse as sp

from ig3d.features.safe_pickle import Foreign, read_arrays

torch = pytest.importorskip("torch")
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def save(path: Path, content: Any, *, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def same_bits(array: np.ndarray, tensor: Any) -> bool:
    """Equal shape, type and bytes; bfloat16 compares as the float32 it is widened to."""
    expected = tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.resolve_conj().numpy()
    return (
        array.dtype == expected.dtype
        and array.shape == expected.shape
        and array.tobytes() == expected.tobytes()
    )


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Callable[..., type]:
    """Makes a class that pickles under the name of a package that is not installed; gone after the test."""

    def make(module: str, name: str, **body: Any) -> type:
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            if path not in sys.modules:
                monkeypatch.setitem(sys.modules, path, types.ModuleType(path))
            if end > 1:
                above = sys.modules[".".join(parts[: end - 1])]
                monkeypatch.setattr(above, parts[end - 1], sys.modules[path], raising=False)
        cls = type(name, (), {**body, "__module__": module})
        monkeypatch.setattr(sys.modules[module], name, cls, raising=False)
        return cls

    return make


class Python2Pickler(pickle._Pickler):
    """Writes strings and bytes as Python 2 wrote its 8-bit strings, and the module names of its time."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)
    OLD: ClassVar[dict[str, str]] = {
        "scipy.sparse._csc": "scipy.sparse.csc",
        "scipy.sparse._csr": "scipy.sparse.csr",
        "scipy.sparse._coo": "scipy.sparse.coo",
        "numpy._core.multiarray": "numpy.core.multiarray",
        "builtins": "__builtin__",
        "copyreg": "copy_reg",
    }

    def save_text(self, text: str | bytes) -> None:
        raw = text if isinstance(text, bytes) else text.encode("latin1")
        if self.proto == 0:
            self.write(b"S" + repr(raw)[1:].encode("ascii") + b"\n")
        else:
            self.write(b"T" + struct.pack("<i", len(raw)) + raw)
        self.memoize(text)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = obj.__module__ or pickle.whichmodule(obj, obj.__qualname__)
        self.write(f"c{self.OLD.get(module, module)}\n{name or obj.__qualname__}\n".encode())
        self.memoize(obj)

    dispatch[str] = dispatch[bytes] = save_text
    dispatch[type] = dispatch[types.FunctionType] = dispatch[types.BuiltinFunctionType] = save_global


def python2(content: Any, protocol: int) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=protocol, fix_imports=True).dump(content)
    return buffer.getvalue()


# ---- what it reads


TYPES = ["float64", "float32", "float16", "bfloat16", "complex64", "complex128"]
TYPES += ["int64", "int32", "int16", "int8", "uint8", "bool"]
NEW_TYPES = ["uint16", "uint32", "uint64"]  # torch cannot write these in the old format


@pytest.mark.parametrize(
    ("dtype", "zipped"), [*((t, z) for t in TYPES for z in (True, False)), *((t, True) for t in NEW_TYPES)]
)
def test_every_element_type_comes_bit_for_bit(tmp_path: Path, dtype: str, zipped: bool) -> None:
    bits = torch.randint(0, 256, (7 * 3 * 16,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    kind = getattr(torch, dtype)
    tensor = (bits % 2).bool()[:21].reshape(7, 3) if dtype == "bool" else bits.view(kind)[:21].reshape(7, 3)
    got = read_arrays(
        save(tmp_path / "x", {"a": tensor, "empty": tensor[:0], "one": tensor[3, 1]}, zipped=zipped)
    )
    assert same_bits(got["a"], tensor)
    assert got["empty"].shape == (0, 3)
    assert got["one"].shape == ()
    assert same_bits(got["one"], tensor[3, 1])


@FORMATS
def test_views_strides_and_shared_storages_are_as_in_torch(tmp_path: Path, zipped: bool) -> None:
    base = torch.arange(60, dtype=torch.float32)
    content = {
        "base": base,
        "transposed": base.reshape(6, 10).T,
        "stepped": base[5::7],
        "expanded": base[3:4].expand(4, 5),
        "cube": base.reshape(3, 4, 5).permute(2, 0, 1)[1:4, ::2],
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "size": torch.Size([3, 4]),
    }
    path = save(tmp_path / "x", content, zipped=zipped)
    got, expected = read_arrays(path), torch.load(path, weights_only=True)
    for name in ("base", "transposed", "stepped", "expanded", "cube", "parameter"):
        assert same_bits(got[name], expected[name].detach())
    assert got["size"] == (3, 4)
    got["base"][5] = -1.0  # writable, and the views see it: one storage was read, once
    assert got["stepped"][0] == -1.0
    assert np.shares_memory(got["base"], got["cube"])


def test_a_lightning_checkpoint_with_objects_of_absent_packages(
    tmp_path: Path, foreign: Callable[..., type], monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = foreign("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    config, node = (
        foreign(f"omegaconf.{m}", n) for m, n in (("dictconfig", "DictConfig"), ("nodes", "AnyNode"))
    )
    hyper, leaf = config(), node()
    leaf.__dict__.update(_val=50, _parent=hyper)  # OmegaConf's nodes know their parents
    hyper.__dict__.update(_content={"n_exp": leaf}, _flags=collections.defaultdict(dict, a=1))
    state = OrderedDict(a=torch.rand(3, 4), b=torch.rand(2))
    state._metadata = OrderedDict(version=1)  # type: ignore[attr-defined]
    content = {
        "epoch": 10,
        "state_dict": state,
        "callbacks": {callback: {"best": torch.tensor(3.25)}},
        "hyper_parameters": hyper,
        "hparams_type": config,
        "names": {"a", "b"},
        "none": None,
    }
    path = save(tmp_path / "x.ckpt", content)
    for name in [name for name in sys.modules if name.startswith(("pytorch_lightning", "omegaconf"))]:
        monkeypatch.delitem(sys.modules, name)
    got = read_arrays(path)
    assert got["epoch"] == 10
    assert got["none"] is None
    assert list(got["state_dict"]) == ["a", "b"]
    assert all(same_bits(got["state_dict"][key], state[key]) for key in state)
    (key,) = got["callbacks"]
    assert key.name == "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
    assert got["callbacks"][key]["best"] == np.float32(3.25)
    assert got["hyper_parameters"].name == "omegaconf.dictconfig.DictConfig"
    assert got["hyper_parameters"].state["_flags"] == {"a": 1}
    leaf_read = got["hyper_parameters"].state["_content"]["n_exp"]
    assert (leaf_read.name, leaf_read.state["_val"]) == ("omegaconf.nodes.AnyNode", 50)
    assert leaf_read.state["_parent"].state is None  # the object around it, not once more
    assert sorted(got["names"]) == ["a", "b"]
    assert not any(name.startswith(("pytorch_lightning", "omegaconf")) for name in sys.modules)


def test_official_layouts_of_smirk_and_deca(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(1)
    smirk = {
        "smirk_encoder.pose_encoder.encoder.conv_stem.weight": torch.randn(16, 3, 3, 3, generator=g),
        "smirk_encoder.pose_encoder.encoder.bn1.num_batches_tracked": torch.tensor(1000),
    }
    network = OrderedDict((f"layers.{i}.weight", torch.randn(8, 5, generator=g)) for i in (0, 2))
    adam = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))])
    deca = {
        "E_flame": network,
        "E_detail": network,
        "D_detail": OrderedDict(),
        "opt": adam.state_dict(),
        "batch_size": 6,
    }
    got = read_arrays(save(tmp_path / "SMIRK_em1.pt", smirk))
    assert got.keys() == smirk.keys()
    assert all(same_bits(got[key], smirk[key]) for key in smirk)
    got = read_arrays(save(tmp_path / "deca_model.tar", deca, zipped=False))
    assert got["batch_size"] == 6
    assert got["opt"]["param_groups"][0]["lr"] == 1e-3
    assert got["D_detail"] == {}
    assert all(same_bits(got["E_detail"][key], network[key]) for key in network)


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_python_2_pickles_with_chumpy_and_scipy(
    tmp_path: Path, foreign: Callable[..., type], protocol: int
) -> None:
    rng = np.random.default_rng(2)
    shapes, regressor = rng.normal(size=(6, 3, 4)), sp.random(5, 9, 0.4, "csc", random_state=3)
    ch, select = foreign("chumpy.ch", "Ch")(), foreign("chumpy.reordering", "Select")()
    ch.__dict__.update(x=shapes, _dirty_vars={"x"}, _itr=None, _depends_on_deps={}, _status="new")
    select.__dict__.update(a=ch, idxs=np.array([3, 5, 8, 71]), preferred_shape=(2, 2))
    content = {
        "shapedirs": ch,
        "chosen": select,
        "J_regressor": regressor,
        "csr": regressor.tocsr(),
        "coo": regressor.tocoo(),
        "f": rng.integers(0, 2**32, (7, 3), dtype=np.uint32),
        "fortran": np.asfortranarray(shapes[0]),
        "big": shapes.astype(">f4"),
        "text": np.array(["a", "bcd"], "S3"),
        "scalar": np.float32(1.5),
        "style": "caf\xe9",
    }
    got = read_arrays(write(tmp_path / "flame.pkl", python2(content, protocol)))
    for name in ("f", "fortran", "big", "text"):
        np.testing.assert_array_equal(got[name], content[name])
    assert got["f"].dtype == np.uint32
    np.testing.assert_array_equal(got["shapedirs"], shapes)
    np.testing.assert_array_equal(got["chosen"], shapes.ravel()[[3, 5, 8, 71]].reshape(2, 2))
    for name in ("J_regressor", "csr", "coo"):
        np.testing.assert_array_equal(got[name], regressor.toarray())
    assert got["scalar"] == 1.5
    assert got["style"] == "caf\xe9"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    content = {
        "array": np.arange(12.0).reshape(3, 4)[::-1],
        "objects": np.array([[1, "a"], [None, 2.5]], object),
        "bytes": b"\x00\xff",
        "bytearray": bytearray(b"abc"),
        "large": 2**100,
        "set": {1},
        "frozen": frozenset([2]),
        ("a", 1): 1 + 2j,
        "sparse": sp.csr_matrix(np.eye(3)),
        "twice": [[1, 2]] * 2,
    }
    got = read_arrays(write(tmp_path / "x.pkl", pickle.dumps(content, protocol)))
    np.testing.assert_array_equal(got["array"], content["array"])
    assert got["objects"] == [[1, "a"], [None, 2.5]]
    assert (got["bytes"], got["bytearray"], got["large"]) == (b"\x00\xff", b"abc", 2**100)
    assert (got["set"], got["frozen"], got["a", 1], got["twice"]) == ([1], [2], 1 + 2j, [[1, 2], [1, 2]])
    np.testing.assert_array_equal(got["sparse"], np.eye(3))


def test_npy_and_npz(tmp_path: Path) -> None:
    table = {
        "rows": np.arange(6).reshape(2, 3),
        "torch": torch.arange(5.0),
        "half": torch.ones(2, dtype=torch.float16),
    }
    box = np.empty((), object)
    box[()] = table
    np.save(tmp_path / "landmark_embedding.npy", box, allow_pickle=True)
    got = read_arrays(tmp_path / "landmark_embedding.npy")
    np.testing.assert_array_equal(got["rows"], table["rows"])
    assert same_bits(got["torch"], table["torch"])
    assert same_bits(got["half"], table["half"])
    np.save(tmp_path / "plain.npy", np.eye(4, dtype=">f8"))
    np.testing.assert_array_equal(read_arrays(tmp_path / "plain.npy"), np.eye(4))
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(1000), b=np.arange(3))
    got = read_arrays(tmp_path / "x.npz")
    assert got["a"].shape == (1000,)
    np.testing.assert_array_equal(got["b"], [0, 1, 2])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_weights_of_a_torchscript_file_without_its_code(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).eval()
    torch.jit.trace(module, torch.ones(2, 3)).save(str(tmp_path / "x.pt"))
    got = read_arrays(tmp_path / "x.pt")
    assert isinstance(got, Foreign)
    for name, part in module.named_children():
        for key, tensor in part.state_dict().items():
            assert same_bits(got.state[name].state[key], tensor)


def test_types_that_numpy_lacks_stay_inert(tmp_path: Path) -> None:
    got = read_arrays(save(tmp_path / "x", {"a": torch.ones(2), "f8": torch.ones(4).to(torch.float8_e4m3fn)}))
    assert isinstance(got["f8"], Foreign)
    np.testing.assert_array_equal(got["a"], [1, 1])


def test_torch_is_not_needed(tmp_path: Path) -> None:
    path = save(tmp_path / "x", {"a": torch.arange(3)})
    code = (
        "import sys; from ig3d.features.safe_pickle import read_arrays; got = read_arrays(sys.argv[1])['a']; "
        "print(got.tolist(), 'torch' in sys.modules, 'scipy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[0,", "1,", "2]", "False", "False"]
