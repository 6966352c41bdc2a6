"""The AsyncAPI 3 document of both directions, outputs and ingest, for tools that read it.

Knows the schemas of both directions and their channels. Knows no connection.
"""

import re
from importlib import metadata
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter

from . import messages
from .ingest import FeaturesHeader, Header, PictureHeader, SenderHello, SoundHeader, WordsHeader

VERSION = "3.0.0"

_TOPICS = {
    "state": ("SentimentMessage",),
    "text": ("Text",),
    "event": ("Event", "Bound", "Problem"),
    "status": ("State",),
}
"""Last level of the MQTT topic -> messages published there."""

_PAYLOADS: dict[type[BaseModel], str] = {
    SoundHeader: "samples, pcm_s16le or mulaw",
    PictureHeader: "a JPEG file",
    WordsHeader: "none",
    FeaturesHeader: "rows of float32, little-endian",
}

Document = dict[str, Any]


def document() -> Document:
    """Return the AsyncAPI document as JSON-ready values."""
    sent = [kind.__name__ for kind in get_args(messages.AnyMessage)]
    received = [kind.__name__ for kind in _PAYLOADS]
    channels: Document = {
        "scores": _channel("/", "Everything as it happens", sent, "websocket"),
        "ingest": _channel(
            "/ingest", "Sound and pictures in", ["SenderHello", *received], "websocket"
        ),
    }
    for topic, kinds in _TOPICS.items():
        address = f"tamulag/v1/{{site}}/{{device}}/{topic}"
        channels[f"mqtt-{topic}"] = _channel(
            address, f"Retained: {topic == 'status'}", kinds, "mqtt"
        )
        channels[f"mqtt-{topic}"]["parameters"] = {"site": {}, "device": {}}
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "tamulag-stream",
            "version": metadata.version("tamulag-stream"),
            "description": "Live sentiment from face, voice and words.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "websocket": {"host": "127.0.0.1:8765", "protocol": "ws"},
            "mqtt": {"host": "localhost:1883", "protocol": "mqtt"},
        },
        "channels": channels,
        "operations": {name: _operation(name) for name in channels},
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


def _channel(
    address: str, about: str, kinds: "list[str] | tuple[str, ...]", server: str
) -> Document:
    return {
        "address": address,
        "description": about,
        "servers": [{"$ref": f"#/servers/{server}"}],
        "messages": {kind: {"$ref": f"#/components/messages/{kind}"} for kind in kinds},
    }


def _operation(channel: str) -> Document:
    """Return the program's action on a channel: it sends on all but one."""
    action = "receive" if channel == "ingest" else "send"
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}


def _messages() -> Document:
    texts: list[type[BaseModel]] = [*get_args(messages.AnyMessage), SenderHello]
    found: Document = {kind.__name__: _message(kind) for kind in texts}
    for header, payload in _PAYLOADS.items():
        found[header.__name__] = _message(header) | {
            "contentType": "application/octet-stream",
            "description": f"4 bytes of length, big-endian; this header as JSON; then {payload}.",
        }
    return found


def _message(kind: type[BaseModel]) -> Document:
    return {
        "name": kind.__name__,
        "summary": (kind.__doc__ or "").partition("\n")[0],
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
    }


def _schemas() -> Document:
    own = SenderHello.model_json_schema()
    sides: list[Document] = [messages.schema(), own, TypeAdapter(Header).json_schema()]
    found: Document = {}
    for side in sides:
        found |= side.pop("$defs", {})
    moved: Document = _moved(found | {"SenderHello": own})
    return moved


def _moved(node: Any) -> Any:
    """Return a schema whose references point to AsyncAPI's place for schemas."""
    if isinstance(node, dict):
        return {key: _moved(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_moved(value) for value in node]
    if isinstance(node, str):
        return re.sub(r"^#/\$defs/", "#/components/schemas/", node)
    return node
