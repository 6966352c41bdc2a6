"""The sources and outputs of an `Agent`, as values.

Knows which keys of the settings each of them is. Opens nothing and imports no device.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Settings = dict[str, object]
"""Values by dotted key, e.g. `{"camera.device": 0}`."""


@dataclass(frozen=True)
class Camera:
    """A camera: the face.

    Args:
        device: Index from 0, device path, or URL of a network camera.
        latency: Age of a picture when it arrives, in seconds, from -1 to 5.
    """

    device: int | str
    latency: float = 0.0

    def settings(self) -> Settings:
        """Return its keys and values."""
        return _table("camera", self)


@dataclass(frozen=True)
class Microphone:
    """A microphone: the voice, and the words where speech is recognised.

    Args:
        device: Index, part of a name, or `default`.
        latency: Age of a block of sound when it arrives, in seconds, from -1 to 5.
    """

    device: int | str = "default"
    latency: float = 0.0

    def settings(self) -> Settings:
        """Return its keys and values."""
        return _table("microphone", self)


@dataclass(frozen=True)
class MediaFile:
    """A media file or network stream, in place of camera and microphone.

    Args:
        path: File or URL.
        speed: 1 plays it as it was recorded; `max` as fast as it can be scored, without a loss.
        loop: Whether it begins again at its end.
        still: A picture in place of the file's own, for sound without pictures.
    """

    path: str | Path
    speed: Literal[1, "max"] = 1
    loop: bool = False
    still: str | Path | None = None

    def settings(self) -> Settings:
        """Return its keys and values."""
        return _table("source", self)


@dataclass(frozen=True)
class RemoteSender:
    """A page or program that sends sound and pictures to the `WebSocket` output's port."""

    def settings(self) -> Settings:
        """Return its keys and values."""
        return {"ingest.enabled": True}


@dataclass(frozen=True)
class WebSocket:
    """Messages for browsers and programs that connect to us, and the dashboard.

    Args:
        host: Address to listen on; any but loopback needs a token or client certificates.
        port: 0 takes a free one.
        origins: Web pages that may connect, e.g. `http://localhost:8000`.
        token_file: File with the secrets that clients must show, and their rights.
        certificate: PEM file of our certificate with its chain, for TLS.
        key: PEM file of its key; None: in the same file.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    origins: Sequence[str] = ()
    token_file: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None

    def settings(self) -> Settings:
        """Return its keys and values."""
        return {"websocket.enabled": True} | _table("websocket", self)


@dataclass(frozen=True)
class Mqtt:
    """Messages for an MQTT broker, below `tamulag/v1/SITE/DEVICE/`.

    Args:
        url: `mqtt://HOST[:PORT]`, or `mqtts://` for TLS.
        site: First level of the topic.
        device: Second level of the topic.
        user: User name at the broker.
        password_file: File with the password of that user.
        discovery: Whether Home Assistant finds the device.
    """

    url: str
    site: str = "site"
    device: str = "device"
    user: str | None = None
    password_file: str | Path | None = None
    discovery: bool = False

    def settings(self) -> Settings:
        """Return its keys and values."""
        table = _table("mqtt", self)
        topic = {f"session.{level}": table.pop(f"mqtt.{level}") for level in ("site", "device")}
        return table | topic


@dataclass(frozen=True)
class JsonLines:
    """Messages as lines of a file.

    Args:
        path: Appended to; `-` is the standard output.
    """

    path: str | Path

    def settings(self) -> Settings:
        """Return its keys and values."""
        return _table("jsonl", self)


AgentSource = Camera | Microphone | MediaFile | RemoteSender
AgentOutput = WebSocket | Mqtt | JsonLines


def _table(name: str, part: AgentSource | AgentOutput) -> Settings:
    """Return a part's fields as keys of one table; a path is text there."""
    return {
        f"{name}.{key}": str(value) if isinstance(value, Path) else value
        for key, value in asdict(part).items()
    }
