"""Estimates for the program that runs the agent: the same numbers, bounded, counted."""

import asyncio

import pytest

from tamulag.streamer.core.estimate import Estimate, ModalityEstimate
from tamulag.streamer.protocol.messages import Latency, encode, sentiment_message
from tamulag.streamer.publishers.estimate_queue import EstimateQueue

NOT_MEASURED = Latency(align=None, features=None, model=0.0, total=None)


def estimate(end: float) -> Estimate:
    return Estimate(
        start=max(0.0, end - 5),
        end=end,
        warmup=end < 5,
        sentiment=1.25,
        interval=(-0.5, 3.0),
        modalities={
            "text": ModalityEstimate(1.5, 0.75, "stale", None, 3.5, 0.625),
            "audio": ModalityEstimate(None, 0.0, "missing", "silence", 4.0),
            "vision": ModalityEstimate(None, 0.0, "off"),
        },
        conflict=None,
        attention={"text": [("fine", 0.5, 0.75), ("day", 0.75, 0.25)]},
        revision=2,
    )


def line(end: float) -> str:
    message = sentiment_message(
        estimate(end), session="a", seq=0, time="t", latency=NOT_MEASURED, dropped={}
    )
    return encode(message)


async def taken(queue: EstimateQueue) -> list[Estimate]:
    await queue.close()
    return [one async for one in queue]


def test_an_estimate_comes_out_as_it_went_in() -> None:
    """Every field, where the wire rounds nothing."""
    queue = EstimateQueue(2)
    queue.publish("sentiment", line(2.5))
    assert asyncio.run(taken(queue)) == [estimate(2.5)]


def test_other_messages_are_ignored() -> None:
    """Only the start of the session is noticed: then everything is open."""
    queue = EstimateQueue(2)
    queue.publish("hello", "{}")
    assert not queue.started.is_set()
    queue.publish("session_start", "{}")
    assert queue.started.is_set()
    assert asyncio.run(taken(queue)) == []


def test_the_newest_stay_and_the_others_are_counted() -> None:
    """A slow reader costs no memory."""
    queue = EstimateQueue(2)
    for end in (1.0, 2.0, 3.0):
        queue.publish("sentiment", line(end))
    assert (queue.dropped, queue.backlog) == (1, 0)
    assert [one.end for one in asyncio.run(taken(queue))] == [2.0, 3.0]


def test_a_run_that_can_wait_sees_what_waits() -> None:
    """Until nobody reads any more."""
    queue = EstimateQueue(1, is_waited_for=True)
    for end in (1.0, 2.0, 3.0):
        queue.publish("sentiment", line(end))
    assert (queue.dropped, queue.backlog) == (0, 3)
    queue.discard()
    queue.publish("sentiment", line(4.0))
    assert (queue.dropped, queue.backlog) == (0, 0)


def test_it_runs_until_it_is_cancelled() -> None:
    """As every publisher does."""
    queue = EstimateQueue(1)

    async def run() -> None:
        await queue.open()
        async with asyncio.timeout(0.01):
            await queue.run()

    with pytest.raises(TimeoutError):
        asyncio.run(run())
