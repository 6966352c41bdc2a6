"""A recogniser in its own thread: the sound that waits for it, its failures, its return.

Knows blocks, sample counts and how long a call takes. Knows no device, no file and no words.
"""

import logging
import random
import threading
import time
from collections import deque
from typing import Protocol

from ...aio.backoff import FIRST_PAUSE, LONGEST_PAUSE
from ...core.sample import Array, Notice, Phrase
from ...core.source import Put, SourceError, SourceLost
from .recogniser import SAMPLE_RATE

logger = logging.getLogger("tamulag.asr")

BACKLOG = 5 * SAMPLE_RATE
"""Samples that may wait for the recogniser."""

FRESH = SAMPLE_RATE
"""Samples, of what waits, that a recogniser begins with when it returns from a hang."""

DOUBT = 3.0
"""Seconds of one call after which what waits is no sign of a slow machine any more."""

LIMIT = 8.0
"""Seconds of one call after which the recogniser counts as lost: on two cores with eight programs'
work Moonshine took 6 s for a step of a line of 25 s."""

HUNG = f"the recogniser does not answer for {LIMIT:g} s: restart if it stays, or use --asr none"

PROOF = 1.5
"""Seconds of sound that a recogniser that was lost must hear before it counts as back: in less,
it may only have kept the sound."""

REASON = "asr_lost"

_END_LIMIT = 2.0


class Listener(Protocol):
    """What turns sound into phrases; it sees from `start` where sound is missing."""

    partials: bool
    """False: only finals are wanted, to save work; may be set from any thread."""

    def hear(self, block: Array, start: int, /) -> list[Phrase]:
        """Take a mono 16 kHz block in [-1, 1], shape (n,), whose first sample is `start`."""

    def finish(self) -> list[Phrase]:
        """End the current utterance; `hear` may follow."""

    def reopen(self) -> None:
        """Build what failed anew; an utterance that was open is not taken up again.

        Raises:
            SourceError: If it cannot be built now.
        """

    def close(self) -> None:
        """Free it; may be called twice."""


