"""`tamulag serve --ray local`, for real: senders, actors in processes, one of them killed."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cluster import is_busy, need_ray
from tamulag.streamer.callers import Caller, call

from .serving import Serving
from .test_fleet import marked
from .test_serve import assert_as_alone

PROGRAM = Path(sys.executable).parent / "tamulag"
HOPS = 20


async def played(url: str, server: Serving) -> tuple[list[Caller], int]:
    """Let eight send, kill an actor's process meanwhile; return them and how many there were."""
    calls = [asyncio.create_task(call(url, Caller(seed), hops=HOPS)) for seed in range(8)]
    await asyncio.sleep(HOPS * 0.5 / 3)
    actors = [one for one in psutil.Process(server.pid).children(recursive=True) if is_busy(one)]
    actors[0].kill()
    return list(await asyncio.gather(*calls)), len(actors)


def test_a_killed_actor_costs_nobody_a_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sender hears what it would hear alone, and the server leaves nothing behind."""
    need_ray()
    monkeypatch.setenv("TAMULAG_TEST_GATEWAY", str(os.getpid()))
    with Serving("--ray", "local", "--actors", "2..3") as server:
        limit = time.monotonic() + 30
        while _actors(server.pid) < 2 and time.monotonic() < limit:
            time.sleep(0.1)
        callers, actors = asyncio.run(played(server.url, server))
        assert server.stop() == 0
    assert actors == 2
    for caller in callers:
        assert caller.refused is None
        assert_as_alone(caller.scores, caller.seed, HOPS)
    monkeypatch.delenv("TAMULAG_TEST_GATEWAY")
    assert not marked("TAMULAG_TEST_GATEWAY")


def _actors(pid: int) -> int:
    return sum(is_busy(one) for one in psutil.Process(pid).children(recursive=True))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--ray", "here"), 'serve.ray = "here": must be "local" or the address'),
        (("--ray", "local", "--actors", "3..2"), "serve.max_actors (2) or less"),
        (("--ray", "local", "--actors", "some"), "serve.min_actors"),
    ],
)
def test_what_cannot_be_is_told(options: tuple[str, ...], told: str) -> None:
    """With the value and the remedy."""
    command = [PROGRAM, "serve", "--websocket", "127.0.0.1:0", "--workers", "0", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
