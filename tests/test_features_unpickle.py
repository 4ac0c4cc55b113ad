"""The safe reader against torch, NumPy, scipy and pickle themselves, and against files that mean harm."""

from __future__ import annotations

import collections
import copyreg
import io
import pickle
import random
import struct
import subprocess
import sys
import tracemalloc
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.sparse as sp

from ig3d.errors import WeightsError
from ig3d.features import inert
from ig3d.features.unpickle import Foreign, read_arrays

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


def test_types_that_numpy_lacks_stay_inert(tmp_path: Path) -> None:
    got = read_arrays(save(tmp_path / "x", {"a": torch.ones(2), "f8": torch.ones(4).to(torch.float8_e4m3fn)}))
    assert isinstance(got["f8"], Foreign)
    np.testing.assert_array_equal(got["a"], [1, 1])


def test_torch_is_not_needed(tmp_path: Path) -> None:
    path = save(tmp_path / "x", {"a": torch.arange(3)})
    code = (
        "import sys; from ig3d.features.unpickle import read_arrays; got = read_arrays(sys.argv[1])['a']; "
        "print(got.tolist(), 'torch' in sys.modules, 'scipy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[0,", "1,", "2]", "False", "False"]


# ---- what means harm


def call(module: str, name: str, arguments: bytes) -> list[bytes]:
    """One call in every way a pickle can ask for it; ``arguments`` leaves a tuple on the stack."""
    named = f"c{module}\n{name}\n".encode()
    stack = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name)) + b"\x93"
    inner = arguments[1:-1]  # without MARK and TUPLE
    return [
        named + arguments + b"R.",
        b"\x80\x04" + stack + arguments + b"R.",
        b"(" + inner + f"i{module}\n{name}\n".encode() + b".",
        b"(" + named + inner + b"o.",
        b"\x80\x02" + named + arguments + b"\x81.",
        b"\x80\x04" + named + arguments + b"}\x92.",
        b"\x80\x02}" + named + arguments + b"RK\x01s.",  # as a key
        b"\x80\x02" + named + b")R" + arguments + b"b.",  # as a state
    ]


def test_nothing_that_a_file_asks_for_is_called(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    command = f"touch {trace}"
    text = b"(X" + struct.pack("<I", len(command)) + command.encode() + b"t"
    python = f"open({str(trace)!r}, 'w')"
    code = b"(X" + struct.pack("<I", len(python)) + python.encode() + b"t"
    payloads = [
        payload
        for module, name, arguments in (
            ("os", "system", text),
            ("posix", "system", text),
            ("subprocess", "getoutput", text),
            ("builtins", "eval", code),
            ("__builtin__", "eval", code),
            ("builtins", "exec", code),
        )
        for payload in call(module, name, arguments)
    ]
    for payload in payloads:
        eval_like = write(tmp_path / "x.pkl", payload)
        got = read_arrays(eval_like)
        assert isinstance(got, (Foreign, dict))
        outer = io.BytesIO()
        with zipfile.ZipFile(outer, "w") as archive:
            archive.writestr("x/data.pkl", payload)
        read_arrays(write(tmp_path / "x.pt", outer.getvalue()))
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
        read_arrays(write(tmp_path / "x.npy", header.getvalue() + payload))
        nested = pickle.dumps(payload, 2)[2:-1]
        read_inner = b"\x80\x02ctorch.storage\n_load_from_bytes\n" + nested + b"\x85R."
        with pytest.raises(WeightsError):
            read_arrays(write(tmp_path / "y.pkl", read_inner))
        assert not trace.exists()
    pickle.loads(payloads[0])  # the payload is real
    assert trace.exists()


def test_a_dangerous_object_comes_back_as_inert_data(tmp_path: Path) -> None:
    got = read_arrays(write(tmp_path / "x", b"cos\nsystem\n(S'rm -rf x'\ntR."))
    assert (got.name, got.args, got.state) == ("os.system", ("rm -rf x",), None)
    with pytest.raises(AttributeError):
        got.name = "other"


def test_a_class_by_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copyreg.add_extension("ntpath", "join", 0x70)
    try:
        for opcode in (b"\x82\x70", b"\x83\x70\x00", b"\x84\x70\x00\x00\x00"):
            with pytest.raises(WeightsError, match="a class by number"):
                read_arrays(write(tmp_path / "x", b"\x80\x02" + opcode + b"."))
    finally:
        copyreg.remove_extension("ntpath", "join", 0x70)


@pytest.mark.parametrize(
    "payload",
    [
        b"ccollections\nOrderedDict\n(dS'fromkeys'\nI1\nsb.",  # a state for a class
        b"cnumpy.core.multiarray\n_reconstruct\n}b.",
        b"](lb.",
        b"cos\nsystem\n)R)R.",  # a call of a result
        b"I1\n(tR.",
        b"](a.",
        b"cos\nsystem\nI1\na.",
        b"}]I1\ns.",  # a list as a key
        b"P1\n.",
        b"\x80\x05\x97.",
        b"\x80\x63.",
        b"\xfe.",
        b"0.",
        b"g7\n.",
        b"cos\x1b[31m\nx\nI1\na.",
    ],
)
def test_tricks_are_refused_in_one_line(tmp_path: Path, payload: bytes) -> None:
    before = dict(vars(OrderedDict))
    with pytest.raises(WeightsError) as info:
        read_arrays(write(tmp_path / "x", payload))
    assert str(info.value).isprintable()
    assert dict(vars(OrderedDict)) == before


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"]" * 100_000 + b"a" * 99_999 + b".", "nested more than 100 deep"),
        (b"\x80\x02" + b")" + b"\x85" * 100_000 + b".", "nested more than 100 deep"),
        (
            b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s.",
            "a key nested too deep",
        ),  # its hash would overflow
        (b"cx\ny\n)R" + b"cx\ny\n)R" * 30_000 + b"b" * 30_000 + b".", "nested more than 100 deep"),
        (
            b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (i, i - 1, i - 1) for i in range(1, 90)) + b".",
            "too often",
        ),
        (b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.", "cut short"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.", "cut short"),
        (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"x.", "KeyError"),
        (b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b"x.", "cut short"),
        (b"I" + b"9" * 100_000 + b"\n.", "ValueError"),
    ],
    ids=["lists", "tuples", "key", "objects", "laughs", "text", "bytes", "frame", "long", "digits"],
)
def test_depth_and_size_that_a_file_cannot_have(tmp_path: Path, payload: bytes, said: str) -> None:
    path = write(tmp_path / "x", payload)
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=said):
            read_arrays(path)
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()


