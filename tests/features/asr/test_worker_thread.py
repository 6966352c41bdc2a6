"""A recogniser that fails or hangs: only the words are lost, and they come back."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from tamulag.streamer.aio import backoff
from tamulag.streamer.bench.rig.processes import wait_for
from tamulag.streamer.core.sample import Array, Input, Notice, Phrase
from tamulag.streamer.core.source import SourceError, SourceLost
from tamulag.streamer.features.asr import worker_thread
from tamulag.streamer.features.asr.worker_thread import RecogniserThread

BLOCK = np.zeros(3200, np.float32)
STEP = len(BLOCK)


class Frail:
    """Recogniser that fails while it is ill, and stands still at a gate."""

    partials = True

    def __init__(self) -> None:
        self.is_ill = False
        self.cures = 0  # attempts to build it anew that fail
        self.heard: list[int] = []
        self.reopened = self.closed = 0
        self.gate = threading.Event()
        self.gate.set()

    def push(self, block: Array, start: int, /) -> list[Phrase]:
        assert self.gate.wait(10.0)
        if self.is_ill:
            raise SourceLost("asr_lost", "the engine broke")
        self.heard.append(start)
        return []

    def finish(self) -> list[Phrase]:
        if self.is_ill:
            raise SourceLost("asr_lost", "the engine broke")
        return []

    def reopen(self) -> None:
        self.reopened += 1
        if self.reopened < self.cures:
            raise SourceError("no weights yet")
        self.is_ill = False

    def close(self) -> None:
        self.closed += 1


class Speech:
    """Sound without end for a hearing, and what comes of it."""

    def __init__(self, listener: Frail) -> None:
        self.hearing = RecogniserThread(listener)
        self.got: list[Input] = []
        self.at = 0

    def push(self, blocks: int = 1) -> None:
        for _ in range(blocks):
            self.hearing.push(BLOCK, self.at, self.got.append)
            self.at += STEP

    def until_told(self, count: int) -> list[str | None]:
        """Go on until so many notices are there, and return their reasons."""
        limit = time.monotonic() + 10.0
        while len(self.got) < count:
            assert time.monotonic() < limit, f"{len(self.got)} of {count} notices in 10 s"
            self.push()
            time.sleep(0.01)
        assert all(isinstance(item, Notice) and item.modality == "text" for item in self.got)
        return [item.reason for item in self.got if isinstance(item, Notice)]


@pytest.fixture
def frail() -> Frail:
    return Frail()


@pytest.fixture
def speech(frail: Frail, monkeypatch: pytest.MonkeyPatch) -> Iterator[Speech]:
    """Speak to a recogniser that is built anew, and given up, sooner than in real life."""
    monkeypatch.setattr(backoff, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(worker_thread, "CALL_LIMIT", 0.2)
    monkeypatch.setattr(worker_thread, "DOUBTFUL_CALL", 0.1)
    made = Speech(frail)
    yield made
    frail.gate.set()
    made.hearing.close()
    wait_for(lambda: not made.hearing.is_working, 5.0, "its thread ends")


def test_one_that_fails_is_rebuilt(frail: Frail, speech: Speech) -> None:
    """Its loss is told with what it said, its return when it hears again."""
    frail.is_ill, frail.cures = True, 3
    assert speech.until_told(2) == ["asr_lost", None]
    lost = speech.got[0]
    assert isinstance(lost, Notice)
    assert lost.detail == "the engine broke"
    assert 0 < lost.timestamp <= speech.at / 16000
    assert frail.reopened == 3


def test_it_is_back_only_after_proof(frail: Frail, speech: Speech) -> None:
    """An engine that can be built but fails again stays lost, and is not told twice."""
    frail.is_ill = True
    assert speech.until_told(1) == ["asr_lost"]
    reopen = frail.reopen

    def still_ill() -> None:
        reopen()
        frail.is_ill = frail.reopened < 3

    frail.reopen = still_ill  # type: ignore[method-assign]
    assert speech.until_told(2) == ["asr_lost", None]
    assert frail.reopened == 3


def test_what_it_missed_is_counted(frail: Frail, speech: Speech) -> None:
    """Sound that comes while it is away is dropped: no machine is too slow then."""
    frail.is_ill, frail.cures = True, 1000
    speech.until_told(1)
    before = speech.hearing.dropped
    speech.push(20)
    assert speech.hearing.dropped == before + 20 * STEP
    assert speech.hearing.waiting == 0.0


def test_one_that_hangs_is_found(frail: Frail, speech: Speech) -> None:
    """A call that lasts too long is told as a loss, and its queue is no strain; then it is back."""
    frail.gate.clear()
    speech.push(5)
    assert speech.hearing.waiting > 0
    assert speech.until_told(1) == ["asr_lost"]
    assert speech.hearing.waiting == 0.0
    frail.gate.set()
    assert speech.until_told(2) == ["asr_lost", None]
    assert frail.reopened == 0


def test_one_that_is_slow_is_not_lost(frail: Frail, speech: Speech) -> None:
    """As long as each call ends in time its queue counts, however long it is."""
    frail.gate.clear()
    speech.push(20)
    assert speech.hearing.waiting > 3.0
    frail.gate.set()
    speech.hearing.finish(5.0)
    assert speech.got == []


def test_one_that_hangs_delays_no_end(frail: Frail, speech: Speech) -> None:
    """Its thread is left behind, and frees it if it ever returns."""
    frail.gate.clear()
    speech.until_told(1)
    began = time.monotonic()
    speech.hearing.finish(5.0)
    assert time.monotonic() - began < 1.0
    speech.hearing.close()
    assert frail.closed == 0, "its thread still works in it"
    frail.gate.set()
    wait_for(lambda: frail.closed == 1, 5.0, "it is freed")


def test_one_that_hung_works_in_the_next_run(frail: Frail, speech: Speech) -> None:
    """The thread that was left behind goes on; there is never a second one."""
    frail.gate.clear()
    speech.until_told(1)
    speech.hearing.finish(5.0)
    speech.push(3)
    assert [thread.name for thread in threading.enumerate()].count("tamulag.asr") == 1
    frail.gate.set()
    assert speech.until_told(3) == ["asr_lost", "asr_lost", None]
    assert frail.heard[-1] > 2 * STEP


def test_a_loss_is_reported_again_to_the_next_run(frail: Frail, speech: Speech) -> None:
    """The supervisor has reported all of the source as back meanwhile."""
    frail.is_ill, frail.cures = True, 1000
    speech.until_told(1)
    speech.hearing.finish(5.0)
    assert speech.until_told(2) == ["asr_lost", "asr_lost"]


def test_a_failure_at_the_end_ends_no_source(frail: Frail, speech: Speech) -> None:
    """The last words are lost, nothing more."""
    speech.push(3)
    frail.is_ill = True
    speech.hearing.finish(5.0)
    assert not speech.hearing.is_working


def test_a_bug_is_not_hidden(frail: Frail, speech: Speech) -> None:
    """Also one in building it anew is raised in the source's thread."""

    def fail() -> None:
        raise TypeError("a bug")

    frail.is_ill = True
    frail.reopen = fail  # type: ignore[method-assign]
    with pytest.raises(TypeError, match="a bug"):
        speech.until_told(3)
    with pytest.raises(TypeError, match="a bug"):
        speech.hearing.finish(5.0)
