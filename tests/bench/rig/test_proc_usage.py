"""A process's processor time and memory, of this process."""

import mmap
import os
import time

from tamulag.streamer.bench.rig.proc_usage import memory, spent


def test_own_memory_is_separate() -> None:
    """64 MB that are written to are there, and belong to no file."""
    before = memory(os.getpid())
    # Mapped anew: a heap would give what it has kept of earlier tests.
    with mmap.mmap(-1, 64_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block[::4096] = bytes(len(range(0, 64_000_000, 4096)))
        after = memory(os.getpid())
    assert after.own - before.own > 50
    assert after.resident > after.own


def test_processor_time_is_that_of_the_process() -> None:
    """It rises with work, as the interpreter's own clock says, a clock tick or two apart."""
    before, clock = spent(os.getpid()), time.process_time()
    while time.process_time() < clock + 0.2:
        sum(range(1000))
    assert abs(spent(os.getpid()) - before - (time.process_time() - clock)) < 0.05
