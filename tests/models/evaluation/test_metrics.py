"""The metrics against a slow reference in plain Python, and the cases that people get wrong."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamulag.models.evaluation.metrics import mosi_metrics, sims_metrics, weighted_f1

# Tenths, so that ties, zeros and halves are frequent; beyond 3, as a bare regressor gives it.
ESTIMATES = st.integers(-40, 40).map(lambda tenths: tenths / 10)
LABELS = st.integers(-30, 30).map(lambda tenths: tenths / 10)
PAIRS = st.lists(st.tuples(ESTIMATES, LABELS), min_size=1, max_size=30)


def measure(predicted: list[float], truth: list[float]) -> dict[str, float]:
    return mosi_metrics(np.array(predicted), np.array(truth))


def accuracy(pairs: list[tuple[float, float]], sign: Callable[[float], object]) -> float:
    return sum(sign(p) == sign(t) for p, t in pairs) / len(pairs) if pairs else math.nan


def reference_f1(pairs: list[tuple[float, float]], sign: Callable[[float], bool]) -> float:
    """Return the sum over both classes of support / n * 2 PR / (P + R)."""
    if not pairs:
        return math.nan
    total = 0.0
    for value in (False, True):
        hit = sum(sign(p) == value == sign(t) for p, t in pairs)
        called = sum(sign(p) == value for p, _ in pairs)
        real = sum(sign(t) == value for _, t in pairs)
        precision = hit / called if called else 0.0
        recall = hit / real if real else 0.0
        f1 = 2 * precision * recall / (precision + recall) if hit else 0.0
        total += real / len(pairs) * f1
    return total


def reference_corr(pairs: list[tuple[float, float]]) -> float:
    """Return Pearson's r, nan if one side is constant."""
    sides = list(zip(*pairs, strict=True))
    if any(len(set(side)) == 1 for side in sides):
        return math.nan
    p_mean, t_mean = (math.fsum(side) / len(side) for side in sides)
    both = math.fsum((p - p_mean) * (t - t_mean) for p, t in pairs)
    squares = [
        math.fsum((v - m) ** 2 for v in s) for s, m in zip(sides, (p_mean, t_mean), strict=True)
    ]
    return both / math.sqrt(squares[0] * squares[1])


def class7(value: float) -> int:
    """Return the class -3 .. 3; Python's `round` takes halves to the even neighbour."""
    return round(max(-3.0, min(3.0, value)))


@given(PAIRS)
def test_metrics_equal_the_slow_reference(pairs: list[tuple[float, float]]) -> None:
    """Each figure follows its definition, whatever the numbers."""
    signed = [(p, t) for p, t in pairs if t != 0]
    expected = {
        "n": len(pairs),
        "MAE": sum(abs(p - t) for p, t in pairs) / len(pairs),
        "Corr": reference_corr(pairs),
        "Acc2_has0": accuracy(pairs, lambda v: v >= 0),
        "Acc2_non0": accuracy(signed, lambda v: v > 0),
        "F1_has0": reference_f1(pairs, lambda v: v >= 0),
        "F1_non0": reference_f1(signed, lambda v: v > 0),
        "Acc7": accuracy(pairs, class7),
    }
    found = measure(*map(list, zip(*pairs, strict=True)))
    assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_estimate_of_zero_is_positive_with_zeros_and_negative_without() -> None:
    """Non-negative against negative, and positive against negative, differ at 0."""
    found = measure([0.0, 0.0], [1.0, 0.0])
    assert (found["Acc2_has0"], found["Acc2_non0"]) == (1.0, 0.0)


def test_label_of_zero_is_left_out_without_zeros() -> None:
    """The estimate of a neutral row counts in `has0` alone."""
    found = measure([-1.0, 1.0], [0.0, 1.0])
    assert (found["Acc2_has0"], found["Acc2_non0"]) == (0.5, 1.0)


@pytest.mark.parametrize("half", [-2.5, -0.5, 0.5, 2.5])
def test_half_rounds_to_the_even_class(half: float) -> None:
    """A half belongs to -2, 0 or 2, as numpy rounds it."""
    even = 2 * round(half / 2)
    assert measure([half], [float(even)])["Acc7"] == 1.0


def test_estimate_out_of_range_is_clipped_for_the_classes_alone() -> None:
    """5 is class 3, but its error is 2."""
    found = measure([5.0], [3.0])
    assert (found["Acc7"], found["MAE"]) == (1.0, 2.0)


@pytest.mark.parametrize("constant", [0.0, 0.1, 0.7, -1.3])
def test_constant_estimates_have_no_correlation(constant: float) -> None:
    """A constant estimate gives nan, not by rounding noise."""
    assert math.isnan(measure([constant] * 3, [0.1, 0.5, 2.0])["Corr"])
    assert math.isnan(measure([0.1, 0.5, 2.0], [constant] * 3)["Corr"])


def test_only_neutral_labels_leave_nothing_without_zeros() -> None:
    """What cannot be measured is nan."""
    found = measure([1.0, -1.0], [0.0, 0.0])
    assert math.isnan(found["Acc2_non0"])
    assert math.isnan(found["F1_non0"])


def test_perfect_estimates_score_perfectly() -> None:
    """The best figures are 0 and 1."""
    found = measure([-3.0, -1.2, 0.4, 2.0], [-3.0, -1.2, 0.4, 2.0])
    assert found.pop("MAE") == 0
    assert found.pop("n") == 4
    assert list(found.values()) == pytest.approx([1.0] * len(found))


