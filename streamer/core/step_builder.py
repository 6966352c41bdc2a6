"""The bookkeeping of a session: samples, phrases and notices become steps, outputs estimates.

Knows the aligner, the words and which modality is missing. Knows no model: what a step does to the
state, and how many sessions are stepped together, is not seen here.

Words are placed by the time at which they were spoken and admitted by the time at which they became
available.
"""

import math
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tamulag.models.runtime.card import Card
from tamulag.models.runtime.step_engine import StepInput, TickArrays, Utterance

from .aligner import Aligner, Hop
from .estimate import Estimate, Presence, StepOutput, Timing, describe
from .sample import (
    MODALITIES,
    PERIOD,
    TICK_RATE,
    Block,
    Input,
    Modality,
    Phrase,
    Sample,
    Word,
    tick_of,
)
from .trend import Trend, label_of
from .turns import TextTurn, VoiceTurn

WAITING_PHRASES = 256
"""Phrases that may wait for the hop that admits them; beyond that the oldest is dropped."""


class PendingStep(NamedTuple):
    """What a hop brings to the model, and what was known of the session at that time."""

    inputs: StepInput
    presence: Mapping[str, Presence]
    words: Mapping[int, str]
    revision: int


class StepBuilder:
    """One person in front of one set of devices, without the model.

    Args:
        dims: Features of each vector, for `audio` and `vision` at least.
        card: Which heads are trained, and the half widths of their intervals.
        asked: The modalities that were asked for; the others are `off`.
        timing: Window, hop and lateness.
        names_words: Whether estimates name the words that attention looks at.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        card: Card,
        asked: Collection[str],
        timing: Timing,
        *,
        names_words: bool = True,
    ) -> None:
        self.timing = timing
        self.asked: tuple[Modality, ...] = tuple(name for name in MODALITIES if name in asked)
        self.aligner = Aligner(
            {name: dims[name] for name in self.asked if name != "text"},
            hop=round(timing.hop * TICK_RATE),
            lateness=timing.lateness,
        )
        self.revision = 0
        """Times at which words that had been scored were changed."""
        self.late_phrases = 0
        """Phrases that were dropped: of utterances already closed, or beyond `WAITING_PHRASES`."""
        self.presence: dict[str, Presence] = {name: Presence() for name in self.asked}
        self.utterance: Phrase | None = None
        self.waiting: deque[Phrase] = deque(maxlen=WAITING_PHRASES)
        self.words: dict[int, str] = {}
        self.text_turn = TextTurn()
        self.voice_turn = VoiceTurn()
        self.trend = Trend(from_zero=timing.labels == "rising")
        self._names_words = names_words
        self._card = card

    @property
    def now(self) -> float:
        """Session time up to which hops have been closed, in seconds."""
        return (self.aligner.end - self.aligner.hop) / TICK_RATE

    def push(self, item: Input | Block) -> list[PendingStep]:
        """Take one input; return the steps of the hops that it closes, oldest first.

        Raises:
            ValueError: If it is of a modality that was not asked for, or of a wrong size.
        """
        if isinstance(item, Sample):
            return [self._pending(hop) for hop in self.aligner.push(item)]
        if isinstance(item, Block):
            return [self._pending(hop) for hop in self.aligner.push_block(item)]
        if isinstance(item, Phrase):
            if "text" not in self.asked:
                raise ValueError("text phrase: text was not asked for in this session")
            self.late_phrases += len(self.waiting) == WAITING_PHRASES
            self.waiting.append(item)
        elif item.modality in self.presence and not item.event:
            self.presence[item.modality].lost = item.reason
        return []

    def advance(self, now: float) -> list[PendingStep]:
        """Return the steps of hops that ended before `now - lateness` (session time)."""
        return [self._pending(hop) for hop in self.aligner.advance(now)]

    def close(self, now: float | None = None) -> list[PendingStep]:
        """Return the steps of everything that is still held; see `Session.close`."""
        limit = self.now + self.timing.window if now is None else now
        known = [phrase.timestamp for phrase in self.waiting if phrase.timestamp <= limit]
        # A phrase is admitted by a hop that ends at or after its time and is still open.
        open_tick = self.aligner.end - self.aligner.hop + 1
        least = max(math.ceil(max(known) * TICK_RATE), open_tick) if known else 0
        due = [self._pending(hop) for hop in self.aligner.close(least)]
        self.late_phrases += len(self.waiting)
        self.waiting.clear()
        return due

    def set_hop(self, seconds: float) -> list[PendingStep]:
        """Give the next hop, and those after it, another length; no step is due by that.

        Raises:
            ValueError: If it is no positive multiple of 0.1 s.
        """
        self.aligner.set_hop(round(seconds * TICK_RATE))
        return []

    def estimate(self, step: PendingStep, output: StepOutput) -> Estimate:
        """Return the estimate of a step from the model's output."""
        found = describe(
            output,
            step.inputs.end,
            timing=self.timing,
            presence=step.presence,
            card=self._card,
            words=step.words,
            revision=step.revision,
        )
        if found.sentiment is None:
            return found
        if self.timing.labels == "score":
            return replace(found, label=label_of(found.sentiment))
        self.trend.add(found.sentiment, found.end)
        return replace(found, trend=self.trend.value, label=self.trend.label)

    def _pending(self, hop: Hop) -> PendingStep:
        rows = {name: self._observe(name, hop) for name in hop.grids}
        fresh = self._reset(hop.end)
        utterances = [self._utterance(phrase, hop.end) for phrase in self._admitted(hop.end)]
        text, audio, vision = (
            name in self.presence and self.presence[name].counts for name in MODALITIES
        )
        inputs = StepInput(
            hop.end,
            fresh,
            rows,
            utterances,
            (text, audio, vision),
        )
        if self.timing.attention == "turn":
            inputs = inputs._replace(
                since=(self.text_turn.since, self.voice_turn.since),
                share=(self.text_turn.share, self.voice_turn.share(hop.end)),
            )
        presence = {name: replace(one) for name, one in self.presence.items()}
        return PendingStep(inputs, presence, self.words, self.revision)

    def _observe(self, name: str, hop: Hop) -> TickArrays:
        """Update the presence of audio or vision and return what it brought."""
        grid, presence = hop.grids[name], self.presence[name]
        if grid.seen is not None:
            presence.reason = grid.reason
        if name == "audio":
            self.voice_turn.add(grid.time[grid.mask])
        if grid.mask.any():
            presence.last = int(grid.time[grid.mask][-1]) + PERIOD[name]
        return TickArrays(grid.values, grid.mask, grid.time, grid.time + PERIOD[name])

    def _reset(self, end: int) -> frozenset[str]:
        """Return which modalities are missing from now on: their state is reset."""
        fresh = []
        for name, presence in self.presence.items():
            was_missing = presence.missing
            presence.grow(end, self.timing.missing_after[name])
            if presence.missing and not was_missing:
                fresh.append(name)
        return frozenset(fresh)

    def _admitted(self, end: int) -> list[Phrase]:
        """Take the phrases known at tick `end`: of each utterance the newest, in order."""
        newest: dict[int, Phrase] = {}
        while self.waiting and self.waiting[0].timestamp * TICK_RATE <= end:
            phrase = self.waiting.popleft()
            current = self.utterance
            closed = current is not None and (
                phrase.utterance < current.utterance
                or (phrase.utterance == current.utterance and current.final)
            )
            if closed:
                self.late_phrases += 1
            else:
                newest[phrase.utterance] = phrase
        return [newest[number] for number in sorted(newest)]

    def _utterance(self, phrase: Phrase, end: int) -> Utterance:
        """Store the words of a phrase and return its tokens."""
        before, self.utterance = self.utterance, phrase
        is_same = before is not None and before.utterance == phrase.utterance
        known = _texts(before.words) if before is not None and is_same else []
        if _texts(phrase.words)[: len(known)] != known:
            self.revision += 1
        starts = [min(tick_of(word.start), end - 1) for word in phrase.words]
        if starts:
            self.text_turn.set(phrase, starts[0])
        self._remember(dict(zip(starts, _texts(phrase.words), strict=True)), phrase, end)
        time = np.array([starts[i] for i in phrase.word_of_token], np.int64)
        rows = TickArrays(
            phrase.values, np.ones(len(time), np.bool_), time, np.full(len(time), end)
        )
        begins = before is not None and not is_same and not before.final
        return Utterance(rows, begins, phrase.final)

    def _remember(self, words: dict[int, str], phrase: Phrase, end: int) -> None:
        """Store the words of the window, to name what attention looks at."""
        oldest = end - self.timing.window * TICK_RATE
        words = words if self._names_words else dict.fromkeys(words, "")
        self.words = {t: w for t, w in (self.words | words).items() if t >= oldest}
        presence = self.presence["text"]
        for word in phrase.words[-1:]:
            presence.last = max(presence.last or 0, min(tick_of(word.end), end))
        presence.grow(end, self.timing.missing_after["text"])


def _texts(words: tuple[Word, ...]) -> list[str]:
    return [word.text for word in words]
