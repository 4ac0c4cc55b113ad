"""Draw the share of the codes in decisions of ``gate`` and ``attention``, if codes help in half of the rows only.

In one half of the rows the features contain the class and the codes are noise; in the other half it is the reverse. A
small shift of all features, like blur in a picture, marks the half. The script prints, for each module and seed, the
mean share of the codes in both halves, the area under the ROC curve of the share as a classifier of the halves, and
accuracies with codes and with all blocks masked. It draws the shares to docs/images/shares.png.

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
from ig3d.learn.intermediate.fit import TrainingData, fit, module_groups, predict
from ig3d.learn.intermediate.modules import FusionModule, ModuleSpec, make_module
from ig3d.learn.training.loop import seeded

mpl.use("Agg")
from matplotlib import pyplot as plt

ROWS, CLASSES, WIDTH, BLOCKS = 4000, 4, 32, (10, 3, 2)
SEEDS = (0, 1, 2)
CPU = torch.device("cpu")


def half_and_half() -> tuple[TrainingData, np.ndarray]:
    """Rows for training (6 of 8) and evaluation, and (n,) bool: whether the codes of a row contain its class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, ROWS)
    helped = rng.random(ROWS) < 0.5
    # class shown by the features: random in rows where the codes help
    shown = np.where(helped, rng.integers(0, CLASSES, ROWS), labels)
    features = rng.normal(0, 1, (ROWS, WIDTH)).astype(np.float32)
    features[np.arange(ROWS), shown] += 4
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
    """Module after training."""
    config = IntermediateConfig(module=name, epochs=15, batch_size=64, lr=3e-3)
    with seeded(seed, CPU):
        module = make_module(ModuleSpec(name, (WIDTH,), BLOCKS, WIDTH, CLASSES, config.dropout))
        module.positions.standardise_by(data.inputs(data.train, None))
        module.tokens.standardise_by(data.codes[data.train])
        groups = module_groups(module, lr=config.lr, weight_decay=config.weight_decay)
        fit(module, groups, data, config, seed=seed, device=CPU)
    return module.eval()


def shares(name: str, data: TrainingData, helped: np.ndarray, rows: torch.Tensor, seed: int) -> np.ndarray:
    """(m,) share of the codes in the decision of each of these rows; prints a summary."""
    module = trained(name, data, seed)
    with torch.no_grad():
        share = module.share(data.inputs(rows, None), data.codes[rows], data.blocks_present(rows)).numpy()
        masked = module(data.inputs(rows, None), data.codes[rows], ~data.blocks_present(rows)).numpy()
    truth, half = data.labels[rows].numpy(), helped[rows.numpy()]
    right = predict(module, data, rows, device=CPU).argmax(1) == truth
    alone = masked.argmax(1) == truth
    print(
        f"{name:10s} seed {seed}: share {share[half].mean():.2f} where codes help, {share[~half].mean():.2f} elsewhere "
        f"(AUC {roc_auc_score(half, share):.3f}); accuracy with codes {right[half].mean():.3f} and "
        f"{right[~half].mean():.3f}, masked {alone[half].mean():.3f} and {alone[~half].mean():.3f}",
        flush=True,
    )
    return share


def draw(path: Path) -> None:
    """Draw histograms of the shares."""
    data, helped = half_and_half()
    evaluated = torch.from_numpy(np.flatnonzero(np.arange(ROWS) % 8 > 5))
    half = helped[evaluated.numpy()]
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True, layout="constrained")
    for axis, name in zip(axes, ("gate", "attention"), strict=True):
        values = np.concatenate([shares(name, data, helped, evaluated, seed) for seed in SEEDS])
        in_codes = np.tile(half, len(SEEDS))
        for rows, colour, label in (
            (in_codes, "#c2410c", "class in the codes"),
            (~in_codes, "#64748b", "class in the features"),
        ):
            axis.hist(values[rows], bins=np.linspace(0, 1, 41), color=colour, alpha=0.65, label=label)
        axis.set(title=name, xlabel="share of the codes in the decision", xlim=(0, 1))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(f"rows, {len(SEEDS)} seeds")
    axes[1].legend(frameon=False, loc="upper center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    print(path)


if __name__ == "__main__":
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/shares.png"))
