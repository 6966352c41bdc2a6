"""Read a media container once: sound in blocks, pictures by tick, on one clock.

Knows containers and their time stamps. Knows no pacing, no features and no session.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from ..core.sample import SAMPLE_RATE, Array, Modality
from ..core.source import SourceError
from ..core.urls import redacted
from .containers import moving, opened
from .geometry import Image, scaled
from .sound_line import SoundLine, Stretch
from .time_line import Jumped, TimeLine

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream, FFmpegError, VideoFrame, VideoStream
    from av.container import InputContainer

VISION_RATE = 10
"""Hz: the last frame of each tenth of a second is described."""

_FRAME, _LONGEST = 0.04, 1.0  # seconds that a picture is shown: where nothing is said; at most
_PIECE = SAMPLE_RATE // VISION_RATE  # samples; sound is passed on in blocks of a tenth of a second


class SoundBlock(NamedTuple):
    """Sound that is complete at `end`, seconds on the session clock.

    `start` is the index of its first sample at 16 kHz; `values` has shape (n,), float32 in [-1, 1].
    """

    end: float
    start: int
    values: Array


class TimedPicture(NamedTuple):
    """The last frame of the tick that ends at `end`, seconds on the session clock; RGB, uint8."""

    end: float
    timestamp: float
    image: Image


Item = SoundBlock | TimedPicture


class MediaReader:
    """Decode a container once, in the order of its packets.

    Args:
        container: Open container; the caller closes it.
        modalities: `audio`, `vision` or both; only their first tracks are decoded.
        start: Vision tick of the session at which the container's time 0 lies.
        still: Picture used as the video where the container has none.
        time: Gate of its stamps; None: one of its own.

    Attributes:
        damaged: Packets that could not be decoded.
        length: Seconds of media decoded so far.
        fault: What ended it before its end.
        sound: Places the sound, and watches it.
    """

    def __init__(
        self,
        container: "InputContainer",
        modalities: Iterable[Modality],
        start: int,
        still: Image | None,
        time: TimeLine | None = None,
    ) -> None:
        sounds = container.streams.audio[:1] if "audio" in modalities else ()
        pictures = moving(container)[:1] if "vision" in modalities else ()
        self.damaged = 0
        self.length = 0.0
        self.fault: FFmpegError | None = None
        self._container = container
        self._streams: list[AudioStream | VideoStream] = [*sounds, *pictures]
        self._video = pictures[0] if pictures else None
        self._time = time or time_line_of(container)
        self.sound = SoundLine(self._time)
        self._start = start  # in vision ticks, so that sound and picture match their grids exactly
        self._pending: tuple[float, VideoFrame] | None = None
        self._shown: float | None = None  # time of the newest picture
        self._still = still if "vision" in modalities and not pictures else None
        self._stills = 0

    def items(self) -> Iterator[Item]:
        """Yield sound and pictures; each rises in time, the two may be out of step."""
        from av import AudioFrame, FFmpegError

        try:
            for frame in self._frames():
                if isinstance(frame, AudioFrame):
                    yield from self._blocks(self.sound.push(frame, _stamp(frame)))
                else:
                    yield from self._picture_of(frame)
            yield from self._blocks(self.sound.finish())
            yield from self._release()
        except FFmpegError as error:
            # Some forms of sound and picture are decoded, but cannot be converted.
            self.fault = self.fault or error

    def _frames(self) -> "Iterator[AudioFrame | VideoFrame]":
        """Yield what is decoded; what a decoder still holds comes also where reading breaks off."""
        from av import FFmpegError

        try:
            for packet in self._container.demux(self._streams):
                yield from self._decoded(packet.decode)
        except FFmpegError as error:
            self.fault = error
            for stream in self._streams:
                yield from self._decoded(partial(stream.decode, None))

    def _decoded(self, decode: "Callable[[], Sequence[object]]") -> "list[AudioFrame | VideoFrame]":
        from av import AudioFrame, VideoFrame
        from av.error import EOFError as Ended
        from av.error import InvalidDataError

        try:
            frames = decode()
        except Ended:
            return []
        except InvalidDataError:
            self.damaged += 1
            return []
        return [frame for frame in frames if isinstance(frame, (AudioFrame, VideoFrame))]

    def _blocks(self, stretches: Iterable[Stretch]) -> Iterator[Item]:
        for first, values in stretches:
            for at in range(0, len(values), _PIECE):
                start, piece = first + at, values[at : at + _PIECE]
                self.length = max(self.length, (start + len(piece)) / SAMPLE_RATE)
                begin = start + self._start * _PIECE
                yield SoundBlock((begin + len(piece)) / SAMPLE_RATE, begin, piece)
                yield from self._show_still()

    def _picture_of(self, frame: "VideoFrame") -> Iterator[Item]:
        stamp, length = _stamp(frame), self._length_of(frame)
        if stamp is None:
            time = 0.0 if self._shown is None else self._shown + length
        else:
            time = self._time.place("vision", stamp)
        time = max(time, self._shown or 0.0)  # those that come out of order
        if self._pending and _tick(time) > _tick(self._pending[0]):
            yield from self._release()
        self._pending, self._shown = (time, frame), time
        self._time.reached("vision", time + length)
        self.length = max(self.length, time)

    def _length_of(self, frame: "VideoFrame") -> float:
        """Return how long a picture is shown, seconds."""
        rate = self._video and (self._video.average_rate or self._video.guessed_rate)
        own = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        return min(own or (float(1 / rate) if rate else _FRAME), _LONGEST)

    def _release(self) -> Iterator[Item]:
        if self._pending:
            (time, frame), self._pending = self._pending, None
            aspect = self._video.sample_aspect_ratio if self._video else None
            yield self._picture(_tick(time), time, scaled(frame, aspect=aspect))

    def _show_still(self) -> Iterator[Item]:
        while self._still is not None and self.length >= (self._stills + 1) / VISION_RATE:
            yield self._picture(self._stills, self._stills / VISION_RATE, self._still)
            self._stills += 1

    def _picture(self, tick: int, time: float, image: Image) -> TimedPicture:
        end = (tick + 1 + self._start) / VISION_RATE
        return TimedPicture(end, time + self._start / VISION_RATE, image)


def time_line_of(container: "InputContainer", jumped: Jumped = lambda *_: None) -> TimeLine:
    """Return the gate of a container's stamps, for all of its tracks.

    Args:
        container: Open container.
        jumped: See `TimeLine`.
    """
    streams = [*container.streams.audio, *moving(container)]
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in streams
        if stream.start_time is not None and stream.time_base is not None
    ]
    return TimeLine(min(starts, default=None), jumped)


def _stamp(frame: "AudioFrame | VideoFrame") -> float | None:
    """Return when a frame is shown or heard, seconds; None where its container does not say."""
    stamp = frame.dts if frame.pts is None else frame.pts
    return None if stamp is None or frame.time_base is None else float(stamp * frame.time_base)


def moment(item: Item) -> int:
    """Return when an item is complete, in tenths of a millisecond: equal where it is equal."""
    return round(item.end * 1e4)


def in_time_order(items: Iterable[Item], tracks: int, hold: float) -> Iterator[Item]:
    """Merge items that rise in time within each of their tracks.

    Args:
        items: In the order of the container.
        tracks: Number of kinds of items.
        hold: Seconds by which one track may run ahead before it stops waiting for the others.
    """
    waiting: list[tuple[int, int, Item]] = []
    newest: dict[type, int] = {}
    arrival = count()
    for item in items:
        heapq.heappush(waiting, (moment(item), next(arrival), item))
        newest[type(item)] = moment(item)
        behind = min(newest.values()) if len(newest) == tracks else -math.inf
        complete = max(behind, max(newest.values()) - hold * 1e4)
        while waiting and waiting[0][0] <= complete:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


def picture_of(path: str) -> Image:
    """Return a picture file as RGB, shape (H, W, 3), uint8.

    Raises:
        SourceError: If it cannot be read or holds no picture.
    """
    import av

    with opened(path) as container:
        try:
            video = container.streams.video[0]
            return scaled(next(container.decode(video)), aspect=video.sample_aspect_ratio)
        except (av.FFmpegError, IndexError, StopIteration):
            pass
    name = f"source {redacted(path)}"
    raise SourceError(f"{name} holds no picture: name an image file", is_permanent=True)


def _tick(time: float) -> int:
    return math.floor(time * VISION_RATE + 1e-5)
