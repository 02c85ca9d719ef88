from __future__ import annotations

import numpy as np
import pytest

from components.training.model import MLP


def test_initial_weights_follow_glorot_and_differ_by_seed() -> None:
    a, b = MLP((784, 128, 10), seed=0), MLP((784, 128, 10), seed=1)
    limit = (6 / (784 + 128)) ** 0.5
    kernel = a.weights[0].numpy()
    assert np.abs(kernel).max() <= limit
    assert kernel.std() == pytest.approx(limit / 3**0.5, rel=0.05)
    assert not np.array_equal(kernel, b.weights[0].numpy())
