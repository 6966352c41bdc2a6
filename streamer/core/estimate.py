"""What a hop says: the model's output, in the words of the message.

Knows the model's output and how old each modality is. Knows no wall clock and no wire format.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tamulag.models import Output
from tamulag.models.nn.attention import Pooled
from tamulag.models.runtime.checkpoint import Card

from .sample import MODALITIES, TICK_RATE

LIMIT = 3.0
SHOWN = 5
"""Attended ticks per modality that an estimate names, heaviest first."""
UNSEEN = {"text": "no_words", "audio": "no_sound", "vision": "no_picture"}
"""Why a modality is missing when its source said nothing about it."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The numbers of a session, all in seconds."""

    window: float = 5.0
    hop: float = 0.5
    lateness: float = 0.3
    stale_after: Mapping[str, float] = field(
        default_factory=lambda: {"text": 3.0, "audio": 0.5, "vision": 0.3}
    )
    """A modality is `stale` when its newest valid tick is older than this ..."""
    missing_after: Mapping[str, float] = field(
        default_factory=lambda: {"text": 5.0, "audio": 2.0, "vision": 1.0}
    )
    """... and `missing` when it is older than this; then its recurrent state starts afresh."""


@dataclass(slots=True)
class Presence:
    """What the session knows of one modality's presence."""

    last: int | None = None
    """Tick at which its newest valid content ended."""
    age: float | None = None
    """Seconds from there to the end of the hop."""
    missing: bool = True
    reason: str | None = None
    """Why its newest sample had nothing to measure."""
    lost: str | None = None
    """Why its source is lost; None while it is there."""

    @property
    def counts(self) -> bool:
        """Whether it takes part in the fusion."""
        return not self.missing and self.lost is None

    def grow(self, end: int, missing_after: float) -> None:
        """Set age and `missing` for a hop that ends at tick `end`."""
        self.age = None if self.last is None else (end - self.last) / TICK_RATE
        self.missing = self.age is None or self.age > missing_after


@dataclass(frozen=True, slots=True)
class ModalityEstimate:
    """One modality at one hop."""

    sentiment: float | None
    """In [-3, 3]; a number only where `status` is `ok` or `stale`."""
    weight: float
    """Share in the fusion, in [0, 1]."""
    status: str
    """`ok`, `stale`, `missing`, `off` or `untrained`."""
    reason: str | None = None
    age: float | None = None
    """Seconds since its newest valid content; None if there never was any."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the session says of the window that ends at `end`."""

    start: float
    """Session time in seconds, not below 0."""
    end: float
    warmup: bool
    """True until a whole window has passed."""
    sentiment: float | None
    """In [-3, 3]; None where no modality is present or the fused head is untrained."""
    interval: tuple[float, float] | None
    """Calibrated 90 % interval; None where it was not calibrated."""
    modalities: Mapping[str, ModalityEstimate]
    conflict: float | None
    """Largest distance between present modalities, in [0, 6]; None with fewer than two."""
    attention: Mapping[str, list[tuple[str, float, float] | tuple[float, float]]]
    """text: (word, time, weight); audio and vision: (time, weight)."""
    revision: int
    """Times at which words that had been scored were changed."""


class StepOutput(NamedTuple):
    """What the model says of one hop of one session, as plain numbers; see `Output`."""

    sentiment: float
    heads: tuple[float, float, float]
    present: tuple[bool, bool, bool]
    weight: tuple[float, float, float]
    attention: tuple[dict[int, float], dict[int, float], dict[int, float]]
    """Per modality the weight of each attended tick, those of text in the order in which they came,
    of the others the `SHOWN` heaviest."""
    heard: tuple[int, int, int]
    """Per modality the valid steps in the window: tokens, ticks of sound, frames."""


def step_outputs(output: Output) -> list[StepOutput]:
    """Return the hop of each session of an output with N = 1."""
    columns = (output.sentiment, output.heads, output.present, output.weight)
    attended = [
        _attended(pooled, len(pooled.time[0]) if name == "text" else SHOWN)
        for name, pooled in zip(MODALITIES, output.attention, strict=True)
    ]
    heard = [np.count_nonzero(p.weight[:, 0].numpy(), axis=1).tolist() for p in output.attention]
    rows = zip(
        *(column[:, 0].tolist() for column in columns),
        zip(*attended, strict=True),
        zip(*heard, strict=True),
        strict=True,
    )
    return [StepOutput(*row) for row in rows]


