"""The tables of the settings: each key with its type, range, default and meaning.

Knows one table at a time; rules between tables, and the file, are in loader.py. The string below
each field is its pydantic description and reads `meaning: what is allowed`. The part after the
colon appears in error messages, and the files in `configs/` repeat the sentence.
"""

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..core.sample import MODALITIES


def _index(value: object) -> object:
    """Convert a string of digits to a device index: the command line has only strings."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _speed(value: object) -> object:
    """Convert the number 1 to the word "1"."""
    return "1" if value == 1 and not isinstance(value, bool) else value


def _file_name(value: object, check: ValidatorFunctionWrapHandler) -> object:
    """Let a name pass whose bytes are no UTF-8, as Python has it: pydantic knows text alone."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value
    return check(value)


def _is_multiple(value: float, unit: float) -> bool:
    # 1e-6 of a unit is far below a tick, and far above the error of a float division.
    return abs(value / unit - round(value / unit)) < 1e-6


def require(is_met: bool, key: str, value: object, allowed: str) -> None:
    """Refuse a value that contradicts other keys; to be called in a validator."""
    if not is_met:
        about = {"key": key, "value": value, "allowed": allowed}
        raise PydanticCustomError("between_keys", "must be {allowed}", about)


Text = Annotated[str, Field(min_length=1)]
FileName = Annotated[Text, WrapValidator(_file_name)]
Device = Annotated[Annotated[int, Field(ge=0)] | Text | None, BeforeValidator(_index)]
Latency = Annotated[float, Field(ge=-1, le=5)]
AgeLimit = Annotated[float, Field(ge=0.1, le=60)]
Speed = Annotated[Literal["1", "max"], BeforeValidator(_speed)]
TopicLevel = Annotated[str, Field(pattern=r"^[^/+#\s]+$")]
RayAddress = Annotated[str, Field(pattern=r"^(local|\S+:\d+)$")]
BrokerUrl = Annotated[str, Field(pattern=r"^(mqtts?://[^/@\s]+/?|.*@.*)$")]  # `@`: see MqttConfig
Sentence = Annotated[str, Field(pattern=r"\S", max_length=2000)]
Pseudonym = Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]

PROHIBITED = (
    '"customer" or "visitor": scoring the emotions of people at work is prohibited in the EU '
    "(AI Act, Art. 5(1)(f)); where it is lawful, say why in session.employee_scoring_is_lawful"
)


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
    """Age of the newest valid value from which a modality is stale."""

    text: AgeLimit = 3.0
    """Words: a number of seconds from 0.1 to 60"""
    audio: AgeLimit = 0.5
    """Voice: a number of seconds from 0.1 to 60"""
    vision: AgeLimit = 0.3
    """Face: a number of seconds from 0.1 to 60"""


class MissingAfter(Table):
    """Age of the newest valid value from which a modality is missing."""

    text: AgeLimit = 5.0
    """Words: a number of seconds from 0.1 to 60"""
    audio: AgeLimit = 2.0
    """Voice: a number of seconds from 0.1 to 60"""
    vision: AgeLimit = 1.0
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
    wait: bool = False
    """Begin although a device or the broker is away, and join it when it comes: true or false"""
    site: TopicLevel = "site"
    """Place, a level of the MQTT topic: a string without / + # and blanks"""
    device: TopicLevel = "device"
    """Device, a level of the MQTT topic: a string without / + # and blanks"""
    subject: Literal["customer", "agent", "visitor"] = "customer"
    """Whose sentiment is scored: "customer", "visitor", or "agent" where that is lawful"""
    subject_id: Pseudonym | None = None
    """Pseudonym of the subject, never a name: up to 64 letters, digits and . _ -"""
    employee_scoring_is_lawful: Sentence | None = None
    """Why an agent may be scored, for the log: a sentence in quotes"""
    notice: Sentence | None = None
    """Notice to the people who are scored, sent with the status: a text in quotes"""
    privacy: Literal["none", "strict"] = "none"
    """Whether words stay inside: "none", or "strict" (no word is sent or written)"""
    stale_after: StaleAfter = StaleAfter()
    """Age at which a modality is stale: a table with text, audio and vision"""
    missing_after: MissingAfter = MissingAfter()
    """Age at which a modality is missing: a table with text, audio and vision"""

    @model_validator(mode="after")
    def _check_subject(self) -> Self:
        """Refuse to score people at work without a stated legal reason."""
        is_lawful = self.subject != "agent" or self.employee_scoring_is_lawful is not None
        require(is_lawful, "session.subject", self.subject, PROHIBITED)
        return self

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        """Require hops on the grid of vision frames, and age limits within the window."""
        hop, window = self.hop, self.window
        require(_is_multiple(hop, 0.1), "session.hop", hop, "a multiple of 0.1 seconds")
        allowed = f"a multiple of session.hop ({hop})"
        require(_is_multiple(window, hop), "session.window", window, allowed)
        for modality in MODALITIES:
            stale = getattr(self.stale_after, modality)
            missing = getattr(self.missing_after, modality)
            key = f"session.missing_after.{modality}"
            require(missing <= window, key, missing, f"at most session.window ({window})")
            allowed = f"at most {key} ({missing})"
            require(stale <= missing, f"session.stale_after.{modality}", stale, allowed)
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

    path: FileName | None = None
    """Media to play: the path of a file or a URL, in quotes"""
    speed: Speed = "1"
    """Pace: "1" (as recorded) or "max" (as fast as it goes)"""
    loop: bool = False
    """Begin again at the end: true or false"""
    still: FileName | None = None
    """Picture in place of the media's own: the path of an image file, in quotes"""