def test_a_huge_memory_number_costs_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "x", b"\x80\x02]r\xff\xff\xff\xff.")
    tracemalloc.start()
    assert read_arrays(path) == []
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_an_object_inside_itself_ends(tmp_path: Path) -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    got = read_arrays(write(tmp_path / "x", pickle.dumps(loop)))
    assert got[0] == 1
    assert isinstance(got[1], Foreign)


def test_more_instructions_than_any_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inert, "MAX_READS", 1000)
    with pytest.raises(WeightsError, match="more instructions than any checkpoint"):
        read_arrays(write(tmp_path / "x", b"(" + b"}" * 2000 + b"l."))


def rewritten(path: Path, tensor: Any, *, zipped: bool, **changes: Any) -> Path:
    """A torch file of one tensor whose rebuild arguments are others than the storage has."""
    real = torch._utils._rebuild_tensor_v2

    class Lie:
        def __reduce__(self) -> Any:
            arguments = {
                "offset": tensor.storage_offset(),
                "size": tuple(tensor.shape),
                "stride": tensor.stride(),
            }
            arguments |= changes
            return real, (tensor._typed_storage(), *arguments.values(), False, OrderedDict())

    return save(path, {"a": Lie()}, zipped=zipped)


@FORMATS
@pytest.mark.parametrize(
    "changes",
    [
        {"size": (5, 5)},
        {"size": (2**40,)},
        {"stride": (1000, 1)},
        {"stride": (-1, 1)},
        {"offset": 5},
        {"offset": -1},
        {"offset": 2**70},
        {"size": (2**31, 2**31, 2**31), "stride": (0, 0, 0)},
        {"size": (2**34,), "stride": (0,)},
        {"size": (2, 3), "stride": (1,)},
        {"size": (2.0, 3), "stride": (3, 1)},
        {"size": (1,) * 40, "stride": (0,) * 40},
    ],
    ids=str,
)
def test_tensors_that_reach_outside_their_storage(
    tmp_path: Path, changes: dict[str, Any], zipped: bool
) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    honest = read_arrays(rewritten(tmp_path / "y", tensor, zipped=zipped))
    np.testing.assert_array_equal(honest["a"], tensor.numpy())
    with pytest.raises(WeightsError, match=r"tensor|dimensions|larger than the file"):
        read_arrays(rewritten(tmp_path / "x", tensor, zipped=zipped, **changes))


