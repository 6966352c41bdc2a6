"""The messages of a remote sender: its hello, then frames of sound, pictures, words or features.

Knows bytes, their validation and the WebSocket close codes for invalid ones. Knows no connection,
no clock and no feature extraction. A frame is 4 bytes of length (big-endian), a JSON header of that
length, and the payload.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from ..core.errors import TamulagError
from ..core.plain_text import plain
from ..core.sample import Array
from .jpeg import BadPicture, picture_size
from .messages import Role, WireModel

BAD_DATA, POLICY, TOO_BIG = 1007, 1008, 1009
"""Close codes of RFC 6455."""

MAX_HEADER = 8192
"""Bytes of a frame's JSON header."""

MAX_SECONDS = 0.5
"""Most sound of one frame, and how long a sender may buffer it before it is late."""

MAX_SIDE = 1920
"""Pixels of a picture's side."""

MAX_ROWS = 64
"""Feature rows or words in one frame."""

MOST_VALUE = 1e6
"""Largest magnitude of a feature; those of a voice or face are below some hundreds."""

Timestamp = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


def _readable(text: str) -> str:
    if not (clean := plain(text).strip()):
        raise ValueError("a word has nothing that can be read")
    return clean


ReadableText = Annotated[str, AfterValidator(_readable)]
"""Without escape sequences and control characters, which leave here."""


class IngestError(TamulagError):
    """A message cannot be used; the connection is closed with `code` and this text.

    Attributes:
        code: WebSocket close code.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason.encode()[:120].decode(errors="ignore"))  # a close frame: 123 bytes
        self.code = code


class SoundForm(WireModel):
    """Encoding of the sound."""

    encoding: Literal["pcm_s16le", "mulaw"] = Field(description="16 bit little-endian, or G.711")
    rate: Literal[8000, 16000, 48000] = Field(description="Hz")
    channels: Literal[1, 2] = 1
    roles: list[Role] = Field([], description="Role on each channel; empty: their mean is used")


class PictureForm(WireModel):
    """Encoding of the pictures."""

    encoding: Literal["jpeg"] = Field(
        description="Baseline or progressive of 32 scans, sides up to 1920"
    )


class SenderHello(WireModel):
    """The first message of a sender, as text."""

    type: Literal["hello"] = "hello"
    v: Literal[1] = 1
    role: Role | None = Field(
        None, description="Role of the person; must be the one that this session scores"
    )
    audio: SoundForm | None = None
    vision: PictureForm | None = None
    words: bool = Field(False, description="Sends recognised words, in place of our recogniser")
    features: list[Literal["audio", "vision"]] = Field([], description="Sent as feature rows")
    clock: Literal["arrival", "sender"] = Field(
        "arrival", description="sender: timestamps are session time; `tamulag serve` alone"
    )
    session: str | None = Field(
        None, pattern=r"^[\w.-]{1,64}$", description="Name of the session; `tamulag serve` alone"
    )
    resume: str | None = Field(
        None,
        max_length=64,
        description="Token of an earlier `ready`: resume that session; `tamulag serve` alone",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse contradictions."""
        if not (self.audio or self.vision or self.words or self.features):
            raise ValueError("nothing is offered: give audio, vision, words or features")
        for name in self.features:
            if getattr(self, name) is not None:
                raise ValueError(f"{name} comes twice: leave it out of features")
        if self.audio and self.audio.roles and len(self.audio.roles) != self.audio.channels:
            raise ValueError("audio.roles must have one role for each channel")
        return self


class SoundHeader(WireModel):
    """Header of sound: the payload is its samples, interleaved for two channels."""

    kind: Literal["audio"] = "audio"
    timestamp: Timestamp = Field(description="Of its first sample, seconds on the sender's clock")
    position: int | None = Field(
        None, ge=0, le=2**53, description="Samples recorded before it, sent or not"
    )


class PictureHeader(WireModel):
    """Header of a picture: the payload is a JPEG file."""

    kind: Literal["image"] = "image"
    timestamp: Timestamp = Field(description="Of its capture, seconds on the sender's clock")


class SentWord(WireModel):
    """A recognised word."""

    text: ReadableText = Field(min_length=1, max_length=64)
    start: Timestamp
    end: Timestamp
    confidence: Share | None = None


class WordsHeader(WireModel):
    """The committed words of an utterance; a later frame with the same number replaces them."""

    kind: Literal["words"] = "words"
    timestamp: Timestamp = Field(description="When they were recognised, on the sender's clock")
    utterance: int = Field(ge=0, le=10**6)
    words: list[SentWord] = Field(max_length=MAX_ROWS)
    final: bool = Field(description="No further frame with this number follows")


class FeaturesHeader(WireModel):
    """Header of feature rows: float32, little-endian; see docs/explanation/features.md."""

    kind: Literal["features"] = "features"
    timestamp: Timestamp = Field(description="Of the first row, on the sender's clock")
    modality: Literal["audio", "vision"] = Field(description="Rows follow each 0.02 s or 0.1 s")
    reason: Literal["silence", "no_sound", "no_face", "no_picture"] | None = Field(
        None, description="Reason for no row: silence, no_face; then the payload is empty"
    )


class EndHeader(WireModel):
    """The end of the stream: flush what is still pending."""

    kind: Literal["end"] = "end"
    timestamp: Timestamp = Field(description="Time of the end, on the sender's clock")


Header = SoundHeader | PictureHeader | WordsHeader | FeaturesHeader | EndHeader

_HEADER: TypeAdapter[Header] = TypeAdapter(Annotated[Header, Field(discriminator="kind")])


