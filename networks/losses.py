"""The losses of :mod:`ig3d.learn.losses`, under the name that this room's loop knows them by."""

from __future__ import annotations

from ..learn.losses import class_loss, concordance, va_loss

__all__ = ["class_loss", "concordance", "va_loss"]
