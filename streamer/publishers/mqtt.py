"""Publish messages to an MQTT broker that may be away, frozen or back again.

Knows topics, quality of service, the will and reconnecting. Knows of a message its type alone, and
leaves addresses, certificates and passwords to mqtt_login.py.
"""

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import aiomqtt

from ..aio.backoff import Backoff
from .mqtt_login import CREDENTIALS, MqttLogin, parse_broker, remedy
from .publisher import LossCallback, Outbox, PublisherError, ignore_loss

logger = logging.getLogger("tamulag.mqtt")

REPEAT = 60.0
"""Seconds in which the client library's lines of one kind become one line of the log."""


class _OncePerKind(logging.Filter):
    """Lets one line of each kind through in `REPEAT` seconds: a broker must not fill the log."""

    def __init__(self) -> None:
        super().__init__()
        self._newest: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is logged; see logging.Filter."""
        kind, now = str(record.msg)[:80], time.monotonic()
        if now - self._newest.get(kind, -REPEAT) < REPEAT:
            return False
        self._newest = {one: at for one, at in self._newest.items() if now - at < REPEAT}
        self._newest[kind] = now
        return True


_client_logger = logging.getLogger("tamulag.mqtt.client")
_client_logger.setLevel(logging.WARNING)  # lower levels log every packet
_client_logger.addFilter(_OncePerKind())

_ACK_TIMEOUT = 1.2
"""Seconds for an answer of the broker: to the connect packet, or for a QoS 1 acknowledgement.

With the wait for the next score, 0.5 s, a frozen broker is reported within two seconds.
"""

_SOCKET_TIMEOUT = 2.0  # seconds; TCP and TLS

_CONNECT_TIMEOUT = 5.0
_CLOSE_TIMEOUT = 1.5


@dataclass(frozen=True, slots=True)
class _Route:
    topic: str
    qos: int = 0
    retain: bool = False
    session: str | None = None
    """One of many sessions, whose topics lie below ours: it cannot publish in another's name."""


_EVENT = _Route("event")
_ACKED_EVENT = _Route("event", qos=1)
_STATUS = _Route("status", qos=1, retain=True)
# QoS 1 because a missing acknowledgement reveals a frozen broker within two seconds; without it the
# socket's buffers would collect outdated scores.
_STATE = _Route("state", qos=1)
_ROUTES = {
    "sentiment": _STATE,
    "text": _Route("text"),
    "status": _STATUS,
    "session_start": _ACKED_EVENT,
    "session_end": _ACKED_EVENT,
    "error": _ACKED_EVENT,
}

# For one of many sessions: no acknowledgements for thousands, and nothing retained.
_SESSION_ROUTES = {"sentiment": _Route("state"), "text": _Route("text"), "status": _Route("status")}

_Message = tuple[_Route, str]


