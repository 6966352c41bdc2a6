"""Pauses between attempts to open again what was lost."""

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 4.0
"""Seconds; the pause before each attempt to reopen is drawn from half of it to all of it."""
