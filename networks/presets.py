"""Networks of the field: in which order and form they give their outputs, so that a user need not say it.

A preset fills in what is not said on the command line. The orders and forms are those of the networks' own code and
documents; where a repository trains on the user's own folders, no preset can know the order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError

VALENCE_FIRST = ("valence", "arousal")


@dataclass(frozen=True, slots=True)
class NetworkPreset:
    """What is known of a published network.

    Attributes
    ----------
    orders : tuple of str
        Class orders, as :func:`ig3d.features.classes.parse_classes` takes them; the one as long as the output is taken.
    input : dict
        What of the input is known: ``size``, ``mean``, ``std``, ``colour``. ImageNet's mean and deviation unless said.
    output : str
        Which outputs of those that its ``forward`` returns.
    va_after : tuple of str
        ``valence`` and ``arousal`` in the order in which they may follow the classes.
    """

    orders: tuple[str, ...]
    input: dict[str, Any] = field(default_factory=lambda: {"size": 224})
    output: str = "0"
    va_after: tuple[str, ...] = ()


_AFFECTNET = ("affectnet8", "affectnet7")
_ALPHABETICAL = ("alphabetical8", "alphabetical7")

PRESETS: dict[str, NetworkPreset] = {
    # DDAMFN and DDAMFN++, their own weights, RAF-DB's too: (logits, features, heads)
    "ddamfn": NetworkPreset(_AFFECTNET, {"size": 112}),
    # the RAF-DB checkpoint that comes with Ig3D follows RAF-DB's order
    "ddamfn-ig3d-rafdb": NetworkPreset(("rafdb",), {"size": 112}),
    "poster-rafdb": NetworkPreset(("rafdb",)),
    "poster-affectnet": NetworkPreset(_AFFECTNET),
    # (logits, features, heads)
    "dan-rafdb": NetworkPreset(("rafdb",)),
    "dan-affectnet": NetworkPreset(_AFFECTNET),
    # classes, then valence and arousal; or these two alone
    "cage": NetworkPreset(_AFFECTNET, va_after=VALENCE_FIRST),
    "cage-va": NetworkPreset((), va_after=VALENCE_FIRST),
    "hsemotion": NetworkPreset(_ALPHABETICAL, va_after=VALENCE_FIRST),
    "apvit": NetworkPreset(
        ("apvit", "anger,disgust,fear,sad,happy,surprise,neutral,contempt"), {"size": 112}
    ),
    "emonet": NetworkPreset(
        ("affectnet8",),
        {"size": 256, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
        output="expression,valence,arousal",
        va_after=VALENCE_FIRST,
    ),
    "openface3": NetworkPreset(("affectnet8",)),
    "resemotenet": NetworkPreset(("resemotenet",), {"size": 64, "colour": "grey"}),
    "ferplus": NetworkPreset(("ferplus",)),
    "kollias": NetworkPreset(_ALPHABETICAL),
    "pyfeat-v1": NetworkPreset(("fer2013",)),
    "pyfeat-v2": NetworkPreset(_AFFECTNET, va_after=VALENCE_FIRST),
}


def preset(name: str) -> NetworkPreset:
    """The preset of a name.

    Raises
    ------
    UsageError : there is no such preset.
    """
    if name not in PRESETS:
        raise UsageError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
