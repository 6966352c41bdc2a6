"""The offline path: whole-file features through the model's `forward`, for `tamulag verify`.

Knows features, words and the model. Knows no session, no aligner and no state: it recomputes the
hops, the present modalities and the resets of the state, so that an error of the live path shows as
a difference.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch

from tamulag.models import TamUlag, Ticks
from tamulag.models.nn.tam_ulag import SPOKEN, Turns
from tamulag.models.runtime.checkpoint import Card

from ..core.estimate import Timing
from ..core.sample import (
    MODALITIES,
    PERIOD,
    TICK_RATE,
    VISION_TICKS,
    Input,
    Notice,
    Phrase,
    Sample,
    tick_of,
)
from ..core.turns import PAUSE, SOUND, WORDS
from ..features.asr.recogniser import Encode
from .extract import MediaFeatures, stack_inputs


@dataclass(frozen=True, slots=True)
class Score:
    """The offline path's result for the hop that ends at `end`."""

    end: float
    """Seconds."""
    sentiment: float | None
    """Fused, in [-3, 3]; None without a present modality or a trained head."""
    heads: dict[str, float | None]
    """Each modality's own sentiment."""


@dataclass(frozen=True, slots=True)
class _View:
    """One modality at one hop."""

    since: int = 0
    """First tick in its state."""
    counts: bool = False
    phrases: tuple[tuple[Phrase, int], ...] = ()
    """Text: the phrases in its state, each with the tick of its arrival."""

    @property
    def beginning(self) -> tuple[object, ...]:
        """Key that is equal for two hops whose states have the same start."""
        return self.since, tuple((id(phrase), end) for phrase, end in self.phrases)


@dataclass(slots=True)
class _KnownWords:
    """The words known at a hop, one phrase per utterance."""

    waiting: list[Phrase]
    phrases: dict[int, tuple[Phrase, int]] = field(default_factory=dict)
    last: int | None = None
    """Tick at which the newest word ended."""

    def add_until(self, end: int) -> None:
        """Add the phrases that were available at tick `end`."""
        while self.waiting and self.waiting[0].timestamp * TICK_RATE <= end:
            phrase = self.waiting.pop(0)
            self.phrases[phrase.utterance] = (phrase, end)
            for word in phrase.words[-1:]:
                self.last = max(self.last or 0, min(tick_of(word.end), end))


def scores(
    model: TamUlag,
    card: Card,
    found: Sequence[Input],
    phrases: Sequence[Phrase],
    *,
    asked: Sequence[str],
    timing: Timing,
    encode: Encode,
) -> list[Score]:
    """Score every hop of a file.

    Args:
        model: In evaluation mode.
        card: States which heads are trained.
        found: All inputs of the whole file.
        phrases: Words with the time at which each became available; encoded here.
        asked: Modalities.
        timing: Window, hop and age limits.
        encode: Words -> token states and word indices.
    """
    part = stack_inputs(found)
    lost = {item.modality for item in found if isinstance(item, Notice) and item.reason}
    ends = _ends(found, phrases, round(timing.hop * TICK_RATE))
    views = {
        name: _text_views(phrases, ends, timing)
        if name == "text"
        else _media_views(name, part, ends, timing)
        for name in MODALITIES
        if name in asked
    }
    rows = list(zip(ends, *views.values(), strict=True))
    out: list[Score] = []
    # Within a stretch the model's state has one start: one pass gives all its hops.
    for _, stretch in groupby(rows, key=lambda row: [view.beginning for view in row[1:]]):
        hops = list(stretch)
        now = [row[0] for row in hops]
        allowed = [
            [
                name in views and name not in lost and row[1 + list(views).index(name)].counts
                for name in MODALITIES
            ]
            for row in hops
        ]
        begun = dict(zip(views, hops[0][1:], strict=True))
        ticks = {name: _ticks(name, view, part, now[-1], encode) for name, view in begun.items()}
        turns: list[dict[str, tuple[int, float]]] = [
            {
                name: _turn(name, view, part, row[0])
                for name, view in zip(views, row[1:], strict=True)
            }
            for row in hops
        ]
        out += _forward(model, card, ticks, now, allowed, turns)
    return out


@torch.inference_mode()
def _forward(
    model: TamUlag,
    card: Card,
    ticks: dict[str, Ticks | None],
    now: list[int],
    allowed: list[list[bool]],
    turns: list[dict[str, tuple[int, float]]],
) -> list[Score]:
    there = {name: part for name, part in ticks.items() if part is not None}
    begins, shares = (
        [[hop.get(name, (0, 1.0))[place] for name in SPOKEN] for hop in turns] for place in range(2)
    )
    output = model(
        there,
        torch.tensor([now]),
        torch.tensor([allowed]),
        Turns(torch.tensor([begins]), torch.tensor([shares])),
    )
    out = []
    for hop, end in enumerate(now):
        present = output.present[0, hop].tolist()
        heads: dict[str, float | None] = {
            name: float(output.heads[0, hop, index]) if is_there and card.trained[name] else None
            for index, (name, is_there) in enumerate(zip(MODALITIES, present, strict=True))
        }
        is_scored = any(present) and card.trained["sentiment"]
        fused = float(output.sentiment[0, hop]) if is_scored else None
        out.append(Score(end / TICK_RATE, fused, heads))
    return out


