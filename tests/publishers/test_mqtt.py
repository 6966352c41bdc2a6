import asyncio
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.broker import (
    OFFLINE,
    ONLINE,
    STATUS,
    listening,
    mosquitto,
    open_and_close,
    received,
    retained,
    running,
    status,
)
from support.waiting import until, within
from tamulag.streamer.bench.rig.broker import Broker
from tamulag.streamer.publishers import mqtt
from tamulag.streamer.publishers.mqtt import REPEAT, MqttPublisher
from tamulag.streamer.publishers.publisher import PublisherError


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with mosquitto(tmp_path, "allow_anonymous true") as broker:
        yield broker


def held_back(publisher: MqttPublisher) -> asyncio.Event:
    """Let the publisher connect again only when the test says so: its subscriber comes first."""
    may_connect, connect = asyncio.Event(), publisher._connect

    async def wait_and_connect() -> None:
        await may_connect.wait()
        await connect()

    publisher._connect = wait_and_connect  # type: ignore[method-assign]
    return may_connect


@pytest.mark.broker
def test_the_birth_is_retained(broker: Broker) -> None:
    """A later subscriber learns that the device is online."""

    async def scenario() -> None:
        async with running(MqttPublisher(broker.url, status=status)):
            assert await retained(broker) == ONLINE

    within(10, scenario())


@pytest.mark.broker
@pytest.mark.parametrize(
    ("kind", "topic", "qos"),
    [
        ("sentiment", "state", 1),
        ("text", "text", 0),
        ("status", "status", 1),
        ("event", "event", 0),
        ("session_start", "event", 1),
        ("session_end", "event", 1),
        ("error", "event", 1),
    ],
)
def test_each_kind_has_its_topic(broker: Broker, kind: str, topic: str, qos: int) -> None:
    """A message goes to the topic of its kind, with the quality of service of its kind."""

    async def scenario() -> None:
        publisher = MqttPublisher(broker.url, status=status, site="foyer", device="k7")
        async with running(publisher), listening(broker, f"tamulag/v1/foyer/k7/{topic}") as client:
            publisher.publish(kind, "payload")
            async for message in client.messages:
                if message.payload == b"payload":
                    assert message.qos == qos
                    return

    within(10, scenario())


@pytest.mark.broker
def test_hello_and_heartbeat_stay_home(broker: Broker) -> None:
    """MQTT has its retained status and its own keepalive instead."""

    async def scenario() -> None:
        publisher = MqttPublisher(broker.url, status=status)
        async with running(publisher), listening(broker) as client:
            assert await received(client) == (STATUS, ONLINE)
            for kind in ("hello", "heartbeat", "sentiment"):
                publisher.publish(kind, kind)
            assert await received(client) == ("tamulag/v1/site/device/state", "sentiment")

    within(10, scenario())


@pytest.mark.broker
def test_a_clean_close_sends_the_rest_and_offline(broker: Broker) -> None:
    """What waits is sent before the retained status becomes offline."""

    async def scenario() -> None:
        async with listening(broker) as client:
            async with running(MqttPublisher(broker.url, status=status)) as publisher:
                assert await received(client) == (STATUS, ONLINE)
                publisher.publish("session_end", "end")
            assert await received(client) == ("tamulag/v1/site/device/event", "end")
            assert await received(client) == (STATUS, OFFLINE)
        assert await retained(broker) == OFFLINE

    within(10, scenario())


ONE_DEVICE = """
import asyncio, sys
from tamulag.streamer.publishers.mqtt import MqttPublisher

async def main():
    publisher = MqttPublisher(sys.argv[1], status=lambda word: '{"state": "%s"}' % word)
    await publisher.open()
    print("open", flush=True)
    await publisher.run()

asyncio.run(main())
"""


@pytest.mark.broker
def test_a_killed_device_is_offline(broker: Broker) -> None:
    """The broker publishes the will of a process that was killed."""

    async def scenario() -> None:
        device = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ONE_DEVICE, broker.url, stdout=asyncio.subprocess.PIPE
        )
        assert device.stdout
        assert await device.stdout.readline() == b"open\n"
        async with listening(broker) as client:
            assert await received(client) == (STATUS, ONLINE)
            device.kill()
            await device.wait()
            assert await received(client) == (STATUS, OFFLINE)
        assert await retained(broker) == OFFLINE

    within(20, scenario())


