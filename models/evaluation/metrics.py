"""The field's metrics on CMU-MOSI, CMU-MOSEI and CH-SIMS, as MMSA computes them.

Knows one-dimensional arrays of estimates and labels.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..data.label_scale import Form

Vector = npt.NDArray[np.floating]

SIMS_EDGES = ((0.0,), (-0.1, 0.1), (-0.7, -0.1, 0.1, 0.7))
"""Inner edges of the bins of Acc2, Acc3 and Acc5."""


def mosi_metrics(predicted: Vector, truth: Vector) -> dict[str, float]:
    """Compare sentiment estimates with labels (method, section 2).

    MAE and Corr are on the values as they are. `has0`: negative against non-negative, all rows.
    `non0`: negative against positive, rows with label 0 left out. F1 is weighted by support. Acc7
    rounds half to even, after clipping to [-3, 3].

    Args:
        predicted: (N,) sentiment.
        truth: (N,) labels in [-3, 3].

    Returns:
        n, MAE, Corr, Acc2_has0, Acc2_non0, F1_has0, F1_non0, Acc7; Corr is nan for constant input.

    Raises:
        ValueError: If the shapes differ or there is nothing to compare.
    """
    predicted, truth = _checked(predicted, truth, np.float64)
    positive, expected = predicted >= 0, truth >= 0
    signed = truth != 0
    above, wanted = predicted[signed] > 0, truth[signed] > 0
    return {
        "n": len(truth),
        "MAE": float(np.abs(predicted - truth).mean()),
        "Corr": _corr(predicted, truth),
        "Acc2_has0": float((positive == expected).mean()),
        "Acc2_non0": float((above == wanted).mean()) if len(wanted) else float("nan"),
        "F1_has0": weighted_f1(positive, expected),
        "F1_non0": weighted_f1(above, wanted),
        "Acc7": float((np.round(predicted.clip(-3, 3)) == np.round(truth.clip(-3, 3))).mean()),
    }


def sims_metrics(predicted: Vector, truth: Vector) -> dict[str, float]:
    """Compare estimates with labels in the form of CH-SIMS (method, section 2).

    Everything is on values clipped to [-1, 1], MAE and Corr too. Acc2, Acc3 and Acc5 compare bins
    (lo, hi] with the inner edges 0, then -.1 .1, then -.7 -.1 .1 .7, so that 0 is negative in
    Acc2. F1 is that of the two bins, weighted by support.

    Args:
        predicted: (N,) estimates; compared in float32 with the edges, as MMSA has them.
        truth: (N,) labels in [-1, 1].

    Returns:
        n, MAE, Corr, Acc2, Acc3, Acc5, F1; Corr is nan for constant input.

    Raises:
        ValueError: If the shapes differ or there is nothing to compare.
    """
    predicted, truth = (x.clip(-1, 1) for x in _checked(predicted, truth, np.float32))
    bins = {
        f"Acc{len(edges) + 1}": (_bins(predicted, edges), _bins(truth, edges))
        for edges in SIMS_EDGES
    }
    two, expected = bins["Acc2"]
    predicted, truth = predicted.astype(np.float64), truth.astype(np.float64)
    return {
        "n": len(truth),
        "MAE": float(np.abs(predicted - truth).mean()),
        "Corr": _corr(predicted, truth),
        **{name: float((found == real).mean()) for name, (found, real) in bins.items()},
        "F1": weighted_f1(two == 1, expected == 1),
    }


def _bins(values: Vector, edges: tuple[float, ...]) -> npt.NDArray[np.int64]:
    # Edges in float32: 0.1 as float32 lies above 0.1 as float64, but in the bin that ends there.
    return np.searchsorted(np.array(edges, np.float32), values, side="left")


def _checked(predicted: Vector, truth: Vector, kind: type[np.floating]) -> tuple[Vector, Vector]:
    predicted, truth = np.asarray(predicted, kind), np.asarray(truth, kind)
    if predicted.shape != truth.shape or predicted.ndim != 1 or not len(truth):
        raise ValueError(f"{predicted.shape} estimates for {truth.shape} labels: need (N,), N > 0")
    return predicted, truth


def weighted_f1(predicted: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    """Return the mean of both classes' F1, weighted by how often each class is true."""
    if not len(truth):
        return float("nan")
    total = 0.0
    for value in (False, True):
        hit = np.sum((predicted == value) & (truth == value))
        called, real = np.sum(predicted == value), np.sum(truth == value)
        total += real * (2 * hit / (called + real) if called + real else 0.0)
    return float(total / len(truth))


def _corr(predicted: Vector, truth: Vector) -> float:
    # The mean of equal numbers need not be that number (0.1, three times): a difference is exact.
    predicted, truth = predicted - predicted[0], truth - truth[0]
    if predicted.std() == 0 or truth.std() == 0:
        return float("nan")
    return float(np.corrcoef(predicted, truth)[0, 1])


METRICS: dict[Form, Callable[[Vector, Vector], dict[str, float]]] = {
    "mosi": mosi_metrics,
    "sims": sims_metrics,
}
"""How estimates and labels in the range of each form are compared."""
