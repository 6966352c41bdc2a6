"""A camera, by index or URL, as a source of vision samples.

Knows the grid of vision ticks. Knows no features, no session and no camera library.
"""

import logging
import math
import threading
from collections.abc import Collection
from typing import NamedTuple, Protocol

import numpy as np

from ..core.sample import Modality, Sample
from ..core.source import Now, Put, SourceError, SourceLost
from ..core.urls import redacted
from .frame_grabber import FrameGrabber, frame_grabber
from .geometry import MAX_WIDTH, Image

_FIRST_FRAME_LIMIT, _FRAME_LIMIT, _FAILURE_LIMIT = 5.0, 1.5, 1.0
_RETRY = 0.05
_JOIN_LIMIT = 0.5
_MAILBOX_TICKS = 2

logger = logging.getLogger("tamulag.camera")


class VisionExtractor(Protocol):
    """Turns pictures into vision samples."""

    def push(self, image: Image, timestamp: float, /) -> Sample:
        """Describe an RGB picture, shape (H, W, 3), uint8, captured at `timestamp`, which rises."""


class _Frame(NamedTuple):
    timestamp: float
    image: Image  # BGR


class _Mailbox:
    """The newest frame of each tick; when more than two ticks are unread the oldest is dropped."""

    def __init__(self) -> None:
        self.dropped = 0
        self._frames: dict[int, _Frame] = {}
        self._lock = threading.Lock()

    def put(self, tick: int, frame: _Frame) -> None:
        with self._lock:
            self._frames[tick] = frame
            if len(self._frames) > _MAILBOX_TICKS:
                del self._frames[min(self._frames)]
                self.dropped += 1

    def take(self, tick: int) -> _Frame | None:
        """Return the newest frame up to the end of `tick` and drop those before it."""
        with self._lock:
            frames = [self._frames.pop(key) for key in sorted(self._frames) if key <= tick]
            self.dropped += max(len(frames) - 1, 0)
            return frames[-1] if frames else None


class CameraSource:
    """Grab frames without pause and describe the newest one of each tick.

    A separate thread drains the driver, so that no frame is older than its stamp. Frames that a
    slow extractor leaves unused are dropped, never queued.

    Args:
        device: Index, URL or path below /dev of the camera.
        features: Extractor of the vision samples.
        now: The session clock.
        rate: Vision ticks per second.
        latency: Seconds from exposure to grab; subtracted from every stamp.
    """

    modalities: tuple[Modality, ...] = ("vision",)

    def __init__(
        self,
        device: int | str,
        features: VisionExtractor,
        *,
        now: Now,
        rate: float = 10.0,
        latency: float = 0.0,
    ) -> None:
        is_index = isinstance(device, str) and device.isdecimal()
        self._device = int(device) if is_index else device
        self.name = f"camera {redacted(str(device))}"
        self._features = features
        self._now = now
        self._rate = rate
        self._latency = latency
        self._stride = 1
        self._capture: FrameGrabber | None = None
        self._grabber: threading.Thread | None = None
        self._frames = _Mailbox()
        self._newest: float | None = None
        self._failing_since: float | None = None
        self._failure: BaseException | None = None

    @property
    def dropped(self) -> int:
        """Number of ticks whose frame was dropped because the extractor was busy."""
        return self._frames.dropped

    def losses(self) -> dict[str, int]:
        """Return the lost ticks; see `Source`."""
        return {"vision": self.dropped}

    def gauges(self) -> dict[str, float]:
        """Return the age of the newest frame; see `Source`."""
        newest = self._newest
        return {} if newest is None else {"camera_age": self._time() - newest}

    def shed(self, steps: Collection[str]) -> None:
        """Describe every other tick while `vision_rate` is shed; see `Source`."""
        self._stride = 2 if "vision_rate" in steps else 1

    def open(self) -> None:
        """Open the camera; a URL within 5 s.

        Raises:
            SourceError: If there is no such camera, it is in use, or its driver still hangs in an
                earlier grab: so a lost camera leaves at most one thread behind.
        """
        if self._grabber is not None and self._grabber.is_alive():
            raise SourceError(f"{self.name} hangs in its driver: pull it out and plug it in again")
        self._capture = frame_grabber(self._device)

    def run(self, put: Put, stop: threading.Event) -> None:
        """Put one vision sample per tick in which a frame was captured, until `stop` is set.

        Raises:
            SourceLost: If reading fails for 1 s, or no frame comes for 1.5 s.
        """
        ended = threading.Event()
        self._newest = self._failing_since = self._failure = None
        self._grabber = grabber = threading.Thread(
            target=self._grab, args=(ended,), name=f"tamulag.{self.name}", daemon=True
        )
        grabber.start()
        try:
            self._follow(put, stop)
        finally:
            ended.set()
            # A short wait: the loss must be reported. `open` refuses while the thread lives.
            grabber.join(_JOIN_LIMIT)
            if grabber.is_alive():
                logger.warning("%s: its driver does not return; a thread waits for it", self.name)

    def _follow(self, put: Put, stop: threading.Event) -> None:
        started = self._time()
        tick = self._tick(started)
        while not stop.wait(max((tick + 1) / self._rate - self._time(), 0.0)):
            if frame := self._frames.take(tick):
                put(self._features.push(_rgb(frame.image), frame.timestamp))
            self._check(started)
            tick = max(tick + self._stride, self._tick(self._time()))

    def _grab(self, ended: threading.Event) -> None:
        capture, self._capture = self._capture, None
        assert capture is not None, "open() comes before run()"
        try:
            while not ended.is_set():
                if capture.grab():
                    self._retrieve(capture, self._time())
                else:
                    if self._failing_since is None:
                        self._failing_since = self._time()
                    ended.wait(_RETRY)
        except BaseException as error:
            self._failure = error
        finally:
            capture.release()

    def _retrieve(self, capture: FrameGrabber, timestamp: float) -> None:
        # Every frame is retrieved: which one is a tick's last is known only after the next grab.
        is_whole, image = capture.retrieve()
        if is_whole:
            self._frames.put(self._tick(timestamp), _Frame(timestamp, np.asarray(image, np.uint8)))
            self._newest, self._failing_since = timestamp, None

    def _check(self, started: float) -> None:
        if self._failure:
            raise self._failure
        now, newest, failing = self._time(), self._newest, self._failing_since
        if failing is not None and now - failing > _FAILURE_LIMIT:
            raise SourceLost("camera_lost", f"{self.name} gives no more frames")
        since, limit = (started, _FIRST_FRAME_LIMIT) if newest is None else (newest, _FRAME_LIMIT)
        if now - since > limit:
            raise SourceLost("camera_lost", f"{self.name} gave no frame for {limit:g} s")

    def _time(self) -> float:
        return self._now() - self._latency

    def _tick(self, time: float) -> int:
        # The slack of a microsecond is that of `tick_of`.
        return math.floor(time * self._rate + 1e-5)


def _rgb(image: Image) -> Image:
    import cv2

    height, width = image.shape[:2]
    if width > MAX_WIDTH:
        size = (MAX_WIDTH, round(height * MAX_WIDTH / width))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
