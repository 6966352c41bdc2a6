"""The inputs of PulseAudio or PipeWire by their own names, monitors of playback among them.

PortAudio's ALSA build lists them as one device, `pulse`, that records the default source. Knows
`pactl`, and the variable by which that device is led to another source. Knows no sound.
"""

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

DEVICE = "pulse"
"""PortAudio's name of the device that all of them are recorded through."""

_SOURCE = "PULSE_SOURCE"
_LIMIT = 2.0  # seconds
_lock = threading.Lock()


@dataclass(frozen=True)
class PulseInput:
    """A source of the sound server."""

    name: str
    """E.g. `alsa_output.usb-headset.analog-stereo.monitor`."""
    description: str
    """For people, e.g. `Monitor of Headset`."""
    form: str
    """Sample format, channels and rate."""


def pulse_inputs() -> tuple[PulseInput, ...]:
    """Ask the sound server for its inputs; none where there is no server or no `pactl`."""
    command = ["pactl", "--format=json", "list", "sources"]
    environment = os.environ | {"LC_ALL": "C.UTF-8"}  # else numbers may have decimal commas
    try:
        done = subprocess.run(
            command,
            check=True,
            capture_output=True,
            timeout=_LIMIT,
            stdin=subprocess.DEVNULL,
            env=environment,
        )
        return tuple(_input(found) for found in json.loads(done.stdout))
    except (
        OSError,
        subprocess.SubprocessError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
    ):
        return ()


def matching(inputs: tuple[PulseInput, ...], wanted: str) -> list[PulseInput]:
    """Return the inputs of a name or description: exact ones, else those that contain it."""
    exact = [one for one in inputs if wanted in (one.name, one.description)]
    part = wanted.lower()
    return exact or [one for one in inputs if part in f"{one.name}\n{one.description}".lower()]


@contextmanager
def led_to(source: str | None) -> Iterator[None]:
    """Let the device `pulse` record a source while it is opened; None: the one it would."""
    if source is None:
        yield
        return
    with _lock:
        before = os.environ.get(_SOURCE)
        os.environ[_SOURCE] = source
        try:
            yield
        finally:
            if before is None:
                del os.environ[_SOURCE]
            else:
                os.environ[_SOURCE] = before


def _input(found: Mapping[str, str]) -> PulseInput:
    form = found.get("sample_specification", "")
    return PulseInput(found["name"], found.get("description") or found["name"], form)
