"""`tamulag serve --ray local`, for real: senders, actors in processes, one of them killed."""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect

from support.command_line import call as command
from support.ingest_clients import FEATURES, Caller, Score, assert_as_alone, call, stopped_under
from support.ray_cluster import is_busy, marked, need_ray
from support.running_server import Serving
from tamulag.streamer.bench.rig.senders import HOP, rows
from tamulag.streamer.protocol.ingest import FeaturesHeader, SenderHello, build_frame

pytestmark = pytest.mark.timeout(300)

HOPS = 14

ENDING = 20.0
"""Seconds for a server to end: Ray takes some more when it is gone itself."""


async def played(url: str, server: Serving) -> tuple[list[Caller], int]:
    """Let eight send, kill an actor's process meanwhile; return them and how many there were."""
    calls = [asyncio.create_task(call(url, Caller(seed), hops=HOPS)) for seed in range(8)]
    await asyncio.sleep(HOPS * 0.5 / 3)
    actors = [one for one in psutil.Process(server.pid).children(recursive=True) if is_busy(one)]
    actors[0].kill()
    return list(await asyncio.gather(*calls)), len(actors)


def test_a_killed_actor_costs_nobody_a_score() -> None:
    """Each sender gets the scores that it would get alone, and the server leaves nothing behind."""
    need_ray()
    mark = {"TAMULAG_TEST_GATEWAY": str(os.getpid())}
    with Serving("--ray", "local", "--actors", "2..3", environment=mark) as server:
        limit = time.monotonic() + 30
        while _actors(server.pid) < 2 and time.monotonic() < limit:
            time.sleep(0.1)
        callers, actors = asyncio.run(played(server.url, server))
        assert server.stop() == 0
    assert actors == 2
    for caller in callers:
        assert caller.refused is None
        assert_as_alone(caller.scores, caller.seed, HOPS)
    limit = time.monotonic() + 30  # the system takes a moment to end what got a signal
    while marked("TAMULAG_TEST_GATEWAY") and time.monotonic() < limit:
        time.sleep(0.05)
    assert not marked("TAMULAG_TEST_GATEWAY")


def _actors(pid: int) -> int:
    return sum(is_busy(one) for one in psutil.Process(pid).children(recursive=True))


def test_without_ray_senders_are_told_and_the_server_lives() -> None:
    """Within some seconds, with the reason; the port still answers."""
    need_ray()

    async def play(server: Serving) -> dict[str, str]:
        async with connect(f"{server.url}ingest") as socket:
            await socket.send(FEATURES.model_dump_json(exclude_none=True))
            await socket.recv()
            for process in psutil.Process(server.pid).children(recursive=True):
                process.kill()
            voice = FeaturesHeader(timestamp=0.0, modality="audio")
            await socket.send(build_frame(voice, rows(0, 0)[0].tobytes()))
            async with asyncio.timeout(15):
                async for line in socket:
                    received = json.loads(line)
                    if received["type"] == "status" and received["state"] == "degraded":
                        break
        async with httpx.AsyncClient() as client:
            page = await client.get(server.url.replace("ws", "http", 1) + "healthz")
        assert page.status_code == 200
        lost: dict[str, str] = received["lost"]
        return lost

    with Serving("--ray", "local", "--actors", "1") as server:
        assert asyncio.run(play(server)) == {"scores": "cluster_lost"}
        assert server.stop(ENDING) == 0


class HandedOver(NamedTuple):
    """What senders of a server saw that was stopped while they sent."""

    folder: Path
    ready: dict[str, Any]
    """Of one that had its scores."""
    scores: list[Score]
    """Of the same one."""
    others: list[Caller]
    """That were admitted."""
    files: int
    """Sessions in the folder."""


@pytest.fixture(scope="module")
def handed_over(tmp_path_factory: pytest.TempPathFactory) -> HandedOver:
    """Stop a server with a cluster under load."""
    need_ray()
    folder = tmp_path_factory.mktemp("sessions")
    options = ("--ray", "local", "--actors", "1", "--handover", str(folder))
    with Serving(*options) as server:
        ready, scores, callers = asyncio.run(_stopped(server))
    came = [caller for caller in callers if caller.ready]
    return HandedOver(folder, ready, scores, came, len([*folder.glob("*.session")]))


async def _stopped(server: Serving) -> tuple[dict[str, Any], list[Score], list[Caller]]:
    """Let one sender have its scores and many send, then stop the server."""
    async with connect(f"{server.url}ingest") as socket:
        ready, scores = await half(socket, FEATURES, 0)
        return ready, scores, await stopped_under(server.url, 60, server.stop)


async def half(
    socket: ClientConnection, hello: SenderHello, first: int
) -> tuple[dict[str, Any], list[Score]]:
    """Send eight hops and receive their scores; return `ready` and the scores."""
    received: list[Score] = []
    async with asyncio.timeout(20):
        await socket.send(hello.model_dump_json(exclude_none=True))
        ready: dict[str, Any] = json.loads(await socket.recv())
        for number in range(first, first + 8):
            voice, face = rows(5, number)
            vision = FeaturesHeader(timestamp=number * HOP, modality="vision")
            audio = FeaturesHeader(timestamp=number * HOP, modality="audio")
            await socket.send(build_frame(vision, face.tobytes()))
            await socket.send(build_frame(audio, voice.tobytes()))
        while len(received) < 8:
            line = json.loads(await socket.recv())
            if line["type"] == "sentiment":
                received.append(Score(line["window"]["end"], line["sentiment"], 0.0))
    return ready, received


def test_a_session_moves_from_a_cluster_to_one_machine(handed_over: HandedOver) -> None:
    """SIGTERM hands over the workers' sessions; a server of the same weights continues them."""
    ready = handed_over.ready
    again = FEATURES.model_copy(update={"resume": ready["resume"]})

    async def resume(server: Serving) -> tuple[dict[str, Any], list[Score]]:
        async with connect(f"{server.url}ingest") as socket:
            return await half(socket, again, 8)

    with Serving("--handover", str(handed_over.folder)) as server:
        resumed, after = asyncio.run(resume(server))
        assert server.stop(ENDING) == 0
    assert (resumed["session"], resumed["resumed"]) == (ready["session"], True)
    assert_as_alone(handed_over.scores + after, 5, 16)


def test_many_that_send_are_handed_over(handed_over: HandedOver) -> None:
    """SIGTERM under load: all workers are asked at once, each sender gets a close reason."""
    came = handed_over.others
    assert len(came) > 40
    assert {caller.closed for caller in came} == {1012}
    assert handed_over.files == len(came) + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ray", "here"), 'serve.ray = "here": must be "local" or the address'),
        (("--ray", "local", "--actors", "3..2"), "serve.max_actors (2) or less"),
        (("--ray", "local", "--actors", "some"), "serve.min_actors"),
    ],
)
def test_impossible_settings_are_reported(options: tuple[str, ...], message: str) -> None:
    """With the value and the remedy."""
    address = ("--websocket", "127.0.0.1:0")
    done = command("tamulag", "serve", *address, "--workers", "0", *options)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
