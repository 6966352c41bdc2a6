"""Sources and outputs as values: each is some keys of the settings."""

from pathlib import Path

import pytest

from tamulag.streamer.app.agent_parts import (
    AgentOutput,
    AgentSource,
    Camera,
    JsonLines,
    MediaFile,
    Microphone,
    Mqtt,
    RemoteSender,
    WebSocket,
)
from tamulag.streamer.config.loader import Config, load


def config(*parts: AgentSource | AgentOutput) -> Config:
    return load(None, {key: value for part in parts for key, value in part.settings().items()})


def test_devices() -> None:
    """A camera and a microphone together."""
    made = config(Camera("http://cam/", latency=0.2), Microphone())
    assert (made.camera.device, made.camera.latency) == ("http://cam/", 0.2)
    assert made.microphone.device == "default"


@pytest.mark.parametrize("path", ["talk.mp4", Path("talk.mp4")])
def test_media_file(path: str | Path) -> None:
    """Text or path; the pace is the number 1 or `max`."""
    assert config(MediaFile(path)).source.speed == "1"
    made = config(MediaFile(path, speed="max", still=path)).source
    assert (made.path, made.speed, made.still) == ("talk.mp4", "max", "talk.mp4")


def test_remote_sender() -> None:
    """It sends to the port of the WebSocket output."""
    made = config(RemoteSender(), WebSocket(port=0))
    assert made.ingest.enabled
    assert made.websocket.port == 0


def test_outputs() -> None:
    """Site and device of the broker's topic belong to the session."""
    made = config(
        WebSocket(origins=["http://a"], token_file=Path("t")),
        Mqtt("mqtt://broker", site="lab", device="k7", discovery=True),
        JsonLines(Path("scores.jsonl")),
    )
    assert (made.websocket.origins, made.websocket.token_file) == (("http://a",), "t")
    assert (made.mqtt.url, made.session.site, made.session.device) == (
        *("mqtt://broker", "lab", "k7"),
    )
    assert made.mqtt.discovery
    assert made.jsonl.path == "scores.jsonl"
