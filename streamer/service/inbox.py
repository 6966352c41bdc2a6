"""The bounded hand-over from the sources' threads to the event loop.

Knows the delivery policy of each modality. Knows no device and no session.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType

from ..core.sample import Input, Notice, Phrase

BOUNDS: Mapping[str, int] = MappingProxyType({"text": 64, "audio": 500, "vision": 4, "notice": 64})
"""Items that may wait: phrases, ticks (10 s of sound), camera frames, notices."""

_RECHECK = 0.2  # seconds between two looks at `stop` while a file waits for room


def _kind(item: Input) -> str:
    if isinstance(item, Phrase):
        return "text"
    return "notice" if isinstance(item, Notice) else item.modality


class Inbox:
    """A queue of inputs in order of arrival, bounded for each modality on its own.

    Whatever is full drops its own oldest item: vision so keeps the latest frames, while sound
    and text lose something only when the loop stands still for longer than their bound. A lost
    audio tick is a gap that the aligner sees and masks.

    Attributes:
        dropped: Items lost so far: phrases, audio ticks, camera frames, notices.
        waited: Seconds that the oldest item of the newest `get` had waited.
    """

    def __init__(self, bounds: Mapping[str, int] = BOUNDS) -> None:
        self.dropped: dict[str, int] = dict.fromkeys(bounds, 0)
        self.waited = 0.0
        self._oldest = 0.0
        self._bounds = bounds
        self._waiting: dict[str, deque[tuple[int, Input]]] = {kind: deque() for kind in bounds}
        self._arrivals = 0
        self._room = threading.Condition()
        self._wake: asyncio.Future[None] | None = None

    def put(self, item: Input) -> None:
        """Add an item from any thread without waiting; a full modality drops its oldest."""
        with self._room:
            self._add(item)

    def waiting(self) -> dict[str, int]:
        """Return how many items wait now, of each kind."""
        with self._room:
            return {kind: len(queue) for kind, queue in self._waiting.items()}

    def put_blocking(self, item: Input, stop: threading.Event) -> None:
        """Add an item once there is room for it; for files read as fast as the loop can take.

        When `stop` is set it waits no longer and does as `put` does.
        """
        with self._room:
            while self._is_full(_kind(item)) and not stop.is_set():
                self._room.wait(_RECHECK)
            self._add(item)

    async def get(self, timeout: float) -> list[Input]:  # noqa: ASYNC109
        """Take everything that waits, in order of arrival over all modalities.

        Args:
            timeout: Seconds to wait for a first item.

        Returns:
            The items; empty if none came in time.
        """
        with self._room:
            items = self._take()
            if items:
                return items
            wake = self._wake = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait([wake], timeout=timeout)
        finally:
            # Withdrawn under the lock, before the loop can close: no source wakes a dead loop.
            with self._room:
                self._wake = None
                wake.cancel()
        with self._room:
            return self._take()

    def _is_full(self, kind: str) -> bool:
        return len(self._waiting[kind]) >= self._bounds[kind]

    def _add(self, item: Input) -> None:
        kind = _kind(item)
        if self._is_full(kind):
            self._waiting[kind].popleft()
            self.dropped[kind] += 1
        if not any(self._waiting.values()):
            self._oldest = time.monotonic()
        self._waiting[kind].append((self._arrivals, item))
        self._arrivals += 1
        if self._wake is not None:
            self._wake.get_loop().call_soon_threadsafe(_set, self._wake)
            self._wake = None

    def _take(self) -> list[Input]:
        waiting = sorted(
            (entry for queue in self._waiting.values() for entry in queue), key=lambda x: x[0]
        )
        for queue in self._waiting.values():
            queue.clear()
        self.waited = time.monotonic() - self._oldest if waiting else 0.0
        self._room.notify_all()
        return [item for _, item in waiting]


def _set(wake: asyncio.Future[None]) -> None:
    if not wake.done():
        wake.set_result(None)
