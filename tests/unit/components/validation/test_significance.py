"""The interval and the paired test: published values, and what holds for all counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.validation.significance import mcnemar, paired, wilson


@pytest.mark.parametrize(
    ("successes", "n", "interval"),
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_wilson_as_in_newcombe_1998(successes, n, interval):
    assert wilson(successes, n) == pytest.approx(interval, abs=5e-5)


# 1 against 7 and 6 against 16: the two-sided exact p-values of Fagerland, Lydersen and Laake, 2013.
@pytest.mark.parametrize(("worse", "better", "p_two_sided"), [(7, 1, 0.070), (16, 6, 0.052)])
def test_mcnemar_as_in_fagerland_2013(worse, better, p_two_sided):
    assert 2 * mcnemar(worse, better) == pytest.approx(p_two_sided, abs=5e-4)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.5, 0.999))
def test_wilson_contains_the_proportion_and_narrows_with_n(successes, more, level):
    n = successes + more
    low, high = wilson(successes, n, level)
    assert 0 <= low <= (successes / n if n else 0.5) <= high <= 1
    mirrored = wilson(more, n, level)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)
    wider = wilson(successes, n, 0.9999)
    assert wider[0] <= low and high <= wider[1]


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_binomial_tail(worse, better):
    n = worse + better
    exact = sum(math.comb(n, k) for k in range(worse, n + 1)) / 2**n
    assert mcnemar(worse, better) == pytest.approx(exact, rel=1e-9)


def test_large_counts_neither_overflow_nor_take_long():
    assert mcnemar(50_000, 50_000) == pytest.approx(0.5, abs=0.01)
    assert mcnemar(100_000, 0) == 0.0
    assert mcnemar(0, 100_000) == 1.0


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=50))
def test_paired_counts_what_one_of_two_gets_right(rows):
    labels, a, b = np.array(rows, np.int64).reshape(-1, 3).T
    there, back = paired(labels, a, b), paired(labels, b, a)
    assert there.worse - there.better == (a == labels).sum() - (b == labels).sum()
    assert (there.worse, there.better) == (back.better, back.worse)
    assert there.p_different == back.p_different
    assert there.p_worse + back.p_worse >= 1
