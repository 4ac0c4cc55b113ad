"""A pickle's structure without its effects: every class and call in it becomes a note of what was asked for.

First half of :mod:`.unpickle`. Nothing here imports, calls, compares or sets an attribute of anything that a file
names: :func:`read_notes` gives lists, tuples, dicts, numbers, strings, bytes and :class:`Note`; :mod:`.rebuild` then
decides which notes are arrays.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

# A checkpoint of a few thousand tensors takes some hundred thousand reads; each can cost a hundred bytes of memory.
MAX_READS = 20_000_000
KEY_DEPTH = 4
PERSISTENT = "persistent id"


class Note:
    """What a pickle asked for by name: a class, a call with its arguments, and what was then put into the result."""

    __slots__ = ("args", "called", "items", "name", "pairs", "state")

    def __init__(self, name: str, args: tuple[Any, ...] = (), *, called: bool = False) -> None:
        self.name = name
        self.args = args
        self.called = called
        self.state: Any = None
        self.items: list[Any] = []
        self.pairs: list[tuple[Any, Any]] = []


class Window:
    """A binary file that cannot be asked for more than it holds."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        here = file.tell()
        self.size = file.seek(0, io.SEEK_END)
        file.seek(here)
        self._reads = 0

    def _count(self) -> None:
        self._reads += 1
        if self._reads > MAX_READS:
            raise pickle.UnpicklingError("more instructions than any checkpoint has")

    def read(self, count: int) -> bytes:
        self._count()
        if count < 0 or count > self.size - self._file.tell():
            raise EOFError("the file is cut short")
        return self._file.read(count)

    def readline(self) -> bytes:
        self._count()
        return self._file.readline()


def read_notes(file: BinaryIO, ids: list[Any] | None = None) -> Any:
    """Read one pickle from where ``file`` stands; leaves it behind the pickle's last byte.

    ``ids``, where given, collects the persistent ids in the order they come.

    Raises whatever a broken pickle raises (`pickle.UnpicklingError`, `EOFError`, ...): see :mod:`.unpickle`.
    """
    window = Window(file)
    return _Reader(window, [] if ids is None else ids).load()


def _refuse(reason: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(reason)


def _check_key(key: Any, depth: int = KEY_DEPTH) -> Any:
    """Only keys whose hash is quick: the hash of a tuple nested a million deep would end the process."""
    if isinstance(key, tuple):
        if not depth:
            raise _refuse("a key nested too deep")
        for part in key:
            _check_key(part, depth - 1)
    elif not isinstance(key, (str, bytes, int, float, bool, Note)) and key is not None:
        raise _refuse(f"a {type(key).__name__} as a key")
    return key


def _add_items(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, Note) and target.called:
        target.items.extend(items)
    else:
        raise _refuse(f"items added to a {type(target).__name__}")


def _add_pairs(target: Any, flat: list[Any]) -> None:
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    if isinstance(target, dict):
        target.update((_check_key(key), value) for key, value in pairs)
    elif isinstance(target, Note) and target.called:
        target.pairs.extend(pairs)
    else:
        raise _refuse(f"entries added to a {type(target).__name__}")


class _Reader(pickle._Unpickler):
    """The standard library's machine with every instruction that calls, imports or sets attributes replaced.

    It is the one written in Python, as joblib uses it: its table of instructions can be changed, and its memory of
    earlier objects is a dict, so that a file cannot ask for a huge one.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, window: Window, ids: list[Any]) -> None:
        super().__init__(window, encoding="latin1")
        self.ids = ids

    def find_class(self, module: str, name: str) -> Note:
        return Note(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Note:
        self.ids.append(pid)
        return Note(PERSISTENT, (pid,), called=True)

    def call(self, function: Any, args: Any) -> None:
        """Note a call; what is called must be a bare name, the arguments a tuple."""
        if not isinstance(function, Note) or function.called or not isinstance(args, tuple):
            raise _refuse("a call of something that is not a class")
        self.stack.append(Note(function.name, args, called=True))

    def load_frame(self) -> None:
        self.read(8)  # only a hint how much to read ahead

    def load_extension(self) -> None:
        raise _refuse("a class by number")

    def load_out_of_band(self) -> None:
        raise _refuse("data kept outside of the file")

    def load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        args = tuple(self.pop_mark())
        self.call(self.find_class(module, name), args)

    def load_obj(self) -> None:
        function, *args = self.pop_mark()
        self.call(function, tuple(args))

    def load_newobj(self) -> None:
        args = self.stack.pop()
        self.call(self.stack.pop(), args)

    def load_newobj_ex(self) -> None:
        keywords = self.stack.pop()
        args = self.stack.pop()
        self.call(self.stack.pop(), (*args, keywords) if keywords else args)

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.call(self.stack.pop(), args)

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Note) or not target.called:
            raise _refuse(f"a state for a {type(target).__name__}")
        target.state = state

    def load_append(self) -> None:
        item = self.stack.pop()
        _add_items(self.stack[-1], [item])

    def load_appends(self) -> None:
        items = self.pop_mark()
        _add_items(self.stack[-1], items)

    def load_setitem(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        _add_pairs(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        flat = self.pop_mark()
        _add_pairs(self.stack[-1], flat)

    def load_dict(self) -> None:
        made: dict[Any, Any] = {}
        _add_pairs(made, self.pop_mark())
        self.append(made)

    def load_empty_set(self) -> None:
        self.append(Note("builtins.set", called=True))

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(Note("builtins.frozenset", (items,), called=True))

    def load_bytearray8(self) -> None:
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    for _opcode, _method in (
        (pickle.FRAME, load_frame),
        (pickle.EXT1, load_extension),
        (pickle.EXT2, load_extension),
        (pickle.EXT4, load_extension),
        (pickle.NEXT_BUFFER, load_out_of_band),
        (pickle.READONLY_BUFFER, load_out_of_band),
        (pickle.INST, load_inst),
        (pickle.OBJ, load_obj),
        (pickle.NEWOBJ, load_newobj),
        (pickle.NEWOBJ_EX, load_newobj_ex),
        (pickle.REDUCE, load_reduce),
        (pickle.BUILD, load_build),
        (pickle.APPEND, load_append),
        (pickle.APPENDS, load_appends),
        (pickle.ADDITEMS, load_appends),
        (pickle.SETITEM, load_setitem),
        (pickle.SETITEMS, load_setitems),
        (pickle.DICT, load_dict),
        (pickle.EMPTY_SET, load_empty_set),
        (pickle.FROZENSET, load_frozenset),
        (pickle.BYTEARRAY8, load_bytearray8),
    ):
        dispatch[_opcode[0]] = _method
