"""The sessions of a server: what comes in is scored together, what is said goes to whom it belongs.

Knows sessions, their clocks and who is silent or gone. Knows no connection, no process and no
device: a sender is somebody who takes lines.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from ..core.sample import Block, Input, Modality, Notice, Phrase, Sample
from ..protocol import messages
from ..protocol.session_messages import RunInfo, SessionMessages
from .backend import ScoredStep, SessionBackend
from .snapshot_store import StoredSnapshot

POLL = 0.015
"""Seconds between two steps, so that many sessions share one."""

SILENCE = 0.5
"""Seconds beyond `lateness` after which hops close without any sample."""

LOOK = 0.1
"""Seconds between two looks at who is silent or gone."""

LINGER = 15.0
"""Seconds that a session waits for its sender to come back."""

BACKLOG = 8
"""Turns of one session that may wait; then no more of its sender is read."""

LAST = 10.0
"""Seconds that what is still held of a session may take."""

SCORES = "scores"
"""What is lost of a session that is not answered, beside its modalities."""

REASONS: Mapping[Modality, str] = {
    "text": "microphone_lost",
    "audio": "microphone_lost",
    "vision": "camera_lost",
}
"""Why a modality is lost whose sender has gone."""


@runtime_checkable
class SessionOutput(Protocol):
    """Takes what is said in any session."""

    def publish_of(self, session: str, kind: str, payload: str) -> None:
        """Hand over one message of a session; never waits."""


@dataclass(kw_only=True)
class ServerSession:
    """One session of the server.

    Attributes:
        name: Public.
        key: Secret: whoever has it goes on with the session.
        asked: The modalities.
        by_sender: True: the sender's timestamps are the session's time; nothing waits for a clock.
        start: Steady clock at session time 0.
        teller: Says its messages.
        described: Those of them that the front ends describe; the others come ready made.
        send: Takes lines for the sender; None: it is away.
    """

    name: str
    key: str
    asked: tuple[Modality, ...]
    by_sender: bool
    start: float
    teller: SessionMessages
    described: tuple[Modality, ...] = ()
    send: Callable[[str], None] | None = None
    heard: float = 0.0
    """Steady clock at the newest input."""
    reached: float = 0.0
    """Session time of the newest input."""
    left: float | None = None
    """Steady clock since when the sender is away."""
    utterances: tuple[int, int] = (0, 0)
    """Number at which the sender's utterances begin, and the one after the newest."""
    dropped: dict[str, int] = field(default_factory=dict)
    has_room: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no more than `BACKLOG` turns wait."""
    ending: str | None = None
    """Why it ends: nothing more is taken, and what is still held is said."""
    finishing: float = 0.0
    """Steady clock since when it ends."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when all has been said."""

    def now(self) -> float:
        """Return the session time in seconds."""
        return self.reached if self.by_sender else time.monotonic() - self.start


Keep = Callable[[ServerSession, dict[str, Any], bytes], bool]


