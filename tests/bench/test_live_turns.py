"""Turns one after the other: what is compared, and that a turn is scored as if it were alone."""

from typing import Literal

import numpy as np
import pytest

from support.turns import by_length
from tamulag.models import TamUlag
from tamulag.models.runtime.card import Card
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.streamer.bench.live_turns import (
    PersonScores,
    TurnScores,
    figure_intervals,
    figures,
    person_scores,
)
from tamulag.streamer.core.estimate import Timing
from tamulag.streamer.core.session import Session
from tamulag.streamer.offline.turn_inputs import TurnInputs, phrases
from tamulag.streamer.offline.turn_player import Said

CARD = Card(trained=dict.fromkeys(("sentiment", "text", "audio", "vision"), True))


def turn(text: str, seconds: float = 2.0) -> TurnInputs:
    said = phrases(text.split(), by_length, seconds=seconds, step=0.5)
    return TurnInputs(said, seconds, 1.0)


@pytest.mark.parametrize(("attention", "is_equal"), [("turn", True), ("window", False)])
def test_the_sentence_before_has_no_part_in_the_context(
    model: TamUlag, attention: Literal["turn", "window"], is_equal: bool
) -> None:
    """Without recurrence between sentences the score is that of the sentence alone."""
    missing = {"text": 2.0, "audio": 2.0, "vision": 1.0}
    timing = Timing(window=2.0, missing_after=missing, attention=attention)
    for name, part in model.text.encoder.lstm.named_parameters():
        if "weight_hh" in name:
            part.data.zero_()
        if "bias" in name:
            part.data[6:12] = -100.0  # the forget gates are shut
    person = person_scores(
        lambda: Session(TorchEngine(model), CARD, ("text",), timing),
        [turn("eeeee dddd ccc bb", 1.0), turn("a bb a ccc", 1.0)],
        "text",
        pause=0.5,
    )
    after = person.turns[1]
    assert (after.at[0].value == pytest.approx(after.alone.value, abs=1e-5)) == is_equal


def scores(label: float, before: float | None, alone: float, *at: float) -> TurnScores:
    return TurnScores(label, before, near(alone), tuple(map(near, at)), 0.5)


def near(score: float) -> Said:
    return Said(score, (score - 0.5, score + 0.5))


def test_figures_count_what_follows_an_opposite_turn() -> None:
    """A turn after one of the same sign, or after a nearly neutral one, is none of them."""
    turns = [
        scores(2.0, None, 2.0, 1.0, 1.0),
        scores(-2.0, 2.0, -1.0, 1.0, -1.0),
        scores(-1.0, -2.0, -1.0, -1.0, -1.0),
        scores(0.3, -1.0, 0.0, -1.0, -1.0),
    ]
    found = figures([PersonScores(turns, [1.0], 0, 0, 1.0)])
    assert (found["n"], found["opposite"]) == (4, 1)
    assert (found["opposite_sign_0s"], found["opposite_sign_1s"]) == (0.0, 1.0)
    assert np.isnan(found["opposite_sign_2s"])
    assert found["alone_MAE"] == pytest.approx((0 + 1 + 0 + 0.3) / 4)
    assert found["turn_MAE"] == pytest.approx((1 + 3 + 0 + 1.3) / 4)
    assert (found["alone_covered"], found["turn_covered"]) == (0.75, 0.25)
    assert "neutral_mean" not in found


def test_without_intervals_nothing_is_covered() -> None:
    """A checkpoint that was not calibrated has none: no share of none."""
    none = Said(1.0, None)
    found = figures([PersonScores([TurnScores(1.0, None, none, (none,), 0.5)], [1.0], 0, 0, 1.0)])
    assert np.isnan(found["turn_covered"])


def test_neutral_streams_have_a_deviation_and_changes_per_minute() -> None:
    """All labels are 0: what moves is noise."""
    turns = [scores(0.0, None, 0.1, 0.1)]
    persons = [
        PersonScores(turns, [0.0, 0.2], 1, 0, 0.5),
        PersonScores(turns, [0.4, 0.4], 0, 2, 0.5),
    ]
    found = figures(persons)
    assert found["neutral_mean"] == pytest.approx(0.25)
    assert found["neutral_deviation"] == pytest.approx(0.05)
    assert found["neutral_between"] == pytest.approx(0.15)
    assert (found["neutral_label_changes"], found["neutral_events"]) == (1.0, 2.0)


def test_intervals_are_of_persons() -> None:
    """Two persons who differ: from the one's figure to the other's."""
    one = PersonScores([scores(1.0, None, 1.0, 1.0)], [1.0], 0, 0, 1.0)
    other = PersonScores([scores(1.0, None, 0.0, 0.0)], [0.0], 0, 0, 1.0)
    assert figure_intervals([one, other])["turn_MAE"] == (0.0, 1.0)
