"""A media file or network stream as a source: sound and picture on one clock.

Knows containers and pacing. Knows no features and no session.
"""

import heapq
import logging
import math
import threading
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from ..core.sample import SAMPLE_RATE, TICK_RATE, Modality, Notice
from ..core.source import FAILED, Now, Put, SourceError, SourceLost
from ..core.urls import redacted
from ..features.audio_pipeline import AudioPipeline
from .camera import VisionExtractor
from .containers import is_format_fault, is_network, is_whole_file, moving, opened
from .geometry import Image
from .media_reader import (
    VISION_RATE,
    Item,
    MediaReader,
    TimedPicture,
    in_time_order,
    moment,
    picture_of,
    time_line_of,
)
from .time_line import Track

if TYPE_CHECKING:
    from av.container import InputContainer

_FILE_HOLD, _NETWORK_HOLD = 2.0, 0.2
_WAIT = 0.2
_BEGINNING = 0.5  # seconds into a session in which a source still counts as started with it
_CLOCK_LIMIT = 10.0
_FLUSH_LIMIT, _STOP_LIMIT = 3.0, 1.0

_PICTURE_LATE, _SOUND_LATE = 0.3, 0.6
"""Seconds behind the clock at which a file skips pictures, then sound too: below the 0.8 s after
which a sample is too late for its hop."""

_CAUGHT_UP = 0.1
"""Seconds behind at which skipped sound resumes: few long gaps, not many short ones."""

_JUMPS_REPORTED = 5
"""Jumps of the stamps that are reported one by one."""

_SAME_END = 0.1  # seconds

_SHOWN: dict[Track, str] = {"audio": "sound", "vision": "picture"}

logger = logging.getLogger("tamulag.media")


