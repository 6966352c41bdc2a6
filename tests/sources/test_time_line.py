"""One gate for stamps: time rises by bounded steps, whatever the stamps are."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamulag.streamer.sources.time_line import AHEAD, BACK, TimeLine, Track

STEP = 0.04


def ignored(track: Track, at: float, jump: float) -> None:
    pass


class Gate:
    """A time line whose jumps are kept."""

    def __init__(self, zero: float | None = 0.0) -> None:
        self.jumps: list[tuple[Track, float, float]] = []
        self.line = TimeLine(zero, lambda *jump: self.jumps.append(jump))

    def play(self, track: Track, *stamps: float) -> list[float]:
        times = []
        for stamp in stamps:
            times.append(self.line.place(track, stamp))
            self.line.reached(track, times[-1] + STEP)
        return times


def steps(start: float, count: int) -> list[float]:
    return [start + STEP * k for k in range(count)]


def test_stamps_in_order_are_taken_as_they_are() -> None:
    """Also a pause, and a track that begins late."""
    gate = Gate(zero=5.0)
    assert gate.play("vision", 5.0, 5.04, 25.0) == pytest.approx([0.0, 0.04, 20.0])
    assert gate.play("audio", 5.02) == pytest.approx([0.02])
    assert gate.jumps == []


@pytest.mark.parametrize("second", [0.0, 3.0, 90000.0, -500.0])
def test_a_stream_that_is_joined_goes_on_where_the_first_ended(second: float) -> None:
    """Both tracks move by the same, so that they stay together; reported once."""
    gate = Gate()
    gate.play("vision", *steps(0.0, 125))
    gate.play("audio", *steps(0.0, 125))
    assert gate.play("vision", second) == pytest.approx([5.0])
    assert gate.play("audio", second + 0.1) == pytest.approx([5.1])
    assert gate.play("vision", second + STEP) == pytest.approx([5.04])
    assert len(gate.jumps) == 1


@pytest.mark.parametrize("away", [36000.0, -7200.0, 1.7e9])
def test_a_single_stamp_out_of_nowhere_moves_nothing_after_it(away: float) -> None:
    """Its picture is shown where it came; the next stamps fit the segment before."""
    gate = Gate()
    gate.play("vision", *steps(0.0, 10))
    assert gate.play("vision", 0.4 + away) == pytest.approx([0.4])
    assert gate.play("vision", *steps(0.44, 5)) == pytest.approx(steps(0.44, 5))
    ((track, _, jump),) = gate.jumps
    assert track == "vision"
    assert jump == pytest.approx(away)


def test_sound_by_the_time_of_day_begins_with_the_picture() -> None:
    """A track on another clock altogether is placed where it appears."""
    gate = Gate()
    gate.play("vision", 0.0)
    assert gate.play("audio", *steps(1.749e9, 3)) == pytest.approx(steps(STEP, 3), abs=1e-6)


def test_small_steps_back_are_no_jump() -> None:
    """Stamps of sound wobble, pictures come out of order."""
    gate = Gate()
    assert gate.play("audio", 1.0, 0.95) == [1.0, 0.95]
    assert gate.play("vision", 1.0, 0.6) == [1.0, 0.6]
    assert gate.jumps == []


any_stamp = st.floats(-1e12, 1e12) | st.floats(-50, 50)


@given(st.lists(st.tuples(st.sampled_from(["audio", "vision"]), any_stamp), max_size=60))
def test_no_stamps_make_time_leap_or_return(stamps: list[tuple[Track, float]]) -> None:
    """Each time is at most `AHEAD` beyond all before it, and never far behind its own track."""
    line = TimeLine(None, ignored)
    ends: dict[Track, float] = {}
    for track, stamp in stamps:
        newest = line.newest
        time = line.place(track, stamp)
        assert math.isfinite(time)
        assert time <= newest + AHEAD + 1e-6
        assert time >= ends.get(track, -AHEAD) - BACK[track] - 1e-3
        ends[track] = max(ends.get(track, time), time)
        line.reached(track, time)
