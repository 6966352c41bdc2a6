"""A source that is fed by a sender: order, bound, loss and return; and the sender's clock."""

import threading
from collections.abc import Callable, Collection

import pytest

from tamulag.streamer.bench.rig.processes import wait_for
from tamulag.streamer.core.sample import Input, Modality, Notice
from tamulag.streamer.core.source import Put
from tamulag.streamer.protocol.ingest import (
    Frame,
    IngestError,
    PictureHeader,
    PlacedFrame,
    SenderHello,
    SoundForm,
    WordsHeader,
)
from tamulag.streamer.sources.remote import RemoteSource, SenderClock, offered_modalities

LOST = Notice(7.0, "vision", "camera_lost", "nobody sends yet")
HELLO = SenderHello.model_validate({"vision": {"encoding": "jpeg"}})


class Written:
    """Work that writes down what it is given, and can be held up."""

    modalities: tuple[Modality, ...] = ("vision",)

    def __init__(self) -> None:
        self.places: list[float] = []
        self.begun = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def begin(self, hello: SenderHello) -> None:
        self.begun += 1

    def push(self, placed: PlacedFrame, put: Put) -> None:
        assert self.may_go_on.wait(5)
        self.places.append(placed.place)

    def end(self, put: Put) -> None:
        """Hold nothing."""

    def losses(self) -> dict[str, int]:
        return {"vision": 1}

    def gauges(self) -> dict[str, float]:
        return {"asr_waiting": 0.5}

    def shed(self, steps: Collection[str]) -> None:
        """Save nothing."""


def source(work: Written, bound: int = 2) -> RemoteSource:
    return RemoteSource("face", work, now=lambda: 7.0, reason="camera_lost", bound=bound)


def run(chosen: RemoteSource, scenario: Callable[[list[Input]], None]) -> None:
    """Run a source in a thread while the scenario looks on."""
    got: list[Input] = []
    stop = threading.Event()
    thread = threading.Thread(target=chosen.run, args=(got.append, stop))
    thread.start()
    try:
        scenario(got)
    finally:
        stop.set()
        thread.join(5)
    assert not thread.is_alive()


def feed(chosen: RemoteSource, place: float) -> None:
    chosen.feed(PlacedFrame(Frame(PictureHeader(timestamp=place)), place))


def test_frames_come_in_order() -> None:
    """What is fed is worked on, in the thread of the source."""
    work = Written()

    def scenario(got: list[Input]) -> None:
        chosen.begin(HELLO)
        for place in (1.0, 2.0):
            feed(chosen, place)
        wait_for(lambda: work.places == [1.0, 2.0], 5.0, "both are worked on")
        assert work.begun == 1
        assert got[0] == LOST

    chosen = source(work)
    run(chosen, scenario)


def test_the_newest_frames_survive() -> None:
    """Of more than the bound the oldest is dropped, and counted among the losses."""
    chosen = source(Written())
    for place in (1.0, 2.0, 3.0, 4.0):
        feed(chosen, place)
    assert chosen.dropped == 2
    assert chosen.losses() == {"vision": 3}
    assert chosen.gauges()["ingest_vision_waiting"] == 2.0


def test_five_seconds_may_wait() -> None:
    """Beyond them only the newest frame is kept, and the words: they count late too."""
    work = Written()
    chosen = source(work, bound=100)
    said = WordsHeader(timestamp=0.0, utterance=0, words=[], final=True)
    chosen.feed(PlacedFrame(Frame(said), 0.0))
    for tenth in range(60):
        feed(chosen, tenth / 10)
    assert chosen.dropped == 51

    def scenario(got: list[Input]) -> None:
        wait_for(lambda: len(work.places) == 10, 5.0, "all is worked on")
        assert work.places == [0.0, *(tenth / 10 for tenth in range(51, 60))]

    run(chosen, scenario)


def test_the_oldest_wait_can_be_measured() -> None:
    """Since it came, beside what its work can measure: a recogniser's queue."""
    times = iter([3.0, 3.5, 4.0])
    chosen = RemoteSource("face", Written(), now=lambda: next(times), reason="camera_lost", bound=2)
    feed(chosen, 1.0)
    feed(chosen, 1.5)
    assert chosen.gauges() == {
        "asr_waiting": 0.5,
        "ingest_vision_age": 1.0,
        "ingest_vision_waiting": 2.0,
    }


def test_loss_and_return_are_put() -> None:
    """Lost with its reason until the first sender, and from its leaving to the next one."""

    def scenario(got: list[Input]) -> None:
        chosen.begin(HELLO)
        chosen.end("the page was closed")
        chosen.begin(HELLO)
        wait_for(lambda: len(got) == 4, 5.0, "the notices are there")
        back = Notice(7.0, "vision", None, "somebody sends")
        assert got == [
            Notice(7.0, "vision", "camera_lost", "nobody sends yet"),
            back,
            Notice(7.0, "vision", "camera_lost", "the page was closed"),
            back,
        ]

    chosen = source(Written())
    run(chosen, scenario)


def test_what_is_not_offered_stays_lost() -> None:
    """A page without a camera neither brings it back nor loses it again."""

    def scenario(got: list[Input]) -> None:
        chosen.begin(SenderHello(words=True))
        feed(chosen, 1.0)
        chosen.end("gone")
        feed(chosen, 2.0)
        wait_for(lambda: work.places == [1.0, 2.0], 5.0, "all is worked on")
        assert got == [LOST]

    work = Written()
    chosen = source(work)
    run(chosen, scenario)


def test_nobody_may_begin_while_much_waits() -> None:
    """Senders that come and go cannot fill the memory of a source that hangs."""
    chosen = source(Written(), bound=2)
    assert not chosen.is_behind
    for _ in range(3):
        chosen.begin(HELLO)
    assert chosen.is_behind


def test_a_hello_lists_modalities() -> None:
    """A voice that is heard has words too."""
    every: tuple[Modality, ...] = ("text", "audio", "vision")
    heard = SenderHello(audio=SoundForm(encoding="mulaw", rate=8000))
    assert offered_modalities(heard, every) == ("text", "audio")
    assert offered_modalities(SenderHello(features=["vision"]), every) == ("vision",)


def test_late_frames_do_not_move_the_clock() -> None:
    """The least late frame ties the clocks together, whatever the zero of the sender's."""
    times = iter([3.00, 3.60, 4.05])
    clock = SenderClock(lambda: next(times))
    assert clock.place(1000.0) == pytest.approx(3.0)
    assert clock.place(1000.5) == pytest.approx(3.5)
    assert clock.place(1001.0) == pytest.approx(4.0)


def test_a_clock_that_jumps_back_is_refused() -> None:
    """A timestamp far behind the others cannot be placed."""
    clock = SenderClock(lambda: 10.0)
    clock.place(100.0)
    with pytest.raises(IngestError, match=r"timestamp 90\.000 is 10\.0 s late"):
        clock.place(90.0)
