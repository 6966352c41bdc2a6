"""A media file or network stream as a source: sound and picture by one clock.

Knows containers and pacing. Knows no features and no session.
"""

import heapq
import logging
import math
import threading
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from .camera import MAX_WIDTH, Image, VisionExtractor, without_user
from .sample import Array, Modality, Notice
from .sound import SAMPLE_RATE, Resampler, SoundPath
from .source import Now, Put, SourceError, SourceLost

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream, Packet, VideoFrame, VideoStream
    from av.container import InputContainer
    from av.stream import Stream

VISION_RATE = 10
"""Hz: of each tenth of a second the last frame is described."""

_PIECE = SAMPLE_RATE // VISION_RATE  # samples; sound is passed on in pieces of a tenth
_JUMP = 0.04  # seconds; less between the stamps of sound frames is rounding
_FILE_HOLD, _NETWORK_HOLD = 2.0, 0.2
_OPEN_LIMIT, _READ_LIMIT = 5.0, 2.0
_WAIT = 0.2
_CLOCK_LIMIT = 10.0
_FLUSH_LIMIT, _STOP_LIMIT = 3.0, 1.0
# A playlist from the network must not read files of this machine, nor a file reach the network.
_FILE_PROTOCOLS = "file,crypto,data"
_NETWORK_PROTOCOLS = "http,https,httpproxy,tls,tcp,udp,rtp,rtsp,rtmp,rtmps,srt,crypto,data"

_log = logging.getLogger("tamulag.media")


class _Block(NamedTuple):
    """Sound that is complete at `end`, seconds on the session clock."""

    end: float
    start: int
    values: Array


class _Picture(NamedTuple):
    """The last frame of the tick that is over at `end`, seconds on the session clock."""

    end: float
    timestamp: float
    image: Image


_Item = _Block | _Picture


