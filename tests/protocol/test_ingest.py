"""What a sender may say: every promise of the protocol, and damaged bytes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamulag.streamer.protocol import ingest
from tamulag.streamer.protocol.ingest import (
    FeaturesHeader,
    Frame,
    IngestError,
    PictureHeader,
    SenderHello,
    SentWord,
    SoundForm,
    SoundHeader,
    WordsHeader,
    build_frame,
    channel,
    parse_frame,
    parse_hello,
)
from tamulag.streamer.protocol.jpeg import picture_size

DIMS = {"audio": 3, "vision": 2}
JPEG = cv2.imencode(".jpg", np.full((48, 64, 3), 127, np.uint8))[1].tobytes()
PCM = SoundForm(encoding="pcm_s16le", rate=16000)
HELLO = SenderHello.model_validate(
    {"audio": PCM, "vision": {"encoding": "jpeg"}, "words": True, "features": []}
)
READY = SenderHello(features=["audio", "vision"])


def hello(**rest: object) -> str:
    return json.dumps({"type": "hello", **rest})


def sound(payload: bytes, form: SoundForm) -> list[Any]:
    """Return the samples of a payload in a form."""
    data = build_frame(SoundHeader(timestamp=1.0), payload)
    got = parse_frame(data, SenderHello(audio=form), DIMS).sound
    assert got is not None
    return list(got.tolist())


def refusal(data: bytes, promised: SenderHello = HELLO) -> IngestError:
    with pytest.raises(IngestError) as refused:
        parse_frame(data, promised, DIMS)
    return refused.value


def test_sound_is_read_as_it_was_written() -> None:
    """Little-endian, channel by channel."""
    assert sound(b"\x01\x00\xff\xff", PCM) == [1, -1]
    stereo = SoundForm(encoding="pcm_s16le", rate=48000, channels=2)
    assert sound(b"\x01\x00\x02\x00\x03\x00\x04\x00", stereo) == [[1, 2], [3, 4]]


def test_telephone_sound_is_read() -> None:
    """The ends, the zeros and one step of the curve of ITU-T G.711."""
    law = SoundForm(encoding="mulaw", rate=8000)
    assert sound(bytes([0x00, 0x80, 0x7F, 0xFF, 0xFE]), law) == [-32124, 32124, 0, 0, 8]


def test_a_picture_is_handed_on_as_it_is() -> None:
    """It is decoded elsewhere, after its size was looked at."""
    data = build_frame(PictureHeader(timestamp=2.5), JPEG)
    assert parse_frame(data, HELLO, DIMS).picture == JPEG
    assert picture_size(JPEG) == (64, 48)


def test_words_and_features_are_read() -> None:
    """Words stand in the header, features in the payload."""
    word = SentWord(text="fine", start=1.0, end=1.4)
    words = WordsHeader(timestamp=1.5, utterance=3, words=[word], final=True)
    assert parse_frame(build_frame(words), HELLO, DIMS) == Frame(words)
    rows = np.arange(6, dtype="<f4").reshape(2, 3)
    header = FeaturesHeader(timestamp=0.0, modality="audio")
    got = parse_frame(build_frame(header, rows.tobytes()), READY, DIMS).rows
    assert got is not None
    assert got.tolist() == rows.tolist()


def test_a_missing_face_has_a_reason_and_no_row() -> None:
    """Nothing is made up where nothing was measured."""
    nobody = FeaturesHeader(timestamp=0.0, modality="vision", reason="no_face")
    assert parse_frame(build_frame(nobody), READY, DIMS).rows is not None


@pytest.mark.parametrize("worst", [1.01e6, -1.01e6, np.inf, np.nan])
def test_a_feature_beyond_the_bound_is_refused(worst: float) -> None:
    """One of a million is taken."""
    header = FeaturesHeader(timestamp=0.5, modality="audio")
    rows = np.array([[0.0, 1e6, -1e6]], "<f4")
    assert parse_frame(build_frame(header, rows.tobytes()), READY, DIMS).rows is not None
    rows[0, 1] = worst
    error = refusal(build_frame(header, rows.tobytes()), READY)
    assert (error.code, str(error)) == (
        1007,
        "features must be rows within +-1e+06, or none and a reason",
    )
    silent = FeaturesHeader(timestamp=0.0, modality="vision")
    assert refusal(build_frame(silent), READY).code == 1007


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no json", "no valid hello"),
        (hello(), "nothing is offered"),
        (hello(audio={"encoding": "opus", "rate": 16000}), "audio.encoding"),
        (hello(audio={"encoding": "mulaw", "rate": 44100}), "audio.rate"),
        (hello(words=True, password="x"), "password"),
        (hello(vision={"encoding": "jpeg"}, features=["vision"]), "vision comes twice"),
        (
            hello(audio={"encoding": "mulaw", "rate": 8000, "channels": 2, "roles": ["agent"]}),
            "one role for each channel",
        ),
    ],
)
def test_a_wrong_hello_is_rejected_with_its_place(text: str, told: str) -> None:
    """The close reason names the key."""
    with pytest.raises(IngestError, match=told) as refused:
        parse_hello(text, "customer")
    assert refused.value.code == 1007


def test_only_the_scored_role_is_used() -> None:
    """Of two channels that of the session's subject; a session about somebody else is refused."""
    form = {"encoding": "mulaw", "rate": 8000, "channels": 2, "roles": ["agent", "customer"]}
    got = parse_hello(hello(audio=form), "customer").audio
    assert got is not None
    assert channel(got, "customer") == 1
    assert channel(PCM, "customer") is None
    for about in ({"audio": form}, {"words": True, "role": "customer"}):
        with pytest.raises(IngestError, match="scores a visitor") as refused:
            parse_hello(hello(**about), "visitor")
        assert refused.value.code == 1008


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", 1007),
        (b"\x00\x00\x00\xff{}", 1007),
        (b"\x00\x00\x00\x02{}", 1007),
        (build_frame(SoundHeader(timestamp=0.0), b"\x00"), 1007),
        (build_frame(SoundHeader(timestamp=0.0), bytes(2 * 16000)), 1009),
        (build_frame(PictureHeader(timestamp=0.0), b"GIF89a"), 1007),
        (build_frame(FeaturesHeader(timestamp=0.0, modality="audio"), bytes(12)), 1008),
    ],
    ids=["empty", "short", "no kind", "half a sample", "too long", "no jpeg", "not offered"],
)
def test_a_wrong_frame_has_its_code(data: bytes, code: int) -> None:
    """What closes the connection tells its sender why."""
    refused = refusal(data)
    assert refused.code == code
    assert 0 < len(str(refused).encode()) <= 123


