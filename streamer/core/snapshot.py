"""A session as bytes: it leaves one hall and goes on in another as if nothing had happened.

Knows a guest's turns and state, and the form of the bytes: safetensors, whose header holds all that
is not an array. Nothing in it is code. Knows no file, no process and no network.

The bytes hold the words of the current utterance: keep them as you would a recording.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import save  # in half the time of torch's
from safetensors.torch import load
from torch import Tensor

from .aligner import Held
from .errors import TamulagError
from .estimate import Presence
from .sample import Phrase, Sample, Word
from .session_batch import SessionBatch
from .step_builder import StepBuilder

VERSION = 1
SAMPLED: tuple[Literal["audio", "vision"], ...] = ("audio", "vision")


class SnapshotError(TamulagError):
    """These bytes are no session that can go on here."""


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
    reports: dict[str, Presence]
    words: list[tuple[int, str]]
    utterance: _Spoken | None
    waiting: list[_Spoken] = field(default_factory=list)


_SAVED_SESSION = TypeAdapter(_SavedSession)


def dump(hall: SessionBatch, name: str, checkpoint: str) -> bytes:
    """Return a session whose turns have all been taken.

    Args:
        hall: Where it is.
        name: Of the session.
        checkpoint: What identifies the weights; `unpack` wants the same.

    Raises:
        ValueError: If turns of it wait: step first.
    """
    turns = hall.guests[name].turns
    arrays = {f"seat.{key}": part.numpy() for key, part in hall.read(name).items()}
    phrases = [*([] if turns.utterance is None else [turns.utterance]), *turns.waiting]
    for number, phrase in enumerate(phrases):
        arrays[f"phrase.{number}"] = np.ascontiguousarray(phrase.values)
    for modality, slots in turns.aligner.held.items():
        values = [held.values for held in slots.values() if held.values is not None]
        if values:
            arrays[f"held.{modality}"] = np.stack(values)
    kept = _SAVED_SESSION.dump_json(_saved_session(turns, checkpoint)).decode()
    return save(arrays, {"tamulag": kept})


def restore(hall: SessionBatch, name: str, packed: bytes, checkpoint: str) -> None:
    """Let a session go on from what `pack` returned.

    Args:
        hall: Where it goes on.
        name: Under which it goes on.
        packed: From `pack`.
        checkpoint: What identifies the weights.

    Raises:
        HandoverError: If the bytes are damaged, or of another model, version or timing. Then the
            session is not there.
        HallFull: If no seat is free.
    """
    try:
        kept = _SAVED_SESSION.validate_json(_header(packed))
        tensors = load(packed)
    except (SafetensorError, ValidationError, KeyError, ValueError) as error:
        raise SnapshotError(f"the session that was kept is damaged: {error}") from None
    timing = (hall.timing.window, hall.timing.hop, hall.timing.lateness)
    mine, given = (VERSION, checkpoint, timing), (kept.version, kept.checkpoint, kept.timing)
    if mine != given:
        raise SnapshotError(f"the session was kept by {given}, which is not {mine}: begin anew")
    hall.open(name, kept.asked)
    try:
        _write_back(hall.guests[name].turns, kept, tensors)
        seat = {k.removeprefix("seat."): v for k, v in tensors.items() if k.startswith("seat.")}
        hall.write(name, seat)
    except (KeyError, IndexError, ValueError) as error:
        hall.leave(name)
        raise SnapshotError(f"the session that was kept does not fit: {error}") from error


def _header(packed: bytes) -> str:
    """Return our part of the header, which `safetensors.torch.load` leaves out."""
    size = int.from_bytes(packed[:8], "little")
    text: str = TypeAdapter(dict[str, object]).validate_json(packed[8 : 8 + size])["__metadata__"][  # type: ignore[index]
        "tamulag"
    ]
    return text


def _saved_session(turns: StepBuilder, checkpoint: str) -> _SavedSession:
    aligner = turns.aligner
    return _SavedSession(
        version=VERSION,
        checkpoint=checkpoint,
        timing=(turns.timing.window, turns.timing.hop, turns.timing.lateness),
        asked=list(turns.asked),
        end=aligner.end,
        newest={k: None if v == -math.inf else v for k, v in aligner.newest.items()},
        late=dict(aligner.late),
        held={
            name: [(k, h.timestamp, h.values is not None, h.reason) for k, h in slots.items()]
            for name, slots in aligner.held.items()
        },
        revision=turns.revision,
        late_phrases=turns.late_phrases,
        reports=dict(turns.reports),
        words=list(turns.words.items()),
        utterance=None if turns.utterance is None else _said(turns.utterance),
        waiting=[_said(phrase) for phrase in turns.waiting],
    )


def _said(phrase: Phrase) -> _Spoken:
    parts = asdict(phrase) | {"words": list(phrase.words)}
    del parts["values"]
    return _Spoken(**parts | {"word_of_token": list(phrase.word_of_token)})


def _phrase(said: _Spoken, values: Tensor) -> Phrase:
    return Phrase(
        said.timestamp,
        said.utterance,
        tuple(said.words),
        values.numpy(),
        tuple(said.word_of_token),
        said.final,
        said.tail,
    )


def _write_back(turns: StepBuilder, kept: _SavedSession, tensors: Mapping[str, Tensor]) -> None:
    aligner = turns.aligner
    aligner.end = kept.end
    aligner.newest = {k: -math.inf if v is None else v for k, v in kept.newest.items()}
    aligner.late = dict(kept.late)
    for name in SAMPLED:
        rows = kept.held.get(name, [])
        values = iter(tensors[f"held.{name}"].numpy() if any(row[2] for row in rows) else ())
        aligner.held[name] = {
            slot: Held(Sample(name, at, next(values) if there else None, why), 0)
            for slot, at, there, why in rows
        }
    turns.revision, turns.late_phrases = kept.revision, kept.late_phrases
    turns.reports = dict(kept.reports)
    turns.words = dict(kept.words)
    said = [*([] if kept.utterance is None else [kept.utterance]), *kept.waiting]
    phrases = [_phrase(one, tensors[f"phrase.{number}"]) for number, one in enumerate(said)]
    turns.utterance = None if kept.utterance is None else phrases.pop(0)
    turns.waiting.extend(phrases)
