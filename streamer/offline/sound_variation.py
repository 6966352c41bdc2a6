"""Clips of a corpus with their sound passed through other rooms, noises, levels and telephones.

Knows sound files and random chains of changes. Knows no features and no labels.

A head that is trained on a few corpora otherwise learns their microphones.
"""

import hashlib
import wave
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import torch
from torchaudio import functional as sound

from tamulag.models.data.clips import VARIED, MediaRow

from ..core.sample import SAMPLE_RATE, Array
from ..core.source import SourceError
from ..features.audio_pipeline import Resampler
from ..sources.media_reader import opened

TELEPHONE_RATE = 8000
TELEPHONE_BAND = (300.0, 3400.0)
"""Hz, as on a telephone line (ITU-T G.712)."""
OPUS_RATE = 48000
OPUS_BITS = (12_000, 24_001)
"""Bits per second of a call over the internet, the upper one excluded."""
GAIN = (-12.0, 6.0)
NOISE = (5.0, 25.0)
"""Distance of the speech from the noise, dB."""
REVERBERATION = (0.1, 0.5)
"""Seconds in which a room's echo falls by 60 dB."""
DIRECT = (0.0, 10.0)
"""Distance of the direct sound from the echo, dB."""
SHARES = {"room": 0.4, "noise": 0.6, "channel": 0.7}
"""How often a copy has each change; the level is always another one."""
PLACE = 3
"""Last parts of a file's path that decide how it is varied, wherever the corpus lies."""


