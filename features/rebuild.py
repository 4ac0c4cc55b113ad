"""Notes of a pickle to arrays: the fixed table of names that ig3d knows, everything else stays a :class:`Foreign`.

Second half of :mod:`.unpickle`; :mod:`.builders` is the table.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from .builders import BUILDERS, Budget, Foreign, sparse
from .inert import PERSISTENT, Note

DEPTH = 100
PARTS = 20_000_000  # of the result written out in full, so that what refers to its own parts cannot grow without bound
_MAPPINGS = ("collections.OrderedDict", "collections.defaultdict", "builtins.dict")
_SETS = ("builtins.set", "builtins.frozenset", "builtins.list", "sets.Set")


def _modern(name: str) -> str:
    """Python 2's and NumPy's moved modules under one name each."""
    for old, new in (
        ("__builtin__.", "builtins."),
        ("numpy._core.", "numpy.core."),
        ("copy_reg.", "copyreg."),
    ):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


class Rebuilder:
    """Turns notes into values; one for each pickle, sharing ``budget`` with the pickles inside of it.

    ``storage(pid)`` gives the array of a persistent id (a Foreign for a type that numpy lacks); ``nested(data)``
    reads a torch file inside the pickle.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        storage: Callable[[Any], np.ndarray | Foreign] | None = None,
        nested: Callable[[bytes], Any] | None = None,
    ) -> None:
        self.budget = budget
        self.storage = storage
        self.nested = nested
        self._done: dict[int, tuple[Any, Any, int]] = {}  # id -> the object itself (kept alive), value, parts
        self._open: set[int] = set()

    def value(self, node: Any, depth: int = 0) -> Any:
        """The finished value of ``node``."""
        return self._finish(node, depth)[0]

    def _finish(self, node: Any, depth: int) -> tuple[Any, int]:
        if not isinstance(node, (list, tuple, dict, Note)):
            return node, 1
        known = self._done.get(id(node))
        if known is not None:
            return known[1], known[2]
        if depth > DEPTH:
            raise pickle.UnpicklingError(f"objects nested more than {DEPTH} deep")
        if id(node) in self._open:  # an object inside of itself: what stands around it is being made
            return Foreign(node.name if isinstance(node, Note) else type(node).__name__, (), None), 1
        self._open.add(id(node))
        value: Any
        if isinstance(node, dict):
            value, parts = self._dict(node.items(), depth)
        elif isinstance(node, Note):
            value, parts = self._note(node, depth)
        else:
            done = [self._finish(item, depth + 1) for item in node]
            value, parts = type(node)(item for item, _ in done), 1 + sum(count for _, count in done)
        self._open.discard(id(node))
        if parts > PARTS:
            raise pickle.UnpicklingError("objects that contain each other too often")
        self._done[id(node)] = (node, value, parts)
        return value, parts

    def _dict(self, pairs: Iterable[tuple[Any, Any]], depth: int) -> tuple[dict[Any, Any], int]:
        made, parts = {}, 1
        for key, item in pairs:
            value, count = self._finish(item, depth + 1)
            made[self.value(key, depth + 1)] = value
            parts += count
        return made, parts

    def _note(self, note: Note, depth: int) -> tuple[Any, int]:
        name, args, state = _modern(note.name), note.args, note.state
        if name == PERSISTENT:
            if self.storage is None:
                raise pickle.UnpicklingError("a reference to data outside of the pickle")
            return self.storage(args[0]), 1
        if name == "copyreg._reconstructor" and len(args) == 3 and isinstance(args[0], Note):
            name, args = _modern(args[0].name), (() if args[2] is None else args[2:])
        if note.called and name in _MAPPINGS:
            return self._mapping(name, note, depth)
        if note.called and name in _SETS:
            items = [*(args[0] if args and isinstance(args[0], (list, tuple)) else ()), *note.items]
            return self._finish(items, depth + 1)
        builder = BUILDERS.get(name) if note.called else None
        if note.called and name.startswith("scipy.sparse."):
            builder = partial(sparse, name.rpartition(".")[2][:3])
        given = [self._finish(part, depth + 1) for part in (*args, state)]
        parts = 1 + sum(count for _, count in given)
        *done, done_state = (value for value, _ in given)
        if builder is not None:
            built = builder(self, tuple(done), done_state)
            if built is not NotImplemented:
                return built, parts
        for extra in (note.items, note.pairs):
            if extra:
                value, count = self._finish(extra, depth + 1)
                done, parts = [*done, value], parts + count
        return Foreign(name, tuple(done), done_state), parts

    def _mapping(self, name: str, note: Note, depth: int) -> tuple[dict[Any, Any], int]:
        """An ordered or default dict; torch's ``_metadata`` (the state of one) is left out."""
        args = note.args[1:] if name.endswith("defaultdict") else note.args
        first = args[0] if args else ()
        pairs = [*(first.items() if isinstance(first, dict) else first), *note.pairs]
        if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
            raise pickle.UnpicklingError("a mapping of things that are no pairs")
        return self._dict(((key, item) for key, item in pairs), depth)
