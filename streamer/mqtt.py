"""Publish messages to an MQTT broker, whether it is there, away, frozen or back again.

Knows topics, quality of service, the will and reconnecting. Knows nothing of what the messages say.
"""

import asyncio
import contextlib
import logging
import os
import random
import secrets
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiomqtt

from .publisher import Outbox, PublisherError

logger = logging.getLogger("tamulag.mqtt")

_USERNAME = "TAMULAG_MQTT_USERNAME"
_PASSWORD = "TAMULAG_MQTT_PASSWORD"
_USE_URL = "use mqtt://HOST or mqtt://HOST:PORT with --mqtt"

_ANSWER = 2.0
"""Seconds the broker may take for one answer: TCP connect, connect packet, QoS 1 receipt."""

_FIRST_CONNECT = 5.0
_GOODBYE = 1.5
_SHORTEST_PAUSE = 0.5
_LONGEST_PAUSE = 4.0  # keeps recovery within 5 seconds


@dataclass(frozen=True, slots=True)
class _Route:
    topic: str
    qos: int = 0
    retain: bool = False


_EVENT = _Route("event")
_CERTAIN_EVENT = _Route("event", qos=1)
_STATUS = _Route("status", qos=1, retain=True)
_ROUTES = {
    "sentiment": _Route("state"),
    "text": _Route("text"),
    "status": _STATUS,
    "session_start": _CERTAIN_EVENT,
    "session_end": _CERTAIN_EVENT,
    "error": _CERTAIN_EVENT,
}

_Message = tuple[_Route, str]


