"""Grab frames of a camera: OpenCV for a device, PyAV for an address.

Knows both libraries. Knows no ticks, no threads and no clock.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from ..core.source import SourceError
from ..core.urls import redacted
from .containers import streamed
from .geometry import Image, scaled

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

# Over UDP a lost packet damages the picture; a camera without TCP is still asked for UDP.
_OPTIONS = {"rtsp_flags": "prefer_tcp"}


class FrameGrabber(Protocol):
    """Returns frames one after the other, as OpenCV's capture does."""

    def grab(self) -> bool:
        """Wait for the next frame; return whether there was one."""

    def retrieve(self) -> tuple[bool, object]:
        """Return whether the frame is whole, and the frame: uint8, BGR, shape (H, W, 3)."""

    def release(self) -> None:
        """Release the device or the connection."""


def frame_grabber(device: int | str) -> FrameGrabber:
    """Open a camera; a URL within 5 s.

    Raises:
        SourceError: If there is no such camera or it is in use, or the URL is not of a network
            stream or gives no answer.
    """
    if isinstance(device, str) and "://" in device:
        return _Stream(device)
    if isinstance(device, str) and not device.startswith("/dev/"):
        raise SourceError(
            f"camera '{redacted(device)}' is no index and no URL: "
            "play a file with --source (MediaFile)",
            is_permanent=True,
        )
    return _device(device)


def _device(device: int | str) -> FrameGrabber:
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    kind = cv2.CAP_ANY if isinstance(device, int) else cv2.CAP_V4L2
    capture = cv2.VideoCapture(device, kind)
    if not capture.isOpened():
        capture.release()
        raise SourceError(
            f"camera {device} cannot be opened: `tamulag devices` lists the cameras; "
            "another program may be using it"
        )
    return capture


class _Stream:
    """A network stream, of which the server controls no more than the pictures.

    Not with OpenCV: it would follow a playlist that names files of this machine.
    """

    def __init__(self, url: str) -> None:
        name = f"camera {redacted(url)}"
        self._container: InputContainer = streamed(url, name, _OPTIONS)
        if not self._container.streams.video:
            self._container.close()
            text = f"{name} has no pictures: give the address of its video"
            raise SourceError(text, is_permanent=True)
        self._video = self._container.streams.video[0]
        self._frames = self._decoded()
        self._frame: VideoFrame | None = None

    def grab(self) -> bool:
        import av

        try:
            self._frame = next(self._frames, None)
        except av.error.InvalidDataError:
            # The iterator ended with the damaged packet; the next one may be whole.
            self._frames = self._decoded()
            self._frame = None
        except av.FFmpegError:
            self._frame = None
        return self._frame is not None

    def retrieve(self) -> tuple[bool, Image | None]:
        import av

        frame, self._frame = self._frame, None
        if frame is None:
            return False, None
        try:
            return True, scaled(frame, "bgr24", aspect=self._video.sample_aspect_ratio)
        except av.FFmpegError:  # some forms are decoded, but cannot be converted
            return False, None

    def release(self) -> None:
        self._container.close()

    def _decoded(self) -> "Iterator[VideoFrame]":
        return self._container.decode(self._video)
