"""One session's messages."""

import json

import numpy as np

from support.recordings import ABOUT
from tamulag.streamer.core.sample import Notice, Phrase, Word
from tamulag.streamer.protocol.session_messages import SessionMessages


def messages_into(said: list[dict[str, object]]) -> SessionMessages:
    def send(kind: str, line: str) -> None:
        said.append(json.loads(line))
        assert said[-1]["type"] == kind

    return SessionMessages("x", ABOUT, wall_now=lambda: 0.0, send=send, seq=6)


def test_numbers_rise_by_one() -> None:
    """Also where they go on from an earlier server."""
    said: list[dict[str, object]] = []
    one = messages_into(said)
    one.begin(0.0)
    one.end(1.0, "end")
    assert [(s["type"], s["seq"]) for s in said] == [
        ("session_start", 7),
        ("status", 8),
        ("session_end", 9),
    ]


def test_a_loss_degrades_and_a_return_mends() -> None:
    """Each is an event and a status."""
    said: list[dict[str, object]] = []
    one = messages_into(said)
    one.notice(Notice(1.0, "vision", "camera_lost", "unplugged"))
    one.notice(Notice(2.0, "vision", None, "back"))
    assert [s.get("event") or s.get("state") for s in said] == [
        "source_lost",
        "degraded",
        "source_back",
        "online",
    ]
    assert said[1]["lost"] == {"vision": "camera_lost"}


def test_words_are_published() -> None:
    """As a text message of the session."""
    said: list[dict[str, object]] = []
    values = np.zeros((1, 3), np.float32)
    messages_into(said).words(Phrase(1.0, 4, (Word("hello", 0.5, 0.9),), values, (0,), True))
    assert (said[0]["type"], said[0]["utterance"], said[0]["session"]) == ("text", 4, "x")
