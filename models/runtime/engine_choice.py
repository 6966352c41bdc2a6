"""Which engine steps how many sessions at a time: measured, on seats as they are served.

Knows seats and two ways to compute a step. Knows no file and no setting.
"""

import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..nn.tam_ulag import TamUlag
from .batched_sessions import BatchedState
from .onnx_engine import BATCHES
from .session_step import Step, StepInput, TickArrays

REPEATS = 7

CLOSE, AGAIN = 1.25, 3
"""A ratio below which a call is close, and how many times longer it is then timed again."""


class EngineTiming(NamedTuple):
    """How long a step of so many sessions takes, medians in seconds."""

    sessions: int
    in_place: float
    """With torch, in the seats' own tensors."""
    by_value: float
    """With the other step, its states copied in and out."""

    @property
    def is_faster(self) -> bool:
        """Whether the other step is the faster one."""
        return self.by_value < self.in_place

    @property
    def is_close(self) -> bool:
        """Whether noise may have decided."""
        return max(self[1:]) < CLOSE * min(self[1:])


def engine_timings(
    model: TamUlag, step: Step, *, hop: int, batches: Sequence[int] = BATCHES
) -> list[EngineTiming]:
    """Time both ways for each number of sessions, in turns, on this machine; close calls twice.

    Args:
        model: In evaluation mode, with as many threads as torch has now.
        step: Computes what `model.step` does.
        hop: Ticks of a turn.
        batches: Numbers of sessions.
    """
    found = [_timed(model, step, hop, sessions, REPEATS) for sessions in batches]
    return [
        _timed(model, step, hop, one.sessions, AGAIN * REPEATS) if one.is_close else one
        for one in found
    ]


def sizes_of(found: Sequence[EngineTiming]) -> frozenset[int]:
    """Return all numbers of sessions that are left to the other step.

    A number that was not timed is as the next larger one that was; beyond them torch steps.
    """
    sizes: set[int] = set()
    least = 1
    for choice in sorted(found):
        if choice.is_faster:
            sizes.update(range(least, choice.sessions + 1))
        least = choice.sessions + 1
    return frozenset(sizes)


def _timed(model: TamUlag, step: Step, hop: int, sessions: int, repeats: int) -> EngineTiming:
    seats = [
        BatchedState(model, sessions, hop=hop),
        BatchedState(model, sessions, hop=hop, step=step, sizes=[sessions]),
    ]
    slots = [[one.open() for _ in range(sessions)] for one in seats]
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(repeats + 1):
        turns = [_turn(model, hop, number)] * sessions
        for one, places, times in zip(seats, slots, took, strict=True):
            begin = time.perf_counter()
            one.step(places, turns)
            times.append(time.perf_counter() - begin)
    return EngineTiming(sessions, *(statistics.median(times[1:]) for times in took))


def _turn(model: TamUlag, hop: int, number: int) -> StepInput:
    rows = {}
    for name in ("audio", "vision"):
        branch = getattr(model.config, name)
        time_of = np.arange(number * hop, (number + 1) * hop, branch.period)
        values = np.random.default_rng(number).standard_normal((len(time_of), branch.dim))
        there = np.ones(len(time_of), np.bool_)
        rows[name] = TickArrays(values.astype(np.float32), there, time_of, time_of + branch.period)
    return StepInput((number + 1) * hop, frozenset(), rows, (), (True, True, True))
