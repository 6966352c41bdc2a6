"""Twelve seconds of the demo, heard by the real recogniser, with all that can be kept of them.

Knows the command line. Tests share these files: one that changes a file copies it first.
"""

from pathlib import Path
from typing import NamedTuple

import pytest

from .command_line import run
from .shared import made_once

WORDS = ("wisdom", "foolishness")
"""The recogniser gets them right."""


class Kept(NamedTuple):
    """What a session has left behind."""

    state: Path
    """XDG_STATE_HOME, with the history."""
    records: Path
    """Folder of the recording."""
    lines: Path
    """Its messages."""
    printed: Path
    """What was printed and logged."""


def kept_once(factory: pytest.TempPathFactory, *, strict: bool) -> Kept:
    """Return what a session kept, of the default privacy or the strict one."""

    def make(folder: Path) -> None:
        kept = _at(folder)
        demo = ("--demo", "--speed", "max", "--duration", "12", "--websocket", "none", "--verbose")
        files = ("--history", "--record", kept.records, "--jsonl", kept.lines)
        privacy = ("--privacy", "strict") if strict else ()
        done = run("tamulag-stream", *demo, *files, *privacy, XDG_STATE_HOME=kept.state)
        assert done.returncode == 0, done.stderr
        kept.printed.write_text(done.stdout + done.stderr)

    return _at(made_once(factory, "demo-strict" if strict else "demo", make))


def _at(folder: Path) -> Kept:
    return Kept(*(folder / name for name in ("state", "records", "lines.jsonl", "printed.txt")))
