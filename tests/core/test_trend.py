"""The score smoothed over time, and its label with hysteresis."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamulag.streamer.core.trend import BAND, NEUTRAL, TIME, Trend, label_of


@pytest.mark.parametrize(
    ("sentiment", "before", "label"),
    [
        (NEUTRAL, None, "neutral"),
        (0.51, None, "positive"),
        (-0.51, None, "negative"),
        (0.6, "neutral", "neutral"),
        (0.66, "neutral", "positive"),
        (0.4, "positive", "positive"),
        (0.34, "positive", "neutral"),
        (-0.4, "negative", "negative"),
        (-0.34, "negative", "neutral"),
        (-0.6, "positive", "negative"),
    ],
)
def test_a_label_stays_within_a_band_of_its_bounds(
    sentiment: float, before: None, label: str
) -> None:
    """With none before, the bounds are those of Acc7's class 0."""
    assert label_of(sentiment, before) == label


@pytest.mark.parametrize(
    ("value", "word"),
    [
        *((-3.0, "negative"), (-0.5001, "negative"), (-0.5, "neutral"), (0.0, "neutral")),
        *((0.5, "neutral"), (0.5001, "positive"), (3.0, "positive")),
    ],
)
def test_label_is_neutral_within_a_half_of_zero(value: float, word: str) -> None:
    """What rounds to class 0 of Acc7 is neutral, the half included."""
    assert label_of(value) == word
    assert (word == "neutral") == (np.round(value) == 0)


def test_a_step_is_followed_in_time_whatever_the_hop() -> None:
    """63 % of it after `TIME`, in hops of a tenth of a second as in one."""
    for hop in (0.1, 0.5, TIME):
        trend = Trend()
        trend.add(0.0, 0.0)
        for number in range(1, round(TIME / hop) + 1):
            trend.add(2.0, number * hop)
        assert trend.value == pytest.approx(2 * (1 - math.exp(-1)))


def test_after_a_long_time_without_scores_the_new_one_counts() -> None:
    """What a person said a minute ago is over."""
    trend = Trend()
    trend.add(2.0, 1.0)
    trend.add(-1.0, 61.0)
    assert trend.value == pytest.approx(-1.0, abs=1e-6)
    assert asdict(trend)["label"] == "negative"


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=40), st.floats(0.1, 10))
def test_the_trend_lies_between_the_scores(scores: list[float], hop: float) -> None:
    """It is a weighted mean of them, if it begins at the first one."""
    trend = Trend(from_zero=False)
    for number, score in enumerate(scores):
        trend.add(score, number * hop)
    assert trend.value is not None
    assert min(scores) - 1e-9 <= trend.value <= max(scores) + 1e-9


def test_it_begins_at_zero() -> None:
    """The first score moves it as half a second of a step does, and is no label yet."""
    trend = Trend()
    trend.add(2.0, 30.0)
    assert trend.value == pytest.approx(2 * (1 - math.exp(-0.5 / TIME)))
    assert trend.label == "neutral"


def test_jitter_at_a_bound_gives_one_label() -> None:
    """Scores that swing by less than the band around a bound do not flicker."""
    trend, seen = Trend(), set()
    for number in range(40):
        trend.add(NEUTRAL + BAND * (0.9 if number % 2 else -0.9), 0.5 * number)
        seen.add(trend.label)
    assert len(seen) == 1
