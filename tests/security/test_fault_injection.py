"""An error at every point of the work for one of ten sessions: nine go on with the same scores.

Ten real connections to a server in this process; something happens to one of them. The workers of
pictures and sound and those of Ray have their own parts below.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pytest
import torch
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tamulag.models.runtime.ring_state import RingState
from tamulag.streamer.core.commands import Close
from tamulag.streamer.core.step_builder import StepBuilder
from tamulag.streamer.features.audio import AUDIO_DIM
from tamulag.streamer.protocol import messages
from tamulag.streamer.protocol.ingest import EndHeader, FeaturesHeader, SenderHello, build_frame
from tamulag.streamer.protocol.session_messages import SessionMessages
from tamulag.streamer.service import backend, ingest_endpoint
from tamulag.streamer.service.backend import LocalBackend
from tamulag.streamer.service.server_senders import SessionReceiver
from tamulag.streamer.service.session import ServerSession
from tamulag.streamer.service.sessions import SessionRegistry
from tamulag.streamer.service.snapshot_store import SnapshotStore

from ..service.test_server_senders import IdleWorkers, ServerUnderTest

BAD = "victim"
NAMES = (*(f"s{number}" for number in range(9)), BAD)
HOPS = 3


class Injected(Exception):
    """What no part of the program knows."""


def broken(*_: object, **__: object) -> NoReturn:
    raise Injected("on purpose")


@dataclass
class Sender:
    """What one of ten got."""

    scores: dict[float, float] = field(default_factory=dict)
    code: int = 0
    reason: str = ""


async def play_one(url: str, name: str, sender: Sender) -> None:
    """Send some hops and the end, and read all that comes."""
    hello = SenderHello(features=["audio"], clock="sender", session=name)
    rng = np.random.default_rng(NAMES.index(name))
    async with connect(url, compression=None, proxy=None) as socket:
        reading = None
        try:
            await socket.send(hello.model_dump_json(exclude_none=True))
            await socket.recv()  # larger frames are taken from now on
            reading = asyncio.create_task(read(socket, sender))
            for hop in range(HOPS):
                values = rng.standard_normal((25, AUDIO_DIM)).astype("<f4").tobytes()
                header = FeaturesHeader(timestamp=hop / 2, modality="audio")
                await socket.send(build_frame(header, values))
                await asyncio.sleep(0.02)
            await socket.send(build_frame(EndHeader(timestamp=HOPS / 2)))
        except ConnectionClosed:
            pass
        if reading is not None:
            await reading
        sender.code, sender.reason = socket.close_code or 0, socket.close_reason or ""


async def read(socket: ClientConnection, sender: Sender) -> None:
    try:
        async for line in socket:
            message = json.loads(line)
            if message["type"] == "sentiment":
                sender.scores[message["window"]["end"]] = message["sentiment"]
    except ConnectionClosed:
        pass


def play(server: ServerUnderTest) -> dict[str, Sender]:
    """Let ten send beside each other; return what each got."""
    senders = {name: Sender() for name in NAMES}

    async def main() -> None:
        async with server.open() as url:
            await asyncio.gather(*(play_one(url, name, one) for name, one in senders.items()))
        assert not [name for name in server.registry.open if name != BAD]

    asyncio.run(main())
    return senders


@cache
def undisturbed() -> dict[str, Sender]:
    """Return what ten get of a server to which nothing happens."""
    return play(ServerUnderTest(seats=10))


class Point(NamedTuple):
    """A point of the work for one session, at which something is raised."""

    name: str
    inject: Callable[[pytest.MonkeyPatch, ServerUnderTest], None]
    code: int = 1011


def when(patch: pytest.MonkeyPatch, owner: Any, name: str, is_bad: Callable[..., bool]) -> None:
    """Let a function raise for one session, and do its work for the others."""
    real = getattr(owner, name)

    def call(*args: Any, **rest: Any) -> Any:
        return broken() if is_bad(*args, **rest) else real(*args, **rest)

    patch.setattr(owner, name, call)


def bad_builder(server: ServerUnderTest) -> StepBuilder | None:
    batch = server.registry.backend._batch  # type: ignore[attr-defined]
    return batch.builder(BAD) if BAD in batch.names else None


def bad_slot(server: ServerUnderTest) -> int | None:
    batch = server.registry.backend._batch  # type: ignore[attr-defined]
    return batch._sessions[BAD].slot if BAD in batch.names else None


def slots(rows: torch.Tensor | slice) -> list[int]:
    return [rows.start] if isinstance(rows, slice) else rows.tolist()


def parse(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, ingest_endpoint, "parse_frame", lambda data, hello, dims: hello.session == BAD)


def place(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, SessionReceiver, "feed", lambda self, placed: self.name == BAD)


def receiver_begin(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, SessionReceiver, "begin", lambda self: self.name == BAD)


def receiver_finish(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, SessionReceiver, "finish", lambda self: self.name == BAD)


def receiver_made(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, SessionReceiver, "__post_init__", lambda self: self.session.name == BAD)


def admit(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, server.senders, "_begin_session", lambda hello, asked: hello.session == BAD)


def session_opened(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, server.registry, "_new_session", lambda name, *rest: name == BAD)


def push(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, SessionRegistry, "_push", lambda self, session, item: session.name == BAD)


def command(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, LocalBackend, "apply", lambda self, name, command: name == BAD)


def last_command(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(
        patch,
        LocalBackend,
        "apply",
        lambda self, name, command: name == BAD and isinstance(command, Close),
    )


def hop(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, StepBuilder, "_pending", lambda self, hop: self is bad_builder(server))


def batch_step(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    engine = server.registry.backend._batch._engine  # type: ignore[attr-defined]
    when(patch, engine, "step", lambda slots, inputs: bad_slot(server) in slots)


def half_a_batch_step(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    """When the states of all were advanced already."""
    when(patch, RingState, "pool", lambda self, rows, *_: bad_slot(server) in slots(rows))


def not_finite(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    real = RingState.encode

    def encode(self: RingState, rows: torch.Tensor | slice, ticks: Any) -> list[int]:
        slot = bad_slot(server)
        if slot in slots(rows):
            self.h[slot] = torch.nan
        return real(self, rows, ticks)

    patch.setattr(RingState, "encode", encode)


def estimate(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, StepBuilder, "estimate", lambda self, *rest: self is bad_builder(server))


def latency(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, ServerSession, "latency", lambda self, step: self.name == BAD)


def score_message(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, messages, "sentiment_message", lambda estimate, **rest: rest["session"] == BAD)


def any_message(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, SessionMessages, "send", lambda self, sent: self.session == BAD)


def last_message(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, SessionMessages, "end", lambda self, at, reason: self.session == BAD)


def delivery(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, SessionReceiver, "_deliver", lambda self, line: self.name == BAD)


def publisher(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, server.registry, "_publish_of", lambda session, kind, line: session == BAD)


def publisher_of_scores(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(
        patch,
        server.registry,
        "_publish_of",
        lambda session, kind, line: session == BAD and kind == "sentiment",
    )


def look(patch: pytest.MonkeyPatch, server: ServerUnderTest) -> None:
    when(patch, SessionRegistry, "_look_at", lambda self, session, now: session.name == BAD)


POINTS = [
    *(Point("a frame is parsed", parse), Point("a frame is fed", place)),
    *(Point("a sender begins", receiver_begin), Point("a sender ends", receiver_finish)),
    *(Point("a receiver is made", receiver_made), Point("a sender is admitted", admit)),
    *(Point("a session is opened", session_opened), Point("an input is taken", push)),
    *(Point("a command", command), Point("the last command", last_command)),
    *(Point("a hop is made", hop), Point("a step", batch_step)),
    *(Point("half a step", half_a_batch_step), Point("no number", not_finite, 1007)),
    *(Point("an estimate", estimate), Point("its latency", latency)),
    *(Point("its message", score_message), Point("any message", any_message)),
    *(Point("delivery", delivery), Point("the publisher", publisher)),
    *(Point("the publisher of scores", publisher_of_scores), Point("a look", look)),
]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_nine_go_on(
    point: Point, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The tenth is closed with 1011, or 1007 for data, and the log has the cause once."""
    wanted = undisturbed()
    server = ServerUnderTest(seats=10)
    point.inject(monkeypatch, server)
    with caplog.at_level(logging.WARNING):
        senders = play(server)
    assert senders[BAD].code == point.code, senders[BAD]
    assert "on purpose" not in senders[BAD].reason
    for name in NAMES[:-1]:
        assert senders[name].code == 1000
        assert list(senders[name].scores) == list(wanted[name].scores)
        assert senders[name].scores == pytest.approx(wanted[name].scores, abs=1e-5)
    traces = [record for record in caplog.records if record.exc_info]
    assert len(traces) == (1 if point.code == 1011 else 0)


