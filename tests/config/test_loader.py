import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import BaseModel, ValidationError

from tamulag.models.training.recipe_file import parsed
from tamulag.streamer.config.loader import Config, ConfigError, load
from tamulag.streamer.config.schema import SessionConfig
from tamulag.streamer.config.secret_file import read_secret

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = ("webcam", "kiosk", "call-centre", "replay")


class Setting(NamedTuple):
    description: str
    default: object


class Line(NamedTuple):
    """A `key = value` line of a file, the comment above it, and whether it is an example."""

    key: str
    value: object
    comment: str
    is_example: bool


def settings(table: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """Yield every key that holds a value, dotted."""
    for name, field in table.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, Setting(field.description or "", field.default)


SETTINGS = dict(settings())


def lines(name: str) -> Iterator[Line]:
    table, above = "", ""
    for line in (CONFIGS / f"{name}.toml").read_text().splitlines():
        if header := re.fullmatch(r"\[(.+)\]", line):
            table = header[1]
        elif setting := re.fullmatch(r"(# )?([a-z_]+) = (.+)", line):
            value = tomllib.loads(f"x = {setting[3]}")["x"]
            yield Line(f"{table}.{setting[2]}", value, above, bool(setting[1]))
        above = line.removeprefix("# ")


def problem_of(folder: Path, toml: str, overrides: Mapping[str, object] | None = None) -> str:
    """Return what `load` says of a file, without the folder."""
    path = folder / "x.toml"
    path.write_text(toml)
    with pytest.raises(ConfigError) as caught:
        load(path, overrides or {})
    return str(caught.value).replace(str(path), "x.toml")


def test_nothing_given_means_the_defaults() -> None:
    """A run without a file and without options has a config."""
    assert load(None, {}) == Config()


def test_file_wins_over_defaults(tmp_path: Path) -> None:
    """A key of the file counts, its neighbours keep their defaults."""
    (tmp_path / "x.toml").write_text("[session]\nhop = 1\nmissing_after.audio = 3.0")
    session = load(tmp_path / "x.toml", {}).session
    assert (session.hop, session.window) == (1.0, 5.0)
    assert (session.missing_after.audio, session.missing_after.text) == (3.0, 5.0)


def test_command_line_wins_over_file(tmp_path: Path) -> None:
    """An option replaces the file's key and leaves the rest of the table."""
    (tmp_path / "x.toml").write_text("[camera]\ndevice = 3\nlatency = 0.1")
    camera = load(tmp_path / "x.toml", {"camera.device": "http://localhost/cam"}).camera
    assert (camera.device, camera.latency) == ("http://localhost/cam", 0.1)


def test_command_line_can_unset_a_key_of_the_file(tmp_path: Path) -> None:
    """None takes the file's camera away, so that media can be played instead."""
    (tmp_path / "x.toml").write_text("[camera]\ndevice = 0")
    overrides = {"camera.device": None, "source.path": "a.mp4"}
    assert load(tmp_path / "x.toml", overrides).source.path == "a.mp4"


def test_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that happens to have a key's name changes nothing."""
    monkeypatch.setenv("SESSION", '{"hop": 2.0}')
    monkeypatch.setenv("JSONL", '{"path": "x"}')
    assert load(None, {}) == Config()


def test_config_is_frozen() -> None:
    """No part of the program can change the settings of another."""
    with pytest.raises(ValidationError, match="frozen"):
        load(None, {}).session.hop = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "given", "kept"),
    [
        pytest.param("camera.device", "0", 0, id="digits-are-an-index"),
        pytest.param("camera.device", "/dev/video0", "/dev/video0", id="path"),
        pytest.param("source.speed", 1, "1", id="number-1"),
        pytest.param("session.window", 6, 6.0, id="whole-seconds"),
        pytest.param("session.hop", 0.3, 0.3, id="hop-off-the-binary-grid"),
        pytest.param("websocket.origins", ["http://a"], ("http://a",), id="list"),
        pytest.param("websocket.port", 0, 0, id="free-port"),
    ],
)
def test_value_becomes(key: str, given: object, kept: object) -> None:
    """Several spellings are welcome; the config has one."""
    windows = {"session.window": 6.0} if key == "session.hop" else {}
    table, name = key.split(".")
    assert getattr(getattr(load(None, {**windows, key: given}), table), name) == kept


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        pytest.param(
            '[session]\nhop = "fast"',
            'x.toml: session.hop = "fast": must be a number of seconds from 0.1 to 10',
            id="wrong-type",
        ),
        pytest.param(
            "[websocket]\nport = 70000",
            "x.toml: websocket.port = 70000: must be a whole number from 0 to 65535",
            id="out-of-range",
        ),
        pytest.param(
            "[websocket]\nenabled = 1",
            "x.toml: websocket.enabled = 1: must be true or false",
            id="number-for-a-flag",
        ),
        pytest.param(
            "[session]\nduration = nan",
            "x.toml: session.duration = NaN: must be a number of seconds above 0",
            id="not-a-number",
        ),
        pytest.param(
            "[camera]\ndevice = true",
            "x.toml: camera.device = true: "
            "must be an index from 0, or a device path or URL in quotes",
            id="one-line-for-a-union",
        ),
        pytest.param(
            '[asr]\nengine = "whisper"',
            'x.toml: asr.engine = "whisper": must be "auto", "vosk", "moonshine" or "none"',
            id="unknown-choice",
        ),
        pytest.param(
            '[session]\nsite = "a/b"',
            'x.toml: session.site = "a/b": must be a string without / + # and blanks',
            id="topic-level",
        ),
        pytest.param(
            "[session]\nhopp = 1",
            "x.toml: session.hopp = 1: unknown key: did you mean hop? "
            f"[session] may have {', '.join(SessionConfig.model_fields)}",
            id="unknown-key",
        ),
        pytest.param(
            "[video]\nx = 1",
            'x.toml: video = {"x": 1}: unknown key: '
            f"the file may have {', '.join(Config.model_fields)}",
            id="unknown-table",
        ),
        pytest.param(
            '[session]\nsubject = "agent"\nemployee_scoring_is_lawful = " "',
            'x.toml: session.employee_scoring_is_lawful = " ": must be a sentence in quotes',
            id="no-reason",
        ),
        pytest.param(
            '[session]\nsubject = "agent"',
            'x.toml: session.subject = "agent": must be "customer" or "visitor": '
            "scoring the emotions of people at work is prohibited in the EU (AI Act, "
            "Art. 5(1)(f)); where it is lawful, say why in session.employee_scoring_is_lawful",
            id="employee",
        ),
        pytest.param("asr = 3", "x.toml: asr = 3: must be a table", id="not-a-table"),
        pytest.param(
            "[session]\nhop = 0.25",
            "x.toml: session.hop = 0.25: must be a multiple of 0.1 seconds",
            id="hop-off-the-grid",
        ),
        pytest.param(
            "[session]\nwindow = 5.2",
            "x.toml: session.window = 5.2: must be a multiple of session.hop (0.5)",
            id="window-not-in-hops",
        ),
        pytest.param(
            "[session]\nwindow = 4.0",
            "x.toml: session.missing_after.text = 5.0: must be at most session.window (4.0)",
            id="missing-after-the-window",
        ),
        pytest.param(
            "[session.stale_after]\naudio = 2.5",
            "x.toml: session.stale_after.audio = 2.5: "
            "must be at most session.missing_after.audio (2.0)",
            id="stale-after-missing",
        ),
        pytest.param(
            '[source]\npath = "a.mp4"\n[microphone]\ndevice = "default"',
            'x.toml: source.path = "a.mp4": must be alone, without microphone.device = "default": '
            "remove one of the two",
            id="media-and-microphone",
        ),
        pytest.param(
            '[mqtt]\nurl = "mqtt://me:secret@host"',
            'x.toml: mqtt.url = "mqtt://host": '
            "must be without user name and password: put them into mqtt.user and "
            "mqtt.password_file, or into the variables TAMULAG_MQTT_USERNAME and "
            "TAMULAG_MQTT_PASSWORD",
            id="password-is-not-shown",
        ),
        pytest.param(
            "[session]\nhop =",
            "x.toml: not a TOML file: Invalid value (at end of document)",
            id="malformed",
        ),
    ],
)
def test_problem_is_one_line(tmp_path: Path, toml: str, line: str) -> None:
    """A wrong file is answered with file, key, value and what is allowed."""
    assert problem_of(tmp_path, toml) == line


