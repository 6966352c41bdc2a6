"""Send to `tamulag serve`: stream the sound of a WAV file in real time and print its scores.

    tamulag serve --handover sessions
    pip install websockets
    python examples/sender.py talk.wav [ws://127.0.0.1:8765/ingest]

The file has 16 bit samples, one channel, 8, 16 or 48 kHz. If the connection breaks, the sender
comes back with its key and goes on with the same session.
"""

import asyncio
import json
import random
import sys
import time
import wave

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import WebSocketException
except ModuleNotFoundError as missing:
    sys.exit(f"{missing.name} is missing: pip install websockets")

STEP = 0.1
"""Seconds of sound in a frame."""

PAUSE = (1.0, 6.0)
"""Seconds before the sender comes back, at random: after a restart many senders come."""


def frame(header: dict[str, object], payload: bytes = b"") -> bytes:
    """Return a frame: 4 bytes of length, a JSON header of that length, the payload."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(4, "big") + text + payload


async def send(server: ClientConnection, sound: wave.Wave_read, begun: float) -> None:
    """Send what is left of the sound, each block when it has been spoken."""
    rate = sound.getframerate()
    while True:
        position = sound.tell()
        block = sound.readframes(round(STEP * rate))
        if not block:
            await server.send(frame({"kind": "end", "timestamp": time.monotonic()}))
            return
        await asyncio.sleep(max(0.0, begun + position / rate + STEP - time.monotonic()))
        header = {"kind": "audio", "timestamp": begun + position / rate, "position": position}
        await server.send(frame(header, block))


async def receive(server: ClientConnection) -> None:
    """Print scores until the server closes."""
    async for line in server:
        message = json.loads(line)
        if message["type"] == "sentiment":
            print(f"{message['window']['end']:.1f} s: {message['sentiment']}", flush=True)


async def converse(url: str, hello: dict[str, object], sound: wave.Wave_read, begun: float) -> None:
    """Send and receive as long as the connection holds."""
    async with connect(url) as server:
        await server.send(json.dumps(hello))
        ready = json.loads(await asyncio.wait_for(server.recv(), 10))
        hello["resume"] = ready["resume"]
        print(f"session {ready['session']}", flush=True)
        async with asyncio.TaskGroup() as both:
            both.create_task(send(server, sound, begun))
            both.create_task(receive(server))


async def main(path: str, url: str) -> None:
    """Send until all has been sent; come back when the connection breaks."""
    with wave.open(path) as sound:
        form = {"encoding": "pcm_s16le", "rate": sound.getframerate()}
        hello: dict[str, object] = {"type": "hello", "v": 1, "audio": form}
        begun, is_over = time.monotonic(), False
        while not is_over:
            try:
                await converse(url, hello, sound, begun)
                is_over = True
            except* (OSError, WebSocketException) as group:
                print(f"{group.exceptions[0]}: trying again", file=sys.stderr, flush=True)
                await asyncio.sleep(random.uniform(*PAUSE))


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("usage: sender.py FILE.wav [ws://HOST:PORT/ingest]")
    address = sys.argv[2] if len(sys.argv) == 3 else "ws://127.0.0.1:8765/ingest"
    try:
        asyncio.run(main(sys.argv[1], address))
    except (OSError, wave.Error) as error:
        sys.exit(f"{sys.argv[1]}: {error}: give a WAV file of 16 bit samples")
    except KeyboardInterrupt:
        pass
