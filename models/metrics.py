"""The field's metrics on CMU-MOSI and CMU-MOSEI, as MMSA computes them.

Knows one-dimensional arrays of estimates and labels.
"""

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.floating]


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
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if predicted.shape != truth.shape or predicted.ndim != 1 or not len(truth):
        raise ValueError(f"{predicted.shape} estimates for {truth.shape} labels: need (N,), N > 0")
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
