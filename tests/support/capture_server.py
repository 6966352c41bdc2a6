"""The capture page, before a place for a sender whose frames nobody processes."""

import time
from collections.abc import Collection

from tamulag.streamer.core.sample import Modality
from tamulag.streamer.core.source import Put
from tamulag.streamer.protocol.ingest import PlacedFrame, SenderHello
from tamulag.streamer.service.ingest_endpoint import IngestEndpoint
from tamulag.streamer.service.single_sender import SingleSender
from tamulag.streamer.webserver import widgets
from tamulag.streamer.webserver.access_control import Access
from tamulag.streamer.webserver.server import WebSocketPublisher

from .websocket_peers import missed


class IdlePipeline:
    """Work that is never done: nobody runs the source."""

    def __init__(self, *modalities: Modality) -> None:
        self.modalities = modalities

    def begin(self, hello: SenderHello) -> None: ...

    def push(self, placed: PlacedFrame, put: Put) -> None: ...

    def end(self, put: Put) -> None: ...

    def losses(self) -> dict[str, int]:
        return {}

    def gauges(self) -> dict[str, float]:
        return {}

    def shed(self, steps: Collection[str]) -> None: ...


class ReceivedFrames(SingleSender):
    """Takes sound and pictures of one sender, and keeps them."""

    def __init__(self) -> None:
        super().__init__(
            voice=IdlePipeline("text", "audio"),
            face=IdlePipeline("vision"),
            takes_words=False,
            now=time.monotonic,
        )
        self.sounds: list[PlacedFrame] = []
        self.pictures: list[PlacedFrame] = []

    async def feed(self, placed: PlacedFrame) -> bool:
        """Keep a frame; see `Receiver`."""
        is_sound = placed.frame.header.kind == "audio"
        (self.sounds if is_sound else self.pictures).append(placed)
        return True


def capture_server(taken: SingleSender, access: Access | None = None) -> WebSocketPublisher:
    """Return a server of the page whose sender is `taken`'s."""
    return WebSocketPublisher(
        access,
        0,
        hello=lambda: "hello",
        missed=missed,
        routes=widgets.routes(captures=True),
        receive=IngestEndpoint(taken, subject="customer").receive,
    )
