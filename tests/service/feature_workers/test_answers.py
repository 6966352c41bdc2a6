"""Answers come out of the pipe as they went in, and nothing else comes out of it."""

import contextlib
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamulag.streamer.core.sample import Notice, Phrase, Sample, Word
from tamulag.streamer.service.feature_workers.answers import (
    LARGEST,
    MOST_TEXT,
    BadAnswer,
    checked_size,
    pack_answer,
    unpack_answer,
)
from tamulag.streamer.service.feature_workers.ipc import (
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

ROW = np.array([0.1, -7.5, 3e-9], np.float32)
WORDS = (Word("gut ✓", 0.25, 1 / 3), Word("so", 0.5, 0.75, 0.9))

ANSWERS: list[Answer] = [
    *(Ready(), WorkerFailed("no file"), SessionOpened(1), SessionClosed(2), Pong(0.5)),
    SessionFailed(1, "it fails", "line 3\nline 4", is_by_frame=True),
    FrameProcessed(1, [Sample("vision", 2.5, None, "no_face")], {"vision": 1}),
    FrameProcessed(1, [Notice(1.5, "text", "asr_lost", "no model")], {}),
]


def framed(header: object, values: bytes = b"") -> bytes:
    """Return the bytes of an answer with that header, without its length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(HEAD, "big") + text + values


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)
def test_answers_come_as_they_were(answer: Answer) -> None:
    """Length first, then the answer."""
    data = pack_answer(answer)
    assert checked_size(data[:HEAD]) == len(data) - HEAD
    assert unpack_answer(data[HEAD:]) == answer


def test_arrays_come_to_the_bit() -> None:
    """Each in its place, and they can be written, as those of this process."""
    samples = [Sample("audio", 0.02 * k, np.float32(k) * ROW) for k in range(25)]
    found = unpack_answer(pack_answer(FrameProcessed(7, [*samples], {"audio": 3, "asr": 0}))[HEAD:])
    assert isinstance(found, FrameProcessed)
    assert (found.number, found.losses) == (7, {"audio": 3, "asr": 0})
    for sent, got in zip(samples, found.inputs, strict=True):
        assert isinstance(got, Sample)
        assert (got.modality, got.timestamp, got.reason) == ("audio", sent.timestamp, None)
        assert got.values is not None
        assert got.values.flags.writeable
        np.testing.assert_array_equal(got.values, sent.values)


@pytest.mark.parametrize("tokens", [0, 3])
def test_a_phrase_comes_as_it_was(tokens: int) -> None:
    """Words, token states and what is not sure yet; also without a token."""
    values = np.random.default_rng(0).normal(size=(tokens, 384)).astype(np.float32)
    phrase = Phrase(2.5, 4, WORDS, values, (0, 1, 1)[:tokens], final=True, tail="and")
    found = unpack_answer(pack_answer(PhraseRecognised(3, phrase))[HEAD:])
    assert isinstance(found, PhraseRecognised)
    got = found.phrase
    assert (got.timestamp, got.utterance, got.words) == (2.5, 4, WORDS)
    assert (got.word_of_token, got.final, got.tail) == (phrase.word_of_token, True, "and")
    np.testing.assert_array_equal(got.values, values)


def test_words_are_for_reading() -> None:
    """What acts on a terminal does not come through: a recogniser's words are no exception."""
    words = (Word("a\x1b[2Jb", 0.0, 0.1),)
    phrase = Phrase(0.5, 0, words, np.zeros((0, 4), np.float32), (), final=False, tail="\x9b31m c")
    found = unpack_answer(pack_answer(PhraseRecognised(3, phrase))[HEAD:])
    assert isinstance(found, PhraseRecognised)
    assert (found.phrase.words[0].text, found.phrase.tail) == ("ab", " c")


def test_a_long_traceback_keeps_its_end() -> None:
    """An honest answer is always within what is taken."""
    failed = SessionFailed(1, "why", "x" * 10 * MOST_TEXT + "the end", is_by_frame=False)
    found = unpack_answer(pack_answer(failed)[HEAD:])
    assert isinstance(found, SessionFailed)
    assert found.trace.endswith("the end")
    assert len(found.trace) == MOST_TEXT


class _Bomb:
    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._trace,)


