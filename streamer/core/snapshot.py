"""A session as bytes: it leaves one batch and continues in another as if nothing had happened.

Knows a session's bookkeeping and state, and the form of the bytes: safetensors, whose header holds
all that is not an array. Nothing in it is code. Knows no file, no process and no network.

The bytes hold the words of the current utterance: protect them as you would a recording.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save  # in half the time of torch's

from .aligner import Held
from .errors import TamulagError
from .estimate import Presence
from .sample import Phrase, Sample, Word
from .session_batch import SessionBatch
from .step_builder import StepBuilder
from .trend import Trend
from .turns import TextTurn, VoiceTurn

VERSION = 1
SAMPLED: tuple[Literal["audio", "vision"], ...] = ("audio", "vision")


Arrays = Mapping[str, npt.NDArray[np.generic]]


class SnapshotError(TamulagError):
    """These bytes are no session that can continue here."""


@dataclass(frozen=True, kw_only=True)
class _Spoken:
    timestamp: float
    utterance: int
    words: list[Word]
    word_of_token: list[int]
    final: bool
    tail: str


@dataclass(frozen=True, kw_only=True)
class _SavedSession:
    version: int
    checkpoint: str
    timing: tuple[float, float, float]
    asked: list[str]
    end: int
    newest: dict[str, float | None]
    late: dict[str, int]
    held: dict[str, list[tuple[int, float, bool, str | None]]]
    """slot, timestamp, whether it has values, reason."""
    revision: int
    late_phrases: int
    hop: int | None = None
    """Ticks of the hops of now; None: those of `timing`."""
    reports: dict[str, Presence]
    words: list[tuple[int, str]]
    utterance: _Spoken | None
    waiting: list[_Spoken] = field(default_factory=list)
    text_turn: TextTurn = field(default_factory=TextTurn)
    """Where there is none, the snapshot was written before attention was scoped to a turn."""
    voice_turn: VoiceTurn = field(default_factory=VoiceTurn)
    trend: Trend = field(default_factory=Trend)
    """Likewise."""


_SAVED_SESSION = TypeAdapter(_SavedSession)


def dump(batch: SessionBatch, name: str, checkpoint: str) -> bytes:
    """Return a session of which no step is pending.

    Args:
        batch: Where it is.
        name: Of the session.
        checkpoint: What identifies the weights; `restore` wants the same.

    Raises:
        ValueError: If steps of it are pending: step first.
    """
    builder = batch.builder(name)
    # The key of the state is the format's, version 1.
    arrays = {f"seat.{key}": part for key, part in batch.read(name).items()}
    phrases = [*([] if builder.utterance is None else [builder.utterance]), *builder.waiting]
    for number, phrase in enumerate(phrases):
        arrays[f"phrase.{number}"] = np.ascontiguousarray(phrase.values)
    for modality, slots in builder.aligner.held.items():
        values = [held.values for held in slots.values() if held.values is not None]
        if values:
            arrays[f"held.{modality}"] = np.stack(values)
    saved = _SAVED_SESSION.dump_json(_saved_session(builder, checkpoint)).decode()
    return save(arrays, {"tamulag": saved})


def restore(batch: SessionBatch, name: str, packed: bytes, checkpoint: str) -> None:
    """Let a session continue from what `dump` returned.

    Args:
        batch: Where it continues.
        name: Under which it continues.
        packed: From `dump`.
        checkpoint: What identifies the weights.

    Raises:
        SnapshotError: If the bytes are damaged, or of another model, version or timing. Then the
            session is not there.
        BatchFull: If no slot is free.
    """
    try:
        saved = _SAVED_SESSION.validate_json(_header(packed))
        arrays = load(packed)
    except (SafetensorError, ValidationError, KeyError, ValueError) as error:
        # The error's own text may quote words.
        raise SnapshotError(f"the session's snapshot is damaged ({type(error).__name__})") from None
    timing = (batch.timing.window, batch.timing.hop, batch.timing.lateness)
    mine, given = (VERSION, checkpoint, timing), (saved.version, saved.checkpoint, saved.timing)
    if mine != given:
        raise SnapshotError(
            f"the session's snapshot is of another version, model or timing than {mine}: "
            "start a new session"
        )
    builder = batch.open(name, saved.asked)
    try:
        _write_back(builder, saved, arrays)
        state = {k.removeprefix("seat."): v for k, v in arrays.items() if k.startswith("seat.")}
        batch.write(name, state)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        batch.remove(name)
        why = type(error).__name__
        raise SnapshotError(f"the session's snapshot does not fit ({why})") from None


def _header(packed: bytes) -> str:
    """Return our part of the header, which `load` leaves out."""
    size = int.from_bytes(packed[:8], "little")
    text: str = TypeAdapter(dict[str, object]).validate_json(packed[8 : 8 + size])["__metadata__"][  # type: ignore[index]
        "tamulag"
    ]
    return text


def _saved_session(builder: StepBuilder, checkpoint: str) -> _SavedSession:
    aligner = builder.aligner
    return _SavedSession(
        version=VERSION,
        checkpoint=checkpoint,
        timing=(builder.timing.window, builder.timing.hop, builder.timing.lateness),
        asked=list(builder.asked),
        end=aligner.end,
        newest={k: None if v == -math.inf else v for k, v in aligner.newest.items()},
        late=dict(aligner.late),
        held={
            name: [(k, h.timestamp, h.values is not None, h.reason) for k, h in slots.items()]
            for name, slots in aligner.held.items()
        },
        hop=aligner.hop,
        revision=builder.revision,
        late_phrases=builder.late_phrases,
        reports=dict(builder.presence),
        words=list(builder.words.items()),
        utterance=None if builder.utterance is None else _spoken(builder.utterance),
        waiting=[_spoken(phrase) for phrase in builder.waiting],
        text_turn=builder.text_turn,
        voice_turn=builder.voice_turn,
        trend=builder.trend,
    )


def _spoken(phrase: Phrase) -> _Spoken:
    parts = asdict(phrase) | {"words": list(phrase.words)}
    del parts["values"]
    return _Spoken(**parts | {"word_of_token": list(phrase.word_of_token)})


def _phrase(spoken: _Spoken, values: npt.NDArray[np.generic]) -> Phrase:
    return Phrase(
        spoken.timestamp,
        spoken.utterance,
        tuple(spoken.words),
        values.astype(np.float32),
        tuple(spoken.word_of_token),
        spoken.final,
        spoken.tail,
    )


def _write_back(builder: StepBuilder, saved: _SavedSession, arrays: Arrays) -> None:
    aligner = builder.aligner
    if saved.hop is not None:
        aligner.set_hop(saved.hop)
    aligner.end = saved.end
    aligner.newest = {k: -math.inf if v is None else v for k, v in saved.newest.items()}
    aligner.late = dict(saved.late)
    for name in SAMPLED:
        rows = saved.held.get(name, [])
        values = iter(arrays[f"held.{name}"] if any(row[2] for row in rows) else ())
        aligner.held[name] = {
            slot: Held(Sample(name, at, next(values) if there else None, why), 0)
            for slot, at, there, why in rows
        }
    builder.revision, builder.late_phrases = saved.revision, saved.late_phrases
    builder.presence = dict(saved.reports)
    builder.words = dict(saved.words)
    builder.text_turn, builder.voice_turn = saved.text_turn, saved.voice_turn
    builder.trend = saved.trend
    spoken = [*([] if saved.utterance is None else [saved.utterance]), *saved.waiting]
    phrases = [_phrase(one, arrays[f"phrase.{number}"]) for number, one in enumerate(spoken)]
    builder.utterance = None if saved.utterance is None else phrases.pop(0)
    builder.waiting.extend(phrases)
