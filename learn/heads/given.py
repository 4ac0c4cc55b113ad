"""Heads that the user names: any estimator with scikit-learn's ``fit`` and ``predict``, as ``package.module:Class``.

The class is the user's own code and runs as such. What is wrapped here is its manner alone: groups are passed on where
it takes them, and one-dimensional regressors are fitted to each column of the target. Its answers are checked here, and
what it raises is told with its name.
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
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.model_selection._search import BaseSearchCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ...errors import Ig3dError, PredictionsError, Terminated, UsageError

_SEEDS = ("random_state", "random_seed", "seed")
_THREADS = ("n_jobs", "num_threads", "thread_count")
_SUM_TOLERANCE = 1e-3  # of a row of probabilities


def given_head(place: str, task: str, *, seed: int, jobs: int, balanced: bool) -> Any:
    """The estimator at ``package.module:Class``, made without arguments, with seed and threads where it has them.

    Raises
    ------
    UsageError : there is no such module or class, it needs arguments, or it cannot do the task.
    """
    kind = class_at(place, task)
    with _found(place):
        estimator = kind()
    offered: dict[str, Any] = {
        **dict.fromkeys(_SEEDS, seed),
        **dict.fromkeys(_THREADS, jobs if jobs > 0 else -1),
        **({"class_weight": "balanced"} if balanced else {}),
    }
    known = estimator.get_params()
    estimator.set_params(**{name: value for name, value in offered.items() if name in known})
    return (GivenClassifier if task == "classes" else GivenRegressor)(estimator, place)


def class_at(place: str, task: str | None = None) -> type:
    """The class at ``package.module:Class``; nothing of it is called.

    Parameters
    ----------
    place : ``package.module:Class``
    task : ``classes``, ``va``, or None for a class of either

    Raises
    ------
    UsageError : there is no such module or class, or the class has not the methods of an estimator.
    """
    with _found(place):
        module, _, attribute = place.partition(":")
        kind = getattr(import_module(module), attribute)
    predicts = {"classes": ("predict_proba",), "va": ("predict",)}.get(
        task or "", ("predict_proba", "predict")
    )
    wanted = ("fit", "get_params", "set_params")
    # Looked up without running a descriptor or __getattr__ of the object.
    has = {name: inspect.getattr_static(kind, name, None) is not None for name in (*wanted, *predicts)}
    missing = [name for name in wanted if not has[name]]
    missing += [] if any(has[name] for name in predicts) else [" or ".join(predicts)]
    if isinstance(kind, type) and not missing:
        return kind
    what = f"a class without {', '.join(missing)}" if isinstance(kind, type) else "which is no class"
    raise UsageError(
        f"head: expected a scikit-learn-compatible estimator class with {', '.join(wanted)} and "
        f"{' or '.join(predicts)}, got {place!r}, {what}; inherit sklearn.base.BaseEstimator"
    )


def code_at(place: str) -> str:
    """What the estimator at ``package.module:Class`` does, as a hash: another one where its code is another.

    Of the source files of the class and of all that it inherits from, and of the versions of their packages; not of
    what these files import.

    Raises
    ------
    UsageError : there is no such module or class, or it is no estimator's.
    """
    return code_of_class(class_at(place))


def code_of_class(kind: type) -> str:
    """Hash of the source files of a class and its base classes, and of the versions of their packages."""
    code = hashlib.sha256()
    for each in inspect.getmro(kind):
        package = sys.modules.get(getattr(each, "__module__", "").partition(".")[0])
        version = getattr(package, "__version__", "")
        code.update(repr((kind.__module__, kind.__qualname__, version)).encode())
        with suppress(OSError, TypeError):  # compiled, or typed in at a prompt
            code.update(Path(inspect.getsourcefile(each) or "").read_bytes())
    return code.hexdigest()


@contextmanager
def _found(place: str) -> Iterator[None]:
    """What keeps a place from being an estimator's, in one line."""
    try:
        yield
    except Terminated:
        raise
    except (Exception, SystemExit) as error:  # it is not our code: anything may come
        said = " ".join(str(error).split())
        if not isinstance(error, ImportError | AttributeError | TypeError | ValueError):
            said = f"{type(error).__name__}: {said}"
        raise UsageError(
            f"head: expected module:Class of an estimator that is made without arguments, got {place!r} ({said}); is "
            "it installed, and spelt as Python has it?"
        ) from error


