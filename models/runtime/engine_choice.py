"""Which engine steps how many sessions at a time: chosen by name, or measured on this machine.

Knows the engine and two ways to compute a step. Knows no setting.
"""

import logging
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from ..nn.tam_ulag import TamUlag
from .checkpoint import CheckpointError
from .onnx_engine import BATCHES, OnnxStep
from .step_engine import StepInput, TickArrays
from .torch_engine import Step, TorchEngine

logger = logging.getLogger("tamulag.engine")

EngineName = Literal["auto", "torch", "onnxruntime"]

REPEATS = 7

CLOSE, AGAIN = 1.25, 3
"""A ratio below which a call is close, and how many times longer it is then timed again."""


class EngineTiming(NamedTuple):
    """How long a step of so many sessions takes, medians in seconds."""

    sessions: int
    in_place: float
    """With torch, in the sessions' own tensors."""
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


def open_engine(
    model: TamUlag,
    checkpoint: str,
    *,
    capacity: int,
    hop: int,
    engine: EngineName = "auto",
    path: Path | None = None,
) -> TorchEngine:
    """Return an engine for so many sessions.

    Args:
        model: From the checkpoint, in evaluation mode, with as many threads as torch has now.
        checkpoint: Its name or path.
        capacity: Sessions that have room.
        hop: Ticks of a hop.
        engine: `auto`: with an exported file, for each number of sessions the faster step.
        path: The exported file.

    Raises:
        CheckpointError: If the file cannot be used, or none is given to `onnxruntime`.
    """
    if engine == "torch" or (engine == "auto" and path is None):
        return TorchEngine(model, capacity, hop=hop)
    if path is None:
        raise CheckpointError("engine onnxruntime needs an exported file: give model.onnx")
    step = OnnxStep(path, model, checkpoint, threads=torch.get_num_threads()).step
    if engine == "onnxruntime":
        return TorchEngine(model, capacity, hop=hop, step=step, sizes=range(1, capacity + 1))
    batches = [*(size for size in BATCHES if size < capacity), min(capacity, BATCHES[-1])]
    found = engine_timings(model, step, hop=hop, batches=batches)
    faster = [timing.sessions for timing in found if timing.is_faster]
    logger.info("onnxruntime is the faster one for %s sessions, measured: %s", faster, found)
    return TorchEngine(model, capacity, hop=hop, step=step, sizes=sizes_of(found))


def engine_timings(
    model: TamUlag, step: Step, *, hop: int, batches: Sequence[int] = BATCHES
) -> list[EngineTiming]:
    """Time both ways for each number of sessions, in turns, on this machine; close calls twice.

    Args:
        model: In evaluation mode, with as many threads as torch has now.
        step: Computes what `model.step` does.
        hop: Ticks of a hop.
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
    engines = [
        TorchEngine(model, sessions, hop=hop),
        TorchEngine(model, sessions, hop=hop, step=step, sizes=[sessions]),
    ]
    slots = [[engine.open() for _ in range(sessions)] for engine in engines]
    spent: tuple[list[float], list[float]] = ([], [])
    for number in range(repeats + 1):
        inputs = [_input(model, hop, number)] * sessions
        for engine, places, times in zip(engines, slots, spent, strict=True):
            begin = time.perf_counter()
            engine.step(places, inputs)
            times.append(time.perf_counter() - begin)
    return EngineTiming(sessions, *(statistics.median(times[1:]) for times in spent))


def _input(model: TamUlag, hop: int, number: int) -> StepInput:
    rows = {}
    for name in ("audio", "vision"):
        branch = getattr(model.config, name)
        time_of = np.arange(number * hop, (number + 1) * hop, branch.period)
        values = np.random.default_rng(number).standard_normal((len(time_of), branch.dim))
        there = np.ones(len(time_of), np.bool_)
        rows[name] = TickArrays(values.astype(np.float32), there, time_of, time_of + branch.period)
    return StepInput((number + 1) * hop, frozenset(), rows, (), (True, True, True))
