"""An agent that ends early is reported at once, whatever else still runs."""

import threading
from pathlib import Path

import pytest

from support.devices import need
from tamulag.streamer.bench.rig.agent_process import streaming
from tamulag.streamer.bench.rig.broker import broker
from tamulag.streamer.bench.rig.processes import BROKER, StageError


@pytest.mark.broker
@pytest.mark.timeout(60)
def test_an_early_end_is_reported_with_the_end_of_the_log(tmp_path: Path) -> None:
    """The broker and its subscriber end as well: nothing waits for messages that never come."""
    need(BROKER)
    threads = threading.active_count()
    with (
        broker() as mosquitto,
        mosquitto.subscribed(),
        pytest.raises(StageError, match=r"ended with 1.*nowhere\.mp4"),
        streaming(tmp_path / "log", "--source", "nowhere.mp4", "--asr", "none"),
    ):
        raise AssertionError("it cannot start")
    assert threading.active_count() == threads
