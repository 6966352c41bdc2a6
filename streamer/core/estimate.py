"""The estimate of a hop: the model's output, in the words of the message.

Knows the model's output and how old each modality is. Knows no wall clock and no wire format.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from tamulag.models.runtime.card import Card
from tamulag.models.runtime.step_engine import Attention, StepArrays

from .errors import TamulagError
from .sample import LIMIT, MODALITIES, TICK_RATE
from .trend import Label, Labels

SHOWN = 5
"""Attended ticks per modality that an estimate names, heaviest first."""
UNSEEN = {"text": "no_words", "audio": "no_sound", "vision": "no_picture"}
"""Why a modality is missing when its source gave no reason."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The numbers of a session, in seconds, and what attention is scoped to."""

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
    attention: Literal["turn", "window"] = "turn"
    """What attention is scoped to: `core.turns`, or all of the window as it was at first."""
    labels: Labels = "rising"
    """What a label names: a `core.trend` that begins at 0, or as it was at first, each score by
    itself, and then a trend that begins at the first score (`trend`)."""


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
    scale: float | None = None
    """Of the error of `sentiment`: its density is exp(-|error| / scale) / (2 scale). None where
    there is no number, and with a checkpoint that has no scales."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The scores of the window that ends at `end`."""

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
    trend: float | None = None
    """The score smoothed over some seconds, in [-3, 3]; see `Trend`."""
    label: Label | None = None
    """Of the trend; None where there is no score."""


APART = 2 * LIMIT
"""Difference where only one of two has a number: as far as two scores can be apart."""


def scores_of(estimate: Estimate) -> dict[str, float | None]:
    """Return the score of all modalities together, `fused`, and of each alone, by name."""
    return {"fused": estimate.sentiment} | {
        name: estimate.modalities[name].sentiment for name in MODALITIES
    }


