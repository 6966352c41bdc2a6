"""What becomes of a sender's frames: placed, heard by channel, described once per tick."""

import cv2
import numpy as np
import pytest

from tamulag.streamer.core.sample import Array, Input, Phrase, Sample
from tamulag.streamer.features.audio_pipeline import AudioPipeline
from tamulag.streamer.protocol.ingest import (
    FeaturesHeader,
    Frame,
    PictureHeader,
    PlacedFrame,
    SenderHello,
    SentWord,
    SoundForm,
    SoundHeader,
    WordsHeader,
)
from tamulag.streamer.sources.remote_features import RemoteAudio, RemoteVision

BLOCK = 320  # samples, 20 ms at 16 kHz


class Blocks:
    """An extractor that keeps what it is given."""

    def __init__(self) -> None:
        self.got: list[tuple[int, Array]] = []

    def push(self, block: Array, start: int) -> list[Sample]:
        self.got.append((start, block))
        return []

    def heard(self) -> Array:
        return np.concatenate([block for _, block in self.got])


class Seen:
    """An extractor that keeps the shapes of its pictures."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def push(self, image: np.ndarray, timestamp: float) -> Sample:
        self.shapes.append(image.shape)
        return Sample("vision", timestamp, np.zeros(2, np.float32))


def voice(blocks: Blocks, form: SoundForm | None) -> RemoteAudio:
    made = RemoteAudio(AudioPipeline(blocks, None, threaded=False), "customer", encode)
    made.begin(SenderHello(audio=form) if form else SenderHello(words=True))
    return made


def encode(words: object) -> tuple[Array, tuple[int, ...]]:
    count = len(list(words))  # type: ignore[call-overload]
    return np.zeros((count, 2), np.float32), tuple(range(count))


def nowhere(item: Input) -> None:
    raise AssertionError(f"nothing should come of it: {item}")


def hear(
    made: RemoteAudio, count: int, sound: np.ndarray, *, rate: int = 16000, skip: int = 0
) -> int:
    """Push a block behind `count` samples; return how many there are then."""
    before = count + skip
    frame = Frame(SoundHeader(timestamp=before / rate), sound=sound)
    span = (before, before + len(sound))
    made.push(PlacedFrame(frame, 1.0 + before / rate, span), nowhere)
    return before + len(sound)


def test_sound_lies_where_it_was_recorded() -> None:
    """The first sample is that of its session time; nothing is between the blocks."""
    blocks, count = Blocks(), 0
    made = voice(blocks, SoundForm(encoding="pcm_s16le", rate=16000))
    for _ in range(5):
        count = hear(made, count, np.full(BLOCK, 8192, np.int16))
    assert blocks.got[0][0] == pytest.approx(16000, abs=2)
    assert blocks.heard() == pytest.approx(0.25)
    starts = [start for start, _ in blocks.got]
    assert starts[1:] == [start + len(block) for start, block in blocks.got[:-1]]


def test_the_other_channel_is_not_used() -> None:
    """Of two channels with roles that of the subject alone."""
    roles = ["agent", "customer"]
    form = SoundForm.model_validate(
        {"encoding": "pcm_s16le", "rate": 16000, "channels": 2, "roles": roles}
    )
    blocks = Blocks()
    sides = np.stack([np.full(BLOCK, 32767), np.full(BLOCK, -8192)], axis=1).astype(np.int16)
    hear(voice(blocks, form), 0, sides)
    assert blocks.heard() == pytest.approx(-0.25)


def test_what_was_not_sent_is_a_gap() -> None:
    """Half a second that the page left out is lost, counted, and not joined."""
    blocks = Blocks()
    made = voice(blocks, SoundForm(encoding="pcm_s16le", rate=8000))
    count = hear(made, 0, np.zeros(160, np.int16), rate=8000)
    hear(made, count, np.zeros(160, np.int16), rate=8000, skip=4000)
    (first, block), (second, _) = blocks.got
    assert second - first - len(block) == pytest.approx(8000, abs=64)
    assert made.losses()["audio"] == pytest.approx(25, abs=1)


def test_a_frame_without_samples_is_nothing() -> None:
    """It is neither sound nor a gap, wherever it claims to lie."""
    blocks = Blocks()
    made = voice(blocks, SoundForm(encoding="pcm_s16le", rate=16000))
    count = hear(made, 0, np.full(BLOCK, 8192, np.int16))
    hear(made, count, np.zeros(0, np.int16), skip=8000)
    hear(made, count, np.full(BLOCK, 8192, np.int16))
    assert len(blocks.heard()) == pytest.approx(2 * BLOCK, abs=64)
    assert made.losses()["audio"] == 0


def test_words_become_a_phrase() -> None:
    """Their times move with the sender's clock, and each sender counts its utterances from 0."""
    made = voice(Blocks(), None)
    got: list[Input] = []
    words = [SentWord(text="fine", start=100.0, end=100.4)]
    frame = Frame(WordsHeader(timestamp=100.5, utterance=0, words=words, final=True))
    made.push(PlacedFrame(frame, 2.5), got.append)
    made.begin(SenderHello(words=True))
    made.push(PlacedFrame(frame, 3.5), got.append)
    one, other = got
    assert isinstance(one, Phrase)
    assert isinstance(other, Phrase)
    assert one.timestamp == 2.5
    assert one.words[0].start == pytest.approx(2.0)
    assert other.utterance > one.utterance


def picture(width: int, height: int) -> bytes:
    return cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes()


def test_of_each_tick_one_picture_is_described() -> None:
    """Thirty pictures in a second are no more work than ten."""
    seen, got = Seen(), list[Input]()
    face = RemoteVision(seen)
    for count in range(30):
        frame = Frame(PictureHeader(timestamp=count / 30), picture=picture(64, 48))
        face.push(PlacedFrame(frame, 5.0 + count / 30), got.append)
    assert len(got) == 10


def test_a_picture_is_as_small_as_a_cameras() -> None:
    """Wide ones are scaled down; a damaged one is counted and nothing else."""
    seen = Seen()
    face, whole = RemoteVision(seen), picture(1280, 720)
    for place, jpeg in ((1.0, whole), (2.0, whole[:200])):
        frame = Frame(PictureHeader(timestamp=0.0), picture=jpeg)
        face.push(PlacedFrame(frame, place), lambda _: None)
    assert seen.shapes == [(360, 640, 3)]
    assert face.losses() == {"vision": 1}


def test_ready_rows_follow_each_other() -> None:
    """One each 100 ms from the header's time on; no face is told, and no number made up."""
    face, got = RemoteVision(Seen()), list[Input]()
    rows = np.arange(4, dtype=np.float32).reshape(2, 2)
    frame = Frame(FeaturesHeader(timestamp=0.0, modality="vision"), rows=rows)
    face.push(PlacedFrame(frame, 1.0), got.append)
    nobody = FeaturesHeader(timestamp=0.0, modality="vision", reason="no_face")
    face.push(PlacedFrame(Frame(nobody, rows=rows[:0]), 2.0), got.append)
    assert [sample.timestamp for sample in got] == pytest.approx([1.0, 1.1, 2.0])
    assert isinstance(got[2], Sample)
    assert (got[2].values, got[2].reason) == (None, "no_face")
