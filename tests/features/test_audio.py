from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchaudio.functional import melscale_fbanks

from tamulag.streamer.core.sample import SAMPLE_RATE, Array, Sample
from tamulag.streamer.features.audio import (
    AUDIO_DIM,
    FEATURE_NAMES,
    FRAME_SAMPLES,
    HANGOVER_TICKS,
    MEL_BANDS,
    MEL_RANGE,
    TICK_SAMPLES,
    AudioFeatures,
    extract,
    frame_features,
    mel_bank,
)
from tamulag.streamer.features.pretrained import locate

PITCH = FEATURE_NAMES.index("pitch")
VOICING = FEATURE_NAMES.index("voicing")
ENERGY = FEATURE_NAMES.index("energy")
SPEECH = FEATURE_NAMES.index("speech")


def load(path: Path) -> Array:
    resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
    with av.open(str(path)) as container:
        frames = [f for frame in container.decode(audio=0) for f in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32)


def test_bands_are_those_of_torchaudio() -> None:
    """To the bit: the shipped weights were trained on its triangles."""
    theirs = melscale_fbanks(
        513, *MEL_RANGE, MEL_BANDS, SAMPLE_RATE, norm=None, mel_scale="htk"
    ).numpy()
    np.testing.assert_array_equal(mel_bank(), theirs.T)


@pytest.fixture(scope="module")
def speech() -> Array:
    """Return ten seconds of real speech that an installed package carries."""
    return load(locate("moonshine-tiny-en").parent / "beckett.wav")


@pytest.fixture(scope="module")
def described(speech: Array) -> list[Sample]:
    """Return its features, made of one block."""
    return AudioFeatures().push(speech, 0)


def tone(hertz: float, seconds: float = 0.04, level: float = 0.3) -> Array:
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    order = np.array([[1], [2], [3]])
    harmonics = np.sin(2 * np.pi * hertz * order * times) / order
    return np.asarray(level * harmonics.sum(0), np.float32)


def bits(samples: list[Sample]) -> list[tuple[float, str | None, bytes | None]]:
    return [
        (s.timestamp, s.reason, None if s.values is None else s.values.tobytes()) for s in samples
    ]


def same(left: list[Sample], right: list[Sample]) -> bool:
    return len(left) > 0 and bits(left) == bits(right)


def push_in_blocks(wave: Array, sizes: list[int]) -> list[Sample]:
    features, samples, start = AudioFeatures(), [], 0
    while start < len(wave):
        for size in sizes:
            samples += features.push(wave[start : start + size], start)
            start += size
    return samples


def whole_tenths(wave: Array) -> int:
    """Return the ticks that come out: those of tenths of a second that are complete."""
    return len(wave) // TICK_SAMPLES // 5 * 5


def test_every_tick_has_one_value_per_name(speech: Array, described: list[Sample]) -> None:
    """Each tick gives one finite float32 per feature name, or none and the reason."""
    samples = described
    assert AUDIO_DIM == len(FEATURE_NAMES) == len(set(FEATURE_NAMES)) == 332
    assert [s.timestamp for s in samples] == [k / 50 for k in range(whole_tenths(speech))]
    assert all(s.values is None or np.isfinite(s.values).all() for s in samples)
    assert {s.reason for s in samples} == {None, "silence"}


@settings(max_examples=8)
@given(sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=5))
def test_blocks_of_any_size_give_the_same_bits(sizes: list[int]) -> None:
    """How the sound is cut into blocks changes nothing at all."""
    wave, expected = uneven()
    assert same(push_in_blocks(wave, sizes), expected)


@cache
def uneven() -> tuple[Array, list[Sample]]:
    """Return half a second of a tone whose level jumps, and its features made of one block."""
    rng = np.random.default_rng(3)
    wave = tone(140, 0.5) * np.repeat(rng.random(25), TICK_SAMPLES).astype(np.float32)
    return wave, AudioFeatures().push(wave, 0)


def test_real_speech_in_blocks_of_a_sound_card_gives_the_same_bits(
    speech: Array, described: list[Sample]
) -> None:
    """Blocks of 441, 1 and 1024 samples of real speech give the same numbers as one block."""
    wave = speech[: 3 * SAMPLE_RATE]
    assert same(push_in_blocks(wave, [441, 1, 1024]), described[: whole_tenths(wave)])


def test_what_follows_changes_no_earlier_tick(speech: Array, described: list[Sample]) -> None:
    """A tick depends on nothing after its end: the features are causal."""
    cut = 100 * TICK_SAMPLES
    other = np.concatenate((speech[:cut], np.ones(8000, np.float32)))
    assert same(described[:100], AudioFeatures().push(other, 0)[:100])


def test_a_tick_is_described_by_the_40_ms_that_end_with_it() -> None:
    """The frame of tick k ends at sample 320 (k + 1); before the start there are zeros."""
    wave = tone(200, 0.1)
    features = AudioFeatures()
    features._quiet_ticks = 0
    ticks = features.push(wave, 0)[:3]
    first = np.concatenate((np.zeros(TICK_SAMPLES, np.float32), wave[:TICK_SAMPLES]))
    for sample, frame in zip(ticks, (first, wave[:640], wave[320:960]), strict=True):
        assert sample.values is not None
        assert np.array_equal(sample.values[:43], frame_features(frame))


