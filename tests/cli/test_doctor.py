import ctypes.util
import json
import socket
import sys
from io import StringIO

import pytest
from rich.console import Console

from tamulag.streamer.bench.rig.processes import free_port
from tamulag.streamer.cli.doctor import (
    Check,
    Device,
    Devices,
    devices,
    doctor,
    print_devices,
    print_doctor,
    print_models,
    surroundings,
    to_dict,
)
from tamulag.streamer.config.loader import load
from tamulag.streamer.features.pretrained import inventory

CAMERA = Device("camera", 0, "Integrated [HD]", "640 x 480, 30 Hz")
MICROPHONE = Device("microphone", 3, "USB", "ALSA, 1 channels, 48000 Hz")


@pytest.fixture(scope="module")
def checks() -> dict[str, Check]:
    return {check.name: check for check in doctor()}


def printed(show: object, *content: object) -> str:
    assert callable(show)
    text = StringIO()
    show(Console(file=text, width=80), *content)
    return text.getvalue()


def test_an_installed_machine_is_fit(checks: dict[str, Check]) -> None:
    """On the machine that passes the tests every required part but a port is fine."""
    wrong = {c.name for c in checks.values() if c.required and not c.ok}
    assert not {name for name in wrong if not name.startswith("port")}
    assert checks["torch"].detail.startswith("2.")
    assert checks["voice features run"].detail == "yes, 50 vectors a second"
    assert checks["checkpoint scores"].detail.startswith("yes, ")


def test_what_is_not_ok_has_a_remedy(checks: dict[str, Check]) -> None:
    """Nothing is reported as wrong without saying what to do, except notes that say it."""
    assert all(c.remedy for c in checks.values() if not c.ok and c.name != "devices")


def test_a_machine_without_devices_is_no_failure(checks: dict[str, Check]) -> None:
    """Camera, microphone and broker are optional."""
    assert not any(checks[name].required for name in ("cameras", "microphones", "MQTT broker"))


def test_a_busy_port_is_reported() -> None:
    """A port that another program holds is named, with another one to use."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = surroundings(load(None, {"websocket.port": port}))
    check = {c.name: c for c in found}[f"port {port} is free"]
    assert not check.ok
    assert f"--websocket 127.0.0.1:{port + 1}" in check.remedy


def test_a_broker_that_answers_is_found() -> None:
    """Something that accepts connections on the broker's port is reported."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check = broker_check(f"mqtt://127.0.0.1:{port}")
    assert check.ok


def broker_check(url: str) -> Check:
    return {c.name: c for c in surroundings(load(None, {"mqtt.url": url}))}["MQTT broker"]


def test_a_broker_of_the_settings_is_required() -> None:
    """Where a config names a broker that does not answer, the machine is not fit."""
    port = free_port()
    check = broker_check(f"mqtt://127.0.0.1:{port}")
    assert check.required
    assert not check.ok
    assert str(port) in check.detail
    assert "mosquitto" in check.remedy


def test_a_broker_without_tls_is_reported() -> None:
    """Behind mqtts:// the handshake is tried, not only the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check = broker_check(f"mqtts://127.0.0.1:{port}")  # it says nothing
    assert not check.ok
    assert check.remedy


def test_a_closed_websocket_needs_no_port() -> None:
    """A config without the server has no check of its port."""
    names = [check.name for check in surroundings(load(None, {"websocket.enabled": False}))]
    assert not [name for name in names if name.startswith("port")]


def test_without_portaudio_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing PortAudio is a note that says what to install, never an exception."""
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    found = devices()
    assert found.microphones == ()
    assert "apt install libportaudio2" in found.notes[-1]


def test_devices_are_printed_with_their_options() -> None:
    """Each device stands beside the option that chooses it; brackets in names survive."""
    text = printed(print_devices, Devices((CAMERA,), (MICROPHONE,), ()))
    assert "--camera 0" in text
    assert "Integrated [HD]" in text
    assert "--microphone 3" in text


def test_no_devices_is_stated_in_words() -> None:
    """An empty machine gets two sentences with remedies and the notes, not an empty table."""
    text = printed(print_devices, Devices((), (), ("microphones cannot be looked for",)))
    assert "no camera found: plug one in, or --camera URL" in text
    assert "no microphone found: plug one in, or --microphone none" in text
    assert "microphones cannot be looked for" in text


def test_the_doctor_prints_remedies_of_faults_only() -> None:
    """A remedy is printed where something is wrong and nowhere else."""
    good, bad = Check("torch", True, "2.14", "pip a"), Check("av", False, "not installed", "pip b")
    text = printed(print_doctor, [good, bad])
    assert "pip b" in text
    assert "pip a" not in text


def test_models_are_printed_whole() -> None:
    """Every part's name stands in the table unbroken, at 80 columns."""
    states = inventory()
    text = printed(print_models, states)
    assert all(state.asset.name in text for state in states)


def test_everything_becomes_json(checks: dict[str, Check]) -> None:
    """Checks, devices and models have plain values for --json."""
    entries = [to_dict(check) for check in checks.values()]
    entries += [to_dict(CAMERA), *(to_dict(state) for state in inventory())]
    assert json.loads(json.dumps(entries)) == entries
