"""Which seat a key belongs to: consistent hashing.

Knows names and keys. Knows no session, no machine and no Ray.
"""

from bisect import bisect, insort
from collections.abc import Iterable
from hashlib import blake2b

POINTS = 256
"""Points of a name on the circle: up to 100 names, each has its fair share of it to 35 %."""


class HashRing:
    """Places keys on names, so that few keys move when a name comes or goes.

    Each name has points on a circle of 2**64 places; a key belongs to the name of the first point
    at or after its own place. The same names give the same answer in every process, whatever the
    order in which they were added. Memory and the time of `add` grow with the number of names.
    """

    def __init__(self, names: Iterable[str] = (), *, points: int = POINTS) -> None:
        """Start with these names, each once.

        Args:
            names: Those that keys are placed on.
            points: Points of each name, at least 1; more of them balance better. Rings that are to
                agree need the same number.

        Raises:
            ValueError: If `points` is below 1, or a name is given twice.
        """
        if points < 1:
            raise ValueError(f"points is {points}: give a ring at least 1 point for a name")
        self._points = points
        self._circle: list[tuple[int, str]] = []
        self._names: set[str] = set()
        for name in names:
            self.add(name)

    @property
    def names(self) -> frozenset[str]:
        """Return the names that keys are placed on."""
        return frozenset(self._names)

    def add(self, name: str) -> None:
        """Let a name take its share of the keys; all others stay where they are.

        Raises:
            ValueError: If it is there already.
        """
        if name in self._names:
            raise ValueError(f"{name!r} is in the ring already: remove it first")
        self._names.add(name)
        for place in self._places(name):
            insort(self._circle, (place, name))

    def remove(self, name: str) -> None:
        """Give a name's keys to the others; no other key moves.

        Raises:
            KeyError: If it is not there.
        """
        if name not in self._names:
            raise KeyError(f"{name!r} is not in the ring, which has {sorted(self._names)}")
        self._names.remove(name)
        self._circle = [point for point in self._circle if point[1] != name]

    def place(self, key: str) -> str:
        """Return the name that a key belongs to.

        Raises:
            LookupError: If the ring is empty.
        """
        if not self._circle:
            raise LookupError(f"no seat for {key!r}: add a name to the ring first")
        found = bisect(self._circle, (_place(key), ""))
        return self._circle[found % len(self._circle)][1]

    def _places(self, name: str) -> Iterable[int]:
        return (_place(f"{number} {name}") for number in range(self._points))


def _place(text: str) -> int:
    """Return a place on the circle; Python's own `hash` of a text differs in each process."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
