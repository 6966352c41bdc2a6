"""A real server of many sessions in a process of its own, for tests."""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from .fork_server import Command

ENDING = 15.0


class Serving:
    """`tamulag serve` on a free port, from `with` to its end.

    Args:
        options: Of the command.
        workers: Processes for sound and pictures.
        environment: That it and its processes have beside that of this one.
    """

    def __init__(
        self, *options: str, workers: int = 0, environment: Mapping[str, str] | None = None
    ) -> None:
        self._options: Sequence[str] = options
        self._workers = workers
        self._environment = dict(environment or {})
        self.url = ""

    def __enter__(self) -> Self:
        command = ["tamulag", "serve", "--websocket", "127.0.0.1:0"]
        self._process = Command(
            [*command, "--workers", str(self._workers), *self._options],
            stdout=subprocess.PIPE,
            env=os.environ | self._environment,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.search(r"(ws://\S+/)ingest", line)
        assert found, line
        self.url = found[1]
        return self

    @property
    def pid(self) -> int:
        """Of the server."""
        return self._process.pid

    def stop(self, limit: float = ENDING) -> int:
        """End it in order, within so many seconds, and return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(limit)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDING)
        self._process.kill()
        self._process.wait(ENDING)
        assert self._process.stdout is not None
        self._process.stdout.close()
