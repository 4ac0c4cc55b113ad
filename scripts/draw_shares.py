"""Where do ``gate`` and ``attention`` take the codes? A case in which the codes help half of the rows only, drawn.

In half of the rows the features tell the class and the codes are noise; in the other half it is the other way round.
Which half a row is of shows in its features alone, faintly in each channel, as blur shows in a picture. Prints, for
each module and seed, the mean share of the codes in both halves, how well the share tells the halves apart, and
accuracies with codes and with every block masked; draws the shares to docs/images/shares.png.

    python scripts/draw_shares.py [PICTURE]
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from ig3d.learn.intermediate.config import IntermediateConfig
from ig3d.learn.intermediate.fit import TrainingData, fit, parameter_groups, predict
from ig3d.learn.intermediate.modules import FusionModule, ModuleSpec, make_module
from ig3d.learn.training.epochs import seeded

mpl.use("Agg")
from matplotlib import pyplot as plt

ROWS, CLASSES, WIDTH, BLOCKS = 4000, 4, 32, (10, 3, 2)
SEEDS = (0, 1, 2)
CPU = torch.device("cpu")


def half_and_half() -> tuple[TrainingData, np.ndarray]:
    """The rows, and (n,) bool where the codes help; three quarters of them teach, the rest is looked at."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, ROWS)
    helped = rng.random(ROWS) < 0.5
    said = np.where(
        helped, rng.integers(0, CLASSES, ROWS), labels
    )  # what features say: nothing where codes help
    features = rng.normal(0, 1, (ROWS, WIDTH)).astype(np.float32)
    features[np.arange(ROWS), said] += 4
    features[:, CLASSES:] += np.where(helped, 0.8, -0.8)[:, None]
    codes = rng.normal(0, 1, (ROWS, sum(BLOCKS))).astype(np.float32)
    codes[np.arange(ROWS), np.where(helped, labels, rng.integers(0, CLASSES, ROWS))] += 4
    tensors = torch.from_numpy(features)
    parts = np.arange(ROWS) % 8
    data = TrainingData(
        inputs=lambda rows, _: tensors[rows],
        codes=torch.from_numpy(codes),
        present=torch.ones(ROWS, dtype=torch.bool),
        blocks=BLOCKS,
        labels=torch.from_numpy(labels),
        targets=torch.full((ROWS, 2), torch.nan),
        train=torch.from_numpy(np.flatnonzero(parts < 5)),
        validation=torch.from_numpy(np.flatnonzero(parts == 5)),
        classes=CLASSES,
        va=False,
    )
    return data, helped


def trained(name: str, data: TrainingData, seed: int) -> FusionModule:
    config = IntermediateConfig(module=name, epochs=15, batch_size=64, lr=3e-3)
    with seeded(seed, CPU):
        module = make_module(ModuleSpec(name, (WIDTH,), BLOCKS, WIDTH, CLASSES, config.dropout))
        module.positions.standardise_by(data.inputs(data.train, None))
        module.tokens.standardise_by(data.codes[data.train])
        groups = parameter_groups(module, lr=config.lr, weight_decay=config.weight_decay)
        fit(module, groups, data, config, seed=seed, device=CPU)
    return module.eval()


def shares(name: str, data: TrainingData, helped: np.ndarray, looked: torch.Tensor, seed: int) -> np.ndarray:
    """(m,) share of the codes in each row that is looked at; prints what came of it."""
    module = trained(name, data, seed)
    with torch.no_grad():
        share = module.share(
            data.inputs(looked, None), data.codes[looked], data.blocks_present(looked)
        ).numpy()
        masked = module(data.inputs(looked, None), data.codes[looked], ~data.blocks_present(looked)).numpy()
    truth, half = data.labels[looked].numpy(), helped[looked.numpy()]
    right = predict(module, data, looked, device=CPU).argmax(1) == truth
    alone = masked.argmax(1) == truth
    print(
        f"{name:10s} seed {seed}: share {share[half].mean():.2f} where codes help, {share[~half].mean():.2f} elsewhere "
        f"(told apart {roc_auc_score(half, share):.3f}); accuracy with codes {right[half].mean():.3f} and "
        f"{right[~half].mean():.3f}, masked {alone[half].mean():.3f} and {alone[~half].mean():.3f}",
        flush=True,
    )
    return share


def draw(path: Path) -> None:
    data, helped = half_and_half()
    looked = torch.from_numpy(np.flatnonzero(np.arange(ROWS) % 8 > 5))
    half = helped[looked.numpy()]
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True, layout="constrained")
    for axis, name in zip(axes, ("gate", "attention"), strict=True):
        found = np.concatenate([shares(name, data, helped, looked, seed) for seed in SEEDS])
        where = np.tile(half, len(SEEDS))
        for rows, colour, label in (
            (where, "#c2410c", "codes tell the class"),
            (~where, "#64748b", "features tell it"),
        ):
            axis.hist(found[rows], bins=np.linspace(0, 1, 41), color=colour, alpha=0.65, label=label)
        axis.set(title=name, xlabel="share of the codes in the decision", xlim=(0, 1))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(f"rows, {len(SEEDS)} seeds")
    axes[1].legend(frameon=False, loc="upper center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    print(path)


if __name__ == "__main__":
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/shares.png"))