def test_a_picture_that_would_unfold_to_gigabytes_is_not_decoded() -> None:
    """The size that the file states is looked at first."""
    place = JPEG.index(b"\xff\xc0") + 5
    huge = JPEG[:place] + b"\xff\xff\xff\xff" + JPEG[place + 4 :]
    refused = refusal(build_frame(PictureHeader(timestamp=0.0), huge))
    assert (refused.code, str(refused)) == (1009, "an image of 65535x65535: sides up to 1920")


def outcome(parse: Callable[[], object]) -> tuple[int, str]:
    """Return code and reason of a refusal, or 0; any other error goes on."""
    try:
        parse()
    except IngestError as refused:
        return refused.code, str(refused)
    return 0, ""


FRAMES = [
    build_frame(SoundHeader(timestamp=1.0, position=7), bytes(64)),
    build_frame(PictureHeader(timestamp=1.0), JPEG),
    build_frame(
        WordsHeader(
            timestamp=1.0,
            utterance=0,
            words=[SentWord(text="so", start=0.1, end=0.2)],
            final=False,
        )
    ),
    build_frame(FeaturesHeader(timestamp=1.0, modality="vision"), bytes(16)),
]


@settings(max_examples=300)
@given(
    st.sampled_from(FRAMES),
    st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=4)), max_size=4),
    st.integers(0, 2000),
    st.sampled_from([HELLO, READY]),
)
def test_damaged_frames_are_refused_and_nothing_else(
    frame: bytes, edits: list[tuple[int, bytes]], kept: int, promised: SenderHello
) -> None:
    """Any bytes give a frame or an IngestError, of a reason that fits into a close frame."""
    spoilt = bytearray(frame)
    for at, piece in edits:
        spoilt[at : at + len(piece)] = piece
    code, reason = outcome(lambda: parse_frame(bytes(spoilt[:kept]), promised, DIMS))
    assert code in (0, 1007, 1008, 1009)
    assert len(reason.encode()) <= 123


@settings(max_examples=200)
@given(st.text(max_size=80) | st.sampled_from(["[" * 9000, '{"type":"hello","words":1e999}']))
def test_any_text_is_a_hello_or_refused(text: str) -> None:
    """Deep nesting and huge numbers too."""
    assert outcome(lambda: parse_hello(text, "customer"))[0] in (0, 1007, 1008)


def test_every_limit_is_in_the_document() -> None:
    """The documents state the sides, the seconds, the rows and the bytes."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "ingest.md").read_text()
    for limit in (ingest.MAX_SIDE, ingest.MAX_SECONDS, ingest.MAX_ROWS, ingest.MAX_HEADER):
        assert f" {limit} " in page
