import asyncio

import pytest

from tamulag.streamer.publishers.publisher import Outbox


def filled(*items: int, size: int = 3) -> Outbox[int]:
    outbox: Outbox[int] = Outbox(size)
    for item in items:
        outbox.put(item)
    return outbox


def taken(outbox: Outbox[int]) -> list[int]:
    """Return what waits, in order; the outbox is ended first, so that nothing is waited for."""

    async def read() -> list[int]:
        outbox.end()
        async with asyncio.timeout(2):
            return [item async for item in outbox]

    return asyncio.run(read())


def test_messages_come_out_in_order() -> None:
    """First in, first out."""
    assert taken(filled(1, 2, 3)) == [1, 2, 3]


def test_a_full_outbox_drops_its_oldest_and_counts_it() -> None:
    """The newest always fits; `put` says how many went for it."""
    outbox = filled(1, 2, 3)
    assert outbox.put(4) == 1
    assert outbox.put(5) == 1
    assert outbox.dropped == 2
    assert len(outbox) == 3
    assert taken(outbox) == [3, 4, 5]


def test_nothing_is_dropped_while_there_is_room() -> None:
    """`put` says 0."""
    outbox = filled(1)
    assert outbox.put(2) == 0
    assert outbox.dropped == 0


def test_what_is_put_back_comes_out_first() -> None:
    """A message whose delivery failed keeps its place."""
    outbox = filled(2, 3)
    assert outbox.put_back(1) == 0
    assert taken(outbox) == [1, 2, 3]


def test_what_is_put_back_into_a_full_outbox_is_the_one_dropped() -> None:
    """It is older than everything that waits."""
    outbox = filled(2, 3, 4)
    assert outbox.put_back(1) == 1
    assert outbox.dropped == 1
    assert taken(outbox) == [2, 3, 4]


@pytest.mark.parametrize("method", ["put", "put_back"])
def test_a_waiting_reader_is_woken(method: str) -> None:
    """The reader sleeps until there is something, whichever way it came."""

    async def scenario() -> int:
        outbox: Outbox[int] = Outbox(1)
        reader = asyncio.ensure_future(anext(outbox))
        await asyncio.sleep(0)
        assert not reader.done()
        getattr(outbox, method)(7)
        async with asyncio.timeout(2):
            return await reader

    assert asyncio.run(scenario()) == 7


def test_end_stops_a_waiting_reader() -> None:
    """A reader of an empty outbox does not wait for ever."""

    async def scenario() -> list[int]:
        outbox: Outbox[int] = Outbox(1)
        asyncio.get_running_loop().call_soon(outbox.end)
        async with asyncio.timeout(2):
            return [item async for item in outbox]

    assert asyncio.run(scenario()) == []


def test_what_waits_at_the_end_is_still_delivered() -> None:
    """`end` is no `clear`."""
    outbox = filled(1, 2)
    outbox.end()
    assert taken(outbox) == [1, 2]


@pytest.mark.parametrize("size", [0, -1])
def test_an_outbox_without_room_is_refused(size: int) -> None:
    """The value is named."""
    with pytest.raises(ValueError, match=f"outbox of {size} messages"):
        Outbox(size)


def test_of_a_kind_only_the_newest_waits() -> None:
    """Old ones of that kind are dropped and counted; the others keep their order."""

    async def scenario() -> None:
        outbox: Outbox[str] = Outbox(8)
        for item in ("a1", "b1", "a2", "b2", "a3", "b3"):
            outbox.put(item)
        assert outbox.keep_newest(lambda item: item.startswith("a")) == 2
        assert outbox.keep_newest(lambda item: item.startswith("c")) == 0
        assert outbox.dropped == 2
        outbox.end()
        assert [item async for item in outbox] == ["b1", "b2", "a3", "b3"]

    asyncio.run(scenario())
