import asyncio
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from tamulag.streamer.core.sample import Input, Notice, Phrase, Sample
from tamulag.streamer.service.inbox import BOUNDS, Inbox


def audio(tick: int) -> Sample:
    return Sample("audio", tick / 50, np.zeros(2, np.float32))


def vision(tick: int) -> Sample:
    return Sample("vision", tick / 10, np.zeros(2, np.float32))


def phrase(utterance: int) -> Phrase:
    return Phrase(0.0, utterance, (), np.zeros((0, 4), np.float32), (), final=False)


def taken(inbox: Inbox, timeout: float = 1.0) -> list[Input]:
    return asyncio.run(inbox.get(timeout))


def test_order_of_arrival_is_kept_over_all_modalities() -> None:
    """What was put first comes out first, whatever its modality."""
    inbox = Inbox()
    lost = Notice(0.0, "text", "asr_lost")
    items: list[Input] = [audio(0), vision(0), phrase(0), lost, audio(1), vision(1)]
    for item in items:
        inbox.put(item)
    assert taken(inbox) == items


def test_nothing_comes_back_when_nothing_arrives() -> None:
    """A timeout gives an empty list, not an error."""
    assert taken(Inbox(), timeout=0.02) == []


def test_vision_keeps_the_latest_frames() -> None:
    """A loop that lags gets the newest frames; the others are counted."""
    inbox = Inbox()
    for tick in range(10):
        inbox.put(vision(tick))
    assert [item.timestamp for item in taken(inbox)] == [0.6, 0.7, 0.8, 0.9]
    assert inbox.dropped["vision"] == 6


@pytest.mark.parametrize("kind", ["text", "audio", "notice"])
def test_nothing_is_lost_within_the_bound(kind: str) -> None:
    """Sound, text and notices are lossless up to their bound and count what exceeds it."""
    make: dict[str, Callable[[int], Input]] = {
        "text": phrase,
        "audio": audio,
        "notice": lambda n: Notice(float(n), "audio", None),
    }
    inbox = Inbox()
    items = [make[kind](n) for n in range(BOUNDS[kind] + 1)]
    for item in items[:-1]:
        inbox.put(item)
    assert inbox.dropped[kind] == 0
    inbox.put(items[-1])
    assert inbox.dropped[kind] == 1
    assert taken(inbox) == items[1:]


def test_a_full_modality_takes_nothing_from_the_others() -> None:
    """A flood of frames costs no sound."""
    inbox = Inbox()
    inbox.put(audio(0))
    for tick in range(1000):
        inbox.put(vision(tick))
    assert inbox.dropped == {"text": 0, "audio": 0, "vision": 996, "notice": 0}


def test_a_waiting_loop_is_woken_by_another_thread() -> None:
    """`get` returns as soon as a source puts something, long before its timeout."""
    inbox = Inbox()

    async def wait() -> list[Input]:
        getting = asyncio.create_task(inbox.get(30.0))
        await asyncio.sleep(0.01)
        thread = threading.Thread(target=inbox.put, args=(audio(7),))
        thread.start()
        async with asyncio.timeout(5.0):
            items = await getting
        thread.join(1.0)
        return items

    assert [item.timestamp for item in asyncio.run(wait())] == [7 / 50]


def test_a_source_may_put_after_the_loop_has_closed() -> None:
    """A thread that ends later than the loop does not fail on it."""
    inbox = Inbox()
    assert taken(inbox, timeout=0.01) == []
    inbox.put(vision(1))
    assert len(taken(inbox)) == 1


def test_a_file_waits_for_room_and_loses_nothing() -> None:
    """With `put_blocking` every frame arrives, in order, however slow the loop."""
    inbox, stop = Inbox(), threading.Event()

    def source() -> None:
        for tick in range(50):
            inbox.put_blocking(vision(tick), stop)

    async def collect() -> list[Input]:
        items: list[Input] = []
        async with asyncio.timeout(10.0):
            while len(items) < 50:
                items += await inbox.get(1.0)
                await asyncio.sleep(0.001)
        return items

    thread = threading.Thread(target=source)
    thread.start()
    items = asyncio.run(collect())
    thread.join(1.0)
    assert [round(item.timestamp * 10) for item in items] == list(range(50))
    assert inbox.dropped["vision"] == 0


def test_stop_ends_the_wait_for_room() -> None:
    """A file that waits for a loop that has gone ends within half a second of `stop`."""
    inbox, stop = Inbox(), threading.Event()
    for tick in range(4):
        inbox.put(vision(tick))
    thread = threading.Thread(target=inbox.put_blocking, args=(vision(4), stop))
    thread.start()
    stop.set()
    thread.join(0.5)
    assert not thread.is_alive()


def test_what_waited_longest_is_told() -> None:
    """The age of the oldest item of the newest look; nothing waited, nothing aged."""
    inbox = Inbox()
    inbox.put(audio(0))
    assert inbox.waiting()["audio"] == 1
    time.sleep(0.05)
    inbox.put(audio(1))
    taken(inbox)
    assert 0.05 <= inbox.waited < 1.0
    taken(inbox, timeout=0.01)
    assert inbox.waited == 0.0
