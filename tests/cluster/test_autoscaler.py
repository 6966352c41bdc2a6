"""When a cluster grows and when it shrinks."""

from tamulag.streamer.cluster.autoscaler import BUSY_FOR, IDLE_FOR, Autoscaler


def wanted(growth: Autoscaler, busy: float, start: float, seconds: float) -> int:
    """Return what is wanted after so many seconds of a load, looked at each second."""
    for second in range(round(seconds) + 1):
        growth.observe(start + second, busy)
    return growth.wanted


def test_a_load_that_lasts_adds_one_at_a_time() -> None:
    """Up to the most."""
    growth = Autoscaler(1, 3)
    assert wanted(growth, 0.9, 0, BUSY_FOR - 1) == 1
    assert wanted(growth, 0.9, BUSY_FOR, 0) == 2
    assert wanted(growth, 0.9, 10, 100) == 3


def test_a_peak_adds_nothing() -> None:
    """The load must last."""
    growth = Autoscaler(1, 3)
    for start in range(0, 60, 6):
        wanted(growth, 0.9, start, BUSY_FOR - 1)
        growth.observe(start + 5, 0.5)
    assert growth.wanted == 1


def test_idleness_that_lasts_takes_one_away() -> None:
    """Down to the least."""
    growth = Autoscaler(1, 3)
    wanted(growth, 0.9, 0, 30)
    assert wanted(growth, 0.1, 100, IDLE_FOR - 1) == 3
    assert wanted(growth, 0.1, 100 + IDLE_FOR, 0) == 2
    assert wanted(growth, 0.1, 200, 600) == 1
