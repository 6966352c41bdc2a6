"""Report readiness, status and liveness to a service manager: sd_notify.

Knows systemd's datagrams and the types of messages. Knows of their content the state word of a
status alone.
"""

import asyncio
import json
import logging
import os
import socket
from collections.abc import Mapping

from .publisher import PublisherError

logger = logging.getLogger("tamulag.service")

SPARE_HOPS = 4.0
"""Hops that may fail before the watchdog acts; fewer would end a run that is merely slow."""


class SystemdPublisher:
    """Reports to the socket that the service manager named.

    `READY=1` goes with the first status, which is sent when all sources are open; `STATUS=` with
    every status; `WATCHDOG=1` with every score, so that neither an event loop that hangs nor a
    session that no longer closes hops satisfies the watchdog; `STOPPING=1` with the session's end.
    Nothing waits: a datagram that finds no room is dropped and counted.

    Args:
        environment: With NOTIFY_SOCKET and, where there is a watchdog, WATCHDOG_USEC and
            WATCHDOG_PID.
        hop: Seconds between two scores.
        process: Id of the process that the watchdog must refer to.

    Raises:
        PublisherError: If the watchdog's limit is too short for the hop: it would restart a
            healthy process again and again.
    """

    name = "service"

    def __init__(
        self, environment: Mapping[str, str], *, hop: float, process: int | None = None
    ) -> None:
        self.dropped = 0
        self._address = environment["NOTIFY_SOCKET"]
        self._process = os.getpid() if process is None else process
        self._is_watched = _is_watched(environment, hop, self._process)
        self._socket: socket.socket | None = None
        self._is_ready = False

    async def open(self) -> None:
        """Connect to the manager's socket.

        Raises:
            PublisherError: If there is none.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        try:
            self._socket.connect(_path(self._address))
        except OSError as error:
            await self.close()
            raise PublisherError(
                f"cannot reach NOTIFY_SOCKET {self._address} ({error.strerror}): "
                "start the program by systemd with Type=notify, or unset NOTIFY_SOCKET"
            ) from error

    def publish(self, kind: str, payload: str) -> None:
        """Translate a message into sd_notify lines and send them."""
        if kind == "status":
            self._send(f"STATUS={_summary(payload)}", *(() if self._is_ready else ("READY=1",)))
            self._is_ready = True
        elif kind == "sentiment" and self._is_watched:
            self._send("WATCHDOG=1")
        elif kind == "session_end":
            self._send("STOPPING=1")

    async def run(self) -> None:
        """Wait until cancelled; everything is sent in `publish`."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Close the socket."""
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    def _send(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.send("\n".join(lines).encode())
        except OSError as error:
            self.dropped += 1
            if self.dropped == 1:
                logger.warning("the service manager does not listen (%s)", error.strerror)


def _path(address: str) -> str:
    # A name that begins with @ is in the abstract namespace, outside of the file system.
    return f"\0{address[1:]}" if address.startswith("@") else address


def _is_watched(environment: Mapping[str, str], hop: float, process: int) -> bool:
    """Return whether there is a watchdog that refers to us and not to our parent."""
    if "WATCHDOG_USEC" not in environment:
        return False
    if environment.get("WATCHDOG_PID", str(process)) != str(process):
        return False
    limit, least = int(environment["WATCHDOG_USEC"]) / 1e6, 2.0 + SPARE_HOPS * hop
    if limit < least:
        raise PublisherError(
            f"a watchdog of {limit:g} s is too short for hops of {hop:g} s: "
            f"set WatchdogSec={least:g} or more"
        )
    return True


def _summary(payload: str) -> str:
    """Return a status for people, e.g. `degraded: vision camera_lost`."""
    status = json.loads(payload)
    lost = ", ".join(f"{modality} {reason}" for modality, reason in status["lost"].items())
    return f"{status['state']}: {lost}" if lost else str(status["state"])
