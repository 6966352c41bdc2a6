"""Load the settings of one run: a TOML file, overridden by the command line's values.

Knows the rules between tables and the texts of errors. Opens the TOML file and nothing else: it
does not check whether a device, a media file or a broker exists. Reads no environment variables.

The keys are declared in schema.py, table by table.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ..core.errors import TamulagError
from ..core.urls import redacted
from .schema import (
    AsrConfig,
    CameraConfig,
    HistoryConfig,
    IngestConfig,
    JsonlConfig,
    LogConfig,
    MicrophoneConfig,
    ModelConfig,
    MqttConfig,
    RecordConfig,
    ServeConfig,
    SessionConfig,
    SourceConfig,
    Table,
    WebSocketConfig,
    require,
)


class ConfigError(TamulagError):
    """The settings cannot be used; the text has one line for each problem."""


class Config(BaseSettings):
    """All settings of one run; a missing table has its defaults."""

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
    ingest: IngestConfig = IngestConfig()
    """What is sent to us: a table"""
    serve: ServeConfig = ServeConfig()
    """Many sessions: a table"""
    mqtt: MqttConfig = MqttConfig()
    """MQTT client: a table"""
    jsonl: JsonlConfig = JsonlConfig()
    """JSON lines: a table"""
    record: RecordConfig = RecordConfig()
    """Recording: a table"""
    history: HistoryConfig = HistoryConfig()
    """Past sessions: a table"""
    log: LogConfig = LogConfig()
    """Log: a table"""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **environment: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Exclude the environment: only the file and the command line set values."""
        return (init_settings,)

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        """Refuse a media file beside a live device: they would run on two clocks."""
        path = self.source.path
        for key in ("camera", "microphone"):
            device = getattr(self, key).device
            alone = path is None or device in (None, "none")
            allowed = f"alone, without {key}.device = {_toml(device)}: remove one of the two"
            require(alone, "source.path", path, allowed)
        return self

    @model_validator(mode="after")
    def _check_ingest(self) -> Self:
        """Refuse a remote sender beside a device or a file, or without a port."""
        inputs = {
            "camera.device": self.camera.device,
            "microphone.device": self.microphone.device,
            "source.path": self.source.path,
        }
        for key, value in inputs.items():
            alone = not self.ingest.enabled or value in (None, "none")
            allowed = f"alone, without {key} = {_toml(value)}: remove one of the two"
            require(alone, "ingest.enabled", True, allowed)
        is_open = self.websocket.enabled or not self.ingest.enabled
        remedy = "it needs the WebSocket: remove --websocket none or --ingest (add WebSocket)"
        allowed = f"false where websocket.enabled is, {remedy}"
        require(is_open, "ingest.enabled", True, allowed)
        return self


def load(
    path: Path | None, overrides: Mapping[str, object], *, origin: str = "command line"
) -> Config:
    """Read the settings of one run.

    Args:
        path: A TOML file; None: defaults. Relative paths inside it count from the working
            directory, not from the file's folder.
        overrides: Values by dotted key, e.g. `{"camera.device": 0}`; each wins over the file.
        origin: Source of the overrides, for error messages.

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
        # A union reports each of its members; the dictionary reduces them to one line per key.
        problems = dict(_describe(problem) for problem in error.errors())
    origins = dict.fromkeys(overrides, origin)
    lines = (f"{origins.get(key, path or 'defaults')}: {key}{problems[key]}" for key in problems)
    raise ConfigError("\n".join(lines))


def _read(path: Path) -> dict[str, object]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file: give the path of a TOML file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _put(values: dict[str, object], key: str, value: object) -> None:
    """Set a dotted key; a value in place of a table stays as it is and is reported later."""
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
            # Beyond a leaf pydantic names union members and list positions, not keys.
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
    """Return a value in TOML's notation, shortened, without the password of a URL."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = re.sub(r'"((?:[^"\\]|\\.)*)"', lambda part: f'"{redacted(part[1])}"', text)
    return text if len(text) <= 80 else f"{text[:77]}..."
