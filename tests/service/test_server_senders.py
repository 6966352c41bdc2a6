"""Which senders a server admits, and what becomes of their sessions; over real connections."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from support.recordings import ABOUT
from tamulag.models import ModelConfig, TamUlag
from tamulag.models.nn.config import BranchConfig
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.streamer.core.estimate import Timing
from tamulag.streamer.core.sample import Phrase, Word
from tamulag.streamer.core.session_batch import SessionBatch
from tamulag.streamer.features.audio import AUDIO_DIM
from tamulag.streamer.features.vision import VISION_DIM
from tamulag.streamer.protocol.ingest import (
    EndHeader,
    FeaturesHeader,
    Frame,
    PlacedFrame,
    SenderHello,
    SoundForm,
    build_frame,
)
from tamulag.streamer.service import backend
from tamulag.streamer.service.admission import Admission
from tamulag.streamer.service.backend import LocalBackend
from tamulag.streamer.service.feature_workers.pool import FeatureWorkerPool
from tamulag.streamer.service.ingest_endpoint import IngestEndpoint, SenderLimits
from tamulag.streamer.service.server_senders import ServerSenders
from tamulag.streamer.service.sessions import SessionRegistry
from tamulag.streamer.service.snapshot_store import SnapshotStore
from tamulag.streamer.webserver.connection import Connection
from tamulag.streamer.webserver.server import WebSocketPublisher

from ..core.test_session_batch import CARD

VOICE = SenderHello(features=["audio"], clock="sender")


def small() -> TamUlag:
    torch.manual_seed(0)
    branch = partial(BranchConfig, hidden=4, layers=1, dropout=0.0)
    config = ModelConfig(
        text=branch(dim=5),
        audio=branch(dim=AUDIO_DIM),
        vision=branch(dim=VISION_DIM, period=5),
        semantic=4,
        head=4,
        dropout=0.0,
    )
    return TamUlag(config).eval()


SPOKEN = Phrase(1.9, 0, (Word("so", 1.0, 1.2),), np.ones((1, 5), np.float32), (0,), True)


class IdleWorkers:
    """Feature workers that return nothing."""

    is_full = False

    def has_room(self, hello: SenderHello) -> bool:
        return not self.is_full

    def begin(self, session: str, hello: SenderHello) -> None: ...

    def feed(self, session: str, placed: PlacedFrame) -> None: ...

    def end(self, session: str) -> None: ...

    async def finish(self, session: str) -> None: ...

    def losses(self, session: str) -> dict[str, int]:
        return {}

    def load(self) -> float:
        return 0.0


class ServerUnderTest:
    """A server of few sessions in the test's own loop."""

    def __init__(
        self,
        *,
        seats: int = 2,
        store: SnapshotStore | None = None,
        linger: float = 5.0,
        workers: IdleWorkers | None = None,
        per_address: int | None = None,
        **limits: Any,
    ) -> None:
        batch = SessionBatch(TorchEngine(small(), seats), CARD, Timing())
        self.registry = SessionRegistry(LocalBackend(batch, "w"), ABOUT, Timing(), linger=linger)
        self.senders = ServerSenders(
            self.registry,
            cast(FeatureWorkerPool | None, workers),
            Admission(seats, cost=0.001),
            server="device",
            listens=False,
            store=store,
            per_address=per_address,
        )
        endpoint = IngestEndpoint(self.senders, subject="customer", limits=SenderLimits(**limits))
        self.port = WebSocketPublisher(
            port=0, hello=lambda: "{}", missed=lambda n: "{}", receive=endpoint.receive
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        await self.port.open()
        try:
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                tasks = [group.create_task(one.run()) for one in (self.port, self.registry)]
                while not self.port.is_serving:  # noqa: ASYNC110 (bounded by the timeout)
                    await asyncio.sleep(0.01)
                yield f"{self.port.url}ingest"
                for task in tasks:
                    task.cancel()
        finally:
            await self.port.close()


def run_with(server: ServerUnderTest, play: Callable[[str], Awaitable[None]]) -> None:
    async def main() -> None:
        async with server.open() as url:
            await play(url)

    asyncio.run(main())


async def greeted(socket: ClientConnection, hello: SenderHello = VOICE) -> dict[str, Any]:
    await socket.send(hello.model_dump_json(exclude_none=True))
    ready: dict[str, Any] = json.loads(await socket.recv())
    return ready


def voice(at: float, rows: int = 25) -> bytes:
    header = FeaturesHeader(timestamp=at, modality="audio")
    return build_frame(header, np.ones((rows, AUDIO_DIM), "<f4").tobytes())


async def closed(socket: ClientConnection) -> tuple[int, str]:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await socket.recv()
    return socket.close_code or 0, socket.close_reason or ""


async def scores(socket: ClientConnection, number: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < number:
        line = json.loads(await socket.recv())
        found += [line] if line["type"] == "sentiment" else []
    return found


def test_ready_has_the_session_and_its_key() -> None:
    """And then its scores, until its end."""

    async def play(url: str) -> None:
        async with connect(url) as socket:
            ready = await greeted(socket)
            assert ready["modalities"] == ["audio"]
            assert ready["resumed"] is False
            await socket.send(voice(0.0))
            await socket.send(voice(0.5, rows=5))
            await socket.send(build_frame(EndHeader(timestamp=0.6)))
            lines = await scores(socket, 2)
            assert {line["session"] for line in lines} == {ready["session"]}
            assert [line["window"]["end"] for line in lines] == [0.5, 0.6]
            assert await closed(socket) == (1000, "the sender has left")

    server = ServerUnderTest()
    run_with(server, play)
    assert not server.registry.open


def test_a_full_server_refuses_with_a_time() -> None:
    """And takes the next when one has gone."""

    async def play(url: str) -> None:
        async with connect(url) as first, connect(url) as second:
            await greeted(first)
            await second.send(VOICE.model_dump_json(exclude_none=True))
            code, reason = await closed(second)
            assert (code, "try again in 5 s" in reason) == (1013, True)
            await first.send(build_frame(EndHeader(timestamp=0.0)))
            await closed(first)
        async with connect(url) as third:
            await greeted(third)

    run_with(ServerUnderTest(seats=1), play)


def test_a_sender_with_the_key_resumes_its_session() -> None:
    """After its network broke; a wrong key begins a new session."""

    async def play(url: str) -> None:
        async with connect(url) as socket:
            ready = await greeted(socket)
            again = VOICE.model_copy(update={"resume": ready["resume"]})
            await socket.send(voice(0.0))
            await scores(socket, 1)
            socket.transport.abort()
        async with connect(url) as socket:
            back = await greeted(socket, again)
            assert (back["session"], back["resumed"]) == (ready["session"], True)
            await socket.send(voice(0.5))
            assert (await scores(socket, 1))[0]["window"]["end"] == 1.0
        async with connect(url) as socket:
            other = await greeted(socket, VOICE.model_copy(update={"resume": "x" * 22}))
            assert (other["session"] != ready["session"], other["resumed"]) == (True, False)

    run_with(ServerUnderTest(), play)


def test_the_key_takes_over() -> None:
    """A connection that hangs does not keep its own sender out."""

    async def play(url: str) -> None:
        async with connect(url) as hanging, connect(url) as socket:
            ready = await greeted(hanging)
            again = VOICE.model_copy(update={"resume": ready["resume"]})
            assert (await greeted(socket, again))["resumed"] is True
            code, reason = await closed(hanging)
            assert (code, reason) == (1008, "another connection has the key of this session")
            await socket.send(voice(0.0))
            assert len(await scores(socket, 1)) == 1

    run_with(ServerUnderTest(), play)


class Silent(Connection):
    """A connection whose peer is not there."""

    def __init__(self) -> None:  # no socket
        self.reason, self.peer = "", "127.0.0.1"

    def deliver(self, frame: bytes) -> int:
        return 0

    def reject(self, reason: str, code: int = 1008) -> None:
        self.reason = reason


def test_a_connection_that_was_replaced_cannot_end_the_session() -> None:
    """Frames that it had sent before, its end too, may still be read after another took over."""

    async def play() -> None:
        server = ServerUnderTest()
        replaced = server.senders.admit(VOICE, Silent())
        replaced.begin()
        resume = VOICE.model_copy(update={"resume": replaced.ready["resume"]})
        server.senders.admit(resume, Silent()).begin()
        header = FeaturesHeader(timestamp=0, modality="audio")
        placed = PlacedFrame(Frame(header, rows=np.ones((5, AUDIO_DIM), "f4")), 0.0)
        assert not await replaced.feed(placed)
        await replaced.finish()
        replaced.detach("the sender has left")
        session = server.registry.open[replaced.name]
        assert (session.reached, session.closing, session.away_since) == (0.0, None, None)

    asyncio.run(play())


class SlowWorkers(IdleWorkers):
    """Feature workers whose last words take as long as the test wants."""

    def __init__(self) -> None:
        self.is_asked, self.may_end = asyncio.Event(), asyncio.Event()

    async def finish(self, session: str) -> None:
        self.is_asked.set()
        await self.may_end.wait()


def test_a_session_that_is_ending_cannot_be_resumed() -> None:
    """Else it would end under the new connection, whose frames would be ignored."""

    async def play() -> None:
        server = ServerUnderTest(workers=(workers := SlowWorkers()))
        words = SenderHello(words=True, clock="sender")
        async with server.open() as url, connect(url) as ending, connect(url) as socket:
            ready = await greeted(ending, words)
            await ending.send(build_frame(EndHeader(timestamp=0.0)))
            await workers.is_asked.wait()
            again = words.model_copy(update={"resume": ready["resume"]})
            other = await greeted(socket, again)
            assert (other["session"] != ready["session"], other["resumed"]) == (True, False)
            workers.may_end.set()
            assert (await closed(ending))[0] == 1000

    asyncio.run(play())


def test_a_key_takes_over_where_no_worker_is_free() -> None:
    """Its session has one; a new sender, or one that was away too long, is refused with a time."""
    workers = IdleWorkers()

    async def play(url: str) -> None:
        words = SenderHello(words=True, clock="sender")
        async with connect(url) as hanging, connect(url) as socket, connect(url) as other:
            ready = await greeted(hanging, words)
            workers.is_full = True
            again = words.model_copy(update={"resume": ready["resume"]})
            assert (await greeted(socket, again))["resumed"] is True
            assert (await closed(hanging))[0] == 1008
            await other.send(words.model_dump_json(exclude_none=True))
            assert await closed(other) == (1013, "the front ends are full: try again in 5 s")
            await socket.close()
            async with connect(url) as late:
                await late.send(again.model_dump_json(exclude_none=True))
                assert (await closed(late))[0] == 1013

    run_with(ServerUnderTest(workers=workers), play)


def test_a_burst_after_a_standstill_is_no_flood() -> None:
    """A burst of some seconds is accepted; a lasting excess is not."""

    async def play(url: str) -> None:
        async with connect(url) as socket:
            await greeted(socket)
            for number in range(60):
                await socket.send(voice(number / 50, rows=1))
            assert len(await scores(socket, 2)) == 2
            for number in range(60, 400):
                await socket.send(voice(number / 50, rows=1))
            assert await closed(socket) == (1008, "too many messages")

    run_with(ServerUnderTest(rate=10), play)


def test_words_alone_are_scored() -> None:
    """On the sender's own clock words move the time."""

    async def play(url: str) -> None:
        hello = SenderHello(words=True, clock="sender")
        async with connect(url) as socket:
            assert (await greeted(socket, hello))["modalities"] == ["text"]
            server.registry.push(next(iter(server.registry.open)), SPOKEN)
            assert [line["window"]["end"] for line in await scores(socket, 2)] == [0.5, 1.0]

    server = ServerUnderTest(workers=IdleWorkers())
    run_with(server, play)


def test_a_resumed_session_has_the_same_modalities() -> None:
    """A session of a voice does not become one of a face."""

    async def play(url: str) -> None:
        async with connect(url) as socket:
            ready = await greeted(socket)
            hello = SenderHello(features=["vision"], clock="sender", resume=ready["resume"])
            async with connect(url) as other:
                await other.send(hello.model_dump_json(exclude_none=True))
                assert (await closed(other))[0] == 1008
            await socket.send(voice(0.0))  # the refusal did not close it
            assert len(await scores(socket, 1)) == 1
        async with connect(url) as socket:
            await socket.send(hello.model_dump_json(exclude_none=True))
            assert await closed(socket) == (
                1008,
                "resume with the hello that the session began with",
            )

    run_with(ServerUnderTest(), play)


@pytest.mark.parametrize(
    ("hello", "frame", "reason"),
    [
        (SenderHello(audio=SoundForm(encoding="mulaw", rate=8000)), b"", "ready features only"),
        (VOICE, voice(100.0), "leaps by 100 s"),
        (VOICE, b"\0\0\0\2{}", "no valid header"),
        (VOICE, "text", "binary frames"),
    ],
)
def test_wrong_use_is_reported(hello: SenderHello, frame: bytes | str, reason: str) -> None:
    """With a close code and a sentence; others are not affected."""

    async def play(url: str) -> None:
        async with connect(url) as other, connect(url) as socket:
            await greeted(other)
            if hello is VOICE:
                await greeted(socket)
            else:
                await socket.send(hello.model_dump_json(exclude_none=True))
            await socket.send(frame or b"x")
            code, text = await closed(socket)
            assert code in (1003, 1007, 1008)
            assert reason in text
            await other.send(voice(0.0))
            assert len(await scores(other, 1)) == 1

    run_with(ServerUnderTest(), play)


def test_a_name_that_is_taken_is_refused() -> None:
    """The name a sender chooses is its own as long as it is there."""

    async def play(url: str) -> None:
        named = VOICE.model_copy(update={"session": "seat"})
        async with connect(url) as one, connect(url) as two:
            assert (await greeted(one, named))["session"] == "seat"
            await two.send(named.model_dump_json(exclude_none=True))
            assert "session seat is here already" in (await closed(two))[1]

    run_with(ServerUnderTest(), play)


def test_the_server_s_own_name_is_refused() -> None:
    """A session of that name would publish under the server's topics."""

    async def play(url: str) -> None:
        async with connect(url) as socket:
            hello = VOICE.model_copy(update={"session": "device"})
            await socket.send(hello.model_dump_json(exclude_none=True))
            assert await closed(socket) == (1008, "session device is the server's own name")

    run_with(ServerUnderTest(), play)


def test_a_session_ends_while_another_expires() -> None:
    """Both are flushed and removed; the server goes on."""

    async def play(url: str) -> None:
        async with connect(url) as gone, connect(url) as socket:
            await greeted(gone)
            await gone.send(voice(0.0, rows=30))
            await scores(gone, 1)
            gone.transport.abort()
            ready = await greeted(socket)
            for end in (False, True):
                await socket.send(voice(0.6 if end else 0.0, rows=30))
            await asyncio.sleep(0.2)  # until the other one's time is nearly over
            await socket.send(build_frame(EndHeader(timestamp=1.2)))
            assert (await closed(socket))[0] == 1000
        again = VOICE.model_copy(update={"resume": ready["resume"]})
        async with connect(url) as socket:
            assert (await greeted(socket, again))["resumed"] is False

    server = ServerUnderTest(linger=0.2)
    run_with(server, play)


def test_a_drained_server_stores_its_sessions(tmp_path: Path) -> None:
    """Senders are asked to come again, new ones too; the session is stored in the folder."""
    server = ServerUnderTest(store=SnapshotStore(tmp_path))

    async def play(url: str) -> None:
        async with connect(url) as socket:
            await greeted(socket)
            await socket.send(voice(0.0))
            await scores(socket, 1)
            leaving = asyncio.create_task(closed(socket))
            await server.senders.drain()
            assert await leaving == (1012, "restart: connect again, with your resume key")
        async with connect(url) as late:
            await late.send(VOICE.model_dump_json(exclude_none=True))
            assert (await closed(late))[0] == 1012

    run_with(server, play)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_session_that_is_not_stored_in_time_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender is sent the reason; the log has the number of such sessions."""
    monkeypatch.setattr(backend, "SNAPSHOTS", 0)
    server = ServerUnderTest(store=SnapshotStore(tmp_path))

    async def play(url: str) -> None:
        async with connect(url) as socket:
            await greeted(socket)
            leaving = asyncio.create_task(closed(socket))
            await server.senders.drain(limit=0.1)
            assert await leaving == (1012, "restart: your session begins anew")

    run_with(server, play)
    assert not [*tmp_path.iterdir()]
    assert "1 sessions start fresh: not handed over within 0.1 s" in caplog.text


def test_a_session_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    """The others are handed over all the same."""
    folder = tmp_path / "sessions"
    server = ServerUnderTest(store=SnapshotStore(folder))

    async def play(url: str) -> None:
        async with connect(url) as socket:
            await greeted(socket)
            leaving = asyncio.create_task(closed(socket))
            folder.rmdir()
            await server.senders.drain()
            assert await leaving == (1012, "restart: not handed over")

    run_with(server, play)
