"""``sfew``: Static Facial Expressions in the Wild; class folders under Train and Val, frames of films.

Reference: Dhall, Goecke, Lucey and Gedeon, "Static Facial Expression Analysis in Tough Conditions" (ICCV Workshops,
2011).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...features.classes import PRESETS
from ...features.samples import Listing, Split
from .base import Dataset, DatasetOptions
from .folder import read_folders

# Airheads_000519240_00000005.png: film, time, face
_FILM = r"(?:.*/)?([^/]+?)_[0-9]{6,}(?:_[0-9]+)?"


class Sfew(Dataset):
    """Seven classes, alphabetical; the film in a frame's name is its group."""

    name = "sfew"
    layout = "sfew expects Train|Val/<class>/*.png with Angry, Disgust, Fear, Happy, Neutral, Sad, Surprise"
    classes = PRESETS["sfew"]
    shared_layout = True

    def read(self, root: Path, options: DatasetOptions) -> Listing:
        listing = read_folders(self, root, "Train/ and Val/ with class folders", options)
        film = listing.samples["id"].str.extract(f"^{_FILM}$", expand=False)
        count = film.nunique()
        note = f"the films are the groups: {count}" if count else "no films in the names: no groups"
        samples = listing.samples.assign(group=film.fillna(listing.samples["group"]))
        return replace(listing, samples=samples, notes=(*listing.notes, note))

    def is_certain(self, listing: Listing) -> bool:
        """Whether most names are those of frames of several films, in Train and Val."""
        films = listing.samples["group"][listing.samples["group"] != ""]
        return (
            2 * len(films) > len(listing)
            and films.nunique() > 1
            and {*listing.splits.tolist()} == {Split.train, Split.val}
        )
