"""Answers of feature workers as bytes: a JSON header and the arrays as they lie in memory.

Knows the answers and their form. Knows no process, no pipe and no session but its number.

A worker decodes what strangers send, so the server takes what it answers as data: nothing here
builds an object that the bytes name, every field has a type and a bound, every array the length
that its header says. An answer is 4 bytes of length and that many bytes: 4 bytes of length of the
header (both big-endian), the header, a list that begins with the kind, and the arrays, float32 and
little-endian, one after the other.
"""

import json
import math
from typing import Never

import numpy as np

from ...core.errors import TamulagError
from ...core.plain_text import plain
from ...core.sample import MODALITIES, Array, Input, Notice, Phrase, Sample, Word
from .ipc import (
    HEAD,
    Answer,
    FrameProcessed,
    PhraseRecognised,
    Pong,
    Ready,
    SessionClosed,
    SessionFailed,
    SessionOpened,
    WorkerFailed,
)

LARGEST = 1 << 20
"""Bytes of an answer. The largest, a phrase of 64 tokens of 768 values, has 0.2 MB."""

MOST_TEXT = 20_000
"""Characters of a text; a longer traceback loses its beginning."""

MOST_VALUES = 4096
"""Values of a feature row or a token."""

MOST_COUNT = 1 << 53
"""Largest count or number, the largest that JSON keeps exactly everywhere."""

MOST_NUMBER = 1e9
"""Largest time, seconds, as of senders; shares are checked where they are used."""

_FLOAT = np.dtype("<f4")
_LOSSES = {"audio", "asr", "text", "vision"}


class BadAnswer(TamulagError):
    """A worker's answer is not of this form, or not one that it can give then."""


def pack_answer(answer: Answer) -> bytes:
    """Return an answer's bytes in the pipe, its length included."""
    arrays: list[Array] = []
    header = json.dumps(_header(answer, arrays)).encode()
    values = b"".join(np.ascontiguousarray(array, _FLOAT).tobytes() for array in arrays)
    size = HEAD + len(header) + len(values)
    return b"".join((size.to_bytes(HEAD, "big"), len(header).to_bytes(HEAD, "big"), header, values))


def checked_size(head: bytes) -> int:
    """Return the length of an answer, of the bytes before it.

    Raises:
        BadAnswer: If it is longer than `LARGEST`.
    """
    size = int.from_bytes(head, "big")
    if size > LARGEST:
        raise BadAnswer(f"it announces {size} bytes, allowed are {LARGEST}")
    return size


def unpack_answer(data: bytes) -> Answer:
    """Return the answer in the bytes of one, without its length.

    Raises:
        BadAnswer: If they are not one.
    """
    begin = HEAD + int.from_bytes(data[:HEAD], "big")
    try:
        if len(data) < begin:
            raise ValueError(f"{begin} bytes of header in {len(data)}")
        header = json.loads(data[HEAD:begin], parse_constant=_no_constant)
        arrays = _Arrays(data, begin)
        answer = _answer(header, arrays)
        arrays.finish()
    except (ValueError, TypeError, RecursionError) as error:
        raise BadAnswer(f"it is no answer: {plain(str(error))[:200]}") from error
    return answer


def _header(answer: Answer, arrays: list[Array]) -> list[object]:
    """Return the header of an answer, and add its arrays."""
    header: list[object]
    match answer:
        case Ready():
            header = ["ready"]
        case WorkerFailed(detail):
            header = ["broken", _clipped(detail)]
        case SessionOpened(number):
            header = ["opened", number]
        case FrameProcessed(number, inputs, losses):
            header = ["frame", number, [_input_header(item, arrays) for item in inputs], losses]
        case PhraseRecognised(number, phrase):
            header = ["phrase", number, *_phrase_header(phrase, arrays)]
        case SessionFailed(number, detail, trace, is_by_frame):
            header = ["failed", number, _clipped(detail), _clipped(trace), is_by_frame]
        case SessionClosed(number, problem):
            header = ["closed", number, _clipped(problem)]
        case Pong(load):
            header = ["pong", load]
    return header


def _input_header(item: Input, arrays: list[Array]) -> list[object]:
    match item:
        case Sample(modality, timestamp, values, reason):
            if values is not None:
                arrays.append(values)
            width = None if values is None else len(values)
            return ["sample", modality, timestamp, reason, width]
        case Notice(timestamp, modality, reason, detail, event):
            return ["notice", modality, timestamp, reason, _clipped(detail), event]
    raise TypeError(f"a frame gives samples and notices, not {type(item).__name__}")


