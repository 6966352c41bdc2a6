"""Pictures are shown as their container says: turned, mirrored, with square pixels."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av import VideoFrame

from tamulag.streamer.app.build_agent import demo_files
from tamulag.streamer.features.vision import VisionFeatures
from tamulag.streamer.sources.containers import opened
from tamulag.streamer.sources.geometry import Image, scaled, upright
from tamulag.streamer.sources.media_reader import MediaReader, TimedPicture

ORIENTATIONS = {
    "as it is": (1, 0, 0, 1),
    "a quarter": (0, 1, -1, 0),
    "half": (-1, 0, 0, -1),
    "three quarters": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "mirrored, half": (1, 0, 0, -1),
    "mirrored, a quarter": (0, 1, 1, 0),
    "mirrored, three quarters": (0, -1, -1, 0),
}
"""a, b, c, d of the display matrix."""


def turned(shown: Image, matrix: tuple[int, int, int, int]) -> Image:
    """Return what is stored of a larger picture, by OpenCV."""
    a, b, c, d = matrix
    if not a:
        shown, a, d = np.asarray(cv2.transpose(shown), np.uint8), b, c
    codes = {(1, 1): None, (-1, 1): 1, (1, -1): 0, (-1, -1): -1}
    code = codes[a, d]
    return np.asarray(shown if code is None else cv2.flip(shown, code), np.uint8)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_orientation_is_undone(name: str) -> None:
    """The corners lie where the matrix puts them."""
    shown = np.arange(3 * 4 * 3, dtype=np.uint8).reshape(3, 4, 3)
    matrix = ORIENTATIONS[name]
    np.testing.assert_array_equal(upright(turned(shown, matrix), matrix), shown)


@pytest.mark.parametrize("aspect", [None, Fraction(4, 3), Fraction(8, 9)])
def test_pixels_are_made_square(aspect: Fraction | None) -> None:
    """The shape of what is shown is kept, at most 640 wide."""
    frame = VideoFrame.from_ndarray(np.zeros((576, 720, 3), np.uint8), format="rgb24")
    height, width = scaled(frame, aspect=aspect).shape[:2]
    assert width == 640
    assert width / height == pytest.approx(720 * float(aspect or 1) / 576, rel=0.005)


@pytest.mark.parametrize("aspect", [Fraction(1, 900), Fraction(900, 1), Fraction(0, 1)])
def test_an_absurd_aspect_counts_as_square(aspect: Fraction) -> None:
    """A damaged header makes no picture without height."""
    frame = VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
    assert scaled(frame, aspect=aspect).shape == (64, 64, 3)


def film(path: Path, shown: Image, name: str, pixel: Fraction) -> Path:
    """Write a picture as a film that is stored in an orientation, with pixels of a shape."""
    matrix = ORIENTATIONS[name]
    lying = turned(shown, matrix)
    height, width = lying.shape[:2]
    stored = cv2.resize(lying, (2 * round(width / pixel / 2), height), interpolation=cv2.INTER_AREA)
    a, b, c, d = (part << 16 for part in matrix)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.height, stream.width = stored.shape[:2]
        stream.bit_rate = 4_000_000
        stream.codec_context.sample_aspect_ratio = pixel
        stream.sample_aspect_ratio = pixel
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for _ in range(3):
            frame = VideoFrame.from_ndarray(np.asarray(stored, np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("pixel", [Fraction(1), Fraction(3, 2)], ids=["square", "wide"])
def test_a_face_is_found_and_described_alike_in_every_orientation(
    tmp_path: Path, pixel: Fraction
) -> None:
    """Eight orientations by two shapes of a pixel: the same face, nearly the same values."""
    face = cv2.imread(str(demo_files()[0]))
    assert face is not None
    small = cv2.resize(face, (256, 300), interpolation=cv2.INTER_AREA)
    portrait = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8)
    found = {}
    for name in ORIENTATIONS:
        path = film(tmp_path / f"{name}.mp4", portrait, name, pixel)
        with VisionFeatures(still=True) as vision, opened(str(path)) as container:
            (item, *_) = MediaReader(container, ("vision",), 0, None).items()
            assert isinstance(item, TimedPicture)
            assert item.image.shape == pytest.approx(portrait.shape, abs=3)
            values = vision.push(item.image, 0.0).values
        assert values is not None, f"no face: {name}"
        found[name] = values
    for name, values in found.items():
        apart = float(np.abs(values - found["as it is"]).mean())
        assert apart < 0.05, f"{name}: {apart}"


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1))])
def test_a_jpeg_with_exif_is_turned(
    tmp_path: Path, orientation: int, corner: tuple[int, int]
) -> None:
    """As its camera says; PyAV has no name for that data and fails at it."""
    stored = np.zeros((64, 96, 3), np.uint8)
    stored[:32, :32] = 255
    data = cv2.imencode(".jpg", stored)[1].tobytes()
    tag = struct.pack("<HHHII", 1, 0x112, 3, 1, orientation) + bytes(4)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + tag
    file = tmp_path / "turned.jpg"
    file.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    with av.open(str(file)) as container:
        frame = next(container.decode(video=0))
    shown = scaled(frame, "rgb24")
    assert shown.shape[:2] == ((96, 64) if orientation == 6 else (64, 96))
    assert shown[corner].min() > 200