class _Given(BaseEstimator):
    """What both share: the estimator is a parameter and is cloned; ``name`` is what messages call it."""

    def __init__(self, estimator: Any = None, name: str = "") -> None:
        self.estimator = estimator
        self.name = name

    def _fitted(self, estimator: Any, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> Any:
        """A clone, fitted; with groups where the user's own ``fit`` takes them."""
        own = self.estimator  # what wraps it passes them on
        takes = "groups" in inspect.signature(own.fit).parameters or isinstance(own, BaseSearchCV)
        with self._named(), warnings.catch_warnings():
            # ig3d sets n_jobs, also of estimators that ignore it
            warnings.filterwarnings("ignore", "'n_jobs' has no effect", FutureWarning)
            model = clone(estimator)
            model.fit(X, y, **({"groups": groups} if takes and groups is not None else {}))
        return model

    @contextmanager
    def _named(self) -> Iterator[None]:
        """What the user's own code raises, with the head's name before it."""
        try:
            yield
        except (Ig3dError, Terminated):
            raise
        except (Exception, SystemExit) as error:  # it is not our code: anything may come
            said = " ".join(str(error).split())  # in one line
            raise PredictionsError(f"head {self.name}: {type(error).__name__}: {said}") from error

    def _checked(self, answer: np.ndarray, shapes: tuple[tuple[int, ...], ...], what: str) -> np.ndarray:
        """The answer in the first of the shapes it may have.

        Raises
        ------
        PredictionsError : another shape, or numbers that are not finite.
        """
        wanted, rows = f"head {self.name}: expected finite {what} for each row", shapes[0][0]
        if answer.shape not in shapes:
            raise PredictionsError(f"{wanted}, of shape {shapes[0]}, got {answer.shape}; mend the class")
        values = answer.reshape(shapes[0])
        for found, told in ((np.isnan(values), "NaN"), (np.isinf(values), "infinity")):
            bad = int(found.reshape(rows, -1).any(axis=1).sum())
            if bad:
                raise PredictionsError(
                    f"{wanted}, got {told} in {bad} of {rows} rows; mend the class, or take another head"
                )
        return values


class GivenClassifier(ClassifierMixin, _Given):
    """A user's classifier as a head.

    Attributes
    ----------
    classes_ : (k,) array
    model_ : the fitted estimator, or None where there is one class only
    """

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> GivenClassifier:
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
        PredictionsError : what the estimator gives are none of its classes, or it raises.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        if self.model_ is None:
            return np.ones((len(X), 1))
        p = np.zeros((len(X), len(self.classes_)))
        with self._named():
            known = np.asarray(getattr(self.model_, "classes_", np.arange(p.shape[1])), np.intp)
            answer = np.asarray(self.model_.predict_proba(X), np.float64)
        if not np.isin(known, np.arange(p.shape[1])).all():
            raise PredictionsError(
                f"head {self.name}: expected classes_ among the labels of its fit, 0 to {p.shape[1] - 1}, got "
                f"{known.tolist()}; mend the class"
            )
        p[:, known] = self._checked(answer, ((len(X), len(known)),), f"probabilities of {len(known)} classes")
        wrong = ((p < 0) | (p > 1)).any(axis=1) | (np.abs(p.sum(axis=1) - 1) > _SUM_TOLERANCE)
        if wrong.any():
            raise PredictionsError(
                f"head {self.name}: expected probabilities from 0 to 1 whose rows sum to 1, got {wrong.sum()} of "
                f"{len(X)} rows that are not so (the first sums to {p[wrong][0].sum():.4g}, from "
                f"{p[wrong][0].min():.4g} to {p[wrong][0].max():.4g}); mend its predict_proba"
            )
        return p

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) the likeliest class of each row."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]


class GivenRegressor(RegressorMixin, _Given):
    """A user's regressor as a head; one for each column where it takes only one.

    Attributes
    ----------
    model_ : the fitted estimator
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> GivenRegressor:
        """Fit to (n, d) finite codes and (n,) or (n, q) targets."""
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True)
        several = y.ndim == 2 and y.shape[1] > 1
        estimator = self.estimator
        if several and not _takes_several(estimator):
            estimator = MultiOutputRegressor(estimator)
        self.model_ = self._fitted(estimator, X, y if several or y.ndim == 1 else y[:, 0], groups)
        self.shape_ = y.shape[1:]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) or (n, q) predictions.

        Raises
        ------
        PredictionsError : what the estimator gives is of another shape or not finite, or it raises.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        with self._named():
            answer = np.asarray(self.model_.predict(X), np.float64)
        n, shape = len(X), (len(X), *self.shape_)
        alike = ((n,), (n, 1)) if self.shape_ in ((), (1,)) else ()
        return self._checked(answer, (shape, *alike), "values")


def _takes_several(estimator: Any) -> bool:
    """Whether a regressor says that it takes several columns of targets; one that says nothing is taken apart."""
    from sklearn.utils import get_tags

    try:
        return bool(get_tags(estimator).target_tags.multi_output)
    except (AttributeError, TypeError, ValueError):
        return False
