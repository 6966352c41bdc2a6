"""EmotionML that other programs can read.

The structure is that of the W3C's schema: https://www.w3.org/TR/emotionml/emotionml.xsd and
emotionml-fragments.xsd beside it.
"""

from collections.abc import Iterable
from xml.etree import ElementTree

import pytest

from support.past_sessions import EPOCH, MISSING, score
from tamulag.streamer.protocol import messages
from tamulag.streamer.protocol.emotionml import NAMESPACE, document

EMOTION = frozenset(("start", "end", "expressed-through"))
"""The attributes of an emotion that we use; the schema has more."""

PAD = ("pleasure", "arousal", "dominance")
CHANNELS = frozenset(("text", "voice", "face"))
"""Of the recommendation's words those that a camera and a microphone can mean."""


def parsed(*lines: str, about: str = "test") -> ElementTree.Element:
    scores = [messages.decode(line) for line in lines]
    assert all(isinstance(sent, messages.SentimentMessage) for sent in scores)
    return ElementTree.fromstring("".join(document(scores, EPOCH, about)))  # type: ignore[arg-type]


def name(element: ElementTree.Element) -> str:
    space, _, tag = element.tag.removeprefix("{").partition("}")
    assert space == NAMESPACE
    return tag


def is_share(text: str) -> bool:
    return 0 <= float(text) <= 1


def check(root: ElementTree.Element) -> None:
    """Check the structure: element order, required attributes, ranges."""
    assert name(root) == "emotionml"
    assert root.attrib["version"] == "1.0"
    tags = [name(child) for child in root]
    assert tags[0] == "info"
    assert set(tags[1:]) <= {"emotion"}
    for emotion in root[1:]:
        check_emotion(emotion)
    assert root.attrib["dimension-set"].endswith("#pad-dimensions")


def check_emotion(emotion: ElementTree.Element) -> None:
    assert set(emotion.attrib) <= EMOTION
    start, end = int(emotion.attrib["start"]), int(emotion.attrib["end"])
    assert 0 <= start <= end
    assert set(emotion.attrib.get("expressed-through", "face").split()) <= CHANNELS
    assert [name(child) for child in emotion] == ["dimension"]
    dimension = emotion[0].attrib
    assert set(dimension) <= {"name", "value", "confidence"}
    assert dimension["name"] in PAD
    assert is_share(dimension["value"])
    assert is_share(dimension.get("confidence", "0"))


def values(emotions: Iterable[ElementTree.Element]) -> list[tuple[str | None, str]]:
    return [(one.get("expressed-through"), one[0].attrib["value"]) for one in emotions]


def test_a_document_has_the_structure_of_the_schema() -> None:
    """With scores, without, at both ends of the scale, and with a part missing."""
    check(parsed(score(1), score(2, None), score(3, 3.0), score(4, -3.0, vision=MISSING)))
    check(parsed())


def test_a_score_and_its_parts_are_emotions_of_their_own() -> None:
    """Each says what it was seen or heard through; a missing face says nothing."""
    root = parsed(score(1, 1.5, vision=MISSING))
    assert values(root[1:]) == [("text voice", "0.7500"), ("text", "0.5833"), ("voice", "0.5833")]


@pytest.mark.parametrize(
    ("sentiment", "value"), [(-3.0, "0.0000"), (0.0, "0.5000"), (3.0, "1.0000")]
)
def test_sentiment_becomes_pleasure(sentiment: float, value: str) -> None:
    """The scale of the language begins at 0."""
    assert parsed(score(1, sentiment))[1][0].attrib["value"] == value


def test_times_are_milliseconds_of_the_wall_clock() -> None:
    """From the window's start to its end."""
    emotion = parsed(score(13))[1]
    assert emotion.attrib["start"] == str(round(1000 * (EPOCH + 1.5)))
    assert emotion.attrib["end"] == str(round(1000 * (EPOCH + 6.5)))


def test_a_narrow_interval_is_confident() -> None:
    """The share of the scale outside of it; without an interval nothing is claimed."""
    sure = parsed(score(1, interval=(0.4, 1.0)))[1][0].attrib["confidence"]
    assert sure == "0.9000"
    assert "confidence" not in parsed(score(1, interval=None))[1][0].attrib


def test_text_for_people_is_escaped() -> None:
    """A name cannot end the element."""
    root = parsed(about="a < b & </info>")
    assert root[0].text == "a < b & </info>"
