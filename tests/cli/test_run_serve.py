"""`tamulag serve`, for real: senders, a restart, a full house."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from support.broker import listening, mosquitto, received
from support.command_line import Done, run
from support.devices import need
from support.ingest_clients import FEATURES, Caller, Score, assert_as_alone, call, stopped_under
from support.running_server import Serving
from support.senders import portrait, wave
from tamulag.streamer.app.build_server import check_cores
from tamulag.streamer.bench.rig.broker import Broker
from tamulag.streamer.bench.rig.processes import BROKER
from tamulag.streamer.bench.rig.senders import HOP, rows
from tamulag.streamer.offline.verify import verify_recording
from tamulag.streamer.protocol.ingest import (
    FeaturesHeader,
    PictureForm,
    PictureHeader,
    SenderHello,
    SoundForm,
    SoundHeader,
    build_frame,
)
from tamulag.streamer.storage.history_db import HistoryDb

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def described() -> Iterator[Serving]:
    """Run a server with a process that describes sound and pictures, and end it in order."""
    with Serving("--asr", "none", workers=1) as server:
        yield server
        assert server.stop() == 0


async def sitting(url: str, number: int) -> None:
    """Wait until so many sessions are there."""
    async with asyncio.timeout(10), httpx.AsyncClient() as client:
        seats: list[object] = []
        while len(seats) < number:
            seats = (await client.get(url.replace("ws", "http", 1) + "seats")).json()["seats"]


def test_each_sender_gets_the_scores_it_would_get_alone(described: Serving) -> None:
    """Many at once, each at its own pace; a score has four digits on the wire."""

    async def play(url: str) -> list[Caller]:
        return await asyncio.gather(
            *(call(url, Caller(seed), hops=12, paced=seed % 2 == 0) for seed in range(8))
        )

    callers = asyncio.run(play(described.url))
    assert [caller.refused for caller in callers] == [None] * 8
    for caller in callers:
        assert_as_alone(caller.scores, caller.seed, 12)


def test_a_full_server_names_a_time_to_retry() -> None:
    """Close code 1013 with a time; who is in is not disturbed."""

    async def play(url: str) -> list[Caller]:
        first = asyncio.create_task(call(url, Caller(1), hops=6))
        await sitting(url, 1)
        second = await call(url, Caller(2), hops=1)
        return [await first, second]

    with Serving("--seats", "1") as server:
        first, second = asyncio.run(play(server.url))
    assert (second.closed, second.refused) == (1013, "all 1 seats are taken: try again in 5 s")
    assert_as_alone(first.scores, 1, 6)


def test_a_session_goes_on_after_a_restart(tmp_path: Path) -> None:
    """SIGTERM hands the state over; with its key the sender goes on, to the same scores."""

    async def half(url: str, caller: Caller, hello: SenderHello, first: int) -> None:
        async with connect(f"{url}ingest") as socket:
            await socket.send(hello.model_dump_json(exclude_none=True))
            caller.ready = json.loads(await socket.recv())
            for hop in range(first, first + 8):
                voice, face = rows(caller.seed, hop)
                vision = FeaturesHeader(timestamp=hop * HOP, modality="vision")
                audio = FeaturesHeader(timestamp=hop * HOP, modality="audio")
                await socket.send(build_frame(vision, face.tobytes()))
                await socket.send(build_frame(audio, voice.tobytes()))
            async with asyncio.timeout(10):
                while len(caller.scores) < first + 8:
                    said = json.loads(await socket.recv())
                    if said["type"] == "sentiment":
                        assert said["window"]["warmup"] is (said["window"]["end"] < 5)
                        caller.scores.append(Score(said["window"]["end"], said["sentiment"], 0))
            servers[0].stop()
            with contextlib.suppress(ConnectionClosed):
                async with asyncio.timeout(5):
                    async for _ in socket:
                        pass
            caller.closed = socket.close_code

    caller, folder = Caller(5), str(tmp_path / "sessions")
    with Serving("--handover", folder) as one:
        servers = [one]
        asyncio.run(half(one.url, caller, FEATURES, 0))
    assert caller.closed == 1012
    name = caller.ready["session"]
    again = FEATURES.model_copy(update={"resume": caller.ready["resume"]})
    with Serving("--handover", folder) as other:
        servers = [other]
        asyncio.run(half(other.url, caller, again, 8))
    assert (caller.ready["session"], caller.ready["resumed"]) == (name, True)
    assert_as_alone(caller.scores, 5, 16)


def test_many_that_send_are_handed_over(tmp_path: Path) -> None:
    """SIGTERM under load: each session is in the folder, each sender told to come again."""
    with Serving("--handover", str(tmp_path), "--busiest", "1") as server:
        callers = asyncio.run(stopped_under(server.url, 150, server.stop))
    came = [caller for caller in callers if caller.ready]
    assert len(came) > 50
    assert {caller.closed for caller in came} == {1012}
    assert {caller.refused for caller in came} == {"restart: connect again, with your resume key"}
    assert len([*tmp_path.glob("*.session")]) == len(came)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/null/sessions"])
def test_a_folder_that_cannot_be_used_is_reported(path: str) -> None:
    """In a line that names it, before anybody comes."""
    done = refused("--handover", path)
    assert done.returncode == 1
    assert f"--handover {path} cannot be used" in done.stderr


def test_actors_without_a_ray_are_wrong_use() -> None:
    """What would have no effect is told."""
    done = refused("--actors", "3")
    assert done.returncode == 2
    assert "--actors are of a Ray: add --ray local" in done.stderr


def refused(*options: str) -> Done:
    """Run a server that does not come up; return what it said, without any traceback."""
    address = ("--websocket", "127.0.0.1:0")
    done = run("tamulag", "serve", "--workers", "0", *address, *options)
    assert "Traceback" not in done.stderr
    return done


def test_more_workers_than_cores_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """They take time from each other; who has as many as cores hears nothing."""
    cores = os.cpu_count() or 1
    with caplog.at_level(logging.WARNING, "tamulag.serve"):
        check_cores(cores)
        assert not caplog.text
        check_cores(cores + 1)
    assert f"--workers {cores + 1} on {cores} cores" in caplog.text


def test_a_subscriber_of_a_session_gets_that_one_alone() -> None:
    """On the same port, by name; the figures of the server are beside it."""

    async def play(url: str) -> None:
        named = FEATURES.model_copy(update={"session": "seat-7"})
        sending = asyncio.create_task(call(url, Caller(7), hops=8, hello=named))
        other = asyncio.create_task(call(url, Caller(8), hops=8))
        await sitting(url, 2)
        async with connect(f"{url}?session=seat-7") as follower, asyncio.timeout(10):
            lines = [json.loads(await follower.recv()) for _ in range(5)]
        assert [line["session"] for line in lines] == ["seat-7"] * 5
        assert lines[0]["modalities"] == ["audio", "vision"]
        async with connect(f"{url}?session=nobody") as lost:
            with pytest.raises(ConnectionClosed, match="no such session"):
                await lost.recv()
        async with httpx.AsyncClient() as client:
            page = await client.get(url.replace("ws", "http", 1) + "metrics")
            seats = await client.get(url.replace("ws", "http", 1) + "seats")
        assert "tamulag_sessions 2.0" in page.text
        assert "seat-7" in {seat["session"] for seat in seats.json()["seats"]}
        async with connect(f"{url}?session=seat-7") as follower, asyncio.timeout(10):
            with contextlib.suppress(ConnectionClosed):
                async for line in follower:
                    last = json.loads(line)
            assert (last["type"], follower.close_code) == ("session_end", 1001)
        await asyncio.gather(sending, other)

    with Serving() as server:
        asyncio.run(play(server.url))


def test_scores_go_to_the_broker_by_session(tmp_path: Path) -> None:
    """Each session has a topic of its own; nothing of it stays behind."""
    need(BROKER)

    async def play(url: str, broker: Broker) -> list[str]:
        named = FEATURES.model_copy(update={"session": "seat-9"})
        topics: list[str] = []
        async with listening(broker, "tamulag/v1/site/device/sessions/seat-9/#") as client:
            await call(url, Caller(9), hops=4, hello=named)
            async with asyncio.timeout(10):
                while topics.count("tamulag/v1/site/device/sessions/seat-9/state") < 4:
                    topics.append((await received(client))[0])
        async with listening(broker, "tamulag/v1/site/#") as client, asyncio.timeout(5):
            topics.append((await received(client))[0])
        return topics

    with (
        mosquitto(tmp_path, "allow_anonymous true") as broker,
        Serving("--mqtt", broker.url) as server,
    ):
        topics = asyncio.run(play(server.url, broker))
    assert topics[-1] == "tamulag/v1/site/device/status"


def test_a_lost_front_end_costs_its_sessions_a_degraded(described: Serving) -> None:
    """Sound and pictures are described by a process of its own: killed, it comes back."""
    speech = wave()

    async def play(server: Serving) -> list[tuple[str, str]]:
        states: list[tuple[str, str]] = []
        hello = SenderHello(
            audio=SoundForm(encoding="pcm_s16le", rate=16000), vision=PictureForm(encoding="jpeg")
        )
        async with connect(f"{server.url}ingest") as socket:
            await socket.send(hello.model_dump_json(exclude_none=True))
            assert json.loads(await socket.recv())["type"] == "ready"
            sending = asyncio.create_task(talk(socket, speech))
            killed = False
            async with asyncio.timeout(60):
                async for line in socket:
                    said = json.loads(line)
                    if said["type"] == "status":
                        states.append((said["state"], said["lost"].get("audio", "")))
                    if states and states[-1][0] == "online" and killed and len(states) > 2:
                        break
                    is_seen = (
                        said["type"] == "sentiment"
                        and said["modalities"]["vision"]["status"] == "ok"
                    )
                    if is_seen and not killed:
                        killed = True
                        for pid in children(server.pid):
                            os.kill(pid, signal.SIGKILL)
            sending.cancel()
        return states

    states = asyncio.run(play(described))
    assert states[0] == ("online", "")
    assert ("degraded", "front_end_lost") in states
    assert states[-1] == ("online", "")


async def talk(socket: ClientConnection, speech: np.ndarray) -> None:
    """Send a voice and a portrait in real time, over and over."""
    begun = time.monotonic()
    for number in count():
        await asyncio.sleep(max(0.0, begun + number * 0.1 - time.monotonic()))
        place = number * 1600 % (len(speech) - 1600)
        sound = SoundHeader(timestamp=number * 0.1, position=number * 1600)
        await socket.send(build_frame(sound, speech[place : place + 1600].tobytes()))
        image = PictureHeader(timestamp=number * 0.1)
        await socket.send(build_frame(image, portrait()))


def children(pid: int) -> list[int]:
    """Return the worker processes of a server that a test started: forks of a fork of it."""
    forks = [p for p in psutil.Process(pid).children(recursive=True) if is_fork(p)]
    servers = {p.pid for p in forks}
    return [p.pid for p in forks if p.ppid() in servers]


def is_fork(process: psutil.Process) -> bool:
    return "multiprocessing.forkserver" in " ".join(process.cmdline())


def test_a_worker_that_is_too_slow_makes_sessions_give_up_work() -> None:
    """Sound that waits for a stopped process is strain: each status names what is given up."""
    speech = wave()

    async def play(server: Serving) -> list[str]:
        hello = SenderHello(
            audio=SoundForm(encoding="pcm_s16le", rate=16000), vision=PictureForm(encoding="jpeg")
        )
        async with connect(f"{server.url}ingest") as socket:
            await socket.send(hello.model_dump_json(exclude_none=True))
            await socket.recv()  # larger frames are taken once the session is open
            sending = asyncio.create_task(talk(socket, speech))
            workers: list[int] = []
            try:
                async with asyncio.timeout(60):
                    async for line in socket:
                        message = json.loads(line)
                        if message["type"] == "status" and message["pressure"]:
                            return list(message["pressure"])
                        is_score = message["type"] == "sentiment" and not workers
                        if is_score and message["modalities"]["audio"]["status"] == "ok":
                            workers = children(server.pid)
                            for pid in workers:
                                os.kill(pid, signal.SIGSTOP)
            finally:
                for pid in workers:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
                sending.cancel()
        return []

    with Serving("--asr", "none", workers=1) as server:
        assert asyncio.run(play(server)) == ["vision_rate"]


def test_each_session_is_recorded_and_kept(tmp_path: Path) -> None:
    """A recording replays to the scores that were sent; the history lists both sessions."""
    settings, records = tmp_path / "mine.toml", tmp_path / "records"
    settings.write_text(f'[history]\npath = "{tmp_path}/history.sqlite"\n')

    async def play(url: str) -> tuple[Caller, Caller]:
        named = FEATURES.model_copy(update={"session": "seat-3"})
        return await asyncio.gather(
            call(url, Caller(3), hops=6, hello=named),
            call(url, Caller(4), hops=6),
        )

    with Serving("--record", str(records), "--history", "--config", str(settings)) as server:
        callers = asyncio.run(play(server.url))
        assert server.stop() == 0
    assert [caller.refused for caller in callers] == [None, None]
    (folder,) = records.glob("*-seat-3")
    found = verify_recording(folder, None)
    assert (found.hops, len([*records.iterdir()])) == (6, 2)
    assert found.max_abs_diff <= 1e-5
    with HistoryDb(tmp_path / "history.sqlite") as store:
        assert {past.reason for past in store.sessions()} == {"end"}
        assert len(store.sessions()) == 2
        lines = [json.loads(line) for line in store.messages("seat-3")]
    scores = [line["sentiment"] for line in lines if line["type"] == "sentiment"]
    assert scores == [score.sentiment for score in callers[0].scores]