class AsrConfig(Table):
    """The words."""

    engine: Literal["auto", "vosk", "moonshine", "none"] = "auto"
    """Speech recogniser: "auto", "vosk", "moonshine" or "none\""""
    model: FileName | None = None
    """Model of the vosk engine: the path of a folder, in quotes"""


class ModelConfig(Table):
    """The network that scores."""

    checkpoint: FileName = "default"
    """Trained weights: "default", or the path of a .safetensors file in quotes"""
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    """Threads of one model step: a whole number from 1 to 64"""
    engine: Literal["auto", "torch", "onnxruntime"] = "auto"
    """What computes a step, "auto" = the faster one here: "auto", "torch" or "onnxruntime\""""
    onnx: FileName | None = None
    """What `tamulag export` wrote, for onnxruntime: the path of an .onnx file, in quotes"""

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        """Refuse an engine without its file."""
        has_file = self.engine != "onnxruntime" or self.onnx is not None
        allowed = '"auto" or "torch", or model.onnx must name a file of tamulag export'
        require(has_file, "model.engine", self.engine, allowed)
        return self


class WebSocketConfig(Table):
    """Scores for browsers and programs that connect to us."""

    enabled: bool = True
    """Open the server: true or false"""
    host: Text = "127.0.0.1"
    """Address to listen on, any but loopback needs a lock: such as "127.0.0.1\""""
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    """Port to listen on, 0 = a free one: a whole number from 0 to 65535"""
    queue: Annotated[int, Field(ge=1, le=1000)] = 8
    """Messages queued for a slow subscriber: a whole number from 1 to 1000"""
    heartbeat: Annotated[float, Field(ge=0.1, le=60)] = 5.0
    """Time between two heartbeats: a number of seconds from 0.1 to 60"""
    origins: Annotated[tuple[Text, ...], Strict(False)] = ()
    """Web pages that may connect: a list of origins such as "http://localhost:8000\""""
    token_file: FileName | None = None
    """Secrets that clients must show, with their rights: the path of a file for its owner alone"""
    certificate: FileName | None = None
    """Our certificate with its chain, for TLS: the path of a PEM file, in quotes"""
    key: FileName | None = None
    """Key of our certificate, unset = in the same file: the path of a PEM file, in quotes"""
    client_ca: FileName | None = None
    """Certificates that must have signed a subscriber's own: the path of a PEM file"""
    plain: bool = False
    """Let the token go over a network unencrypted: true or false"""
    max_subscribers: Annotated[int, Field(ge=1, le=10000)] = 1000
    """Subscribers at once: a whole number from 1 to 10000"""
    max_per_address: Annotated[int | None, Field(ge=1, le=10000)] = None
    """Connections of one address, unset = 20, on loopback all: a whole number from 1 to 10000"""
    max_pending: Annotated[int, Field(ge=1, le=10000)] = 256
    """Connections without handshake or token: a whole number from 1 to 10000"""
    max_message: Annotated[int, Field(ge=128, le=1048576)] = 4096
    """Bytes that a subscriber may send at once: a whole number from 128 to 1048576"""
    max_rate: Annotated[int, Field(ge=4, le=1000)] = 20
    """Frames that a subscriber may send in a second: a whole number from 4 to 1000"""


