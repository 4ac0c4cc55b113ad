"""Base class of dataset adapters, and the options that they take."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ...errors import DatasetError, LayoutError, UsageError
from ...features.samples import Listing, sample_table
from .files import contents


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """Options of datasets; an adapter uses those that apply to its layout.

    Attributes
    ----------
    manifest : path or None
        Table for the ``manifest`` adapter; by default ``manifest.csv`` or ``manifest.parquet`` in the root.
    split_fractions : (train, val, test) or None
        Shares of the random split of a dataset without splits; by default those of the adapter.
    split_table : path or None
        Table ``id,split`` whose splits replace those of the dataset.
    seed : int
        Seed of the random split.
    group_pattern : str or None
        Regular expression that is searched in each id; its first group is the person or video.
    fps : float or None
        Frames per second that are taken from videos; by default all frames.
    label_map : str or None
        Meaning of the labels: ``1=surprise,2=fear``, a preset, or names in order; see
        :func:`~ig3d.extract.datasets.label_names.read_labels`.
    """

    manifest: str | None = None
    split_fractions: tuple[float, float, float] | None = None
    split_table: str | None = None
    seed: int = 0
    group_pattern: str | None = None
    label_map: str | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise UsageError(f"fps is {self.fps:g}; it must be a number above 0")


class Dataset(ABC):
    """Base class of dataset adapters, which list the samples of one layout of folders, lists or archives.

    A subclass sets ``name`` and ``layout`` and implements :meth:`read`; it does not decode images. Groups by a pattern,
    random splits and common checks are added by :func:`~ig3d.extract.datasets.list_samples`.

    Attributes
    ----------
    name : str
        Value of ``--dataset``.
    layout : str
        Description of the layout in one sentence, for errors and ``ig3d datasets``.
    classes : tuple of str
        Names of the classes in the order of the labels, if all datasets of this layout have the same classes.
    split_fractions : (train, val, test) or None
        Shares of the random split if no sample has a split; None makes no split.
    maps_labels : bool
        Whether ``DatasetOptions.label_map`` is used.
    suffix : str or tuple of str
        Suffixes of files that may be the root, such as archives; empty if the root must be a folder.
    remote : bool
        Whether the root may be an address (``s3://bucket/faces``), which is passed to :meth:`read` as str.
    shared_layout : bool
        Whether other datasets have the same layout, so that :meth:`is_certain` decides.
    """

    name: ClassVar[str]
    layout: ClassVar[str]
    classes: ClassVar[tuple[str, ...]] = ()
    split_fractions: ClassVar[tuple[float, float, float] | None] = None
    maps_labels: ClassVar[bool] = False
    suffix: ClassVar[str | tuple[str, ...]] = ""
    remote: ClassVar[bool] = False
    shared_layout: ClassVar[bool] = False

    attributes: ClassVar[Mapping[str, type]] = {"name": str, "layout": str, "classes": tuple}

    @classmethod
    def problems(cls) -> Iterator[str]:
        """Faults of the class attributes, beyond their types."""
        yield from ()

    @abstractmethod
    def read(self, root: Any, options: DatasetOptions) -> Listing:
        """Samples of the dataset.

        Parameters
        ----------
        root : Path of the folder or archive, or str of an address
        options : DatasetOptions

        Returns
        -------
        Listing

        Raises
        ------
        LayoutError : the folder has another layout.
        DatasetError : the folder has this layout, but a part is missing or damaged.
        """

    def is_certain(self, listing: Listing) -> bool:
        """Whether a listing is of this dataset and not of another one with the same layout."""
        return True

    def listing(
        self,
        root: str | Path,
        rows: Iterable[Mapping[str, Any]] | Mapping[str, Sequence[Any]],
        notes: Iterable[str] = (),
        *,
        classes: Sequence[str] | None = None,
    ) -> Listing:
        """Rows of the sample table (see :func:`~ig3d.features.samples.sample_table`) as a listing."""
        classes = self.classes if classes is None else classes
        table = sample_table(rows, classes=classes, dataset=self.name, root=str(root))
        return Listing(self.name, str(root), table, tuple(notes))

    def wrong_layout(
        self,
        root: str | Path,
        missing: str,
        *,
        present: str | None = None,
        hint: str = "",
        error: type[DatasetError] = LayoutError,
    ) -> DatasetError:
        """Error for another layout: the missing part, the contents of the folder (empty: unknown), the layout."""
        present = contents(Path(root)) if present is None else present
        clause = f", which holds {present}" if present else ""
        return error(f"{self.name}: no {missing} in {root}{clause}; {self.layout} (docs/datasets.md){hint}")
