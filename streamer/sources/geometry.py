"""Show a decoded picture as it is meant: upright, not mirrored, its pixels square.

Knows pictures and their matrices. Knows no container and no time.
"""

import math
import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from av import VideoFrame

Image = npt.NDArray[np.uint8]

MAX_WIDTH = 640
"""Pixels; wider pictures are scaled down before their features are computed."""

_WIDEST = 8
"""A pixel that is wider or higher than this is a damaged header, and counts as square."""


def scaled(
    frame: "VideoFrame",
    form: Literal["rgb24", "bgr24"] = "rgb24",
    *,
    aspect: Fraction | None = None,
) -> Image:
    """Return a frame as uint8 (H, W, 3), upright, at most `MAX_WIDTH` wide before it is turned.

    Args:
        frame: Decoded picture; its matrix says how it is turned and mirrored.
        form: Order of the colours.
        aspect: Width of a pixel by its height; None or absurd: square.
    """
    pixel = aspect if aspect and Fraction(1, _WIDEST) <= aspect <= _WIDEST else Fraction(1)
    shown = frame.width * pixel
    width = max(min(round(shown), MAX_WIDTH), 1)
    height = max(round(frame.height * width / shown), 1)
    # By default each conversion starts a thread per core and ends them.
    image = frame.to_ndarray(format=form, width=width, height=height, threads=1)
    return np.ascontiguousarray(upright(np.asarray(image, np.uint8), _matrix(frame)))


def upright(image: Image, matrix: tuple[float, float, float, float]) -> Image:
    """Turn and mirror a picture.

    Args:
        image: Shape (H, W, 3).
        matrix: a, b, c, d of a display matrix: what is stored at (x, y), with y downwards, is shown
            at (a x + c y, b x + d y). Of eight orientations the nearest is taken.
    """
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.transpose(1, 0, 2), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _matrix(frame: "VideoFrame") -> tuple[float, float, float, float]:
    from av.sidedata.sidedata import Type

    try:
        # The stub of PyAV knows motion vectors alone, by name.
        found = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    except ValueError:
        # PyAV fails at kinds of data that it has no name for, such as the EXIF of a JPEG.
        turn = math.radians(frame.rotation)
        return math.cos(turn), -math.sin(turn), math.sin(turn), math.cos(turn)
    if found is None:
        return 1.0, 0.0, 0.0, 1.0
    a, b, _, c, d = struct.unpack("=5i", bytes(found)[:20])
    return float(a), float(b), float(c), float(d)
