"""The settings of one run: a TOML file, and the command line's values over it.

Knows keys, units and ranges, and how to say what is wrong with them. Opens the TOML file and
nothing else: it does not look whether a device, a media file or a broker is there. It reads no
environment variables.

The string below each field is its pydantic description and reads `meaning: what is allowed`. The
part after the colon is what an error says, and the files in `configs/` carry the same sentence.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from .sample import MODALITIES


class ConfigError(ValueError):
    """The settings cannot be used; the text has one line for each problem."""


def _index(value: object) -> object:
    """Read a string of digits as a device index, because the command line has only strings."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _speed(value: object) -> object:
    """Read the number 1 as the word "1"."""
    return "1" if value == 1 and not isinstance(value, bool) else value


def _is_multiple(value: float, unit: float) -> bool:
    # 1e-6 of a unit is far below a tick, and far above what float division gets wrong.
    return abs(value / unit - round(value / unit)) < 1e-6


def _require(is_met: bool, key: str, value: object, allowed: str) -> None:
    if not is_met:
        about = {"key": key, "value": value, "allowed": allowed}
        raise PydanticCustomError("between_keys", "must be {allowed}", about)


Text = Annotated[str, Field(min_length=1)]
Device = Annotated[Annotated[int, Field(ge=0)] | Text | None, BeforeValidator(_index)]
Latency = Annotated[float, Field(ge=-1, le=5)]
Patience = Annotated[float, Field(ge=0.1, le=60)]
Speed = Annotated[Literal["1", "max"], BeforeValidator(_speed)]
TopicLevel = Annotated[str, Field(pattern=r"^[^/+#\s]+$")]
BrokerUrl = Annotated[str, Field(pattern=r"^mqtt://[^/@\s]+/?$")]


class Table(BaseModel):
    """One table of the file: frozen, no key beside the declared ones, no type conversion."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class StaleAfter(Table):
    """Age of the newest valid value at which a modality is called stale."""

    text: Patience = 3.0
    """Words: a number of seconds from 0.1 to 60"""
    audio: Patience = 0.5
    """Voice: a number of seconds from 0.1 to 60"""
    vision: Patience = 0.3
    """Face: a number of seconds from 0.1 to 60"""


class MissingAfter(Table):
    """Age of the newest valid value at which a modality is called missing."""

    text: Patience = 5.0
    """Words: a number of seconds from 0.1 to 60"""
    audio: Patience = 2.0
    """Voice: a number of seconds from 0.1 to 60"""
    vision: Patience = 1.0
    """Face: a number of seconds from 0.1 to 60"""


class SessionConfig(Table):
    """What is scored, how often, and under which name."""

    window: Annotated[float, Field(ge=1, le=60)] = 5.0
    """Length of the sliding window, a multiple of hop: a number of seconds from 1 to 60"""
    hop: Annotated[float, Field(ge=0.1, le=10)] = 0.5
    """Time between two scores, a multiple of 0.1: a number of seconds from 0.1 to 10"""
    lateness: Annotated[float, Field(ge=0, le=2)] = 0.3
    """How long a hop waits for stragglers: a number of seconds from 0 to 2"""
    duration: Annotated[float | None, Field(gt=0)] = None
    """Stop after this much stream time: a number of seconds above 0"""
    site: TopicLevel = "site"
    """Place, a level of the MQTT topic: a string without / + # and blanks"""
    device: TopicLevel = "device"
    """Seat, a level of the MQTT topic: a string without / + # and blanks"""
    stale_after: StaleAfter = StaleAfter()
    """Age at which a modality is stale: a table with text, audio and vision"""
    missing_after: MissingAfter = MissingAfter()
    """Age at which a modality is missing: a table with text, audio and vision"""

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        """Keep hops on the grid of vision frames, and patience within the window."""
        hop, window = self.hop, self.window
        _require(_is_multiple(hop, 0.1), "session.hop", hop, "a multiple of 0.1 seconds")
        allowed = f"a multiple of session.hop ({hop})"
        _require(_is_multiple(window, hop), "session.window", window, allowed)
        for modality in MODALITIES:
            stale = getattr(self.stale_after, modality)
            missing = getattr(self.missing_after, modality)
            key = f"session.missing_after.{modality}"
            _require(missing <= window, key, missing, f"at most session.window ({window})")
            allowed = f"at most {key} ({missing})"
            _require(stale <= missing, f"session.stale_after.{modality}", stale, allowed)
        return self


class CameraConfig(Table):
    """The face, live."""

    device: Device = None
    """Camera: an index from 0, or a device path or URL in quotes"""
    latency: Latency = 0.0
    """Age of a frame when it arrives: a number of seconds from -1 to 5"""


class MicrophoneConfig(Table):
    """The voice, live."""

    device: Device = None
    """Microphone: an index from 0, or a name, "default" or "none" in quotes"""
    latency: Latency = 0.0
    """Age of a block when it arrives: a number of seconds from -1 to 5"""


class SourceConfig(Table):
    """A media file or stream in place of camera and microphone."""

    path: Text | None = None
    """Media to play: the path of a file or a URL, in quotes"""
    speed: Speed = "1"
    """Pace: "1" (as recorded) or "max" (as fast as it goes)"""
    loop: bool = False
    """Begin again at the end: true or false"""
    still: Text | None = None
    """Picture in place of the media's own: the path of an image file, in quotes"""


class AsrConfig(Table):
    """The words."""

    engine: Literal["auto", "vosk", "moonshine", "none"] = "auto"
    """Speech recogniser: "auto", "vosk", "moonshine" or "none\""""
    model: Text | None = None
    """Model of the vosk engine: the path of a folder, in quotes"""


