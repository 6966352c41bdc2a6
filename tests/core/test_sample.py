"""Inputs are checked once, when they are made, and every time has exactly one tick."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamulag.streamer.core.sample import TICK_RATE, Phrase, Sample, Word, tick_of

NOT_FINITE = [math.nan, math.inf, -math.inf]


def test_time_made_from_a_tick_lies_in_it() -> None:
    """The time k / 50 belongs to tick k for five hours and more, though few are exact floats."""
    assert all(tick_of(tick / TICK_RATE) == tick for tick in range(1_000_001))


def test_sums_of_hops_lie_in_their_ticks() -> None:
    """Times that were added up over half an hour do not slip into the tick before."""
    time = 0.0
    for tick in range(90_000):
        assert tick_of(time) == tick
        time += 0.02


@given(st.integers(0, 1_000_000), st.floats(1e-5, 0.02 - 1e-5))
def test_tick_covers_its_twenty_milliseconds(tick: int, offset: float) -> None:
    """What happens inside a tick belongs to it, up to its end."""
    assert tick_of(tick / TICK_RATE + offset) == tick


@pytest.mark.parametrize(("time", "tick"), [(0.0, 0), (0.0199, 0), (0.02, 1), (-0.001, -1)])
def test_edge_belongs_to_the_later_tick(time: float, tick: int) -> None:
    """A tick includes its start and leaves out its end, also before 0."""
    assert tick_of(time) == tick


@pytest.mark.parametrize("values", [np.zeros(3, np.float32), None], ids=["measured", "nothing"])
def test_sample_is_a_vector_or_nothing(values: np.ndarray | None) -> None:
    """Nothing to measure is a sample too."""
    assert Sample("audio", 0.5, values, "silence").values is values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(np.zeros(3), r"vision values .*got float64 \(3,\)", id="dtype"),
        pytest.param(np.zeros((1, 3), np.float32), r"got float32 \(1, 3\)", id="matrix"),
        pytest.param(np.array(3, np.float32), r"got float32 \(\)", id="scalar"),
    ],
)
def test_sample_of_another_shape_or_dtype_is_refused(values: np.ndarray, message: str) -> None:
    """The message names modality, dtype and shape."""
    with pytest.raises(ValueError, match=message):
        Sample("vision", 0.0, values)


@pytest.mark.parametrize("time", NOT_FINITE)
def test_sample_without_a_time_is_refused(time: float) -> None:
    """NaN would never leave the aligner."""
    with pytest.raises(ValueError, match=f"audio timestamp {time} is not finite"):
        Sample("audio", time, None)


def phrase(timestamp: float = 1.0, tokens: int = 2, **change: object) -> Phrase:
    """Return a phrase of one word with two token states."""
    words, values = (Word("great", 0.2, 0.6),), np.zeros((2, 4), np.float32)
    fields = {"values": values, "word_of_token": (0,) * tokens} | change
    return Phrase(timestamp, 0, words, final=True, **fields)  # type: ignore[arg-type]


def test_phrase_has_a_state_and_a_word_for_each_token() -> None:
    """A well-formed phrase is taken as it is."""
    assert phrase().word_of_token == (0, 0)


def test_phrase_whose_tokens_have_no_word_is_refused() -> None:
    """The message names both counts."""
    with pytest.raises(ValueError, match=r"shape \(2, 4\) do not fit 3 tokens"):
        phrase(tokens=3)


def test_phrase_of_one_vector_is_refused() -> None:
    """Token states are a matrix, also for one token."""
    with pytest.raises(
        ValueError, match=r"shape \(4,\) do not fit 2 tokens: expected float32 \(K, D\)"
    ):
        phrase(values=np.zeros(4, np.float32))


@pytest.mark.parametrize("time", NOT_FINITE)
def test_phrase_without_a_time_is_refused(time: float) -> None:
    """Words that became available at no time cannot be scored."""
    with pytest.raises(ValueError, match=f"text timestamp {time} is not finite"):
        phrase(time)


def test_inputs_cannot_be_changed() -> None:
    """What was checked stays as it was."""
    with pytest.raises(AttributeError):
        Sample("audio", 0.5, None).timestamp = math.nan  # type: ignore[misc]
