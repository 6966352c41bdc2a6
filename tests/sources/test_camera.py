import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from support.devices import mjpeg_camera
from tamulag.streamer.bench.rig.devices import Camera
from tamulag.streamer.bench.rig.processes import free_port, wait_for
from tamulag.streamer.core.sample import Input, Sample
from tamulag.streamer.core.source import SourceError, SourceLost
from tamulag.streamer.sources import camera as camera_module
from tamulag.streamer.sources.camera import CameraSource
from tamulag.streamer.sources.geometry import Image


class Seeing:
    """Extractor that keeps what it was shown."""

    def __init__(self, work: float = 0.0) -> None:
        self.images: list[Image] = []
        self.work = work

    def push(self, image: Image, timestamp: float, /) -> Sample:
        self.images.append(image)
        time.sleep(self.work)
        return Sample("vision", timestamp, np.ones(1, np.float32))


@pytest.fixture
def camera(data: Path) -> Iterator[Camera]:
    with mjpeg_camera(data / "clips" / "bbaf2n.mpg") as camera:
        yield camera


def filmed(source: CameraSource, seconds: float) -> list[Input]:
    """Run an opened source for some seconds in this thread."""
    items: list[Input] = []
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    source.run(items.append, stop)
    timer.join(5.0)
    return items


def grabbers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("tamulag.camera")]


@pytest.mark.camera
@pytest.mark.data
def test_each_tick_gives_one_frame(camera: Camera) -> None:
    """A camera of 25 frames a second gives ten samples a second, one in each tick."""
    seeing = Seeing()
    source = CameraSource(camera.url, seeing, now=time.monotonic)
    source.open()
    items = filmed(source, 2.0)
    ticks = [int(item.timestamp * 10 + 1e-5) for item in items]
    assert 18 <= len(items) <= 20
    assert len(set(ticks)) == len(ticks)
    assert ticks == sorted(ticks)
    assert seeing.images[0].shape == (288, 360, 3)
    assert not grabbers()


@pytest.mark.camera
@pytest.mark.data
def test_frames_are_red_green_blue(camera: Camera) -> None:
    """The face is more red than blue, so the channels are in RGB order."""
    seeing = Seeing()
    source = CameraSource(camera.url, seeing, now=time.monotonic)
    source.open()
    filmed(source, 0.5)
    red, _, blue = seeing.images[-1][100:200, 140:220].mean((0, 1))
    assert red > blue + 10


@pytest.mark.camera
@pytest.mark.data
def test_a_slow_extractor_gets_the_newest_frame(camera: Camera) -> None:
    """Frames that nobody had time for are dropped and counted; no sample lags further behind."""
    seeing = Seeing(work=0.25)
    source = CameraSource(camera.url, seeing, now=time.monotonic)
    source.open()
    ages: list[float] = []
    stop = threading.Event()
    timer = threading.Timer(2.5, stop.set)
    timer.start()
    source.run(lambda item: ages.append(time.monotonic() - item.timestamp), stop)
    timer.join(5.0)
    assert max(ages) < 0.25 + 0.2 + 0.1
    assert source.dropped >= 5


@pytest.mark.camera
@pytest.mark.data
def test_latency_is_subtracted(camera: Camera) -> None:
    """A known delay of the camera moves every stamp back."""
    source = CameraSource(camera.url, Seeing(), now=time.monotonic, latency=100.0)
    source.open()
    before = time.monotonic()
    items = filmed(source, 0.5)
    assert items
    assert all(-100.0 <= item.timestamp - before < -98.0 for item in items)


@pytest.mark.camera
@pytest.mark.data
def test_an_unplugged_camera_is_lost(camera: Camera) -> None:
    """`run` raises within 3 s of the loss and leaves no thread behind."""
    source = CameraSource(camera.url, Seeing(), now=time.monotonic)
    source.open()
    items: list[Input] = []
    unplugged: list[float] = []

    def unplug() -> None:
        wait_for(lambda: len(items) > 3, 5.0, "frames come")
        camera.unplug()
        unplugged.append(time.monotonic())

    thread = threading.Thread(target=unplug)
    thread.start()
    with pytest.raises(SourceLost, match="no more frames") as caught:
        source.run(items.append, threading.Event())
    thread.join(5.0)
    assert caught.value.reason == "camera_lost"
    assert time.monotonic() - unplugged[0] < 3.0
    assert not grabbers()


@pytest.mark.camera
@pytest.mark.data
def test_a_frozen_camera_is_lost(camera: Camera) -> None:
    """A driver that answers no more is given up within 2.5 s, and its thread ends by itself."""
    source = CameraSource(camera.url, Seeing(), now=time.monotonic)
    source.open()
    camera.freeze()
    frozen = time.monotonic()
    with pytest.raises(SourceLost, match=r"no frame for|no more frames"):
        source.run(lambda item: None, threading.Event())
    assert time.monotonic() - frozen < 2.5
    wait_for(lambda: not grabbers(), 5.0, "the read times out")