class ModelConfig(Table):
    """The network that scores."""

    checkpoint: Text = "default"
    """Trained weights: "default", or the path of a .safetensors file in quotes"""
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    """Threads of one model step: a whole number from 1 to 64"""


class WebSocketConfig(Table):
    """Scores for browsers and programs that connect to us."""

    enabled: bool = True
    """Open the server: true or false"""
    host: Text = "127.0.0.1"
    """Address to listen on: a loopback address such as "127.0.0.1\""""
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    """Port to listen on, 0 = a free one: a whole number from 0 to 65535"""
    queue: Annotated[int, Field(ge=1, le=1000)] = 8
    """Messages kept for a slow subscriber: a whole number from 1 to 1000"""
    heartbeat: Annotated[float, Field(ge=0.1, le=60)] = 5.0
    """Time between two heartbeats: a number of seconds from 0.1 to 60"""
    origins: Annotated[tuple[Text, ...], Strict(False)] = ()
    """Web pages that may connect: a list of origins such as "http://localhost:8000\""""


class MqttConfig(Table):
    """Scores for a broker that we connect to."""

    url: BrokerUrl | None = None
    """Broker: an address such as "mqtt://localhost:1883\""""
    keepalive: Annotated[int, Field(ge=1, le=600)] = 10
    """Silence after which the link is tested: a whole number of seconds from 1 to 600"""


class JsonlConfig(Table):
    """Scores as JSON lines."""

    path: Text | None = None
    """File of JSON lines: a path in quotes, or "-" for standard output"""


class Config(BaseSettings):
    """All settings of one run; a table that is left out has its defaults."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    session: SessionConfig = SessionConfig()
    """Scoring: a table"""
    camera: CameraConfig = CameraConfig()
    """Live face: a table"""
    microphone: MicrophoneConfig = MicrophoneConfig()
    """Live voice: a table"""
    source: SourceConfig = SourceConfig()
    """Media instead: a table"""
    asr: AsrConfig = AsrConfig()
    """Words: a table"""
    model: ModelConfig = ModelConfig()
    """Network: a table"""
    websocket: WebSocketConfig = WebSocketConfig()
    """WebSocket server: a table"""
    mqtt: MqttConfig = MqttConfig()
    """MQTT client: a table"""
    jsonl: JsonlConfig = JsonlConfig()
    """JSON lines: a table"""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **environment: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave out the environment: what runs is what the file and the command line say."""
        return (init_settings,)

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        """Refuse media beside a live device: they would run on two clocks."""
        path = self.source.path
        for key in ("camera", "microphone"):
            device = getattr(self, key).device
            alone = path is None or device in (None, "none")
            allowed = f"alone, without {key}.device = {_toml(device)}: remove one of the two"
            _require(alone, "source.path", path, allowed)
        return self


def load(path: Path | None, overrides: Mapping[str, object]) -> Config:
    """Read the settings of one run.

    Args:
        path: A TOML file; None: defaults. Relative paths inside it count from the working
            directory, not from the file.
        overrides: Values of the command line by dotted key, e.g. `{"camera.device": 0}`; each
            wins over the file.

    Raises:
        ConfigError: If the file cannot be read, or for an unknown key or a value that is not
            allowed: one line for each, with file, key, value and what is allowed.
    """
    values = {} if path is None else _read(path)
    for key, value in overrides.items():
        _put(values, key, value)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        # A union reports each of its members; the dictionary keeps one line for the key.
        problems = dict(_describe(problem) for problem in error.errors())
    origin = dict.fromkeys(overrides, "command line")
    lines = (f"{origin.get(key, path or 'defaults')}: {key}{problems[key]}" for key in problems)
    raise ConfigError("\n".join(lines))


def _read(path: Path) -> dict[str, object]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file: give the path of a TOML file")
    try:
        return dict(TomlConfigSettingsSource(Config, path).toml_data)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _put(values: dict[str, object], key: str, value: object) -> None:
    """Set a dotted key; a table that is no table stays as it is and is reported later."""
    first, *rest = key.split(".", 1)
    if not rest:
        values[first] = value
        return
    table = values.setdefault(first, {})
    if isinstance(table, dict):
        _put(table, rest[0], value)


def _describe(error: ErrorDetails) -> tuple[str, str]:
    """Return the dotted key, and ` = value: what is allowed`."""
    if error["type"] == "between_keys":
        about = error["ctx"]
        return about["key"], f" = {_toml(about['value'])}: {error['msg']}"
    keys, table, field = _find(error["loc"])
    if field is None:
        problem = _unknown(keys, list(table.model_fields))
    else:
        problem = f"must be {(field.description or '').partition(': ')[2]}"
    return ".".join(keys), f" = {_toml(error['input'])}: {problem}"


def _find(location: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel], FieldInfo | None]:
    """Return the keys of a location, the table of the last one, and its field if there is one."""
    table: type[BaseModel] = Config
    keys: list[str] = []
    field = None
    for part in map(str, location):
        if field is not None:
            # Beyond a leaf pydantic names members of a union and places in a list, no keys.
            if not (isinstance(field.annotation, type) and issubclass(field.annotation, Table)):
                break
            table = field.annotation
        keys.append(part)
        field = table.model_fields.get(part)
    return keys, table, field


def _unknown(keys: list[str], allowed: list[str]) -> str:
    close = difflib.get_close_matches(keys[-1], allowed, n=1)
    guess = f"did you mean {close[0]}? " if close else ""
    place = f"[{'.'.join(keys[:-1])}]" if keys[:-1] else "the file"
    return f"unknown key: {guess}{place} may have {', '.join(allowed)}"


def _toml(value: object) -> str:
    """Return a value as the file would have it, short, without the password of a URL."""
    text = re.sub(r"//[^@\s\"]*@", "//***@", json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 80 else f"{text[:77]}..."
