"""Safe reader of checkpoints, pickles and array files: no class or function that a file names is imported or called.

A pickle is a program. It is read in three steps:

1. :func:`_scan` checks its instructions without executing them, and raises an error for those that are dangerous even
   for Python's restricted reader.
2. :class:`_Unpickler` builds lists, dicts, text and numbers. Each class that the file names is a new, empty subclass of
   :class:`Placeholder`, which only collects its arguments.
3. :class:`_Rebuilder` turns placeholders of the names in :mod:`.pickle_constructors` into arrays, and the others into
   :class:`Foreign` objects.

torch is not needed. Tensors of a torch file are outside of its pickle; they are read on demand in step 3.

References
----------
Python's ``pickle`` ("Restricting globals") and ``pickletools``. ``torch/serialization.py`` (2.4 to 2.15; both formats).
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

import numpy as np

from ..errors import WeightsError
from .pickle_constructors import (
    CONSTRUCTORS,
    Budget,
    Foreign,
    as_bytes,
    storage_array,
    torch_type,
    type_size,
)

__all__ = ["Foreign", "printable", "read_arrays"]

# A checkpoint of some thousand tensors has some hundred thousand instructions; each may take 200 bytes of memory.
MAX_INSTRUCTIONS = 20_000_000
MAX_NAMES = 10_000
MAX_KEY = 100  # parts of a key, nested tuples included
MAX_TUPLES = 10_000  # keys that are tuples, of which many can have the same hash
MAX_INTEGER = 2**61 - 2  # in a key: the hashes of larger integers collide with those of smaller ones
MAX_DEPTH = 100
MAX_PARTS = 20_000_000  # of the result, in which a shared part counts each time it occurs
FORBIDDEN = {
    "EXT1": "a class by number",  # an entry of copyreg's table, which does not pass find_class
    "EXT2": "a class by number",
    "EXT4": "a class by number",
    "NEXT_BUFFER": "data kept outside of the file",
    "READONLY_BUFFER": "data kept outside of the file",
    "LONG4": "an integer of more than 255 bytes",  # hashing a large one takes long
}
ZIP, NPY = b"PK\x03\x04", b"\x93NUMPY"
LEGACY = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch before 1.6 begins with the pickle of a magic number
)


def read_arrays(path: str | Path) -> Any:
    """Read a checkpoint, pickle or array file without executing code of the file.

    Parameters
    ----------
    path : path
        A torch file (the zip format, the older one, Lightning's checkpoints), a pickle of Python 2 or 3, ``.npy`` or
        ``.npz``; recognised by content, not by name.

    Returns
    -------
    dict, list, tuple, NumPy array, number, str, bytes, None or Foreign
        Nested as in the file. Tensors are arrays of the same type and bytes (bfloat16 becomes float32, which is exact);
        views of one storage share memory, as in torch. Ordered and default dicts are dicts, sets are lists in any
        order, object arrays are nested lists. Arrays of chumpy are NumPy arrays; csc, csr and coo matrices of SciPy are
        dense arrays. 8-bit strings of Python 2 are decoded as Latin-1. Any other object, and every class, is a
        :class:`Foreign`.

    Raises
    ------
    WeightsError : the file is missing, of another kind, incomplete or damaged, or declares more data than it contains.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read(file, path.stat().st_size)
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be read: {printable(error.strerror or error)}; check the path"
        ) from error
    except Exception as error:  # damaged contents raise nearly anything in pickle, zipfile and NumPy
        reason = printable(error)
        if not isinstance(error, (pickle.UnpicklingError, EOFError, zipfile.BadZipFile)):
            reason = f"other or damaged contents ({type(error).__name__}: {reason})"
        raise WeightsError(
            f"{path}: damaged, or no checkpoint, pickle or array file: {reason or 'the file is cut short'}; get the "
            "file again"
        ) from error


def printable(text: object, limit: int = 120) -> str:
    """One short printable line of a text, because text of a file may contain control sequences for the terminal."""
    line = " ".join(str(text)[: 4 * limit].split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:limit]


# ---- Step 1: check the instructions


