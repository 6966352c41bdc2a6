"""Which engine steps how many sessions at a time: measured, on seats as they are served.

Knows seats and two ways to compute a step. Knows no file and no setting.
"""

import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .engine import BATCHES
from .seats import Seats
from .tam_ulag import TamUlag
from .turn import Rows, Step, Turn

REPEATS = 7


class Choice(NamedTuple):
    """How long a step of so many sessions takes, medians in seconds."""

    sessions: int
    in_place: float
    """With torch, in the seats' own tensors."""
    by_value: float
    """With the other step, its states copied in and out."""


def choices(
    model: TamUlag, step: Step, *, hop: int, batches: Sequence[int] = BATCHES
) -> list[Choice]:
    """Time both ways for each number of sessions, in turns, on this machine.

    Args:
        model: In evaluation mode, with as many threads as torch has now.
        step: Computes what `model.step` does.
        hop: Ticks of a turn.
        batches: Numbers of sessions.
    """
    return [_timed(model, step, hop, sessions) for sessions in batches]


def few(found: Sequence[Choice]) -> int:
    """Return up to how many sessions the other step is the faster one; 0: never."""
    most = 0
    for choice in sorted(found):
        if choice.by_value >= choice.in_place:
            break
        most = choice.sessions
    return most


def _timed(model: TamUlag, step: Step, hop: int, sessions: int) -> Choice:
    seats = [
        Seats(model, sessions, hop=hop),
        Seats(model, sessions, hop=hop, step=step, few=sessions),
    ]
    slots = [[one.open() for _ in range(sessions)] for one in seats]
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(REPEATS + 1):
        turns = [_turn(model, hop, number)] * sessions
        for one, places, times in zip(seats, slots, took, strict=True):
            begin = time.perf_counter()
            one.step(places, turns)
            times.append(time.perf_counter() - begin)
    return Choice(sessions, *(statistics.median(times[1:]) for times in took))


def _turn(model: TamUlag, hop: int, number: int) -> Turn:
    rows = {}
    for name in ("audio", "vision"):
        branch = getattr(model.config, name)
        time_of = np.arange(number * hop, (number + 1) * hop, branch.period)
        values = np.random.default_rng(number).standard_normal((len(time_of), branch.dim))
        there = np.ones(len(time_of), np.bool_)
        rows[name] = Rows(values.astype(np.float32), there, time_of, time_of + branch.period)
    return Turn((number + 1) * hop, frozenset(), rows, (), (True, True, True))
