"""Heads from user code: any scikit-learn-compatible estimator, named as ``package.module:Class``.

The wrappers pass ``groups`` to ``fit`` methods that accept it, fit one-dimensional regressors to each target column,
and check the predictions. Errors of the estimator are reported with the name of the head.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection._search import BaseSearchCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ...errors import Ig3dError, PredictionsError, Terminated, UsageError, plural
from .common import Classifier, Regressor

_SEED_PARAMETERS = ("random_state", "random_seed", "seed")
_THREAD_PARAMETERS = ("n_jobs", "num_threads", "thread_count")
_SUM_TOLERANCE = 1e-3  # of the sum of a row of probabilities


def custom_head(target: str, task: str, *, seed: int, jobs: int, balanced: bool) -> Any:
    """Head around the estimator ``package.module:Class``, constructed without arguments.

    The seed, the number of threads and ``class_weight`` are set if the estimator has these parameters.

    Raises
    ------
    UsageError : the module or class does not exist, its constructor needs arguments, or it cannot do the task.
    """
    kind = import_estimator(target, task)
    with _import_errors(target):
        estimator = kind()
    values: dict[str, Any] = {
        **dict.fromkeys(_SEED_PARAMETERS, seed),
        **dict.fromkeys(_THREAD_PARAMETERS, jobs if jobs > 0 else -1),
        **({"class_weight": "balanced"} if balanced else {}),
    }
    parameters = estimator.get_params()
    estimator.set_params(**{name: value for name, value in values.items() if name in parameters})
    return (CustomClassifier if task == "classes" else CustomRegressor)(estimator, target)


def import_estimator(target: str, task: str | None = None) -> type:
    """The class ``package.module:Class``, imported but not constructed.

    Parameters
    ----------
    target : ``package.module:Class``
    task : ``classes``, ``va``, or None for a class of either

    Raises
    ------
    UsageError : the module or class does not exist, or the class does not have the methods of an estimator.
    """
    with _import_errors(target):
        module, _, attribute = target.partition(":")
        kind = getattr(import_module(module), attribute)
    predicting = {"classes": ("predict_proba",), "va": ("predict",)}.get(
        task or "", ("predict_proba", "predict")
    )
    required = ("fit", "get_params", "set_params")
    # getattr_static runs neither descriptors nor __getattr__ of the object.
    has = {name: inspect.getattr_static(kind, name, None) is not None for name in (*required, *predicting)}
    missing = [name for name in required if not has[name]]
    missing += [] if any(has[name] for name in predicting) else [" or ".join(predicting)]
    if isinstance(kind, type) and not missing:
        return kind
    problem = f"the class has no {', '.join(missing)}" if isinstance(kind, type) else "it is not a class"
    raise UsageError(
        f"head: {target!r} is not a scikit-learn-compatible estimator with {', '.join(required)} and "
        f"{' or '.join(predicting)}: {problem}; inherit from sklearn.base.BaseEstimator and add the methods"
    )


def class_hash(kind: type) -> str:
    """SHA-256 of the source files of a class and its base classes, and of the versions of their packages.

    Modules that these files import are not included.
    """
    digest = hashlib.sha256()
    for base in inspect.getmro(kind):
        package = sys.modules.get(getattr(base, "__module__", "").partition(".")[0])
        version = getattr(package, "__version__", "")
        digest.update(repr((kind.__module__, kind.__qualname__, version)).encode())
        with suppress(OSError, TypeError):  # a compiled class, or one defined in an interactive session
            digest.update(Path(inspect.getsourcefile(base) or "").read_bytes())
    return digest.hexdigest()


@contextmanager
def _import_errors(target: str) -> Iterator[None]:
    """Turn any error of importing or constructing a user's class into a one-line UsageError."""
    try:
        yield
    except Terminated:
        raise
    except (Exception, SystemExit) as error:  # user code can raise anything
        reason = " ".join(str(error).split())
        if not isinstance(error, ImportError | AttributeError | TypeError | ValueError):
            reason = f"{type(error).__name__}: {reason}"
        raise UsageError(
            f"head: the estimator {target!r} cannot be imported and constructed without arguments ({reason}); check "
            "that the package is installed and the name is spelt module:Class"
        ) from error


