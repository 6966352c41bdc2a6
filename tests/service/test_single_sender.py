"""Who may send to `tamulag-stream --ingest`, and which source takes what."""

import asyncio
from typing import cast

import pytest

from support.capture_server import IdlePipeline
from tamulag.streamer.config.loader import ConfigError, load
from tamulag.streamer.protocol.ingest import (
    Frame,
    Header,
    IngestError,
    PictureForm,
    PictureHeader,
    PlacedFrame,
    SenderHello,
    SoundForm,
    SoundHeader,
)
from tamulag.streamer.service.single_sender import SingleSender
from tamulag.streamer.webserver.connection import Connection

HELLO = SenderHello(
    audio=SoundForm(encoding="pcm_s16le", rate=16000), vision=PictureForm(encoding="jpeg")
)


def single(*, takes_words: bool = True) -> SingleSender:
    return SingleSender(
        voice=IdlePipeline("text", "audio"),
        face=IdlePipeline("vision"),
        takes_words=takes_words,
        now=lambda: 0.0,
    )


def admit(sender: SingleSender, hello: SenderHello = HELLO) -> SingleSender:
    return sender.admit(hello, cast(Connection, None))


def queued(sender: SingleSender) -> tuple[float, float]:
    """Return how much waits for the voice and for the face."""
    voice, face = sender.sources
    return voice.gauges()["ingest_audio_waiting"], face.gauges()["ingest_vision_waiting"]


def feed(sender: SingleSender, header: Header) -> None:
    asyncio.run(sender.feed(PlacedFrame(Frame(header), 0.0)))


def test_frames_reach_their_source() -> None:
    """Sound waits for the voice and pictures for the face, behind the start of the sender."""
    sender = admit(single())
    sender.begin()
    for _ in range(3):
        feed(sender, SoundHeader(timestamp=0))
    feed(sender, PictureHeader(timestamp=0))
    assert queued(sender) == (4.0, 2.0)


def test_one_sender_at_a_time() -> None:
    """The second should try later; after the first has left it is admitted."""
    sender = admit(single())
    with pytest.raises(IngestError, match="somebody else is sending") as refused:
        admit(sender)
    assert refused.value.code == 1013
    sender.detach("the sender has left")
    assert queued(sender) == (1.0, 1.0)
    admit(sender)


def test_a_backlog_of_an_earlier_sender_refuses_the_next() -> None:
    """The face may have two pictures queued, and has the ends of three senders."""
    sender = single()
    for _ in range(3):
        admit(sender).detach("the sender has left")
    with pytest.raises(IngestError, match="somebody else is sending"):
        admit(sender)


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (HELLO.model_copy(update={"words": True}), "--asr none"),
        (HELLO.model_copy(update={"clock": "sender"}), "are for `tamulag serve`"),
        (HELLO.model_copy(update={"session": "a"}), "are for `tamulag serve`"),
        (HELLO.model_copy(update={"resume": "a"}), "are for `tamulag serve`"),
    ],
    ids=["words twice", "clock", "session", "resume"],
)
def test_a_hello_that_asks_for_more_is_refused(hello: SenderHello, reason: str) -> None:
    """The place stays free for another sender."""
    sender = single(takes_words=False)
    with pytest.raises(IngestError, match=reason) as refused:
        admit(sender, hello)
    assert refused.value.code == 1008
    admit(sender)


@pytest.mark.parametrize(
    "other", [{"camera.device": 0}, {"source.path": "x.mp4"}, {"websocket.enabled": False}]
)
def test_settings_name_what_does_not_go_with_a_sender(other: dict[str, object]) -> None:
    """A device or file would fill the same modalities, and without a port no sender can connect."""
    (key,) = other
    with pytest.raises(ConfigError, match=rf"ingest.enabled = true: .*{key}"):
        load(None, {"ingest.enabled": True, **other})
