"""The simulation of the gate agrees with theory. Its random numbers are fixed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.significance import LEVEL, Case, refused, theoretical
from components.validation.significance import wilson


@pytest.mark.parametrize("case", [Case(0.96, 0.96, 1000), Case(0.96, 0.95, 1000)])
def test_the_gate_refuses_as_often_as_theory_says(case: Case) -> None:
    generator = np.random.default_rng(1)
    count = sum(refused(case, generator)[0] for _ in range(200))
    low, high = wilson(count, 200)
    assert low <= theoretical(case) <= high
    if case.candidate == case.baseline:
        assert theoretical(case) <= LEVEL