@dataclass(frozen=True, slots=True)
class Frame:
    """A checked frame.

    Attributes:
        header: Kind and timestamp.
        sound: Shape (n,) or (n, channels), int16, of a SoundHeader.
        rows: Shape (n, D), float32, of a FeaturesHeader.
        picture: A JPEG file, of a PictureHeader.
    """

    header: Header
    sound: npt.NDArray[np.int16] | None = None
    rows: Array | None = None
    picture: bytes = b""


@dataclass(frozen=True, slots=True)
class PlacedFrame:
    """A frame and its place in the session."""

    frame: Frame
    place: float
    """Session time of its timestamp, seconds."""
    span: tuple[int, int] = (0, 0)
    """Of sound: samples recorded before it, and with it."""


def parse_hello(text: str | bytes, subject: Role) -> SenderHello:
    """Return the hello of a sender.

    Args:
        text: Its first message.
        subject: Role that this session scores.

    Raises:
        IngestError: If it is invalid, or for another role.
    """
    try:
        hello = SenderHello.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise IngestError(BAD_DATA, f"no valid hello: {_first(error)}") from None
    roles = hello.audio.roles if hello.audio else []
    if hello.role not in (None, subject) or (roles and subject not in roles):
        raise IngestError(POLICY, f"this session scores a {subject}: offer its channel")
    return hello


def channel(form: SoundForm, subject: Role) -> int | None:
    """Return the index of the channel to use; None: the mean of all."""
    return form.roles.index(subject) if form.roles else None


def parse_frame(data: bytes, hello: SenderHello, dims: Mapping[str, int]) -> Frame:
    """Return a frame of a sender.

    Args:
        data: A binary message.
        hello: The sender's hello.
        dims: Length of a feature row, for `audio` and `vision`.

    Raises:
        IngestError: If it cannot be read, or was not offered in the hello.
    """
    size = int.from_bytes(data[:4], "big")
    if len(data) < 4 or not 2 <= size <= min(MAX_HEADER, len(data) - 4):
        raise IngestError(BAD_DATA, f"a header of {size} bytes does not fit into {len(data)}")
    try:
        header = _HEADER.validate_json(data[4 : 4 + size], strict=True)
    except ValidationError as error:
        raise IngestError(BAD_DATA, f"no valid header: {_first(error)}") from None
    payload = data[4 + size :]
    if isinstance(header, SoundHeader) and hello.audio:
        return Frame(header, sound=_sound(payload, hello.audio))
    if isinstance(header, PictureHeader) and hello.vision:
        _check_picture(payload)
        return Frame(header, picture=payload)
    if isinstance(header, EndHeader) or (isinstance(header, WordsHeader) and hello.words):
        return Frame(header)
    if isinstance(header, FeaturesHeader) and header.modality in hello.features:
        return Frame(header, rows=_rows(payload, header, dims[header.modality]))
    raise IngestError(POLICY, f"{header.kind} was not offered in the hello")


def build_frame(header: Header, payload: bytes = b"") -> bytes:
    """Return the bytes of a frame, for senders and tests."""
    text = header.model_dump_json(exclude_none=True).encode()
    return len(text).to_bytes(4, "big") + text + payload


def _check_picture(jpeg: bytes) -> None:
    try:
        width, height = picture_size(jpeg)
    except BadPicture as error:
        raise IngestError(BAD_DATA, str(error)) from None
    # Checked before decoding: a small file may expand to gigabytes.
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise IngestError(TOO_BIG, f"an image of {width}x{height}: sides up to {MAX_SIDE}")


def _sound(payload: bytes, form: SoundForm) -> npt.NDArray[np.int16]:
    is_wide = form.encoding == "pcm_s16le"
    if len(payload) % (form.channels * (2 if is_wide else 1)):
        raise IngestError(BAD_DATA, f"{len(payload)} bytes are no whole samples")
    flat = np.frombuffer(payload, "<i2" if is_wide else np.uint8)
    sound = flat.astype(np.int16) if is_wide else _MULAW[flat]
    if len(sound) > MAX_SECONDS * form.rate * form.channels:
        raise IngestError(TOO_BIG, f"more than {MAX_SECONDS} s of sound in one frame")
    return sound if form.channels == 1 else sound.reshape(-1, form.channels)


def _rows(payload: bytes, header: FeaturesHeader, dim: int) -> Array:
    if len(payload) % (4 * dim) or len(payload) > 4 * dim * MAX_ROWS:
        raise IngestError(BAD_DATA, f"{len(payload)} bytes are not 1 to {MAX_ROWS} rows of {dim}")
    rows = np.frombuffer(payload, "<f4").astype(np.float32).reshape(-1, dim)
    # NaN is within no bounds.
    if (len(rows) == 0) != (header.reason is not None) or not (np.abs(rows) <= MOST_VALUE).all():
        raise IngestError(
            BAD_DATA, f"features must be rows within +-{MOST_VALUE:g}, or none and a reason"
        )
    return rows


def _mulaw() -> npt.NDArray[np.int16]:
    """Return the sample of each byte by ITU-T G.711."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    size = (((mantissa << 3) + 132) << exponent) - 132
    return np.where(code & 128, -size, size).astype(np.int16)


_MULAW = _mulaw()


def _first(error: ValidationError) -> str:
    """Return the place of the first problem and what it is; nothing of the sender's values."""
    problem = error.errors(include_input=False, include_url=False)[0]
    # A key chosen by the sender must not add lines to a log.
    place = ".".join(str(part) if _is_plain(part) else "?" for part in problem["loc"])
    # The message of a wrong kind quotes the kind that was sent.
    what = "unknown kind" if "tag" in problem["type"] else problem["msg"]
    return f"{place}: {what}" if place else what


def _is_plain(part: int | str) -> bool:
    return isinstance(part, int) or (part.isidentifier() and len(part) <= 32)
