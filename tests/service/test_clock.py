"""The session clock runs on two functions; neither a late start nor a wall clock step moves it."""

import time

from tamulag.streamer.service.clock import SessionClock


class Hands:
    """Two clocks that stand where they are put."""

    def __init__(self) -> None:
        self.monotonic, self.wall = 100.0, 5000.0

    def clock(self) -> SessionClock:
        return SessionClock(lambda: self.monotonic, lambda: self.wall)

    def wait(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds


def test_session_time_counts_from_zero() -> None:
    """Session time is what has passed since the clock was made."""
    hands = Hands()
    clock = hands.clock()
    assert (clock.now(), clock.epoch) == (0.0, 5000.0)
    hands.wait(2.5)
    assert clock.now() == 2.5


def test_begin_makes_this_moment_zero() -> None:
    """What was needed to open the devices does not count."""
    hands = Hands()
    clock = hands.clock()
    hands.wait(3.0)
    clock.begin()
    assert (clock.now(), clock.epoch) == (0.0, 5003.0)


def test_wall_time_goes_with_the_session() -> None:
    """The published time is that of session time 0 and what has passed since."""
    hands = Hands()
    clock = hands.clock()
    hands.wait(1.5)
    assert clock.wall_now() == 5001.5


def test_step_of_the_wall_clock_moves_nothing() -> None:
    """Setting the machine's clock changes neither session time nor published times."""
    hands = Hands()
    clock = hands.clock()
    hands.wait(1.0)
    hands.wall -= 3600
    assert (clock.now(), clock.wall_now(), clock.epoch) == (1.0, 5001.0, 5000.0)


def test_clock_of_the_machine_is_the_default() -> None:
    """Without functions it tells the time of the machine."""
    before = time.time()
    clock = SessionClock()
    assert 0 <= clock.now() < 5
    assert before - 1 <= clock.epoch <= clock.wall_now() <= time.time() + 1
