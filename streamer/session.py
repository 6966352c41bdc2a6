"""Rooms 3 and 4: `Session` turns samples, phrases and notices into estimates.

Knows the aligner, the model and its state. Knows no clock, thread, socket or device: times come
with the inputs, so that a live run, a file and a recording give the same numbers.

Words are placed by the time at which they were spoken and admitted by the time at which they became
available. The current utterance is encoded anew from the text state at its start whenever it
changes.
"""

import math
from collections import deque
from collections.abc import Collection
from typing import Protocol

import numpy as np
import torch

from tamulag.models import TamUlag, Ticks
from tamulag.models.checkpoint import Card

from .align import PERIOD, Aligner, Hop
from .estimate import Estimate, Report, Timing, describe
from .sample import MODALITIES, TICK_RATE, Call, Input, Modality, Phrase, Sample, Word, tick_of

WAITING_PHRASES = 256
"""Phrases that may wait for the hop that admits them; beyond that the oldest is dropped."""


class Journal(Protocol):
    """Is told what a session is given and what it answers, in order; must not change either."""

    def took(self, item: Input) -> None:
        """Note an input, before the session works on it."""

    def called(self, name: Call, now: float | None) -> None:
        """Note a call of that name that closes hops, before their estimates; `hop`: new length."""

    def said(self, estimate: Estimate) -> None:
        """Note an estimate."""