def varied(
    rows: Iterable[MediaRow], share: float, folder: Path, done: Callable[[str], None]
) -> Iterator[MediaRow]:
    """Write varied copies of the sound of a share of the clips, and yield them as clips.

    Which clips and how is decided by the names of their files alone. A copy that is there already
    is left as it is.

    Args:
        rows: Clips; each copy has its clip's label, group and corpus, and the mode `varied`.
        share: Copies per clip: 0.33 = of a third of the clips; 2 = two of each.
        folder: Where the copies are written.
        done: Called with the problem of each file that cannot be read, which is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        name = "/".join(row.file.parts[-PLACE:])
        for copy in range(_count(name, share)):
            rng = _random(f"{name}#{copy}")
            path = folder / f"{hashlib.sha256(f'{name}#{copy}'.encode()).hexdigest()[:24]}.wav"
            if not path.exists():
                try:
                    write_sound(path, vary_sound(read_sound(row.file), rng))
                except (SourceError, av.FFmpegError, IndexError) as error:
                    done(f"{row.file} cannot be varied: {error}")
                    break
            yield replace(row, file=path, mode=VARIED)


def _count(name: str, share: float) -> int:
    return int(share) + int(_random(name).random() < share % 1)


def _random(name: str) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))


def read_sound(path: Path) -> Array:
    """Return the first track of sound, 16 kHz mono, shape (n,) in [-1, 1].

    Raises:
        SourceError: If the file cannot be opened.
        IndexError: If it has no sound.
    """
    resampler = Resampler(SAMPLE_RATE)
    with opened(str(path)) as container:
        track = container.streams.audio[0]
        pieces = [resampler.push_frame(frame) for frame in container.decode(track)]
    return np.concatenate([*pieces, resampler.finish()])


def write_sound(path: Path, samples: Array) -> None:
    """Write 16 kHz mono sound of 16 bits, atomically; samples in [-1, 1], shape (n,)."""
    temporary = path.with_suffix(".partial")
    with wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(_pcm(samples).tobytes())
    temporary.replace(path)


def vary_sound(samples: Array, rng: np.random.Generator) -> Array:
    """Return sound as another microphone in another place would have it: (n,), as long as before.

    A room, noise, a level and a channel, each drawn; in the order in which they act on a voice.

    Args:
        samples: Shape (n,), float32 mono at 16 kHz in [-1, 1].
        rng: All that is random.
    """
    if rng.random() < SHARES["room"]:
        samples = in_room(samples, rng.uniform(*REVERBERATION), rng.uniform(*DIRECT), rng)
    if rng.random() < SHARES["noise"]:
        samples = with_noise(samples, rng.uniform(*NOISE), rng.uniform(0.0, 1.0), rng)
    samples = samples * np.float32(10 ** (rng.uniform(*GAIN) / 20))
    if rng.random() < SHARES["channel"]:
        channel = rng.integers(3)
        if channel < 2:
            samples = by_telephone(samples, mu_law=channel == 1)
        else:
            samples = through_codec(samples, "libopus", OPUS_RATE, int(rng.integers(*OPUS_BITS)))
    return np.clip(samples, -1.0, 1.0)


def in_room(samples: Array, seconds: float, direct: float, rng: np.random.Generator) -> Array:
    """Return sound with the echo of a room: noise that decays exponentially (Polack 1988).

    Args:
        samples: Shape (n,), 16 kHz.
        seconds: In which the echo falls by 60 dB.
        direct: Distance of the direct sound from the echo, dB.
        rng: Draws the echo.
    """
    count = round(seconds * SAMPLE_RATE)
    echo = rng.standard_normal(count) * 10 ** (-3 * np.arange(count) / count)
    echo *= 10 ** (-direct / 20) / np.sqrt((echo**2).sum())
    echo[0] = 1.0
    answer = torch.from_numpy(echo.astype(np.float32))
    heard = sound.fftconvolve(torch.from_numpy(samples), answer)[: len(samples)].numpy()
    # The level is varied apart from the room.
    scale = np.sqrt((samples**2).mean() / max(float((heard**2).mean()), 1e-12))
    return np.asarray(heard * scale, np.float32)


def with_noise(samples: Array, ratio: float, slope: float, rng: np.random.Generator) -> Array:
    """Return sound with noise below it.

    Args:
        samples: Shape (n,).
        ratio: Distance of the sound from the noise, dB.
        slope: Power of the noise falls as f ** -slope: 0 = white, 1 = pink.
        rng: Draws the noise.
    """
    spectrum = np.fft.rfft(rng.standard_normal(len(samples)))
    spectrum[1:] *= np.arange(1, len(spectrum)) ** (-slope / 2)
    noise = np.fft.irfft(spectrum, len(samples)).astype(np.float32)
    mixed = sound.add_noise(torch.from_numpy(samples), torch.from_numpy(noise), torch.tensor(ratio))
    return np.asarray(mixed.numpy(), np.float32)


def by_telephone(samples: Array, *, mu_law: bool) -> Array:
    """Return sound as a telephone has it: 8 kHz, 300 to 3400 Hz, and the bytes of G.711."""
    narrow = sound.resample(torch.from_numpy(samples), SAMPLE_RATE, TELEPHONE_RATE)
    low, high = TELEPHONE_BAND
    narrow = sound.highpass_biquad(narrow, TELEPHONE_RATE, low)
    narrow = sound.lowpass_biquad(narrow, TELEPHONE_RATE, high).clamp(-1.0, 1.0)
    if mu_law:
        heard = through_codec(narrow.numpy(), "pcm_mulaw", TELEPHONE_RATE, rate=TELEPHONE_RATE)
        narrow = torch.from_numpy(heard)
    wide = sound.resample(narrow, TELEPHONE_RATE, SAMPLE_RATE).numpy()
    return np.pad(wide, (0, max(0, len(samples) - len(wide))))[: len(samples)]


def through_codec(
    samples: Array, codec: str, inside: int, bits: int | None = None, *, rate: int = SAMPLE_RATE
) -> Array:
    """Return sound that was encoded and decoded; as long as before.

    Args:
        samples: Shape (n,), mono in [-1, 1].
        codec: Name of FFmpeg's encoder.
        inside: Rate at which the codec works, Hz.
        bits: Per second; None: as many as the codec has.
        rate: Of the samples, Hz.
    """
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = inside, "mono", "s16"
    encoder.time_base = Fraction(1, inside)
    if bits is not None:
        encoder.bit_rate = bits
    encoder.open()
    decoder = av.CodecContext.create(encoder.codec.canonical_name, "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate, decoder.layout = inside, "mono"
    decoder.extradata = encoder.extradata
    frame = av.AudioFrame.from_ndarray(_pcm(samples)[np.newaxis], format="s16", layout="mono")
    frame.sample_rate = rate
    to_codec = av.AudioResampler("s16", "mono", inside, frame_size=encoder.frame_size or None)
    back = av.AudioResampler("flt", "mono", rate)
    frames = [*to_codec.resample(frame), *to_codec.resample(None)]
    packets = [packet for one in (*frames, None) for packet in encoder.encode(one)]
    heard = [one for packet in (*packets, None) for one in decoder.decode(packet)]
    pieces = [piece.to_ndarray()[0] for one in (*heard, None) for piece in back.resample(one)]
    out = np.concatenate([np.zeros(0, np.float32), *pieces])
    return np.pad(out, (0, max(0, len(samples) - len(out))))[: len(samples)]


def _pcm(samples: Array) -> npt.NDArray[np.int16]:
    return np.round(32767 * np.clip(samples, -1.0, 1.0)).astype(np.int16)
