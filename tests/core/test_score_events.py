"""Shift, spike and silence: each reported once."""

from collections.abc import Iterable

from tamulag.streamer.core.estimate import Estimate, ModalityEstimate
from tamulag.streamer.core.score_events import EventDetector, ScoreEvent

HOP = 0.5


def estimate(
    index: int, score: float | None, *, warmup: bool = False, quiet: float | None = None
) -> Estimate:
    """Return the estimate of a hop; `quiet` seconds ago was the last speech."""
    there = ModalityEstimate(score, 1.0, "ok", None, 0.0)
    silent = ModalityEstimate(None, 0.0, "missing", "silence", quiet)
    return Estimate(
        start=max(0.0, (index + 1) * HOP - 5),
        end=(index + 1) * HOP,
        warmup=warmup,
        sentiment=score,
        interval=None,
        modalities={
            "text": there,
            "audio": there if quiet is None else silent,
            "vision": there,
        },
        conflict=None,
        attention={},
        revision=0,
    )


def events(scores: Iterable[float | None], *, warmup: int = 0) -> list[ScoreEvent]:
    """Return what is notable in a run of scores."""
    notables = EventDetector()
    return [
        found
        for index, score in enumerate(scores)
        for found in notables.look(estimate(index, score, warmup=index < warmup))
    ]


def test_a_level_that_changes_is_one_shift() -> None:
    """It is reported when the newest 5 s are 1.0 away from the 10 s before, and not again."""
    found = events([0.0] * 30 + [1.2] * 60)
    assert [(one.event, one.at) for one in found] == [("shift", 19.5)]
    assert found[0].detail == "from +0.0 to +1.1"


def test_nothing_is_ever_minus_zero() -> None:
    """A level just below 0 is reported as +0.0."""
    assert events([-0.02] * 30 + [1.2] * 60)[0].detail == "from +0.0 to +1.1"


def test_a_shift_back_is_told_as_well() -> None:
    """The first has ended by then."""
    found = events([0.0] * 30 + [1.2] * 60 + [0.0] * 40)
    assert [one.event for one in found] == ["shift", "shift"]
    assert found[1].detail.startswith("from +1.")


def test_a_small_change_is_nothing() -> None:
    """0.9 is below both bounds."""
    assert events([0.0] * 30 + [0.9] * 60) == []


def test_one_score_far_out_is_a_spike_and_no_shift() -> None:
    """The mean of 5 s hardly moves."""
    (found,) = events([0.2] * 40 + [-1.6] + [0.2] * 40)
    assert (found.event, found.at, found.detail) == ("spike", 20.5, "-1.6 after +0.2")


def test_the_warm_up_is_left_out() -> None:
    """The first scores jump by nature."""
    assert events([-2.0] * 10 + [0.5] * 60, warmup=10) == []


def test_nothing_is_said_after_a_gap() -> None:
    """After a break there is nothing to compare with."""
    assert events([-1.5] * 40 + [None] * 40 + [1.5] * 40) == []


def test_silence_is_told_once_until_somebody_speaks() -> None:
    """After 10 s, and again after the next word."""
    quiet = [*(i * HOP for i in range(60)), None, *(i * HOP for i in range(30))]
    notables = EventDetector()
    found = [
        one.at
        for index, age in enumerate(quiet)
        for one in notables.look(estimate(index, None, quiet=age))
    ]
    assert found == [10.5, 41.0]


def test_memory_is_bounded() -> None:
    """15 s of scores are stored, whatever the length of the session."""
    notables = EventDetector()
    for index in range(5000):
        notables.look(estimate(index, 0.0))
    assert len(notables._scores) <= 15 / HOP
