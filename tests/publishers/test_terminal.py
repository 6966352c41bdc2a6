"""What a person reads: a line per score, event and change of state."""

import asyncio
import fcntl
import os
import time
from pathlib import Path
from typing import Any, TextIO

import pytest

from tamulag.streamer.core.trend import label_of
from tamulag.streamer.protocol import messages
from tamulag.streamer.protocol.messages import AnyMessage, Modality
from tamulag.streamer.publishers.terminal import QUEUE, TerminalPublisher, line

HEAD: dict[str, Any] = {"session": "k7", "seq": 3, "time": "2026-11-24T02:13:49.120Z"}
OFF = Modality(sentiment=None, weight=0.0, status="off", reason=None)


def score(sentiment: float | None = 0.84, **change: object) -> messages.SentimentMessage:
    parts = {
        "text": Modality(sentiment=1.2, weight=0.5, status="ok"),
        "audio": Modality(sentiment=-0.4, weight=0.3, status="stale", reason="silence"),
        "vision": Modality(sentiment=0.06, weight=0.2, status="ok"),
    }
    attended = [("great", 13.2, 0.4), ("so", 12.8, 0.3), ("not", 12.1, 0.1)]
    return messages.SentimentMessage(
        window=messages.Window(start=11.0, end=16.0, warmup=False),
        sentiment=sentiment,
        interval=None,
        valence=None,
        label=None if sentiment is None else label_of(sentiment),
        modalities=messages.Modalities(**(parts | change)),
        conflict=None,
        attention=messages.Attention(text=attended),
        latency=messages.Latency(align=None, features=None, model=0.001, total=None),
        dropped={},
        **HEAD,
    )


def words(text: str) -> str:
    """Return the text with single spaces, as columns are of no interest here."""
    return " ".join(text.split())


def test_score_shows_time_total_label_modalities_and_words() -> None:
    """The attended words stand in the order in which they were spoken."""
    assert words(line(score())) == (
        "16.0 s +0.84 positive text +1.20 ok audio -0.40 stale vision +0.06 ok not so great"
    )


def test_missing_modality_has_a_reason() -> None:
    """The reason is in words, not in identifiers."""
    lost = Modality(sentiment=None, weight=0.0, status="missing", reason="camera_lost")
    assert "vision missing (camera lost)" in line(score(vision=lost))


def test_modality_that_is_off_has_no_detail() -> None:
    """Off needs no reason."""
    assert "audio off vision" in words(line(score(audio=OFF)))


def test_no_score_is_shown_as_none() -> None:
    """An empty room is not a zero."""
    assert words(line(score(None))).startswith("16.0 s none text")


def test_columns_of_scores_stand_under_each_other() -> None:
    """Sign and length of the numbers do not move the columns."""
    lines = [line(score(value)) for value in (0.84, -2.5, None)]
    assert len({text.index("text") for text in lines}) == 1


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        pytest.param(
            messages.Event(
                event="source_lost",
                modality="vision",
                reason="camera_lost",
                detail="camera 0: no frame for 2 s",
                at=3.5,
                **HEAD,
            ),
            "3.5 s vision source lost (camera lost): camera 0: no frame for 2 s",
            id="event",
        ),
        pytest.param(messages.State(state="online", **HEAD), "status: online", id="online"),
        pytest.param(
            messages.State(state="degraded", lost={"vision": "camera_lost"}, **HEAD),
            "status: degraded: vision (camera lost)",
            id="degraded",
        ),
        pytest.param(
            messages.Bound(type="session_end", at=9.5, reason="stopped", **HEAD),
            "9.5 s session ended (stopped)",
            id="end",
        ),
        pytest.param(messages.Bound(type="session_start", at=0.0, **HEAD), "", id="start"),
        pytest.param(messages.Heartbeat(**HEAD), "", id="heartbeat"),
    ],
)
def test_line_of_other_messages(sent: AnyMessage, text: str) -> None:
    """Events and states are told; what is for programs alone is not."""
    assert words(line(sent)) == text


def printed(out: TextIO, *lines: AnyMessage) -> TerminalPublisher:
    """Publish and close; return the publisher."""

    async def scenario() -> TerminalPublisher:
        publisher = TerminalPublisher(out)
        await publisher.open()
        for sent in lines:
            publisher.publish(sent.type, messages.encode(sent))
        await publisher.close()
        return publisher

    return asyncio.run(scenario())


def test_publisher_prints_a_line_per_message_of_interest(tmp_path: Path) -> None:
    """What is for programs alone leaves no empty line."""
    path = tmp_path / "out"
    with path.open("w", encoding="utf-8") as out:
        printed(out, score(), messages.Heartbeat(**HEAD), score(None))
    assert path.read_text(encoding="utf-8") == f"{line(score())}\n{line(score(None))}\n"


def test_reader_that_ended_stops_the_publisher() -> None:
    """The first failed write ends `run`, and nothing more is written."""

    async def publish(out: TextIO) -> int:
        publisher = TerminalPublisher(out)
        await publisher.open()
        for _ in range(3):
            publisher.publish("sentiment", messages.encode(score()))
        async with asyncio.timeout(5):
            with pytest.raises(BrokenPipeError):
                await publisher.run()
        await publisher.close()
        return publisher.dropped

    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as out:
        assert asyncio.run(publish(out)) == 3


def test_a_stopped_terminal_holds_up_nobody() -> None:
    """Of what it does not take the oldest lines go, counted; closing is bounded."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)  # less than the lines that may wait
    count = 3 * QUEUE
    start = time.monotonic()
    with os.fdopen(writer, "w", encoding="utf-8") as out:
        publisher = printed(out, *[score()] * count)
    assert time.monotonic() - start < 10
    with os.fdopen(reader, encoding="utf-8") as pipe:
        got = len(pipe.readlines())
    assert publisher.dropped >= QUEUE
    assert got + publisher.dropped in (count, count + 1)  # the line in the system's hands came late
