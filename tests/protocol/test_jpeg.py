"""The size that is checked is the size that is decoded."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tamulag.streamer.protocol.jpeg import MAX_SCANS, MAX_SEGMENTS, BadPicture, picture_size

PIXELS = np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)


def made(**how: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG", **how)
    return file.getvalue()


BASELINE, PROGRESSIVE = made(), made(progressive=True)
FRAME = BASELINE.index(b"\xff\xc0")
SCAN = PROGRESSIVE.rindex(b"\xff\xda")


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def resized(jpeg: bytes, place: int, side: int) -> bytes:
    return jpeg[: place + 5] + side.to_bytes(2, "big") * 2 + jpeg[place + 9 :]


HUGE = segment(0xC0, bytes.fromhex("08ffdcffdc03011100021101031101"))
HONEST = {
    "baseline": BASELINE,
    "progressive": PROGRESSIVE,
    "restarts": made(restart_marker_blocks=1),
    "comment": made(comment=b"\xff\xc0\x00\x11\x08\xff\xff\xff\xff"),
    "fill bytes": BASELINE[:FRAME] + b"\xff\xff\xff" + BASELINE[FRAME:],
}


@pytest.mark.parametrize("jpeg", HONEST.values(), ids=HONEST)
def test_honest_pictures_have_their_size(jpeg: bytes) -> None:
    """Whatever lies before the start of their frame."""
    assert picture_size(jpeg) == (64, 48)
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape[:2] == (48, 64)


REFUSED = {
    "nothing": b"",
    "no jpeg": b"GIF89a",
    "start alone": b"\xff\xd8",
    "no scan": BASELINE[: BASELINE.index(b"\xff\xda")],
    "two starts of a frame": BASELINE[:FRAME] + HUGE + BASELINE[FRAME:],
    "another frame after the scan": BASELINE[:-2] + HUGE + b"\xff\xd9",
    "a second picture within": BASELINE[:FRAME] + b"\xff\xd8" + BASELINE[FRAME:],
    "a marker without length": BASELINE[:FRAME] + b"\xff\x01" + BASELINE[FRAME:],
    "a restart outside": BASELINE[:FRAME] + b"\xff\xd3" + BASELINE[FRAME:],
    "bytes between": BASELINE[:FRAME] + b"\x00" + BASELINE[FRAME:],
    "lines again": BASELINE[:-2] + segment(0xDC, b"\xff\xff") + b"\xff\xd9",
    "lossless": BASELINE[: FRAME + 1] + b"\xc3" + BASELINE[FRAME + 2 :],
    "arithmetic": BASELINE[: FRAME + 1] + b"\xc9" + BASELINE[FRAME + 2 :],
    "a length of one": BASELINE[:FRAME] + b"\xff\xfe\x00\x01" + BASELINE[FRAME:],
    "a length beyond": BASELINE[:FRAME] + b"\xff\xfe\xff\xff" + BASELINE[FRAME:],
    "thousands of scans": PROGRESSIVE[:-2] + PROGRESSIVE[SCAN:-2] * 9000 + b"\xff\xd9",
    "thousands of segments": BASELINE[:2] + segment(0xFE, b"") * MAX_SEGMENTS + BASELINE[2:],
}


@pytest.mark.parametrize("jpeg", REFUSED.values(), ids=REFUSED)
def test_what_a_decoder_may_read_otherwise_is_refused(jpeg: bytes) -> None:
    """In one line."""
    with pytest.raises(BadPicture, match="an image"):
        picture_size(jpeg)


def test_the_attack_of_the_fill_byte() -> None:
    """A false size in a comment, behind a fill byte before the real start of the frame."""
    small = segment(0xC0, bytes.fromhex("0800300040") + bytes(10))
    hidden = segment(0xFE, small)
    attack = BASELINE[:FRAME] + hidden + b"\xff" + resized(BASELINE, FRAME, 30_000)[FRAME:]
    assert picture_size(attack) == (30_000, 30_000)


def test_as_many_scans_as_allowed() -> None:
    """An encoder makes some ten."""
    scans = PROGRESSIVE.count(b"\xff\xda")
    assert 5 < scans < MAX_SCANS
    more = PROGRESSIVE[SCAN:-2] * (MAX_SCANS - scans)
    assert picture_size(PROGRESSIVE[:-2] + more + b"\xff\xd9") == (64, 48)


@settings(max_examples=400)
@given(
    st.sampled_from([BASELINE, PROGRESSIVE]),
    st.lists(st.tuples(st.integers(0, 700), st.binary(min_size=1, max_size=6)), max_size=4),
    st.integers(0, 5000),
)
def test_a_decoder_finds_the_same_size(
    jpeg: bytes, edits: list[tuple[int, bytes]], kept: int
) -> None:
    """Of a damaged file too, if it decodes it at all."""
    spoilt = bytearray(jpeg)
    for at, piece in edits:
        spoilt[at:at] = piece
    data = bytes(spoilt[: kept + 600])
    try:
        width, height = picture_size(data)
    except BadPicture:
        return
    if width <= 1920 and height <= 1920:
        try:
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            return
        assert decoded is None or sorted(decoded.shape[:2]) == sorted((width, height))
