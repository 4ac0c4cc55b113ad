"""Base class of regressors that run one network of the engine on crops."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ...errors import UsageError
from ...features.values import FaceBatch
from ..engine import Network
from . import Regressor


class NetworkRegressor(Regressor):
    """Regressor whose codes are outputs of one network; the constructor of a subclass sets ``_network``."""

    gpu = True
    _network: Network

    @property
    def takes_tensors(self) -> bool:
        return self._network.runtime.startswith("torch")

    @property
    def reduced_batches(self) -> dict[str, int]:
        return {self._network.name: self._network.batch} if self._network.reduced else {}

    def __call__(self, faces: FaceBatch) -> Mapping[str, np.ndarray]:
        return self.start(faces)()

    def start(self, faces: FaceBatch) -> Callable[[], Mapping[str, np.ndarray]]:
        if faces.crops is None:
            raise UsageError(
                f"{self.name}: the faces have no crops; make them as in {type(self).__name__}.needs"
            )
        wait = self._network.start(faces.crops)
        return lambda: self.codes(wait())

    @abstractmethod
    def codes(self, outputs: Sequence[np.ndarray]) -> Mapping[str, np.ndarray]:
        """Block name -> (n, width) float32 codes, from the outputs of the network."""
