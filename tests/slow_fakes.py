"""A regressor that takes its time: a run of it is still going when a test interrupts it, on a busy machine too."""

import time

import numpy as np

from ig3d.extract.fakes import FakeRegressor
from ig3d.features.values import FaceBatch


class SlowRegressor(FakeRegressor):
    """The codes of :class:`FakeRegressor`, under its name, a twentieth of a second later for each batch."""

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        time.sleep(0.05)
        return super().__call__(faces)
