"""Pauses grow from half a second to four, are drawn from a range, and start again after a while."""

import time

import pytest

from tamulag.streamer.aio.backoff import Backoff


def test_pauses_double_up_to_a_limit() -> None:
    """Each is at least half of its longest, so that programs do not come back together."""
    backoff = Backoff()
    pauses = [backoff.next() for _ in range(6)]
    for pause, longest in zip(pauses, (0.5, 1.0, 2.0, 4.0, 4.0, 4.0), strict=True):
        assert longest / 2 <= pause <= longest


def test_what_was_open_for_long_starts_with_a_short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is lost again at once does not."""
    backoff, now = Backoff(least=1.0), 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert [backoff.next(), backoff.next()] == [0.5, 1.0]
    backoff.opened()
    assert backoff.next() == 2.0
    backoff.opened()
    now += 10.0
    assert backoff.next() == 0.5