class _Bounded:
    """File object for ``pickletools``; a read beyond the end of the file raises an error before memory is allocated."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = _size(file)
        self.tell = file.tell
        self.last = b""

    def read(self, count: int) -> bytes:
        if count > 512 and count > self.size - self.file.tell():
            raise EOFError("the file is cut short")
        self.last = self.file.read(count)
        return self.last

    def readline(self) -> bytes:
        line = self.file.readline()
        # The text of STRING, GLOBAL, UNICODE, INST and PERSID is not needed, and pickletools accepts only ASCII.
        return b"''\n" if self.last in (b"S", b"c", b"V", b"i", b"P") and line.endswith(b"\n") else line


def _size(file: BinaryIO) -> int:
    position = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(position)
    return size


def _scan(file: BinaryIO) -> bytes:
    """Check the instructions of the pickle that begins at the position of ``file``, and return its bytes.

    ``find_class`` alone does not make ``pickle.Unpickler`` safe. Errors are raised for instructions that bypass it
    (:data:`FORBIDDEN`), for lengths beyond the end of the file, for memo indices beyond the number of instructions (a
    table of that size would be allocated), and for keys that are slow to hash. The hash of nested tuples recurses in C
    without a limit and takes exponential time if they share parts; keys of equal hash take quadratic time. The stack is
    therefore simulated, with one number for each object: how many parts its hash visits. Only tuples, frozen sets, and
    huge integers (which must not be keys) have more than 1. Frames are removed from the result: if an instruction
    crosses the end of a frame, Python's reader in C reads other instructions than those checked here.
    """
    start = file.tell()
    stack: list[int] = []
    marks: list[int] = []  # lengths of the stack at the marks
    memo: dict[Any, int] = {}
    tuples = 0
    pieces = [start]  # positions of the begin and end of each part between the instructions FRAME
    instructions: Any = pickletools.genops(cast(BinaryIO, _Bounded(file)))
    for count, (opcode, argument, position) in enumerate(instructions):
        name, before = opcode.name, opcode.stack_before
        if name in FORBIDDEN:
            raise pickle.UnpicklingError(FORBIDDEN[name])
        if count > MAX_INSTRUCTIONS:
            raise pickle.UnpicklingError("more instructions than any checkpoint has")
        if name.endswith("PUT"):
            if argument > count:
                raise pickle.UnpicklingError(f"the memo index {argument} after {count} instructions")
            memo[argument] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memo[argument])
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP" and marks and marks[-1] == len(stack):
            marks.pop()
        elif before:
            marked = pickletools.markobject in before
            first = marks.pop() - before.index(pickletools.markobject) if marked else len(stack) - len(before)
            if first < (marks[-1] if marks else 0):
                raise pickle.UnpicklingError("an instruction without operands")
            taken = stack[first:]
            del stack[first:]
            if name in _KEYS:
                keys = taken[_KEYS[name]]
                tuples += sum(parts > 1 for parts in keys)
                if max(keys, default=0) > MAX_KEY or tuples > MAX_TUPLES:
                    raise pickle.UnpicklingError("keys that are slow to hash")
            if opcode.stack_after:
                stack.append(min(1 + sum(taken), MAX_KEY + 1) if name in _NESTED else 1)
        elif opcode.stack_after:  # a constant
            huge = isinstance(argument, int) and abs(argument) > MAX_INTEGER
            stack.append(MAX_KEY + 1 if huge else 1)
        elif name == "FRAME":
            pieces += [position, file.tell()]
    pieces.append(file.tell())
    data = []
    for begin, end in zip(pieces[::2], pieces[1::2], strict=True):
        file.seek(begin)
        data.append(file.read(end - begin))
    return b"".join(data)


_NESTED = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET")
# Instruction that hashes objects -> which of the objects that it takes from the stack are keys
_KEYS = {
    "SETITEM": slice(1, 2),
    "SETITEMS": slice(1, None, 2),
    "DICT": slice(0, None, 2),
    "ADDITEMS": slice(1, None),
    "FROZENSET": slice(0, None),
}


# ---- Step 2: lists, dicts and placeholders


class Placeholder:
    """Replacement for a class or function that a file names (a subclass), or for the result of a call (an instance)."""

    __slots__ = ("args", "items", "pairs", "state")
    name: ClassVar[str] = ""
    args: tuple[Any, ...]
    state: Any
    items: list[Any]
    pairs: list[tuple[Any, Any]]

    def __new__(cls, *args: Any, **keywords: Any) -> Placeholder:
        self = object.__new__(cls)
        self.args = (*args, keywords) if keywords else args
        self.state = None
        self.items = []
        self.pairs = []
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        self.items.append(item)

    add = append

    def extend(self, items: Iterable[Any]) -> None:
        self.items.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.pairs.append((key, value))


def _name(cls: type) -> str:
    return cls.name if issubclass(cls, Placeholder) else cls.__name__


class _Reference(Placeholder):
    """Data outside of the pickle; ``args[0]`` is its persistent id."""

    __slots__ = ()


_MOVED = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # modules of Python 2


class _Unpickler(pickle.Unpickler):
    """Python's reader, with placeholders for all classes and functions."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self.names: dict[tuple[str, str], type[Placeholder]] = {}
        self.references: list[_Reference] = []

    def find_class(self, module: str, name: str) -> type[Placeholder]:
        if (module, name) not in self.names:
            if len(self.names) == MAX_NAMES:
                raise pickle.UnpicklingError("more names than any checkpoint has")
            current = _MOVED.get(module, module).replace("numpy._core.", "numpy.core.")
            body = {"__slots__": (), "name": f"{current}.{name}"}
            self.names[module, name] = type("Placeholder", (Placeholder,), body)
        return self.names[module, name]

    def persistent_load(self, pid: Any) -> _Reference:
        self.references.append(_Reference(pid))
        return self.references[-1]


