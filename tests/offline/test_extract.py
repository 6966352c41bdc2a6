"""Labelled material becomes clips through the front end that runs live."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import pytest

from tamulag.models.data.clips import MediaRow, TextRow
from tamulag.models.text.text_encoder import TextEncoder
from tamulag.streamer.app.build_agent import build
from tamulag.streamer.config.loader import Config
from tamulag.streamer.core.estimate import Estimate
from tamulag.streamer.core.sample import Array, Input, Notice, Phrase, Sample, Word
from tamulag.streamer.core.source import SourceError
from tamulag.streamer.features.audio import AUDIO_DIM
from tamulag.streamer.features.vision import VISION_DIM, VisionFeatures
from tamulag.streamer.offline.corpora import Picture
from tamulag.streamer.offline.extract import (
    MediaFeatures,
    clip_of,
    pictures,
    play,
    stack_inputs,
    texts,
)

ROWS = [TextRow("so good", 2.0, "v1"), TextRow("", 0.0, "v1"), TextRow("well", 0.5, "v2")]


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    path = Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    image = cv2.imread(str(path))
    assert image is not None
    return np.ascontiguousarray(image[:, :, ::-1])


def encode(words: Sequence[str]) -> tuple[Array, tuple[int, ...]]:
    """Give each word one token that holds its length and the number of words."""
    states = np.array([[len(word), len(words)] for word in words], np.float32)
    return states.reshape(-1, 2), tuple(range(len(words)))


def test_texts_become_clips_of_their_token_states() -> None:
    """Label and group stay with the text; one without words has no text."""
    seen: list[int] = []
    good, silent, well = texts(ROWS, seen.append)
    assert seen == [3]
    assert [(c.label, c.group) for c in (good, silent, well)] == [(r.label, r.group) for r in ROWS]
    np.testing.assert_allclose(
        good.values["text"], TextEncoder().encode(["so", "good"])[0], atol=1e-5
    )
    assert not silent.values


def test_picture_becomes_a_clip_of_one_vector(portrait: np.ndarray) -> None:
    """A face is described as live; a picture without one is left out, and counted as done."""
    rows = [Picture(0.0, "wall", np.zeros_like(portrait)), Picture(1.0, "grace", portrait)]
    seen: list[int] = []
    (found,) = pictures(rows, seen.append)
    assert seen == [1, 2]
    assert (found.label, found.group, list(found.values)) == (1.0, "grace", ["vision"])
    assert found.ticks["vision"].tolist() == [0]
    with VisionFeatures(still=True) as vision:
        expected = vision.push(portrait, 0.0).values
    assert expected is not None
    np.testing.assert_allclose(found.values["vision"], expected[None], atol=1e-5)


def test_picture_does_not_depend_on_the_one_before(portrait: np.ndarray) -> None:
    """Single pictures are not tracked."""
    alone = pictures([Picture(1.0, "a", portrait)], lambda _: None)
    mirrored = np.ascontiguousarray(portrait[:, ::-1])
    rows = [Picture(1.0, "b", mirrored), Picture(1.0, "a", portrait)]
    after = pictures(rows, lambda _: None)[-1]
    np.testing.assert_array_equal(after.values["vision"], alone[0].values["vision"])


def test_masked_ticks_are_left_out_and_counted() -> None:
    """Only what was measured stays, with its tick; the length is that of what was looked at."""
    one, two = np.zeros(2, np.float32), np.ones(2, np.float32)
    found = stack_inputs(
        [
            Notice(0.0, "vision", "no_picture"),
            Sample("audio", 0.0, None, "silence"),
            Sample("audio", 0.02, one),
            Sample("vision", 0.1, None, "no_face"),
            Sample("audio", 0.06, two),
        ]
    )
    assert list(found.values) == ["audio"]
    np.testing.assert_array_equal(found.values["audio"], [one, two])
    assert found.ticks["audio"].tolist() == [1, 3]
    assert found.length == 10


def test_last_words_of_each_utterance_are_used() -> None:
    """What the recogniser took back is gone; an utterance without words is none."""

    def phrase(utterance: int, *words: str) -> Phrase:
        spoken = tuple(Word(word, utterance, utterance + 0.5) for word in words)
        return Phrase(1.0, utterance, spoken, np.zeros((0, 0), np.float32), (), final=True)

    found = stack_inputs([phrase(0, "so", "so"), phrase(0, "so"), phrase(1), phrase(2, "well")])
    assert [[word.text for word in words] for words in found.utterances] == [["so"], ["well"]]


def spoken(seconds: float = 2.0, *words: Word) -> MediaFeatures:
    """Return a part whose audio holds every fifth tick."""
    ticks = np.arange(0, round(50 * seconds), 5)
    audio = ticks[:, None].astype(np.float32)
    return MediaFeatures(
        {"audio": audio}, {"audio": ticks}, (words,) if words else (), round(50 * seconds)
    )


def test_text_of_the_table_is_spread_over_the_file() -> None:
    """Its words get times like those of a recogniser without any, and win over what was heard."""
    part = spoken(2.0, Word("heard", 0.0, 1.0))
    found = clip_of(MediaRow(Path("a"), 1.5, "aa bbbb c", "ann"), part, encode)
    assert (found.label, found.group) == (1.5, "ann")
    assert found.values["text"].tolist() == [[2, 3], [4, 3], [1, 3]]
    assert found.ticks["text"].tolist() == [0, 30, 80]
    np.testing.assert_array_equal(found.values["audio"], part.values["audio"])


def test_recognised_words_are_the_text_where_the_table_has_none() -> None:
    """They keep the times at which they were spoken."""
    part = spoken(2.0, Word("so", 0.5, 0.7), Word("good", 0.7, 1.1))
    found = clip_of(MediaRow(Path("a"), 1.5), part, encode)
    assert found.values["text"].tolist() == [[2, 2], [4, 2]]
    assert found.ticks["text"].tolist() == [25, 35]


def test_no_words_are_no_text() -> None:
    """The modality is missing then."""
    found = clip_of(MediaRow(Path("a"), 1.5, "  "), spoken(), encode)
    assert list(found.values) == list(found.ticks) == ["audio"]


def test_long_text_is_encoded_in_utterances_as_live() -> None:
    """Live an utterance of more than 40 words is split, so that no token is lost."""
    found = clip_of(MediaRow(Path("a"), 1.0, "so " * 90), spoken(), encode)
    assert len(found.values["text"]) == 90
    assert set(found.values["text"][:, 1]) == {40, 10}
    assert (np.diff(found.ticks["text"]) >= 0).all()


def test_begun_clip_knows_nothing_of_its_future() -> None:
    """Sound ends at the share that was heard, and only words that have ended are encoded."""
    row, part = MediaRow(Path("a"), 1.0, "aa bbbb cc d"), spoken(2.0)
    found = clip_of(row, part, encode, 0.6)
    assert found.ticks["audio"].max() == 55
    assert found.values["text"].tolist() == [[2, 1]]
    assert len(clip_of(row, part, encode, 0.8).values["text"]) == 3 - 1
    whole = clip_of(row, part, encode, 1.0)
    assert len(whole.ticks["audio"]) == 20
    assert len(whole.values["text"]) == 4


def test_file_that_was_not_read_keeps_its_text() -> None:
    """A clip may be scored by its words alone."""
    found = clip_of(MediaRow(Path("a"), 1.0, "so good"), MediaFeatures({}, {}), encode)
    assert found.ticks["text"].tolist() == [0, 0]


def test_what_is_no_media_file_is_refused(tmp_path: Path) -> None:
    """The front end's own message names the file."""
    path = tmp_path / "notes.mp4"
    path.write_text("no film")
    with pytest.raises(SourceError, match=r"notes\.mp4"):
        play(path)


