"""What one subscriber gets from a running agent, and when.

Knows lines of JSON and the clock. Knows no protocol: whoever makes the lines does.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

KEPT = 20_000
"""Messages that are kept; the oldest go."""

Message = dict[str, Any]
IsIt = Callable[[Message], bool]


class Receipt(NamedTuple):
    """A message and when it came, monotonic time."""

    at: float
    message: Message


class MessageProbe:
    """Keep what comes, in a thread that ends with the lines.

    Args:
        name: Of the thread.
        lines: One message each, as JSON.
    """

    def __init__(self, name: str, lines: Iterable[str]) -> None:
        self._receipts: deque[Receipt] = deque(maxlen=KEPT)
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._listen, args=(lines,), name=f"tamulag.witness.{name}", daemon=True
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
        told = [r for r in self if since <= r.at <= until and r.message["type"] != "heartbeat"]
        seqs = [r.message["seq"] for r in told if r.message["type"] != "hello"]
        return max(seqs) - min(seqs) + 1 - len(set(seqs)) if seqs else 0

    def join(self, limit: float) -> bool:
        """Wait for the end of the lines; return whether it came within `limit` seconds."""
        self._thread.join(limit)
        return not self._thread.is_alive()

    def _listen(self, lines: Iterable[str]) -> None:
        for line in lines:
            receipt = Receipt(time.monotonic(), json.loads(line))
            with self._changed:
                self._receipts.append(receipt)
                self._changed.notify_all()


def _is_score(message: Message) -> bool:
    return bool(message["type"] == "sentiment")


def is_lost(what: str) -> IsIt:
    """Return what tells the status that something is lost from all others."""
    return lambda message: message["type"] == "status" and what in message["lost"]


def is_back(what: str) -> IsIt:
    """Return what tells the status that something is there from all others."""
    return lambda message: message["type"] == "status" and what not in message["lost"]


def has_score(modality: str) -> IsIt:
    """Return what tells a score in which a modality counts from all others."""
    return lambda m: _is_score(m) and m["modalities"][modality]["status"] == "ok"
