"""Which rows are reported and who is fitted on which: decided before anything is fitted.

table -> plan (of a fusion) or plan_heads (of heads alone) -> :class:`Protocol`, whose index arrays are all that fitting
is given.
"""

from __future__ import annotations

from .rows import FuserFit, HeadFit, Protocol

__all__ = ["FuserFit", "HeadFit", "Protocol"]
