"""A microphone, by name or index, as a source of audio samples and phrases.

Knows PortAudio and how to place counted samples on the session clock. Knows no features.
"""

import logging
import queue
import threading
from collections import deque
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from .sample import TICK_RATE, Array, Modality
from .sound import SAMPLE_RATE, Resampler, SoundPath
from .source import Now, Put, SourceError, SourceLost

if TYPE_CHECKING:
    from sounddevice import CallbackFlags, InputStream

TOLERANCE = 0.04
"""Seconds by which the clock may stray before counted samples are placed anew: two ticks."""

_ENVELOPE = 5.0
_BLOCK_RATE = 50
_QUEUE_BLOCKS = 250
_FIRST_BLOCK_LIMIT, _BLOCK_LIMIT, _CHECK = 5.0, 2.0, 0.2
_FLUSH_LIMIT = 1.0

_log = logging.getLogger("tamulag.microphone")


class SampleClock:
    """Say where a stream of counted samples began on the session clock.

    A block cannot arrive before it was recorded, so the least of (arrival - length so far) over
    the last 5 s tells the beginning; single arrivals are late by chance and move nothing.

    Args:
        rate: Samples per second.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._counted = 0
        self._start: float | None = None
        self._starts: deque[tuple[float, float]] = deque()

    def place(self, arrival: float, length: int, *, is_after_gap: bool = False) -> float:
        """Count a block and return the time at which sample 0 was recorded.

        The result stays the same until it is wrong by more than `TOLERANCE`.

        Args:
            arrival: When the block was handed over, seconds.
            length: Its samples.
            is_after_gap: Samples were lost before it; how many is told by its arrival.
        """
        self._counted += length
        start = arrival - self._counted / self._rate
        if is_after_gap and self._start is not None:
            self._start = max(self._start, start)
            self._starts.clear()
        self._starts.append((arrival, start))
        while self._starts[0][0] < arrival - _ENVELOPE:
            self._starts.popleft()
        earliest = min(start for _, start in self._starts)
        if self._start is None or abs(earliest - self._start) > TOLERANCE:
            self._start = earliest
        return self._start


class _Block(NamedTuple):
    arrival: float
    values: Array
    is_after_gap: bool


class MicrophoneSource:
    """Record sound, place it on the session clock by counting samples, and push it on.

    Up to 5 s of blocks wait if the extractor is busy; beyond that new blocks are dropped and
    counted, and the gap shows in the times of what follows.

    Args:
        device: Name (exact, or a part that only one input has), index, or None for the default.
        sound: Takes the blocks; to be threaded if it has a recogniser.
        now: The session clock.
        rate: Hz to open the device at; None: 16 kHz if it takes that, else its own rate.
        latency: Seconds from the sound to its arrival that the clock cannot see; subtracted.

    Attributes:
        dropped: Seconds of sound lost, by the device or here.
    """

    def __init__(
        self,
        device: str | int | None,
        sound: SoundPath,
        *,
        now: Now,
        rate: int | None = None,
        latency: float = 0.0,
    ) -> None:
        self.name = "microphone" if device is None else f"microphone {device}"
        self.modalities: tuple[Modality, ...] = sound.modalities
        self.dropped = 0.0
        self._device = device
        self._sound = sound
        self._now = now
        self._latency = latency
        self._stream: InputStream | None = None
        self._wanted_rate = rate
        self._rate = SAMPLE_RATE
        self._next = 0
        self._is_list_stale = False
        self._begin()

    def _begin(self) -> None:
        self._blocks: queue.Queue[_Block] = queue.Queue(_QUEUE_BLOCKS)
        self._is_after_gap = False
        self._failure: BaseException | None = None
        self._finished = threading.Event()

    def losses(self) -> dict[str, int]:
        """Return the lost ticks; see `Source`."""
        lost = round(self.dropped * TICK_RATE)
        return {"audio": lost, "asr": round(self._sound.dropped * TICK_RATE)}

    def open(self) -> None:
        """Open the microphone at 16 kHz, or at its own rate, and start recording.

        Raises:
            SourceError: If PortAudio is missing, the name fits no or several inputs, or the
                device cannot be opened.
        """
        sounddevice = _portaudio()
        if self._is_list_stale:  # PortAudio lists the devices once, when it starts.
            sounddevice._terminate()
            sounddevice._initialize()
        self._is_list_stale = True
        self._begin()
        try:
            index = _find(sounddevice, self._device)
            self._rate, channels = _form(sounddevice, index, self._wanted_rate)
            self._stream = sounddevice.InputStream(
                samplerate=self._rate,
                blocksize=self._rate // _BLOCK_RATE,
                device=index,
                channels=channels,
                dtype="float32",
                callback=self._take,
                finished_callback=self._finished.set,
            )
            self._stream.start()
        except sounddevice.PortAudioError as error:
            self._close()
            raise SourceError(
                f"{self.name} cannot be opened ({error}): `tamulag devices` lists the inputs"
            ) from error
        self._is_list_stale = False

    def run(self, put: Put, stop: threading.Event) -> None:
        """Put samples and phrases until `stop` is set; sound from before is left out.

        Raises:
            SourceLost: If the stream ends or no block comes for 2 s.
        """
        try:
            self._follow(put, stop)
        except SourceLost:
            self._is_list_stale = True
            raise
        finally:
            self._close()
            self._sound.finish(put, _FLUSH_LIMIT)

    def _follow(self, put: Put, stop: threading.Event) -> None:
        # Session time may have begun since `open`: earlier arrivals are of another time.
        self._blocks = queue.Queue(_QUEUE_BLOCKS)
        clock, resampler = SampleClock(self._rate), Resampler(self._rate)
        counted = 0
        newest, limit = self._now(), _FIRST_BLOCK_LIMIT
        while not stop.is_set():
            try:
                block = self._blocks.get(timeout=_CHECK)
            except queue.Empty:
                self._check(newest, limit)
                continue
            newest, limit = block.arrival, _BLOCK_LIMIT
            began = clock.place(block.arrival, len(block.values), is_after_gap=block.is_after_gap)
            values = resampler.push(block.values)
            self._push(values, round((began - self._latency) * SAMPLE_RATE) + counted, put)
            counted += len(values)

    def _push(self, values: Array, start: int, put: Put) -> None:
        """Push on what lies behind all that was pushed before, so that no time comes twice."""
        overlap = min(max(self._next - start, 0), len(values))
        gap = start - self._next if self._next else 0
        self.dropped += max(gap, overlap) / SAMPLE_RATE
        self._next = max(self._next, start + len(values))
        self._sound.push(values[overlap:], start + overlap, put)

    def _take(self, block: Array, length: int, time: object, status: "CallbackFlags") -> None:
        """Keep one block; runs in PortAudio's thread, where an error would vanish."""
        try:
            self._is_after_gap |= bool(status.input_overflow)
            self._blocks.put_nowait(_Block(self._now(), block.copy(), self._is_after_gap))
            self._is_after_gap = False
        except queue.Full:
            self._is_after_gap = True
        except BaseException as error:
            self._failure = error
            raise

    def _check(self, newest: float, limit: float) -> None:
        if self._failure:
            raise self._failure
        if self._finished.is_set() or not (self._stream and self._stream.active):
            raise SourceLost("microphone_lost", f"{self.name} has stopped")
        if self._now() - newest > limit:
            raise SourceLost("microphone_lost", f"{self.name} gave no sound for {limit:g} s")

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close(ignore_errors=True)


