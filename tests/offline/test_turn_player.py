"""Turns through a session: their places in it, and what it says when each ends."""

from itertools import pairwise

import pytest

from support.turns import by_length
from tamulag.models import TamUlag
from tamulag.models.runtime.card import Card
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.streamer.core.estimate import Timing
from tamulag.streamer.core.sample import Modality
from tamulag.streamer.core.session import Session
from tamulag.streamer.offline.turn_inputs import TurnInputs, phrases
from tamulag.streamer.offline.turn_player import Said, at_the_end, play_turns, said

HALF = 0.5
CARD = Card(
    trained=dict.fromkeys(("sentiment", "text", "audio", "vision"), True),
    interval={"text": HALF},
    begun={"text": [HALF] * 3},
    heard={"text": [1, 2, 3]},
)
TIMING = Timing(window=2.0, missing_after={"text": 2.0, "audio": 2.0, "vision": 1.0})


def turn(text: str, seconds: float = 2.0, label: float = 0.0) -> TurnInputs:
    return TurnInputs(phrases(text.split(), by_length, seconds=seconds, step=0.5), seconds, label)


def session(model: TamUlag, *asked: Modality) -> Session:
    return Session(TorchEngine(model), CARD, asked or ("text",), TIMING)


def test_a_turn_follows_the_one_before_and_its_pause(model: TamUlag) -> None:
    """Every hop belongs to one turn, and no word is late."""
    opened = session(model)
    turns = [turn("a bb", 1.0), turn("ccc dddd", 1.5), turn("eeeee", 0.7)]
    found = list(play_turns(opened, turns, pause=1.0))
    assert [(one.start, one.end) for one in found] == [(0.0, 1.0), (2.0, 3.5), (4.5, 5.2)]
    ends = [estimate.end for one in found for estimate in one.estimates]
    assert all(b - a == pytest.approx(0.5) for a, b in pairwise(ends))
    assert opened.late_phrases == 0


def test_utterances_of_a_stream_have_rising_numbers(model: TamUlag) -> None:
    """Also behind a turn of several: with a number of before a phrase would be dropped."""
    opened = session(model)
    many = turn(" ".join("a" for _ in range(45)), 5.0)
    list(play_turns(opened, [many, turn("a bb"), turn("ccc")], pause=1.0))
    assert opened.late_phrases == 0


def test_what_was_not_asked_for_is_left_out(model: TamUlag) -> None:
    """A session of the voice alone says nothing of words."""
    [played] = play_turns(session(model, "audio"), [turn("a bb ccc")], pause=0.5)
    assert said(played.estimates, played.end, "fused") == Said(None, None)


def test_what_is_said_is_that_of_the_hop_in_which_a_turn_ends(model: TamUlag) -> None:
    """With its interval; behind the last hop it is the last one's."""
    [played] = play_turns(session(model), [turn("a bb ccc", 1.2)], pause=1.0)
    found = said(played.estimates, played.end, "fused")
    hop = next(one for one in played.estimates if one.end >= 1.2)
    assert hop.end == 1.5
    assert found == Said(hop.sentiment, hop.interval)
    assert found.interval is not None
    assert found.interval[1] - found.value == pytest.approx(HALF)
    last = played.estimates[-1]
    assert said(played.estimates, 99.0, "text").score == last.modalities["text"].sentiment


def test_an_interval_holds_its_ends() -> None:
    """And says nothing where there is none."""
    assert [Said(1.0, (0.5, 1.5)).holds(label) for label in (0.5, 1.0, 1.6)] == [True, True, False]
    assert Said(None, None).holds(0.0) is None
    assert Said(None, None).value == 0.0


def test_streams_do_not_know_of_each_other(model: TamUlag) -> None:
    """Each has a session of its own; every turn is counted once, with its label."""
    streams = [[turn("a bb", 1.0, 1.0), turn("ccc", 1.0, 2.0)], [turn("ccc", 1.0, -1.0)]]
    done = list[int]()

    def played(chosen: list[list[TurnInputs]]) -> list[tuple[TurnInputs, Said]]:
        return at_the_end(lambda: session(model), chosen, "fused", pause=1.0, progress=done.append)

    both, other = played(streams), played(streams[1:])
    assert [one.label for one, _ in both] == [1.0, 2.0, -1.0]
    assert done == [1, 2, 1]
    assert both[2][1] == other[0][1]
    assert both[1][1] != other[0][1]