class MqttPublisher:
    """Publishes every message to `tamulag/v1/<site>/<device>/{state,text,event,status}`.

    Those of one of many sessions go to the same names below `<device>/sessions/<session>`.

    The outbox drops its oldest message when the broker is slow. While it is away only the newest
    `state` is queued, because an outdated score is of no use; events stay in order. The retained
    status is the latest one published, `online` before the first, and `offline` after `close`; if
    the process or its network dies, the broker itself publishes `offline`, the will.

    Args:
        url: `mqtt://HOST[:PORT]`, or `mqtts://` for TLS.
        login: Certificates, user and password; without a user the environment variables
            TAMULAG_MQTT_USERNAME and TAMULAG_MQTT_PASSWORD are used.
        status: Returns the payload for a state word, `online` or `offline`.
        site: Third level of the topics.
        device: Fourth level of the topics.
        keepalive: Seconds of silence after which the broker is pinged, and after one and a half
            times which it publishes the will.
        queue: Messages that may be queued for the broker.
        retained: Further retained messages by their whole topic, sent on each connection, e.g. for
            discovery.
        report: Called with `publisher_lost` and a detail when the broker is lost, and with None
            when it is back.

    Raises:
        PublisherError: If `url`, `login`, `site` or `device` cannot be used.
    """

    name = "mqtt"

    def __init__(
        self,
        url: str,
        *,
        status: Callable[[str], str],
        login: MqttLogin | None = None,
        site: str = "site",
        device: str = "device",
        keepalive: int = 10,
        queue: int = 32,
        retained: Mapping[str, str] | None = None,
        report: LossCallback = ignore_loss,
    ) -> None:
        self._broker = parse_broker(url, login)
        self._root = f"tamulag/v1/{_level('site', site)}/{_level('device', device)}"
        self._make_status = status
        self._retained = retained or {}
        self._report = report
        self._status: str | None = None
        self._keepalive = keepalive
        # 20 characters: every broker accepts 23. Two clients of one name disconnect each other.
        self._identifier = f"tamulag-{secrets.token_hex(6)}"
        self._outbox: Outbox[_Message] = Outbox(queue)
        self._in_flight: _Message | None = None
        self._client: aiomqtt.Client | None = None

    @property
    def dropped(self) -> int:
        """Messages dropped because the broker was too slow or away too long."""
        return self._outbox.dropped

    async def open(self) -> None:
        """Connect and publish the retained status, within 5 seconds.

        Raises:
            PublisherError: If the broker cannot be reached or refuses the connection.
        """
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                await self._connect()
        except aiomqtt.exceptions.MqttConnectError as error:
            raise PublisherError(
                f"{self._broker} refused the connection ({error}): "
                f"give {CREDENTIALS}, or leave --mqtt out (Mqtt)"
            ) from error
        except (aiomqtt.MqttError, TimeoutError) as error:
            raise PublisherError(
                f"cannot reach {self._broker} ({str(error) or 'no answer'}): {remedy(error)}"
            ) from error

    def publish(self, kind: str, payload: str) -> None:
        """Queue a message; `hello` and `heartbeat` are not sent over MQTT."""
        if kind in ("hello", "heartbeat"):
            return  # the retained status informs a new subscriber, keepalive checks the connection
        if kind == "status":
            self._status = payload
        self._outbox.put((_ROUTES.get(kind, _EVENT), payload))
        if self._client is None:
            self._outbox.keep_newest(_is_state)

    def publish_of(self, session: str, kind: str, payload: str) -> None:
        """Queue a message of one of many sessions, under the session's own topic.

        While the broker is away it is dropped.
        """
        if kind in ("hello", "heartbeat") or self._client is None:
            return
        route = _SESSION_ROUTES.get(kind, _EVENT)
        self._outbox.put((replace(route, session=session), payload))

    async def run(self) -> None:
        """Deliver, and reconnect whenever the broker is lost."""
        while True:
            assert self._client is not None, "open() comes first"
            try:
                await self._deliver_until_lost(self._client)
            except aiomqtt.MqttError as lost:
                logger.warning("lost %s: %s", self._broker, lost)
                self._report("publisher_lost", f"lost {self._broker}: {lost}")
            await self._reconnect()
            self._report(None, f"{self._broker} is back")

    async def close(self) -> None:
        """Flush the queue, replace the retained status by `offline` and disconnect."""
        client, self._client = self._client, None
        if client is None:
            return
        self._outbox.end()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._deliver(client)
                # A clean disconnect makes the broker discard the will.
                await self._send(client, (_STATUS, self._make_status("offline")))
                await client.__aexit__(None, None, None)
        except (aiomqtt.MqttError, TimeoutError) as error:
            reason, lost = str(error) or "no answer", len(self._outbox)
            logger.warning("left %s (%s), %d messages not sent", self._broker, reason, lost)
        finally:
            await _cut(client)

    async def _connect(self) -> None:
        # A new client each time: a used one mistakes its old answer for the broker's new one.
        client = self._new_client()
        try:
            with _reraising_cancellation():
                await client.__aenter__()
            await self._send(client, (_STATUS, self._status or self._make_status("online")))
            for topic, payload in self._retained.items():
                with _reraising_cancellation():
                    await client.publish(topic, payload, qos=1, retain=True)
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
        self._outbox.keep_newest(_is_state)
        backoff = Backoff(least=0.0)
        while self._client is None:
            # Full jitter: devices that lost one broker together must not reconnect together.
            await asyncio.sleep(backoff.next())
            try:
                await self._connect()
            except aiomqtt.MqttError as error:
                logger.debug("%s is still away: %s", self._broker, error)

    def _new_client(self) -> aiomqtt.Client:
        client = aiomqtt.Client(
            self._broker.host,
            self._broker.port,
            identifier=self._identifier,
            username=self._broker.user,
            password=self._broker.password,
            tls_context=self._broker.tls,
            keepalive=self._keepalive,
            timeout=_ACK_TIMEOUT,
            will=aiomqtt.Will(
                f"{self._root}/{_STATUS.topic}",
                self._make_status("offline"),
                qos=_STATUS.qos,
                retain=_STATUS.retain,
            ),
            # Nothing is subscribed to, and Nagle's algorithm delays acknowledgements by 20 ms.
            max_queued_incoming_messages=1,
            logger=_client_logger,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        # The thread that connects cannot be cancelled, and the interpreter waits for it at exit.
        client._client.connect_timeout = _SOCKET_TIMEOUT
        return client

    async def _deliver_until_lost(self, client: aiomqtt.Client) -> None:
        # Not a TaskGroup: in Python 3.11 it loses a cancellation that coincides with an error.
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
        root = f"{self._root}/sessions/{route.session}" if route.session else self._root
        topic = f"{root}/{route.topic}"
        with _reraising_cancellation():
            await client.publish(topic, payload, qos=route.qos, retain=route.retain)


def _is_state(message: _Message) -> bool:
    return message[0] is _STATE


@contextlib.contextmanager
def _reraising_cancellation() -> Iterator[None]:
    # asyncio.wait_for, inside aiomqtt, loses a cancellation that meets a result before 3.12.
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
    # A cancelled connect continues in its thread and must not reach this loop any more.
    paho.on_socket_open = paho.on_socket_register_write = None
    paho.on_socket_close = paho.on_socket_unregister_write = None
    if housekeeping is not None:
        await asyncio.wait([housekeeping], timeout=1.0)
    if lost.done() and not lost.cancelled():
        lost.exception()  # mark as retrieved: reported already, or irrelevant


def _level(name: str, value: str) -> str:
    if not value or any(character in "/+#\0" for character in value):
        remedy = "use at least one character, and none of / + #"
        raise PublisherError(f"{name} {value!r} cannot be a level of an MQTT topic: {remedy}")
    return value
