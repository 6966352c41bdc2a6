"""The life cycle that all runs share: order, heartbeat, end."""

import asyncio

import pytest

from support.recordings import ABOUT, Lines
from tamulag.streamer.protocol import messages
from tamulag.streamer.protocol.session_messages import SessionMessages
from tamulag.streamer.publishers.publisher import PublisherError
from tamulag.streamer.service.outputs import Outputs
from tamulag.streamer.service.service import Service


class Noted:
    """A feed that notes what it is asked for, and runs until the end."""

    def __init__(self, preparing: float = 0.0) -> None:
        self.calls: list[str] = []
        self._preparing = preparing

    async def prepare(self) -> None:
        await asyncio.sleep(self._preparing)
        self.calls.append("prepare")

    async def open(self) -> None:
        self.calls.append("open")

    async def run(self, ending: asyncio.Event) -> None:
        self.calls.append("run")
        await ending.wait()

    async def close(self) -> None:
        self.calls.append("close")

    def hello(self) -> str:
        return "hello"

    def gauges(self) -> dict[str, float]:
        return {"figure": 1.0}

    def output_changed(self, name: str, reason: str | None, detail: str) -> None: ...


def service(feed: Noted, outputs: Outputs, heartbeat: float = 5.0) -> Service:
    sent = SessionMessages("x", ABOUT, wall_now=lambda: 0.0, send=outputs.publish)
    return Service(feed=feed, outputs=outputs, messages=sent, heartbeat=heartbeat)


async def run(core: Service, seconds: float) -> None:
    asyncio.get_running_loop().call_later(seconds, core.stop)
    await asyncio.wait_for(core.run(), 10)


def test_a_quiet_service_sends_heartbeats() -> None:
    """At its pace, and nothing else."""
    lines = Lines()
    core = service(Noted(), Outputs([lines]), heartbeat=0.1)
    asyncio.run(run(core, 0.55))
    assert 1 <= len(lines.all) <= 6
    assert {messages.decode(line).type for line in lines.all} == {"heartbeat"}
    assert core.gauges() == {"figure": 1.0, "publisher_dropped_lines": 0.0}


def test_everything_is_opened_and_closed_in_order() -> None:
    """What takes long first, then the outputs, then the inputs."""
    feed = Noted()
    asyncio.run(run(service(feed, Outputs()), 0.05))
    assert feed.calls == ["prepare", "open", "run", "close"]


def test_a_signal_ends_a_long_start() -> None:
    """Workers that take a minute to load are not waited for."""
    feed = Noted(preparing=60.0)
    asyncio.run(run(service(feed, Outputs()), 0.05))
    assert "prepare" not in feed.calls
    assert feed.calls[-1] == "close"


def test_an_output_that_cannot_be_opened_ends_the_start() -> None:
    """No input is touched; what was prepared is closed."""

    class Taken(Lines):
        async def open(self) -> None:
            raise PublisherError("port taken")

    feed = Noted()
    with pytest.raises(PublisherError, match="port taken"):
        asyncio.run(run(service(feed, Outputs([Taken()])), 5.0))
    assert feed.calls == ["prepare", "close"]