def _phrase_header(phrase: Phrase, arrays: list[Array]) -> list[object]:
    words = [(word.text, word.start, word.end, word.confidence) for word in phrase.words]
    arrays.append(phrase.values)
    tokens = (phrase.word_of_token, phrase.values.shape[1])
    return [phrase.timestamp, phrase.utterance, words, *tokens, phrase.final, phrase.tail]


def _clipped(text: str) -> str:
    return text[-MOST_TEXT:]


def _answer(header: object, arrays: "_Arrays") -> Answer:
    answer: Answer
    match header:
        case ["ready"]:
            answer = Ready()
        case ["broken", detail]:
            answer = WorkerFailed(_text(detail))
        case ["opened", number]:
            answer = SessionOpened(_count(number))
        case ["frame", number, [*inputs], {**losses}]:
            found = [_input(item, arrays) for item in inputs]
            answer = FrameProcessed(_count(number), found, _losses(losses))
        case ["phrase", number, *phrase]:
            answer = PhraseRecognised(_count(number), _phrase(phrase, arrays))
        case ["failed", number, detail, trace, bool(is_by_frame)]:
            answer = SessionFailed(_count(number), _text(detail), _text(trace), is_by_frame)
        case ["closed", number, problem]:
            answer = SessionClosed(_count(number), _text(problem))
        case ["pong", load]:
            answer = Pong(_number(load))
        case _:
            raise ValueError("its kind is unknown")
    return answer


def _input(item: object, arrays: "_Arrays") -> Input:
    match item:
        case ["sample", "audio" | "vision" as modality, timestamp, reason, width]:
            values = None if width is None else arrays.take(1, width)[0]
            return Sample(modality, _number(timestamp), values, _text_or_none(reason))
        case ["notice", str(modality), timestamp, reason, detail, event]:
            name = next((one for one in MODALITIES if one == modality), None)
            if name is None:
                raise ValueError(f"no modality is called {modality[:20]!r}")
            texts = (_text_or_none(reason), plain(_text(detail)), _text(event))
            return Notice(_number(timestamp), name, *texts)
    raise ValueError("an input is of no kind that is known")


def _phrase(fields: list[object], arrays: "_Arrays") -> Phrase:
    match fields:
        case [timestamp, utterance, [*words], [*tokens], width, bool(final), tail]:
            found = tuple(map(_word, words))
            word_of_token = tuple(map(_count, tokens))
            if word_of_token and max(word_of_token) >= len(found):
                raise ValueError("a token is of a word that is not there")
            values = arrays.take(len(tokens), width)
            made = (_number(timestamp), _count(utterance), found, values, word_of_token)
            return Phrase(*made, final, plain(_text(tail)))
    raise ValueError("a phrase has other fields")


def _word(word: object) -> Word:
    match word:
        case [text, start, end, confidence]:
            sure = None if confidence is None else _number(confidence)
            return Word(plain(_text(text)), _number(start), _number(end), sure)
    raise ValueError("a word has other fields")


def _losses(losses: dict[object, object]) -> dict[str, int]:
    if not losses.keys() <= _LOSSES:
        raise ValueError("a loss is of no kind that is known")
    return {str(kind): _count(count) for kind, count in losses.items()}


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MOST_COUNT:
        raise ValueError("a count is none")
    return value


def _number(value: object) -> float:
    if not (type(value) is float or type(value) is int) or not abs(value) <= MOST_NUMBER:
        raise ValueError(f"a number is none within {MOST_NUMBER:g}")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        raise ValueError(f"a text is none of at most {MOST_TEXT} characters")
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is no number")


class _Arrays:
    """The arrays of an answer, taken one after the other.

    Args:
        data: The answer.
        place: Where they begin.
    """

    def __init__(self, data: bytes, place: int) -> None:
        self._data = data
        self._place = place

    def take(self, rows: int, width: object) -> Array:
        """Return the next array, shape (rows, width)."""
        if _count(width) > MOST_VALUES or width == 0:
            raise ValueError(f"rows of {width} values, allowed are 1 to {MOST_VALUES}")
        shape = (rows, _count(width))
        size = math.prod(shape) * _FLOAT.itemsize
        if size > len(self._data) - self._place:
            raise ValueError(f"{shape} values need {size} bytes, fewer are left")
        begin, self._place = self._place, self._place + size
        found = np.frombuffer(self._data, _FLOAT, math.prod(shape), begin)
        return found.astype(np.float32).reshape(shape)  # a copy: theirs cannot be written

    def finish(self) -> None:
        """Check that nothing is left."""
        if self._place != len(self._data):
            raise ValueError(f"{len(self._data) - self._place} bytes too many")
