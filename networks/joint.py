"""``ig3d train-joint``: train a 2D network together with a module of :mod:`ig3d.learn.intermediate`.

The network starts from its 2D weights; network and module have separate learning rates. Rows, conditions, training
loop, output and figures are those of :mod:`ig3d.learn.intermediate.run`; only the input differs: pixels.
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from ..errors import DatasetError, UsageError, listed, plural
from ..features.align import find_rows
from ..features.content import hash_contents
from ..features.device import choose_device
from ..features.fusion_table import FusionTable
from ..features.inputs import Inputs
from ..features.join import load_table
from ..features.samples import Listing, Split
from ..learn.intermediate.checkpoint import Applied, check_blocks, predict_new_rows
from ..learn.intermediate.config import IntermediateConfig
from ..learn.intermediate.fit import TrainingData, available_codes, module_groups
from ..learn.intermediate.modules import FusionModule, ModuleSpec, make_module
from ..learn.intermediate.table import table_digest
from .augment import augment
from .crop import choose_crops
from .images import Pictures, load_pictures, normalise
from .joint_start import Start, check_predictions, features_of, load_joint, open_network
from .load.values import input_warnings
from .options import NetworkSpec

# Number of training images whose features, from the initial network, give mean and standard deviation.
_STATISTICS_ROWS = 256


@dataclass(frozen=True, slots=True)
class JointConfig:
    """Options of a joint training, in addition to those of the module and its training.

    Attributes
    ----------
    network_lr : float
        Peak learning rate of the 2D network; that of the module is ``IntermediateConfig.lr``.
    crop, crop_scale
        See :func:`ig3d.networks.crop.choose_crops`.
    jobs : int or None
        Reading threads; None is one for each core. It does not change results.
    """

    network_lr: float = 1e-4
    crop: str | None = None
    crop_scale: float = 1.0
    jobs: int | None = None

    def __post_init__(self) -> None:
        if not self.network_lr > 0:
            raise UsageError(f"network-lr is {self.network_lr}; it must be above 0")


class JointNetwork(nn.Module):
    """2D network without its last layer, and a module that fuses its features with codes.

    Parameters
    ----------
    network : nn.Module with timm's interface (``forward_features``, ``forward_head``)
    fusion : FusionModule
    """

    def __init__(self, network: Any, fusion: FusionModule) -> None:
        super().__init__()
        self.network, self.fusion = network, fusion

    def forward(self, pixels: torch.Tensor, codes: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """(n, outputs) of (n, 3, size, size) normalised pixels, (n, d) codes and (n, blocks) bool."""
        maps = len(self.fusion.spec.shape) == 3
        outputs: torch.Tensor = self.fusion(features_of(self.network, pixels, maps=maps), codes, present)
        return outputs


@dataclass(frozen=True, slots=True)
class JointRoute:
    """Images, codes and initial 2D network; a :class:`~ig3d.learn.intermediate.fit.Route`.

    Attributes
    ----------
    table : n samples
    pictures : Pictures
    row : (n,) int64
        Index of the image of each sample; -1 for none.
    start : Start
    crop : JSON record of the crop of the images
    contents : (n,) int64 hashes of the images
    digest : hash of all inputs of the training
    config : JointConfig
    device : torch.device
    notes : tuple of str
        Notes on the network and the images, which are also among those of the table.
    """

    table: FusionTable
    pictures: Pictures
    row: np.ndarray
    start: Start
    crop: dict[str, Any]
    contents: np.ndarray
    digest: str
    config: JointConfig
    device: torch.device
    notes: tuple[str, ...] = ()
    name: str = "end to end"
    input_name: str = "a readable image"

    @property
    def network(self) -> str:
        return f"{self.start.architecture} {self.start.sha256[:16]}"

    @property
    def seen_by_network(self) -> np.ndarray:
        return self.start.seen

    @property
    def has_input(self) -> np.ndarray:
        return np.asarray(self.row >= 0)

    def inputs(self, rows: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        pixels = self.pictures.pixels[torch.from_numpy(self.row)[rows]].to(self.device)
        images = pixels if generator is None else augment(pixels, generator)
        prepared = normalise(images, self.start.view.mean, self.start.view.std)
        return prepared.contiguous(memory_format=torch.channels_last)

    def build(self, data: TrainingData, config: IntermediateConfig) -> nn.Module:
        network = copy.deepcopy(self.start.module).to(self.device).to(memory_format=torch.channels_last)
        # the published linear fusion uses pooled features; other modules use positions
        features = self._features(network, data.train, maps=config.module != "linear")
        shape = tuple(features.shape[1:])
        spec = ModuleSpec(
            config.module, shape, data.blocks, config.width or shape[0], data.outputs, config.dropout
        )
        fusion = make_module(spec)
        fusion.positions.standardise_by(features)
        fusion.tokens.standardise_by(available_codes(self.table, data.train))
        return JointNetwork(network, fusion)

    def _features(self, network: nn.Module, train: torch.Tensor, *, maps: bool) -> torch.Tensor:
        """Features of a sample of the training images, from the initial network, on the CPU."""
        subset = train[:: max(1, len(train) // _STATISTICS_ROWS)]
        network.eval()
        with torch.no_grad():
            parts = [
                features_of(network, self.inputs(rows, None), maps=maps).cpu() for rows in subset.split(32)
            ]
        return torch.cat(parts).float()

    def groups(self, model: nn.Module, config: IntermediateConfig) -> list[dict[str, object]]:
        assert isinstance(model, JointNetwork)  # from build()
        decay = config.weight_decay
        return [
            *module_groups(model.network, lr=self.config.network_lr, weight_decay=decay),
            *module_groups(model.fusion, lr=config.lr, weight_decay=decay),
        ]

    def parts(self, model: nn.Module) -> tuple[FusionModule, dict[str, torch.Tensor]]:
        assert isinstance(model, JointNetwork)  # from build()
        return model.fusion, model.network.state_dict()

    def describe(self) -> dict[str, Any]:
        return {
            "architecture": self.start.architecture,
            "input": asdict(self.start.view),
            "timm": timm.__version__,
            **self.crop,
        }


def open_route(
    listing: Listing,
    network: NetworkSpec | Start,
    inputs: Inputs,
    *,
    joint: JointConfig | None = None,
    blocks: str = "full",
    device: str = "auto",
    force: bool = False,
    need_labels: bool = True,
    classes: Sequence[str] = (),
    advance: Callable[[int], object] | None = None,
    notify: Callable[[str], object] | None = None,
) -> JointRoute:
    """Open the network, read the images, and align them with the table by id.

    Parameters
    ----------
    listing : the dataset of the store
    network : initial network: a checkpoint of ``ig3d train-2d``, or ``timm:NAME`` with weights
    inputs : predictions of the initial network (``ig3d logits``), and stores
    joint : JointConfig, optional
    blocks, force, need_labels, classes : see :func:`ig3d.learn.intermediate.table.load_feature_table`
    device : ``auto``, ``cpu``, ``cuda`` or ``cuda:0``
    advance : callable, optional
        Called with the number of images read since its last call.
    notify : callable, optional
        Called before the images are read with a warning if the network was trained with another input, or the
        predictions were computed with another one; without ``notify``, these are among the notes.

    Raises
    ------
    UsageError : this kind of network cannot be trained.
    DatasetError : the images are not those of the store.
    PredictionsError : the predictions belong to another network.
    """
    chosen, joint = choose_device(device), joint or JointConfig()
    crops = choose_crops(listing, joint.crop, scale=joint.crop_scale)
    start = network if isinstance(network, Start) else open_network(network)
    warnings = input_warnings(start.architecture, start.trained_with, start.view, crops.identity)
    if start is not network:
        warnings += check_predictions(inputs.two_d[0], start, crops.identity, force=force)
    if notify is not None:
        for warning in warnings:
            notify(warning)
    table = load_table(inputs, blocks=blocks, force=force, need_labels=need_labels, classes=classes)
    ids = listing.samples["id"].tolist()
    in_table, _ = find_rows(ids, table.id)
    matched = np.flatnonzero(in_table >= 0)
    if not len(matched):
        raise DatasetError(
            f"{listing.dataset}: no sample ({listed(ids, 2)}) is in {table.sources.get('3d', 'the store')} "
            f"({listed(table.id.tolist(), 2)}); pass the dataset of the store"
        )
    pictures = load_pictures(
        listing, matched, view=start.view, boxes=crops.boxes, jobs=joint.jobs, advance=advance
    )
    row = np.full(len(table), -1, np.int64)
    row[in_table[pictures.rows]] = np.arange(len(pictures))
    contents = table.content
    contents[row >= 0] = hash_contents(pictures.digests)[row[row >= 0]]
    # rows of val or test on whose images the 2D network was trained are not reported
    trained_on = np.isin(contents, start.seen) & (table.split != Split.train)
    row[trained_on] = -1
    total = hashlib.sha256(
        f"{start.sha256} {asdict(start.view)} {asdict(replace(joint, jobs=None))}".encode()
    )
    for part in (table_digest(table).encode(), row.tobytes(), pictures.digests.tobytes()):
        total.update(part)
    unread = (
        f"{plural(len(pictures.problems), 'image')} could not be read: {listed(list(pictures.problems), 3)}"
    )
    by_split = Counter(Split(int(code)).name for code in table.split[trained_on])
    left_out = (
        f"left out, because the 2D network was trained, or its epoch was chosen, on their images: "
        f"{', '.join(plural(count, f'{name} row') for name, count in by_split.items())}"
    )
    notes = (
        *crops.notes,
        *([unread] if pictures.problems else []),
        *([left_out] if trained_on.any() else []),
    )
    return JointRoute(
        table=replace(table, notes=(*table.notes, *warnings, *notes)),
        pictures=pictures,
        row=row,
        start=start,
        crop=crops.identity,
        contents=contents,
        digest=total.hexdigest(),
        config=joint,
        device=chosen,
        notes=notes if notify is not None else (*warnings, *notes),
    )


def apply_joint(
    path: str | Path,
    listing: Listing,
    inputs: Inputs,
    *,
    joint: JointConfig | None = None,
    device: str = "auto",
    force: bool = False,
    notify: Callable[[str], object] | None = None,
) -> Applied:
    """Predict images with a jointly trained network, using the blocks and classes of its checkpoint.

    Images on which it was fitted are left out. Parameters are those of :func:`open_route`; labels are not needed.

    Raises
    ------
    ModelError : the file is no such checkpoint, or the codes have another basis.
    UsageError : the store does not have a block.
    """
    loaded, start = load_joint(path)
    inputs = Inputs(inputs.two_d, inputs.stores, task=loaded.task)
    route = open_route(
        listing, start, inputs, joint=joint, blocks=loaded.blocks, device=device, force=force, need_labels=False,
        classes=loaded.info.classes, notify=notify,
    )  # fmt: skip
    check_blocks(loaded, route.table)
    model = JointNetwork(start.module, loaded.module).to(route.device)
    applied = predict_new_rows(loaded, route, model, route.device)
    return replace(applied, notes=(*route.notes, *applied.notes))
