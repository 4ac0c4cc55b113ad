"""The paper's networks without fusion as heads: ``mlp`` and ``residual``, for classes and valence-arousal.

Torch is imported by ``fit`` and ``predict``. The weights of a fitted head are NumPy arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ...errors import UsageError, require
from ...features.device import choose_device
from ..folds import held_out
from .common import Classifier, Regressor, numeric_strata, scale_of, seed_of

_HELD_PART = 6  # one in six rows is held out for early stopping


@dataclass(kw_only=True, eq=False, repr=False)
class _Network(BaseEstimator):
    """Base class of the four heads; parameters as in :class:`MlpClassifier`."""

    needs: ClassVar[str] = "torch"
    network: ClassVar[str]

    width: int | None = None
    dropout: float = 0.5
    masking: float = 0.1
    blocks: tuple[int, ...] | None = None
    epochs: int = 80
    patience: int = 6
    batch_size: int = 128
    max_lr: float = 0.0001
    min_lr: float = 1e-06
    half_cycle: float = 1.0
    weight_decay: float = 0.01
    device: str = "auto"
    random_state: int = 0

    def _training(self) -> Any:
        """The module :mod:`.training`, which imports torch."""
        require("torch", wanted_by=f"head {self.network}")
        from . import training

        return training

    def _recipe(self, columns: int, va_weight: float = 1.0) -> Any:
        blocks = (columns,) if self.blocks is None else tuple(self.blocks)
        if sum(blocks) != columns:
            raise UsageError(
                f"blocks: the widths {blocks} sum to {sum(blocks)}, but the codes have {columns} columns; pass the "
                "width of every block"
            )
        return self._training().Recipe(self, blocks, va_weight, seed_of(self.random_state))

    def _train(self, X: np.ndarray, truth: Any, held: np.ndarray, va_weight: float = 1.0) -> None:
        training = self._training()
        self.mean_, self.scale_ = scale_of(X)
        scaled = ((X - self.mean_) / self.scale_).astype(np.float32)
        device = choose_device(self.device)
        trained = training.train(self._recipe(X.shape[1], va_weight), scaled, truth, held, device)
        self.weights_, self.epoch_, self.losses_ = trained.weights, trained.epoch, list(trained.losses)
        self.outputs_ = truth.outputs

    def _outputs(self, X: np.ndarray) -> np.ndarray:
        scaled = (X - self.mean_) / self.scale_
        return self._training().outputs_of(self._recipe(X.shape[1]), self.weights_, scaled, self.outputs_)


@dataclass(kw_only=True, eq=False, repr=False)
class MlpClassifier(Classifier, _Network):
    """The paper's fully connected classifier: four layers of 2048 units with batch norm.

    As in the paper, all classes are drawn equally often in training. With ``class_weight=None``, the logarithms of the
    class shares in the training rows are added to the logits, so that the probabilities follow these shares.

    Parameters
    ----------
    class_weight : None, ``"balanced"`` or class -> weight
        ``balanced`` adds nothing to the logits, as in the paper: equal prior probabilities.
    width : int or None
        Units of a layer. None means the paper's value: 2048, or 512 for ``residual``.
    dropout : float in [0, 1), default 0.5
    masking : float in [0, 1], default 0.1
        Probability, for each block and training row, that some of its codes are set to 0 (:func:`~.training.masked`).
    blocks : tuple of int or None
        Widths of the code blocks, in the order of the columns. None means one block of all columns.
    epochs, patience : int
        Maximum number of epochs; number of epochs without improvement on the held-out rows after which training stops.
    batch_size : int
    max_lr, min_lr : float
        Limits of AdamW's cyclic learning rate, as in the paper.
    half_cycle : float
        Epochs from the lowest to the highest rate. The paper uses 1 on AffectNet and 0.5 on RAF-DB.
    weight_decay : float
    va_weight : float
        Weight of the valence-arousal loss beside the cross-entropy, if ``fit`` gets ``targets``.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:1``, for training. Predictions are computed on the CPU.
    random_state : int

    Attributes
    ----------
    classes_ : (k,) array
    weights_ : dict, name -> array, weights of the best epoch
    log_share_ : (k,) float64, added to the logits
    epoch_ : int, number of the best epoch;  losses_ : list of float, loss on the held-out rows after each epoch

    References
    ----------
    Dong et al., Ig3D, ECCV Workshops 2024.
    """

    network = "mlp"

    class_weight: str | dict[Any, float] | None = None
    va_weight: float = 1.0

    def fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        groups: np.ndarray | None = None,
        targets: np.ndarray | None = None,
    ) -> MlpClassifier:
        """Fit to codes and labels.

        Parameters
        ----------
        X : (n, d) finite codes
        y : (n,) labels
        groups : (n,), never split between training and held-out rows
        targets : (n, 2) valence and arousal in [-1, 1], NaN where missing, optional
            Learnt together with the classes, as in the paper on AffectNet.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, coded = np.unique(y, return_inverse=True)
        k = len(self.classes_)
        mass = np.bincount(coded, weights=compute_sample_weight(self.class_weight, y))
        # The lower limit keeps the logarithm of a class with weight 0 finite.
        self.log_share_ = np.log(np.maximum(mass / mass.sum(), 1e-12))
        if k > 1:
            held = held_out(coded, groups, _HELD_PART, seed_of(self.random_state))
            values = None if targets is None else np.asarray(targets, np.float32)
            truth = self._training().Truth(k, coded.astype(np.int64), values, np.exp(self.log_share_))
            self._train(X, truth, held, self.va_weight)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """(n, k) probabilities in the order of ``classes_``."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        if len(self.classes_) == 1:
            return np.ones((len(X), 1))
        scores = self._outputs(X)[:, : len(self.classes_)] + self.log_share_
        return np.asarray(softmax(scores, axis=1))


class MlpRegressor(Regressor, _Network):
    """The paper's fully connected network for valence and arousal; the loss is :func:`~..training.losses.va_loss`.

    Targets are standardised for training. Parameters as in :class:`MlpClassifier`, without those of classes.

    Attributes
    ----------
    weights_, epoch_, losses_ : as in :class:`MlpClassifier`
    target_mean_, target_scale_ : (q,) float64
    """

    network = "mlp"

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> MlpRegressor:
        """Fit to (n, d) finite codes and (n,) or (n, q) targets; a group of ``groups`` (n,) is never split."""
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True, dtype=np.float64)
        self.flat_ = y.ndim == 1
        values = np.asarray(y, np.float64).reshape(len(y), -1)
        self.target_mean_, self.target_scale_ = scale_of(values)
        scaled = ((values - self.target_mean_) / self.target_scale_).astype(np.float32)
        held = held_out(numeric_strata(values), groups, _HELD_PART, seed_of(self.random_state))
        self._train(X, self._training().Truth(0, None, scaled, np.zeros(0)), held)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) or (n, q) predictions."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        values = self._outputs(X) * self.target_scale_ + self.target_mean_
        return values[:, 0] if self.flat_ else values


class ResidualClassifier(MlpClassifier):
    """The paper's residual classifier (512 units, blocks of 1024 and 512); otherwise as :class:`MlpClassifier`."""

    network = "residual"


class ResidualRegressor(MlpRegressor):
    """The paper's residual network for valence and arousal; otherwise as :class:`MlpRegressor`."""

    network = "residual"
