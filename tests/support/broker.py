"""The rig's broker for tests, or a skip, and what a subscriber of it receives."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiomqtt

from tamulag.streamer.bench.rig import broker as rig
from tamulag.streamer.bench.rig.broker import Broker
from tamulag.streamer.bench.rig.processes import BROKER
from tamulag.streamer.publishers.mqtt import MqttPublisher

from .devices import need
from .waiting import within

STATUS = "tamulag/v1/site/device/status"


def status(word: str) -> str:
    return f'{{"state": "{word}"}}'


ONLINE, OFFLINE = status("online"), status("offline")


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


@contextmanager
def mosquitto(folder: Path, *rules: str) -> Iterator[Broker]:
    """Run a broker with these lines in its configuration, or skip where there is none."""
    need(BROKER)
    with rig.broker(folder, *rules) as broker:
        yield broker


def open_and_close(publisher: MqttPublisher) -> None:
    """Connect and leave at once."""

    async def scenario() -> None:
        try:
            await publisher.open()
        finally:
            await publisher.close()
        assert len(asyncio.all_tasks()) == 1

    within(10, scenario())
