"""Names of expression classes: canonical names, their synonyms, and usual orders (presets)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ..errors import UsageError, listed

# RAF-DB's compound expressions, in the order of its labels 1 to 11
_COMPOUND = (
    "happily surprised",
    "happily disgusted",
    "sadly fearful",
    "sadly angry",
    "sadly surprised",
    "sadly disgusted",
    "fearfully angry",
    "fearfully surprised",
    "angrily surprised",
    "angrily disgusted",
    "disgustedly surprised",
)
# canonical name -> other spellings in datasets and networks, in lower case
_SYNONYMS = {
    "neutral": ("neutrality", "ne", "neu"),
    "happy": ("happiness", "joy", "joyful", "ha", "hap"),
    "sad": ("sadness", "sa"),
    "surprise": ("surprised", "suprise", "su", "sur"),
    "fear": ("fearful", "afraid", "scared", "fe", "fea"),
    "disgust": ("disgusted", "di", "dis"),
    "anger": ("angry", "an", "ang"),
    "contempt": ("contemptuous", "co", "con"),
    "other": ("others",),
}
CANONICAL = {spelling: name for name, others in _SYNONYMS.items() for spelling in (name, *others)} | {
    name: name for name in _COMPOUND
}
_NUMBERED = re.compile(r"^[0-9]+[ _.-]+")

# Class that only some of the datasets and networks have; it is left out if not all files have it.
OPTIONAL = "contempt"

_AFFECTNET = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
_ALPHABETICAL = ("anger", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise")

_ALPHABETICAL7 = tuple(name for name in _ALPHABETICAL if name != "contempt")

_APVIT = ("anger", "disgust", "fear", "sad", "happy", "surprise", "neutral", "contempt")

# Orders of published datasets and networks.
PRESETS: dict[str, tuple[str, ...]] = {
    "affectnet8": _AFFECTNET,
    "affectnet7": _AFFECTNET[:7],
    "rafdb": ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"),
    "fer2013": ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    "ferplus": ("neutral", "happy", "surprise", "sad", "anger", "disgust", "fear", "contempt"),
    "alphabetical8": _ALPHABETICAL,
    "alphabetical7": _ALPHABETICAL7,
    "apvit7": _APVIT[:7],
    "apvit8": _APVIT,
    "rafdb-compound": _COMPOUND,
    "sfew": _ALPHABETICAL7,
    "ckplus": ("neutral", "anger", "contempt", "disgust", "fear", "happy", "sad", "surprise"),
    "affwild2": ("neutral", "anger", "disgust", "fear", "happy", "sad", "surprise", "other"),
    "resemotenet": ("happy", "surprise", "sad", "anger", "disgust", "fear", "neutral"),
}


# Name of a network -> presets that its outputs may have; the preset with the number of columns is used. A network that
# is not in this table has the preset of its name (ferplus), or no classes.
_EITHER, _SORTED = ("affectnet8", "affectnet7"), ("alphabetical8", "alphabetical7")
NETWORKS: dict[str, tuple[str, ...]] = {
    "affectnet": _EITHER,
    "alphabetical": _SORTED,
    "apvit": ("apvit7", "apvit8"),
    "cage": _EITHER,
    "dan-affectnet": _EITHER,
    "dan-rafdb": ("rafdb",),
    "ddamfn": _EITHER,  # its own weights for RAF-DB too
    "ddamfn-ig3d-rafdb": ("rafdb",),
    "deepface": ("fer2013",),
    "emonet": ("affectnet8",),
    "emotiefflib": _SORTED,
    "hsemotion": _SORTED,
    "kollias": _SORTED,
    "libreface": ("affectnet8",),
    "openface3": ("affectnet8",),
    "poster-affectnet": _EITHER,
    "poster-rafdb": ("rafdb",),
    "pyfeat-v1": ("fer2013",),
    "pyfeat-v2": _EITHER,
}


def canonical(name: str) -> str:
    """Canonical name of a class; an unknown name without surrounding blanks.

    Case, underscores and a leading number (as in the folder ``3_Happy``) are ignored.

    >>> canonical("Happiness"), canonical(" angry "), canonical("Confusion")
    ('happy', 'anger', 'Confusion')
    >>> canonical("0_Neutral"), canonical("Sadly_Angry"), canonical("4")
    ('neutral', 'sadly angry', '4')
    """
    stripped = name.strip()
    plain = _NUMBERED.sub("", stripped).replace("_", " ").lower()
    return CANONICAL.get(plain, stripped)


def canonical_all(names: Sequence[str]) -> tuple[str, ...]:
    """Canonical names of classes.

    Raises
    ------
    UsageError : two names are of the same class.
    """
    result = tuple(canonical(name) for name in names)
    twice = sorted(name for name, count in Counter(result).items() if count > 1)
    if twice:
        raise UsageError(
            f"classes: {listed(twice)} occurs twice in {listed(list(names), 20)}; name each class once"
        )
    return result


def orders_of(name: str) -> tuple[tuple[str, ...], ...]:
    """Orders of classes of a preset or a network, the likeliest first; empty for another name.

    >>> [len(order) for order in orders_of("ddamfn")]
    [8, 7]
    """
    return tuple(PRESETS[preset] for preset in NETWORKS.get(name, (name,)) if preset in PRESETS)


def parse_classes(text: str, *, columns: int | None = None) -> tuple[str, ...]:
    """Canonical names of classes in order.

    Parameters
    ----------
    text : name of a preset or a network, or names of classes separated by commas
    columns : int, optional
        Number of classes, for a network with several versions; by default the likeliest version.

    Raises
    ------
    UsageError : the text is neither.

    Examples
    --------
    >>> parse_classes("affectnet7")[:3]
    ('neutral', 'happy', 'sad')
    >>> len(parse_classes("ddamfn")), len(parse_classes("ddamfn", columns=7))
    (8, 7)
    >>> parse_classes("joy, Sadness")
    ('happy', 'sad')
    """
    orders = orders_of(text)
    if orders:
        return next((order for order in orders if len(order) == columns), orders[0])
    names = [name for name in text.split(",") if name.strip()]
    if len(names) < 2:
        raise UsageError(
            f"classes: {text!r} is not a preset; give {', '.join([*PRESETS, *NETWORKS])}, or class names separated by "
            "commas"
        )
    return canonical_all(names)


def preset_of(classes: Sequence[str]) -> str | None:
    """Name of the preset with exactly this order of classes; None without one."""
    return next((name for name, order in PRESETS.items() if order == tuple(classes)), None)
