"""What one subscriber gets from a running agent, and when.

Knows lines of JSON and the clock. Knows no transport: the lines come from elsewhere.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

MOST = 20_000
"""Messages that are held; the oldest go."""

Message = dict[str, Any]
IsIt = Callable[[Message], bool]


class Receipt(NamedTuple):
    """A message and when it came, monotonic time."""

    at: float
    message: Message


class MessageProbe:
    """Store what comes, in a thread that ends with the lines.

    Args:
        name: Of the thread.
        lines: One message each, as JSON.
    """

    def __init__(self, name: str, lines: Iterable[str]) -> None:
        self._receipts: deque[Receipt] = deque(maxlen=MOST)
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._read, args=(lines,), name=f"tamulag.probe.{name}", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[Receipt]:
        """Yield what has come so far."""
        with self._changed:
            return iter(list(self._receipts))

    def first(self, is_it: IsIt, *, since: float, limit: float) -> Receipt | None:
        """Wait until `limit` seconds from now for the first message of a kind after `since`."""
        found: list[Receipt] = []

        def is_here() -> bool:
            found[:] = (r for r in self._receipts if r.at >= since and is_it(r.message))
            return bool(found)

        with self._changed:
            self._changed.wait_for(is_here, limit)
        return found[0] if found else None

    def scores(self, since: float, until: float) -> set[int]:
        """Return the numbers of the scores that came between two moments."""
        return {r.message["seq"] for r in self if _is_score(r.message) and since <= r.at <= until}

    def skipped(self, since: float, until: float) -> int:
        """Return how many numbers are missing between two moments."""
        numbered = [r for r in self if since <= r.at <= until and r.message["type"] != "heartbeat"]
        seqs = [r.message["seq"] for r in numbered if r.message["type"] != "hello"]
        return max(seqs) - min(seqs) + 1 - len(set(seqs)) if seqs else 0

    def join(self, limit: float) -> bool:
        """Wait for the end of the lines; return whether it came within `limit` seconds."""
        self._thread.join(limit)
        return not self._thread.is_alive()

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            receipt = Receipt(time.monotonic(), json.loads(line))
            with self._changed:
                self._receipts.append(receipt)
                self._changed.notify_all()


def _is_score(message: Message) -> bool:
    return bool(message["type"] == "sentiment")


def is_lost(what: str) -> IsIt:
    """Return a test for the status that something is lost."""
    return lambda message: message["type"] == "status" and what in message["lost"]


def is_back(what: str) -> IsIt:
    """Return a test for the status that something is there."""
    return lambda message: message["type"] == "status" and what not in message["lost"]


def has_score(modality: str) -> IsIt:
    """Return a test for a score in which a modality counts."""
    return lambda m: _is_score(m) and m["modalities"][modality]["status"] == "ok"
