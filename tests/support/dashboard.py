"""The dashboard in a browser, before a real agent or a server of messages that a test makes."""

import json
import math
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, expect

from tamulag.streamer.bench.rig.processes import free_port
from tamulag.streamer.core.trend import label_of
from tamulag.streamer.webserver import dashboard
from tamulag.streamer.webserver.access_control import Access
from tamulag.streamer.webserver.connection import Limits
from tamulag.streamer.webserver.server import WebSocketPublisher

from .browser import Aside, complaints, opened
from .fork_server import Command

HOP = 0.5
START = 120_000
"""Milliseconds that the agent may take to load its models on a busy machine."""
MINUS = "\N{MINUS SIGN}"
TEXTS = 1.328
"""Messages of words for each score, and scores for each event, as a session with much talk had."""
EVENT = 100
PHRASE = 8
"""Words of an utterance; each message of it has one more, the last is final."""

HEAD = {"v": 1, "time": "2026-11-24T08:00:00.000Z", "subject": {"role": "customer", "id": None}}


def server(port: int = 0, session: str = "s", access: Access | None = None) -> WebSocketPublisher:
    """Return a server of the dashboard and of messages that a test makes."""
    return WebSocketPublisher(
        access,
        port,
        hello=lambda: json.dumps(hello(session)),
        missed=lambda count: json.dumps({**hello(session), "type": "missed", "missed": count}),
        routes=dashboard.routes(),
        limits=Limits(queue=20_000),
    )


def hello(session: str = "s") -> dict[str, Any]:
    """Return the first message."""
    return {
        **HEAD,
        "type": "hello",
        "session": session,
        "seq": 0,
        "version": "0.1.0",
        "checkpoint": "default",
        "heads": {},
        "modalities": ["text", "audio", "vision"],
        "sources": ["source clip.mp4"],
        "window": 5.0,
        "hop": HOP,
        "lateness": 0.3,
        "epoch": HEAD["time"],
    }


def score(
    index: int,
    sentiment: float = 0.5,
    session: str = "s",
    lost: dict[str, str] | None = None,
    attended: Sequence[object] = (),
) -> dict[str, Any]:
    """Return the score of a hop; the modalities are 0.4 around it, those in `lost` have none."""
    parts: dict[str, dict[str, Any]] = {}
    for name, off in (("text", 0.4), ("audio", -0.4), ("vision", 0.0)):
        value = max(-3.0, min(3.0, sentiment + off))
        parts[name] = {"sentiment": value, "weight": 0.333, "status": "ok", "age": 0.1}
        if lost and name in lost:
            parts[name] = {
                "sentiment": None,
                "weight": 0.0,
                "status": "missing",
                "reason": lost[name],
            }
    end = round((index + 1) * HOP, 2)
    return {
        **HEAD,
        "type": "sentiment",
        "session": session,
        "seq": index + 1,
        "window": {"start": max(0.0, end - 5), "end": end, "warmup": end < 5},
        "sentiment": sentiment,
        "interval": [max(-3.0, sentiment - 1), min(3.0, sentiment + 1)],
        "valence": round(sentiment / 3, 4),
        "trend": sentiment,
        "label": label_of(sentiment),
        "modalities": parts,
        "conflict": 0.8,
        "attention": {"text": list(attended), "audio": [[end - 0.1, 0.02]], "vision": []},
        "latency": {"align": 0.11, "features": 0.04, "model": 0.007, "total": 0.12},
        "dropped": {"text": 0, "audio": 12, "vision": 0, "asr": 0},
    }


def wave(index: int) -> float:
    """Return a score that moves as a person might."""
    return 1.6 * math.sin(index / 41) + 0.8 * math.sin(index / 7)


def feed(running: Aside, indices: Iterable[int], value: Callable[[int], float] = wave) -> None:
    """Publish a score for each index."""
    for index in indices:
        running.publish(**score(index, sentiment=value(index)))


def head(seq: int, kind: str) -> dict[str, Any]:
    """Return what every message has."""
    return {
        **{key: score(0)[key] for key in ("v", "session", "time", "subject")},
        "seq": seq,
        "type": kind,
    }


def talk(running: Aside, index: int) -> None:
    """Publish what else belongs to a score: words, and now and then an event."""
    end = (index + 1) * HOP
    for number in range(int(index * TEXTS), int((index + 1) * TEXTS)):
        utterance, last = divmod(number, PHRASE)
        starts = [end - (last - i) * 0.3 for i in range(last + 1)]
        words = [
            {"text": f"word{i}", "start": at, "end": at + 0.2, "confidence": None}
            for i, at in enumerate(starts)
        ]
        final = last == PHRASE - 1
        text = {"utterance": utterance, "words": words, "tail": "and", "final": final}
        running.publish(**head(index + 1, "text"), **text)
    if index % EVENT == 0:
        event = {"event": "shift", "modality": None, "reason": None, "detail": "", "at": end}
        running.publish(**head(index + 1, "event"), **event)


def arrived(page: Page, running: Aside, indices: range) -> None:
    """Send scores and wait until the page has the last."""
    for index in indices:
        talk(running, index)
        feed(running, [index])
    end = clock((indices[-1] + 1) * HOP)
    expect(page.locator("#window")).to_contain_text(f"to {end}", timeout=120_000)


def clock(time: float) -> str:
    """Return session time as the page writes it."""
    minutes, seconds = divmod(int(time), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def at(running: Aside) -> str:
    return f"http://127.0.0.1:{running.server.port}/"


@contextmanager
def shown(browser: Browser, running: Aside) -> Iterator[Page]:
    """Open the dashboard and wait until it is connected; it must not complain."""
    with opened(browser, "about:blank") as page:
        found = complaints(page)
        page.goto(at(running))
        expect(page.locator("#link")).to_have_text("live")
        yield page
        assert found == []


@contextmanager
def shown_loosely(browser: Browser, running: Aside) -> Iterator[Page]:
    """Open the dashboard; a refused connection stands in the console, whatever a page does."""
    with opened(browser, at(running)) as page:
        expect(page.locator("#link")).to_have_text("live")
        yield page


@contextmanager
def real(*options: str) -> Iterator[str]:
    """Run the agent and give the address of its dashboard."""
    place = f"127.0.0.1:{(port := free_port())}"
    command = ["tamulag-stream", *options, "--websocket", place]
    with Command(command, stdout=subprocess.DEVNULL):
        wait_for_port(port)
        yield f"http://{place}/"


def wait_for_port(port: int) -> None:
    limit = time.monotonic() + START / 1000
    while time.monotonic() < limit:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"nothing listens on port {port} after {START / 1000} s")
