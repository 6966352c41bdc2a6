"""Orders come out of the pipe as they went in."""

import io
import pickle

import numpy as np
import pytest

from support.senders import BOTH, picture, sound
from tamulag.streamer.protocol.ingest import PlacedFrame, SoundHeader
from tamulag.streamer.service.feature_workers.ipc import (
    HEAD,
    CloseSession,
    OpenSession,
    Order,
    Ping,
    ProcessFrame,
    pack,
    read,
)

ORDERS: list[Order] = [OpenSession(1, BOTH), Ping(), CloseSession(3)]


def test_orders_come_one_after_the_other() -> None:
    """Each unchanged, whatever follows it."""
    file = io.BytesIO(b"".join(map(pack, ORDERS)))
    assert [read(file) for _ in ORDERS] == ORDERS


@pytest.mark.parametrize("fed", [sound(3), picture(3)], ids=["sound", "picture"])
def test_a_frame_keeps_its_content(fed: PlacedFrame) -> None:
    """Header, samples to the bit, picture to the byte."""
    order = read(io.BytesIO(pack(ProcessFrame(7, fed))))
    assert isinstance(order, ProcessFrame)
    assert (order.number, order.placed.place, order.placed.span) == (7, fed.place, fed.span)
    assert (order.placed.frame.header, order.placed.frame.picture) == (
        fed.frame.header,
        fed.frame.picture,
    )
    if isinstance(fed.frame.header, SoundHeader):
        np.testing.assert_array_equal(order.placed.frame.sound, fed.frame.sound)


@pytest.mark.parametrize("cut", [0, 2, HEAD, 30])
def test_a_pipe_that_is_cut_ends(cut: int) -> None:
    """Between two messages and inside one."""
    with pytest.raises((EOFError, pickle.UnpicklingError)):
        read(io.BytesIO(pack(OpenSession(1, BOTH))[:cut]))
