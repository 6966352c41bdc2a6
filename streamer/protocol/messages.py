"""The versioned schema of every output message, the same for WebSocket, MQTT and JSON lines.

Knows the fields on the wire. Knows no sockets and no clock: the caller gives the wall time.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from ..core.estimate import Estimate
from ..core.plain_text import plain
from ..core.sample import LIMIT, MODALITIES, Phrase
from ..core.trend import Label

VERSION = 1

Sentiment = Annotated[float, Field(ge=-LIMIT, le=LIMIT)]
Share = Annotated[float, Field(ge=0, le=1)]
PlainText = Annotated[str, AfterValidator(plain)]
"""Of a recogniser, a device or a file: without what acts on a terminal."""
Status = Literal["ok", "stale", "missing", "off", "untrained"]
StateWord = Literal["online", "degraded", "offline"]
Role = Literal["customer", "agent", "visitor"]


class WireModel(BaseModel):
    """Base of every message part: immutable, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Subject(WireModel):
    """The person the session is about; never a name."""

    role: Role = "customer"
    id: str | None = Field(None, description="Pseudonym, where the settings give one")


ANONYMOUS = Subject()


class Message(WireModel):
    """Fields of every message."""

    v: Literal[1] = 1
    session: str = Field(description="Identifier of the session, unique per start")
    seq: int = Field(
        ge=0, description="Rises by one from message to message; hello and heartbeat repeat it"
    )
    time: str = Field(description="UTC wall time at sending, RFC 3339")
    subject: Subject = ANONYMOUS


class Window(WireModel):
    """The span of session time that an estimate covers."""

    start: float = Field(ge=0, description="Seconds since the session's start")
    end: float = Field(ge=0, description="Seconds since the session's start")
    warmup: bool = Field(description="True until a whole window has passed")


def _is_none(value: object) -> bool:
    return value is None


class Modality(WireModel):
    """One modality's own estimate."""

    sentiment: Sentiment | None = Field(description="A number only where status is ok or stale")
    weight: Share = Field(description="Share of the modality in the fusion")
    status: Status
    reason: str | None = Field(
        None, description="Why it is not ok: no_face, camera_lost, ...", exclude_if=_is_none
    )
    age: float | None = Field(
        None, description="Seconds since its newest valid content", exclude_if=_is_none
    )
    scale: float | None = Field(
        None,
        ge=0,
        description="Of the error of sentiment; left out where the checkpoint has none",
        exclude_if=_is_none,
    )
    revision: int | None = Field(
        None,
        description="Text only: times at which words that had been scored were changed",
        exclude_if=_is_none,
    )


class Modalities(WireModel):
    """The three modalities, in the field's order."""

    text: Modality
    audio: Modality
    vision: Modality


class Attention(WireModel):
    """The heaviest ticks of each present modality."""

    text: list[tuple[PlainText, float, Share]] = Field([], description="word, session time, weight")
    audio: list[tuple[float, Share]] = Field([], description="session time, weight")
    vision: list[tuple[float, Share]] = Field([], description="session time, weight")


class Latency(WireModel):
    """Seconds; null where it cannot be measured (a file at full speed)."""

    align: float | None = Field(description="From the end of the hop to its closing")
    features: float | None = Field(description="Longest way of a sample of this hop, from capture")
    model: float = Field(description="Spent in the model for this hop")
    total: float | None = Field(description="From the end of the hop to sending")


class SentimentMessage(Message):
    """The estimate of one hop."""

    type: Literal["sentiment"] = "sentiment"
    window: Window
    sentiment: Sentiment | None = Field(description="Fused estimate of all present modalities")
    interval: tuple[Sentiment, Sentiment] | None = Field(
        description="Calibrated 90 % interval; null where it was not calibrated"
    )
    valence: Annotated[float, Field(ge=-1, le=1)] | None = Field(description="sentiment / 3")
    trend: Sentiment | None = Field(None, description="sentiment smoothed over some seconds")
    label: Label | None = Field(
        description="Of the trend: neutral within 0.5 of zero, with hysteresis"
    )
    modalities: Modalities
    conflict: float | None = Field(
        ge=0, le=2 * LIMIT, description="Largest distance between present modalities"
    )
    attention: Attention
    latency: Latency
    dropped: dict[str, int] = Field(
        description="Lost so far: phrases of text, ticks of 20 ms of audio, frames of vision; "
        "asr: ticks of sound that the recogniser never got"
    )


class Head(WireModel):
    """One output of the model."""

    trained: bool = Field(description="An untrained head gives null, never a number")
    data: str | None = Field(description="Corpus it was trained on")


class Hello(Message):
    """First message to each new subscriber."""

    type: Literal["hello"] = "hello"
    version: str = Field(description="Version of the program")
    checkpoint: str
    heads: dict[str, Head] = Field(description="sentiment (fused), text, audio, vision")
    modalities: list[str] = Field(description="Those that were asked for")
    sources: list[PlainText]
    window: float = Field(description="Seconds")
    hop: float = Field(description="Seconds")
    lateness: float = Field(description="Seconds")
    epoch: str = Field(description="UTC wall time of session time 0, RFC 3339")


class SpokenWord(WireModel):
    """A committed word."""

    text: PlainText
    start: float = Field(description="Seconds since the session's start")
    end: float = Field(description="Seconds since the session's start")
    confidence: float | None = Field(None, ge=0, le=1)


