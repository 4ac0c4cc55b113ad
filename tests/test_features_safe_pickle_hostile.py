"""The safe reader on files that mean harm, claim what they do not hold, or are damaged: nothing runs, one line."""

from __future__ import annotations

import copyreg
import io
import pickle
import random
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from test_features_safe_pickle import FORMATS, python2, save, write

from ig3d.errors import WeightsError
from ig3d.features import safe_pickle
from ig3d.features.safe_pickle import Foreign, read_arrays

torch = pytest.importorskip("torch")


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
    ("payload", "reason"),
    [
        (b"]" * 100_000 + b"a" * 99_999 + b".", "nested more than 100 deep"),
        (b"\x80\x02" + b")" + b"\x85" * 100_000 + b".", "nested more than 100 deep"),
        (
            b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s.",
            "slow to hash",
        ),  # its hash would overflow
        (b"cx\ny\n)R" + b"cx\ny\n)R" * 30_000 + b"b" * 30_000 + b".", "nested more than 100 deep"),
        (
            b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (i, i - 1, i - 1) for i in range(1, 90)) + b".",
            "too often",
        ),
        (b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.", "cut short"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.", "cut short"),
        (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"x.", "unknown"),
        (b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b"x.", "cut short"),
        (b"I" + b"9" * 100_000 + b"\n.", "ValueError"),
    ],
    ids=["lists", "tuples", "key", "objects", "laughs", "text", "bytes", "frame", "long", "digits"],
)
def test_depth_and_size_that_a_file_cannot_have(tmp_path: Path, payload: bytes, reason: str) -> None:
    path = write(tmp_path / "x", payload)
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=reason):
            read_arrays(path)
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()


def test_a_huge_memory_number_costs_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "x", b"\x80\x02]r\xff\xff\xff\xff.")
    tracemalloc.start()
    with pytest.raises(WeightsError, match="memo index 4294967295"):
        read_arrays(path)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def multiples(count: int) -> bytes:
    """Keys of one hash: multiples of 2**61 - 1, each with a value of None."""
    return b"".join(pickle.dumps(n * (2**61 - 1), 2)[2:-1] + b"N" for n in range(1, count))


# An array of no objects in 2**40 rows: as nested lists it would fill the memory
OBJECTS = pickle.dumps(np.empty((7, 0), object), 2).replace(
    b"K\x07", b"\x8a\x06" + (2**40).to_bytes(6, "little")
)
HALVES = b")" + b"2\x86" * 60  # a tuple of twice the tuple before: 2**60 parts


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\x80\x02}" + HALVES + b"K\x01s.", "slow to hash"),
        (b"\x80\x02}(" + HALVES + b"K\x01u.", "slow to hash"),
        (b"\x80\x02(" + HALVES + b"K\x01d.", "slow to hash"),
        (b"\x80\x04\x8f(" + HALVES + b"\x90.", "slow to hash"),
        (b"\x80\x04(" + HALVES + b"\x91.", "slow to hash"),
        (b"\x80\x04cx\ny\n)\x81(" + HALVES + b"K\x01u.", "slow to hash"),
        (b"\x80\x02}q\x00" + HALVES + b"q\x010h\x00h\x01K\x01s.", "slow to hash"),  # by memory
        (b"\x80\x02}ctorch\nSize\n((" + b"K\x01" * 200 + b"ttRK\x01s.", "slow to hash"),
        (b"\x80\x02}(" + multiples(1000) + b"u.", "slow to hash"),
        (
            b"\x80\x02}(" + b"".join(b"M%sK\x01\x86N" % struct.pack("<H", i) for i in range(20_000)) + b"u.",
            "slow to",
        ),
        (b"\x80\x02}(c__builtin__\ncomplex\nK\x01K\x02\x86RNu.", "slow to hash"),
        (OBJECTS, "much larger than the file"),
        (b"\x80\x02}\x8b" + struct.pack("<i", 300) + bytes(299) + b"\x01K\x01s.", "more than 255 bytes"),
        (b"(" + b"".join(b"cm\nn%d\n" % i for i in range(20_000)) + b"l.", "more names"),
    ],
    ids=[
        "item",
        "items",
        "dict",
        "set",
        "frozenset",
        "object",
        "memory",
        "size",
        "multiples",
        "tuples",
        "complex",
        "lists",
        "integer",
        "names",
    ],
)
def test_little_that_would_take_long(tmp_path: Path, payload: bytes, reason: str) -> None:
    with pytest.raises(WeightsError, match=reason):
        read_arrays(write(tmp_path / "x", payload))


