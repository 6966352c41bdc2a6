"""Admission control: refuse a new session before the latency of the running ones suffers.

Knows how busy the server was and what a session costs. Knows no session and no connection.
"""

BUSIEST = 0.8
"""Highest busy share of the event loop's core: beyond it waiting times grow faster than work."""

SLOWEST, OFTEN = 0.25, 3
"""Limit of a loop round, seconds, and how many rounds within two seconds may exceed it: a shared
machine is full before our own CPU time shows it."""

RETRY = 5.0
"""Seconds after which a refused sender should try again."""

LATER = f"try again in {RETRY:g} s"
"""Close reason sent to a rejected sender."""

_LOOK = 2.0
"""Interval of a load measurement, seconds."""

_FEW = 20
"""Sessions below which the cost of one is not measured: the load is mostly the loop's own work."""


class Admission:
    """Decide whether a new session may begin.

    Args:
        seats: Most sessions.
        cost: Share of a core that one session takes, before any was measured.
        busiest: See `BUSIEST`.
    """

    def __init__(self, seats: int, *, cost: float, busiest: float = BUSIEST) -> None:
        self.seats = seats
        self.busy = 0.0
        """Busy share of the core in the last interval."""
        self.slow = 0.0
        """Longest round of the loop in the last interval, seconds."""
        self._busiest = busiest
        self._cost = cost
        self._served = 0.0
        """Mean number of sessions in the interval of `busy`."""
        self._begun: tuple[float, float] | None = None
        self._counts: list[int] = []
        self._slow: list[float] = []
        self._is_slow = False

    def observe(self, now: float, worked: float, sessions: int, slow: float = 0.0) -> None:
        """Record the CPU time of the loop; call it a few times a second.

        Args:
            now: Any steady clock, seconds.
            worked: CPU seconds of the loop's thread so far.
            sessions: Number of running sessions.
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
        """Return why another session may not begin; None if it may.

        Args:
            sessions: Number of running sessions; each that the measured load does not include yet
                counts with the cost of one.
            front: Load of the feature workers, 0..1; 0 if the session needs none.
        """
        expected = self.busy + (sessions + 1 - self._served) * self._cost
        if sessions >= self.seats:
            return f"all {self.seats} seats are taken: {LATER}"
        if expected > self._busiest or self._is_slow:
            return f"the server is busy: {LATER}"
        if front > self._busiest:
            return f"the front ends are busy: {LATER}"
        return None
