"""A worker's answers: one per frame, and a session's failure does not affect the others."""

import queue

import pytest

from support.senders import PICTURES_ONLY, SOUND_ONLY, WORDS, picture, sound, speech, words
from tamulag.models.text.text_encoder import encoder_for
from tamulag.streamer.core.sample import Phrase, Sample
from tamulag.streamer.features.asr.recogniser import Encode
from tamulag.streamer.protocol.ingest import SenderHello
from tamulag.streamer.service.feature_workers.ipc import (
    Answer,
    CloseSession,
    FrameProcessed,
    OpenSession,
    PhraseRecognised,
    Ping,
    Pong,
    ProcessFrame,
    SessionClosed,
    SessionFailed,
    SessionOpened,
    Shed,
)
from tamulag.streamer.service.feature_workers.pipeline import PipelineConfig
from tamulag.streamer.service.feature_workers.worker import Worker


class RecordedWorker:
    """A worker whose answers are recorded."""

    def __init__(self, config: PipelineConfig, encode: Encode) -> None:
        self._answers: queue.Queue[Answer] = queue.Queue()
        self.worker = Worker(config, encode, self._answers.put)

    def next(self) -> Answer:
        return self._answers.get(timeout=20.0)

    def begin(self, number: int, hello: SenderHello) -> None:
        self.worker.handle_message(OpenSession(number, hello))
        assert self.next() == SessionOpened(number)

    def until_ended(self, number: int) -> list[Answer]:
        self.worker.handle_message(CloseSession(number))
        answers = [self.next()]
        while not isinstance(answers[-1], SessionClosed):
            answers.append(self.next())
        return answers


@pytest.fixture(scope="module")
def encode() -> Encode:
    return encoder_for("default").encode


@pytest.fixture
def recorded(encode: Encode) -> RecordedWorker:
    return RecordedWorker(PipelineConfig(asr="none"), encode)


def test_each_frame_has_its_answer(recorded: RecordedWorker) -> None:
    """In the order of the frames, with their inputs and losses."""
    recorded.begin(4, PICTURES_ONLY)
    for count in range(3):
        recorded.worker.handle_message(ProcessFrame(4, picture(count)))
        answer = recorded.next()
        assert isinstance(answer, FrameProcessed)
        (sample,) = answer.inputs
        assert isinstance(sample, Sample)
        assert sample.timestamp == count / 10
        assert (answer.number, answer.losses) == (4, {"vision": 0})
    assert recorded.until_ended(4) == [SessionClosed(4)]


def test_phrases_are_sent_at_once(recorded: RecordedWorker) -> None:
    """A phrase does not wait for the next frame."""
    recorded.begin(4, WORDS)
    recorded.worker.handle_message(ProcessFrame(4, words("so well", 1.0)))
    phrase, processed = recorded.next(), recorded.next()
    assert isinstance(phrase, PhraseRecognised)
    assert isinstance(phrase.phrase, Phrase)
    assert (phrase.number, processed) == (4, FrameProcessed(4, [], {"audio": 0, "asr": 0}))
    recorded.until_ended(4)


def test_the_last_words_come_before_the_end(encode: Encode) -> None:
    """The recogniser closes the open utterance when its session ends."""
    recorded = RecordedWorker(PipelineConfig(), encode)
    recorded.begin(4, SOUND_ONLY)
    for fed in speech(2.5):
        recorded.worker.handle_message(ProcessFrame(4, fed))
    *_, phrase, ended = recorded.until_ended(4)
    assert isinstance(phrase, PhraseRecognised)
    assert phrase.phrase.final
    assert ended == SessionClosed(4)


def test_a_session_s_failure_does_not_affect_the_others(recorded: RecordedWorker) -> None:
    """It fails with a traceback and frees its resources; the other session continues."""
    recorded.begin(1, PICTURES_ONLY)
    recorded.begin(2, PICTURES_ONLY)
    recorded.worker.handle_message(ProcessFrame(1, sound(0)))
    answers = [recorded.next() for _ in range(3)]
    broken = next(answer for answer in answers if isinstance(answer, SessionFailed))
    assert broken.detail == "ValueError: audio was not offered in the hello"
    assert "pipeline.py" in broken.trace
    assert FrameProcessed(1, [], {}) in answers
    assert SessionClosed(1) in answers
    recorded.worker.handle_message(ProcessFrame(1, picture(0)))
    assert recorded.next() == FrameProcessed(1, [], {})
    recorded.worker.handle_message(ProcessFrame(2, picture(0)))
    answer = recorded.next()
    assert isinstance(answer, FrameProcessed)
    assert answer.inputs
    recorded.until_ended(2)


def test_a_pipeline_that_cannot_be_opened_is_reported(encode: Encode) -> None:
    """The detail names what is missing."""
    recorded = RecordedWorker(PipelineConfig(asr="vosk"), encode)
    recorded.worker.handle_message(OpenSession(1, SOUND_ONLY))
    answer = recorded.next()
    assert isinstance(answer, SessionFailed)
    assert "asr vosk needs the folder of a model" in answer.detail


def test_a_ping_is_answered_with_the_load(recorded: RecordedWorker) -> None:
    """The busy share since the last ping: high while frames are processed."""
    recorded.begin(1, PICTURES_ONLY)
    recorded.worker.handle_message(Ping())
    recorded.next()
    for count in range(10):
        recorded.worker.handle_message(ProcessFrame(1, picture(count)))
        recorded.next()
    recorded.worker.handle_message(Ping())
    pong = recorded.next()
    assert isinstance(pong, Pong)
    assert 0.5 < pong.load <= 1.0
    recorded.until_ended(1)


def test_a_worker_that_sheds_takes_every_other_picture(recorded: RecordedWorker) -> None:
    """In open sessions and in later ones; skipped pictures do not count as losses."""
    recorded.begin(4, PICTURES_ONLY)
    recorded.worker.handle_message(Shed(("vision_rate",)))
    recorded.begin(5, PICTURES_ONLY)
    for number in (4, 5):
        found = 0
        for count in range(6):
            recorded.worker.handle_message(ProcessFrame(number, picture(count)))
            answer = recorded.next()
            assert isinstance(answer, FrameProcessed)
            found += len(answer.inputs)
        assert found == 3
