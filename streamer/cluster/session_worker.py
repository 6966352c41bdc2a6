"""A batch of sessions in a process of its own: runs commands in order, answers each call once.

Knows commands and a batch. Knows neither the gateway, nor its machine, nor how commands come.
"""

import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from tamulag.models.runtime.checkpoint import load
from tamulag.models.runtime.torch_engine import TorchEngine

from ..core.commands import Push, SessionCommand
from ..core.estimate import Estimate, NotFinite, Timing
from ..core.sample import TICK_RATE, Notice
from ..core.session_batch import SessionBatch
from ..core.snapshot import dump, restore
from ..service import malloc


class Begin(NamedTuple):
    """Open a session, or restore it from a snapshot."""

    asked: tuple[str, ...]
    packed: bytes | None = None


class Pack(NamedTuple):
    """Return a snapshot as soon as no step of the session is pending."""


class Move(NamedTuple):
    """Run the session's pending steps, return its snapshot and drop it."""


class Leave(NamedTuple):
    """Drop the session and its pending steps."""


class WorkerCommand(NamedTuple):
    """A command for one session."""

    name: str
    number: int
    """Rises within a session."""
    do: SessionCommand | Begin | Pack | Move | Leave


class WorkerScore(NamedTuple):
    """One session's estimate of one step."""

    name: str
    estimate: Estimate
    number: int
    """Of the command that completed the hop."""
    spent: float
    """Seconds of the model: the session's share of the batch step."""


class Packed(NamedTuple):
    """A snapshot of a session, taken after the command of that number."""

    name: str
    number: int
    packed: bytes


class Answer(NamedTuple):
    """The results of one call."""

    scores: list[WorkerScore]
    packed: list[Packed]
    pending: dict[str, int]
    """Pending steps, of the sessions that have some."""
    failed: dict[str, str]
    """Sessions that failed and were dropped, with the reason."""
    worked: float
    """Seconds spent in calls so far."""
    process: int
    """Identifier of the process."""
    ended: tuple[tuple[str, str], ...] = ()
    """Those of `failed` that must not go on, with the traceback; "": by what was sent. The others
    could not begin from their snapshot."""


class WorkerConfig(NamedTuple):
    """Configuration of every worker of a cluster; the checkpoint is read where it runs."""

    checkpoint: str
    timing: Timing
    seats: int
    names_words: bool

    def batch(self) -> SessionBatch:
        """Load the model into this process, for one thread.

        Raises:
            CheckpointError: If the checkpoint cannot be used here.
        """
        torch.set_num_threads(1)
        malloc.disable_trim()
        model, card = load(self.checkpoint, window=round(self.timing.window * TICK_RATE))
        engine = TorchEngine(model, self.seats, hop=round(self.timing.hop * TICK_RATE))
        return SessionBatch(engine, card, self.timing, names_words=self.names_words)


@dataclass
class _WorkerSession:
    """One session of a worker."""

    newest: int = 0
    """Number of the newest command."""
    wants_snapshot: bool = False


class SessionWorker:
    """Runs commands.

    Args:
        make: Makes the batch, here.
        checkpoint: What identifies the weights.
    """

    def __init__(self, make: Callable[[], SessionBatch], checkpoint: str) -> None:
        self._batch = make()
        self._checkpoint = checkpoint
        self._sessions: dict[str, _WorkerSession] = {}
        self._answer = self._blank(0.0)

    def do(self, commands: Sequence[WorkerCommand]) -> Answer:
        """Run the commands, then one step for each waiting session, up to a batch.

        A session that is to be packed is packed when none of its steps is pending. A session whose
        command or step fails is forgotten and reported; the others go on.
        """
        began = time.monotonic()
        for command in commands:
            self._run(command)
        self._step()
        for name, session in [*self._sessions.items()]:
            if session.wants_snapshot and not self._batch.backlog(name):
                self._pack_or_fail(name, session)
        pending = {name: n for name in self._sessions if (n := self._batch.backlog(name))}
        worked = self._answer.worked + time.monotonic() - began
        answer = self._answer._replace(pending=pending, worked=worked)
        self._answer = self._blank(worked)
        return answer

    def _run(self, command: WorkerCommand) -> None:
        name, number, do = command
        try:
            if isinstance(do, Begin):
                self._begin(name, number, do)
            elif name in self._sessions:  # else it has failed, which the gateway did not know yet
                self._follow(name, number, do)
        except Exception as error:  # one session's; the others go on
            if isinstance(do, Begin):
                self._answer.failed[name] = str(error)
                self._drop(name)
            else:
                self._fail(name, error)

    def _begin(self, name: str, number: int, how: Begin) -> None:
        if how.packed is None:
            self._batch.open(name, how.asked)
        else:
            restore(self._batch, name, how.packed, self._checkpoint)
        self._sessions[name] = _WorkerSession(newest=number)

    def _follow(self, name: str, number: int, do: SessionCommand | Pack | Move | Leave) -> None:
        session = self._sessions[name]
        match do:
            case Pack():
                session.wants_snapshot = True
            case Move():
                self._move(name, session)
            case Leave():
                self._drop(name)
            case _:
                self._batch.apply(name, owned(do), tag=number)
                session.newest = number

    def _move(self, name: str, session: _WorkerSession) -> None:
        while name in self._sessions and self._batch.backlog(name):
            self._step()
        if name in self._sessions:
            self._pack(name, session)
            self._drop(name)

    def _fail(self, name: str, error: Exception) -> None:
        """Report a session that must not go on, and drop it."""
        is_sent = isinstance(error, NotFinite)
        trace = "" if is_sent else "".join(traceback.format_exception(error))
        self._answer.failed[name] = f"{type(error).__name__}: {error}"
        self._answer = self._answer._replace(ended=(*self._answer.ended, (name, trace)))
        self._drop(name)

    def _pack_or_fail(self, name: str, session: _WorkerSession) -> None:
        try:
            self._pack(name, session)
        except Exception as error:  # one session's; the others are packed
            self._fail(name, error)

    def _pack(self, name: str, session: _WorkerSession) -> None:
        packed = dump(self._batch, name, self._checkpoint)
        self._answer.packed.append(Packed(name, session.newest, packed))
        session.wants_snapshot = False

    def _step(self) -> None:
        before = time.monotonic()
        failed: dict[str, Exception] = {}
        scored = self._batch.step(failed)
        for name, error in failed.items():
            self._fail(name, error)
        spent = (time.monotonic() - before) / max(1, len(scored))
        self._answer.scores.extend(
            WorkerScore(one.name, one.estimate, int(one.tag), spent) for one in scored
        )

    def _drop(self, name: str) -> None:
        if self._sessions.pop(name, None) is not None:
            self._batch.remove(name)

    def _blank(self, worked: float) -> Answer:
        return Answer([], [], {}, {}, worked, os.getpid())


def owned(command: SessionCommand) -> SessionCommand:
    """Return a command whose array is its own.

    Those of a call lie in memory that many processes share, and one that a session still looks at
    would pin all of the call there.
    """
    if not isinstance(command, Push):
        return command
    item = command.item
    if isinstance(item, Notice) or item.values is None:
        return command
    return Push(replace(item, values=item.values.copy()))
