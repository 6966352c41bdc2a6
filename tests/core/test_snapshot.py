"""A session moves from one batch to another and continues as if nothing had happened."""

import pytest

from tamulag.models import TamUlag
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.streamer.core.commands import Close, Push
from tamulag.streamer.core.estimate import Timing
from tamulag.streamer.core.session_batch import BatchFull, SessionBatch
from tamulag.streamer.core.snapshot import SnapshotError, dump, restore

from ..core.test_session_batch import (
    ASKED,
    CARD,
    alone,
    assert_same,
    everything,
    person,
    small_batch,
)


@pytest.mark.parametrize("cut", [1, 90, 130, 180, 236])
def test_goes_on_as_if_nothing_had_happened(model: TamUlag, cut: int) -> None:
    """Wherever it is cut: samples that wait, words that are revised, ages, the window."""
    items = person(1)
    one, other = small_batch(model), small_batch(model, seats=2)
    one.open("x", ASKED)
    for item in items[:cut]:
        one.apply("x", Push(item))
    before = everything(one)["x"]
    restore(other, "y", dump(one, "x", "w"), "w")
    for item in items[cut:]:
        other.apply("y", Push(item))
    other.apply("y", Close())
    assert_same(before + everything(other)["y"], alone(model, items))


def test_turns_that_wait_are_not_left_behind(model: TamUlag) -> None:
    """They would be lost: the batch must step first."""
    place = small_batch(model)
    place.open("x", ASKED)
    for item in person(1)[:100]:
        place.apply("x", Push(item))
    with pytest.raises(ValueError, match="step first"):
        dump(place, "x", "w")


def dumped(model: TamUlag) -> bytes:
    place = small_batch(model)
    place.open("x", ASKED)
    for item in person(1)[:100]:
        place.apply("x", Push(item))
    everything(place)
    return dump(place, "x", "w")


def test_damaged_bytes_are_refused(model: TamUlag) -> None:
    """Wherever they are cut or changed, no session is there afterwards, and no seat is lost."""
    packed, place = dumped(model), small_batch(model, seats=1)
    for broken in (b"", packed[:7], packed[:300], packed[:-1], b"x" + packed[1:]):
        with pytest.raises(SnapshotError):
            restore(place, "y", broken, "w")
    with pytest.raises(SnapshotError):
        restore(place, "y", packed.replace(b"seat.audio.h", b"seat.audio.x"), "w")
    assert (place.free, place.names) == (1, ())


def test_other_weights_are_refused(model: TamUlag) -> None:
    """A state of another checkpoint would be nonsense."""
    with pytest.raises(SnapshotError, match="start a new session"):
        restore(small_batch(model), "y", dumped(model), "v")


def test_another_timing_is_refused(model: TamUlag) -> None:
    """Hops of another length do not go on from these."""
    place = SessionBatch(TorchEngine(model), CARD, Timing(window=2.0, hop=1.0))
    with pytest.raises(SnapshotError, match="start a new session"):
        restore(place, "y", dumped(model), "w")


def test_a_full_hall_takes_nobody_over(model: TamUlag) -> None:
    """As with any other session."""
    place = small_batch(model, seats=1)
    place.open("a", ASKED)
    with pytest.raises(BatchFull):
        restore(place, "y", dumped(model), "w")
