"""Compare two ways to the same scores: live and offline of a file, recorded and replayed.

Knows how to run both ways and measures their difference. Prints nothing.
"""

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from tamulag.models.runtime.checkpoint import load
from tamulag.models.text.text_encoder import encoder_for

from ..app.build_agent import build
from ..app.build_recording import session_of
from ..config.loader import Config
from ..core.commands import Push, SessionCommand
from ..core.estimate import APART, Estimate, difference, scores_of
from ..core.sample import MODALITIES, TICK_RATE, Array, Phrase, Sample
from ..core.session import Session
from ..core.source import SourceError
from ..protocol.messages import decode
from ..service.replay_feed import feed
from ..storage.arrow_file import Recording
from ..storage.recording import ESTIMATE, RecordingError, Row
from .extract import play
from .reference_scorer import Score, scores

TOLERANCE = 1e-5
"""Largest difference that counts as equal."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Differences of two ways over all hops."""

    hops: int
    """Number of hops that both ways have."""
    differences: Mapping[str, float]
    """Largest difference by quantity, in units of sentiment unless its name states another."""

    @property
    def max_abs_diff(self) -> float:
        """The largest difference of all scores."""
        return max(self.differences.values(), default=0.0)


@dataclass
class SessionTrace:
    """An observer that collects what the offline path compares with."""

    samples: list[Sample] = field(default_factory=list)
    phrases: list[Phrase] = field(default_factory=list)
    estimates: list[Estimate] = field(default_factory=list)

    def on_command(self, command: SessionCommand) -> None:
        """Collect a sample or a phrase."""
        match command:
            case Push(Sample() as sample):
                self.samples.append(sample)
            case Push(Phrase() as phrase):
                # What comes when a hop has closed is known from the next tick on.
                closed = self.estimates[-1].end if self.estimates else 0.0
                known = max(phrase.timestamp, closed + 1 / TICK_RATE)
                self.phrases.append(replace(phrase, timestamp=known))

    def on_estimate(self, estimate: Estimate) -> None:
        """Collect an estimate."""
        self.estimates.append(estimate)


def verify_file(path: Path, config: Config) -> Comparison:
    """Play a media file through the live path and through the offline path.

    Each way has feature extractors of its own. The recogniser runs once, in the live path: the
    offline path takes its words and the times at which they became available, and encodes them
    again.

    Args:
        path: Media file.
        config: With `path` as its source, at speed `max`.

    Raises:
        SourceError: If the file cannot be played.
        CheckpointError: If the checkpoint cannot be used.
    """
    live, session = _live(config)
    found = play(path)
    model, card = load(config.model.checkpoint, window=round(session.timing.window * TICK_RATE))
    has_words = "text" in session.asked
    encode = encoder_for(config.model.checkpoint).encode if has_words else _nothing
    offline = scores(
        model,
        card,
        found,
        live.phrases,
        asked=session.asked,
        timing=session.timing,
        encode=encode,
    )
    if len(live.estimates) != len(offline):
        raise SourceError(
            f"{path}: the live path has {len(live.estimates)} hops, the offline path "
            f"{len(offline)}: this is a fault of the program"
        )
    return Comparison(len(offline), _scores_apart(live.estimates, offline))


def verify_recording(folder: Path, checkpoint: str | None) -> Comparison:
    """Replay a recording and compare every number of every estimate with what was recorded.

    A recording that was cut off (killed, full) is compared up to its last estimate.

    Args:
        folder: Folder of the recording.
        checkpoint: See `session_of`.

    Raises:
        RecordingError: If the recording cannot be replayed.
        CheckpointError: If the checkpoint cannot be used.
    """
    recording = Recording(folder)
    session, _ = session_of(recording.header, checkpoint)
    replayed: deque[Estimate] = deque()
    worst, hops, is_whole = {"estimates": 0.0}, 0, False
    for row in recording.rows():
        if row.kind == "estimate":
            recorded = _recorded(row)
            hops += 1
            fresh = asdict(replayed.popleft()) if replayed else {}
            computed = {name: fresh.get(name) for name in recorded}
            worst["estimates"] = max(worst["estimates"], difference(recorded, computed))
        elif row.kind == "message":
            is_whole = is_whole or _ends(row)
        else:
            replayed.extend(feed(session, row))
    if replayed and is_whole:
        worst["estimates"] = APART
    return Comparison(hops, worst)


def _ends(row: Row) -> bool:
    try:
        return decode(row.text or "").type == "session_end"
    except ValidationError as error:
        problem = error.errors()[0]["type"]  # its text may quote words
        raise RecordingError(f"recording holds a damaged message ({problem})") from error


def _recorded(row: Row) -> dict[str, object]:
    """Return a recorded estimate: what it has, which in an older recording may be less."""
    try:
        estimate = asdict(ESTIMATE.validate_json(row.text or ""))
        return {name: estimate[name] for name in json.loads(row.text or "")}
    except ValidationError as error:
        problem = error.errors()[0]["type"]  # its text may quote words
        raise RecordingError(f"recording holds a damaged estimate ({problem})") from error


def _scores_apart(live: Sequence[Estimate], offline: Sequence[Score]) -> dict[str, float]:
    worst = dict.fromkeys(("fused", *MODALITIES), 0.0)
    for one, other in zip(live, offline, strict=True):
        pairs = zip(scores_of(one).items(), (other.sentiment, *other.heads.values()), strict=True)
        for (name, mine), its in pairs:
            worst[name] = max(worst[name], difference(mine, its))
    return worst


def _live(config: Config) -> tuple[SessionTrace, Session]:
    built = build(config)
    with built.resources:
        trace = built.feed.session.observer = SessionTrace()
        asyncio.run(built.service.run())
    return trace, built.feed.session


def _nothing(words: Sequence[str]) -> tuple[Array, tuple[int, ...]]:
    """Encode no words: text was not asked for."""
    return np.zeros((0, 0), np.float32), ()