def test_a_gap_restarts(speech: Array) -> None:
    """After a gap the ticks are those of a stream that begins there; no time is joined."""
    features = AudioFeatures()
    features.push(speech[:20000], 0)
    start = 48000 + 5
    later = speech[start : start + 2 * SAMPLE_RATE]
    after = features.push(later, start)
    assert same(after, AudioFeatures().push(later, start))
    assert after[0].timestamp == pytest.approx(151 * 0.02)


def test_an_overlap_is_taken_once(speech: Array) -> None:
    """Sound that was already taken is skipped when it comes again."""
    features = AudioFeatures()
    samples = features.push(speech[:9000], 0) + features.push(speech[7000:20000], 7000)
    samples += features.push(speech[100:300], 100)
    assert same(samples, AudioFeatures().push(speech[:20000], 0))


def test_digital_silence_is_masked_and_white_noise_is_no_speech() -> None:
    """Neither zeros nor noise are scored: the reason is silence."""
    noise = np.random.default_rng(0).normal(0, 0.05, SAMPLE_RATE).astype(np.float32)
    for wave in (np.zeros(SAMPLE_RATE, np.float32), noise):
        assert {s.reason for s in AudioFeatures().push(wave, 0)} == {"silence"}


def test_speech_lingers_for_the_hangover_only(described: list[Sample]) -> None:
    """A tick is valid while somebody speaks and 0.2 s longer, so that words are not torn."""
    quiet = [0]
    for sample in described:
        if sample.values is not None:
            quiet.append(0 if sample.values[SPEECH] >= 0.5 else quiet[-1] + 1)
    assert max(quiet) == HANGOVER_TICKS


@pytest.mark.parametrize("hertz", [62, 85, 120, 187.5, 250, 390])
def test_pitch_of_a_tone_is_found(hertz: float) -> None:
    """Pitch is right to 1 % between 60 and 400 Hz, in octaves above 100 Hz."""
    values = frame_features(tone(hertz))
    assert 100 * 2 ** values[PITCH] == pytest.approx(hertz, rel=0.01)
    assert 0.9 < values[VOICING] <= 1


def test_noise_and_zeros_are_unvoiced() -> None:
    """Without a period the pitch is 0 and the voicing low; nothing is NaN."""
    noise = np.random.default_rng(1).normal(0, 0.1, FRAME_SAMPLES).astype(np.float32)
    frames: list[Array] = [noise, np.zeros(FRAME_SAMPLES, np.float32)]
    for frame in frames:
        values = frame_features(frame)
        assert np.isfinite(values).all()
        assert values[PITCH] == 0
        assert values[VOICING] < 0.45


def test_energy_is_in_decibels() -> None:
    """Ten times the amplitude is 20 dB more; a full-scale sine has -3 dB."""
    sine = np.sin(2 * np.pi * 200 * np.arange(FRAME_SAMPLES) / SAMPLE_RATE).astype(np.float32)
    assert frame_features(sine)[ENERGY] == pytest.approx(-3.01, abs=0.01)
    assert frame_features(sine * np.float32(0.1))[ENERGY] == pytest.approx(-23.01, abs=0.01)


def test_the_mel_band_follows_the_frequency() -> None:
    """A higher tone lights a higher band."""
    times = np.arange(FRAME_SAMPLES) / SAMPLE_RATE
    sines = [np.sin(2 * np.pi * f * times).astype(np.float32) for f in (150, 600, 2400, 7000)]
    bands = [int(frame_features(sine)[:40].argmax()) for sine in sines]
    assert bands == sorted(set(bands))


def test_a_non_finite_sample_counts_as_zero(speech: Array) -> None:
    """One broken sample does not poison the ticks after it."""
    broken, mended = speech[:SAMPLE_RATE].copy(), speech[:SAMPLE_RATE].copy()
    broken[5000], broken[6000], mended[5000], mended[6000] = np.nan, np.inf, 0, 0
    assert same(AudioFeatures().push(broken, 0), AudioFeatures().push(mended, 0))


def test_extract_equals_the_live_path(speech: Array) -> None:
    """Training sees the numbers that the live path gives, masked rows as zeros."""
    wave = speech[: 4 * SAMPLE_RATE]
    values, mask = extract(wave)
    live = push_in_blocks(wave, [1600])
    assert values.shape == (whole_tenths(wave), AUDIO_DIM)
    assert mask.tolist() == [s.values is not None for s in live]
    assert all(
        np.array_equal(row, s.values)
        for row, s in zip(values, live, strict=True)
        if s.values is not None
    )
    assert not values[~mask].any()


def test_a_clip_shorter_than_a_tick_has_no_ticks() -> None:
    """An unfinished tick is left out, so a tiny clip gives an empty result."""
    values, mask = extract(np.zeros(100, np.float32))
    assert values.shape == (0, AUDIO_DIM)
    assert mask.shape == (0,)


@pytest.mark.parametrize(
    "block", [np.zeros(320, np.float64), np.zeros((320, 2), np.float32), np.zeros(320, np.int16)]
)
def test_another_shape_or_dtype_is_refused(block: Array) -> None:
    """Stereo or integer sound is refused with what is expected."""
    with pytest.raises(ValueError, match=r"float32 of shape \(n,\)"):
        AudioFeatures().push(block, 0)
