"""Receive the frames of one sender, within limits."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from websockets.frames import CloseCode

from ..features.audio import AUDIO_DIM
from ..features.vision import VISION_DIM
from ..protocol.ingest import (
    EndHeader,
    Frame,
    IngestError,
    SenderHello,
    SoundHeader,
    parse_frame,
)
from ..webserver.connection import Connection, TokenBucket

DIMS = {"audio": AUDIO_DIM, "vision": VISION_DIM}
"""Numbers in a row of features."""

HELLO = 5.0
"""Seconds for the hello."""

PATIENCE = 10.0
"""Seconds of frames and bytes that may come at once, after the network or we stood still."""

FRAME_LIMIT = 10.0
"""Seconds without a frame after which a sender counts as lost."""


@dataclass(frozen=True, kw_only=True)
class SenderLimits:
    """Limits of a sender.

    Attributes:
        message: Bytes of a frame.
        rate: Frames within a second.
        bandwidth: Bytes within a second.
        duration: Seconds until it must connect again.
    """

    message: int = 262_144
    rate: int = 100
    bandwidth: int = 2_000_000
    duration: float = 14_400.0


async def frames(
    connection: Connection, hello: SenderHello, limits: SenderLimits
) -> AsyncGenerator[Frame, None]:
    """Yield a sender's validated frames until its `end` frame.

    Args:
        connection: Of the sender.
        hello: The frames that it offered.
        limits: Of its frames, bytes and time.

    Raises:
        IngestError: If a frame is invalid, a limit is exceeded, or none comes for 10 s.
        ConnectionClosed: If it leaves.
    """
    begun = time.monotonic()
    bytes_left = TokenBucket(limits.bandwidth, PATIENCE * limits.bandwidth, begun)
    while True:
        data = await within(FRAME_LIMIT, connection, f"nothing came for {FRAME_LIMIT:g} s")
        now = time.monotonic()
        if now > begun + limits.duration:
            limit = f"{limits.duration:g} s are over: connect again"
            raise IngestError(CloseCode.POLICY_VIOLATION, limit)
        if isinstance(data, str):
            raise IngestError(CloseCode.UNSUPPORTED_DATA, "after the hello come binary frames")
        if not bytes_left.take(len(data), now):
            limit = f"more than {limits.bandwidth} bytes in a second"
            raise IngestError(CloseCode.POLICY_VIOLATION, limit)
        frame = parse_frame(data, hello, DIMS)
        if isinstance(frame.header, EndHeader):
            return
        yield frame


def span_of(frame: Frame, counted: int) -> tuple[int, int]:
    """Return how many samples were recorded before a frame, and with it; `counted` before it.

    Raises:
        IngestError: If its position lies behind what came before.
    """
    if not isinstance(frame.header, SoundHeader) or frame.sound is None:
        return counted, counted
    before = counted if frame.header.position is None else frame.header.position
    if before < counted:
        raise IngestError(CloseCode.POLICY_VIOLATION, f"position {before} is behind {counted}")
    return before, before + len(frame.sound)


async def within(seconds: float, connection: Connection, missing: str) -> str | bytes:
    """Return a sender's next message.

    Raises:
        IngestError: If none comes in time; `missing` is the reason.
    """
    try:
        async with asyncio.timeout(seconds):
            return await connection.recv()
    except TimeoutError:
        raise IngestError(CloseCode.POLICY_VIOLATION, missing) from None