def test_arrays_that_claim_more_than_there_is(tmp_path: Path) -> None:
    sound = pickle.dumps(np.arange(6, dtype=np.uint8), 2)
    for shape in (b"K\x07\x85", b"\x8a\x08" + struct.pack("<q", 2**60) + b"\x85", b"J\xff\xff\xff\xff\x85"):
        with pytest.raises(WeightsError, match=r"an array of|dimensions"):
            read_arrays(write(tmp_path / "x", sound.replace(b"K\x06\x85", shape)))
    matrix = sp.csc_matrix((np.ones(1), [4], [0, 1]), shape=(5, 1))
    honest = pickle.dumps(matrix, 2)
    np.testing.assert_array_equal(read_arrays(write(tmp_path / "y", honest)), matrix.toarray())
    matrix.indices[:] = 90
    with pytest.raises(WeightsError, match="IndexError"):
        read_arrays(write(tmp_path / "x", pickle.dumps(matrix, 2)))
    large = sp.coo_matrix((1, 2**30))
    assert read_arrays(write(tmp_path / "x", pickle.dumps(large))).name == "scipy.sparse._coo.coo_matrix"


def test_a_small_file_cannot_ask_for_much(tmp_path: Path) -> None:
    block = sp.csc_matrix((4000, 4000))
    with pytest.raises(WeightsError, match="much larger than the file"):
        read_arrays(write(tmp_path / "x", pickle.dumps([block + 0 for _ in range(4)])))
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\0" * 100_000_000)
    with pytest.raises(WeightsError, match="unpacks to far more"):
        read_arrays(write(tmp_path / "x.npz", bomb.getvalue()))
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }"
    with pytest.raises(WeightsError, match="cut short"):
        read_arrays(write(tmp_path / "x.npy", header.ljust(127) + b"\n" + bytes(64)))


def samples(tmp_path: Path) -> dict[str, bytes]:
    content = {"a": torch.arange(6.0), "b": OrderedDict(c=torch.ones(2, 2))}
    np.savez(tmp_path / "s.npz", a=np.arange(5))
    np.save(tmp_path / "s.npy", np.arange(5))
    return {
        "zip": save(tmp_path / "s.pt", content).read_bytes(),
        "legacy": save(tmp_path / "s.tar", content, zipped=False).read_bytes(),
        "pickle": pickle.dumps({"a": np.arange(5), "b": {"c": [1.5, "x"]}}),
        "python2": python2({"a": np.arange(5), "b": "text"}, 0),
        "npz": (tmp_path / "s.npz").read_bytes(),
        "npy": (tmp_path / "s.npy").read_bytes(),
    }


def test_cut_files_are_refused(tmp_path: Path) -> None:
    for name, data in samples(tmp_path).items():
        read_arrays(write(tmp_path / name, data))
        for length in {0, 1, 2, 10, 30, len(data) // 3, len(data) // 2, len(data) - 30, len(data) - 1}:
            with pytest.raises(WeightsError) as info:
                read_arrays(write(tmp_path / name, data[:length]))
            assert "\n" not in str(info.value)


@pytest.mark.filterwarnings("ignore:invalid escape")  # of Python's, in a damaged string
def test_damaged_files_are_refused_or_inert_but_never_break(tmp_path: Path) -> None:
    draw = random.Random(4)
    for name, data in samples(tmp_path).items():
        path = tmp_path / name
        for _ in range(250):
            changed = bytearray(data)
            for _ in range(draw.choice((1, 1, 3, 20))):
                changed[draw.randrange(len(changed))] = draw.randrange(256)
            try:
                read_arrays(write(path, bytes(changed)))
            except WeightsError as error:
                assert str(error).isprintable(), error
    for size in (1, 100, 5000):
        with pytest.raises(WeightsError):
            read_arrays(write(tmp_path / "noise", bytes([0xEE]) + draw.randbytes(size)))


def test_a_changed_byte_of_a_tensor_shows_in_the_zip_format(tmp_path: Path) -> None:
    data = bytearray(samples(tmp_path)["zip"])
    at = bytes(data).index(struct.pack("<3f", 3.0, 4.0, 5.0))
    data[at] ^= 1
    with pytest.raises(WeightsError, match="CRC"):
        read_arrays(write(tmp_path / "x", bytes(data)))


def test_what_is_no_such_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        read_arrays(tmp_path / "absent")
    with pytest.raises(WeightsError, match="an empty file"):
        read_arrays(write(tmp_path / "empty", b""))
    with pytest.raises(WeightsError, match="a web page"):
        read_arrays(write(tmp_path / "page.pt", b"\n<!DOCTYPE html><html>log in</html>"))
    with pytest.raises(WeightsError, match="Is a directory"):
        read_arrays(tmp_path)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(WeightsError, match=r"a zip archive of other things \(readme.txt\)"):
        read_arrays(tmp_path / "x.zip")
