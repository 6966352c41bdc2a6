"""Detect events of the score for the timeline: shift, spike and silence.

Knows the estimates of one session, in order. Knows no clock, no wire format and no reason why.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, median

from .estimate import Estimate

RECENT, BEFORE = 5.0, 10.0
"""Seconds: a shift compares the newest with those before them."""

SHIFT, SPIKE = 1.0, 1.5
"""Distances of sentiment that begin a shift or spike; half of it ends one, for one report each."""

LONG_SILENCE = 10.0
"""Seconds without speech."""

FEWEST = 5
"""Scores on each side of a comparison; with fewer nothing is reported."""


@dataclass(frozen=True, slots=True)
class ScoreEvent:
    """An event of the score."""

    event: str
    """`shift`, `spike` or `silence`."""
    at: float
    """Session time, seconds."""
    detail: str
    """For people."""


class EventDetector:
    """Report each event once: it must end before it is reported again.

    - shift: the mean score of the newest 5 s is 1.0 or more from the mean of the 10 s before them;
    - spike: a score is 1.5 or more from the median of the 5 s before it;
    - silence: sound arrives, but without speech for 10 s.

    Scores of the warm-up and hops without a score are left out.
    """

    def __init__(self) -> None:
        self._scores: deque[tuple[float, float]] = deque()
        self._going: set[str] = set()

    def look(self, estimate: Estimate) -> list[ScoreEvent]:
        """Return what began with this estimate; call it with each, in order."""
        found = list(self._silence(estimate))
        if estimate.sentiment is not None and not estimate.warmup:
            end, score = round(estimate.end, 2), estimate.sentiment
            found += self._spike(end, score)
            self._scores.append((end, score))
            while self._scores[0][0] <= end - RECENT - BEFORE:
                self._scores.popleft()
            found += self._shift(end)
        return found

    def _silence(self, estimate: Estimate) -> Iterator[ScoreEvent]:
        audio = estimate.modalities["audio"]
        age = audio.age or 0.0
        if self._begins("silence", audio.reason == "silence", age, LONG_SILENCE):
            detail = f"nobody has spoken for {age:.0f} s"
            yield ScoreEvent("silence", round(estimate.end, 2), detail)

    def _spike(self, end: float, score: float) -> Iterator[ScoreEvent]:
        earlier = [value for at, value in self._scores if at > end - RECENT]
        usual = median(earlier) if earlier else score
        if self._begins("spike", len(earlier) >= FEWEST, abs(score - usual), SPIKE):
            yield ScoreEvent("spike", end, f"{_tenths(score)} after {_tenths(usual)}")

    def _shift(self, end: float) -> Iterator[ScoreEvent]:
        recent = [value for at, value in self._scores if at > end - RECENT]
        before = [value for at, value in self._scores if at <= end - RECENT]
        is_known = min(len(recent), len(before)) >= FEWEST
        now, then = (fmean(recent), fmean(before)) if is_known else (0.0, 0.0)
        if self._begins("shift", is_known, abs(now - then), SHIFT):
            yield ScoreEvent("shift", end, f"from {_tenths(then)} to {_tenths(now)}")

    def _begins(self, event: str, is_known: bool, size: float, bound: float) -> bool:
        """Return whether an event begins; it goes on until its size is below half the bound."""
        if not is_known or size < bound / 2:
            self._going.discard(event)
        elif size >= bound and event not in self._going:
            self._going.add(event)
            return True
        return False


def _tenths(score: float) -> str:
    """Return a signed score with one place; what rounds to 0 is +0.0, never -0.0."""
    return f"{round(score, 1) + 0.0:+.1f}"