class MqttPublisher:
    """Send every message to `tamulag/v1/<site>/<device>/{state,text,event,status}`.

    The outbox drops its oldest message when the broker is away or slow. The retained status is
    the latest one published, `online` before the first, and `offline` after `close`; should the
    process or its network die, the broker itself publishes `offline`, the will.

    Args:
        url: `mqtt://HOST[:PORT]`; a user name and password come from the environment variables
            TAMULAG_MQTT_USERNAME and TAMULAG_MQTT_PASSWORD.
        status: Makes the payload for a state word, `online` or `offline`.
        site: Third level of the topics.
        device: Fourth level of the topics.
        keepalive: Seconds of silence after which the broker is asked for a sign of life, and
            after one and a half of which it publishes the will.
        queue: Messages that may wait for the broker.

    Raises:
        PublisherError: If `url`, `site` or `device` cannot be used.
    """

    name = "mqtt"

    def __init__(
        self,
        url: str,
        *,
        status: Callable[[str], str],
        site: str = "site",
        device: str = "device",
        keepalive: int = 10,
        queue: int = 32,
    ) -> None:
        self._host, self._port = _address(url)
        self._broker = f"the MQTT broker at {self._host}:{self._port}"
        self._root = f"tamulag/v1/{_level('site', site)}/{_level('device', device)}"
        self._make_status = status
        self._status: str | None = None
        self._keepalive = keepalive
        # 20 characters: every broker must take 23. Two clients of one name cut each other for ever.
        self._identifier = f"tamulag-{secrets.token_hex(6)}"
        self._outbox: Outbox[_Message] = Outbox(queue)
        self._in_flight: _Message | None = None
        self._client: aiomqtt.Client | None = None

    @property
    def dropped(self) -> int:
        """Messages that the broker was too slow or too long away for."""
        return self._outbox.dropped

    async def open(self) -> None:
        """Connect and publish the retained status, within 5 seconds.

        Raises:
            PublisherError: If the broker cannot be reached or refuses the connection.
        """
        try:
            async with asyncio.timeout(_FIRST_CONNECT):
                await self._connect()
        except aiomqtt.exceptions.MqttConnectError as error:
            raise PublisherError(
                f"{self._broker} refused the connection ({error}): "
                f"set {_USERNAME} and {_PASSWORD}, or leave --mqtt out"
            ) from error
        except (aiomqtt.MqttError, TimeoutError) as error:
            raise PublisherError(
                f"cannot reach {self._broker} ({str(error) or 'no answer'}): "
                "start one (e.g. mosquitto) or leave --mqtt out"
            ) from error

    def publish(self, kind: str, payload: str) -> None:
        """Put a message into the outbox; `hello` and `heartbeat` are not sent over MQTT."""
        if kind in ("hello", "heartbeat"):
            return  # the retained status greets a newcomer, and the broker watches the connection
        if kind == "status":
            self._status = payload
        self._outbox.put((_ROUTES.get(kind, _EVENT), payload))

    async def run(self) -> None:
        """Deliver, and reconnect whenever the broker is lost."""
        while True:
            assert self._client is not None, "open() comes first"
            try:
                await self._deliver_until_lost(self._client)
            except aiomqtt.MqttError as lost:
                logger.warning("lost %s: %s", self._broker, lost)
            await self._reconnect()

    async def close(self) -> None:
        """Send what waits, replace the retained status by `offline` and disconnect."""
        client, self._client = self._client, None
        if client is None:
            return
        self._outbox.end()
        try:
            async with asyncio.timeout(_GOODBYE):
                await self._deliver(client)
                # A clean disconnect makes the broker forget the will.
                await self._send(client, (_STATUS, self._make_status("offline")))
                await client.__aexit__(None, None, None)
        except (aiomqtt.MqttError, TimeoutError) as error:
            reason, lost = str(error) or "no answer", len(self._outbox)
            logger.warning("left %s (%s), %d messages not sent", self._broker, reason, lost)
        finally:
            await _cut(client)

    async def _connect(self) -> None:
        # A new client each time: a used one takes its old answer for the broker's new one.
        client = self._new_client()
        try:
            with _heeding_cancellation():
                await client.__aenter__()
            await self._send(client, (_STATUS, self._status or self._make_status("online")))
        except BaseException:
            await _cut(client)
            raise
        self._client = client
        logger.info("connected to %s", self._broker)

    async def _reconnect(self) -> None:
        if self._client is not None:
            await _cut(self._client)
        self._client = None
        if self._in_flight is not None:
            self._outbox.put_back(self._in_flight)
            self._in_flight = None
        longest = _SHORTEST_PAUSE
        while self._client is None:
            # Full jitter: kiosks that lost one broker together must not come back together.
            await asyncio.sleep(random.uniform(0, longest))
            longest = min(_LONGEST_PAUSE, 2 * longest)
            try:
                await self._connect()
            except aiomqtt.MqttError as error:
                logger.debug("%s is still away: %s", self._broker, error)

    def _new_client(self) -> aiomqtt.Client:
        client = aiomqtt.Client(
            self._host,
            self._port,
            identifier=self._identifier,
            username=os.environ.get(_USERNAME),
            password=os.environ.get(_PASSWORD),
            keepalive=self._keepalive,
            timeout=_ANSWER,
            will=aiomqtt.Will(
                f"{self._root}/{_STATUS.topic}",
                self._make_status("offline"),
                qos=_STATUS.qos,
                retain=_STATUS.retain,
            ),
            # Nothing is subscribed to, and receipts come 20 ms late behind Nagle's algorithm.
            max_queued_incoming_messages=1,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        # The thread that connects cannot be cancelled, and the program's end waits for it.
        client._client.connect_timeout = _ANSWER
        return client

    async def _deliver_until_lost(self, client: aiomqtt.Client) -> None:
        # Not a TaskGroup: in Python 3.11 it forgets a cancellation that meets an error.
        tasks = [
            asyncio.create_task(_watch(client), name="tamulag.mqtt.watch"),
            asyncio.create_task(self._deliver(client), name="tamulag.mqtt.deliver"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _deliver(self, client: aiomqtt.Client) -> None:
        async for message in self._outbox:
            self._in_flight = message
            await self._send(client, message)
            self._in_flight = None

    async def _send(self, client: aiomqtt.Client, message: _Message) -> None:
        route, payload = message
        topic = f"{self._root}/{route.topic}"
        with _heeding_cancellation():
            await client.publish(topic, payload, qos=route.qos, retain=route.retain)


@contextlib.contextmanager
def _heeding_cancellation() -> Iterator[None]:
    # asyncio.wait_for, inside aiomqtt, forgets a cancellation that meets a result before 3.12.
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    yield
    if task and task.cancelling() > before:
        raise asyncio.CancelledError


async def _watch(client: aiomqtt.Client) -> None:
    # Nothing is subscribed to: the iteration only ever ends by the error of a lost connection.
    async for _ in client.messages:
        pass


async def _cut(client: aiomqtt.Client) -> None:
    """Close what aiomqtt leaves open when connecting or disconnecting fails or is cancelled."""
    paho, housekeeping, lost = client._client, client._misc_task, client._disconnected
    sock = paho.socket()
    if isinstance(sock, socket.socket):
        with contextlib.suppress(OSError):  # the other end was faster
            sock.shutdown(socket.SHUT_RDWR)
    while paho.socket() is not None:
        paho.loop_read()  # meets the end of the stream and closes the socket
    # A cancelled connect goes on in its thread and must not reach this loop any more.
    paho.on_socket_open = paho.on_socket_register_write = None
    paho.on_socket_close = paho.on_socket_unregister_write = None
    if housekeeping is not None:
        await asyncio.wait([housekeeping], timeout=1.0)
    if lost.done() and not lost.cancelled():
        lost.exception()  # told by now, or of no interest; asyncio complains about an unread one


def _address(url: str) -> tuple[str, int]:
    if "@" in url:  # not quoted: it may hold a password
        raise PublisherError(
            "the --mqtt URL holds a user name or password, which others can see: "
            f"put them into the environment variables {_USERNAME} and {_PASSWORD}"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 1883
    except ValueError as error:
        raise PublisherError(f"cannot use the MQTT address ({error}): {_USE_URL}") from error
    if parts.scheme != "mqtt" or not host or parts.path.strip("/") or parts.query or parts.fragment:
        raise PublisherError(f"cannot use the MQTT address {url}: {_USE_URL}")
    return host, port


def _level(name: str, value: str) -> str:
    if not value or any(character in "/+#\0" for character in value):
        remedy = "use at least one character, and none of / + #"
        raise PublisherError(f"{name} {value!r} cannot be a level of an MQTT topic: {remedy}")
    return value
