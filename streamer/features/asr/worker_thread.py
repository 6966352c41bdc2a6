"""Run a recogniser in its own thread: bounded queue, detection of failures and hangs, restart.

Knows blocks, sample counts and the duration of a call. Knows no device, no file and no words.
"""

import logging
import threading
import time
from collections import deque
from typing import Protocol

from ...aio.backoff import Backoff
from ...core.sample import SAMPLE_RATE, Array, Notice, Phrase
from ...core.source import Put, SourceError, SourceLost

logger = logging.getLogger("tamulag.asr")

BACKLOG = 5 * SAMPLE_RATE
"""Samples that may be queued for the recogniser."""

RESUME_SAMPLES = SAMPLE_RATE
"""Samples of the queue that a recogniser resumes with after a hang."""

DOUBTFUL_CALL = 3.0
"""Seconds of one call after which the queue is no sign of a slow machine any more."""

CALL_LIMIT = 8.0
"""Seconds of one call after which the recogniser counts as lost: on two cores shared by eight
programs Moonshine took 6 s for a step of a line of 25 s."""

HUNG = (
    f"the recogniser does not answer for {CALL_LIMIT:g} s: "
    'restart if it stays, or use --asr none (asr="none")'
)

PROOF_SECONDS = 1.5
"""Seconds of sound that a lost recogniser must accept before it counts as back: less may only have
been buffered."""

REASON = "asr_lost"

_END_LIMIT = 2.0


class PhraseExtractor(Protocol):
    """Turns sound into phrases; detects missing sound by `start`."""

    partials: bool
    """False: only finals are wanted, to save work; may be set from any thread."""

    def push(self, block: Array, start: int, /) -> list[Phrase]:
        """Return the phrases that a block completes or changes.

        Args:
            block: Shape (n,), float32 mono at 16 kHz in [-1, 1].
            start: Index of its first sample on the session clock.
        """

    def finish(self) -> list[Phrase]:
        """End the current utterance; `push` may follow."""

    def reopen(self) -> None:
        """Rebuild the engine after a failure; an open utterance is not continued.

        Raises:
            SourceError: If it cannot be built now.
        """

    def close(self) -> None:
        """Release it; may be called twice."""


class RecogniserThread:
    """A recogniser in its own thread, behind a queue of 5 s that drops its oldest blocks.

    After a failure (`SourceLost`) it is rebuilt after 0.5 s, then after up to 4 s, each pause drawn
    from its upper half. A call that does not return is awaited, not killed. In both cases `text` is
    reported as lost, and as restored once sound is recognised again; `push` and `finish` put these
    notices, in the source's own thread, and raise any other error (a bug).

    Args:
        recogniser: The recogniser.

    Attributes:
        dropped: Samples that never reached the recogniser.
    """

    def __init__(self, recogniser: PhraseExtractor) -> None:
        self.dropped = 0
        self._recogniser = recogniser
        self._waiting: deque[tuple[Array, int]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_ending = self._is_closed = False
        self._is_away = False  # failed and not rebuilt yet
        self._fault = ""  # what was wrong, until sound is recognised again
        self._is_reported = False
        self._accepted = 0  # samples since the fault
        self._began: float | None = None  # start of the present call
        self._backoff = Backoff()
        self._failure: BaseException | None = None

    @property
    def is_working(self) -> bool:
        """Whether its thread uses the recogniser, or may do so."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def waiting(self) -> float:
        """Seconds of sound queued; 0 while it is lost or in doubt: shedding work would not help."""
        with self._changed:
            if self._fault or self._lasts() > DOUBTFUL_CALL:
                return 0.0
            return sum(len(block) for block, _ in self._waiting) / SAMPLE_RATE

    def push(self, block: Array, start: int, put: Put) -> None:
        """Queue a block; the first one starts the thread; see `AudioPipeline.push`."""
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
        self._report((start + len(block)) / SAMPLE_RATE, put)

    def finish(self, limit: float) -> None:
        """End the thread within `limit` seconds plus 2 s; what is still queued then is dropped.

        A thread that hangs is abandoned, and resumes with what `push` brings if it ever returns.
        """
        thread = self._thread
        if thread is None:
            return
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        is_stuck = self._lasts() > DOUBTFUL_CALL
        thread.join(0.0 if is_stuck else limit)
        with self._changed:
            self._shorten(0)
        thread.join(0.0 if is_stuck else _END_LIMIT)
        self._is_ending = self._is_closed
        if self._fault and not self._is_reported:
            logger.warning("%s", self._fault)
        # The supervisor reports the end of the source as a loss of `text` too: report ours again.
        self._is_reported = False
        if thread.is_alive():
            logger.warning("the recogniser does not answer: its thread is left behind")
        self._check()

    def close(self) -> None:
        """Release the recogniser; while its thread is inside it, the thread does so at its end."""
        with self._changed:
            self._is_closed = self._is_ending = True
            self._changed.notify()
        if not self.is_working:
            self._recogniser.close()

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

    def _report(self, at: float, put: Put) -> None:
        fault = self._fault or (HUNG if self._lasts() > CALL_LIMIT else "")
        if bool(fault) == self._is_reported:
            return
        self._is_reported = bool(fault)
        detail = fault or "the recogniser works again"
        logger.warning("%s", detail)
        put(Notice(at, "text", REASON if fault else None, detail))

    def _run(self, put: Put) -> None:
        try:
            self._backoff.opened()
            while self._is_away or not self._recognises(put):
                if not self._is_reopened():
                    break
            if self._is_closed:
                self._recogniser.close()
        except BaseException as error:
            with self._changed:
                self._failure = error

    def _recognises(self, put: Put) -> bool:
        """Process the queue; return True at the end, False if the recogniser has failed."""
        try:
            while block := self._next():
                for phrase in self._recognise(*block):
                    put(phrase)
            self._began = time.monotonic()
            for phrase in self._recogniser.finish():
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

    def _recognise(self, block: Array, start: int) -> list[Phrase]:
        self._began = time.monotonic()
        phrases = self._recogniser.push(block, start)
        self._accepted += len(block)
        if self._lasts() > CALL_LIMIT:
            with self._changed:
                self._fault, self._accepted = HUNG, 0
                self._shorten(RESUME_SAMPLES)  # The rest would only be late.
        elif self._fault and self._accepted >= PROOF_SECONDS * SAMPLE_RATE:
            self._fault = ""
        self._began = None
        return phrases

    def _is_reopened(self) -> bool:
        """Rebuild the recogniser after a pause; return False if it is to end before."""
        while self._pauses():
            try:
                self._recogniser.reopen()
            except SourceError as error:
                logger.info("the recogniser is still away: %s", error)
                continue
            self._backoff.opened()
            with self._changed:
                self._is_away, self._accepted = False, 0
            return True
        return False

    def _pauses(self) -> bool:
        pause = self._backoff.next()
        with self._changed:
            return not self._changed.wait_for(lambda: self._is_ending, pause)