def test_the_end_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was scored like the others; its connection is closed all the same."""
    wanted, server = undisturbed(), ServerUnderTest(seats=10)
    last_message(monkeypatch, server)
    senders = play(server)
    for name in NAMES:
        assert senders[name].scores == pytest.approx(wanted[name].scores, abs=1e-5)
    assert not server.registry.open


class BrokenWorkers(IdleWorkers):
    """Feature workers that fail at one call."""

    def __init__(self, name: str) -> None:
        setattr(self, name, broken)


@pytest.mark.parametrize("call", ["begin", "feed", "end", "finish", "losses"])
def test_workers_that_fail_a_session(call: str) -> None:
    """It is closed; the server goes on with the next."""

    async def one(url: str) -> int:
        hello = SenderHello(words=True, clock="sender")
        async with connect(url, proxy=None) as socket:
            await socket.send(hello.model_dump_json(exclude_none=True))
            await socket.recv()
            if call == "begin":
                await read(socket, Sender())
                return socket.close_code or 0
            header = '{"kind":"words","timestamp":0.1,"utterance":0,"words":[],"final":true}'
            await socket.send(len(header).to_bytes(4, "big") + header.encode())
            await socket.send(build_frame(EndHeader(timestamp=0.2)))
            await read(socket, Sender())
            return socket.close_code or 0

    server = ServerUnderTest(seats=10, workers=BrokenWorkers(call))

    async def main() -> None:
        async with server.open() as url:
            # After the end of a session its worker's fault is nobody's any more.
            assert await one(url) == (1000 if call == "end" else 1011)
            sender = Sender()
            await play_one(url, "s1", sender)
            assert sender.scores == pytest.approx(undisturbed()["s1"].scores, abs=1e-5)

    asyncio.run(main())


@pytest.mark.parametrize("where", ["dump", "put", "snapshot"])
def test_nine_are_handed_over(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever keeps one session from being stored."""
    store = SnapshotStore(tmp_path)
    server = ServerUnderTest(seats=10, store=store)
    if where == "dump":
        when(monkeypatch, backend, "dump", lambda batch, name, checkpoint: name == BAD)
    elif where == "put":
        when(monkeypatch, store, "put", lambda snapshot: snapshot.name == BAD)
    else:
        when(monkeypatch, ServerSession, "snapshot", lambda self, state: self.name == BAD)

    async def main() -> None:
        async with server.open():
            keys = {}
            for name in NAMES:
                keys[name] = server.registry.begin(("audio",), by_sender=True, name=name).key
            await server.senders.drain()
            there = {name for name, key in keys.items() if store.look(key) is not None}
            assert there == {*NAMES} - {BAD}

    asyncio.run(main())
