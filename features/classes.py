"""Names of expression classes: one small vocabulary, its synonyms, and the orders in use (presets)."""

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
# canonical name -> other spellings met in datasets and networks (compared in lower case)
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


# Networks by name -> the presets their outputs may be in; the one with as many classes as there are columns is meant.
# A network that is not here goes by the preset of its name (ferplus), or has no classes.
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
    """The vocabulary's word for ``name``; a name outside of it is only stripped.

    Case, underscores and a leading number (``3_Happy``, as folders have it) make no difference.

    >>> canonical("Happiness"), canonical(" angry "), canonical("Confusion")
    ('happy', 'anger', 'Confusion')
    >>> canonical("0_Neutral"), canonical("Sadly_Angry"), canonical("4")
    ('neutral', 'sadly angry', '4')
    """
    stripped = name.strip()
    plain = _NUMBERED.sub("", stripped).replace("_", " ").lower()
    return CANONICAL.get(plain, stripped)


def canonical_all(names: Sequence[str]) -> tuple[str, ...]:
    """Canonical names, refused where two of them become one.

    Raises
    ------
    UsageError : two names mean the same class.
    """
    result = tuple(canonical(name) for name in names)
    twice = sorted(name for name, count in Counter(result).items() if count > 1)
    if twice:
        raise UsageError(
            f"classes: {listed(twice)} occurs twice in {listed(list(names), 20)}; name each class once"
        )
    return result


def orders_of(name: str) -> tuple[tuple[str, ...], ...]:
    """The orders that a preset or a network may stand for, the likeliest first; none for another name.

    >>> [len(order) for order in orders_of("ddamfn")]
    [8, 7]
    """
    return tuple(PRESETS[preset] for preset in NETWORKS.get(name, (name,)) if preset in PRESETS)


def parse_classes(text: str, *, columns: int | None = None) -> tuple[str, ...]:
    """A preset's name, a network's or a comma list of names, as canonical names in order.

    Parameters
    ----------
    text : str
    columns : int, optional
        How many there are, for a network that comes with several numbers of classes; the most by default.

    Raises
    ------
    UsageError : no such name.

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
            f"classes: {text!r} is no preset; give {', '.join([*PRESETS, *NETWORKS])}, or class names separated by "
            "commas"
        )
    return canonical_all(names)


def preset_of(classes: Sequence[str]) -> str | None:
    """Name of the preset with exactly this order, where there is one."""
    return next((name for name, order in PRESETS.items() if order == tuple(classes)), None)
