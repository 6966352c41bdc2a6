"""The bookkeeping of a session without the model; test_session.py has both together."""

import numpy as np

from tamulag.models.runtime.checkpoint import Card
from tamulag.streamer.core.estimate import Timing
from tamulag.streamer.core.sample import Block, Notice, Sample
from tamulag.streamer.core.step_builder import StepBuilder

CARD = Card(trained=dict.fromkeys(("sentiment", "text", "audio", "vision"), True))


def turns() -> StepBuilder:
    return StepBuilder({"audio": 4, "vision": 3}, CARD, ("audio",), Timing())


def test_a_turn_keeps_what_was_known_at_its_time() -> None:
    """What happens before it is taken does not change its estimates."""
    book = turns()
    first = book.push(Block("audio", 0.0, np.ones((25, 4), np.float32)))[0]
    book.push(Notice(0.6, "audio", "microphone_lost"))
    second = book.push(Block("audio", 0.5, np.ones((25, 4), np.float32)))[0]
    assert (first.inputs.allowed, second.inputs.allowed) == (
        (False, True, False),
        (False, False, False),
    )
    assert first.presence["audio"].lost is None
    assert second.presence["audio"].lost == "microphone_lost"


def test_one_push_can_close_several_hops() -> None:
    """A gap does not swallow the hops in it; the voice starts afresh when it is missing."""
    book = turns()
    book.push(Sample("audio", 0.0, np.ones(4, np.float32)))
    due = book.push(Sample("audio", 3.99, np.ones(4, np.float32)))
    assert [one.inputs.end for one in due] == [25 * (k + 1) for k in range(8)]
    assert [one.inputs.end for one in due if "audio" in one.inputs.fresh] == [125]