class SessionRegistry:
    """All sessions of a server, by name.

    Args:
        place: Where they sit.
        about: What each says of itself.
        outlets: Take what is said, beside the session's own sender.
        linger: Seconds that a session waits for its sender, see `LINGER`.
        sends_words: False: no text message is said (`--privacy strict`).
    """

    def __init__(
        self,
        place: SessionBackend,
        about: RunInfo,
        outlets: list[SessionOutput] | None = None,
        *,
        linger: float = LINGER,
        sends_words: bool = True,
    ) -> None:
        self.place = place
        self.about = about
        self.outlets = outlets or []
        self.open: dict[str, ServerSession] = {}
        self.delays: deque[float] = deque(maxlen=20_000)
        """Seconds from when a turn was due to when it was said, of late."""
        self.scores = 0
        self.slowest = 0.0
        """Seconds of the longest round since somebody set it to 0."""
        self.looked: Callable[[], None] = lambda: None
        """Called every 0.1 s."""
        self.takes = True
        """False: nothing more is taken, as all is to end."""
        self._linger = linger
        self._sends_words = sends_words

    def begin(
        self,
        asked: tuple[Modality, ...],
        *,
        by_sender: bool,
        name: str | None = None,
        before: StoredSnapshot | None = None,
    ) -> ServerSession:
        """Begin a session, or let one go on that was kept.

        Args:
            asked: Modalities.
            by_sender: Whose clock counts, see `Call`.
            name: Of the session; None: a new one.
            before: What `Kept.look` returned.

        Raises:
            HallFull: If no seat is free.
            HandoverError: If it cannot go on.
            ValueError: If there is a session of that name.
        """
        about: Mapping[str, Any] = before[0] if before else {}
        packed, age = (before[1], before[2]) if before else (None, 0.0)
        name = str(about.get("name") or name or secrets.token_hex(4))
        if before is not None and name in self.open:
            name = secrets.token_hex(4)  # somebody else has taken it in between
        if name in self.open:
            raise ValueError(f"session {name} is here already: take another name")
        self.place.open(name, asked, packed)
        reached = float(about.get("reached", 0.0))
        start = time.monotonic() - float(about.get("now", 0.0)) - age
        call = ServerSession(
            name=name,
            key=str(about.get("key") or secrets.token_urlsafe(16)),
            asked=asked,
            by_sender=by_sender,
            start=start,
            teller=SessionMessages(
                name,
                self.about,
                wall_now=time.time,
                send=lambda kind, line: self._said(name, kind, line),
                seq=int(about.get("seq", 0)),
            ),
            heard=time.monotonic(),
            reached=reached,
            utterances=(int(about.get("utterance", 0)), int(about.get("utterance", 0))),
        )
        call.has_room.set()
        self.open[name] = call
        return call

    def came_back(self, call: ServerSession, send: Callable[[str], None]) -> None:
        """Take note of a sender, the first time or again."""
        call.send, call.heard = send, time.monotonic()
        if call.left is not None:
            call.left = None
            self._renumber(call)
            self._tell_all(call, None, "the sender is back")

    def left(self, call: ServerSession, detail: str) -> None:
        """Take note that a sender has gone; its session waits for it."""
        call.send, call.left = None, time.monotonic()
        self._tell_all(call, "lost", detail)

    def take(self, name: str, item: Input | Block) -> None:
        """Take one input of a session that may have ended since it was made."""
        call = self.open.get(name)
        if call is None or call.ending or not self.takes or _modality(item) not in call.asked:
            return
        if isinstance(item, Phrase):
            first, newest = call.utterances
            item = replace(item, utterance=item.utterance + first)
            call.utterances = (first, max(newest, item.utterance + 1))
            if self._sends_words:
                call.teller.words(item)
        elif isinstance(item, Notice):
            call.teller.notice(item)
        call.heard = time.monotonic()
        call.reached = max(call.reached, _end(item))
        self.place.push(name, item)
        if call.by_sender and isinstance(item, Phrase):
            self.place.advance(name, call.reached - SILENCE)
        if self.place.backlog(name) > BACKLOG:
            call.has_room.clear()

    def front_end(self, name: str, reason: str | None, detail: str) -> None:
        """Take note that what describes a session's sound and pictures is lost, or back."""
        call = self.open.get(name)
        if call is None:
            return
        self._renumber(call)
        for modality in call.described:
            self.take(name, Notice(call.now(), modality, reason, detail))

    def unanswered(self, name: str, reason: str | None) -> None:
        """Take note that nothing is said of a session where it sits, or that it is again."""
        call = self.open.get(name)
        if call is None:
            return
        if reason is None:
            call.teller.lost.pop(SCORES, None)
        else:
            call.teller.lost[SCORES] = reason
        call.teller.status()

    async def run(self) -> None:
        """Step whenever somebody waits, until cancelled."""
        looked, before = 0.0, time.monotonic()
        while True:
            await self._step()
            now = time.monotonic()
            for call in [call for call in self.open.values() if call.ending]:
                if not self.place.backlog(call.name) or now - call.finishing > LAST:
                    self._forget(call, str(call.ending))
            self.slowest, before = max(self.slowest, now - before), now
            if self.takes and now - looked >= LOOK:
                looked = now
                self._look(now)
            await asyncio.sleep(0 if self.place.waiting else POLL)

    def finish(self, call: ServerSession, reason: str) -> None:
        """Let a session end: what is still held of it is said, and then that it ends."""
        if call.ending is None and call.name in self.open:
            call.ending, call.finishing = reason, time.monotonic()
            self.place.finish(call.name, call.now())

    async def end(self, call: ServerSession, reason: str) -> None:
        """Let a session end, and wait for it; `run` sees to it within `LAST` seconds."""
        self.finish(call, reason)
        await call.ended.wait()

    async def hand_over(self, keep: Keep) -> AsyncGenerator[tuple[ServerSession, bool], None]:
        """End one session after the other so that it can go on elsewhere; nothing more is taken.

        What waits of a session is said before; `run` sees to it. Whoever calls sets a limit, and
        ends with `let_go` those that are left.

        Args:
            keep: Takes a session, what JSON can hold of it, and its state; returns whether it will
                go on: then its end is `handed_over`.

        Yields:
            Each session once it has ended, and whether it goes on.
        """
        self.takes = False
        self.place.drain()
        while self.open:
            packed = await self.place.pack([*self.open])
            for call in [self.open[name] for name in packed if name in self.open]:
                goes_on = call.ending is None and keep(call, _about(call), packed[call.name])
                self._forget(call, "handed_over" if goes_on else call.ending or "stopped")
                yield call, goes_on
            await asyncio.sleep(0 if packed else POLL)

    def let_go(self) -> list[ServerSession]:
        """End every session that is still here, as it is, and return them."""
        left = [*self.open.values()]
        for call in left:
            self._forget(call, call.ending or "stopped")
        return left

    def _forget(self, call: ServerSession, reason: str) -> None:
        call.teller.end(call.now(), reason)
        del self.open[call.name]
        self.place.leave(call.name)
        call.ended.set()
        call.has_room.set()

    async def _step(self) -> None:
        for said in await self.place.turn():
            if said.name in self.open:  # else it has ended while its turn was elsewhere
                self._score(self.open[said.name], said)

    def _score(self, call: ServerSession, said: ScoredStep) -> None:
        self.delays.append(said.waited)
        self.scores += 1
        if self.place.backlog(call.name) <= BACKLOG:
            call.has_room.set()
        total = time.monotonic() - call.start - said.estimate.end
        latency = messages.Latency(
            align=None if call.by_sender else round(max(0.0, total - said.waited), 4),
            features=None,
            model=round(said.spent, 5),
            total=None if call.by_sender else round(max(0.0, total), 4),
        )
        call.teller.estimate(said.estimate, latency, call.dropped)

    def _look(self, now: float) -> None:
        """Close hops of those who are silent, and sessions whose senders do not come back."""
        for call in list(self.open.values()):
            if self.place.backlog(call.name) <= BACKLOG:
                call.has_room.set()
            if not (call.by_sender or call.ending) and now - call.heard > SILENCE / 2:
                self.place.advance(call.name, call.now() - SILENCE)
            if call.left is not None and now - call.left > self._linger:
                self.finish(call, "stopped")
        self.looked()

    def _said(self, name: str, kind: str, line: str) -> None:
        call = self.open[name]
        if call.send is not None:
            call.send(line)
        for outlet in self.outlets:
            outlet.publish_of(name, kind, line)

    def _tell_all(self, call: ServerSession, lost: str | None, detail: str) -> None:
        for modality in call.asked:
            reason = None if lost is None else REASONS[modality]
            self.take(call.name, Notice(call.now(), modality, reason, detail))

    def _renumber(self, call: ServerSession) -> None:
        """Let utterances begin at 0 again: a new recogniser or sender counts anew."""
        call.utterances = (call.utterances[1], call.utterances[1])


def _about(call: ServerSession) -> dict[str, Any]:
    """Return what JSON can hold of a session whose end is said next."""
    return {
        "name": call.name,
        "key": call.key,
        "seq": call.teller.seq + 1,
        "now": call.now(),
        "reached": call.reached,
        "utterance": call.utterances[1],
        "asked": list(call.asked),
        "by_sender": call.by_sender,
    }


def _modality(item: Input | Block) -> str:
    return "text" if isinstance(item, Phrase) else item.modality


def _end(item: Input | Block) -> float:
    return item.timestamp if isinstance(item, Sample | Block | Phrase) else 0.0