def _portaudio() -> ModuleType:
    try:
        import sounddevice
    except OSError as error:
        raise SourceError(
            "PortAudio is missing: apt install libportaudio2 (macOS and Windows bring it along), "
            "or use --microphone none"
        ) from error
    module: ModuleType = sounddevice
    return module


def _find(sounddevice: ModuleType, device: str | int | None) -> int | None:
    """Return the index of an input, by exact name, part of a name or index."""
    inputs = {
        index: str(found["name"])
        for index, found in enumerate(sounddevice.query_devices())
        if found["max_input_channels"] > 0
    }
    listed = "; ".join(f"{index} {name}" for index, name in inputs.items()) or "none"
    if not inputs:
        raise SourceError("there is no microphone: connect one, or use --microphone none")
    if device is None:
        return None
    text = str(device)
    exact = [index for index, name in inputs.items() if text in (name, str(index))]
    part = [index for index, name in inputs.items() if text.lower() in name.lower()]
    fitting = exact or part
    if len(fitting) == 1 or exact:
        return fitting[0]
    problem = "fits several inputs" if fitting else "is not among the inputs"
    raise SourceError(f"microphone {device!r} {problem}: choose one of {listed}")


def _form(sounddevice: ModuleType, index: int | None, wanted: int | None) -> tuple[int, int]:
    """Return the first rate and channel count that the device accepts, mono before all channels."""
    found = sounddevice.query_devices(index, "input")
    own, all_channels = int(found["default_samplerate"]), int(found["max_input_channels"])
    rates = [wanted] if wanted else [SAMPLE_RATE, own]
    forms = [(rate, channels) for rate in rates for channels in (1, all_channels)]
    for rate, channels in forms[:-1]:
        try:
            sounddevice.check_input_settings(index, channels, "float32", samplerate=rate)
        except sounddevice.PortAudioError as error:
            _log.debug("%s takes no %d Hz, %d channels: %s", found["name"], rate, channels, error)
        else:
            return rate, channels
    return forms[-1]  # If it takes not even this, opening it says so.
