"""What is given up when the machine is too slow, in a stated order, and taken up again.

Knows how strained the agent is, second by second. Knows no clock, no source and no model.
"""

from collections.abc import Collection, Sequence

STEPS = ("vision_rate", "asr_partials", "hop")
"""Given up one after the other: every other picture; words before their utterance is over; every
other score. Taken up in reverse order."""

PATIENCE = 3
"""Seconds in a row with a strain above 1 before the next step."""

ROOM = 0.5
"""Strain below which there is room."""

CALM, LONGEST_CALM = 10, 300
"""Seconds in a row with room before a step is taken up again; doubled after each relapse."""

RELAPSE = 60.0
"""Seconds after a step was taken up in which a new strain is a relapse."""


def steps_for(asked: Collection[str], hop: float, window: float) -> tuple[str, ...]:
    """Return the steps that a session can give up.

    Args:
        asked: Its modalities.
        hop: Seconds between two scores; doubled, they must still fit into the window.
        window: Seconds.
    """
    can = ("vision" in asked, "text" in asked, 2 * hop <= window)
    return tuple(step for step, is_possible in zip(STEPS, can, strict=True) if is_possible)


class LoadShedder:
    """Turn strain into a level: how many steps are given up.

    Between the bound that gives up and the one that takes up again lies a factor of two, and after
    a relapse the next attempt comes later, so that the level does not swing.

    Args:
        steps: Those that can be given up here.

    Attributes:
        level: How many are given up, 0 to `len(steps)`.
    """

    def __init__(self, steps: Sequence[str] = STEPS) -> None:
        self.level = 0
        self._steps = tuple(steps)
        self._worst = 0.0
        self._until: float | None = None
        self._over = self._roomy = 0
        self._calm = CALM
        self._eased: float | None = None

    @property
    def given_up(self) -> tuple[str, ...]:
        """The steps that are given up now."""
        return self._steps[: self.level]

    def observe(self, now: float, strain: float) -> bool:
        """Take a measurement; of each second the worst counts.

        Args:
            now: Session time in seconds; rises.
            strain: Longest wait as a share of what may be; above 1 is too much.

        Returns:
            Whether the level has changed.
        """
        if self._until is None:
            self._until = now + 1.0
        self._worst = max(self._worst, strain)
        if now < self._until:
            return False
        worst, self._worst, self._until = self._worst, 0.0, now + 1.0
        self._over = self._over + 1 if worst > 1 else 0
        self._roomy = self._roomy + 1 if worst < ROOM else 0
        return self._rise(now) or self._fall(now)

    def _rise(self, now: float) -> bool:
        if self._over < PATIENCE or self.level == len(self._steps):
            return False
        self.level += 1
        self._over = 0
        is_relapse = self._eased is not None and now - self._eased < RELAPSE
        self._calm = min(2 * self._calm, LONGEST_CALM) if is_relapse else CALM
        return True

    def _fall(self, now: float) -> bool:
        if self._roomy < self._calm or self.level == 0:
            return False
        self.level -= 1
        self._roomy = 0
        self._eased = now
        return True
