"""The sessions of a server: feeds inputs to the backend, routes messages to senders and outputs.

Knows sessions, their clocks and which of them are silent or without a sender. Knows no connection,
no process and no device: a sender is a function that takes lines.

What goes wrong in the work for one session ends that session, with the reason `failed`, and closes
its sender: all such work is done within `guard`.
"""

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from ..core.commands import Advance, Close, Push, SessionCommand, SetHop
from ..core.estimate import Timing
from ..core.sample import Block, Input, Modality, Notice, Phrase
from ..protocol.session_messages import RunInfo, SessionMessages
from ..storage.session_recorders import SessionRecorders
from .backend import FailedStep, ScoredStep, SessionBackend
from .clock import SILENCE
from .session import ServerSession
from .session_faults import log_fault
from .snapshot_store import StoredSnapshot

POLL = 0.015
"""Seconds between two steps, so that many sessions share one."""

LOOK = 0.1
"""Seconds between two searches for sessions that are silent or without a sender."""

LINGER = 15.0
"""Seconds that a session waits for its sender to come back."""

BACKLOG = 8
"""Steps of one session that may wait; then no more of its sender is read."""

CLOSING = 10.0
"""Seconds that the last steps of a session may take."""

SCORES = "scores"
"""What is lost of a session whose backend does not respond, beside its modalities."""

REASONS: Mapping[Modality, str] = {
    "text": "microphone_lost",
    "audio": "microphone_lost",
    "vision": "camera_lost",
}
"""Why a modality is lost whose sender has left."""


PublishOf = Callable[[str, str, str], None]
"""Takes a session's name, the kind of a message and its line."""


