"""The bench breaks real agents: rows of figures, or a reason."""

import pytest

from support.devices import need
from tamulag.streamer.app.build_agent import demo_files
from tamulag.streamer.bench.faults import ALL, Row, faults
from tamulag.streamer.bench.rig.processes import BROKER

pytestmark = pytest.mark.timeout(300)


@pytest.mark.broker
def test_a_killed_agent_leaves_its_recording_and_its_will() -> None:
    """What was scored can be read, but for the last second."""
    need(BROKER)
    told: list[Row] = []
    (row,) = faults(*demo_files(), told.append, only=["kill -9"])
    assert told == [row]
    assert row.status.startswith("offline; exit -9")
    assert row.lost is not None
    assert row.lost <= 2
    assert row.recovered_s is not None


def test_an_unread_standard_output_is_reported_and_ends_on_sigterm() -> None:
    """The subscribers miss nothing, and the end needs no reader."""
    (row,) = faults(*demo_files(), lambda _: None, only=["reader of stdout never reads"])
    assert row.status == "degraded: jsonl publisher_lost; exit 0 after SIGTERM"
    assert row.lost == 0
    assert row.recovered_s is not None
    assert row.recovered_s <= 3.0


def test_what_cannot_be_tried_is_skipped_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figure, no silence: the row says what to install."""
    monkeypatch.setenv("PATH", "")
    (row,) = faults(*demo_files(), lambda _: None, only=["SIGTERM"])
    assert row[1:4] == (None, None, None)
    assert row.status == "skipped: mosquitto is missing: apt-get install mosquitto"


def test_rows_have_different_names() -> None:
    """`--only` means one of them."""
    assert len(set(ALL)) == len(ALL) == 11
