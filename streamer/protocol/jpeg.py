"""The markers of a JPEG file, as its decoder finds them: the size, and how much work it will be.

Knows bytes alone. What the decoder would read in another way than this file does is refused, so
that the size which is checked is the size which is decoded (ISO 10918-1, annex B).
"""

import re

from ..core.errors import TamulagError

MAX_SCANS = 32
"""Scans of a progressive picture: each goes over all of it. Encoders make some ten."""

MAX_SEGMENTS = 512
"""Segments of a file; a camera makes some ten."""

_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_SIZES = (0xC0, 0xC1, 0xC2)
"""Start of a frame: baseline, extended and progressive, of Huffman codes."""

_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
"""Lossless, hierarchical and arithmetic frames, which no camera and no page makes."""

_BARE = (0x01, *range(0xD0, 0xD8), _START)
"""Markers without a length; outside of a scan a decoder skips them or gives up."""

_LINES = 0xDC
"""States the number of lines again, after the first scan."""

_AFTER_SCAN = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
"""The marker that ends a scan's data; the others in it belong to the data."""


class BadPicture(TamulagError):
    """Bytes are no JPEG file that is decoded here."""


def picture_size(jpeg: bytes) -> tuple[int, int]:
    """Return width and height with which a JPEG file is decoded.

    Raises:
        BadPicture: If it is none, has no size or two, or more scans or segments than allowed.
    """
    if jpeg[:2] != bytes((0xFF, _START)):
        raise BadPicture("an image is no JPEG file")
    size: tuple[int, int] | None = None
    place, scans = 2, 0
    for _ in range(MAX_SEGMENTS):
        marker, place = _marker(jpeg, place)
        if marker in (_END, None):
            break
        body = _body(jpeg, place)
        place += 2 + len(body)
        if marker in _SIZES:
            if size is not None:
                raise BadPicture("an image has two starts of a frame")
            size = _size(body)
        elif marker == _SCAN:
            scans += 1
            place = _behind_scan(jpeg, place)
        if scans > MAX_SCANS or (scans and size is None):
            raise BadPicture(f"an image has more than {MAX_SCANS} scans, or one before its size")
    else:
        raise BadPicture(f"an image has more than {MAX_SEGMENTS} segments")
    if size is None or not scans:
        raise BadPicture("an image has no size, or nothing to decode")
    return size


def _marker(jpeg: bytes, place: int) -> tuple[int | None, int]:
    """Return the marker at a place and where it ends; None: the file ends there."""
    if place >= len(jpeg):
        return None, place
    if jpeg[place] != 0xFF:
        raise BadPicture("an image has bytes between its segments")
    while place < len(jpeg) and jpeg[place] == 0xFF:  # any number of fill bytes is allowed
        place += 1
    if place == len(jpeg):
        return None, place
    marker = jpeg[place]
    if marker == 0 or marker in _BARE or marker in _OTHER_FRAMES or marker == _LINES:
        raise BadPicture(f"an image has a marker {marker:#04x} that is not taken")
    return marker, place + 1


def _body(jpeg: bytes, place: int) -> bytes:
    """Return what a segment holds behind its length."""
    length = int.from_bytes(jpeg[place : place + 2], "big")
    if length < 2 or place + length > len(jpeg):
        raise BadPicture("an image has a segment that does not fit into it")
    return jpeg[place + 2 : place + length]


def _size(body: bytes) -> tuple[int, int]:
    if len(body) < 6:
        raise BadPicture("an image has a start of a frame without a size")
    return int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")


def _behind_scan(jpeg: bytes, place: int) -> int:
    """Return where the data of a scan end."""
    found = _AFTER_SCAN.search(jpeg, place)
    return len(jpeg) if found is None else found.start()
