"""Whether one more session has room: refused before the others' latency suffers, never after.

Knows how busy the server was and what a session costs. Knows no session and no connection.
"""

BUSIEST = 0.75
"""Share of one core that sessions may take of the loop that serves them all: beyond it, waiting
times grow faster than work does."""

SLOWEST = 0.25
"""Seconds that a round of the loop may take: a machine that others share is full before our own
work says so."""

RETRY = 5.0
"""Seconds after which it is worth to ask again."""

_LOOK = 2.0
"""Seconds over which the load is taken."""

_NEW = 4.0
"""Seconds until a new session shows in the load; so long it is counted with what it costs."""


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
        self._slow = 0.0
        self._busiest = busiest
        self._cost = cost
        self._looked: tuple[float, float] | None = None
        self._new: list[float] = []

    def observe(self, now: float, worked: float, sessions: int, slow: float = 0.0) -> None:
        """Take how long the loop has worked since it began.

        Args:
            now: Any steady clock, seconds.
            worked: Processor seconds of the loop's thread so far.
            sessions: That are served now.
            slow: Seconds of the longest round since the last call.
        """
        self._slow = max(self._slow, slow)
        if self._looked is None:
            self._looked = (now, worked)
        before, worked_before = self._looked
        if now - before < _LOOK:
            return
        self.busy = (worked - worked_before) / (now - before)
        self._looked = (now, worked)
        self.slow, self._slow = self._slow, 0.0
        settled = sessions - len(self._recent(now))
        if settled >= 20:  # with few, what the loop itself costs would be theirs
            self._cost = self.busy / settled

    def admit(self, now: float, sessions: int, front: float = 0.0) -> str | None:
        """Return why another session may not begin; None: it may, and is counted.

        Args:
            now: As in `observe`.
            sessions: That are served now.
            front: Load of the worker processes, 0 to 1, if it needs one.
        """
        recent = self._recent(now)
        expected = self.busy + (len(recent) + 1) * self._cost
        if sessions >= self.seats:
            return f"all {self.seats} seats are taken: {_LATER}"
        if expected > self._busiest or self.slow > SLOWEST:
            return f"the server is busy: {_LATER}"
        if front > self._busiest:
            return f"the front ends are busy: {_LATER}"
        self._new = [*recent, now]
        return None

    def _recent(self, now: float) -> list[float]:
        return [at for at in self._new if now - at < _NEW]


_LATER = f"try again in {RETRY:g} s"
