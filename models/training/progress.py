"""How a training reports: lines of a log, and counts for a bar."""

from collections.abc import Callable

Log = Callable[[str], None]
"""Called with a line of progress."""
Progress = Callable[[str, int, int], None]
"""Called with the current work, how much of it is done, and of how much."""
Record = dict[str, float]
"""Figures by name, e.g. of an epoch."""


def silent(*_: object) -> None:
    """Report nothing, as a log or as progress."""
