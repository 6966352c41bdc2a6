"""The wire format: what is sent fits the published schema and comes back as it was."""

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tamulag.streamer.core.estimate import Estimate, ModalityEstimate
from tamulag.streamer.core.sample import MODALITIES, Phrase, Word
from tamulag.streamer.protocol import messages
from tamulag.streamer.protocol.messages import AnyMessage, Latency, decode, encode

HEAD: dict[str, Any] = {"session": "k7", "seq": 3, "time": "2026-11-24T02:13:49.120Z"}
LATENCY = Latency(align=0.31, features=0.022, model=0.001, total=0.34)
VALIDATOR = jsonschema.Draft202012Validator(messages.schema())


def estimate(**change: object) -> Estimate:
    fields: dict[str, object] = {
        "start": 11.0,
        "end": 16.0,
        "warmup": False,
        "sentiment": 0.84,
        "interval": (0.1, 1.6),
        "modalities": {
            "text": ModalityEstimate(1.2, 0.5, "ok", None, 0.32),
            "audio": ModalityEstimate(0.4, 0.5, "stale", "silence", 0.7),
            "vision": ModalityEstimate(None, 0.0, "missing", "no_face", None),
        },
        "conflict": 0.8,
        "attention": {"text": [("great", 13.2, 0.41)], "audio": [(15.5, 0.04)]},
        "revision": 7,
        "trend": 0.7,
        "label": "positive",
    }
    return Estimate(**(fields | change))  # type: ignore[arg-type]


NOTHING: dict[str, object] = dict.fromkeys(("sentiment", "interval", "conflict", "trend", "label"))
"""What is None where no modality is present."""


def sentiment(**change: object) -> messages.SentimentMessage:
    return messages.sentiment_message(
        estimate(**change), latency=LATENCY, dropped={"vision": 3}, **HEAD
    )


def spoken() -> messages.Text:
    words = (Word("so", 0.123, 0.456, 0.98765), Word("gut ✓", 0.5, 0.9))
    states = np.zeros((2, 4), np.float32)
    phrase = Phrase(1.0, 4, words, states, (0, 1), final=False, tail="maybe")
    return messages.text_message(phrase, **HEAD)


HELLO = messages.Hello(
    version="0.1.0",
    checkpoint="default",
    heads={
        "text": messages.Head(trained=True, data="made"),
        "audio": messages.Head(trained=False, data=None),
    },
    modalities=["text", "audio"],
    sources=["camera 0"],
    window=5.0,
    hop=0.5,
    lateness=0.3,
    epoch="2026-11-24T02:13:33.120Z",
    **HEAD,
)
EVERY: list[AnyMessage] = [
    sentiment(),
    sentiment(**NOTHING, attention={}),
    HELLO,
    spoken(),
    messages.Event(event="source_lost", modality="vision", reason="camera_lost", at=3.5, **HEAD),
    messages.Event(event="overload", at=3.5, **HEAD),
    messages.State(state="degraded", lost={"vision": "camera_lost"}, **HEAD),
    messages.Bound(type="session_start", at=0.0, **HEAD),
    messages.Bound(type="session_end", at=9.5, reason="stopped", **HEAD),
    messages.Heartbeat(**HEAD),
    messages.Missed(missed=3, **HEAD),
    messages.Problem(error="disk full", **HEAD),
]
NAMES = [sent.type for sent in EVERY]


@pytest.mark.parametrize("sent", EVERY, ids=NAMES)
def test_message_fits_the_schema(sent: AnyMessage) -> None:
    """The published JSON Schema describes what is sent."""
    VALIDATOR.validate(json.loads(encode(sent)))


@pytest.mark.parametrize("sent", EVERY, ids=NAMES)
def test_unknown_key_is_refused(sent: AnyMessage) -> None:
    """Schema and decoder alike know every key that there is."""
    values = json.loads(encode(sent)) | {"colour": "red"}
    assert not VALIDATOR.is_valid(values)
    with pytest.raises(ValidationError, match="colour"):
        decode(json.dumps(values))