def test_weighted_f1_by_hand() -> None:
    """Of 3 true rows 2 are found (F1 4/5), the false row is found beside one too many (F1 2/3)."""
    predicted, truth = np.array([True, True, False, False]), np.array([True, True, True, False])
    assert weighted_f1(predicted, truth) == pytest.approx(0.75 * 0.8 + 0.25 * 2 / 3)


@pytest.mark.parametrize(
    ("predicted", "truth"),
    [([1.0], [1.0, 2.0]), ([], []), ([[1.0]], [[1.0]])],
    ids=["lengths", "nothing", "matrix"],
)
def test_wrong_shapes_are_refused(predicted: list[float], truth: list[float]) -> None:
    """Nothing is broadcast in silence."""
    with pytest.raises(ValueError, match=r"need \(N,\), N > 0"):
        measure(predicted, truth)


def measure_sims(predicted: list[float], truth: list[float]) -> dict[str, float]:
    return sims_metrics(np.array(predicted), np.array(truth))


def bin_of(value: float, bounds: list[float]) -> int:
    """Return the place of the bin (lo, hi] that holds a value; all numbers are float32 first."""
    short = np.float32(value)
    for place, (low, high) in enumerate(pairwise(bounds)):
        if np.float32(low) < short <= np.float32(high):
            return place
    raise AssertionError(value)


SIMS_BINS = {
    "Acc2": [-1.01, 0, 1.01],
    "Acc3": [-1.01, -0.1, 0.1, 1.01],
    "Acc5": [-1.01, -0.7, -0.1, 0.1, 0.7, 1.01],
}
# Fiftieths hit every edge, 0, +-1 and beyond; the others fall anywhere.
SIMS_ESTIMATES = st.integers(-60, 60).map(lambda n: n / 50) | st.floats(-3, 3, width=32)
SIMS_LABELS = st.integers(-5, 5).map(lambda n: n / 5) | SIMS_ESTIMATES


@given(st.lists(st.tuples(SIMS_ESTIMATES, SIMS_LABELS), min_size=1, max_size=30))
def test_sims_metrics_equal_the_slow_reference(pairs: list[tuple[float, float]]) -> None:
    """Each figure follows its definition, whatever the numbers."""
    clipped = [(max(-1.0, min(1.0, p)), max(-1.0, min(1.0, t))) for p, t in pairs]
    short = [(float(np.float32(p)), float(np.float32(t))) for p, t in clipped]
    expected: dict[str, float] = {
        "n": len(pairs),
        "MAE": sum(abs(p - t) for p, t in short) / len(short),
    }
    for name, bounds in SIMS_BINS.items():
        expected[name] = accuracy(clipped, partial(bin_of, bounds=bounds))
    expected["F1"] = reference_f1(clipped, lambda v: bin_of(v, SIMS_BINS["Acc2"]) == 1)
    found = measure_sims(*map(list, zip(*pairs, strict=True)))
    corr, spread = found.pop("Corr"), [float(np.std(side)) for side in zip(*short, strict=True)]
    assert found == pytest.approx(expected, abs=1e-9)
    # Where one side hardly varies the reference itself is rounding noise.
    if min(spread) > 1e-3:
        assert corr == pytest.approx(reference_corr(short), abs=1e-6)


def test_sims_figures_are_in_the_documented_order() -> None:
    """Others rely on the keys."""
    assert list(measure_sims([0.5], [0.2])) == ["n", "MAE", "Corr", "Acc2", "Acc3", "Acc5", "F1"]


def test_sims_zero_counts_as_negative() -> None:
    """0 lies in (-1.01, 0], on both sides."""
    assert measure_sims([0.0, -0.3, 0.01], [-1.0, 0.0, 0.0])["Acc2"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("edge", "below", "name"),
    [
        (0.0, -0.05, "Acc2"),
        (-0.1, -0.2, "Acc3"),
        (0.1, 0.0, "Acc3"),
        (-0.7, -0.8, "Acc5"),
        (-0.1, -0.2, "Acc5"),
        (0.1, 0.0, "Acc5"),
        (0.7, 0.6, "Acc5"),
    ],
)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_sims_edge_belongs_to_the_bin_below(
    edge: float, below: float, name: str, kind: type[np.floating]
) -> None:
    """Bins are (lo, hi], whether a number comes as float32 or float64."""
    found = sims_metrics(np.array([edge], kind), np.array([below], kind))
    assert found[name] == 1.0
    above = np.nextafter(np.float32(edge), np.float32(2))
    assert sims_metrics(np.array([above]), np.array([below], np.float32))[name] == 0.0


def test_sims_errors_are_on_clipped_values() -> None:
    """An estimate of 3 for a label of 1 is no error; an estimator of [-3, 3] must be scaled."""
    found = measure_sims([3.0, -2.0, 0.5], [1.0, -1.0, 0.5])
    assert found["MAE"] == 0.0
    assert found["Corr"] == pytest.approx(1.0)


def test_sims_constant_estimates_have_no_correlation() -> None:
    """Also when only clipping made them equal."""
    assert math.isnan(measure_sims([1.0, 2.0, 3.0], [0.2, 0.4, 1.0])["Corr"])


def test_sims_wrong_shapes_are_refused() -> None:
    """Nothing is broadcast in silence."""
    with pytest.raises(ValueError, match=r"need \(N,\), N > 0"):
        measure_sims([1.0], [1.0, 0.2])