class MqttConfig(Table):
    """Scores for a broker that we connect to."""

    url: BrokerUrl | None = None
    """Broker: an address such as "mqtt://localhost:1883", or mqtts:// for TLS"""
    ca: FileName | None = None
    """Certificates that may sign the broker's, unset = the system's: the path of a PEM file"""
    certificate: FileName | None = None
    """Our own certificate for the broker: the path of a PEM file, in quotes"""
    key: FileName | None = None
    """Key of our certificate: the path of a PEM file, in quotes"""
    user: Text | None = None
    """User name at the broker: a string in quotes"""
    password_file: FileName | None = None
    """Password of that user: the path of a file that only its owner can read"""
    keepalive: Annotated[int, Field(ge=1, le=600)] = 10
    """Silence after which the link is tested: a whole number of seconds from 1 to 600"""
    discovery: bool = False
    """Let Home Assistant find the device: true or false"""
    discovery_prefix: TopicLevel = "homeassistant"
    """First level of Home Assistant's topics: a string without / + # and blanks"""

    @model_validator(mode="after")
    def _check_url(self) -> Self:
        """Refuse a login in the address: process lists and logs would show it."""
        allowed = (
            "without user name and password: put them into mqtt.user and mqtt.password_file, "
            "or into the variables TAMULAG_MQTT_USERNAME and TAMULAG_MQTT_PASSWORD"
        )
        require("@" not in (self.url or ""), "mqtt.url", self.url, allowed)
        return self


class JsonlConfig(Table):
    """Scores as JSON lines."""

    path: FileName | None = None
    """File of JSON lines: a path in quotes, or "-" for standard output"""


class RecordConfig(Table):
    """What went into the session and what came out, on disk; never sound or pictures."""

    path: FileName | None = None
    """Recordings: the path of a folder, in quotes"""
    file_size: Annotated[int, Field(ge=1, le=1000)] = 64
    """Size at which a recording continues in a new file: a whole number of MB from 1 to 1000"""
    total: Annotated[int, Field(ge=1, le=10_000_000)] = 4000
    """Size of all recordings at which the newest ends: a whole number of MB from 1 to 10000000"""


class IngestConfig(Table):
    """Sound and pictures that a page or program sends to the WebSocket port."""

    enabled: bool = False
    """Let one sender in, in place of camera and microphone: true or false"""
    max_message: Annotated[int, Field(ge=4096, le=4194304)] = 262144
    """Bytes of a frame: a whole number from 4096 to 4194304"""
    max_rate: Annotated[int, Field(ge=10, le=1000)] = 100
    """Frames within a second: a whole number from 10 to 1000"""
    max_bandwidth: Annotated[int, Field(ge=10000, le=100000000)] = 2000000
    """Bytes within a second: a whole number from 10000 to 100000000"""
    max_duration: Annotated[float, Field(ge=1, le=86400)] = 14400.0
    """Time after which a sender must connect again: a number of seconds from 1 to 86400"""


class HistoryConfig(Table):
    """What was sent, stored for later; off by default, because it is about people."""

    enabled: bool = False
    """Keep what is sent: true or false"""
    path: FileName | None = None
    """File of the history, unset = the user's own: the path of a file, in quotes"""
    max_age: Annotated[float, Field(gt=0, le=3650)] = 30.0
    """Days until a session is removed: a number of days above 0 and up to 3650"""
    max_size: Annotated[int, Field(ge=1, le=1_000_000)] = 500
    """Size at which the oldest sessions are removed: a whole number of MB from 1 to 1000000"""


class LogConfig(Table):
    """The program's log on standard error."""

    format: Literal["text", "json"] = "text"
    """Form of a line: "text" or "json\""""
    level: Literal["debug", "info", "warning", "error"] = "warning"
    """Lowest level that is logged: "debug", "info", "warning" or "error\""""


class ServeConfig(Table):
    """Many sessions in one server: `tamulag serve`."""

    seats: Annotated[int, Field(ge=1, le=20000)] = 1000
    """Sessions at once: a whole number from 1 to 20000"""
    workers: Annotated[int, Field(ge=0, le=256)] = 1
    """Processes for sound, pictures and words, 0 = features only: a whole number to 256"""
    busiest: Annotated[float, Field(ge=0.05, le=1)] = 0.8
    """Load above which no session is admitted, in cores: a number from 0.05 to 1"""
    linger: Annotated[float, Field(ge=0, le=600)] = 15.0
    """How long a session waits for its sender to come back: a number of seconds from 0 to 600"""
    handover: FileName | None = None
    """Sessions stored for the next server at a restart: the path of a folder, in quotes"""
    ray: RayAddress | None = None
    """Ray that has the sessions: "local" or the address of a cluster such as "127.0.0.1:6379\""""
    min_actors: Annotated[int, Field(ge=1, le=1000)] = 1
    """Actors at least, each with a processor of its own: a whole number from 1 to 1000"""
    max_actors: Annotated[int, Field(ge=1, le=1000)] = 4
    """Actors at most: a whole number from 1 to 1000"""

    @model_validator(mode="after")
    def _check_actors(self) -> Self:
        """Refuse an empty range."""
        allowed = f"serve.max_actors ({self.max_actors}) or less"
        require(self.min_actors <= self.max_actors, "serve.min_actors", self.min_actors, allowed)
        return self
