"""Processes that take one job after the other and answer each with a text or None.

Knows processes and pipes. Knows no file and no feature.

The jobs decode what strangers have recorded, so the answers are read as data, JSON of a bounded
length: nothing that a worker writes is unpickled here, as `ProcessPoolExecutor` would do.
"""

import json
import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from tamulag.models.data.clips import DataError

from ..aio.shutdown import end_with_parent

Work = Callable[..., str | None]

LONGEST = 2000
"""Characters of an answer; of a longer one the worker sends the beginning."""

LARGEST = 6 * LONGEST + 2
"""Bytes of an answer: each character may be an escape of six."""

ENDING = 10.0
"""Seconds for a worker to end that is ended."""


def work_off(
    work: Work, jobs: Sequence[tuple[object, ...]], workers: int
) -> Generator[tuple[int, str | None], None, None]:
    """Do jobs in several processes and yield each when it is done.

    A worker whose answer is none is ended, which is the answer of its job, and another is started.

    Args:
        work: Function of a module, called with a job's arguments.
        jobs: Arguments, which are pickled on their way to a worker.
        workers: Number of processes.

    Yields:
        Number of the job, and what `work` returned.

    Raises:
        DataError: If a worker ends by itself.
    """
    waiting = deque(enumerate(jobs))
    busy: dict[Connection, tuple[int, BaseProcess]] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                pipe, process = _start(work)
                busy[pipe] = _give(pipe, waiting), process
            for ready in connection.wait([*busy]):
                assert isinstance(ready, Connection)
                number, process = busy[ready]
                yield number, _answer(ready)
                if waiting and not ready.closed:
                    busy[ready] = _give(ready, waiting), process
                else:
                    _end([process])
                    del busy[ready]
    except (EOFError, ConnectionError) as error:
        raise DataError(
            "a worker process died, perhaps for want of memory: run the command again, "
            "it goes on where it was; fewer --workers need less"
        ) from error
    finally:
        _end([process for _, process in busy.values()])


def _start(work: Work) -> tuple[Connection, BaseProcess]:
    # Spawned, not forked: a fork would copy the threads' locks of mediapipe and torch.
    spawned = multiprocessing.get_context("spawn")
    ours, theirs = spawned.Pipe()
    process = spawned.Process(target=_serve, args=(theirs, work), daemon=True)
    process.start()
    theirs.close()
    return ours, process


def _give(pipe: Connection, waiting: deque[tuple[int, tuple[object, ...]]]) -> int:
    number, job = waiting.popleft()
    pipe.send(job)
    return number


def _end(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join(ENDING)


def _answer(pipe: Connection) -> str | None:
    """Read an answer; close the pipe where it is none.

    Raises:
        EOFError, ConnectionError: If the worker has ended.
    """
    try:
        answer = json.loads(pipe.recv_bytes(LARGEST))
    except ConnectionError:
        raise
    except (OSError, ValueError, RecursionError):
        answer = False
    if answer is None or isinstance(answer, str):
        return answer
    pipe.close()
    return "its worker process gave an answer that is none and was ended: do not trust this file"


def _serve(pipe: Connection, work: Work) -> None:
    """Do jobs until the pipe is closed; ends with its parent and ignores Ctrl-C."""
    end_with_parent()
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        answer = work(*job)
        pipe.send_bytes(json.dumps(answer and answer[:LONGEST]).encode())
