"""Frames that wait for a worker: bounded, fair, and each of them accounted for."""

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
from tamulag.streamer.service.feature_workers.ipc import Order, Processed, Take
from tamulag.streamer.sources.remote import PICTURES, SOUNDS

PICTURE = Frame(PictureHeader(timestamp=0.0), picture=b"jpeg")
SOUND = Frame(SoundHeader(timestamp=0.0), sound=np.zeros(1600, np.int16))
SAID = Frame(WordsHeader(timestamp=0.0, utterance=0, words=[], final=True))


def item(frame: Frame, place: float = 0.0) -> PlacedFrame:
    return PlacedFrame(frame, place, (0, 1600))


def seated(
    *names: str, is_open: bool = True
) -> tuple[FrameQueue, list[Order], list[QueuedSession]]:
    sent: list[Order] = []
    desk = FrameQueue(sent.append)
    desk.seats = [QueuedSession(name, BOTH, number) for number, name in enumerate(names)]
    desk.numbers = {seat.number: seat for seat in desk.seats}
    for seat in desk.seats if is_open else ():
        desk.open(seat)
    return desk, sent, list(desk.seats)


def takes(sent: list[Order]) -> list[tuple[int, float]]:
    return [(order.number, order.placed.place) for order in sent if isinstance(order, Take)]


@pytest.mark.parametrize(
    ("frame", "bound", "lost"),
    [
        (PICTURE, PICTURES, {"vision": 3}),
        (SOUND, SOUNDS, {"audio": 15}),
        (SAID, SOUNDS, {"text": 3}),
    ],
    ids=["pictures", "sound", "words"],
)
def test_the_oldest_of_too_many_is_dropped(frame: Frame, bound: int, lost: dict[str, int]) -> None:
    """And counted: pictures and phrases one by one, sound in ticks."""
    desk, _, (seat,) = seated("a", is_open=False)
    for count in range(bound + 3):
        desk.feed(seat, item(frame, count / 64))
    assert seat.lost() == lost
    assert (seat.pictures or seat.sounds)[0].place == 3 / 64


def test_sound_that_is_too_old_is_dropped() -> None:
    """Long frames do not make the queue longer than five seconds."""
    _, _, (seat,) = seated("a", is_open=False)
    for count in range(71):
        seat.wait(item(SOUND, count / 10))
    assert seat.sounds[0].place == pytest.approx(2.0)
    assert seat.lost() == {"audio": 20 * 5}


def test_front_ends_begin_with_what_is_fresh() -> None:
    """A second of the sound that waited, the rest is counted; and all words."""
    desk, sent, (seat,) = seated("a", is_open=False)
    for count in range(30):
        desk.feed(seat, item(SAID if count == 3 else SOUND, count / 8))
    desk.open(seat)
    assert takes(sent)[:2] == [(0, 3 / 8), (0, 21 / 8)]
    assert seat.lost() == {"audio": 20 * 5}


def test_dropped_sound_is_counted_once() -> None:
    """Where the front end has had sound it sees the gap itself."""
    desk, _, (seat,) = seated("a")
    for _ in range(AHEAD + SOUNDS + 3):
        desk.feed(seat, item(SOUND))
    assert seat.lost() == {}
    desk.taken(Processed(0, [], {"audio": 15, "vision": 0}))
    assert seat.lost() == {"audio": 15, "vision": 0}


def test_few_frames_are_under_way() -> None:
    """The others wait where they can be dropped; an answer lets the next one go."""
    desk, sent, (seat,) = seated("a")
    for _ in range(AHEAD + 5):
        desk.feed(seat, item(SOUND))
    assert len(sent) == AHEAD
    desk.taken(Processed(0, [], {"audio": 0}))
    assert len(sent) == AHEAD + 1


def test_each_session_gets_its_turn() -> None:
    """One frame of a slow sender does not wait behind forty of a fast one."""
    desk, sent, (fast, slow) = seated("fast", "slow")
    for count in range(40):
        desk.feed(fast, item(SOUND, count / 10))
    desk.feed(slow, item(SOUND))
    for _ in range(2):
        desk.taken(Processed(0, [], {"audio": 0}))
    assert (slow.number, 0.0) in takes(sent)[AHEAD : AHEAD + 2]


def test_what_was_under_way_is_lost_with_the_worker() -> None:
    """It is counted; what waits goes to the next worker, and an end is final."""
    desk, sent, (seat, gone) = seated("a", "b")
    for count in range(AHEAD + 1):
        desk.feed(seat, item(SOUND, count / 10))
    gone.is_ended = True
    assert desk.at_work is seat
    desk.clear()
    assert (seat.lost(), desk.seats) == ({"audio": 5 * AHEAD}, [seat])
    sent.clear()
    desk.open(seat)
    assert takes(sent) == [(0, AHEAD / 10)]


def test_a_frame_that_came_too_late_is_lost() -> None:
    """Its session had broken, so the answer tells no losses of its front ends."""
    desk, _, (seat,) = seated("a")
    desk.feed(seat, item(PICTURE))
    desk.taken(Processed(0, [], {}))
    assert seat.lost() == {"vision": 1}


def test_losses_outlive_an_attempt() -> None:
    """What the front ends counted before a crash is added to what they count after it."""
    desk, _, (seat,) = seated("a")
    for lost in (2, 3):
        desk.open(seat)
        desk.feed(seat, item(PICTURE))
        desk.taken(Processed(0, [], {"vision": lost}))
        desk.stop(seat)
    assert seat.lost() == {"vision": 5}


def test_words_are_no_sound() -> None:
    """A sender of words alone loses phrases."""
    seat = QueuedSession("a", WORDS)
    seat.lose(item(SAID))
    assert seat.lost() == {"text": 1}


@given(st.lists(st.sampled_from(["feed 0", "feed 1", "done", "open", "crash"]), max_size=80))
def test_every_picture_is_somewhere(steps: list[str]) -> None:
    """Waiting, under way, done or lost, in whatever order things happen; and none goes twice."""
    desk, sent, seats = seated("a", "b", is_open=False)
    fed = done = under_way = 0
    for step in steps:
        before = len(sent)
        if step.startswith("feed"):
            desk.feed(seats[int(step[-1])], item(PICTURE, fed))
            fed += 1
        elif step == "done" and desk.at_work is not None:
            done, under_way = done + 1, under_way - 1
            desk.taken(Processed(desk.at_work.number, [], {"audio": 0}))
        elif step == "open":
            for seat in (seat for seat in seats if not seat.is_open):
                desk.open(seat)
        elif step == "crash":
            desk.clear()
            under_way = 0
        under_way += len(sent) - before
        waiting = [len(seat.pictures) for seat in seats]
        lost = sum(seat.lost().get("vision", 0) for seat in seats)
        assert fed == sum(waiting) + under_way + done + lost
        assert max(waiting) <= PICTURES
        assert under_way <= AHEAD
    assert len(set(takes(sent))) == len(sent)