def test_a_frame_that_ends_inside_an_instruction_changes_nothing(tmp_path: Path) -> None:
    """Python's reader in C would skip the first bytes of the instruction, and read what was not checked."""
    inner = b"N\x96\x02\x00\x00\x00\x00\x00\x00\x00xy"
    for length in range(len(inner) + 4):
        payload = b"\x80\x04\x95" + struct.pack("<Q", length) + inner + b"."
        assert read_arrays(write(tmp_path / "x", payload)) == b"xy"


def test_a_state_does_not_reach_arrays_or_classes(tmp_path: Path) -> None:
    """NumPy's own ``__setstate__`` trusts its argument; attributes of a class would be seen by the next file."""
    before = dict(vars(safe_pickle.Placeholder))
    state = b"}(X\x04\x00\x00\x00nameX\x01\x00\x00\x00xX\x09\x00\x00\x00__class__K\x01u"
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x03tQ"
    for payload in (b"cx\ny\n)\x81" + state + b"b.", storage + state + b"b."):
        outer = io.BytesIO()
        with zipfile.ZipFile(outer, "w") as archive:
            archive.writestr("x/data.pkl", b"\x80\x02" + payload)
            archive.writestr("x/data/0", struct.pack("<3f", 1, 2, 3))
        got = read_arrays(write(tmp_path / "x.pt", outer.getvalue()))
        if isinstance(got, Foreign):
            assert (got.name, got.state) == ("x.y", {"name": "x", "__class__": 1})
        else:
            np.testing.assert_array_equal(got, np.array([1, 2, 3], np.float32))
    with pytest.raises(WeightsError):
        read_arrays(write(tmp_path / "x", b"\x80\x02cx\ny\n" + state + b"b."))
    assert dict(vars(safe_pickle.Placeholder)) == before


@pytest.mark.filterwarnings("ignore:invalid escape")
def test_random_instructions_end_in_a_value_or_one_line(tmp_path: Path) -> None:
    """Python's reader in C must never see what could end the process."""
    draw = random.Random(7)
    pieces = [
        *(bytes([code]) for code in b"(}])0212tule\x85\x86\x87\x88\x89Nsaob\x81\x92\x8f\x90\x91\x94dRQ."),
        *(b"q" + bytes([n]) for n in range(4)),
        *(b"h" + bytes([n]) for n in range(4)),
        b"r\x10\x00\x00\x00",
        b"K\x05",
        b"X\x01\x00\x00\x00a",
        b"cnumpy\ndtype\n",
        b"ccollections\nOrderedDict\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"icollections\nOrderedDict\n",
        b"I01\n",
        b"S'x'\n",
        b"\x8c\x01b",
        b"\x96\x02\x00\x00\x00\x00\x00\x00\x00xy",
    ]
    values = 0
    for _ in range(800):
        payload = b"\x80\x04" + b"".join(draw.choices(pieces, k=draw.randrange(1, 40))) + b"."
        try:
            read_arrays(write(tmp_path / "x", payload))
            values += 1
        except WeightsError as error:
            assert str(error).isprintable()
    assert values > 20


def test_an_object_inside_itself_ends(tmp_path: Path) -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    got = read_arrays(write(tmp_path / "x", pickle.dumps(loop)))
    assert got[0] == 1
    assert isinstance(got[1], Foreign)


def test_more_instructions_than_any_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_pickle, "MAX_INSTRUCTIONS", 1000)
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


@FORMATS
def test_an_expanded_tensor_is_no_storage_of_another(tmp_path: Path, zipped: bool) -> None:
    """Its elements share one position; those of a tensor with strides in it would be outside of the memory."""
    rebuild = torch._utils._rebuild_tensor_v2

    class Inner:
        def __reduce__(self) -> Any:
            storage = torch.ones(1)._typed_storage()
            return rebuild, (storage, 0, (1 << 20,), (0,), False, OrderedDict())

    class Outer:
        def __reduce__(self) -> Any:
            return rebuild, (Inner(), 0, (1 << 20,), (1,), False, OrderedDict())

    expanded = read_arrays(save(tmp_path / "x", {"a": Inner()}, zipped=zipped))["a"]
    assert expanded.strides == (0,)
    with pytest.raises(WeightsError, match="without a storage"):
        read_arrays(save(tmp_path / "y", {"a": Outer()}, zipped=zipped))


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
    rows = sp.csr_matrix((np.ones(3), [0, 1, 2], [0, 1, 2, 3, 3, 3]), shape=(5, 3))
    rows.indptr = np.array(
        [0, 2**62, -(2**63), -(2**62), 0, 3]
    )  # differences of 2**62, whose sum wraps around to 3
    with pytest.raises(WeightsError, match="inconsistent sizes"):
        read_arrays(write(tmp_path / "x", pickle.dumps(rows, 2)))
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
    with pytest.raises(WeightsError, match=r"a zip archive of other files \(readme.txt\)"):
        read_arrays(tmp_path / "x.zip")