def _turn(name: str, view: _View, part: MediaFeatures, end: int) -> tuple[int, float]:
    """Return where the turn began that a hop is about, and its share of the context."""
    if name == "audio":
        time = _slots(name, part)
        time = time[time < end]
        if not len(time):
            return 0, 1.0
        (pauses,) = np.nonzero(np.diff(time) > PAUSE)
        begin = int(pauses[-1]) + 1 if len(pauses) else 0
        is_over = end - time[-1] > PAUSE
        return int(time[begin]), 1.0 if is_over else min(1.0, (len(time) - begin) / SOUND)
    for phrase, arrival in reversed(view.phrases):
        if phrase.words:
            share = 1.0 if phrase.final else min(1.0, len(phrase.words) / WORDS)
            return min(tick_of(phrase.words[0].start), arrival - 1), share
    return 0, 1.0


def _ends(found: Sequence[Input], phrases: Sequence[Phrase], hop: int) -> list[int]:
    """Return the ticks at which hops end; the last one may be shorter."""
    # A picture fills its whole tenth of a second.
    length = max(
        (
            (tick_of(item.timestamp) // PERIOD[item.modality] + 1) * PERIOD[item.modality]
            for item in found
            if isinstance(item, Sample)
        ),
        default=0,
    )
    words = max((math.ceil(phrase.timestamp * TICK_RATE) for phrase in phrases), default=0)
    last = -(-max(length, words) // VISION_TICKS) * VISION_TICKS
    return [*range(hop, last, hop), last] if last else []


def _media_views(
    name: str, part: MediaFeatures, ends: Sequence[int], timing: Timing
) -> list[_View]:
    """Return the views of audio or vision, hop by hop."""
    size = PERIOD[name]
    starts = _slots(name, part)

    def last(end: int) -> int | None:
        before = starts[starts < end]
        return int(before[-1]) + size if len(before) else None

    return _views(ends, last, timing.missing_after[name])


def _views(
    ends: Sequence[int], last: Callable[[int], int | None], missing_after: float
) -> list[_View]:
    views: list[_View] = []
    since, was_missing, begin = 0, True, 0
    for end in ends:
        newest = last(end)
        missing = newest is None or (end - newest) / TICK_RATE > missing_after
        if missing and not was_missing:
            since = begin
        views.append(_View(since, not missing))
        was_missing, begin = missing, end
    return views


def _text_views(phrases: Sequence[Phrase], ends: Sequence[int], timing: Timing) -> list[_View]:
    """Return the views of the words; a long silence clears them before new ones are added."""
    words, views, was_missing = _KnownWords(list(phrases)), [], True

    def is_missing(end: int) -> bool:
        return words.last is None or (end - words.last) / TICK_RATE > timing.missing_after["text"]

    for end in ends:
        if is_missing(end) and not was_missing:
            words.phrases.clear()
        words.add_until(end)
        was_missing = is_missing(end)
        views.append(_View(0, not was_missing, tuple(words.phrases.values())))
    return views


def _slots(name: str, part: MediaFeatures) -> np.ndarray:
    time = part.ticks.get(name, np.zeros(0, np.int64))
    return time // PERIOD[name] * PERIOD[name]


def _ticks(name: str, view: _View, part: MediaFeatures, end: int, encode: Encode) -> Ticks | None:
    """Return all of a modality from the start of its state to tick `end`."""
    if name == "text":
        return _tokens(view, encode)
    time = _slots(name, part)
    chosen = (time >= view.since) & (time < end)
    if not chosen.any():
        return None
    return _ticks_of(part.values[name][chosen], time[chosen], time[chosen] + PERIOD[name])


def _tokens(view: _View, encode: Encode) -> Ticks | None:
    parts = []
    for phrase, end in view.phrases:
        states, word_of_token = encode([word.text for word in phrase.words])
        starts = [min(tick_of(word.start), end - 1) for word in phrase.words]
        time = np.array([starts[index] for index in word_of_token], np.int64)
        parts.append((states, time, np.full(len(time), end, np.int64)))
    if not sum(len(states) for states, _, _ in parts):
        return None
    values, time, ready = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _ticks_of(values, time, ready)


def _ticks_of(values: np.ndarray, time: np.ndarray, ready: np.ndarray) -> Ticks:
    mask = torch.ones((1, len(time)), dtype=torch.bool)
    arrays = (torch.from_numpy(array)[None] for array in (values, time, ready))
    states, at, known = arrays
    return Ticks(states, mask, at, known)
