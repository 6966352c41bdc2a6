"""Read a media container once: sound in blocks, pictures by tick, on one clock.

Knows containers and their time stamps. Knows no pacing, no features and no session.
"""

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.sample import SAMPLE_RATE, Array, Modality
from ..core.source import SourceError
from ..core.urls import SCHEMES, redacted
from ..features.audio_pipeline import Resampler

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream, Packet, VideoFrame, VideoStream
    from av.container import InputContainer
    from av.stream import Stream

Image = npt.NDArray[np.uint8]

MAX_WIDTH = 640
"""Pixels; wider pictures are scaled down before their features are computed."""

VISION_RATE = 10
"""Hz: the last frame of each tenth of a second is described."""

_PIECE = SAMPLE_RATE // VISION_RATE  # samples; sound is passed on in blocks of a tenth of a second
_JUMP = 0.02  # seconds, one tick; a smaller difference of count and stamp of sound is rounding
_OPEN_LIMIT, _READ_LIMIT = 5.0, 2.0
# A playlist from the network must not read files of this machine, nor a file reach the network.
_FILE_PROTOCOLS = "file,crypto,data"
_NETWORK_PROTOCOLS = ",".join((*SCHEMES, "httpproxy", "tls", "crypto", "data"))
# Lists of further inputs, not media; a whitelist is the only way to exclude them.
_LISTS = {"concat", "dash", "imf", "sdp"}


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
        still: TimedPicture used as the video where the container has none.

    Attributes:
        damaged: Packets that could not be decoded.
        length: Seconds of media decoded so far.
    """

    def __init__(
        self,
        container: "InputContainer",
        modalities: Iterable[Modality],
        start: int,
        still: Image | None,
    ) -> None:
        sounds = container.streams.audio[:1] if "audio" in modalities else ()
        pictures = moving(container)[:1] if "vision" in modalities else ()
        self.damaged = 0
        self.length = 0.0
        self._container = container
        self._streams: list[AudioStream | VideoStream] = [*sounds, *pictures]
        self._zero = _start_of(container)
        self._start = start  # in vision ticks, so that sound and picture match their grids exactly
        self._resampler = Resampler(SAMPLE_RATE)
        self._next: int | None = None
        self._delivered = 0
        self._pending: tuple[float, VideoFrame] | None = None
        self._still = still if "vision" in modalities and not pictures else None
        self._stills = 0

    def items(self) -> Iterator[Item]:
        """Yield sound and pictures; each rises in time, the two may be out of step."""
        from av import AudioFrame

        for packet in self._container.demux(self._streams):
            for frame in self._decoded(packet):
                if isinstance(frame, AudioFrame):
                    yield from self._sound_of(frame)
                else:
                    yield from self._picture_of(frame)
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

    def _sound_of(self, frame: "AudioFrame") -> Iterator[Item]:
        time = self._time(frame)
        if self._next is None:
            self._next = round(time * SAMPLE_RATE)
        elif abs(time - self._next / SAMPLE_RATE) > _JUMP:
            yield from self._pieces(self._resampler.finish())
            self._next = round(time * SAMPLE_RATE)
        yield from self._pieces(self._resampler.push_frame(frame))

    def _pieces(self, values: Array) -> Iterator[Item]:
        for at in range(0, len(values), _PIECE):
            piece, start = values[at : at + _PIECE], self._next or 0
            self._next = start + len(piece)
            # Stamps that step back: samples that would be repeated are cut.
            piece = piece[max(self._delivered - start, 0) :]
            if not len(piece):
                continue
            start = max(start, self._delivered)
            self._delivered = self._next
            self.length = max(self.length, self._next / SAMPLE_RATE)
            begin = start + self._start * _PIECE
            yield SoundBlock((begin + len(piece)) / SAMPLE_RATE, begin, piece)
            yield from self._show_still()

    def _picture_of(self, frame: "VideoFrame") -> Iterator[Item]:
        time = self._time(frame)
        if self._pending and _tick(time) > _tick(self._pending[0]):
            yield from self._release()
        self._pending = (time, frame)
        self.length = max(self.length, time)

    def _release(self) -> Iterator[Item]:
        if self._pending:
            (time, frame), self._pending = self._pending, None
            yield self._picture(_tick(time), time, scaled(frame))

    def _show_still(self) -> Iterator[Item]:
        while self._still is not None and self.length >= (self._stills + 1) / VISION_RATE:
            yield self._picture(self._stills, self._stills / VISION_RATE, self._still)
            self._stills += 1

    def _picture(self, tick: int, time: float, image: Image) -> TimedPicture:
        end = (tick + 1 + self._start) / VISION_RATE
        return TimedPicture(end, time + self._start / VISION_RATE, image)

    def _time(self, frame: "AudioFrame | VideoFrame") -> float:
        assert frame.pts is not None
        assert frame.time_base is not None
        time = float(frame.pts * frame.time_base)
        if self._zero is None:
            self._zero = time
        return time - self._zero


def in_time_order(items: Iterable[Item], tracks: int, hold: float) -> Iterator[Item]:
    """Merge items that rise in time within each of their tracks.

    Args:
        items: In the order of the container.
        tracks: Number of kinds of items.
        hold: Seconds by which one track may run ahead before it stops waiting for the others.
    """
    waiting: list[tuple[float, int, Item]] = []
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


def is_network(path: str) -> bool:
    """Return whether a path is a URL."""
    return "://" in path


def opened(path: str) -> "InputContainer":
    """Open a file or stream.

    Raises:
        SourceError: If it cannot be read; the text names the remedy.
    """
    import av

    name = f"source {redacted(path)}"
    if is_network(path):
        return streamed(path, name)
    options = {"format_whitelist": _formats(), "protocol_whitelist": _FILE_PROTOCOLS}
    try:
        # An absolute path is never parsed as a protocol of FFmpeg, such as `concat:`.
        # A playlist whose parts may not be opened is retried for ever without a limit.
        return av.open(str(Path(path).resolve()), options=options, timeout=_OPEN_LIMIT)
    except av.FFmpegError as error:
        reason = error.strerror
    raise SourceError(f"{name} cannot be read ({reason}): check the path and the file")


def streamed(url: str, name: str, options: Mapping[str, str] | None = None) -> "InputContainer":
    """Open a network stream within 5 s; each read waits at most 2 s.

    Args:
        url: Address; it may redirect, but never to a file of this machine.
        name: What is opened, without a password, for messages.
        options: Further FFmpeg options of the format.

    Raises:
        SourceError: If the URL is not of a network stream, or cannot be read.
    """
    import av

    # FFmpeg's other protocols are refused here: some read or join files of this machine.
    if url.partition("://")[0] not in SCHEMES:
        raise SourceError(
            f"{name} cannot be read: give an address of {', '.join(SCHEMES)}, "
            "or play a file by its plain path with --source (MediaFile)"
        )
    limits = {"format_whitelist": _formats(), "protocol_whitelist": _NETWORK_PROTOCOLS}
    try:
        return av.open(
            url, options={**(options or {}), **limits}, timeout=(_OPEN_LIMIT, _READ_LIMIT)
        )
    except av.FFmpegError as error:
        reason = error.strerror
    # Without FFmpeg's own text: it quotes the address, with its password, in a traceback.
    remedy = "check that its server runs and that the address is right"
    raise SourceError(f"{name} cannot be read ({reason}): {remedy}")


def _formats() -> str:
    import av

    return ",".join(sorted(av.formats_available - _LISTS))


def picture_of(path: str) -> Image:
    """Return a picture file as RGB, shape (H, W, 3), uint8.

    Raises:
        SourceError: If it cannot be read or holds no picture.
    """
    import av

    with opened(path) as container:
        try:
            return scaled(next(container.decode(container.streams.video[0])))
        except (av.FFmpegError, IndexError, StopIteration):
            pass
    raise SourceError(f"source {redacted(path)} holds no picture: name an image file")


def moving(container: "InputContainer") -> "list[VideoStream]":
    """Return the video tracks without cover art."""
    from av.stream import Disposition

    return [s for s in container.streams.video if Disposition.attached_pic not in s.disposition]


def _start_of(container: "InputContainer") -> float | None:
    streams = [*container.streams.audio, *moving(container)]
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in streams
        if stream.start_time is not None and stream.time_base is not None
    ]
    return min(starts, default=None)


def scaled(frame: "VideoFrame", form: Literal["rgb24", "bgr24"] = "rgb24") -> Image:
    """Return a frame as uint8 (H, W, 3), upright, at most `MAX_WIDTH` wide before rotation."""
    width = min(frame.width, MAX_WIDTH)
    height = round(frame.height * width / frame.width)
    # By default each conversion starts a thread per core and ends them.
    image = frame.to_ndarray(format=form, width=width, height=height, threads=1)
    return np.asarray(np.rot90(image, round(frame.rotation / 90)), np.uint8)


def _tick(time: float) -> int:
    return math.floor(time * VISION_RATE + 1e-5)
