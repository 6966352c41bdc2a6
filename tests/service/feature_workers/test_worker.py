"""A worker's answers: one for each frame, and what goes wrong with a session stays with it."""

import queue

import pytest

from support.senders import PICTURES_ONLY, SOUND_ONLY, WORDS, picture, sound, speech, words
from tamulag.models.text.text_encoder import encoder_for
from tamulag.streamer.core.sample import Phrase, Sample
from tamulag.streamer.features.asr.recogniser import Encode
from tamulag.streamer.protocol.ingest import SenderHello
from tamulag.streamer.service.feature_workers.ipc import (
    Answer,
    Begin,
    Begun,
    End,
    Ended,
    Ping,
    Pong,
    Processed,
    Recognised,
    SessionFailed,
    Shed,
    Take,
)
from tamulag.streamer.service.feature_workers.pipeline import PipelineConfig
from tamulag.streamer.service.feature_workers.worker import Worker


class Heard:
    """A worker and its answers."""

    def __init__(self, front: PipelineConfig, encode: Encode) -> None:
        self._answers: queue.Queue[Answer] = queue.Queue()
        self.worker = Worker(front, encode, self._answers.put)

    def next(self) -> Answer:
        return self._answers.get(timeout=20.0)

    def begin(self, number: int, hello: SenderHello) -> None:
        self.worker.heed(Begin(number, hello))
        assert self.next() == Begun(number)

    def until_ended(self, number: int) -> list[Answer]:
        self.worker.heed(End(number))
        answers = [self.next()]
        while not isinstance(answers[-1], Ended):
            answers.append(self.next())
        return answers


@pytest.fixture(scope="module")
def encode() -> Encode:
    return encoder_for("default").encode


@pytest.fixture
def heard(encode: Encode) -> Heard:
    return Heard(PipelineConfig(asr="none"), encode)


def test_each_frame_has_its_answer(heard: Heard) -> None:
    """In the order of the frames, with what came of them and what was lost."""
    heard.begin(4, PICTURES_ONLY)
    for count in range(3):
        heard.worker.heed(Take(4, picture(count)))
        answer = heard.next()
        assert isinstance(answer, Processed)
        (sample,) = answer.inputs
        assert isinstance(sample, Sample)
        assert sample.timestamp == count / 10
        assert (answer.number, answer.losses) == (4, {"vision": 0})
    assert heard.until_ended(4) == [Ended(4)]


def test_words_go_at_once(heard: Heard) -> None:
    """A phrase does not wait for the next frame."""
    heard.begin(4, WORDS)
    heard.worker.heed(Take(4, words("so well", 1.0)))
    said, taken = heard.next(), heard.next()
    assert isinstance(said, Recognised)
    assert isinstance(said.phrase, Phrase)
    assert (said.number, taken) == (4, Processed(4, [], {"audio": 0, "asr": 0}))
    heard.until_ended(4)


def test_the_last_words_come_before_the_end(encode: Encode) -> None:
    """The recogniser closes the open utterance when its session ends."""
    heard = Heard(PipelineConfig(), encode)
    heard.begin(4, SOUND_ONLY)
    for fed in speech(2.5):
        heard.worker.heed(Take(4, fed))
    *_, said, ended = heard.until_ended(4)
    assert isinstance(said, Recognised)
    assert said.phrase.final
    assert ended == Ended(4)


def test_one_session_s_fault_is_its_own(heard: Heard) -> None:
    """It breaks, is told with its trace, and frees what it had; its neighbour goes on."""
    heard.begin(1, PICTURES_ONLY)
    heard.begin(2, PICTURES_ONLY)
    heard.worker.heed(Take(1, sound(0)))
    answers = [heard.next() for _ in range(3)]
    broken = next(answer for answer in answers if isinstance(answer, SessionFailed))
    assert broken.detail == "ValueError: audio was not offered in the hello"
    assert "pipeline.py" in broken.trace
    assert Processed(1, [], {}) in answers
    assert Ended(1) in answers
    heard.worker.heed(Take(1, picture(0)))
    assert heard.next() == Processed(1, [], {})
    heard.worker.heed(Take(2, picture(0)))
    answer = heard.next()
    assert isinstance(answer, Processed)
    assert answer.inputs
    heard.until_ended(2)


def test_front_ends_that_cannot_be_opened_are_told(encode: Encode) -> None:
    """With what is missing."""
    heard = Heard(PipelineConfig(asr="vosk"), encode)
    heard.worker.heed(Begin(1, SOUND_ONLY))
    answer = heard.next()
    assert isinstance(answer, SessionFailed)
    assert "asr vosk needs the folder of a model" in answer.detail


def test_a_ping_is_answered_with_the_load(heard: Heard) -> None:
    """A share of the time since the last one: much while frames are worked on."""
    heard.begin(1, PICTURES_ONLY)
    heard.worker.heed(Ping())
    heard.next()
    for count in range(10):
        heard.worker.heed(Take(1, picture(count)))
        heard.next()
    heard.worker.heed(Ping())
    pong = heard.next()
    assert isinstance(pong, Pong)
    assert 0.5 < pong.load <= 1.0
    heard.until_ended(1)


def test_a_worker_that_sheds_takes_every_other_picture(heard: Heard) -> None:
    """In sessions that run and in those that begin later; what is left out counts as no loss."""
    heard.begin(4, PICTURES_ONLY)
    heard.worker.heed(Shed(("vision_rate",)))
    heard.begin(5, PICTURES_ONLY)
    for number in (4, 5):
        found = 0
        for count in range(6):
            heard.worker.heed(Take(number, picture(count)))
            answer = heard.next()
            assert isinstance(answer, Processed)
            found += len(answer.inputs)
        assert found == 3
