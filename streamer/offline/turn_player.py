"""Play turns one after the other through a session: what does it say at each time?

Knows inputs of turns, sessions and estimates. Knows no file, no text encoder and no media.

The turns of a person go through one session in their order, with a pause between them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..core.estimate import Estimate, scores_of
from ..core.sample import Input, Modality, Phrase
from ..core.session import Session
from .turn_inputs import TurnInputs


class Said(NamedTuple):
    """What a session says at one time."""

    score: float | None
    """Of the head that was asked for, in [-3, 3]; None: nothing of it is there."""
    interval: tuple[float, float] | None
    """Of the fused score; None: it has none."""

    @property
    def value(self) -> float:
        """The score, 0 where there is none."""
        return self.score or 0.0

    def holds(self, label: float) -> bool | None:
        """Return whether a label in [-3, 3] is inside the interval; None: there is none."""
        if self.interval is None:
            return None
        low, high = self.interval
        return low <= label <= high


class PlayedTurn(NamedTuple):
    """A turn in its place in a stream."""

    turn: TurnInputs
    start: float
    """Session time in seconds."""
    end: float
    """Of what is said; the pause comes behind it."""
    estimates: list[Estimate]
    """Of the hops that end in the turn or in the pause behind it."""


def play_turns(
    session: Session, turns: Sequence[TurnInputs], *, pause: float, start: float = 0.0
) -> Iterator[PlayedTurn]:
    """Play turns through a session, and yield each.

    Args:
        session: A new one.
        turns: In their order.
        pause: Seconds behind each.
        start: Session time of the first.
    """
    utterance = 0
    for turn in turns:
        found = _played(session, turn, start, utterance, pause)
        end = start + turn.length
        yield PlayedTurn(turn, start, end, found)
        utterance += 1 + max((x.utterance for x in turn.inputs if isinstance(x, Phrase)), default=0)
        start = end + pause


def at_the_end(
    opened: Callable[[], Session],
    streams: Sequence[Sequence[TurnInputs]],
    head: str,
    *,
    pause: float,
    progress: Callable[[int], None],
) -> list[tuple[TurnInputs, Said]]:
    """Play each stream through a session of its own.

    Args:
        opened: Returns a new session.
        streams: Turns of a person each.
        head: `fused`, `text`, `audio` or `vision`.
        pause: Seconds between two turns.
        progress: Called with the number of streams that are done.

    Returns:
        Every turn, with what is said at its end.
    """
    found = []
    for done, turns in enumerate(streams, 1):
        for played in play_turns(opened(), turns, pause=pause):
            found.append((played.turn, said(played.estimates, played.end, head)))
        progress(done)
    return found


def said(found: Sequence[Estimate], time: float, head: str) -> Said:
    """Return what the first hop says that ends at `time` or later; the last hop, if none does.

    Args:
        found: Estimates in their order.
        time: Session time in seconds.
        head: `fused`, `text`, `audio` or `vision`.
    """
    after = [one for one in found if one.end >= time - 1e-6] or [*found[-1:]]
    return Said(scores_of(after[0])[head], after[0].interval) if after else Said(None, None)


def _played(
    session: Session, turn: TurnInputs, start: float, utterance: int, pause: float
) -> list[Estimate]:
    """Return the estimates of a turn and of the pause behind it."""
    found: list[Estimate] = []
    lateness, asked = session.timing.lateness, session.asked
    for item in turn.inputs:
        if _modality(item) not in asked:
            continue
        moved = _moved(item, start, utterance)
        # Words are known to the hop that ends with them: what has ended before is closed first.
        found += session.advance(moved.timestamp + lateness - 1e-3)
        found += session.push(moved)
    # The hop in which the turn ends has ended by then.
    found += session.advance(start + turn.length + max(pause, session.timing.hop) + lateness)
    return found


def _modality(item: Input) -> Modality:
    return "text" if isinstance(item, Phrase) else item.modality


def _moved(item: Input, start: float, utterance: int) -> Input:
    if isinstance(item, Phrase):
        words = tuple(
            replace(word, start=word.start + start, end=word.end + start) for word in item.words
        )
        number = item.utterance + utterance
        return replace(item, timestamp=item.timestamp + start, utterance=number, words=words)
    return replace(item, timestamp=item.timestamp + start)
