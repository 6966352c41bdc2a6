"""The measuring of the server measures something."""

import asyncio

from tamulag.streamer.bench.websocket_fanout import fanout


def test_every_message_is_timed_and_the_stalled_are_cut() -> None:
    """All that was sent arrives at all who read; who does not is gone within 5 seconds."""
    found = asyncio.run(fanout(20, 2, seconds=5.0, hop=0.25))
    assert (found.subscribers, found.stalled) == (20, 2)
    assert found.received == found.expected == 400
    assert 0 < found.p50_ms <= found.p99_ms < 1000
    assert found.stalled_gone_s is not None
    assert found.stalled_gone_s < 5.0


def test_without_stalled_subscribers_none_goes() -> None:
    """Nothing is claimed that was not measured."""
    found = asyncio.run(fanout(3, 0, seconds=0.5, hop=0.25))
    assert found.received == 6
    assert found.stalled_gone_s is None
