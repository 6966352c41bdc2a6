"""Whether one more session has room: refused before the others' latency suffers, never after.

Knows how busy the server was and what a session costs. Knows no session and no connection.
"""

BUSIEST = 0.8
"""Share of one core that the loop that serves all sessions may take: beyond it, waiting times grow
faster than work does."""

SLOWEST, OFTEN = 0.25, 3
"""Seconds that a round of the loop may take, and how often one may take longer in two seconds: a
machine that others share is full before our own work says so."""

RETRY = 5.0
"""Seconds after which it is worth to ask again."""

LATER = f"try again in {RETRY:g} s"
"""What whoever is refused is told."""

_LOOK = 2.0
"""Seconds over which the load is taken."""

_FEW = 20
"""Sessions below which the load does not tell what one costs: it is the loop's own work."""


class Admission:
    """Decide who may begin.

    Args:
        seats: Sessions at most.
        cost: Share of a core that one session takes, before any was measured.
        busiest: See `BUSIEST`.
    """

    def __init__(self, seats: int, *, cost: float, busiest: float = BUSIEST) -> None:
        self.seats = seats
        self.busy = 0.0
        """Share of a core that was taken of late."""
        self.slow = 0.0
        """Seconds of the longest round of the loop of late."""
        self._busiest = busiest
        self._cost = cost
        self._served = 0.0
        """Sessions that were there, on average, when `busy` was taken."""
        self._begun: tuple[float, float] | None = None
        self._counts: list[int] = []
        self._slow: list[float] = []
        self._is_slow = False

    def observe(self, now: float, worked: float, sessions: int, slow: float = 0.0) -> None:
        """Take how long the loop has worked since it began; to be called a few times a second.

        Args:
            now: Any steady clock, seconds.
            worked: Processor seconds of the loop's thread so far.
            sessions: That are served now.
            slow: Seconds of the longest round since the last call.
        """
        if self._begun is None:
            self._begun = (now, worked)
        self._counts.append(sessions)
        self._slow.append(slow)
        begun, before = self._begun
        if now - begun < _LOOK:
            return
        self.busy = (worked - before) / (now - begun)
        self._served = sum(self._counts) / len(self._counts)
        self.slow = max(self._slow)
        self._is_slow = sum(slow > SLOWEST for slow in self._slow) >= OFTEN
        if self._served >= _FEW:
            self._cost = self.busy / self._served
        self._begun, self._counts, self._slow = (now, worked), [], []

    def admit(self, sessions: int, front: float = 0.0) -> str | None:
        """Return why another session may not begin; None: it may.

        Args:
            sessions: That are served now; those that the load does not show yet count with what
                one costs.
            front: Load of the worker processes, 0 to 1, if it needs one.
        """
        expected = self.busy + (sessions + 1 - self._served) * self._cost
        if sessions >= self.seats:
            return f"all {self.seats} seats are taken: {LATER}"
        if expected > self._busiest or self._is_slow:
            return f"the server is busy: {LATER}"
        if front > self._busiest:
            return f"the front ends are busy: {LATER}"
        return None
