"""Publish messages to an MQTT broker, whether it is there, away, frozen or back again.

Knows topics, quality of service, the will and reconnecting. Knows nothing of what the messages say
but their kind, and leaves addresses, certificates and passwords to broker.py.
"""

import asyncio
import contextlib
import logging
import random
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import aiomqtt

from .mqtt_login import CREDENTIALS, Login, broker, remedy
from .publisher import Outbox, PublisherError, Tell, tell_nobody

logger = logging.getLogger("tamulag.mqtt")

_ANSWER = 1.2
"""Seconds the broker may take for an answer: to the connect packet, or for a QoS 1 receipt.

With the wait for the next score, 0.5 s, a frozen broker is told within the two seconds allowed.
"""

_SOCKET_ANSWER = 2.0  # seconds; TCP and TLS

_FIRST_CONNECT = 5.0
_GOODBYE = 1.5
_SHORTEST_PAUSE = 0.5
_LONGEST_PAUSE = 4.0  # keeps recovery within 5 seconds


@dataclass(frozen=True, slots=True)
class _Route:
    topic: str
    qos: int = 0
    retain: bool = False
    device: str | None = None
    """Instead of our own, in the topic."""


_EVENT = _Route("event")
_CERTAIN_EVENT = _Route("event", qos=1)
_STATUS = _Route("status", qos=1, retain=True)
# Not for its own sake: a missing receipt is how a frozen broker is found within two seconds, and
# without receipts a socket's buffers would take scores of the past for it.
_STATE = _Route("state", qos=1)
_ROUTES = {
    "sentiment": _STATE,
    "text": _Route("text"),
    "status": _STATUS,
    "session_start": _CERTAIN_EVENT,
    "session_end": _CERTAIN_EVENT,
    "error": _CERTAIN_EVENT,
}

# Of one of many sessions: nobody waits for receipts of thousands, and nothing of them stays behind.
_OF_SESSION = {"sentiment": _Route("state"), "text": _Route("text"), "status": _Route("status")}

_Message = tuple[_Route, str]


class MqttPublisher:
    """Send every message to `tamulag/v1/<site>/<device>/{state,text,event,status}`.

    The outbox drops its oldest message when the broker is slow. While it is away only the newest
    `state` waits, as nobody wants a score of the past, and events keep their order. The retained
    status is the latest one published, `online` before the first, and `offline` after `close`;
    should the process or its network die, the broker itself publishes `offline`, the will.

    Args:
        url: `mqtt://HOST[:PORT]`, or `mqtts://` for TLS.
        login: Certificates, user and password; without a user the environment variables
            TAMULAG_MQTT_USERNAME and TAMULAG_MQTT_PASSWORD count.
        status: Makes the payload for a state word, `online` or `offline`.
        site: Third level of the topics.
        device: Fourth level of the topics.
        keepalive: Seconds of silence after which the broker is asked for a sign of life, and
            after one and a half of which it publishes the will.
        queue: Messages that may wait for the broker.
        announced: Retained messages by their whole topic, sent anew with each connection: what
            other programs want to know of the device.
        tell: Called with `publisher_lost` and why when the broker is lost, and with None when it
            is back.

    Raises:
        PublisherError: If `url`, `login`, `site` or `device` cannot be used.
    """

    name = "mqtt"

    def __init__(
        self,
        url: str,
        *,
        status: Callable[[str], str],
        login: Login | None = None,
        site: str = "site",
        device: str = "device",
        keepalive: int = 10,
        queue: int = 32,
        announced: Mapping[str, str] | None = None,
        tell: Tell = tell_nobody,
    ) -> None:
        self._broker = broker(url, login)
        self._site = f"tamulag/v1/{_level('site', site)}"
        self._root = f"{self._site}/{_level('device', device)}"
        self._make_status = status
        self._announced = announced or {}
        self._tell = tell
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
                f"give {CREDENTIALS}, or leave --mqtt out"
            ) from error
        except (aiomqtt.MqttError, TimeoutError) as error:
            raise PublisherError(
                f"cannot reach {self._broker} ({str(error) or 'no answer'}): {remedy(error)}"
            ) from error

    def publish(self, kind: str, payload: str) -> None:
        """Put a message into the outbox; `hello` and `heartbeat` are not sent over MQTT."""
        if kind in ("hello", "heartbeat"):
            return  # the retained status greets a newcomer, and the broker watches the connection
        if kind == "status":
            self._status = payload
        self._outbox.put((_ROUTES.get(kind, _EVENT), payload))
        if self._client is None:
            self._outbox.keep_newest(_is_state)

    def publish_of(self, session: str, kind: str, payload: str) -> None:
        """Put a message of one of many sessions into the outbox, under the session's own topic.

        While the broker is away nothing of them waits.
        """
        if kind in ("hello", "heartbeat") or self._client is None:
            return
        route = _OF_SESSION.get(kind, _EVENT)
        self._outbox.put((replace(route, device=session), payload))

    async def run(self) -> None:
        """Deliver, and reconnect whenever the broker is lost."""
        while True:
            assert self._client is not None, "open() comes first"
            try:
                await self._deliver_until_lost(self._client)
            except aiomqtt.MqttError as lost:
                logger.warning("lost %s: %s", self._broker, lost)
                self._tell("publisher_lost", f"lost {self._broker}: {lost}")
            await self._reconnect()
            self._tell(None, f"{self._broker} is back")

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
            for topic, payload in self._announced.items():
                with _heeding_cancellation():
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
            self._broker.host,
            self._broker.port,
            identifier=self._identifier,
            username=self._broker.user,
            password=self._broker.password,
            tls_context=self._broker.tls,
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
        client._client.connect_timeout = _SOCKET_ANSWER
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
        root = f"{self._site}/{route.device}" if route.device else self._root
        topic = f"{root}/{route.topic}"
        with _heeding_cancellation():
            await client.publish(topic, payload, qos=route.qos, retain=route.retain)


def _is_state(message: _Message) -> bool:
    return message[0] is _STATE


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


def _level(name: str, value: str) -> str:
    if not value or any(character in "/+#\0" for character in value):
        remedy = "use at least one character, and none of / + #"
        raise PublisherError(f"{name} {value!r} cannot be a level of an MQTT topic: {remedy}")
    return value
