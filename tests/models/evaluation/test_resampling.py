"""Intervals over whole groups."""

import math

import numpy as np
import pytest

from tamulag.models.evaluation.resampling import Places, intervals

VALUES = np.arange(20.0)


def mean(places: Places) -> dict[str, float]:
    return {"mean": float(VALUES[places].mean())}


def test_the_interval_of_a_mean_is_that_of_its_error() -> None:
    """20 groups of deviation 5.77: 1.96 errors of 1.29 to each side, the same each time."""
    low, high = intervals(mean, 20)["mean"]
    assert low == pytest.approx(9.5 - 2.53, abs=0.3)
    assert high == pytest.approx(9.5 + 2.53, abs=0.3)
    assert intervals(mean, 20)["mean"] == (low, high)
    assert intervals(mean, 20, seed=1)["mean"] != (low, high)


def test_one_group_and_what_is_never_finite_have_no_interval() -> None:
    """Not a number, rather than an interval of width 0."""
    assert all(map(math.isnan, intervals(mean, 1)["mean"]))
    assert all(map(math.isnan, intervals(lambda _: {"none": math.nan}, 5)["none"]))
