"""The live score of one turn after the other, beside the same turn alone.

Knows turns as they are played, and estimates. Knows no file, no text encoder and no media.

A turn is what one person says in one piece: a sentence of a video, a clip of an actor. `alone` is
the same turn in a session of its own. In both the score is that of the first hop that ends at or
after the turn's end, and a turn without a score counts as 0.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tamulag.models.evaluation.metrics import mosi_metrics
from tamulag.models.evaluation.resampling import intervals

from ..core.estimate import Estimate, scores_of
from ..core.score_events import EventDetector
from ..core.session import Session
from ..core.trend import Label, Trend
from ..offline.turn_inputs import TurnInputs
from ..offline.turn_player import Said, play_turns, said

DELAYS = (0.0, 1.0, 2.0)
"""Seconds after a turn's end at which its sign is looked at, where the pause is that long."""

OPPOSITE = 0.5
"""Least size of two labels of opposite sign."""

MINUTE = 60.0

Floats = npt.NDArray[np.float64]


class TurnScores(NamedTuple):
    """What a session gave for one turn."""

    label: float
    before: float | None
    """Label of the turn before; None: it was the first."""
    alone: Said
    at: tuple[Said, ...]
    """At each of `DELAYS` that is within the pause."""
    detected: float | None
    """Seconds from the turn's begin until the sign is right up to its end; None: never."""


class PersonScores(NamedTuple):
    """All turns of one person, and every hop."""

    turns: list[TurnScores]
    scores: list[float]
    """Of each hop that has one."""
    label_changes: int
    events: int
    minutes: float


def person_scores(
    opened: Callable[[], Session], turns: Sequence[TurnInputs], head: str, *, pause: float
) -> PersonScores:
    """Play the turns of a person through one session, and each through one of its own.

    Args:
        opened: Returns a new session.
        turns: In their order.
        head: `fused`, `text`, `audio` or `vision`.
        pause: Seconds between two turns.
    """
    session, before, end = opened(), None, 0.0
    hop = session.timing.hop
    delays = [delay for delay in DELAYS if delay <= pause + 1e-6]
    rows: list[TurnScores] = []
    stream: list[Estimate] = []
    for turn, start, end, found in play_turns(session, turns, pause=pause):
        stream += found
        [lone] = play_turns(opened(), [turn], pause=0.0, start=start % hop)
        rows.append(
            TurnScores(
                turn.label,
                before,
                said(lone.estimates, lone.end, head),
                tuple(said(found, end + delay, head) for delay in delays),
                _detected(found, start, end + hop, turn.label, head),
            )
        )
        before = turn.label
    scores = [s for s in (scores_of(one)[head] for one in stream) if s is not None]
    detector = EventDetector()
    return PersonScores(
        rows,
        scores,
        sum(one != other for one, other in pairwise(_labels(stream, head))),
        sum(event.event != "silence" for one in stream for event in detector.look(one)),
        (end + pause) / MINUTE,
    )


def _labels(stream: Sequence[Estimate], head: str) -> list[Label | None]:
    """Return the label of each score of a head, as messages have it of the fused one."""
    trend, found = Trend(), []
    for estimate in stream:
        score = scores_of(estimate)[head]
        if score is not None:
            trend.add(score, estimate.end)
            found.append(trend.label)
    return found


def figures(persons: Sequence[PersonScores]) -> dict[str, float]:
    """Return what the turns of all persons show.

    Returns:
        n, alone_MAE, alone_Corr, alone_Acc2, alone_covered, the share of labels inside the
        interval, turn_MAE, turn_Corr, turn_Acc2, turn_covered; opposite, the turns
        after one of opposite sign, opposite_sign_0s, 1s and 2s, the share of them whose sign is
        right so long after their end, and opposite_detected, the median seconds until it is. Where
        all labels are 0 also neutral_mean, neutral_deviation (within a minute, the mean of all),
        neutral_between (of persons), neutral_label_changes and neutral_events (per minute).
    """
    turns = [turn for person in persons for turn in person.turns]
    truth = np.array([turn.label for turn in turns])
    found: dict[str, float] = {"n": len(turns)}
    for name, at_end in (
        ("alone", [turn.alone for turn in turns]),
        ("turn", [turn.at[0] for turn in turns]),
    ):
        measured = mosi_metrics(np.array([one.value for one in at_end]), truth)
        found |= {f"{name}_{key}": measured[key] for key in ("MAE", "Corr")}
        found[f"{name}_Acc2"] = measured["Acc2_non0"]
        inside = [one.holds(turn.label) for one, turn in zip(at_end, turns, strict=True)]
        known = [is_inside for is_inside in inside if is_inside is not None]
        found[f"{name}_covered"] = float(np.mean(known)) if known else math.nan
    opposite = [t for t in turns if t.before is not None and _is_opposite(t.before, t.label)]
    found["opposite"] = len(opposite)
    for place, delay in enumerate(DELAYS):
        right = [t.at[place].value * t.label > 0 for t in opposite if place < len(t.at)]
        found[f"opposite_sign_{delay:g}s"] = float(np.mean(right)) if right else math.nan
    times = [math.inf if t.detected is None else t.detected for t in opposite]
    median = float(np.median(times)) if times else math.nan
    found["opposite_detected"] = median if math.isfinite(median) else math.nan
    if not truth.any():
        found |= _neutral(persons)
    return found


def figure_intervals(persons: Sequence[PersonScores]) -> dict[str, tuple[float, float]]:
    """Return the central 95 % of each figure over resampled persons."""
    return intervals(lambda places: figures([persons[place] for place in places]), len(persons))


def _detected(
    found: Sequence[Estimate], start: float, end: float, label: float, head: str
) -> float | None:
    during = [one for one in found if start < one.end < end]
    first = None
    for one in reversed(during):
        if (scores_of(one)[head] or 0.0) * label <= 0:
            break
        first = one.end - start
    return first


def _is_opposite(before: float, label: float) -> bool:
    return before * label < 0 and min(abs(before), abs(label)) >= OPPOSITE


def _neutral(persons: Sequence[PersonScores]) -> Mapping[str, float]:
    spoke = [np.array(person.scores) for person in persons if person.scores]
    minutes = sum(person.minutes for person in persons)
    return {
        "neutral_mean": float(np.mean([scores.mean() for scores in spoke])),
        "neutral_deviation": float(np.mean([scores.std() for scores in spoke])),
        "neutral_between": float(np.std([scores.mean() for scores in spoke])),
        "neutral_label_changes": sum(person.label_changes for person in persons) / minutes,
        "neutral_events": sum(person.events for person in persons) / minutes,
    }