class RecogniserThread:
    """A recogniser in its own thread, behind a queue of 5 s that drops its oldest blocks.

    One that fails (`SourceLost`) is built anew after 0.5 s, then up to 4 s, each drawn from half
    of that to all of it. One that does not come back from a call is waited for, not killed.
    `text` is told as lost in both cases, and as back when sound is heard again; by `push` and
    `finish`, in the source's own thread. Any other error is a bug: they raise it.

    Args:
        listener: The recogniser.

    Attributes:
        dropped: Samples that the recogniser never got.
    """

    def __init__(self, listener: Listener) -> None:
        self.dropped = 0
        self._listener = listener
        self._waiting: deque[tuple[Array, int]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_ending = self._is_closed = False
        self._is_away = False  # it has failed and is not built anew yet
        self._fault = ""  # what was wrong, until it hears again
        self._is_told = False
        self._heard = 0  # samples since the fault
        self._began: float | None = None  # the present call
        self._opened = 0.0
        self._pause = FIRST_PAUSE
        self._failure: BaseException | None = None

    @property
    def is_working(self) -> bool:
        """Whether its thread uses the recogniser, or may do so."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def waiting(self) -> float:
        """Seconds of sound that wait; 0 while it is lost or in doubt: no relief would help."""
        with self._changed:
            if self._fault or self._lasts() > DOUBT:
                return 0.0
            return sum(len(block) for block, _ in self._waiting) / SAMPLE_RATE

    def push(self, block: Array, start: int, put: Put) -> None:
        """Queue a block for the thread, which begins with the first one; see `SoundPath.push`."""
        with self._changed:
            self._check()
            self._waiting.append((block, start))
            self._shorten(0 if self._is_away else BACKLOG)
            self._changed.notify()
            if not self.is_working:
                self._thread = threading.Thread(
                    target=self._run, args=(put,), name="tamulag.asr", daemon=True
                )
                self._thread.start()
        self._tell((start + len(block)) / SAMPLE_RATE, put)

    def finish(self, limit: float) -> None:
        """End the thread within `limit` seconds and a little; what still waits then is dropped.

        One that hangs is left behind, and goes on with what `push` brings if it ever returns.
        """
        thread = self._thread
        if thread is None:
            return
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        is_stuck = self._lasts() > DOUBT
        thread.join(0.0 if is_stuck else limit)
        with self._changed:
            self._shorten(0)
        thread.join(0.0 if is_stuck else _END_LIMIT)
        self._is_ending = self._is_closed
        if self._fault and not self._is_told:
            logger.warning("%s", self._fault)
        # Whoever ends the source tells it as lost, and as back: then ours is to be told again.
        self._is_told = False
        if thread.is_alive():
            logger.warning("the recogniser does not answer: its thread is left behind")
        self._check()

    def close(self) -> None:
        """Free the recogniser; while its thread works in it, that would crash: then it does so."""
        with self._changed:
            self._is_closed = self._is_ending = True
            self._changed.notify()
        if not self.is_working:
            self._listener.close()

    def _check(self) -> None:
        if self._failure:
            raise self._failure

    def _shorten(self, bound: int) -> None:
        length = sum(len(block) for block, _ in self._waiting)
        while length > bound:
            oldest = len(self._waiting.popleft()[0])
            length -= oldest
            self.dropped += oldest

    def _lasts(self) -> float:
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def _tell(self, at: float, put: Put) -> None:
        fault = self._fault or (HUNG if self._lasts() > LIMIT else "")
        if bool(fault) == self._is_told:
            return
        self._is_told = bool(fault)
        detail = fault or "the recogniser hears again"
        logger.warning("%s", detail)
        put(Notice(at, "text", REASON if fault else None, detail))

    def _run(self, put: Put) -> None:
        try:
            self._opened = time.monotonic()
            while self._is_away or not self._listens(put):
                if not self._reopens():
                    break
            if self._is_closed:
                self._listener.close()
        except BaseException as error:
            with self._changed:
                self._failure = error

    def _listens(self, put: Put) -> bool:
        """Hear what comes; return True at the end, False if the recogniser has failed."""
        try:
            while block := self._next():
                for phrase in self._hear(*block):
                    put(phrase)
            self._began = time.monotonic()
            for phrase in self._listener.finish():
                put(phrase)
        except SourceLost as lost:
            with self._changed:
                self._is_away, self._fault = True, str(lost)
                self._shorten(0)
            return False
        finally:
            self._began = None
        return True

    def _next(self) -> tuple[Array, int] | None:
        with self._changed:
            while not self._waiting and not self._is_ending:
                self._changed.wait(1.0)
            return self._waiting.popleft() if self._waiting else None

    def _hear(self, block: Array, start: int) -> list[Phrase]:
        self._began = time.monotonic()
        phrases = self._listener.hear(block, start)
        self._heard += len(block)
        if self._lasts() > LIMIT:
            with self._changed:
                self._fault, self._heard = HUNG, 0
                self._shorten(FRESH)  # The rest would only be late.
        elif self._fault and self._heard >= PROOF * SAMPLE_RATE:
            self._fault = ""
        self._began = None
        return phrases

    def _reopens(self) -> bool:
        """Build the recogniser anew, after a pause; return False if all ends before."""
        if time.monotonic() - self._opened > LONGEST_PAUSE:
            self._pause = FIRST_PAUSE
        while self._pauses():
            try:
                self._listener.reopen()
            except SourceError as error:
                logger.info("the recogniser is still away: %s", error)
                continue
            self._opened = time.monotonic()
            with self._changed:
                self._is_away, self._heard = False, 0
            return True
        return False

    def _pauses(self) -> bool:
        pause = random.uniform(self._pause / 2, self._pause)
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        with self._changed:
            return not self._changed.wait_for(lambda: self._is_ending, pause)
