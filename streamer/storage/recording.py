"""The content of a recording: a header and rows, in the order of the events.

Knows the meaning of each row and its allowed content: feature vectors, words and results, never
sound or pictures. Knows no file, session, thread or clock.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ..core.commands import Advance, Close, Push, SessionCommand, SetHop
from ..core.errors import TamulagError
from ..core.estimate import Estimate, Timing
from ..core.sample import (
    PERIOD,
    TICK_RATE,
    Array,
    Block,
    Input,
    Modality,
    Notice,
    Phrase,
    Sample,
    Word,
)
from ..core.trend import Labels

FORMAT = 1
LONGEST = 1e8
"""Seconds; upper bound of any session time."""

LONGEST_HOP = 60.0
"""Seconds of the longest hop that is believed; each costs memory for its ticks."""

Kind = Literal[
    "audio", "vision", "phrase", "notice", "advance", "close", "hop", "estimate", "message"
]
"""Commands went in, the inputs among them by what they are; estimates and messages came out."""
KINDS: frozenset[str] = frozenset(get_args(Kind))

Time = Annotated[float, Field(ge=-LONGEST, le=LONGEST, allow_inf_nan=False)]
Age = Annotated[float, Field(ge=0.1, le=60)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


class RecordingError(TamulagError):
    """A recording cannot be used; the text names it and the remedy."""


class RowModel(BaseModel):
    """Anything in a recording that is JSON: immutable, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ModalityTimes(RowModel):
    """A time for each modality."""

    text: Age
    audio: Age
    vision: Age


class Header(RowModel):
    """What must be the same for a replay to give the same numbers, and when it was."""

    format: Literal[1] = 1
    part: Count = 0
    """Number of the file."""
    session: str
    version: str
    """Of this program."""
    torch: str
    threads: Annotated[int, Field(ge=1, le=64)]
    checkpoint: str
    sha256: str
    """Of the checkpoint's file."""
    asked: Annotated[tuple[Modality, ...], Field(strict=False)]
    window: Annotated[float, Field(ge=1, le=60)]
    hop: Annotated[float, Field(ge=0.1, le=10)]
    lateness: Annotated[float, Field(ge=0, le=2)]
    stale_after: ModalityTimes
    missing_after: ModalityTimes
    epoch: Annotated[float, Field(ge=0, le=1e11)]
    """Wall time of session time 0, seconds since 1970."""
    attention: Literal["turn", "window"] = "window"
    """See `Timing`; the first recordings do not name it."""
    labels: Labels = "score"
    """Likewise."""
    privacy: Literal["none", "strict"] = "none"
    """`strict`: holds results alone, nothing of what went in."""

    @property
    def timing(self) -> Timing:
        """The numbers of the session."""
        return Timing(
            window=self.window,
            hop=self.hop,
            lateness=self.lateness,
            stale_after=self.stale_after.model_dump(),
            missing_after=self.missing_after.model_dump(),
            attention=self.attention,
            labels=self.labels,
        )


class PhraseRecord(RowModel):
    """A phrase without its token states, which lie in the row's values."""

    utterance: Count
    words: Annotated[tuple[tuple[str, Time, Time, float | None], ...], Field(strict=False)]
    word_of_token: Annotated[tuple[Count, ...], Field(strict=False)]
    size: Count
    """Numbers per token state."""
    final: bool
    tail: str


class NoticeRecord(RowModel):
    """A notice without its time."""

    modality: Modality
    reason: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that happened to the session, in the order in which it did."""

    kind: Kind
    arrived: float
    """Session time at which it went in or came out, in seconds."""
    at: float | None = None
    """Timestamp of an input; the number of another command."""
    values: Array | None = None
    """(D,) float32 of a sample; (K * D,) of a phrase."""
    text: str | None = None
    """A sample's reason, or JSON."""


ESTIMATE: TypeAdapter[Estimate] = TypeAdapter(Estimate)


def rows_of(command: SessionCommand, arrived: float) -> list[Row]:
    """Return the rows of what a session is given: of a block one for each of its samples."""
    match command:
        case Push(item):
            items = _samples(item) if isinstance(item, Block) else [item]
            return [_input_row(one, arrived) for one in items]
        case Advance(now):
            return [Row("advance", arrived, now)]
        case Close(end):
            return [Row("close", arrived, end)]
        case SetHop(seconds):
            return [Row("hop", arrived, seconds)]


def _samples(block: Block) -> Iterator[Sample]:
    for number, values in enumerate(block.values):
        at = block.timestamp + number * PERIOD[block.modality] / TICK_RATE
        yield Sample(block.modality, at, values)


def _input_row(item: Input, arrived: float) -> Row:
    if isinstance(item, Sample):
        return Row(item.modality, arrived, item.timestamp, item.values, item.reason)
    if isinstance(item, Notice):
        notice = NoticeRecord(modality=item.modality, reason=item.reason, detail=item.detail)
        return Row("notice", arrived, item.timestamp, None, notice.model_dump_json())
    phrase = PhraseRecord(
        utterance=item.utterance,
        words=tuple((w.text, w.start, w.end, w.confidence) for w in item.words),
        word_of_token=item.word_of_token,
        size=item.values.shape[1],
        final=item.final,
        tail=item.tail,
    )
    return Row("phrase", arrived, item.timestamp, item.values.ravel(), phrase.model_dump_json())


def estimate_row(estimate: Estimate, arrived: float) -> Row:
    """Return the row of an estimate; its numbers keep all their bits."""
    return Row("estimate", arrived, estimate.end, None, json.dumps(asdict(estimate)))


def command_of(row: Row) -> SessionCommand:
    """Return what the session was given.

    Raises:
        ValueError: If the row does not hold what its kind says.
    """
    if row.kind == "close":
        return Close(row.at)
    if row.kind == "advance":
        return Advance(-LONGEST if row.at is None else row.at)
    if row.kind == "hop":
        if row.at is None or not 0 < row.at <= LONGEST_HOP:
            raise ValueError(f"hop of {row.at} s: at most {LONGEST_HOP:g} s are believed")
        return SetHop(row.at)
    return Push(_input(row))


def _input(row: Row) -> Input:
    if row.at is None or not abs(row.at) <= LONGEST:
        raise ValueError(f"{row.kind} row with time {row.at}: at most {LONGEST:g} s are believed")
    if row.kind == "audio":
        return Sample("audio", row.at, row.values, row.text)
    if row.kind == "vision":
        return Sample("vision", row.at, row.values, row.text)
    if row.kind == "notice":
        record = NoticeRecord.model_validate_json(row.text or "")
        return Notice(row.at, record.modality, record.reason, record.detail)
    return _phrase(PhraseRecord.model_validate_json(row.text or ""), row.at, row.values)


def _phrase(record: PhraseRecord, at: float, values: Array | None) -> Phrase:
    tokens, size = len(record.word_of_token), record.size
    if values is None or len(values) != tokens * size:
        raise ValueError(f"phrase row whose values are not {tokens} tokens of {size}")
    if any(index >= len(record.words) for index in record.word_of_token):
        raise ValueError(f"phrase row with a token beyond its {len(record.words)} words")
    return Phrase(
        timestamp=at,
        utterance=record.utterance,
        words=tuple(Word(*word) for word in record.words),
        values=values.reshape(tokens, size),
        word_of_token=record.word_of_token,
        final=record.final,
        tail=record.tail,
    )