@pytest.mark.parametrize("sent", EVERY, ids=NAMES)
def test_message_comes_back_as_it_was(sent: AnyMessage) -> None:
    """A subscriber in Python gets the same object, from text and from bytes."""
    assert decode(encode(sent)) == sent
    assert decode(encode(sent).encode()) == sent


def test_schema_is_valid_and_names_every_type() -> None:
    """Other programs can generate code from it."""
    jsonschema.Draft202012Validator.check_schema(messages.schema())
    assert set(NAMES) == messages.schema()["discriminator"]["mapping"].keys()  # type: ignore[index]


def _edit(change: Callable[[dict[str, object]], object]) -> dict[str, object]:
    values: dict[str, object] = json.loads(encode(sentiment()))
    change(values)
    return values


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda m: m.update(sentiment=3.01), id="out of range"),
        pytest.param(lambda m: m.update(type="feeling"), id="unknown type"),
        pytest.param(lambda m: m.update(v=2), id="later version"),
        pytest.param(lambda m: m.pop("window"), id="missing key"),
        pytest.param(lambda m: m["modalities"]["text"].update(colour=1), id="unknown inner key"),
        pytest.param(lambda m: m["modalities"]["text"].update(status="fine"), id="status"),
        pytest.param(lambda m: m["attention"].update(text=[["great", 1.0]]), id="short tuple"),
    ],
)
def test_message_that_does_not_fit_is_refused(
    change: Callable[[dict[str, object]], object],
) -> None:
    """Schema and decoder refuse the same things."""
    values = _edit(change)
    assert not VALIDATOR.is_valid(values)
    with pytest.raises(ValueError, match="validation error"):
        decode(json.dumps(values))


def test_message_is_one_line_of_plain_json() -> None:
    """JSON lines work, and other alphabets stay readable."""
    line = encode(spoken())
    assert "\n" not in line
    assert "gut ✓" in line


def test_keys_that_say_nothing_are_left_out_of_modalities() -> None:
    """A null reason, age or revision is not sent; a null sentiment is."""
    parts = json.loads(encode(sentiment()))["modalities"]
    assert parts["text"].keys() == {"sentiment", "weight", "status", "age", "revision"}
    assert parts["audio"].keys() == {"sentiment", "weight", "status", "reason", "age"}
    assert parts["vision"] == {
        "sentiment": None,
        "weight": 0.0,
        "status": "missing",
        "reason": "no_face",
    }


def test_message_equals_the_estimate() -> None:
    """Every field arrives, in the words of the wire."""
    sent = sentiment()
    assert (sent.sentiment, sent.valence) == (0.84, 0.28)
    assert (sent.trend, sent.label) == (0.7, "positive")
    assert (sent.interval, sent.conflict) == ((0.1, 1.6), 0.8)
    assert sent.window == messages.Window(start=11.0, end=16.0, warmup=False)
    assert sent.attention.text == [("great", 13.2, 0.41)]
    assert sent.attention.audio == [(15.5, 0.04)]
    assert sent.modalities.text.revision == 7
    assert sent.dropped == {"vision": 3}
    assert (sent.session, sent.seq, sent.time) == ("k7", 3, "2026-11-24T02:13:49.120Z")


def test_nothing_to_say_is_null() -> None:
    """Without a sentiment there is no valence and no label."""
    sent = sentiment(**NOTHING)
    assert (sent.sentiment, sent.valence, sent.label, sent.interval) == (None, None, None, None)