@pytest.mark.camera
@pytest.mark.data
def test_a_camera_can_come_back(data: Path) -> None:
    """The same source opens again after a loss."""
    clip, port = data / "clips" / "bbaf2n.mpg", free_port()
    with mjpeg_camera(clip, port) as first:
        source = CameraSource(first.url, Seeing(), now=time.monotonic)
        source.open()
        threading.Timer(0.3, first.unplug).start()
        with pytest.raises(SourceLost):
            source.run(lambda item: None, threading.Event())
    with mjpeg_camera(clip, port):
        source.open()
        assert filmed(source, 0.5)


@pytest.mark.camera
@pytest.mark.data
def test_a_bug_in_the_extractor_ends_the_source(camera: Camera) -> None:
    """An unexpected error leaves `run` as it is, and the camera is released."""

    class Broken:
        def push(self, image: Image, timestamp: float, /) -> Sample:
            raise ZeroDivisionError("extractor bug")

    source = CameraSource(camera.url, Broken(), now=time.monotonic)
    source.open()
    with pytest.raises(ZeroDivisionError):
        source.run(lambda item: None, threading.Event())
    assert not grabbers()


@pytest.mark.parametrize("device", [99, "99"])
def test_a_missing_camera_is_named(device: int | str, capfd: pytest.CaptureFixture[str]) -> None:
    """One line says which camera and how to find the others; OpenCV adds nothing of its own."""
    source = CameraSource(device, Seeing(), now=time.monotonic)
    with pytest.raises(SourceError, match="camera 99 cannot be opened: `tamulag devices`"):
        source.open()
    assert capfd.readouterr().err == ""


def test_an_unreachable_url_is_named_without_its_password() -> None:
    """Secrets of an address stay out of messages."""
    source = CameraSource("http://me:secret@127.0.0.1:9/x", Seeing(), now=time.monotonic)
    with pytest.raises(SourceError, match=r"http://127\.0\.0\.1:9/x") as caught:
        source.open()
    assert "secret" not in str(caught.value)


def test_a_file_is_no_camera() -> None:
    """A path is refused with the option that plays files."""
    with pytest.raises(SourceError, match="--source"):
        CameraSource("clip.mp4", Seeing(), now=time.monotonic).open()


@pytest.mark.camera
@pytest.mark.data
def test_half_the_rate_describes_every_other_tick(camera: Camera) -> None:
    """A relieved camera gives five samples a second, and counts what it leaves out."""
    seeing = Seeing()
    source = CameraSource(camera.url, seeing, now=time.monotonic)
    source.open()
    source.shed(["vision_rate"])
    items = filmed(source, 2.0)
    ticks = [int(item.timestamp * 10 + 1e-5) for item in items]
    assert 8 <= len(items) <= 11
    assert {after - before for before, after in pairwise(ticks)} <= {2, 3}
    assert source.dropped >= 6
    assert source.gauges()["camera_age"] < 1.0


class Hanging:
    """A driver that answers some frames and then never returns from `grab`."""

    def __init__(self, frames: int) -> None:
        self._left = frames
        self.release_now = threading.Event()

    def grab(self) -> bool:
        if not self._left:
            self.release_now.wait(30.0)
            return False
        self._left -= 1
        return not self.release_now.wait(0.04)

    def retrieve(self) -> tuple[bool, Image]:
        return True, np.zeros((48, 64, 3), np.uint8)

    def release(self) -> None:
        pass


def test_a_driver_that_hangs_is_found_and_costs_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lost within 2 s by the age of the frame; not opened again while the driver still hangs."""
    driver = Hanging(frames=10)
    monkeypatch.setattr(camera_module, "frame_grabber", lambda device: driver)
    monkeypatch.setattr(camera_module, "_JOIN_LIMIT", 0.1)
    source = CameraSource(0, Seeing(), now=time.monotonic)
    source.open()
    began = time.monotonic()
    with pytest.raises(SourceLost, match=r"no frame for 1\.5 s"):
        source.run(lambda item: None, threading.Event())
    assert time.monotonic() - began < 0.4 + 1.5 + 0.5
    with pytest.raises(SourceError, match="hangs in its driver"):
        source.open()
    assert len(grabbers()) == 1
    driver.release_now.set()
    wait_for(lambda: not grabbers(), 2.0, "the driver's thread ends")
    source.open()


@pytest.mark.camera
@pytest.mark.data
def test_frames_are_stamped_at_grab(camera: Camera) -> None:
    """A slow extractor does not make a stamp later: it is that of the frame, within its tick."""
    stamps: list[float] = []

    class Slow(Seeing):
        def push(self, image: Image, timestamp: float, /) -> Sample:
            stamps.append(time.monotonic() - timestamp)
            time.sleep(0.15)
            return super().push(image, timestamp)

    source = CameraSource(camera.url, Slow(), now=time.monotonic)
    source.open()
    filmed(source, 2.0)
    assert max(stamps) < 0.3
    assert min(stamps) >= 0.0
