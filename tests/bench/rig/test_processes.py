"""What is missing is named with its remedy, and every wait ends."""

import socket

import pytest

from tamulag.streamer.bench.rig.processes import (
    BROKER,
    StageError,
    free_port,
    listens,
    missing,
    wait_for,
)


def test_a_missing_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the Debian package that holds it; there is no text where all are there."""
    assert missing(()) is None
    monkeypatch.setenv("PATH", "")
    assert missing(BROKER) == "mosquitto is missing: apt-get install mosquitto"


def test_waiting_has_a_limit() -> None:
    """What does not come is named."""
    with pytest.raises(StageError, match=r"rain not within 0\.1 s"):
        wait_for(lambda: False, 0.1, "rain")


def test_a_listener_is_found_without_a_connection() -> None:
    """A server that takes one client still has it."""
    port = free_port()
    assert not listens(port)
    with socket.create_server(("127.0.0.1", port)):
        assert listens(port)
    assert not listens(port)
