"""A microphone, by name or index, as a source of audio samples and phrases.

Knows PortAudio and counts its samples. Knows no features; `clock_sync` maps sample counts to the
session clock.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Collection
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from ..core.sample import SAMPLE_RATE, TICK_RATE, Array, Modality
from ..core.source import Now, Put, SourceError, SourceLost
from ..features.audio_pipeline import AudioPipeline, Resampler
from .clock_sync import ClockSync
from .pulse_inputs import DEVICE, led_to, matching, pulse_inputs

if TYPE_CHECKING:
    from sounddevice import CallbackFlags, InputStream

_BLOCK_RATE = 50
_QUEUE_BLOCKS = 250
_FIRST_BLOCK_LIMIT, _BLOCK_LIMIT, _CHECK = 5.0, 1.2, 0.2
_CLOSE_LIMIT = 0.3
_FLUSH_LIMIT = 1.0

logger = logging.getLogger("tamulag.microphone")


class _Block(NamedTuple):
    arrival: float
    span: tuple[int, int]  # samples that the device delivered before it, and with it
    values: Array
    is_after_overflow: bool


class MicrophoneSource:
    """Record sound, place it on the session clock by counting samples, and push it on.

    Up to 5 s of blocks are queued while the extractor is busy. Beyond that the whole queue is
    dropped and counted, so that processing is current again; the gap shows in later timestamps.

    Args:
        device: Name (exact, or a part that only one input has), index, or None for the default;
            also of an input of PulseAudio or PipeWire, for example a monitor.
        sound: Receives the blocks; threaded if it has a recogniser.
        now: The session clock.
        rate: Hz to open the device at; None: 16 kHz if the device accepts it, else its own rate.
        latency: Seconds from the sound to its arrival that the clock cannot see; subtracted.

    Attributes:
        overflows: Number of times the device reported lost samples.
    """

    def __init__(
        self,
        device: str | int | None,
        sound: AudioPipeline,
        *,
        now: Now,
        rate: int | None = None,
        latency: float = 0.0,
    ) -> None:
        self.name = "microphone" if device is None else f"microphone {device}"
        self.modalities: tuple[Modality, ...] = sound.modalities
        self.overflows = 0
        self._device = device
        self._sound = sound
        self._now = now
        self._latency = latency
        self._stream: InputStream | None = None
        self._closing: threading.Thread | None = None
        self._wanted_rate = rate
        self._rate = SAMPLE_RATE
        self._clock_sync = ClockSync(rate or SAMPLE_RATE, latency, settles=True)
        self._before = (0, 0.0)  # gaps and seconds lost before the device was last opened
        self._end = 0
        self._is_list_stale = False
        self._begin()

    def _begin(self) -> None:
        self._blocks: queue.Queue[_Block] = queue.Queue(_QUEUE_BLOCKS)
        self._handed_over = 0
        self._is_after_overflow = False
        self._failure: BaseException | None = None
        self._finished = threading.Event()

    @property
    def dropped(self) -> float:
        """Seconds of sound lost, in the device or here."""
        return self._before[1] + self._clock_sync.dropped

    def losses(self) -> dict[str, int]:
        """Return the lost ticks; see `Source`."""
        lost = round(self.dropped * TICK_RATE)
        return {"audio": lost, "asr": round(self._sound.dropped * TICK_RATE)}

    def gauges(self) -> dict[str, float]:
        """Return the device's clock and the queue lengths; see `Source`."""
        sync, known = self._clock_sync, {}
        if sync.fit.is_known:
            known["microphone_drift_ppm"] = -1e6 * sync.fit.slope
        return known | {
            "microphone_offset": sync.fit.offset,
            "microphone_error": sync.error,
            "microphone_gaps": self._before[0] + sync.gaps,
            "microphone_overflows": self.overflows,
            "microphone_dropped": self.dropped,
            "microphone_waiting": self._blocks.qsize() / _BLOCK_RATE,
            "asr_waiting": self._sound.waiting,
        }

    def shed(self, steps: Collection[str]) -> None:
        """Recognise only finals while `asr_partials` is shed; see `Source`."""
        self._sound.shed(steps)

    def open(self) -> None:
        """Open the microphone at 16 kHz, or at its own rate, and start recording.

        Raises:
            SourceError: If PortAudio is missing, the name matches no or several inputs, the device
                cannot be opened, or its driver has not closed it since it was lost.
        """
        if self._closing is not None and self._closing.is_alive():
            raise SourceError(f"{self.name} hangs in its driver: pull it out and plug it in again")
        sounddevice = _portaudio()
        if self._is_list_stale:  # PortAudio lists the devices once, when it starts.
            sounddevice._terminate()
            sounddevice._initialize()
        self._is_list_stale = True
        self._begin()
        try:
            index, source = _find_input(sounddevice, self._device)
            with led_to(source):
                self._rate, channels = _format(sounddevice, index, self._wanted_rate)
                self._stream = sounddevice.InputStream(
                    samplerate=self._rate,
                    blocksize=self._rate // _BLOCK_RATE,
                    device=index,
                    channels=channels,
                    dtype="float32",
                    callback=self._queue_block,
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
        """Put samples and phrases until `stop` is set; sound from before the call is skipped.

        Raises:
            SourceLost: If the stream ends or no block comes for 1.2 s.
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
        # The session clock may have started since `open`: earlier arrivals belong to another clock.
        self._blocks = queue.Queue(_QUEUE_BLOCKS)
        self._before = (self._before[0] + self._clock_sync.gaps, self.dropped)
        self._clock_sync = ClockSync(self._rate, self._latency, settles=True)
        resampler = Resampler(self._rate)
        expected: int | None = None
        newest, limit = self._now(), _FIRST_BLOCK_LIMIT
        while not stop.is_set():
            try:
                block = self._blocks.get(timeout=_CHECK)
            except queue.Empty:
                self._check(newest, limit)
                continue
            newest, limit = block.arrival, _BLOCK_LIMIT
            is_torn = block.is_after_overflow or expected not in (None, block.span[0])
            if is_torn:
                resampler.finish()
            self._push(block, resampler.push(block.values), put, is_torn=is_torn)
            if remark := resampler.remark(block.arrival):
                put(remark)
            expected = block.span[1]

    def _push(self, block: _Block, values: Array, put: Put, *, is_torn: bool) -> None:
        if block.is_after_overflow:
            self.overflows += 1
            self._clock_sync.fit.restart()
        start, sound = self._clock_sync.push(values, block.span, block.arrival, is_torn=is_torn)
        # A reopened device may be placed slightly before the end of the previous sound.
        overlap = max(self._end - start, 0)
        self._end = max(self._end, start + len(sound))
        self._sound.push(sound[overlap:], start + overlap, put)

    def _queue_block(
        self, block: Array, length: int, time: object, status: "CallbackFlags"
    ) -> None:
        """Queue one block; runs in PortAudio's thread, where an error would vanish."""
        try:
            self._is_after_overflow |= bool(status.input_overflow)
            before, self._handed_over = self._handed_over, self._handed_over + len(block)
            span = (before, self._handed_over)
            if self._blocks.full():
                self._is_after_overflow |= _clear(self._blocks)
            self._blocks.put_nowait(
                _Block(self._now(), span, block.copy(), self._is_after_overflow)
            )
            self._is_after_overflow = False
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
        if stream is None:
            return
        # A driver that hangs must not delay the report of the loss; a thread waits for it.
        self._closing = threading.Thread(
            target=stream.close, args=(True,), name=f"tamulag.{self.name}.close", daemon=True
        )
        self._closing.start()
        self._closing.join(_CLOSE_LIMIT)
        if self._closing.is_alive():
            logger.warning("%s: its driver does not close it; a thread is left behind", self.name)


def _clear(blocks: "queue.Queue[_Block]") -> bool:
    """Clear the queue; return whether the device had lost samples before one of its blocks."""
    is_after_overflow = False
    with contextlib.suppress(queue.Empty):
        while True:
            is_after_overflow |= blocks.get_nowait().is_after_overflow
    return is_after_overflow


def _portaudio() -> ModuleType:
    try:
        import sounddevice
    except OSError as error:
        raise SourceError(
            "PortAudio is missing: apt install libportaudio2 (macOS and Windows bring it along), "
            "or use --microphone none (no Microphone)"
        ) from error
    module: ModuleType = sounddevice
    return module


def _find_input(sounddevice: ModuleType, device: str | int | None) -> tuple[int | None, str | None]:
    """Return the index of an input, by exact name, part of a name or index.

    With it comes the source of the sound server that it is to record, if it is one of those.
    """
    inputs = {
        index: str(found["name"])
        for index, found in enumerate(sounddevice.query_devices())
        if found["max_input_channels"] > 0
    }
    if not inputs:
        raise SourceError(
            "there is no microphone: connect one, or use --microphone none (no Microphone)"
        )
    if device is None:
        return None, None
    text = str(device)
    exact = [index for index, name in inputs.items() if text in (name, str(index))]
    part = [index for index, name in inputs.items() if text.lower() in name.lower()]
    fitting = exact or part
    if len(fitting) == 1 or exact:
        return fitting[0], None
    served = pulse_inputs() if DEVICE in inputs.values() else ()
    sources = [] if fitting else matching(served, text)
    if len(sources) == 1:
        return next(i for i, name in inputs.items() if name == DEVICE), sources[0].name
    listed = [f"{i} {name}" for i, name in inputs.items()] + [one.description for one in served]
    problem = "fits several inputs" if fitting or sources else "is not among the inputs"
    raise SourceError(f"microphone {device!r} {problem}: choose one of {'; '.join(listed)}")


def _format(sounddevice: ModuleType, index: int | None, wanted: int | None) -> tuple[int, int]:
    """Return the first rate and channel count that the device accepts, mono before all channels."""
    found = sounddevice.query_devices(index, "input")
    own, all_channels = int(found["default_samplerate"]), int(found["max_input_channels"])
    rates = [wanted] if wanted else [SAMPLE_RATE, own]
    formats = [(rate, channels) for rate in rates for channels in (1, all_channels)]
    for rate, channels in formats[:-1]:
        try:
            sounddevice.check_input_settings(index, channels, "float32", samplerate=rate)
        except sounddevice.PortAudioError as error:
            logger.debug("%s takes no %d Hz, %d channels: %s", found["name"], rate, channels, error)
        else:
            return rate, channels
    return formats[-1]  # If the device refuses even this, opening it reports so.
