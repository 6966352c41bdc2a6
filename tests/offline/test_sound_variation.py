"""Varied copies of clips: what each change does to sound, and that names alone decide all."""

from pathlib import Path

import numpy as np
import pytest

from support.sound_files import tone
from tamulag.models.data.clips import VARIED, MediaRow
from tamulag.streamer.core.sample import SAMPLE_RATE, Array
from tamulag.streamer.offline.sound_variation import (
    by_telephone,
    in_room,
    read_sound,
    through_codec,
    varied,
    vary_sound,
    with_noise,
    write_sound,
)


def hum(hertz: float, seconds: float = 1.0) -> Array:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def level(samples: Array) -> float:
    """Return decibels relative to 1, without the edges where filters and codecs begin and end."""
    middle = samples[2000:-2000].astype(np.float64)
    return float(10 * np.log10((middle**2).mean() + 1e-12))


def test_telephone_has_its_band_alone() -> None:
    """1 kHz passes, 100 Hz is weak, 5 kHz is gone; the sound stays as long as it was."""
    for mu_law in (False, True):
        kept, low, high = (
            level(by_telephone(hum(hertz), mu_law=mu_law)) - level(hum(hertz))
            for hertz in (1000, 100, 5000)
        )
        assert abs(kept) < 1
        assert low < -15
        assert high < -30
    assert len(by_telephone(hum(1000)[:-7], mu_law=True)) == SAMPLE_RATE - 7


@pytest.mark.parametrize(
    ("codec", "inside", "bits", "error"),
    [("pcm_mulaw", SAMPLE_RATE, None, -30.0), ("libopus", 48000, 24_000, -12.0)],
)
def test_codec_gives_nearly_the_same_sound(
    codec: str, inside: int, bits: int | None, error: float
) -> None:
    """In time as well: what differs is far below the sound, but it differs."""
    for samples in (hum(440), hum(440)[:-123]):
        heard = through_codec(samples, codec, inside, bits)
        assert heard.shape == samples.shape
        assert -90 < level(heard - samples) - level(samples) < error


def test_noise_is_as_far_below_as_asked() -> None:
    """White noise has as much power high up as low down; pink noise is mostly low."""
    rng = np.random.default_rng(0)
    for slope in (0.0, 1.0):
        noise = with_noise(hum(440), 12.0, slope, rng) - hum(440)
        assert level(hum(440)) - level(noise) == pytest.approx(12.0, abs=0.5)
        power = np.abs(np.fft.rfft(noise)) ** 2
        share = float(power[: len(power) // 2].sum() / power.sum())
        assert share == pytest.approx(0.5 if slope == 0 else 0.93, abs=0.04)


def test_room_echoes_after_the_sound_and_never_before() -> None:
    """A click is followed by noise that decays; the level of the whole stays."""
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[4000] = 1.0
    heard = in_room(click, 0.3, 5.0, np.random.default_rng(0))
    assert np.abs(heard[:4000]).max() < 1e-4
    early, late = (heard[4001 + at : 5601 + at] for at in (0, 2400))
    assert 10 * np.log10((early**2).sum() / (late**2).sum()) == pytest.approx(30, abs=5)
    assert float((heard**2).sum()) == pytest.approx(1.0, rel=1e-3)


def test_chain_is_drawn_and_stays_in_range() -> None:
    """The same stream gives the same sound, another one another; loud sound is clipped."""
    samples = 3 * hum(440)
    one, same, other = (vary_sound(samples, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert one.shape == other.shape == samples.shape
    assert not np.array_equal(one, other)
    for seed in range(20):
        found = vary_sound(samples, np.random.default_rng(seed))
        assert found.dtype == np.float32
        assert np.abs(found).max() <= 1.0


def test_silence_stays_finite() -> None:
    """No level can be taken of it."""
    for seed in range(20):
        silent = np.zeros(8000, np.float32)
        assert np.isfinite(vary_sound(silent, np.random.default_rng(seed))).all()


def test_written_sound_comes_back(tmp_path: Path) -> None:
    """16 bits of it."""
    write_sound(tmp_path / "a.wav", hum(440))
    np.testing.assert_allclose(read_sound(tmp_path / "a.wav"), hum(440), atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


@pytest.fixture
def rows(tmp_path: Path) -> list[MediaRow]:
    """Return thirty clips of which one cannot be read."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    files = [tone(folder / f"{k}.wav", pitch=200 + k) for k in range(30)]
    files[7].write_text("no sound")
    return [MediaRow(file, 1.0, group=f"speaker {k}") for k, file in enumerate(files)]


def test_copies_are_of_a_share_and_decided_by_names(rows: list[MediaRow], tmp_path: Path) -> None:
    """A copy keeps label and group; a second run leaves it as it is; two of each can be had."""
    problems: list[str] = []
    copies = list(varied(rows, 0.4, tmp_path / "out", problems.append))
    assert 6 <= len(copies) <= 18
    by_group = {row.group: row for row in rows}
    for copy in copies:
        assert (copy.label, copy.mode) == (1.0, VARIED)
        original = read_sound(by_group[copy.group].file)
        found = read_sound(copy.file)
        assert len(found) == len(original)
        assert not np.allclose(found, original, atol=1e-3)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = list(varied(rows, 0.4, tmp_path / "out", problems.append))
    assert again == copies
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == made
    elsewhere = list(varied(rows, 0.4, tmp_path / "other", problems.append))
    assert [one.file.read_bytes() for one in elsewhere] == [one.file.read_bytes() for one in copies]


def test_file_that_cannot_be_read_is_left_out(rows: list[MediaRow], tmp_path: Path) -> None:
    """It is named; two copies of each of the others differ."""
    problems: list[str] = []
    copies = list(varied(rows[6:9], 2, tmp_path / "out", problems.append))
    assert [copy.group for copy in copies] == ["speaker 6"] * 2 + ["speaker 8"] * 2
    assert len(problems) == 1
    assert "7.wav cannot be varied" in problems[0]
    assert copies[0].file.read_bytes() != copies[1].file.read_bytes()
