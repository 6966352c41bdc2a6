"""Intervals of figures over people: a bootstrap that draws whole groups.

Knows numbers and groups. Knows neither clips nor what the figures mean.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000

Places = npt.NDArray[np.intp]


def intervals(
    measured: Callable[[Places], Mapping[str, float]], groups: int, *, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the central 95 % of each figure over groups drawn with replacement.

    Args:
        measured: Returns the figures of some groups, given their places; a place may repeat.
        groups: Their number; below 2 there is no interval.
        seed: Of the draws.

    Returns:
        Lower and upper end by figure, (nan, nan) where there is no interval.
    """
    rng = np.random.default_rng(seed)
    rows = [
        measured(rng.integers(groups, size=groups)) for _ in range(RESAMPLES if groups > 1 else 0)
    ]
    return {
        key: _central([row.get(key, math.nan) for row in rows])
        for key in measured(np.arange(groups))
    }


def _central(values: list[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return math.nan, math.nan
    low, high = np.percentile(finite, (2.5, 97.5))
    return float(low), float(high)
