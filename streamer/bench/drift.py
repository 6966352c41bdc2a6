"""Drift over an hour of stream: does a looped clip still get the scores of the first minute?

Knows samples, sessions and estimates. Knows no media file and no model: the clip's samples are
pushed repeatedly, each time later, through one session whose state continues as it does live.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..core.estimate import Estimate, Timing
from ..core.sample import MODALITIES, Input, Sample
from ..core.session import Session
from ..core.source import SourceError

MAX_DRIFT = 0.1
"""Largest allowed mean difference between the first minute and the last."""
MINUTE = 60.0


class Loop(NamedTuple):
    """A clip that can be repeated without a seam between hops."""

    samples: list[Sample]
    """Samples of voice and face, by time, before `period`."""
    period: float
    """Seconds, a multiple of the hop: the clip's length, rounded down."""


class Drift(NamedTuple):
    """One score in the first minute against the last, at equal phase of the loop."""

    modality: str
    """Or `sentiment`, the fused score."""
    mean: float
    """Mean distance."""
    largest: float
    first_minute: float
    """Mean score."""
    last_minute: float
    hops: int
    """Pairs of hops in both of which there is a score; 0: the other numbers are nan."""


def loop_of(found: Iterable[Input], hop: float) -> Loop:
    """Return a clip's samples, cut to whole hops.

    Raises:
        SourceError: If they last less than a hop.
    """
    samples = sorted((s for s in found if isinstance(s, Sample)), key=lambda s: s.timestamp)
    end = samples[-1].timestamp if samples else 0.0
    period = hop * math.floor(end / hop + 1e-6)
    if period <= 0:
        raise SourceError(f"a clip of {end:g} s holds no hop of {hop:g} s: use a longer one")
    return Loop([s for s in samples if s.timestamp < period], period)


def stream(
    session: Session, loop: Loop, duration: float, report: Callable[[int], None]
) -> list[Estimate]:
    """Repeat a loop for some seconds of stream time.

    Args:
        session: New, for the modalities of the loop.
        loop: The clip.
        duration: Seconds; the last repetition is whole.
        report: Called with the whole seconds done so far.
    """
    estimates = []
    repeats = math.ceil(duration / loop.period)
    for turn in range(repeats):
        start = turn * loop.period
        for sample in loop.samples:
            later = replace(sample, timestamp=sample.timestamp + start)
            estimates += session.push(later)
        report(min(round(start + loop.period), round(duration)))
    return estimates + session.close(repeats * loop.period)


def drifts(estimates: Sequence[Estimate], period: float, timing: Timing) -> list[Drift]:
    """Compare the first minute with the last, hop by hop at equal phase of the loop.

    Hops whose window is not full yet are skipped: they see less of the clip than later ones.
    """
    hop, first = timing.hop, round(timing.window / timing.hop) - 1
    last = math.floor((estimates[-1].end - MINUTE) / period + 1e-6) * round(period / hop)
    count = min(round(MINUTE / hop), len(estimates) - last)
    out = []
    for name in (*MODALITIES, "sentiment"):
        scores = np.array([_score(e, name) for e in estimates])
        early, late = scores[first:count], scores[first + last : count + last]
        both = ~(np.isnan(early) | np.isnan(late))
        out.append(_drift(name, early[both], late[both]))
    return [drift for drift in out if drift.hops]


def _score(estimate: Estimate, name: str) -> float:
    known = estimate.sentiment if name == "sentiment" else estimate.modalities[name].sentiment
    return math.nan if known is None else known


def _drift(name: str, early: np.ndarray, late: np.ndarray) -> Drift:
    if not len(early):
        return Drift(name, math.nan, math.nan, math.nan, math.nan, 0)
    far = np.abs(late - early)
    means = (float(early.mean()), float(late.mean()))
    return Drift(name, float(far.mean()), float(far.max()), *means, len(far))
