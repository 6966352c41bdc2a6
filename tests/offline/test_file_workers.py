"""Jobs in worker processes: each is answered, and no worker stays behind."""

import multiprocessing
import os
import time

import pytest

from support.hostile_workers import job
from tamulag.models.data.clips import DataError
from tamulag.streamer.offline.file_workers import LONGEST, work_off


def test_each_job_is_answered() -> None:
    """By the number of its job, from any worker; a worker does several."""
    long = "gut ✓ " * LONGEST
    found = dict(work_off(job, [("good",), (long,), ("no",)] * 2, 2))
    assert [found[number] for number in range(6)] == [None, long[:LONGEST], "no"] * 2
    assert not multiprocessing.active_children()


def test_nothing_to_do_starts_nothing() -> None:
    """No process, no answer."""
    assert list(work_off(job, [], 2)) == []


def test_workers_end_with_who_asks() -> None:
    """Who needs no more answers leaves no process."""
    asked = work_off(time.sleep, [(0.0,), (60.0,)], 2)
    assert next(asked) == (0, None)
    asked.close()
    assert not multiprocessing.active_children()


def test_a_worker_that_ends_is_told() -> None:
    """The message says that the next run goes on."""
    with pytest.raises(DataError, match=r"worker process died.*run the command again"):
        list(work_off(os._exit, [(3,)], 1))
    assert not multiprocessing.active_children()
