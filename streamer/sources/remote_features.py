"""Turn a remote sender's frames into inputs, by the same path as a local microphone and camera.

Knows checked frames with their session times. Knows no connection, no queue and no thread.
"""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from ..core.sample import SAMPLE_RATE, TICK_RATE, VISION_TICKS, Modality, Phrase, Sample, Word
from ..core.source import Put
from ..features.asr.recogniser import Encode
from ..features.audio_pipeline import AudioPipeline, Resampler
from ..features.picture_limits import limit_pictures
from ..protocol.ingest import FeaturesHeader, Frame, PlacedFrame, SenderHello, WordsHeader, channel
from ..protocol.messages import Role
from .camera import VisionExtractor
from .clock_sync import ClockSync
from .geometry import MAX_WIDTH, Image

_FLUSH_LIMIT = 1.0
"""Seconds granted to the recogniser for its last words."""


class RemoteAudio:
    """Sound, by the same path as a microphone's; or words and feature rows from the sender.

    Args:
        sound: Receives the blocks; threaded.
        subject: Role whose audio channel is used.
        encode: Words -> token states, for words that the sender recognised.
    """

    modalities: tuple[Modality, ...] = ("text", "audio")

    def __init__(self, sound: AudioPipeline, subject: Role, encode: Encode) -> None:
        self._sound = sound
        self._subject: Role = subject
        self._encode = encode
        self._end = 0
        self._gaps = 0.0  # seconds lost with earlier senders
        self._clock_sync = ClockSync(SAMPLE_RATE, settles=False)
        self._newest = 0  # utterance
        self.begin(SenderHello(words=True))

    def begin(self, hello: SenderHello) -> None:
        """Reset for a new sender; see `FramePipeline`."""
        form = hello.audio
        self._rate = form.rate if form else SAMPLE_RATE
        self._channel = channel(form, self._subject) if form else None
        self._gaps += self._clock_sync.dropped
        self._clock_sync = ClockSync(self._rate, settles=False)
        self._resampler = Resampler(self._rate)
        self._expected: int | None = None
        self._before = self._newest

    def push(self, placed: PlacedFrame, put: Put) -> None:
        """Put samples and phrases; see `FramePipeline`."""
        frame, place = placed.frame, placed.place
        if frame.sound is not None and not len(frame.sound):
            return  # no sound is neither a gap nor silence
        if frame.sound is not None:
            self._push_sound(frame.sound, place, placed.span, put)
        elif isinstance(frame.header, WordsHeader):
            put(self._phrase(frame.header, place))
        elif isinstance(frame.header, FeaturesHeader):
            _put_rows(frame, frame.header, place, 1 / TICK_RATE, put)

    def _push_sound(
        self, recorded: npt.NDArray[np.int16], place: float, span: tuple[int, int], put: Put
    ) -> None:
        values = recorded if self._channel is None else recorded[:, self._channel]
        is_torn = self._expected not in (None, span[0])
        if is_torn:
            self._resampler.finish()
        self._expected = span[1]
        arrival = place + (span[1] - span[0]) / self._rate
        sound = self._resampler.push(values)
        start, placed = self._clock_sync.push(sound, span, arrival, is_torn=is_torn)
        overlap = max(self._end - start, -start, 0)
        self._end = max(self._end, start + len(placed))
        if overlap < len(placed):
            self._sound.push(placed[overlap:], start + overlap, put)

    def _phrase(self, header: WordsHeader, place: float) -> Phrase:
        """Return a phrase; its words' times are shifted with the header's timestamp."""
        shift = place - header.timestamp
        values, word_of_token = self._encode([word.text for word in header.words])
        words = tuple(
            Word(word.text, word.start + shift, word.end + shift, word.confidence)
            for word in header.words
        )
        number = self._before + header.utterance + 1  # a new sender counts from 0 again
        self._newest = max(self._newest, number)
        return Phrase(place, number, words, values, word_of_token, header.final)

    def end(self, put: Put) -> None:
        """Flush the recogniser's last words; see `FramePipeline`."""
        self._sound.finish(put, _FLUSH_LIMIT)

    def losses(self) -> dict[str, int]:
        """Return the lost ticks; see `Source`."""
        lost = round((self._gaps + self._clock_sync.dropped) * TICK_RATE)
        return {"audio": lost, "asr": round(self._sound.dropped * TICK_RATE)}

    def gauges(self) -> dict[str, float]:
        """Return how much sound is queued for the recogniser; see `Source`."""
        return {"asr_waiting": self._sound.waiting}

    def shed(self, steps: Collection[str]) -> None:
        """Recognise only finals while `asr_partials` is shed; see `Source`."""
        self._sound.shed(steps)


class RemoteVision:
    """Pictures, described like a camera's, one per vision tick; or feature rows from the sender.

    Args:
        features: Extractor of the vision samples.
    """

    modalities: tuple[Modality, ...] = ("vision",)

    def __init__(self, features: VisionExtractor) -> None:
        self._features = features
        self._tick = -1
        self._stride = 1
        self._undecodable = 0

    def begin(self, hello: SenderHello) -> None:
        """Do nothing: pictures are independent; see `FramePipeline`."""

    def push(self, placed: PlacedFrame, put: Put) -> None:
        """Put one sample per tick; see `FramePipeline`."""
        frame, place = placed.frame, placed.place
        if isinstance(frame.header, FeaturesHeader):
            _put_rows(frame, frame.header, place, VISION_TICKS / TICK_RATE, put)
            return
        tick = int(place * TICK_RATE / VISION_TICKS + 1e-5)
        if place < 0 or tick < self._tick + self._stride:
            return
        image = _decode_jpeg(frame.picture)
        if image is None:
            self._undecodable += 1
            return
        self._tick = tick
        put(self._features.push(image, place))

    def end(self, put: Put) -> None:
        """Do nothing: nothing is buffered; see `FramePipeline`."""

    def losses(self) -> dict[str, int]:
        """Return the pictures that could not be decoded; see `Source`."""
        return {"vision": self._undecodable}

    def gauges(self) -> dict[str, float]:
        """Return nothing: nothing is buffered; see `Source`."""
        return {}

    def shed(self, steps: Collection[str]) -> None:
        """Describe every other tick while `vision_rate` is shed; see `Source`."""
        self._stride = 2 if "vision_rate" in steps else 1


def _put_rows(frame: Frame, header: FeaturesHeader, place: float, step: float, put: Put) -> None:
    """Put the rows of a frame, one each `step` seconds; rows before the session are skipped."""
    if header.reason is not None and place >= 0:
        put(Sample(header.modality, place, None, header.reason))
    for count, row in enumerate(() if frame.rows is None else frame.rows):
        if place + count * step >= 0:
            put(Sample(header.modality, place + count * step, row))


def _decode_jpeg(jpeg: bytes) -> Image | None:
    """Decode a picture to RGB, as small as a camera's; None if the file is damaged."""
    limit_pictures()
    import cv2

    try:
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # larger than allowed, or what else no decoder takes
        return None
    if image is None:
        return None
    height, width = image.shape[:2]
    if width > MAX_WIDTH:
        size = (MAX_WIDTH, max(round(height * MAX_WIDTH / width), 1))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(image, np.uint8)
