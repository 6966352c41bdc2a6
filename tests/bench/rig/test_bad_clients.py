"""A client that breaks the protocol is cut, and no other."""

import asyncio

from support.websocket_peers import serve
from tamulag.streamer.bench.rig.bad_clients import SENDERS, malformed
from tamulag.streamer.webserver.server import WebSocketPublisher


def test_only_what_breaks_the_protocol_is_cut() -> None:
    """Ten of 500 messages are malformed, each of another sender."""

    async def scenario(server: WebSocketPublisher) -> None:
        found = await asyncio.to_thread(malformed, server.port)
        assert (found.sent, found.bad) == (10 * SENDERS, 10)
        assert (found.cut, found.connected) == (10, SENDERS - 10)

    serve(scenario)
