"""What senders send, in real sound and a real face: frames as ingest.py has checked them.

Knows the demo's files. Knows no connection.
"""

import functools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tamulag.streamer.app.build_agent import demo_files
from tamulag.streamer.protocol.ingest import (
    Frame,
    PictureHeader,
    PlacedFrame,
    SenderHello,
    SentWord,
    SoundHeader,
    WordsHeader,
)

from .speech import read

RATE = 16000
BLOCK = 1600
"""Samples of a frame, 100 ms."""

SOUND = {"encoding": "pcm_s16le", "rate": RATE}
SOUND_ONLY = SenderHello.model_validate({"audio": SOUND})
PICTURES_ONLY = SenderHello.model_validate({"vision": {"encoding": "jpeg"}})
BOTH = SenderHello.model_validate({"audio": SOUND, "vision": {"encoding": "jpeg"}})
WORDS = SenderHello(words=True)


@functools.cache
def wave() -> npt.NDArray[np.int16]:
    """Return the speech of the demo, 16 kHz."""
    return np.asarray(read(demo_files()[1]) * 32767, np.int16)


def sound(count: int) -> PlacedFrame:
    """Return the `count`-th tenth of a second of speech, which begins again at its end."""
    first = count * BLOCK
    block = wave().take(range(first, first + BLOCK), mode="wrap")
    header = SoundHeader(timestamp=first / RATE)
    return PlacedFrame(Frame(header, sound=block), first / RATE, (first, first + BLOCK))


def picture(count: int) -> PlacedFrame:
    """Return the portrait as it is seen in the `count`-th tenth of a second."""
    place = count / 10
    return PlacedFrame(Frame(PictureHeader(timestamp=place), picture=portrait()), place)


def words(text: str, place: float) -> PlacedFrame:
    """Return an utterance, all of it final."""
    sent = [SentWord(text=word, start=place - 0.2, end=place) for word in text.split()]
    header = WordsHeader(timestamp=place, utterance=0, words=sent, final=True)
    return PlacedFrame(Frame(header), place)


def speech(seconds: float) -> Iterator[PlacedFrame]:
    """Yield sound from the speech's beginning."""
    yield from (sound(count) for count in range(round(10 * seconds)))


@functools.cache
def portrait() -> bytes:
    """Return the portrait of the demo as a page sends it, 480 pixels high."""
    import cv2

    image = cv2.imread(str(demo_files()[0]))
    assert image is not None
    width = round(image.shape[1] * 480 / image.shape[0])
    jpeg: bytes = cv2.imencode(".jpg", cv2.resize(image, (width, 480)))[1].tobytes()
    return jpeg
