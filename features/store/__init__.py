"""The store: one HDF5 file with the codes of one dataset by one regressor; ``docs/format.md`` states the format.

:mod:`.format` is the format (columns, attributes, their checks), :mod:`.reader` reads it, :mod:`.writer` writes it;
:mod:`.summary` and :mod:`.export` are views of a store.
"""

from .reader import CodeStore, read_rows

__all__ = ["CodeStore", "read_rows"]
