"""A real mosquitto for tests, its certificates, and what a subscriber of it receives."""

import asyncio
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiomqtt
import pytest

from tamulag.streamer.publishers.mqtt import MqttPublisher

STATUS = "tamulag/v1/site/device/status"


class Broker:
    """A mosquitto of the test's own, on a loopback port that stays the same over restarts."""

    def __init__(self, folder: Path, *rules: str) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self.config = folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", "log_dest none", *rules]
        self.config.write_text("\n".join(lines) + "\n")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(["mosquitto", "-c", str(self.config)])
        limit = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except ConnectionRefusedError:
                assert time.monotonic() < limit, "mosquitto does not listen"
                time.sleep(0.02)
            else:
                return

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def status(word: str) -> str:
    return f'{{"state": "{word}"}}'


ONLINE, OFFLINE = status("online"), status("offline")


def within(seconds: float, scenario: Coroutine[None, None, None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(seconds):
            await scenario

    asyncio.run(main())


@asynccontextmanager
async def running(publisher: MqttPublisher) -> AsyncIterator[MqttPublisher]:
    await publisher.open()
    run = asyncio.create_task(publisher.run())
    try:
        yield publisher
    finally:
        run.cancel()
        await asyncio.wait([run])
        await publisher.close()


@asynccontextmanager
async def listening(broker: Broker, topic: str = "tamulag/#") -> AsyncIterator[aiomqtt.Client]:
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.subscribe(topic, qos=1)
        yield client


async def received(client: aiomqtt.Client) -> tuple[str, str]:
    message = await anext(client.messages)
    assert isinstance(message.payload, bytes)
    return str(message.topic), message.payload.decode()


async def retained(broker: Broker) -> str:
    async with listening(broker, STATUS) as client:
        message = await anext(client.messages)
        assert message.retain
        assert isinstance(message.payload, bytes)
        return message.payload.decode()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (bounded by the scenario)
        await asyncio.sleep(0.01)


@contextmanager
def mosquitto(folder: Path, *rules: str) -> Iterator[Broker]:
    """Run a broker with these lines in its configuration, or skip where there is none."""
    if shutil.which("mosquitto") is None:
        pytest.skip("needs mosquitto: apt install mosquitto")
    broker = Broker(folder, *rules)
    try:
        yield broker
    finally:
        broker.kill()


def open_and_close(publisher: MqttPublisher) -> None:
    """Connect and leave at once."""

    async def scenario() -> None:
        try:
            await publisher.open()
        finally:
            await publisher.close()
        assert len(asyncio.all_tasks()) == 1

    within(10, scenario())
