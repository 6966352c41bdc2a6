"""What is tried in another process: it works, it raises, it ends the process, it never answers."""

import os
import time
from collections.abc import Callable
from typing import cast

import pytest

from tamulag.streamer.cli import part_check
from tamulag.streamer.cli.part_check import PartProcess, import_package

# Functions of the standard library: another process cannot import this file.
SLEEP = cast(Callable[..., str], time.sleep)


def test_each_is_tried_whatever_became_of_the_one_before() -> None:
    """A library that ends its process is named, and the next one is tried in a new process."""
    with PartProcess() as parts:
        assert parts.ask(import_package, "av", "av").ok
        assert parts.ask(os.abort) == (False, "it ends the whole process (SIGABRT)")
        missing = parts.ask(import_package, "av", "av_of_another_name")
        assert not missing.ok
        assert "cannot be imported: No module named 'av_of_another_name'" in missing.detail
        assert parts.ask(time.strftime, "awake") == (True, "awake")


def test_what_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not stay behind."""
    with PartProcess() as parts:
        assert parts.ask(SLEEP, 0.0).ok
        running = parts._running
        assert running
        monkeypatch.setattr(part_check, "LIMIT", 0.2)
        assert parts.ask(SLEEP, 60.0) == (False, "no answer within 0.2 s")
        assert not running[0].is_alive()