@pytest.mark.broker
def test_a_restarted_broker_is_found_again(broker: Broker) -> None:
    """Within 5 seconds of its return the broker has the latest status and what waited."""

    async def scenario() -> None:
        async with running(MqttPublisher(broker.url, status=status)) as publisher:
            publisher.publish("status", status("degraded"))
            await until(lambda: len(publisher._outbox) == 0)
            may_connect = held_back(publisher)
            broker.kill()
            await until(lambda: publisher._client is None)
            publisher.publish("error", "meanwhile")
            broker.start()
            back = time.monotonic()
            async with listening(broker) as client:
                may_connect.set()
                topics = [await received(client) for _ in range(2)]
            assert time.monotonic() - back < 5.0
            assert (STATUS, status("degraded")) in topics
            assert ("tamulag/v1/site/device/event", "meanwhile") in topics

    within(20, scenario())


@pytest.mark.broker
def test_a_certain_message_survives_its_broker(broker: Broker) -> None:
    """An error that a dying broker took and never confirmed is sent again to the next one."""

    async def scenario() -> None:
        async with running(MqttPublisher(broker.url, status=status)) as publisher:
            broker.freeze()
            publisher.publish("error", "lost?")
            await until(lambda: publisher._in_flight is not None)
            may_connect = held_back(publisher)
            broker.kill()
            await until(lambda: publisher._client is None)
            broker.start()
            async with listening(broker, "tamulag/v1/site/device/event") as client:
                may_connect.set()
                assert await received(client) == ("tamulag/v1/site/device/event", "lost?")

    within(20, scenario())


@pytest.mark.broker
def test_a_frozen_broker_costs_nothing_but_old_messages(broker: Broker) -> None:
    """Publishing never waits, the outbox stays bounded, and the newest arrive after the thaw."""

    async def scenario() -> None:
        async with running(MqttPublisher(broker.url, status=status)) as publisher:
            broker.freeze()
            slowest = 0.0
            for _ in range(200):
                start = time.monotonic()
                publisher.publish("sentiment", "x" * 100_000)
                slowest = max(slowest, time.monotonic() - start)
                await asyncio.sleep(0.001)
            assert slowest < 0.05
            assert publisher.dropped > 0
            assert len(publisher._outbox) == 32
            publisher.publish("sentiment", "newest")
            await until(lambda: publisher._client is None)
            broker.thaw()
            async with listening(broker) as client:
                while await received(client) != ("tamulag/v1/site/device/state", "newest"):
                    pass

    within(30, scenario())


@pytest.mark.broker
def test_a_broker_is_found_frozen_within_two_seconds_of_a_score(broker: Broker) -> None:
    """Its loss and its return are told once each, and it gets no scores of the past."""
    told: list[str | None] = []

    def tell(reason: str | None, detail: str) -> None:
        told.append(reason)

    async def scenario() -> None:
        publisher = MqttPublisher(broker.url, status=status, report=tell)
        async with running(publisher), listening(broker, "tamulag/v1/site/device/state") as client:
            publisher.publish("sentiment", "first")
            assert (await received(client))[1] == "first"
            broker.freeze()
            start = time.monotonic()
            publisher.publish("sentiment", "in flight")
            await until(lambda: bool(told))
            assert time.monotonic() - start < 2.0
            for number in range(5):
                publisher.publish("sentiment", f"score {number}")
            broker.thaw()
            await until(lambda: len(told) == 2)
            assert told == ["publisher_lost", None]
            assert (await received(client))[1] == "in flight"
            assert (await received(client))[1] == "score 4"

    within(20, scenario())


@pytest.mark.broker
def test_only_the_newest_state_waits_for_a_broker_that_is_away(broker: Broker) -> None:
    """After the return come all events, in order, and one score: the newest."""

    async def scenario() -> None:
        async with running(MqttPublisher(broker.url, status=status)) as publisher:
            may_connect = held_back(publisher)
            broker.kill()
            await until(lambda: publisher._client is None)
            for number in range(10):
                publisher.publish("sentiment", f"score {number}")
                publisher.publish("error", f"error {number}")
            assert (len(publisher._outbox), publisher.dropped) == (11, 9)
            broker.start()
            async with listening(broker) as client:
                may_connect.set()
                told = [await received(client) for _ in range(12)]
            payloads = [payload for _, payload in told if payload != ONLINE]
            wanted = [f"error {number}" for number in range(10)]
            assert payloads == [*wanted[:9], "score 9", wanted[9]]

    within(20, scenario())


