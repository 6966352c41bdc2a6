"""Smooth the score over seconds and name it, so that neither jumps with every breath.

Knows the fused scores of one session, in order. Knows no model, clock and wire format.
"""

import math
from dataclasses import dataclass
from typing import Literal

Label = Literal["negative", "neutral", "positive"]
Labels = Literal["rising", "trend", "score"]
"""What labels name; see `Timing.labels`."""

NEUTRAL = 0.5
"""Sentiment within this distance of 0 is neutral: it rounds to class 0 of Acc7."""

BAND = 0.15
"""A label ends this far beyond the bound at which the next one begins (hysteresis)."""

TIME = 4.0
"""Seconds after which a step of the score has reached 63 % of its height in the trend."""

FIRST = 0.5
"""Seconds for which the first score counts in a trend that begins at 0."""


def label_of(sentiment: float, before: Label | None = None) -> Label:
    """Return the label of a sentiment in [-3, 3].

    Args:
        sentiment: A score or a trend.
        before: The label until now, which stays within `BAND` of its bounds; None: there is none.
    """
    outer = NEUTRAL + (BAND if before == "neutral" else 0.0)
    if sentiment > (NEUTRAL - BAND if before == "positive" else outer):
        return "positive"
    if sentiment < -(NEUTRAL - BAND if before == "negative" else outer):
        return "negative"
    return "neutral"


@dataclass(slots=True)
class Trend:
    """The exponential mean of a session's scores, weighted by the time between them.

    It begins at 0: the first seconds of a voice or a face are the ones that are least known.
    """

    from_zero: bool = True
    """False: it begins at the first score, as it did at first."""
    value: float | None = None
    """In [-3, 3]; None before the first score."""
    at: float = 0.0
    """Session time of the newest score, in seconds."""
    label: Label | None = None

    def add(self, sentiment: float, at: float) -> None:
        """Take the score of a hop that ends at session time `at`, seconds.

        After a time without scores the new one counts the more, the longer it was.
        """
        if self.value is None:
            begun = 1.0 - math.exp(-FIRST / TIME) if self.from_zero else 1.0
            self.value = begun * sentiment
        else:
            kept = math.exp(-(at - self.at) / TIME)
            self.value = kept * self.value + (1.0 - kept) * sentiment
        self.at = at
        self.label = label_of(self.value, self.label)