def _attended(pooled: Pooled, most: int) -> list[dict[int, float]]:
    """Return per session what was attended; the tokens of one word are added up."""
    weight, time = pooled.weight[:, 0].numpy(), pooled.time.numpy()
    if most < weight.shape[1]:
        chosen = np.argsort(-weight, axis=1, kind="stable")[:, :most]
        weight, time = (np.take_along_axis(x, chosen, axis=1) for x in (weight, time))
    found = []
    for ticks, shares in zip(time.tolist(), weight.tolist(), strict=True):
        total: dict[int, float] = {}
        for tick, share in zip(ticks, shares, strict=True):
            if share > 0:
                total[tick] = total.get(tick, 0.0) + share
        found.append(total)
    return found


def describe(
    hearing: StepOutput,
    end: int,
    *,
    timing: Timing,
    reports: Mapping[str, Presence],
    card: Card,
    words: Mapping[int, str],
    revision: int,
) -> Estimate:
    """Put one hop of one session into words.

    Args:
        hearing: Of the model.
        end: Tick at which the hop ends.
        timing: For the window and the ages at which a modality is stale.
        reports: Of each modality that was asked for.
        card: Which heads are trained, and half widths of intervals.
        words: Word that starts at each tick of the window.
        revision: Passed on.
    """
    modalities: dict[str, ModalityEstimate] = {}
    present: dict[str, int] = {}
    for index, name in enumerate(MODALITIES):
        report = reports.get(name)
        if report is None:
            modalities[name] = ModalityEstimate(None, 0.0, "off")
        elif report.counts and not (card.trained[name] or hearing.present[index]):
            # Not even in the fusion, or nothing of it lies in the window: no number either way.
            modalities[name] = _present(None, 0.0, report, timing.stale_after[name])
        elif not (report.counts and hearing.present[index]):
            reason = report.lost or report.reason or UNSEEN[name]
            modalities[name] = ModalityEstimate(None, 0.0, "missing", reason, report.age)
        else:
            present[name] = hearing.heard[index]
            sentiment = hearing.heads[index] if card.trained[name] else None
            weight = hearing.weight[index]
            modalities[name] = _present(sentiment, weight, report, timing.stale_after[name])
    heard = [m.sentiment for m in modalities.values() if m.sentiment is not None]
    fused = hearing.sentiment if present and card.trained["sentiment"] else None
    stop = end / TICK_RATE
    return Estimate(
        start=max(0.0, stop - timing.window),
        end=stop,
        warmup=stop < timing.window,
        sentiment=fused,
        interval=_interval(fused, card.half_width(present)),
        modalities=modalities,
        conflict=max(heard) - min(heard) if len(heard) > 1 else None,
        attention={name: _attention(hearing, name, words) for name in present},
        revision=revision,
    )


def _present(
    sentiment: float | None, weight: float, report: Presence, stale_after: float
) -> ModalityEstimate:
    if sentiment is None:
        return ModalityEstimate(None, weight, "untrained", "head_untrained", report.age)
    if report.age is not None and report.age > stale_after:
        return ModalityEstimate(sentiment, weight, "stale", report.reason, report.age)
    return ModalityEstimate(sentiment, weight, "ok", None, report.age)


def _interval(sentiment: float | None, half: float | None) -> tuple[float, float] | None:
    if sentiment is None or half is None:
        return None
    return max(-LIMIT, sentiment - half), min(LIMIT, sentiment + half)


def _attention(
    hearing: StepOutput, name: str, words: Mapping[int, str]
) -> list[tuple[str, float, float] | tuple[float, float]]:
    """Return the heaviest ticks; of two that weigh the same the earlier one first."""
    total = hearing.attention[MODALITIES.index(name)]
    heaviest = sorted(total.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    if name == "text":
        return [(words.get(tick, ""), tick / TICK_RATE, weight) for tick, weight in heaviest]
    return [(tick / TICK_RATE, weight) for tick, weight in heaviest]