class Session:
    """One person in front of one set of devices.

    Args:
        model: Shared by any number of sessions; its state is kept here.
        card: Which heads are trained, and the half widths of their intervals.
        asked: The modalities that were asked for; the others are `off`.
        timing: Window, hop and lateness.
        names_words: Whether estimates name the words that attention looks at.
    """

    def __init__(
        self,
        model: TamUlag,
        card: Card,
        asked: Collection[str],
        timing: Timing | None = None,
        *,
        names_words: bool = True,
    ) -> None:
        self.timing = timing or Timing()
        self.asked: tuple[Modality, ...] = tuple(name for name in MODALITIES if name in asked)
        dims: dict[str, int] = {
            name: getattr(model.config, name).dim for name in self.asked if name != "text"
        }
        self.aligner = Aligner(
            dims, hop=round(self.timing.hop * TICK_RATE), lateness=self.timing.lateness
        )
        self.revision = 0
        """Times at which words that had been scored were changed."""
        self.late_phrases = 0
        """Phrases that were dropped: of utterances already closed, or beyond `WAITING_PHRASES`."""
        self.journal: Journal | None = None
        """Is told all that makes a replay; None: nobody is."""
        self._names_words = names_words
        self._model = model
        self._card = card
        self._state = model.initial_state(1)
        self._anchor = self._state.text
        self._utterance: Phrase | None = None
        self._waiting: deque[Phrase] = deque(maxlen=WAITING_PHRASES)
        self._words: dict[int, str] = {}
        self._reports: dict[str, Report] = {name: Report() for name in self.asked}

    @property
    def now(self) -> float:
        """Session time up to which hops have been closed, in seconds."""
        return (self.aligner.end - self.aligner.hop) / TICK_RATE

    @property
    def hop(self) -> float:
        """Seconds between two estimates."""
        return self.aligner.hop / TICK_RATE

    def set_hop(self, seconds: float) -> None:
        """Give the next hop, and those after it, another length: a multiple of 0.1 s."""
        if self.journal:
            self.journal.called("hop", seconds)
        self.aligner.set_hop(round(seconds * TICK_RATE))

    def push(self, item: Input) -> list[Estimate]:
        """Take one input; return the estimates of the hops that it closes, oldest first.

        Raises:
            ValueError: If it is of a modality that was not asked for, or of a wrong size.
        """
        if self.journal:
            self.journal.took(item)
        if isinstance(item, Sample):
            return self._estimates(self.aligner.push(item))
        if isinstance(item, Phrase):
            if "text" not in self.asked:
                raise ValueError("text phrase: text was not asked for in this session")
            self.late_phrases += len(self._waiting) == WAITING_PHRASES
            self._waiting.append(item)
        elif item.modality in self._reports:
            self._reports[item.modality].lost = item.reason
        return []

    def advance(self, now: float) -> list[Estimate]:
        """Return the estimates of hops that ended before `now - lateness` (session time)."""
        hops = self.aligner.advance(now)
        if hops and self.journal:
            self.journal.called("advance", now)
        return self._estimates(hops)

    def close(self, now: float | None = None) -> list[Estimate]:
        """Return the estimates of everything that is still held.

        Words that came after the last sound belong to the last, unfinished hop.

        Args:
            now: Session time that is not gone beyond; None: one window after the last hop.
        """
        if self.journal:
            self.journal.called("close", now)
        limit = self.now + self.timing.window if now is None else now
        known = [phrase.timestamp for phrase in self._waiting if phrase.timestamp <= limit]
        # A phrase is admitted by a hop that ends at or after its time and is still open.
        open_tick = self.aligner.end - self.aligner.hop + 1
        least = max(math.ceil(max(known) * TICK_RATE), open_tick) if known else 0
        estimates = self._estimates(self.aligner.close(least))
        self.late_phrases += len(self._waiting)
        self._waiting.clear()
        return estimates

    def _estimates(self, hops: list[Hop]) -> list[Estimate]:
        estimates = [self._step(hop) for hop in hops]
        if self.journal:
            for estimate in estimates:
                self.journal.said(estimate)
        return estimates

    @torch.inference_mode()
    def _step(self, hop: Hop) -> Estimate:
        ticks = {name: self._observe(name, hop) for name in hop.grids}
        self._restart_missing(hop.end)
        now = torch.tensor([[hop.end]])
        phrases = self._admitted(hop.end)
        for phrase in phrases[:-1]:
            text = {"text": self._begin(phrase, hop.end)}
            _, self._state = self._model.step(text, now, self._state)
            self._finish(phrase)
        if phrases:
            ticks["text"] = self._begin(phrases[-1], hop.end)
        counts = [name in self._reports and self._reports[name].counts for name in MODALITIES]
        output, self._state = self._model.step(ticks, now, self._state, torch.tensor([[counts]]))
        if phrases:
            self._finish(phrases[-1])
        return describe(
            output,
            hop.end,
            timing=self.timing,
            reports=self._reports,
            card=self._card,
            words=self._words,
            revision=self.revision,
        )

    def _observe(self, name: str, hop: Hop) -> Ticks:
        """Note what came of audio or vision and return it as ticks of the model."""
        grid, report = hop.grids[name], self._reports[name]
        if grid.seen is not None:
            report.reason = grid.reason
        if grid.mask.any():
            report.last = int(grid.time[grid.mask][-1]) + PERIOD[name]
        time = torch.from_numpy(grid.time)[None]
        return Ticks(
            torch.from_numpy(grid.values)[None],
            torch.from_numpy(grid.mask)[None],
            time,
            time + PERIOD[name],
        )

    def _restart_missing(self, end: int) -> None:
        """Reset the state of each modality that is missing: a new voice or face starts afresh."""
        fresh = self._model.initial_state(1)
        for name, report in self._reports.items():
            was_missing = report.missing
            report.grow(end, self.timing.missing_after[name])
            if report.missing and not was_missing:
                self._state = self._state._replace(**{name: getattr(fresh, name)})
                if name == "text":
                    self._anchor = fresh.text

    def _admitted(self, end: int) -> list[Phrase]:
        """Take the phrases known at tick `end`: of each utterance the newest, in order."""
        newest: dict[int, Phrase] = {}
        while self._waiting and self._waiting[0].timestamp * TICK_RATE <= end:
            phrase = self._waiting.popleft()
            current = self._utterance
            closed = current is not None and (
                phrase.utterance < current.utterance
                or (phrase.utterance == current.utterance and current.final)
            )
            if closed:
                self.late_phrases += 1
            else:
                newest[phrase.utterance] = phrase
        return [newest[number] for number in sorted(newest)]

    def _begin(self, phrase: Phrase, end: int) -> Ticks:
        """Go back to the text state at the phrase's start; return its tokens as ticks."""
        before = self._utterance
        known: tuple[Word, ...] = ()
        if before and before.utterance == phrase.utterance:
            known = before.words
        elif before and not before.final:
            self._anchor = self._state.text
        self._state = self._state._replace(text=self._anchor)
        if _texts(phrase.words)[: len(known)] != _texts(known):
            self.revision += 1
        starts = [min(tick_of(word.start), end - 1) for word in phrase.words]
        self._remember(dict(zip(starts, _texts(phrase.words), strict=True)), phrase, end)
        time = np.array([starts[i] for i in phrase.word_of_token], np.int64).reshape(1, -1)
        return Ticks(
            torch.from_numpy(phrase.values)[None],
            torch.ones(time.shape, dtype=torch.bool),
            torch.from_numpy(time),
            torch.full(time.shape, end),
        )

    def _remember(self, words: dict[int, str], phrase: Phrase, end: int) -> None:
        """Keep the words of the window, to name what attention looks at."""
        oldest = end - self.timing.window * TICK_RATE
        words = words if self._names_words else dict.fromkeys(words, "")
        self._words = {t: w for t, w in (self._words | words).items() if t >= oldest}
        report = self._reports["text"]
        for word in phrase.words[-1:]:
            report.last = max(report.last or 0, min(tick_of(word.end), end))
        report.grow(end, self.timing.missing_after["text"])

    def _finish(self, phrase: Phrase) -> None:
        """Keep the utterance; once it is final, the next one starts from here."""
        self._utterance = phrase
        if phrase.final:
            self._anchor = self._state.text


def _texts(words: tuple[Word, ...]) -> list[str]:
    return [word.text for word in words]