def difference(one: object, other: object) -> float:
    """Return the largest difference of two structures of numbers, e.g. of two estimates as dicts.

    What is there on one side only, or is another word, is `APART`. Two NaN are equal.
    """
    if isinstance(one, float | int) and isinstance(other, float | int):
        if math.isnan(one) or math.isnan(other):
            return 0.0 if math.isnan(one) and math.isnan(other) else APART
        return abs(one - other)
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        return max((difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return max((difference(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    return 0.0 if one == other else APART


class NotFinite(TamulagError):
    """A score is not a finite number: the inputs of its session are damaged."""


def check_finite(estimate: Estimate) -> None:
    """Refuse an estimate with a number that no message can have.

    Raises:
        NotFinite: If there is one.
    """
    numbers = [estimate.sentiment, estimate.conflict, *(estimate.interval or ())]
    for one in estimate.modalities.values():
        numbers += (one.sentiment, one.weight, one.scale)
    if not all(math.isfinite(number) for number in numbers if number is not None):
        raise NotFinite("the features give a score that is not a finite number")


class StepOutput(NamedTuple):
    """The model's output of one hop of one session, as plain numbers; see `StepArrays`."""

    sentiment: float
    heads: tuple[float, float, float]
    present: tuple[bool, bool, bool]
    weight: tuple[float, float, float]
    scale: tuple[float, float, float] | None
    attention: tuple[dict[int, float], dict[int, float], dict[int, float]]
    """Per modality the weight of each attended tick, those of text in the order in which they came,
    of the others the `SHOWN` heaviest."""
    steps: tuple[int, int, int]
    """Per modality the valid steps in the window: tokens, ticks of sound, frames."""


def step_outputs(arrays: StepArrays) -> list[StepOutput]:
    """Return the hop of each session."""
    attended = [
        _attended(attention, attention.time.shape[1] if name == "text" else SHOWN)
        for name, attention in zip(MODALITIES, arrays.attention, strict=True)
    ]
    steps = [np.count_nonzero(one.weight, axis=1).tolist() for one in arrays.attention]
    scale = [None] * len(arrays.sentiment) if arrays.scale is None else arrays.scale.tolist()
    rows = zip(
        *(column.tolist() for column in arrays[:4]),
        scale,
        zip(*attended, strict=True),
        zip(*steps, strict=True),
        strict=True,
    )
    return [StepOutput(*row) for row in rows]


def _attended(attention: Attention, most: int) -> list[dict[int, float]]:
    """Return per session what was attended; the tokens of one word are added up."""
    weight, time = attention
    if most < weight.shape[1]:
        chosen = np.argsort(-weight, axis=1, kind="stable")[:, :most]
        weight = np.take_along_axis(weight, chosen, axis=1)
        time = np.take_along_axis(time, chosen, axis=1)
    found = []
    for ticks, shares in zip(time.tolist(), weight.tolist(), strict=True):
        total: dict[int, float] = {}
        for tick, share in zip(ticks, shares, strict=True):
            if share > 0:
                total[tick] = total.get(tick, 0.0) + share
        found.append(total)
    return found


def describe(
    output: StepOutput,
    end: int,
    *,
    timing: Timing,
    presence: Mapping[str, Presence],
    card: Card,
    words: Mapping[int, str],
    revision: int,
) -> Estimate:
    """Put one hop of one session into words, all but the trend and its label.

    Args:
        output: Of the model.
        end: Tick at which the hop ends.
        timing: For the window and the ages at which a modality is stale.
        presence: Of each modality that was asked for.
        card: Which heads are trained, and half widths of intervals.
        words: Word that starts at each tick of the window.
        revision: Passed on.
    """
    modalities: dict[str, ModalityEstimate] = {}
    present: dict[str, int] = {}
    spread: dict[str, float] = {}
    for index, name in enumerate(MODALITIES):
        its = presence.get(name)
        if its is None:
            modalities[name] = ModalityEstimate(None, 0.0, "off")
        elif its.counts and not (card.trained[name] or output.present[index]):
            # Not even in the fusion, or nothing of it lies in the window: no number either way.
            modalities[name] = _present(None, 0.0, None, its, timing.stale_after[name])
        elif not (its.counts and output.present[index]):
            reason = its.lost or its.reason or UNSEEN[name]
            modalities[name] = ModalityEstimate(None, 0.0, "missing", reason, its.age)
        else:
            present[name] = output.steps[index]
            sentiment = output.heads[index] if card.trained[name] else None
            weight = output.weight[index]
            scale = None if output.scale is None else output.scale[index]
            if scale is not None:
                spread[name] = weight * scale
            modalities[name] = _present(sentiment, weight, scale, its, timing.stale_after[name])
    scores = [m.sentiment for m in modalities.values() if m.sentiment is not None]
    fused = output.sentiment if present and card.trained["sentiment"] else None
    stop = end / TICK_RATE
    return Estimate(
        start=max(0.0, stop - timing.window),
        end=stop,
        warmup=stop < timing.window,
        sentiment=fused,
        interval=_interval(fused, card.half_width(present, spread)),
        modalities=modalities,
        conflict=max(scores) - min(scores) if len(scores) > 1 else None,
        attention={name: _attention(output, name, words) for name in present},
        revision=revision,
    )


def _present(
    sentiment: float | None,
    weight: float,
    scale: float | None,
    presence: Presence,
    stale_after: float,
) -> ModalityEstimate:
    if sentiment is None:
        return ModalityEstimate(None, weight, "untrained", "head_untrained", presence.age)
    if presence.age is not None and presence.age > stale_after:
        return ModalityEstimate(sentiment, weight, "stale", presence.reason, presence.age, scale)
    return ModalityEstimate(sentiment, weight, "ok", None, presence.age, scale)


def _interval(sentiment: float | None, half: float | None) -> tuple[float, float] | None:
    if sentiment is None or half is None:
        return None
    return max(-LIMIT, sentiment - half), min(LIMIT, sentiment + half)


def _attention(
    output: StepOutput, name: str, words: Mapping[int, str]
) -> list[tuple[str, float, float] | tuple[float, float]]:
    """Return the heaviest ticks; of two that weigh the same the earlier one first."""
    total = output.attention[MODALITIES.index(name)]
    heaviest = sorted(total.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    if name == "text":
        return [(words.get(tick, ""), tick / TICK_RATE, weight) for tick, weight in heaviest]
    return [(tick / TICK_RATE, weight) for tick, weight in heaviest]