def _load(file: BinaryIO) -> tuple[Any, list[_Reference]]:
    """Content of one pickle with placeholders, and its references; ``file`` is then at the end of the pickle."""
    unpickler = _Unpickler(_scan(file))
    return unpickler.load(), unpickler.references


# ---- Step 3: placeholders to arrays

_MAPPINGS = ("collections.OrderedDict", "collections.defaultdict", "builtins.dict")
_HASHED = (str, bytes, int, float, tuple, Foreign, np.integer, type(None))
_SETS = ("builtins.set", "builtins.frozenset", "builtins.list", "sets.Set")


class _Rebuilder:
    """Converts the placeholders of one pickle to values.

    ``storage(pid)`` returns the array of a persistent id, or a Foreign for a type that NumPy does not have. A pickle
    inside of another one (``inside``) uses the same budget, and must not contain a further one.
    """

    def __init__(
        self, budget: Budget, *, storage: Callable[[Any], Any] | None = None, inside: bool = False
    ) -> None:
        self.budget = budget
        self.storage = storage
        self.inside = inside
        self._done: dict[int, tuple[Any, Any, int]] = {}  # id -> the object (kept alive), value, parts
        self._open: set[int] = set()

    def value(self, node: Any, depth: int = 0) -> Any:
        """Value of an object of step 2."""
        return self._finish(node, depth)[0]

    def _finish(self, node: Any, depth: int) -> tuple[Any, int]:
        """Value of an object of step 2, and the number of its parts."""
        if not isinstance(node, (list, tuple, dict, set, frozenset, Placeholder, type)):
            return node, 1
        finished = self._done.get(id(node))
        if finished is not None:
            return finished[1], finished[2]
        if depth > MAX_DEPTH:
            raise pickle.UnpicklingError(f"objects nested more than {MAX_DEPTH} deep")
        if id(node) in self._open:  # an object that contains itself
            return Foreign(node.name if isinstance(node, Placeholder) else type(node).__name__, (), None), 1
        self._open.add(id(node))
        value: Any
        if isinstance(node, type):
            value, parts = Foreign(_name(node), (), None), 1
        elif isinstance(node, dict):
            value, parts = self._dict(node.items(), depth)
        elif isinstance(node, Placeholder):
            value, parts = self._called(node, depth)
        else:
            done = [self._finish(item, depth + 1) for item in node]
            value, parts = [item for item, _ in done], 1 + sum(count for _, count in done)
            value = tuple(value) if isinstance(node, tuple) else value
        self._open.discard(id(node))
        if parts > MAX_PARTS:
            raise pickle.UnpicklingError("objects that contain each other too often")
        self._done[id(node)] = (node, value, parts)
        return value, parts

    def _dict(self, pairs: Iterable[tuple[Any, Any]], depth: int) -> tuple[dict[Any, Any], int]:
        result, parts = {}, 1
        for key, item in pairs:
            value, count = self._finish(item, depth + 1)
            name, size = self._finish(key, depth + 1)
            # checked again, because this step creates tuples too
            if not isinstance(name, _HASHED) or (size > MAX_KEY and isinstance(name, tuple)):
                raise pickle.UnpicklingError("keys that are slow to hash")
            result[name] = value
            parts += count
        return result, parts

    def _called(self, node: Placeholder, depth: int) -> tuple[Any, int]:
        """Result of a call: a mapping, a list, the value of a constructor, or a Foreign."""
        name, args = node.name, node.args
        if isinstance(node, _Reference):
            if self.storage is None:
                raise pickle.UnpicklingError("a reference to data outside of the pickle")
            return self.storage(args[0]), 1
        if name == "copyreg._reconstructor" and len(args) == 3 and isinstance(args[0], type):
            name, args = _name(args[0]), (() if args[2] is None else args[2:])
        if name in _MAPPINGS:
            return self._mapping(args[1:] if name.endswith("defaultdict") else args, node.pairs, depth)
        if name in _SETS:
            return self._finish([*(args[0] if args else ()), *node.items], depth + 1)
        finished = [self._finish(part, depth + 1) for part in (*args, node.state)]
        parts = 1 + sum(count for _, count in finished)
        *values, state = (value for value, _ in finished)
        if name == "torch.storage._load_from_bytes":
            return self._torch_inside(as_bytes(values[0])), parts
        if name in CONSTRUCTORS:
            value = CONSTRUCTORS[name](tuple(values), state, self.budget)
            if value is not NotImplemented:
                return value, parts
        for extra in (node.items, node.pairs):
            if extra:
                value, count = self._finish(extra, depth + 1)
                values, parts = [*values, value], parts + count
        return Foreign(name, tuple(values), state), parts

    def _mapping(self, args: Any, added: list[tuple[Any, Any]], depth: int) -> tuple[dict[Any, Any], int]:
        """Dict from an ordered or default dict; its state (``_metadata`` of torch) is left out."""
        first = args[0] if args else ()
        pairs = [*(first.items() if isinstance(first, dict) else first), *added]
        if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
            raise pickle.UnpicklingError("a mapping of items that are not pairs")
        return self._dict(((key, item) for key, item in pairs), depth)

    def _torch_inside(self, data: bytes) -> Any:
        if self.inside:
            raise pickle.UnpicklingError("files nested more than two deep")
        self.budget.take(2 * len(data))
        read = _read_legacy if data.startswith(LEGACY) else _read_zip
        return read(io.BytesIO(data), self.budget, inside=True)


