from __future__ import annotations

import sys

import numpy as np
import pytest

from pipeline import peak_memory


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_peak_is_that_since_the_reset() -> None:
    assert peak_memory.reset()
    before = peak_memory.peak_mb()
    assert before is not None
    block = np.ones(200_000_000, np.uint8)
    during = peak_memory.peak_mb()
    del block
    assert during is not None
    assert during >= before + 150
    assert (peak_memory.peak_mb() or 0) >= during - 5  # a peak, not the present size
    assert peak_memory.reset()
    after = peak_memory.peak_mb()
    assert after is not None
    assert after < during - 150
