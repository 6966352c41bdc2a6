"""The live table, on a real terminal of the system and as text."""

import asyncio
import io
import os
import pty
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import pytest
from rich.console import Console

from support.past_sessions import EPOCH, MISSING, end, score
from tamulag.streamer.protocol import messages
from tamulag.streamer.publishers.publisher import PublisherError
from tamulag.streamer.publishers.terminal_table import WIDTH, TableModel, TablePublisher, scale

HEAD: dict[str, Any] = {"session": "k7", "seq": 3, "time": messages.utc(EPOCH)}


def drawn(*lines: str, width: int = 100) -> str:
    """Return what the table shows after some messages, as text."""
    table = TableModel()
    for line in lines:
        table.update(messages.decode(line))
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table.render())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def status(state: messages.StateWord, **lost: str) -> str:
    return messages.encode(messages.State(state=state, lost=lost, **HEAD))


def spoken(words: str, tail: str = "", utterance: int = 1) -> str:
    return messages.encode(
        messages.Text(
            utterance=utterance,
            words=[messages.SpokenWord(text=word, start=0, end=1) for word in words.split()],
            tail=tail,
            final=False,
            **HEAD,
        )
    )


def test_each_modality_has_its_row() -> None:
    """Score, share, status and why."""
    rows = drawn(score(20, 0.84, vision=MISSING)).splitlines()
    assert [row.split() for row in rows if row.startswith(("text", "audio", "vision"))] == [
        ["text", "+0.50", "50%", "ok"],
        ["audio", "+0.50", "50%", "ok"],
        ["vision", "0%", "missing", "(no", "face)"],
    ]


@pytest.mark.parametrize(("sentiment", "column"), [(-3.0, 0), (0.0, WIDTH // 2), (3.0, WIDTH - 1)])
def test_the_score_stands_on_its_place_of_the_scale(sentiment: float, column: int) -> None:
    """From one end to the other."""
    sent = messages.decode(score(1, sentiment, interval=None))
    assert isinstance(sent, messages.SentimentMessage)
    assert scale(sent).plain.index("●") == column


def test_the_interval_is_a_thicker_line() -> None:
    """As long as it is wide: here a third of the scale."""
    sent = messages.decode(score(1, 1.0, interval=(0.0, 2.0)))
    assert isinstance(sent, messages.SentimentMessage)
    assert scale(sent).plain.count("━") + 1 == WIDTH // 3 + 1


def test_an_empty_room_has_no_score() -> None:
    """And no point on the scale."""
    text = drawn(score(2, None))
    assert "none" in text
    assert "●" not in text


def test_what_is_lost_is_shown_with_its_reason() -> None:
    """Beside the state, until it is back."""
    assert "degraded  vision (camera lost)" in drawn(status("degraded", vision="camera_lost"))
    assert "camera" not in drawn(status("degraded", vision="camera_lost"), status("online"))


def test_words_are_replaced_by_a_later_message_of_their_utterance() -> None:
    """Also the tail that is not sure yet."""
    text = drawn(spoken("that is", "grate"), spoken("that is great"), score(3))
    assert "that is great" in text
    assert "grate" not in text


def test_costs_and_the_end_are_shown() -> None:
    """Latency, losses, and why it ended."""
    text = drawn(score(2), end(3))
    assert "latency 0.31 s" in text
    assert "dropped text 0" in text
    assert "session ended (stopped)" in text


@contextmanager
def terminal() -> Iterator[tuple[TextIO, list[bytes]]]:
    """Give a terminal of the system, and what was written to it."""
    ours, theirs = pty.openpty()
    got: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(ours, 65536):
                got.append(data)
        except OSError:
            return

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(theirs, "w", encoding="utf-8") as out:
        yield out, got
    reader.join(5)
    os.close(ours)
    assert not reader.is_alive()


def publish(out: TextIO, *lines: str) -> None:
    async def scenario() -> None:
        screen = TablePublisher(out, lambda: "tamulag-stream [9.9]")
        await screen.open()
        for line in lines:
            screen.publish(messages.decode(line).type, line)
        await screen.close()

    asyncio.run(scenario())


def test_the_table_is_drawn_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor is hidden, goes up for the second drawing, and is given back at the end."""
    monkeypatch.setenv("TERM", "xterm")
    with terminal() as (out, got):
        publish(out, score(1, -1.0), end(2))
    text = b"".join(got).decode()
    assert text.startswith("tamulag-stream [9.9]")
    assert text.index("\x1b[?25l") < text.index("\x1b[1A") < text.rindex("\x1b[?25h")
    assert "session ended" in text


def test_a_terminal_that_is_gone_is_reported() -> None:
    """`run` raises, and what did not reach it is counted."""

    async def scenario(out: TextIO) -> int:
        screen = TablePublisher(out)
        await screen.open()
        for line in (score(1), score(2)):
            screen.publish("sentiment", line)
        async with asyncio.timeout(5):
            with pytest.raises(PublisherError, match="elsewhere"):
                await screen.run()
        await screen.close()
        return screen.dropped

    ours, theirs = pty.openpty()
    os.close(ours)
    with os.fdopen(theirs, "w", encoding="utf-8") as out:
        assert asyncio.run(scenario(out)) >= 1


def test_a_stopped_terminal_holds_up_nobody() -> None:
    """Nothing more is drawn while it does not take what was drawn; closing is bounded."""

    async def scenario(out: TextIO) -> int:
        screen = TablePublisher(out)
        await screen.open()
        for number in range(200):
            screen.publish("sentiment", score(number + 1))
            await asyncio.sleep(0.001)
        await screen.close()
        return screen.dropped

    ours, theirs = pty.openpty()
    termios.tcflow(theirs, termios.TCOOFF)
    start = time.monotonic()
    with os.fdopen(theirs, "w", encoding="utf-8") as out:
        assert asyncio.run(scenario(out)) >= 1
        assert time.monotonic() - start < 5
        termios.tcflow(theirs, termios.TCOON)
    os.close(ours)