class SessionRegistry:
    """All sessions of a server, by name.

    Args:
        backend: Has their state and steps them.
        about: Run information in each session's `hello`.
        timing: Of each.
        publish_of: Takes the messages of all sessions, beside each session's own sender.
        linger: Seconds that a session waits for its sender, see `LINGER`.
        sends_words: False: no text message is sent (`--privacy strict`).
        recorders: Record each session from its start; None: nothing is recorded.
    """

    def __init__(
        self,
        backend: SessionBackend,
        about: RunInfo,
        timing: Timing,
        publish_of: PublishOf = lambda session, kind, line: None,
        *,
        linger: float = LINGER,
        sends_words: bool = True,
        recorders: SessionRecorders | None = None,
    ) -> None:
        self.backend = backend
        self.timing = timing
        self.open: dict[str, ServerSession] = {}
        self.delays: deque[float] = deque(maxlen=20_000)
        """Seconds from when a step was due to when its score was sent, of late."""
        self.scores = 0
        self.is_draining = False
        """True: input is ignored, as all sessions are to end."""
        self._about = about
        self._publish_of = publish_of
        self._linger = linger
        self._sends_words = sends_words
        self._recorders = recorders
        self._slowest = 0.0
        self._longest = 0.0
        self._shed: tuple[str, ...] = ()

    def begin(
        self,
        asked: tuple[Modality, ...],
        *,
        by_sender: bool,
        name: str | None = None,
        before: StoredSnapshot | None = None,
    ) -> ServerSession:
        """Begin a session, or resume one from its snapshot.

        Args:
            asked: Modalities.
            by_sender: Whose clock counts, see `ServerSession`.
            name: Of the session; None: a new one.
            before: The session to resume.

        Raises:
            BatchFull: If the backend has no room.
            SnapshotError: If it cannot be resumed.
            ValueError: If there is a session of that name.
        """
        name = name or secrets.token_hex(4)
        if before is not None:
            # Another session may have taken the name in between.
            name = secrets.token_hex(4) if before.name in self.open else before.name
        if name in self.open:
            raise ValueError(f"session {name} is here already: take another name")
        self.backend.open(name, asked, None if before is None else before.state)
        try:
            session = self._new_session(name, asked, by_sender, before)
        except Exception:
            self.backend.leave(name)
            raise
        with self.guard(session):
            self._shed_in(session)
        return session

    def _new_session(
        self, name: str, asked: tuple[Modality, ...], by_sender: bool, before: StoredSnapshot | None
    ) -> ServerSession:
        now = time.monotonic()
        session = ServerSession(
            name=name,
            key=secrets.token_urlsafe(16) if before is None else before.key,
            asked=asked,
            by_sender=by_sender,
            start=now if before is None else now - before.now - before.age,
            messages=SessionMessages(
                name,
                self._about,
                wall_now=time.time,
                send=lambda kind, line: self._publish(name, kind, line),
                seq=0 if before is None else before.seq,
            ),
            hop=self.timing.hop if before is None else before.hop or self.timing.hop,
            input_at=now,
            reached=0.0 if before is None else before.reached,
            utterances=(0, 0) if before is None else (before.utterance, before.utterance),
            away_since=now,  # until its sender is attached
        )
        session.has_room.set()
        # One that is resumed has a state that no replay of its rest could have.
        if self._recorders is not None and before is None:
            session.recorder = self._recorders.begin(name, asked, time.time, session.now)
        self.open[name] = session
        return session

    def hello(self, session: ServerSession) -> str:
        """Return the line that a session's sender and its subscribers get first."""
        epoch = time.time() - session.now()
        return session.messages.hello(session.asked, self.timing, hop=session.hop, epoch=epoch)

    def attach_sender(
        self,
        session: ServerSession,
        send: Callable[[str], None],
        reject: Callable[[int, str], None] | None = None,
    ) -> None:
        """Send a session's messages to its sender, the first time or again.

        Args:
            session: The session.
            send: Takes its messages.
            reject: Closes the sender with a code and a reason.
        """
        session.send, session.reject, session.input_at = send, reject, time.monotonic()
        was_new, session.is_new, session.away_since = session.is_new, False, None
        if not was_new:
            session.renumber()
            self._notice_all(session, None, "the sender is back")

    def detach_sender(self, session: ServerSession, detail: str) -> None:
        """Mark a session's sender as away; the session waits for it."""
        session.send, session.reject, session.away_since = None, None, time.monotonic()
        self._notice_all(session, "lost", detail)

    def push(self, name: str, item: Input | Block) -> None:
        """Take one input of a session that may have ended since it was made."""
        session = self.open.get(name)
        if session is None or session.closing or self.is_draining:
            return
        if _modality(item) in session.asked:
            with self.guard(session):
                self._push(session, item)

    def _push(self, session: ServerSession, item: Input | Block) -> None:
        if isinstance(item, Phrase):
            item = session.numbered(item)
            if self._sends_words:
                session.messages.words(item)
        elif isinstance(item, Notice):
            session.messages.notice(item)
        session.saw(item)
        self._apply(session, Push(item))
        if session.by_sender and isinstance(item, Phrase):
            self._apply(session, Advance(session.reached - SILENCE))
        if self.backend.backlog(session.name) > BACKLOG:
            session.has_room.clear()

    def set_workers_lost(self, name: str, reason: str | None, detail: str) -> None:
        """Publish that a session's feature workers are lost, or with None that they are back."""
        if (session := self.open.get(name)) is not None:
            session.renumber()
            for modality in session.described:
                self.push(name, Notice(session.now(), modality, reason, detail))

    def set_backend_lost(self, name: str, reason: str | None) -> None:
        """Mark a session as degraded while its backend does not respond; None: it does again."""
        session = self.open.get(name)
        if session is None:
            return
        if reason is None:
            session.messages.lost.pop(SCORES, None)
        else:
            session.messages.lost[SCORES] = reason
        with self.guard(session):
            session.messages.status()

    def fail(self, session: ServerSession, error: Exception) -> None:
        """End one session at once, as something went wrong with it, and close its sender.

        Args:
            session: May have ended since.
            error: Logged once; decides between 1007, for data, and 1011, for our own fault.
        """
        if session.fault is not None or self.open.get(session.name) is not session:
            return
        session.fault = log_fault(f"session {session.name}", error)
        reject = session.reject
        self.remove(session, "failed")
        if reject is not None:
            reject(session.fault.code, session.fault.reason)

    @contextlib.contextmanager
    def guard(self, session: ServerSession) -> Iterator[None]:
        """Let whatever is raised within end that session, and no other."""
        try:
            yield
        except Exception as error:
            self.fail(session, error)

    def fail_named(self, name: str, error: Exception) -> None:
        """End the session of a name, if there is one; see `fail`."""
        if (session := self.open.get(name)) is not None:
            self.fail(session, error)

    async def run(self) -> None:
        """Step whenever a session waits, until cancelled."""
        looked, before = 0.0, time.monotonic()
        while True:
            for step in await self.backend.turn():
                self._take(step)
            now = time.monotonic()
            for session in [one for one in self.open.values() if one.closing]:
                is_late = now - session.closing_since > CLOSING
                if is_late or not self.backend.backlog(session.name):
                    self.remove(session, str(session.closing))
            self._slowest, before = max(self._slowest, now - before), now
            if not self.is_draining and now - looked >= LOOK:
                looked = now
                self._look(now)
            await asyncio.sleep(0 if self.backend.waiting else POLL)

    def _take(self, step: ScoredStep | FailedStep) -> None:
        if isinstance(step, FailedStep):
            self.fail_named(step.name, step.error)
        elif step.name in self.open:  # else it has ended while its step was elsewhere
            session = self.open[step.name]
            with self.guard(session):
                self._score(session, step)

    def shed(self, steps: tuple[str, ...]) -> None:
        """Give up work in every session, present and new, and publish it; see `LoadShedder`."""
        self._shed = steps
        for session in [*self.open.values()]:
            with self.guard(session):
                self._shed_in(session)
                session.messages.status()

    def _shed_in(self, session: ServerSession) -> None:
        session.messages.pressure = self._shed
        hop = self.timing.hop * (2 if "hop" in self._shed else 1)
        if session.closing is None and session.hop != hop:
            session.hop = hop
            self._apply(session, SetHop(hop))

    def take_slowest(self) -> float:
        """Return the seconds of the longest round since the last call."""
        slowest, self._slowest = self._slowest, 0.0
        return slowest

    def take_longest_wait(self) -> float:
        """Return the longest seconds that a step on the clock has waited since the last call."""
        longest, self._longest = self._longest, 0.0
        return longest

    def finish(self, session: ServerSession, reason: str) -> None:
        """Flush what a session still holds; `run` ends it afterwards."""
        if session.closing is None and session.name in self.open:
            session.closing, session.closing_since = reason, time.monotonic()
            with self.guard(session):
                self._apply(session, Close(session.now()))

    async def end(self, session: ServerSession, reason: str) -> None:
        """Finish a session and wait for its end, for `CLOSING` seconds at most."""
        self.finish(session, reason)
        await session.ended.wait()

    def close_all(self) -> list[ServerSession]:
        """End every session that is still open, as it is, and return them."""
        left = [*self.open.values()]
        for session in left:
            self.remove(session, session.closing or "stopped")
        return left

    def remove(self, session: ServerSession, reason: str) -> None:
        """End a session as it is, whatever it still holds."""
        try:
            session.messages.end(session.now(), reason)
        except Exception as error:  # its end was not sent everywhere; it ends all the same
            session.fault = session.fault or log_fault(f"session {session.name}", error)
        if self._recorders is not None and session.recorder is not None:
            self._recorders.end(session.recorder)
        del self.open[session.name]
        self.backend.leave(session.name)
        session.ended.set()
        session.has_room.set()

    def _score(self, session: ServerSession, step: ScoredStep) -> None:
        self.delays.append(step.waited)
        if not session.by_sender:  # the others may send faster than real time, and then wait
            self._longest = max(self._longest, step.waited)
        self.scores += 1
        if self.backend.backlog(session.name) <= BACKLOG:
            session.has_room.set()
        if session.recorder is not None:
            session.recorder.on_estimate(step.estimate)
        session.messages.estimate(step.estimate, session.latency(step), session.dropped)

    def _look(self, now: float) -> None:
        """Close hops of silent sessions, and sessions whose senders do not come back.

        Also publish which recordings have ended before their session.
        """
        for session in [*self.open.values()]:
            with self.guard(session):
                self._look_at(session, now)

    def _look_at(self, session: ServerSession, now: float) -> None:
        if self.backend.backlog(session.name) <= BACKLOG:
            session.has_room.set()
        is_silent = now - session.input_at > SILENCE / 2
        if is_silent and not (session.by_sender or session.closing):
            self._apply(session, Advance(session.now() - SILENCE))
        lost = session.recorder.lost if session.recorder else None
        if lost is not None and "recording" not in session.messages.lost:
            session.messages.recording(*lost, session.now())
        if session.away_since is not None and now - session.away_since > self._linger:
            self.finish(session, "stopped")

    def _publish(self, name: str, kind: str, line: str) -> None:
        session = self.open[name]
        if session.send is not None:
            session.send(line)
        if session.recorder is not None:
            session.recorder.publish(kind, line)
        self._publish_of(name, kind, line)

    def _apply(self, session: ServerSession, command: SessionCommand) -> None:
        """Give a session a command, and record it; one that does nothing does so in a replay."""
        self.backend.apply(session.name, command)
        if session.recorder is not None:
            session.recorder.on_command(command)

    def _notice_all(self, session: ServerSession, lost: str | None, detail: str) -> None:
        for modality in session.asked:
            reason = None if lost is None else REASONS[modality]
            self.push(session.name, Notice(session.now(), modality, reason, detail))


def _modality(item: Input | Block) -> str:
    return "text" if isinstance(item, Phrase) else item.modality
