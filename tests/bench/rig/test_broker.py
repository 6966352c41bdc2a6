"""The broker is a real mosquitto."""

import subprocess

import pytest

from support.devices import need
from tamulag.streamer.bench.rig.broker import broker
from tamulag.streamer.bench.rig.processes import BROKER


@pytest.mark.broker
def test_a_broker_keeps_its_port_over_a_restart() -> None:
    """A client finds it again, and what is retained can be asked for."""
    need(BROKER)
    with broker() as mosquitto:
        mosquitto.kill()
        mosquitto.start()
        send = ["mosquitto_pub", "-p", str(mosquitto.port), "-r", "-t", "tamulag/v1/a/b/status"]
        subprocess.run([*send, "-m", '{"state": "offline"}'], check=True, timeout=10)
        assert mosquitto.retained().strip() == '{"state": "offline"}'
