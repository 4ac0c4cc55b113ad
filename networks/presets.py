"""Presets for published networks: form of their outputs and inputs.

A preset provides defaults for options that are not given. The order of its classes is that of
:func:`ig3d.features.classes.orders_of` under the same name. Forms and orders follow the official code and
documentation. If a repository trains on the user's folders, the order depends on these and is in no preset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError

VALENCE_FIRST = ("valence", "arousal")


@dataclass(frozen=True, slots=True)
class NetworkPreset:
    """Known properties of a published network.

    Attributes
    ----------
    input : dict
        Properties of the input: ``size``, ``mean``, ``std``, ``colour``; default: normalisation of ImageNet.
    output : str
        Outputs to use of those that ``forward`` returns.
    va_after : tuple of str
        ``valence`` and ``arousal`` in the order in which they may follow the classes; empty if they do not.
    grey : dict
        Properties of the input of its networks with one channel, if they differ.
    """

    input: dict[str, Any] = field(default_factory=lambda: {"size": 224})
    output: str = "0"
    va_after: tuple[str, ...] = ()
    grey: dict[str, Any] = field(default_factory=dict)


PRESETS: dict[str, NetworkPreset] = {
    # DDAMFN and DDAMFN++ with official weights, including those for RAF-DB: (logits, features, heads)
    "ddamfn": NetworkPreset({"size": 112}),
    # RAF-DB checkpoint of Ig3D, in RAF-DB's order
    "ddamfn-ig3d-rafdb": NetworkPreset({"size": 112}),
    "poster-rafdb": NetworkPreset(),
    "poster-affectnet": NetworkPreset(),
    # (logits, features, heads)
    "dan-rafdb": NetworkPreset(),
    "dan-affectnet": NetworkPreset(),
    # classes, then valence and arousal; or only these two
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
    # emotion-ferplus of the ONNX model zoo has grey input from 0 to 255
    "ferplus": NetworkPreset(grey={"mean": (0.0,) * 3, "std": (1 / 255,) * 3}),
    "kollias": NetworkPreset(),
    "pyfeat-v1": NetworkPreset(),
    "pyfeat-v2": NetworkPreset(va_after=VALENCE_FIRST),
}


def preset(name: str) -> NetworkPreset:
    """Preset by name.

    Raises
    ------
    UsageError : the preset does not exist.
    """
    if name not in PRESETS:
        raise UsageError(f"preset: {name!r} is unknown; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
