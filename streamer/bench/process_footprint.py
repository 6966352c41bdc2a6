"""Measure a whole program in fresh processes: command line, start, live session.

Knows processes, their memory (Linux) and their output. Runs no model itself.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from .rig.agent_process import streaming
from .rig.probe import has_score
from .rig.proc_usage import memory, spent
from .rig.processes import StageError, end

HELP = "from tamulag.streamer.cli.main import main; main()"
STARTED = 60.0
"""Seconds that a start may take, even on a busy machine."""

Tell = Callable[[str], None]


class Start(NamedTuple):
    """Seconds until an event; medians."""

    python_s: float
    """The interpreter alone, included in the other two."""
    help_s: float
    """`tamulag --help`."""
    first_score_s: float
    """`tamulag-stream --demo`: the first line with a score, half a second of stream included."""
    slowest_s: float
    """The slowest of these: the first one, with files not yet in memory."""


class Session(NamedTuple):
    """A live session: a face 10 times a second, a voice, its words; one subscriber."""

    seconds: float
    cores: float
    """Processor time of the whole process per second."""
    rss_mb: float
    own_mb: float
    """Part of it that is not backed by a file on disk."""
    load: float
    """Load of the machine, mean over the last minute, other programs included."""


def start(times: int = 5) -> Start:
    """Start fresh processes, one after the other.

    Args:
        times: Starts of the interpreter and of the help; half as many wait for a score.

    Raises:
        StageError: If a process fails, or shows no score within a minute.
    """
    python = [_ran("pass") for _ in range(times)]
    helped = [_ran(HELP, "--help") for _ in range(times)]
    scored = [first_score() for _ in range((times + 1) // 2)]
    half = statistics.median
    return Start(half(python), half(helped), half(scored), max(scored))


def first_score(*options: str) -> float:
    """Return the seconds from the start of `tamulag-stream --demo` to its first score.

    Raises:
        StageError: If none comes within a minute, with the last line of the process's log.
    """
    command = [sys.executable, "-m", "tamulag.streamer", "--demo", "--duration", "30"]
    quiet = ["--websocket", "none", "--jsonl", "-", *options]
    with tempfile.TemporaryFile() as errors:
        begin = time.perf_counter()
        process = subprocess.Popen([*command, *quiet], stdout=subprocess.PIPE, stderr=errors)
        limit = threading.Timer(STARTED, process.kill)
        limit.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if json.loads(line)["type"] == "sentiment":
                    return time.perf_counter() - begin
        finally:
            limit.cancel()
            end(process)
        errors.seek(0)
        last = errors.read().decode(errors="replace").strip().splitlines()[-1:] or ["nothing"]
    raise StageError(f"no score within {STARTED:g} s: tamulag-stream --demo says {last[0]}")


def session(options: Sequence[str], seconds: float) -> Session:
    """Run an agent and measure it for some seconds after its first words.

    Args:
        options: Options of `tamulag-stream` that select the inputs.
        seconds: Duration of the measurement.

    Raises:
        StageError: If it does not start, or recognises no word within a minute.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        streaming(Path(folder) / "log", *options) as agent,
    ):
        if agent.probe.first(has_score("text"), since=0.0, limit=STARTED) is None:
            raise StageError(
                f"no words within {STARTED:g} s: give a clip in which somebody speaks English"
            )
        pid, begin = agent.process.pid, time.monotonic()
        before = spent(pid)
        time.sleep(seconds)
        if agent.process.poll() is not None:
            raise StageError("the agent ended while it was watched: run it by hand, --verbose")
        cores = (spent(pid) - before) / (time.monotonic() - begin)
        held = memory(pid)
    return Session(seconds, cores, held.resident, held.own, os.getloadavg()[0])


def _ran(code: str, *arguments: str) -> float:
    begin = time.perf_counter()
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, timeout=STARTED, text=True)
    if done.returncode:
        raise StageError(f"{' '.join(command)} failed: {done.stderr.strip()[-200:]}")
    return time.perf_counter() - begin
