"""A witness keeps what comes, and finds in it what a measurement asks for."""

import json
import time
from collections.abc import Iterator
from threading import Event

from tamulag.streamer.bench.rig.probe import MessageProbe, has_score, is_back, is_lost


def line(kind: str, seq: int, **rest: object) -> str:
    return json.dumps({"type": kind, "seq": seq, **rest})


def kept(*lines: str) -> MessageProbe:
    witness = MessageProbe("test", lines)
    assert witness.join(5.0)
    return witness


def test_a_loss_is_found_when_it_comes() -> None:
    """`first` waits, and gives the message with the moment of its receipt."""
    go = Event()

    def lines() -> Iterator[str]:
        yield line("status", 1, lost={})
        assert go.wait(5.0)
        yield line("status", 2, lost={"mqtt": "publisher_lost"})

    witness = MessageProbe("test", lines())
    begin = time.monotonic()
    assert witness.first(is_lost("mqtt"), since=0.0, limit=0.1) is None
    go.set()
    found = witness.first(is_lost("mqtt"), since=begin, limit=5.0)
    assert found is not None
    assert found.message["seq"] == 2
    assert found.at > begin
    assert witness.join(5.0)


def test_what_is_back_is_not_taken_from_before() -> None:
    """A status of before the fault says nothing of its end."""
    witness = kept(line("status", 1, lost={}))
    assert witness.first(is_back("vision"), since=0.0, limit=0.1) is not None
    assert witness.first(is_back("vision"), since=time.monotonic(), limit=0.1) is None


def test_skipped_numbers_are_counted() -> None:
    """Heartbeats and greetings repeat a number and count for nothing."""
    score = {"modalities": {"audio": {"status": "ok"}}}
    numbers = [line("sentiment", k, **score) for k in (3, 4, 7)]
    witness = kept(line("hello", 1), *numbers, line("heartbeat", 9))
    assert witness.skipped(0.0, time.monotonic()) == 2
    assert witness.scores(0.0, time.monotonic()) == {3, 4, 7}
    assert witness.first(has_score("audio"), since=0.0, limit=0.1) is not None