def test_every_problem_has_its_line(tmp_path: Path) -> None:
    """A file with two faults needs one correction, not two runs."""
    problems = problem_of(tmp_path, "[camera]\nlatency = 9\n[model]\nthreads = 0").splitlines()
    assert [line.split(" = ")[0] for line in problems] == [
        "x.toml: camera.latency",
        "x.toml: model.threads",
    ]


def test_problem_of_an_option_names_the_command_line(tmp_path: Path) -> None:
    """Nobody searches the file for a value that was typed."""
    problem = problem_of(tmp_path, "[model]\nthreads = 2", {"model.threads": 0})
    assert problem == "command line: model.threads = 0: must be a whole number from 1 to 64"


def test_option_does_not_hide_a_wrong_table(tmp_path: Path) -> None:
    """A table that is no table is reported even if an option reaches into it."""
    assert (
        problem_of(tmp_path, "asr = 3", {"asr.engine": "none"})
        == "x.toml: asr = 3: must be a table"
    )


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """A path that is no file is an error, never the defaults."""
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / name, {})


def test_binary_file_is_refused(tmp_path: Path) -> None:
    """A media file given as config says so instead of a traceback."""
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a TOML file"):
        load(tmp_path / "x.toml", {})


@pytest.mark.parametrize(("key", "setting"), SETTINGS.items(), ids=SETTINGS.keys())
def test_description_has_meaning_and_what_is_allowed(key: str, setting: Setting) -> None:
    """Errors take the second half of the description, so there is one."""
    meaning, _, allowed = setting.description.partition(": ")
    assert meaning, key
    assert allowed, key


