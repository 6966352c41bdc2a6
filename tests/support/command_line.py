"""The two commands as people type them: in a process of their own, or much cheaper in this one.

`run` forks it from a process that has loaded what it needs, and `call` runs it in this process.
"""

import gc
import os
from contextlib import redirect_stderr, redirect_stdout
from tempfile import TemporaryFile
from typing import NamedTuple
from unittest.mock import patch

from tamulag.streamer.cli import main

from .fork_server import Command

LIMIT = 240.0
"""Seconds that a command may take, however busy the machine is."""

PROGRAMS = {"tamulag": main.main, "tamulag-stream": main.stream_main}


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def run(program: str, *words: object, **environment: object) -> Done:
    """Run a command in a process of its own."""
    env = os.environ | {name: str(value) for name, value in environment.items()}
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        with Command([program, *words], stdout=out, stderr=err, env=env) as command:
            code = command.wait(LIMIT)
        for file in (out, err):
            file.seek(0)
        return Done(code, out.read(), err.read())


def call(program: str, *words: object, **environment: object) -> Done:
    """Run a command in this process, which has loaded what it needs.

    For what ends by itself; what native libraries write is not caught.
    """
    with (
        TemporaryFile("w+") as out,
        TemporaryFile("w+") as err,
        patch("sys.argv", [program, *map(str, words)]),
        patch.dict(os.environ, {name: str(value) for name, value in environment.items()}),
    ):
        with redirect_stdout(out), redirect_stderr(err):
            code = PROGRAMS[program]()
        gc.unfreeze()
        for file in (out, err):
            file.seek(0)
        return Done(code, out.read(), err.read())
