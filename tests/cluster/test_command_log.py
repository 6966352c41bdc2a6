"""What is kept of a session, so that it can go on elsewhere."""

import numpy as np
import pytest

from tamulag.streamer.cluster.command_log import MOST_COMMANDS, CommandLog, reach
from tamulag.streamer.cluster.session_worker import Begin
from tamulag.streamer.core.commands import Advance, Push
from tamulag.streamer.core.sample import Block, Notice, Phrase, Sample


def block(at: float, rows: int = 25) -> Push:
    return Push(Block("audio", at, np.ones((rows, 4), np.float32)))


def trail(commands: int) -> CommandLog:
    kept = CommandLog(Begin(("audio",)))
    for number in range(commands):
        kept.add(block(number * 0.5), float(number), sent=0)
    return kept


def test_orders_are_numbered_from_one() -> None:
    """And found by their number, with the time at which they came and how far they reach."""
    kept = trail(4)
    assert [entry.number for entry in kept.after(0)] == [1, 2, 3, 4]
    found = kept.find(3)
    assert found is not None
    assert (found.at, found.reached) == (2.0, 1.5)
    assert kept.find(5) is None


def test_a_snapshot_takes_the_place_of_what_is_in_it() -> None:
    """What came since is kept."""
    kept = trail(5)
    kept.rebase(3, b"packed")
    assert kept.base == Begin(("audio",), b"packed")
    assert [entry.number for entry in kept.after(0)] == [4, 5]
    assert [entry.number for entry in kept.after(4)] == [5]
    assert (kept.find(3), len(kept), kept.number) == (None, 2, 5)


def test_silence_that_nobody_was_told_of_is_one_order() -> None:
    """Without a worker time advances without filling the log; sent commands stay."""
    kept = trail(1)
    for tick in range(100):
        kept.add(Advance(tick / 10), 1.0, sent=1)
    assert [entry.do for entry in kept.after(1)] == [Advance(9.9)]
    kept.add(Advance(10.0), 1.0, sent=2)
    assert [entry.do for entry in kept.after(1)] == [Advance(9.9), Advance(10.0)]


def test_a_trail_is_bounded() -> None:
    """What is too much is refused."""
    kept = trail(MOST_COMMANDS)
    assert not kept.add(block(0.0), 0.0, sent=0)
    assert (len(kept), kept.number) == (MOST_COMMANDS, MOST_COMMANDS)


@pytest.mark.parametrize(
    ("item", "end"),
    [
        (Block("audio", 1.0, np.ones((25, 4), np.float32)), 1.5),
        (Sample("vision", 1.0, None, "no_face"), 1.1),
        (Phrase(2.0, 0, (), np.ones((0, 5), np.float32), (), True), 2.0),
        (Notice(3.0, "audio", None), 0.0),
    ],
)
def test_how_far_an_input_reaches(item: Block | Sample | Phrase | Notice, end: float) -> None:
    """To the end of its last row."""
    assert reach(item) == pytest.approx(end)