@pytest.mark.data
def test_media_file_becomes_a_part_of_voice_and_face(data: Path) -> None:
    """Three seconds give about 150 audio ticks and 30 faces, each in its own tick."""
    found = stack_inputs(play(data / "clips" / "bbaf2n.mpg"))
    audio, vision = found.ticks["audio"], found.ticks["vision"]
    assert found.values["audio"].shape == (len(audio), AUDIO_DIM)
    assert found.values["vision"].shape == (len(vision), VISION_DIM)
    assert 20 < len(audio) <= 150
    assert 28 <= len(vision) <= 31
    assert (np.diff(audio) > 0).all()
    assert (np.diff(vision // 5) == 1).all()
    assert 148 <= found.length <= 155


class Recording:
    """A session that only notes what it is given."""

    def __init__(self, session: object) -> None:
        self.session = session
        self.inputs: list[Input] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.session, name)

    def push(self, item: Input) -> list[Estimate]:
        self.inputs.append(item)
        return []


@pytest.mark.data
def test_features_are_those_of_the_live_path(data: Path) -> None:
    """What training sees of a clip is what a session is given at `--speed max`, to 1e-5."""
    clip = data / "clips" / "retalking_face_2.mp4"
    settings = {"source": {"path": str(clip), "speed": "max"}, "websocket": {"enabled": False}}
    built = build(Config.model_validate(settings | {"asr": {"engine": "none"}}))
    recording = Recording(built.feed.session)
    built.feed.session = recording  # type: ignore[assignment]
    with built.resources:
        asyncio.run(built.service.run())
    live, offline = stack_inputs(recording.inputs), stack_inputs(play(clip))
    assert offline.values.keys() == live.values.keys() == {"audio", "vision"}
    for name, values in live.values.items():
        np.testing.assert_allclose(offline.values[name], values, atol=1e-5, rtol=0)
        np.testing.assert_array_equal(offline.ticks[name], live.ticks[name])
    assert offline.length == live.length


@pytest.mark.data
def test_words_can_be_recognised(data: Path) -> None:
    """Each utterance comes with times inside the file."""
    found = stack_inputs(play(data / "asr" / "jfk.wav", "moonshine"))
    words = [word for utterance in found.utterances for word in utterance]
    spoken = {word.text.strip(".,?").lower() for word in words}
    assert {"ask", "what", "you", "can", "do", "for", "your", "country"} <= spoken
    assert [word.start for word in words] == sorted(word.start for word in words)
    assert 0 <= words[0].start < words[-1].end <= found.length / 50 + 0.5


@pytest.mark.data
def test_file_without_a_face_has_no_vision(data: Path) -> None:
    """The voice alone is a clip as well; live, the missing face is told with its reason."""
    found = play(data / "clips" / "pyfeat_no_face.mp4")
    faces = [item for item in found if isinstance(item, Sample) and item.modality == "vision"]
    assert {sample.reason for sample in faces} == {"no_face"}
    assert "vision" not in stack_inputs(found).values
