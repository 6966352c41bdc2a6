"""A past session as a list and a person see it."""

import json
import time

import pytest

from support.past_sessions import EPOCH, end, hello, score
from tamulag.streamer.storage.history_db import Past
from tamulag.streamer.storage.history_view import item, row, told

PAST = Past(
    id="k7",
    started=EPOCH,
    ended=EPOCH + 83.0,
    seconds=83.004,
    mean_sentiment=-0.25,
    reason=None,
    hello=json.loads(hello()),
)


def test_an_item_is_plain_json() -> None:
    """Times are in UTC."""
    shown = json.loads(json.dumps(item(PAST)))
    assert shown["started"] == "2026-11-24T06:00:00.000Z"
    assert (shown["seconds"], shown["mean_sentiment"]) == (83.0, -0.25)


def test_a_row_is_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Local time, minutes, and a session without an end says so."""
    monkeypatch.setenv("TZ", "UTC-1")
    time.tzset()
    try:
        cells = row(PAST)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert cells == ("k7", "2026-11-24 07:00:00", "1:23", "-0.25", "customer", "no end")


def test_a_session_is_told_as_the_terminal_told_it() -> None:
    """Who it was about first, then a line per score and the end."""
    lines = list(told(PAST, [score(3), end(4)]))
    assert lines[0] == "session k7, 2026-11-24T06:00:00.000Z: script"
    assert "+1.00 positive" in lines[2]
    assert "session ended (stopped)" in lines[3]
