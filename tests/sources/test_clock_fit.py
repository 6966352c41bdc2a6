"""The clock of a device, found from when its blocks arrived: late by chance, never early."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamulag.streamer.sources.clock_fit import LIMIT, STEP, ClockFit, Settling


def arrivals(
    seconds: float, *, slow: float = 0.0, jitter: float = 0.003, seed: int = 0
) -> list[tuple[float, float]]:
    """Return (counted, arrival) of blocks of 100 ms that began at 1.0 s; some are held up."""
    random = np.random.default_rng(seed)
    count = round(seconds * 10)
    late = random.exponential(jitter, count)
    late[random.random(count) < 0.02] += 0.3
    counted = (np.arange(count) + 1) / 10
    came = np.maximum.accumulate(1.0 + counted * (1 + slow) + late)
    return list(zip(counted.tolist(), came.tolist(), strict=True))


def fitted(points: list[tuple[float, float]]) -> ClockFit:
    fit = ClockFit()
    for counted, arrival in points:
        fit.add(counted, arrival)
    return fit


def test_late_blocks_move_nothing() -> None:
    """Sound is placed by count: blocks that come late by chance do not shift it."""
    points = [(n / 50, 1.0 + n / 50 + (0.3 if n % 50 == 20 else 0.0)) for n in range(1, 3000)]
    assert fitted(points).time_at(60.0) == pytest.approx(61.0, abs=1e-6)


def test_a_late_first_block_is_corrected_by_the_next() -> None:
    """The second block shows that the first was held up, and by how much."""
    fit = fitted([(0.02, 2.5)])
    assert fit.offset == pytest.approx(2.48)
    fit.add(0.04, 1.04)
    assert fit.offset == pytest.approx(1.0)


@settings(max_examples=30)
@given(st.integers(-300, 300), st.floats(0.0005, 0.005), st.integers(0, 99))
def test_drift_is_found_under_jitter(ppm: int, jitter: float, seed: int) -> None:
    """After three minutes the drift is known to 30 ppm and the place to 3 ms."""
    fit = fitted(arrivals(180, slow=ppm * 1e-6, jitter=jitter, seed=seed))
    assert fit.is_known
    assert fit.slope * 1e6 == pytest.approx(ppm, abs=30)
    assert fit.time_at(180.0) == pytest.approx(1.0 + 180.0 * (1 + ppm * 1e-6), abs=0.003)


def test_no_drift_is_told_too_early() -> None:
    """Half a minute is needed; before it there is none, rather than a wrong one."""
    fit = fitted(arrivals(20, slow=300e-6))
    assert (fit.is_known, fit.slope) == (False, 0.0)


def test_samples_that_vanish_silently_are_found() -> None:
    """A device that loses 60 ms and says nothing is placed anew five seconds later."""
    points = arrivals(120, jitter=0.001)
    fit = fitted([(counted, came + 0.06 * (counted > 60)) for counted, came in points])
    assert fit.steps == 1
    assert fit.time_at(120.0) == pytest.approx(121.06, abs=0.003)


def test_a_slow_stretch_shorter_than_five_seconds_is_no_loss() -> None:
    """A machine that is busy for three seconds has lost nothing."""
    points = arrivals(120, jitter=0.001)
    fit = fitted([(c, came + 4 * STEP * (60 < c < 63)) for c, came in points])
    assert fit.steps == 0
    assert fit.time_at(120.0) == pytest.approx(121.0, abs=0.003)


def test_restart_forgets_the_place_and_keeps_the_drift() -> None:
    """After a loss of unknown length the next arrival tells the place."""
    fit = fitted(arrivals(120, slow=200e-6))
    fit.restart()
    fit.add(120.02, 125.0)
    assert fit.slope * 1e6 == pytest.approx(200, abs=30)
    assert fit.time_at(120.02) == pytest.approx(125.0)


def settled(lags: list[float], length: float) -> int | None:
    """Return how many blocks it took until the place was known."""
    settling = Settling()
    for count, lag in enumerate(lags, 1):
        settling.add(length, lag, 1.0 + count * length + lag)
        if settling.is_over:
            return count
    return None


def test_three_blocks_in_time_tell_the_place() -> None:
    """Two bursts must agree, and only the third block shows that the second burst is over."""
    assert settled([0.003, 0.001, 0.002, 0.0], 0.02) == 3


def test_a_burst_is_awaited_to_its_end() -> None:
    """Blocks that come together are one burst, and its last is compared with the next."""
    assert settled([0.3, 0.2, 0.1, 0.007, 0.0, 0.004, 0.002], 0.1) == 6


def test_a_second_is_waited_at_most() -> None:
    """Where no two bursts agree, the place is taken as known after `LIMIT`."""
    lags = [0.03 * (40 - count) for count in range(40)]
    assert settled(lags, 0.1) == pytest.approx(LIMIT / 0.07, abs=1)
    assert settled([0.0], LIMIT + 0.1) == 1