@pytest.mark.broker
def test_closing_before_a_frozen_broker_is_bounded(broker: Broker) -> None:
    """`close` gives up within 2 seconds and leaves neither a task nor a socket."""

    async def scenario() -> None:
        async with running(MqttPublisher(broker.url, status=status)) as publisher:
            broker.freeze()
            for _ in range(100):
                publisher.publish("sentiment", "x" * 100_000)
                await asyncio.sleep(0)
            start = time.monotonic()
        assert time.monotonic() - start < 2.0
        assert len(asyncio.all_tasks()) == 1

    within(10, scenario())


@pytest.mark.broker
def test_a_cancellation_survives_a_lost_broker(broker: Broker) -> None:
    """A stop that comes in the same moment as the loss of the broker still ends `run`."""

    async def scenario() -> None:
        publisher = MqttPublisher(broker.url, status=status)
        await publisher.open()
        run = asyncio.create_task(publisher.run())
        await asyncio.sleep(0)
        assert publisher._client
        lost = publisher._client._disconnected
        broker.kill()
        lost.add_done_callback(lambda _: run.cancel())
        await asyncio.wait([run])
        await publisher.close()

    within(10, scenario())


@pytest.mark.broker
def test_closing_while_the_broker_is_away_is_harmless(broker: Broker) -> None:
    """Cancelling and closing in the middle of reconnecting leaves no task."""

    async def scenario() -> None:
        async with running(MqttPublisher(broker.url, status=status)) as publisher:
            broker.kill()
            await until(lambda: publisher._client is None)
        await publisher.close()
        assert len(asyncio.all_tasks()) == 1

    within(10, scenario())


@pytest.mark.broker
def test_a_missing_broker_is_reported(broker: Broker) -> None:
    """The error names the address, the reason and the remedy."""
    broker.kill()
    text = (
        rf"cannot reach .* 127\.0\.0\.1:{broker.port} \(.*refused\): start one .*leave --mqtt out"
    )
    with pytest.raises(PublisherError, match=text):
        open_and_close(MqttPublisher(broker.url, status=status))


@pytest.mark.broker
def test_a_frozen_broker_is_reported_within_five_seconds(broker: Broker) -> None:
    """A broker that takes the connection and says nothing does not hold up the start."""
    broker.freeze()
    start = time.monotonic()
    with pytest.raises(PublisherError, match=r"cannot reach .*timed out.*start one"):
        open_and_close(MqttPublisher(broker.url, status=status))
    assert time.monotonic() - start < 5.0


@pytest.mark.parametrize("site", ["", "a/b", "+", "all#"])
def test_a_site_that_breaks_the_topic_is_reported(site: str) -> None:
    """A site or device is one plain level of the topic."""
    with pytest.raises(PublisherError, match=r"site .* cannot be a level of an MQTT topic"):
        MqttPublisher("mqtt://localhost", status=status, site=site)


def test_the_client_s_lines_do_not_fill_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of its client's warnings one of each kind in a minute is logged, of its packets none."""
    now = [0.0]
    monkeypatch.setattr(mqtt, "time", SimpleNamespace(monotonic=lambda: now[0]))

    async def logger_of_client() -> logging.Logger:
        client = MqttPublisher("mqtt://localhost", status=status)._new_client()._client
        assert client._logger is not None
        return client._logger

    log = asyncio.run(logger_of_client())
    with caplog.at_level(logging.DEBUG):
        for second in (1.0, 2.0, REPEAT - 1.0, REPEAT + 2.0):
            now[0] = 1e9 + second
            log.warning("packet %d is too much", second)
            log.warning("another kind")
            log.info("a packet")
    assert caplog.messages == [
        *("packet 1 is too much", "another kind"),
        *("packet 62 is too much", "another kind"),
    ]
