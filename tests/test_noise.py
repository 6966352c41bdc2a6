"""Who does not behave is cut; who behaves stays."""

import asyncio

from tamulag.streamer.noise import SENDERS, malformed
from tamulag.streamer.websocket import WebSocketPublisher

from .peers import serve


def test_only_who_breaks_the_protocol_is_cut() -> None:
    """Ten of 500 messages are malformed, each of another sender."""

    async def scenario(server: WebSocketPublisher) -> None:
        found = await asyncio.to_thread(malformed, server.port)
        assert (found.sent, found.bad) == (10 * SENDERS, 10)
        assert (found.cut, found.kept) == (10, SENDERS - 10)

    serve(scenario)
