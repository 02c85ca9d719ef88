from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.compare import two_proportions


@given(st.integers(1, 500), st.integers(1, 500), st.data())
def test_two_proportions_is_a_symmetric_probability(n: int, m: int, data: st.DataObject) -> None:
    a, b = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    p = two_proportions(a, n, b, m)
    assert 0 <= p <= 1
    assert p == pytest.approx(two_proportions(b, m, a, n))


def test_equal_proportions_are_called_different_at_most_as_often_as_the_level_says() -> None:
    counts = np.random.default_rng(1).binomial(1000, 0.9, (2000, 2))
    called = np.mean([two_proportions(int(a), 1000, int(b), 1000) < 0.05 for a, b in counts])
    assert 0.03 < called < 0.065
