"""Frames queued for a worker: bounded, fair, and every frame is accounted for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.senders import BOTH, WORDS
from tamulag.streamer.protocol.ingest import (
    Frame,
    PictureHeader,
    PlacedFrame,
    SoundHeader,
    WordsHeader,
)
from tamulag.streamer.service.feature_workers.frame_queue import (
    AHEAD,
    FrameQueue,
    QueuedSession,
)
from tamulag.streamer.service.feature_workers.ipc import FrameProcessed, Order, ProcessFrame
from tamulag.streamer.sources.remote import PICTURES, SOUNDS

PICTURE = Frame(PictureHeader(timestamp=0.0), picture=b"jpeg")
SOUND = Frame(SoundHeader(timestamp=0.0), sound=np.zeros(1600, np.int16))
PHRASE = Frame(WordsHeader(timestamp=0.0, utterance=0, words=[], final=True))


def item(frame: Frame, place: float = 0.0) -> PlacedFrame:
    return PlacedFrame(frame, place, (0, 1600))


def queue_of(
    *names: str, is_open: bool = True
) -> tuple[FrameQueue, list[Order], list[QueuedSession]]:
    sent: list[Order] = []
    queue = FrameQueue(sent.append)
    queue.sessions = [QueuedSession(name, BOTH, number) for number, name in enumerate(names)]
    queue.numbers = {session.number: session for session in queue.sessions}
    for session in queue.sessions if is_open else ():
        queue.open(session)
    return queue, sent, list(queue.sessions)


def takes(sent: list[Order]) -> list[tuple[int, float]]:
    return [(order.number, order.placed.place) for order in sent if isinstance(order, ProcessFrame)]


@pytest.mark.parametrize(
    ("frame", "bound", "lost"),
    [
        (PICTURE, PICTURES, {"vision": 3}),
        (SOUND, SOUNDS, {"audio": 15}),
        (PHRASE, SOUNDS, {"text": 3}),
    ],
    ids=["pictures", "sound", "words"],
)
def test_the_oldest_of_too_many_is_dropped(frame: Frame, bound: int, lost: dict[str, int]) -> None:
    """And counted: pictures and phrases one by one, sound in ticks."""
    queue, _, (session,) = queue_of("a", is_open=False)
    for count in range(bound + 3):
        queue.push(session, item(frame, count / 64))
    assert session.lost() == lost
    assert (session.pictures or session.sounds)[0].place == 3 / 64


def test_sound_that_is_too_old_is_dropped() -> None:
    """Long frames do not make the queue longer than five seconds."""
    _, _, (session,) = queue_of("a", is_open=False)
    for count in range(71):
        session.enqueue(item(SOUND, count / 10))
    assert session.sounds[0].place == pytest.approx(2.0)
    assert session.lost() == {"audio": 20 * 5}


def test_a_new_pipeline_gets_the_last_second_of_sound() -> None:
    """Older sound is counted as lost; words are never stale."""
    queue, sent, (session,) = queue_of("a", is_open=False)
    for count in range(30):
        queue.push(session, item(PHRASE if count == 3 else SOUND, count / 8))
    queue.open(session)
    assert takes(sent)[:2] == [(0, 3 / 8), (0, 21 / 8)]
    assert session.lost() == {"audio": 20 * 5}


def test_dropped_sound_is_counted_once() -> None:
    """A pipeline that has received sound counts the gap itself."""
    queue, _, (session,) = queue_of("a")
    for _ in range(AHEAD + SOUNDS + 3):
        queue.push(session, item(SOUND))
    assert session.lost() == {}
    queue.mark_processed(FrameProcessed(0, [], {"audio": 15, "vision": 0}))
    assert session.lost() == {"audio": 15, "vision": 0}


def test_few_frames_are_in_flight() -> None:
    """The others wait where they can be dropped; an answer sends the next one."""
    queue, sent, (session,) = queue_of("a")
    for _ in range(AHEAD + 5):
        queue.push(session, item(SOUND))
    assert len(sent) == AHEAD
    queue.mark_processed(FrameProcessed(0, [], {"audio": 0}))
    assert len(sent) == AHEAD + 1


def test_each_session_gets_its_turn() -> None:
    """One frame of a slow sender does not wait behind forty of a fast one."""
    queue, sent, (fast, slow) = queue_of("fast", "slow")
    for count in range(40):
        queue.push(fast, item(SOUND, count / 10))
    queue.push(slow, item(SOUND))
    for _ in range(2):
        queue.mark_processed(FrameProcessed(0, [], {"audio": 0}))
    assert (slow.number, 0.0) in takes(sent)[AHEAD : AHEAD + 2]


def test_frames_in_flight_are_lost_with_the_worker() -> None:
    """They are counted; queued frames go to the next worker, ended sessions are removed."""
    queue, sent, (session, gone) = queue_of("a", "b")
    for count in range(AHEAD + 1):
        queue.push(session, item(SOUND, count / 10))
    gone.is_ended = True
    assert queue.in_progress is session
    queue.clear()
    assert (session.lost(), queue.sessions) == ({"audio": 5 * AHEAD}, [session])
    sent.clear()
    queue.open(session)
    assert takes(sent) == [(0, AHEAD / 10)]


def test_a_frame_that_came_too_late_is_lost() -> None:
    """Its session had failed, so the answer has no losses of its pipeline."""
    queue, _, (session,) = queue_of("a")
    queue.push(session, item(PICTURE))
    queue.mark_processed(FrameProcessed(0, [], {}))
    assert session.lost() == {"vision": 1}


def test_losses_outlive_an_attempt() -> None:
    """Losses counted before a crash are added to those after it."""
    queue, _, (session,) = queue_of("a")
    for lost in (2, 3):
        queue.open(session)
        queue.push(session, item(PICTURE))
        queue.mark_processed(FrameProcessed(0, [], {"vision": lost}))
        queue.stop(session)
    assert session.lost() == {"vision": 5}


def test_words_are_no_sound() -> None:
    """A sender of words alone loses phrases."""
    session = QueuedSession("a", WORDS)
    session.count_loss(item(PHRASE))
    assert session.lost() == {"text": 1}


@given(st.lists(st.sampled_from(["feed 0", "feed 1", "done", "open", "crash"]), max_size=80))
def test_every_picture_is_somewhere(steps: list[str]) -> None:
    """Queued, in flight, done or lost, in any order of events; and none is sent twice."""
    queue, sent, sessions = queue_of("a", "b", is_open=False)
    fed = done = in_flight = 0
    for step in steps:
        before = len(sent)
        if step.startswith("feed"):
            queue.push(sessions[int(step[-1])], item(PICTURE, fed))
            fed += 1
        elif step == "done" and queue.in_progress is not None:
            done, in_flight = done + 1, in_flight - 1
            queue.mark_processed(FrameProcessed(queue.in_progress.number, [], {"audio": 0}))
        elif step == "open":
            for session in (session for session in sessions if not session.is_open):
                queue.open(session)
        elif step == "crash":
            queue.clear()
            in_flight = 0
        in_flight += len(sent) - before
        waiting = [len(session.pictures) for session in sessions]
        lost = sum(session.lost().get("vision", 0) for session in sessions)
        assert fed == sum(waiting) + in_flight + done + lost
        assert max(waiting) <= PICTURES
        assert in_flight <= AHEAD
    assert len(set(takes(sent))) == len(sent)