class _Custom(BaseEstimator):
    """Base class of both wrappers; ``estimator`` is cloned before each fit, ``name`` is the name in messages."""

    def __init__(self, estimator: Any = None, name: str = "") -> None:
        self.estimator = estimator
        self.name = name

    def _fitted(self, estimator: Any, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> Any:
        """A fitted clone; ``groups`` is passed if the ``fit`` of the user's estimator accepts it."""
        # ``estimator`` may be a MultiOutputRegressor around it, which passes groups on
        original = self.estimator
        accepts = "groups" in inspect.signature(original.fit).parameters or isinstance(original, BaseSearchCV)
        with self._estimator_errors(), warnings.catch_warnings():
            # ig3d also sets n_jobs of estimators that ignore it.
            warnings.filterwarnings("ignore", "'n_jobs' has no effect", FutureWarning)
            model = clone(estimator)
            model.fit(X, y, **({"groups": groups} if accepts and groups is not None else {}))
        return model

    @contextmanager
    def _estimator_errors(self) -> Iterator[None]:
        """Report any error of the user's estimator in one line, after the name of the head."""
        try:
            yield
        except (Ig3dError, Terminated):
            raise
        except (Exception, SystemExit) as error:  # user code can raise anything
            reason = " ".join(str(error).split())
            raise PredictionsError(f"head {self.name}: {type(error).__name__}: {reason}") from error

    def _checked(
        self, predictions: np.ndarray, shapes: tuple[tuple[int, ...], ...], content: str
    ) -> np.ndarray:
        """Finite predictions, reshaped to the first of the allowed shapes.

        Raises
        ------
        PredictionsError : another shape, or values that are not finite.
        """
        rows = shapes[0][0]
        if predictions.shape not in shapes:
            raise PredictionsError(
                f"head {self.name}: predictions have shape {predictions.shape}, not {shapes[0]} for {content}; correct "
                "the class"
            )
        values = predictions.reshape(shapes[0])
        for wrong, name in ((np.isnan(values), "NaN"), (np.isinf(values), "infinity")):
            count = int(wrong.reshape(rows, -1).any(axis=1).sum())
            if count:
                raise PredictionsError(
                    f"head {self.name}: {content} have {name} in {count} of {plural(rows, 'row')}; correct the class, "
                    "or choose another head"
                )
        return values


class CustomClassifier(Classifier, _Custom):
    """Wrapper of a user's classifier.

    Attributes
    ----------
    classes_ : (k,) array
    model_ : the fitted estimator; None if there is only one class
    """

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> CustomClassifier:
        """Fit to (n, d) finite codes and (n,) labels."""
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, coded = np.unique(y, return_inverse=True)
        self.model_ = None
        if len(self.classes_) > 1:
            self.model_ = self._fitted(self.estimator, X, coded, groups)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """(n, k) probabilities in the order of ``classes_``.

        Raises
        ------
        PredictionsError : the estimator fails, or its predictions are not probabilities of its classes.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        if self.model_ is None:
            return np.ones((len(X), 1))
        p = np.zeros((len(X), len(self.classes_)))
        with self._estimator_errors():
            columns = np.asarray(getattr(self.model_, "classes_", np.arange(p.shape[1])), np.intp)
            predictions = np.asarray(self.model_.predict_proba(X), np.float64)
        if not np.isin(columns, np.arange(p.shape[1])).all():
            raise PredictionsError(
                f"head {self.name}: classes_ is {columns.tolist()}, but the labels passed to fit are 0 to "
                f"{p.shape[1] - 1}; correct the class"
            )
        p[:, columns] = self._checked(
            predictions, ((len(X), len(columns)),), f"probabilities of {len(columns)} classes"
        )
        wrong = ((p < 0) | (p > 1)).any(axis=1) | (np.abs(p.sum(axis=1) - 1) > _SUM_TOLERANCE)
        if wrong.any():
            first = p[wrong][0]
            raise PredictionsError(
                f"head {self.name}: no probabilities between 0 and 1 that sum to 1 in {wrong.sum()} of "
                f"{plural(len(X), 'row')} (the first has values from {first.min():.4g} to {first.max():.4g}, sum "
                f"{first.sum():.4g}); correct its predict_proba"
            )
        return p


class CustomRegressor(Regressor, _Custom):
    """Wrapper of a user's regressor; fits one regressor per target column if it supports only one.

    Attributes
    ----------
    model_ : the fitted estimator
    """

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> CustomRegressor:
        """Fit to (n, d) finite codes and (n,) or (n, q) targets."""
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True)
        several = y.ndim == 2 and y.shape[1] > 1
        estimator = self.estimator
        if several and not _is_multi_output(estimator):
            estimator = MultiOutputRegressor(estimator)
        self.model_ = self._fitted(estimator, X, y if several or y.ndim == 1 else y[:, 0], groups)
        self.shape_ = y.shape[1:]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) or (n, q) predictions.

        Raises
        ------
        PredictionsError : the estimator fails, or its predictions have another shape or are not finite.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        with self._estimator_errors():
            predictions = np.asarray(self.model_.predict(X), np.float64)
        n, shape = len(X), (len(X), *self.shape_)
        equivalent = ((n,), (n, 1)) if self.shape_ in ((), (1,)) else ()
        return self._checked(predictions, (shape, *equivalent), "values")


def _is_multi_output(estimator: Any) -> bool:
    """Whether a regressor declares that it supports several target columns."""
    from sklearn.utils import get_tags

    try:
        return bool(get_tags(estimator).target_tags.multi_output)
    except (AttributeError, TypeError, ValueError):
        return False
