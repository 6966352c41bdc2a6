"""Capacity of a server: a real server, remote senders in other processes, real time.

Knows the server's process, its processor time and memory (Linux). Steps a session batch of its own
only to compare many sessions per step with one.
"""

import multiprocessing
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tamulag.models.runtime.checkpoint import load
from tamulag.models.runtime.torch_engine import TorchEngine

from ..core.commands import Push
from ..core.sample import TICK_RATE, Block
from ..core.session_batch import SessionBatch
from .rig.proc_usage import memory, spent
from .rig.processes import StageError
from .rig.senders import AGAIN, HOP, LAST, TRIES, SenderLoad, run_senders
from .rig.subscribers import percentile

SETTLING = 4.0
"""Seconds from the last session's start to the start of the measurement."""

STARTING, ENDING = 60.0, 10.0
"""Seconds that the server may take to start and to end."""


class Capacity(NamedTuple):
    """Results from the senders and from the server's process."""

    asked: int
    sessions: int
    """Sessions that were admitted."""
    realtime: bool
    """Whether each received every score, 99 % of them before the next hop had ended."""
    p50_ms: float
    """From the time at which a hop's last feature was due to its score."""
    p99_ms: float
    late_ms: float
    """Largest delay of the senders themselves."""
    scores: int
    wanted: int
    cores: float
    """Processor cores of the server, with all sessions admitted."""
    us_per_score: float
    """Processor time of the server."""
    mb_per_session: float
    refused: dict[str, int]


class Batched(NamedTuple):
    """Cost of one hop of many sessions; processor microseconds of the thread."""

    sessions: int
    together_us: float
    """Per session, all in one step."""
    one_by_one_us: float
    """Per session, each in a step of its own."""
    speedup: float


def capacity(
    sessions: int, seconds: float, *, senders: int = 1, options: tuple[str, ...] = ()
) -> Capacity:
    """Start sessions that send features within a few seconds, and time their scores.

    Args:
        sessions: Number of sessions.
        seconds: Duration of each.
        senders: Processes of senders.
        options: Further options of `tamulag serve`.

    Raises:
        StageError: If the server does not start, or ends.
    """
    program = str(Path(sys.executable).with_name("tamulag"))
    command = [program, "serve", "--websocket", "127.0.0.1:0", "--workers", "0"]
    with subprocess.Popen(
        [*command, "--seats", str(sessions), *options], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            return _measured(server, sessions, seconds, senders)
        finally:
            server.terminate()
            try:
                server.wait(ENDING)
            except subprocess.TimeoutExpired:
                server.kill()


def _measured(
    server: "subprocess.Popen[str]", sessions: int, seconds: float, senders: int
) -> Capacity:
    assert server.stdout is not None
    limit = threading.Timer(STARTING, server.kill)
    limit.start()
    line = server.stdout.readline()
    limit.cancel()
    found = re.search(r"ws://[^:]+:(\d+)/", line)
    if found is None:
        raise StageError(f"the server printed {line!r}: run `tamulag serve` by hand")
    spread, hops = max(2.0, sessions / 100), round(seconds / HOP)
    before, worked = memory(server.pid).resident, spent(server.pid)
    seats = [
        _seats(int(found[1]), len(range(k, sessions, senders)), hops, spread)
        for k in range(senders)
    ]
    try:
        time.sleep(spread + SETTLING)
        steady, begun = spent(server.pid), time.monotonic()
        time.sleep(max(1.0, seconds - spread - SETTLING))
        if server.poll() is not None:
            raise StageError(f"the server ended with {server.returncode}")
        cores = (spent(server.pid) - steady) / (time.monotonic() - begun)
        grown = memory(server.pid).resident - before
        loads = [_load(pipe, spread + seconds + 2 * LAST + TRIES * AGAIN) for _, pipe in seats]
        worked = spent(server.pid) - worked
    finally:
        for process, pipe in seats:
            process.terminate()
            process.join(ENDING)
            pipe.close()
    return _summed(sessions, hops, loads, cores, worked, grown)


def _seats(port: int, seats: int, hops: int, spread: float) -> tuple[BaseProcess, Connection]:
    spawned = multiprocessing.get_context("spawn")
    ours, theirs = spawned.Pipe()
    process = spawned.Process(
        target=run_senders, args=(port, seats, hops, HOP, spread, theirs), daemon=True
    )
    process.start()
    theirs.close()
    return process, ours


def _load(pipe: Connection, limit: float) -> SenderLoad:
    if not pipe.poll(limit):
        raise StageError("the seats do not answer: try fewer")
    return SenderLoad(*pipe.recv())


def _summed(
    asked: int, hops: int, loads: list[SenderLoad], cores: float, worked: float, grown: float
) -> Capacity:
    late = sorted(1000 * age for load in loads for age in load.late)
    refused: Counter[str] = sum((Counter(load.refused) for load in loads), Counter())
    wanted = sum(load.wanted for load in loads)
    sessions, p99 = wanted // hops, percentile(late, 99)
    return Capacity(
        asked=asked,
        sessions=sessions,
        realtime=sessions > 0 and len(late) == wanted and p99 < 1000 * HOP,
        p50_ms=percentile(late, 50),
        p99_ms=p99,
        late_ms=1000 * max(load.behind for load in loads),
        scores=len(late),
        wanted=wanted,
        cores=cores,
        us_per_score=1e6 * worked / max(1, len(late)),
        mb_per_session=grown / max(1, sessions),
        refused=dict(refused),
    )


def batched(sessions: int, *, hops: int = 8, checkpoint: str = "default") -> Batched:
    """Step many sessions, at least 2, together and one by one, alternately, on equal features."""
    model, card = load(checkpoint)
    rng = np.random.default_rng(0)
    ticks = round(HOP * TICK_RATE)
    voice = rng.standard_normal((ticks, model.config.audio.dim)).astype(np.float32)
    face = rng.standard_normal(
        (ticks // model.config.vision.period, model.config.vision.dim)
    ).astype(np.float32)
    batches = {
        size: SessionBatch(TorchEngine(model, sessions), card, batch=size) for size in (sessions, 1)
    }
    spent: dict[int, list[float]] = {size: [] for size in batches}
    for batch in batches.values():
        for number in range(sessions):
            batch.open(str(number), ("audio", "vision"))
    for hop in range(hops + 1):
        for size, batch in batches.items():
            for number in range(sessions):
                batch.apply(str(number), Push(Block("vision", hop * HOP, face)))
                batch.apply(str(number), Push(Block("audio", hop * HOP, voice)))
            spent[size].append(_timed(batch))
    together, alone = (1e6 * float(np.median(times[1:])) / sessions for times in spent.values())
    return Batched(sessions, together, alone, alone / together)


def _timed(batch: SessionBatch) -> float:
    before = time.thread_time()
    while batch.waiting:
        batch.step()
    return time.thread_time() - before