def test_a_pickle_is_no_answer(tmp_path: Path) -> None:
    """Nothing in it runs."""
    bomb = pickle.dumps(_Bomb(tmp_path / "trace"), pickle.HIGHEST_PROTOCOL)
    for data in (bomb, framed(bomb), framed(["ready"], bomb)):
        with pytest.raises(BadAnswer, match="it is no answer"):
            unpack_answer(data)
    assert not list(tmp_path.iterdir())
    pickle.loads(bomb)  # the test would notice
    assert list(tmp_path.iterdir())


def one(*sample: object, values: bytes = b"") -> bytes:
    return framed(["frame", 1, [list(sample)], {}], values)


def phrase(*fields: object, values: bytes = b"") -> bytes:
    return framed(["phrase", 1, *fields], values)


BAD = {
    "nothing": b"",
    "half a length": b"\0\0",
    "a length beyond its end": b"\xff\xff\xff\xff[]",
    "no JSON": framed(b"\x80\x04K\x01."),
    "no list": framed({"kind": "ready"}),
    "an unknown kind": framed(["run", "id"]),
    "nested too deep": framed(b"[" * 500_000),
    "digits without end": framed(b'["opened",' + b"1" * 5000 + b"]"),
    "a number that is a truth": framed(["opened", True]),
    "a number below 0": framed(["opened", -1]),
    "a number that is a text": framed(["opened", "1"]),
    "load that is none": framed(b'["pong",NaN]'),
    "load without end": framed(b'["pong",1e999]'),
    "bytes too many": framed(["ready"], b"\0"),
    "a text too long": framed(["closed", 1, "x" * (MOST_TEXT + 1)]),
    "a loss that is none": framed(["frame", 1, [], {"gold": 1}]),
    "a loss below 0": framed(["frame", 1, [], {"audio": -1}]),
    "too few values": one("sample", "audio", 0.0, None, 3, values=bytes(8)),
    "values of another type": one(
        "sample", "audio", 0.0, None, 3, values=struct.pack("<3d", 1, 2, 3)
    ),
    "no values": one("sample", "audio", 0.0, None, 0),
    "a row of 2^52 values": one("sample", "audio", 0.0, None, 1 << 52),
    "a row of -1 values": one("sample", "audio", 0.0, None, -1, values=bytes(8)),
    "a row of 1.5 values": one("sample", "audio", 0.0, None, 1.5, values=bytes(6)),
    "a modality of its own": one("sample", "smell", 0.0, None, None),
    "a time without end": one("sample", "audio", 1e300, None, None),
    "a time that is a text": one("sample", "audio", "0", None, None),
    "a notice of nothing": one("notice", "smell", 0.0, None, "", ""),
    "a phrase in a frame": one("phrase", 0.0),
    "a token of no word": phrase(0.0, 0, [["a", 0, 1, None]], [1], 2, True, "", values=bytes(8)),
    "fewer tokens than said": phrase(
        0.0, 0, [["a", 0, 1, None]], [0, 0], 2, True, "", values=bytes(8)
    ),
    "a word without its end": phrase(0.0, 0, [["a", 0]], [0], 2, True, "", values=bytes(8)),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_answer_is_refused(name: str) -> None:
    """In a line, whatever is wrong with it."""
    with pytest.raises(BadAnswer, match="it is no answer") as caught:
        unpack_answer(BAD[name])
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_no_more_is_read_than_an_answer_has() -> None:
    """The length is checked before a byte is waited for."""
    assert checked_size(LARGEST.to_bytes(HEAD, "big")) == LARGEST
    with pytest.raises(BadAnswer, match=r"it announces 4294967295 bytes, allowed are 1048576"):
        checked_size(b"\xff\xff\xff\xff")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_answers_are_answers_or_refused(data: st.DataObject) -> None:
    """Whatever byte is another: nothing else is ever raised."""
    values = np.ones((2, 4), np.float32)
    sent = PhraseRecognised(3, Phrase(2.5, 4, WORDS, values, (0, 1), final=True))
    whole = bytearray(pack_answer(data.draw(st.sampled_from([*ANSWERS, sent])))[HEAD:])
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadAnswer):
        unpack_answer(bytes(whole))
