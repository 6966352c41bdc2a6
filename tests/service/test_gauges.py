"""What is lost anywhere is in one sum, and every figure has one plain name."""

import threading
from collections.abc import Collection

import numpy as np
import pytest

from tamulag.models import TamUlag
from tamulag.models.runtime.checkpoint import Card
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.streamer.core.sample import Modality, Sample
from tamulag.streamer.core.session import Session
from tamulag.streamer.core.source import Put
from tamulag.streamer.service.gauges import MAY_WAIT, dropped, gauges, strain
from tamulag.streamer.service.inbox import BOUNDS, Inbox

HEADS = ("sentiment", "text", "audio", "vision")


class Source:
    """A source that has lost something and has figures."""

    name = "source"
    modalities: tuple[Modality, ...] = ("audio", "vision")

    def __init__(self, **figures: float) -> None:
        self._figures = figures

    def losses(self) -> dict[str, int]:
        return {"audio": 3, "asr": 7}

    def gauges(self) -> dict[str, float]:
        return self._figures

    def shed(self, steps: Collection[str]) -> None:
        pass

    def open(self) -> None:
        pass

    def run(self, put: Put, stop: threading.Event) -> None:
        pass


@pytest.fixture
def session(model: TamUlag) -> Session:
    return Session(
        TorchEngine(model), Card(trained=dict.fromkeys(HEADS, True)), ("audio", "vision")
    )


def picture(time: float) -> Sample:
    return Sample("vision", time, np.ones(3, np.float32))


def test_losses_of_all_rooms_are_added(session: Session) -> None:
    """Lost in the source, pushed out of the inbox, too late for the session."""
    inbox = Inbox()
    for _ in range(BOUNDS["vision"] + 2):
        inbox.put(picture(9.0))
    session.push(picture(5.0))
    session.push(picture(0.1))
    assert dropped(inbox, session, [Source()]) == {"text": 0, "audio": 3, "vision": 3, "asr": 7}


def test_figures_of_all_parts_are_gathered(session: Session) -> None:
    """Queues, drops and clocks, each by its name."""
    inbox = Inbox()
    inbox.put(picture(0.0))
    found = gauges(inbox, session, [Source(microphone_offset=0.25)])
    assert found["microphone_offset"] == 0.25
    assert found["inbox_waiting_vision"] == 1
    assert found["inbox_dropped_audio"] == 0
    assert found["late_vision"] == 0
    assert found["hop"] == 0.5


@pytest.mark.parametrize("name", [name for name in MAY_WAIT if name != "inbox_waited"])
def test_strain_is_the_longest_wait_in_units_of_its_bound(name: str) -> None:
    """Each source's queue counts, measured by what may wait in it."""
    waits = dict.fromkeys(MAY_WAIT, 0.0) | {name: 1.5 * MAY_WAIT[name]}
    assert strain(Inbox(), [Source(**waits)], working=0.0) == pytest.approx(1.5)


def test_an_inbox_that_waits_is_strain() -> None:
    """A loop that comes too seldom is too slow."""
    inbox = Inbox()
    inbox.waited = 1.0
    assert strain(inbox, [], working=0.0) == pytest.approx(2.0)
    assert strain(inbox, [], working=1.5) == pytest.approx(3.0)
