"""Networks of the field: in which form they give their outputs and take their input, so that a user need not say it.

A preset fills in what is not said on the command line. The order of its classes is that of
:func:`ig3d.features.classes.orders_of` under the same name. Forms and orders are those of the networks' own code and
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
    input : dict
        What of the input is known: ``size``, ``mean``, ``std``, ``colour``. ImageNet's mean and deviation unless said.
    output : str
        Which outputs of those that its ``forward`` returns.
    va_after : tuple of str
        ``valence`` and ``arousal`` in the order in which they may follow the classes.
    grey : dict
        Input of those networks that take one channel, where it differs.
    """

    input: dict[str, Any] = field(default_factory=lambda: {"size": 224})
    output: str = "0"
    va_after: tuple[str, ...] = ()
    grey: dict[str, Any] = field(default_factory=dict)


PRESETS: dict[str, NetworkPreset] = {
    # DDAMFN and DDAMFN++, their own weights, RAF-DB's too: (logits, features, heads)
    "ddamfn": NetworkPreset({"size": 112}),
    # the RAF-DB checkpoint that comes with Ig3D follows RAF-DB's order
    "ddamfn-ig3d-rafdb": NetworkPreset({"size": 112}),
    "poster-rafdb": NetworkPreset(),
    "poster-affectnet": NetworkPreset(),
    # (logits, features, heads)
    "dan-rafdb": NetworkPreset(),
    "dan-affectnet": NetworkPreset(),
    # classes, then valence and arousal; or these two alone
    "cage": NetworkPreset(va_after=VALENCE_FIRST),
    "cage-va": NetworkPreset(va_after=VALENCE_FIRST),
    "hsemotion": NetworkPreset(va_after=VALENCE_FIRST),
    "apvit": NetworkPreset({"size": 112}),
    "emonet": NetworkPreset(
        {"size": 256, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
        output="expression,valence,arousal",
        va_after=VALENCE_FIRST,
    ),
    "openface3": NetworkPreset(),
    "resemotenet": NetworkPreset({"size": 64, "colour": "grey"}),
    # emotion-ferplus of the ONNX model zoo takes grey values from 0 to 255
    "ferplus": NetworkPreset(grey={"mean": (0.0,) * 3, "std": (1 / 255,) * 3}),
    "kollias": NetworkPreset(),
    "pyfeat-v1": NetworkPreset(),
    "pyfeat-v2": NetworkPreset(va_after=VALENCE_FIRST),
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