class MediaSource:
    """Play a file or stream through the same path as camera and microphone.

    Time is the container's. At speed `1` it begins at the next tenth of a second of the session
    clock, at speed `max` at 0, so both give the same ticks. Nothing is dropped here; what the
    tracks have out of order is held back for 2 s at most, 0.2 s from a network.

    Args:
        path: File, or URL of a stream.
        sound: Takes the sound, threaded at speed `1` alone; None: no sound is wanted.
        vision: Extractor of the vision samples; None: no picture is wanted.
        now: The session clock; needed at speed `1` alone.
        speed: `1` in real time, `max` as fast as `put` takes it.
        loop: Begin again at the end, as a later part of the same session.
        still: Picture file that is shown as the video where the container has none.

    Attributes:
        modalities: What is wanted and, once it is open, there.
    """

    def __init__(
        self,
        path: str,
        *,
        sound: SoundPath | None,
        vision: VisionExtractor | None,
        now: Now | None,
        speed: Literal["1", "max"],
        loop: bool = False,
        still: str | None = None,
    ) -> None:
        if speed == "1" and now is None:
            raise ValueError("speed '1' needs the session clock: pass now")
        self.name = f"source {without_user(path)}"
        self._path = path
        self._sound = sound
        self._vision = vision
        self._now = now if speed == "1" else None
        self._loop = loop
        self._still = still
        self._still_image: Image | None = None
        self._container: InputContainer | None = None
        self._wanted: tuple[Modality, ...] = sound.modalities if sound else ()
        self._wanted += ("vision",) if vision else ()
        self.modalities = self._wanted

    def open(self) -> None:
        """Open the file or stream and see which tracks it has.

        Raises:
            SourceError: If it cannot be read, or has nothing of what is wanted.
        """
        if self._still:
            self._still_image = _picture_of(self._still)
        container = _opened(self._path)
        has_sound = bool(container.streams.audio)
        has_picture = bool(_moving(container)) or (has_sound and self._still is not None)
        self.modalities = tuple(
            modality
            for modality in self._wanted
            if (has_picture if modality == "vision" else has_sound)
        )
        if not self.modalities:
            container.close()
            raise SourceError(f"{self.name} has no {' or '.join(self._wanted)}: play another file")
        self._container = container

    def run(self, put: Put, stop: threading.Event) -> None:
        """Put all that the media holds, until its end or until `stop` is set.

        Raises:
            SourceLost: If a network stream breaks off, or nothing can be decoded.
        """
        start = 0 if self._now is None else math.ceil(self._now() * VISION_RATE)
        for modality in self._wanted:
            if modality not in self.modalities:
                reason = "no_picture" if modality == "vision" else "no_sound"
                put(Notice(start / VISION_RATE, modality, reason, self.name))
        try:
            for item in self._items(start):
                if not self._wait_until(item.end, stop):
                    break
                self._deliver(item, put)
        finally:
            self._close()
            if self._sound:
                self._sound.finish(put, _STOP_LIMIT if stop.is_set() else _FLUSH_LIMIT)

    def _items(self, start: int) -> Iterator[_Item]:
        """Yield the items of every pass, in order of time; a pass begins at a vision tick."""
        hold = _NETWORK_HOLD if _is_network(self._path) else _FILE_HOLD
        tracks = ("audio" in self.modalities) + ("vision" in self.modalities)
        while True:
            end = start / VISION_RATE
            for item in in_time_order(self._one_pass(start), tracks, hold):
                end = item.end
                yield item
            self._close()
            if end == start / VISION_RATE:
                raise SourceLost("source_lost", f"{self.name} holds nothing that can be decoded")
            if not self._loop:
                return
            start = math.ceil(end * VISION_RATE - 1e-5)
            self._container = _opened(self._path)

    def _one_pass(self, start: int) -> Iterator[_Item]:
        import av

        container = self._container
        assert container is not None, "open() comes before run()"
        reader = _Reader(container, self.modalities, start, self._still_image)
        try:
            yield from reader.items()
        except av.FFmpegError as error:
            raise SourceLost("source_lost", f"{self.name} broke off: {error.strerror}") from error
        if reader.damaged:
            _log.warning("%s: %d damaged packets were left out", self.name, reader.damaged)
        length = container.duration
        if _is_network(self._path) and (length is None or reader.length < length / 1e6 - 1.0):
            raise SourceLost("source_lost", f"{self.name} ended unexpectedly")

    def _wait_until(self, time: float, stop: threading.Event) -> bool:
        """Wait for the session clock; return False once `stop` is set."""
        if self._now is not None and _is_network(self._path):
            self._check_clock(time - self._now())
        while self._now is not None and (ahead := time - self._now()) > 0:
            if stop.wait(min(ahead, _WAIT)):
                return False
        return not stop.is_set()

    def _check_clock(self, ahead: float) -> None:
        # A server that starts over, or falls far behind: opening it again sets its clock anew.
        if abs(ahead) > _CLOCK_LIMIT:
            raise SourceLost("source_lost", f"the clock of {self.name} is {ahead:+.1f} s off")

    def _deliver(self, item: _Item, put: Put) -> None:
        if isinstance(item, _Picture):
            assert self._vision is not None
            put(self._vision.push(item.image, item.timestamp))
        else:
            assert self._sound is not None
            self._sound.push(item.values, item.start, put)

    def _close(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()


class _Reader:
    """Decode a container once, in the order in which it holds its data."""

    def __init__(
        self,
        container: "InputContainer",
        modalities: Iterable[Modality],
        start: int,
        still: Image | None,
    ) -> None:
        sounds = container.streams.audio[:1] if "audio" in modalities else ()
        pictures = _moving(container)[:1] if "vision" in modalities else ()
        self.damaged = 0
        self.length = 0.0
        self._container = container
        self._streams: list[AudioStream | VideoStream] = [*sounds, *pictures]
        self._zero = _start_of(container)
        self._start = start  # vision ticks, so that sound and picture keep their grids exactly
        self._resampler = Resampler(SAMPLE_RATE)
        self._next: int | None = None
        self._held: tuple[float, VideoFrame] | None = None
        self._still = still if "vision" in modalities and not pictures else None
        self._stills = 0

    def items(self) -> Iterator[_Item]:
        from av import AudioFrame

        for packet in self._container.demux(self._streams):
            for frame in self._decoded(packet):
                if isinstance(frame, AudioFrame):
                    yield from self._hear(frame)
                else:
                    yield from self._see(frame)
        yield from self._pieces(self._resampler.finish())
        yield from self._release()

    def _decoded(self, packet: "Packet[Stream]") -> "list[AudioFrame | VideoFrame]":
        from av import AudioFrame, VideoFrame
        from av.error import InvalidDataError

        try:
            frames = packet.decode()
        except InvalidDataError:
            self.damaged += 1
            return []
        kinds = (AudioFrame, VideoFrame)
        return [f for f in frames if isinstance(f, kinds) and f.pts is not None]

    def _hear(self, frame: "AudioFrame") -> Iterator[_Item]:
        time = self._time(frame)
        if self._next is None:
            self._next = round(time * SAMPLE_RATE)
        elif time - self._next / SAMPLE_RATE > _JUMP:
            yield from self._pieces(self._resampler.finish())
            self._next = max(self._next, round(time * SAMPLE_RATE))
        yield from self._pieces(self._resampler.push_frame(frame))

    def _pieces(self, values: Array) -> Iterator[_Item]:
        for at in range(0, len(values), _PIECE):
            piece, start = values[at : at + _PIECE], self._next or 0
            self._next = start + len(piece)
            self.length = max(self.length, self._next / SAMPLE_RATE)
            begin = start + self._start * _PIECE
            yield _Block((begin + len(piece)) / SAMPLE_RATE, begin, piece)
            yield from self._show_still()

    def _see(self, frame: "VideoFrame") -> Iterator[_Item]:
        time = self._time(frame)
        if self._held and _tick(time) > _tick(self._held[0]):
            yield from self._release()
        self._held = (time, frame)
        self.length = max(self.length, time)

    def _release(self) -> Iterator[_Item]:
        if self._held:
            (time, frame), self._held = self._held, None
            yield self._picture(_tick(time), time, _rgb(frame))

    def _show_still(self) -> Iterator[_Item]:
        while self._still is not None and self.length >= (self._stills + 1) / VISION_RATE:
            yield self._picture(self._stills, self._stills / VISION_RATE, self._still)
            self._stills += 1

    def _picture(self, tick: int, time: float, image: Image) -> _Picture:
        end = (tick + 1 + self._start) / VISION_RATE
        return _Picture(end, time + self._start / VISION_RATE, image)

    def _time(self, frame: "AudioFrame | VideoFrame") -> float:
        assert frame.pts is not None
        assert frame.time_base is not None
        time = float(frame.pts * frame.time_base)
        if self._zero is None:
            self._zero = time
        return time - self._zero


def in_time_order(items: Iterable[_Item], tracks: int, hold: float) -> Iterator[_Item]:
    """Merge items that rise within each of their tracks.

    Args:
        items: In the order of the container.
        tracks: How many kinds of items there are.
        hold: Seconds by which a track may run ahead before it waits no longer for the others.
    """
    waiting: list[tuple[float, int, _Item]] = []
    newest: dict[type, float] = {}
    arrival = count()
    for item in items:
        heapq.heappush(waiting, (item.end, next(arrival), item))
        newest[type(item)] = item.end
        behind = min(newest.values()) if len(newest) == tracks else -math.inf
        complete = max(behind, max(newest.values()) - hold)
        while waiting and waiting[0][0] <= complete:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


def _is_network(path: str) -> bool:
    return "://" in path


def _opened(path: str) -> "InputContainer":
    import av

    shown = without_user(path)
    try:
        if _is_network(path):
            options = {"protocol_whitelist": _NETWORK_PROTOCOLS}
            return av.open(path, options=options, timeout=(_OPEN_LIMIT, _READ_LIMIT))
        # An absolute path is never taken for a protocol of FFmpeg, such as `concat:`.
        file = str(Path(path).resolve())
        return av.open(file, options={"protocol_whitelist": _FILE_PROTOCOLS})
    except av.FFmpegError as error:
        remedy = "check the address" if _is_network(path) else "check the path and the file"
        raise SourceError(f"source {shown} cannot be read ({error.strerror}): {remedy}") from error


def _picture_of(path: str) -> Image:
    import av

    with _opened(path) as container:
        try:
            return _rgb(next(container.decode(container.streams.video[0])))
        except (av.FFmpegError, IndexError, StopIteration) as error:
            raise SourceError(f"source {path} holds no picture: name an image file") from error


def _moving(container: "InputContainer") -> "list[VideoStream]":
    from av.stream import Disposition

    return [s for s in container.streams.video if Disposition.attached_pic not in s.disposition]


def _start_of(container: "InputContainer") -> float | None:
    streams = [*container.streams.audio, *_moving(container)]
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in streams
        if stream.start_time is not None and stream.time_base is not None
    ]
    return min(starts, default=None)


def _rgb(frame: "VideoFrame") -> Image:
    """Scale down, convert and turn upright."""
    width = min(frame.width, MAX_WIDTH)
    height = round(frame.height * width / frame.width)
    image = frame.to_ndarray(format="rgb24", width=width, height=height)
    return np.asarray(np.rot90(image, round(frame.rotation / 90)), np.uint8)


def _tick(time: float) -> int:
    return math.floor(time * VISION_RATE + 1e-5)