class MediaSource:
    """Play a file or stream through the same path as camera and microphone.

    Time is the container's. It starts with the session, at both speeds alike; a source opened later
    starts at the next tenth of a second of the session clock. Stamps pass a `TimeLine`: a jump is
    the event `time_jump`. The tracks of a file are read each for itself, however far apart they
    lie; from a pipe one waits for the other for at most 2 s, from a network for 0.2 s.
    At speed `1` a file that falls behind the clock skips pictures, then sound, and counts them;
    otherwise nothing is dropped here.

    Args:
        path: File, or URL of a stream.
        sound: Receives the sound, threaded at speed `1` alone; None: no sound is wanted.
        vision: Extractor of the vision samples; None: no picture is wanted.
        now: The session clock; needed at speed `1` alone.
        speed: `1` in real time, `max` as fast as `put` accepts.
        loop: Start again at the end, as a later part of the same session.
        still: Picture file used as the video where the container has none.

    Attributes:
        modalities: What is wanted and, once it is open, available.
        jumps: Times at which stamps jumped and a new segment began.
    """

    def __init__(
        self,
        path: str,
        *,
        sound: AudioPipeline | None,
        vision: VisionExtractor | None,
        now: Now | None,
        speed: Literal["1", "max"],
        loop: bool = False,
        still: str | None = None,
    ) -> None:
        if speed == "1" and now is None:
            raise ValueError("speed '1' needs the session clock: pass now")
        self.name = f"source {redacted(path)}"
        self._path = path
        self._sound = sound
        self._vision = vision
        self._now = now if speed == "1" else None
        self._loop = loop
        self._still = still
        self._still_image: Image | None = None
        self._containers: list[InputContainer] = []
        self._readers: list[MediaReader] = []
        self._notices: list[Notice] = []
        self.jumps = 0
        self._read: float | None = None  # seconds after which a stream ended before
        self._stride = 1
        self._skipped_pictures = 0
        self._skipped_samples = 0
        self._behind = 0.0
        self._is_skipping = False
        self._is_live = speed == "1" and not is_network(path)
        self._wanted: tuple[Modality, ...] = sound.modalities if sound else ()
        self._wanted += ("vision",) if vision else ()
        self.modalities = self._wanted

    def losses(self) -> dict[str, int]:
        """Return the lost ticks; see `Source`. At speed `max` only what is damaged is lost."""
        skipped = round(self._skipped_samples * TICK_RATE / SAMPLE_RATE)
        losses = {"audio": skipped, "vision": self._skipped_pictures}
        if self._sound and "text" in self._sound.modalities:
            losses["asr"] = skipped + round(self._sound.dropped * TICK_RATE)
        return losses

    def gauges(self) -> dict[str, float]:
        """Return the lag of the media and how much sound is queued; see `Source`."""
        waiting = {"asr_waiting": self._sound.waiting} if self._sound else {}
        return waiting | {"source_behind": self._behind}

    def shed(self, steps: Collection[str]) -> None:
        """Skip every other picture, recognise only finals; see `Source`."""
        self._stride = 2 if "vision_rate" in steps else 1
        if self._sound:
            self._sound.shed(steps)

    def open(self) -> None:
        """Open the file or stream and find its tracks.

        Raises:
            SourceError: If it cannot be read, or has none of the wanted modalities.
        """
        if self._still:
            self._still_image = picture_of(self._still)
        container = opened(self._path)
        has_sound = bool(container.streams.audio)
        has_picture = bool(moving(container)) or (has_sound and self._still is not None)
        self.modalities = tuple(
            modality
            for modality in self._wanted
            if (has_picture if modality == "vision" else has_sound)
        )
        if not self.modalities:
            container.close()
            wanted = " or ".join(self._wanted)
            text = f"{self.name} has no {wanted}: play another file"
            raise SourceError(text, is_permanent=True)
        self._containers.append(container)

    def run(self, put: Put, stop: threading.Event) -> None:
        """Put the content of the media, until its end or until `stop` is set.

        Raises:
            SourceLost: If a network stream breaks off, or there is nothing that can be decoded:
                of a file this is permanent.
        """
        now = 0.0 if self._now is None else self._now()
        # At a session's start the media starts with it, so that both speeds give the same ticks.
        start = 0 if now < _BEGINNING else math.ceil(now * VISION_RATE)
        for modality in self._wanted:
            if modality not in self.modalities:
                reason = "no_picture" if modality == "vision" else "no_sound"
                put(Notice(start / VISION_RATE, modality, reason, self.name))
        try:
            for item in self._items(start):
                self._report(put, start)
                if not self._wait_until(item.end, stop):
                    break
                self._push(item, put)
            self._report(put, start)
        finally:
            self._close()
            if self._sound:
                self._sound.finish(put, _STOP_LIMIT if stop.is_set() else _FLUSH_LIMIT)

    def _items(self, start: int) -> Iterator[Item]:
        """Yield the items of every pass, in order of time; a pass starts at a vision tick."""
        hold = _NETWORK_HOLD if is_network(self._path) else _FILE_HOLD
        tracks = ("audio" in self.modalities) + ("vision" in self.modalities)
        while True:
            end = start / VISION_RATE
            for item in in_time_order(self._one_pass(start), tracks, hold):
                end = item.end
                yield item
            self._close()
            if end == start / VISION_RATE:
                raise self._lost("holds nothing that can be decoded")
            if not self._loop:
                return
            if not is_network(self._path) and not is_whole_file(self._path):
                raise self._lost("is a pipe: it can be played once, without --loop")
            start = math.ceil(end * VISION_RATE - 1e-5)
            self._containers.append(opened(self._path))

    def _one_pass(self, start: int) -> Iterator[Item]:
        assert self._containers, "open() comes before run()"
        length, jumps = self._containers[0].duration, self.jumps
        try:
            yield from heapq.merge(*self._tracks(start), key=moment)
        finally:
            self._count_damage()
        read = max(reader.length for reader in self._readers)
        fault = next((reader.fault for reader in self._readers if reader.fault), None)
        # The length is of the stamps: where these jumped it says nothing.
        is_known = length is not None and self.jumps == jumps
        is_whole = is_known and read >= (length or 0) / 1e6 - 1.0
        if fault and not (is_whole and is_network(self._path)):
            # Without FFmpeg's own text, which quotes the address with its password.
            raise self._lost(f"broke off: {fault.strerror}", is_permanent=is_format_fault(fault))
        if is_network(self._path) and not is_whole:
            self._check_end(read)

    def _check_end(self, read: float) -> None:
        """Raise that a stream was lost, unless it ended at the same place before: a film."""
        before, self._read = self._read, read
        if before is None or abs(read - before) > _SAME_END:
            raise self._lost("ended unexpectedly")
        logger.warning("%s ended at %.1f s again: it is taken for a film", self.name, read)

    def _tracks(self, start: int) -> list[Iterator[Item]]:
        """Return what reads the tracks: of a file each one for itself, so that none waits."""
        first = self._containers[0]
        time = time_line_of(first, lambda *jump: self._note_jump(start, *jump))
        both = [(name,) for name in ("audio", "vision") if name in self.modalities]
        is_split = is_whole_file(self._path) and len(both) == 2 and moving(first)
        parts = both if is_split else [self.modalities]
        self._containers += [opened(self._path) for _ in parts[1:]]
        self._readers = [
            MediaReader(container, part, start, self._still_image, time)
            for container, part in zip(self._containers, parts, strict=True)
        ]
        return [reader.items() for reader in self._readers]

    def _lost(self, fault: str, *, is_permanent: bool = False) -> SourceLost:
        """Return how it is lost: what is wrong with a file will not mend itself."""
        is_permanent |= not is_network(self._path)
        return SourceLost(FAILED if is_permanent else "source_lost", f"{self.name} {fault}")

    def _note_jump(self, start: int, track: Track, time: float, jump: float) -> None:
        self.jumps += 1
        at = time + start / VISION_RATE
        detail = f"the time stamps of the {_SHOWN[track]} jump by {jump:+.1f} s: it goes on at once"
        if self.jumps <= _JUMPS_REPORTED:
            logger.warning("%s, at %.1f s: %s", self.name, at, detail)
            self._notices.append(Notice(at, track, None, detail, "time_jump"))
        elif self.jumps == _JUMPS_REPORTED + 1:
            logger.warning("%s: further jumps are counted, not reported", self.name)

    def _report(self, put: Put, start: int) -> None:
        notices, self._notices = self._notices, []
        for reader in self._readers:
            if remark := reader.sound.remark():
                notices.append(replace(remark, timestamp=remark.timestamp + start / VISION_RATE))
        for notice in notices:
            put(notice)

    def _count_damage(self) -> None:
        damaged = sum(reader.damaged for reader in self._readers)
        if damaged:
            logger.warning("%s: %d damaged packets were left out", self.name, damaged)

    def _wait_until(self, time: float, stop: threading.Event) -> bool:
        """Wait for the session clock; return False once `stop` is set."""
        if self._now is not None and is_network(self._path):
            self._check_clock(time - self._now())
        if self._now is not None:
            self._behind = max(self._now() - time, 0.0)
        while self._now is not None and (ahead := time - self._now()) > 0:
            if stop.wait(min(ahead, _WAIT)):
                return False
        return not stop.is_set()

    def _check_clock(self, ahead: float) -> None:
        # A server that restarts, or falls far behind: reopening it sets its clock.
        if abs(ahead) > _CLOCK_LIMIT:
            raise SourceLost("source_lost", f"the clock of {self.name} is {ahead:+.1f} s off")

    def _push(self, item: Item, put: Put) -> None:
        if self._is_live:
            self._is_skipping = self._behind > (_CAUGHT_UP if self._is_skipping else _SOUND_LATE)
        if isinstance(item, TimedPicture):
            self._push_picture(item, put)
        elif self._is_skipping:
            self._skipped_samples += len(item.values)
        else:
            assert self._sound is not None
            self._sound.push(item.values, item.start, put)

    def _push_picture(self, item: TimedPicture, put: Put) -> None:
        assert self._vision is not None
        is_late = self._is_live and self._behind > _PICTURE_LATE
        if is_late or self._is_skipping or round(item.end * VISION_RATE) % self._stride:
            self._skipped_pictures += 1
        else:
            put(self._vision.push(item.image, item.timestamp))

    def _close(self) -> None:
        containers, self._containers = self._containers, []
        for container in containers:
            container.close()