class Text(Message):
    """The committed words of an utterance; a later message with the same number replaces it."""

    type: Literal["text"] = "text"
    utterance: int
    words: list[SpokenWord]
    tail: PlainText = Field("", description="Unstable words, for display only; never scored")
    final: bool


class Event(Message):
    """Something that happened, other than a score."""

    type: Literal["event"] = "event"
    event: str = Field(description="source_lost, source_back, ...")
    modality: Literal["text", "audio", "vision"] | None = None
    reason: str | None = None
    detail: PlainText = ""
    at: float = Field(description="Seconds since the session's start")


class State(Message):
    """Whether the agent works, and which modalities are lost."""

    type: Literal["status"] = "status"
    state: StateWord
    lost: dict[str, str] = Field({}, description="Lost modality or output, and reason")
    pressure: list[str] = Field(
        [],
        description="Work shed because the machine is too slow: vision_rate, asr_partials, hop",
    )
    notice: str | None = Field(None, description="For the people who are scored")


class Bound(Message):
    """Start or end of the session."""

    type: Literal["session_start", "session_end"]
    at: float = Field(description="Seconds since the session's start")
    reason: str | None = None


class Heartbeat(Message):
    """Sent when nothing else is, so that a client detects a dead link."""

    type: Literal["heartbeat"] = "heartbeat"


class Missed(Message):
    """Sent to one slow subscriber in place of the messages that were dropped for it."""

    type: Literal["missed"] = "missed"
    missed: int = Field(ge=1, description="Messages dropped for this subscriber since the last one")


class Problem(Message):
    """An error that concerns a subscriber."""

    type: Literal["error"] = "error"
    error: str


AnyMessage = SentimentMessage | Hello | Text | Event | State | Bound | Heartbeat | Missed | Problem
ANY: TypeAdapter[AnyMessage] = TypeAdapter(Annotated[AnyMessage, Field(discriminator="type")])


def schema() -> dict[str, object]:
    """Return the JSON Schema of all messages."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"tamulag-stream message, version {VERSION}",
        **ANY.json_schema(mode="serialization"),
    }


def encode(message: AnyMessage) -> str:
    """Return the message as one line of JSON; empty optional keys of modalities are omitted."""
    return message.model_dump_json()


def decode(line: str | bytes) -> AnyMessage:
    """Return the message in a line of JSON.

    Raises:
        pydantic.ValidationError: If it does not fit the schema; a ValueError.
    """
    return ANY.validate_json(line)


def missed(hello: str, count: int) -> str:
    """Return the line that reports to one subscriber how many messages it missed.

    Args:
        hello: Line of any current message of the session, as the source of its envelope.
        count: At least 1.
        count: At least 1.
    """
    head = decode(hello).model_dump(include={"session", "seq", "time", "subject"})
    return encode(Missed(missed=count, **head))


def utc(epoch: float) -> str:
    """Return a wall time, seconds since 1970, as RFC 3339 with milliseconds."""
    return (
        datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def sentiment_message(
    estimate: Estimate,
    *,
    session: str,
    seq: int,
    time: str,
    latency: Latency,
    dropped: Mapping[str, int],
    subject: Subject = ANONYMOUS,
) -> SentimentMessage:
    """Return the message of an estimate, its numbers rounded."""
    modalities = {
        name: Modality(
            sentiment=_rounded(part.sentiment),
            weight=round(part.weight, 3),
            status=part.status,
            reason=part.reason,
            age=_rounded(part.age, 2),
            scale=_rounded(part.scale),
            revision=estimate.revision if name == "text" and part.status != "off" else None,
        )
        for name, part in estimate.modalities.items()
    }
    value = _rounded(estimate.sentiment)
    interval = estimate.interval
    return SentimentMessage(
        session=session,
        seq=seq,
        time=time,
        subject=subject,
        window=Window(
            start=round(estimate.start, 2), end=round(estimate.end, 2), warmup=estimate.warmup
        ),
        sentiment=value,
        interval=(round(interval[0], 2), round(interval[1], 2)) if interval else None,
        valence=None if value is None else round(value / LIMIT, 4),
        trend=_rounded(estimate.trend),
        label=estimate.label,
        modalities=Modalities(**modalities),
        conflict=_rounded(estimate.conflict),
        attention=Attention(**{name: _attention(estimate, name) for name in MODALITIES}),
        latency=latency,
        dropped=dict(dropped),
    )


def text_message(
    phrase: Phrase, *, session: str, seq: int, time: str, subject: Subject = ANONYMOUS
) -> Text:
    """Return the message of an utterance's words."""
    words = [
        SpokenWord(
            text=word.text,
            start=round(word.start, 2),
            end=round(word.end, 2),
            confidence=_rounded(word.confidence, 3),
        )
        for word in phrase.words
    ]
    return Text(
        session=session,
        seq=seq,
        time=time,
        subject=subject,
        utterance=phrase.utterance,
        words=words,
        tail=phrase.tail,
        final=phrase.final,
    )


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)


def _attention(estimate: Estimate, name: str) -> Sequence[tuple[object, ...]]:
    rows = estimate.attention.get(name, [])
    return [
        tuple(part if isinstance(part, str) else round(part, 3) for part in row) for row in rows
    ]