@pytest.mark.parametrize("name", FILES)
def test_shipped_file_loads(name: str) -> None:
    """Each file in configs/ can be used as it is."""
    load(CONFIGS / f"{name}.toml", {})


def test_each_situation_matches_its_name() -> None:
    """The four files differ where their situations do."""
    webcam, kiosk, call, replay = (load(CONFIGS / f"{name}.toml", {}) for name in FILES)
    assert (webcam.camera.device, webcam.microphone.device) == (0, "default")
    assert kiosk.mqtt.url
    assert (call.camera.device, call.asr.engine) == (None, "auto")
    assert isinstance(call.microphone.device, str)
    assert (replay.source.speed, replay.jsonl.path, replay.websocket.enabled) == ("max", "-", False)


def test_a_sender_without_the_websocket_gets_the_remedy() -> None:
    """In the words of the command line, where both were said."""
    with pytest.raises(ConfigError, match="remove --websocket none or --ingest"):
        load(None, {"ingest.enabled": True, "websocket.enabled": False})


def test_an_employee_is_scored_where_the_reason_is_stated() -> None:
    """The reason is stored in the settings."""
    reason = "fatigue of pilots, a safety reason"
    about = {"session.subject": "agent", "session.employee_scoring_is_lawful": reason}
    assert load(None, about).session.employee_scoring_is_lawful == reason


def test_every_file_is_tested() -> None:
    """No file in configs/ is left out of the tests above."""
    assert {path.stem for path in CONFIGS.glob("*.toml")} == set(FILES)


def test_every_key_appears_in_a_file() -> None:
    """A reader of configs/ has seen every key there is."""
    assert {line.key for name in FILES for line in lines(name)} == set(SETTINGS)


@pytest.mark.parametrize("name", FILES)
def test_comments_equal_the_code(name: str) -> None:
    """Above each key stand its description and its default, word for word."""
    for line in lines(name):
        setting = SETTINGS[line.key]
        default = "unset" if setting.default is None else json.dumps(setting.default)
        assert line.comment == f"{setting.description}. Default: {default}", line.key


@pytest.mark.parametrize("name", FILES)
def test_examples_in_comments_are_accepted(name: str) -> None:
    """A reader who uncomments a line gets no error."""
    for line in lines(name):
        if line.is_example:
            load(None, {line.key: line.value})


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    """Editors of Windows write one: settings, training files and secrets are read all the same."""
    settings, secret = tmp_path / "c.toml", tmp_path / "token"
    settings.write_text("\ufeff[session]\nhop = 1.0\n", encoding="utf-8")
    assert load(settings, {}).session.hop == 1.0
    assert parsed(settings) == {"session": {"hop": 1.0}}
    secret.write_text("\ufeffopen sesame\n", encoding="utf-8")
    secret.chmod(0o600)
    assert read_secret(secret) == "open sesame"


@pytest.mark.parametrize("url", ["mqtt://u%40x:p@127.0.0.1:18831", "mqtts://me:secret@broker"])
def test_a_login_in_the_brokers_address_is_named(url: str) -> None:
    """Where it belongs is told; it is not repeated."""
    with pytest.raises(ConfigError, match=r"mqtt\.url .* without user name and password") as caught:
        load(None, {"mqtt.url": url})
    assert "secret" not in str(caught.value)
    assert "u%40x" not in str(caught.value)


@pytest.mark.parametrize("key", ["source.path", "jsonl.path", "model.checkpoint", "websocket.key"])
def test_a_name_whose_bytes_are_no_text_is_a_path(key: str) -> None:
    """As Python passes it from the command line; no name at all is none."""
    table, field = key.split(".")
    name = os.fsdecode(b"caf\xe9.wav")
    assert getattr(getattr(load(None, {key: name}), table), field) == name
    with pytest.raises(ConfigError, match=key):
        load(None, {key: ""})