# ---- The formats of files


def _read(file: BinaryIO, size: int) -> Any:
    start = file.read(16)
    file.seek(0)
    if not start:
        raise pickle.UnpicklingError("an empty file")
    if start.lstrip()[:1] == b"<":
        raise pickle.UnpicklingError("a web page (a refused download?)")
    budget = Budget(size)
    if start.startswith(ZIP):
        return _read_zip(file, budget)
    if start.startswith(NPY):
        return _read_npy(file, budget)
    if start.startswith(LEGACY):
        return _read_legacy(file, budget)
    return _Rebuilder(budget).value(_load(file)[0])


def _read_npy(file: BinaryIO, budget: Budget) -> Any:
    old = np.lib.format.read_magic(file) == (1, 0)
    read_header = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        return _Rebuilder(budget).value(_load(file)[0])
    start = file.tell()
    if math.prod(shape) * dtype.itemsize > _size(file) - start:
        raise EOFError("the file is cut short")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _read_zip(file: BinaryIO, budget: Budget, *, inside: bool = False) -> Any:
    """torch's zip format (``data.pkl`` and one member for each storage), or an ``.npz``."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if sum(member.file_size for member in archive.infolist()) > (64 << 20) + 20 * _size(file):
            raise pickle.UnpicklingError("an archive that unpacks to far more than its size")
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) == 1:
            return _read_torch_zip(archive, pickles[0].removesuffix("data.pkl"), budget, inside=inside)
        if names and all(name.endswith(".npy") for name in names):
            members = ((name, io.BytesIO(archive.read(name))) for name in names)
            return {name.removesuffix(".npy"): _read_npy(member, budget) for name, member in members}
        raise pickle.UnpicklingError(
            f"a zip archive of other files ({', '.join(names[:3]) or 'nothing'}); unpack it, or ig3d weights add"
        )


def _read_torch_zip(archive: zipfile.ZipFile, prefix: str, budget: Budget, *, inside: bool) -> Any:
    order = prefix + "byteorder"
    little = order not in archive.namelist() or archive.read(order) != b"big"
    content, _ = _load(io.BytesIO(archive.read(prefix + "data.pkl")))
    arrays: dict[tuple[str, str], np.ndarray] = {}

    def storage(pid: Any) -> np.ndarray | Foreign:
        """Array of a storage, which is read when a tensor uses it for the first time."""
        key, name, count, _ = _storage_id(pid)
        kind = torch_type(name)
        if kind is None:
            return Foreign(name, (key,), None)
        if (key, kind) not in arrays:
            member = archive.getinfo(f"{prefix}data/{key}")
            budget.take(member.file_size)
            used = type_size(kind) * count
            with archive.open(member) as file:
                raw = _filled(file, member.file_size)  # zipfile compares the checksum at the end
            if used > raw.size:
                raise pickle.UnpicklingError(f"a storage of {used} bytes in {raw.size} bytes")
            arrays[key, kind] = storage_array(raw[:used], kind, little=little)
        return arrays[key, kind]

    return _Rebuilder(budget, storage=storage, inside=inside).value(content)


def _read_legacy(file: BinaryIO, budget: Budget, *, inside: bool = False) -> Any:
    """File of torch before 1.6: magic number, version, system, objects, keys of the storages, then the storages."""
    _, version, system = (_load(file)[0] for _ in range(3))
    content, references = _load(file)
    keys, _ = _load(file)
    if version != 1001 or not isinstance(keys, list) or not isinstance(system, dict):
        raise pickle.UnpicklingError("a torch file of an unknown version")
    little = system.get("little_endian", True) is True
    types = {key: name for key, name, *_ in (_storage_id(node.args[0]) for node in references)}
    arrays: dict[str, np.ndarray] = {}
    for key in keys:
        kind = torch_type(types[key])
        if kind is None:
            raise pickle.UnpicklingError(f"tensors of the type {types[key]}, which NumPy does not have")
        (count,) = struct.unpack("<q" if little else ">q", file.read(8))
        size = count * type_size(kind)
        if not 0 <= size <= _size(file) - file.tell():
            raise EOFError("the file is cut short")
        arrays[key] = storage_array(_filled(file, size), kind, little=little)

    def storage(pid: Any) -> np.ndarray:
        key, _, _, view = _storage_id(pid)
        if view is None:
            return arrays[key]
        _, first, length = view  # files from before torch 0.4
        if min(first, length) < 0 or first + length > len(arrays[key]):
            raise pickle.UnpicklingError("a view outside of its storage")
        return arrays[key][first : first + length]

    return _Rebuilder(budget, storage=storage, inside=inside).value(content)


def _storage_id(pid: Any) -> tuple[str, str, int, Any]:
    """Key, name of the type, number of elements and view of a storage from its persistent id."""
    match pid:
        case ("storage", type() as kind, str(key), _, int(count), *view) if count >= 0:
            return key, _name(kind), count, view[0] if view else None
    raise pickle.UnpicklingError("a storage in an unknown form")


def _filled(file: Any, size: int) -> np.ndarray:
    """The next ``size`` bytes of ``file`` as a new, writable array."""
    raw = bytearray(size)
    if file.readinto(raw) != size:
        raise EOFError("the file is cut short")
    return np.frombuffer(raw, np.uint8)