def test_numbers_are_rounded_to_what_they_can_bear() -> None:
    """A message does not pretend to know nine digits."""
    text = ModalityEstimate(1.23456789, 1 / 3, "ok", None, 0.123456)
    off = ModalityEstimate(None, 0.0, "off")
    parts = {"text": text, "audio": off, "vision": off}
    sent = sentiment(sentiment=0.123456, interval=(-0.5678, 2 / 3), modalities=parts)
    assert (sent.sentiment, sent.interval) == (0.1235, (-0.57, 0.67))
    found = sent.modalities.text
    assert (found.sentiment, found.weight, found.age) == (1.2346, 0.333, 0.12)


def test_a_scale_is_sent_where_there_is_one() -> None:
    """Rounded; else the key is left out."""
    sure = ModalityEstimate(1.0, 1.0, "ok", None, 0.1, 0.123456)
    off = ModalityEstimate(None, 0.0, "off")
    line = messages.encode(sentiment(modalities={"text": sure, "audio": off, "vision": off}))
    parts = json.loads(line)["modalities"]
    assert parts["text"]["scale"] == 0.1235
    assert "scale" not in parts["audio"]


def test_text_that_is_off_has_no_revision() -> None:
    """Who did not ask for text is not told of its changes."""
    off = ModalityEstimate(None, 0.0, "off")
    sent = sentiment(modalities=dict.fromkeys(MODALITIES, off))
    assert sent.modalities.text.revision is None


def test_words_are_sent_with_their_times() -> None:
    """Times have two digits; a confidence that there is not stays null."""
    sent = spoken()
    first, second = sent.words
    assert (first.text, first.start, first.end, first.confidence) == ("so", 0.12, 0.46, 0.988)
    assert second.confidence is None
    assert (sent.utterance, sent.final, sent.tail) == (4, False, "maybe")


@pytest.mark.parametrize(
    ("epoch", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1795486429.12, "2026-11-24T02:13:49.120Z"),
        (951782399.9996, "2000-02-28T23:59:59.999Z"),
    ],
)
def test_wall_time_is_utc_with_milliseconds(epoch: float, text: str) -> None:
    """RFC 3339, always of one length, never ahead of the clock."""
    assert messages.utc(epoch) == text


SCORES = st.none() | st.floats(-3, 3)
SHARES = st.floats(0, 1)
TIMES = st.floats(0, 1e6)
PARTS = st.builds(
    ModalityEstimate,
    SCORES,
    SHARES,
    st.sampled_from(["ok", "stale", "missing", "off", "untrained"]),
    st.none() | st.text(),
    st.none() | TIMES,
    st.none() | st.floats(0, 3),
)
ATTENTION = st.fixed_dictionaries(
    {},
    optional={
        "text": st.lists(st.tuples(st.text(), TIMES, SHARES), max_size=3),
        "audio": st.lists(st.tuples(TIMES, SHARES), max_size=3),
        "vision": st.lists(st.tuples(TIMES, SHARES), max_size=3),
    },
)
ESTIMATES = st.builds(
    Estimate,
    start=TIMES,
    end=TIMES,
    warmup=st.booleans(),
    sentiment=SCORES,
    interval=st.none() | st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    modalities=st.fixed_dictionaries(dict.fromkeys(MODALITIES, PARTS)),
    conflict=st.none() | st.floats(0, 6),
    attention=ATTENTION,
    revision=st.integers(0, 1000),
)


@settings(max_examples=60)
@given(ESTIMATES)
def test_any_estimate_fits_the_schema(found: Estimate) -> None:
    """Rounding never leaves a range, and any text survives the line."""
    sent = messages.sentiment_message(found, latency=LATENCY, dropped={}, **HEAD)
    VALIDATOR.validate(json.loads(encode(sent)))
    assert decode(encode(sent)) == sent


@pytest.mark.parametrize("subject", [{"role": "boss"}, {"name": "Ann"}, "customer"])
def test_a_subject_is_a_role_and_a_pseudonym(subject: object) -> None:
    """Another key, a name for example, is no part of the schema."""
    line = json.loads(encode(sentiment())) | {"subject": subject}
    with pytest.raises(ValidationError, match="subject"):
        decode(json.dumps(line))
