import threading
import time

import numpy as np
import pytest

from tamulag.streamer.core.sample import Array, Input, Phrase, Sample
from tamulag.streamer.features.asr.worker_thread import BACKLOG
from tamulag.streamer.features.audio_pipeline import AudioPipeline, Resampler


def sine(rate: int, seconds: float, pitch: float = 440.0) -> Array:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(round(rate * seconds)) / rate)).astype("f4")


def resampled(rate: int, sound: Array, size: int) -> Array:
    resampler = Resampler(rate)
    blocks = [resampler.push(sound[at : at + size]) for at in range(0, len(sound), size)]
    return np.concatenate([*blocks, resampler.finish()])


class Counting:
    """Extractor that gives one sample per block."""

    def push(self, block: Array, start: int, /) -> list[Sample]:
        return [Sample("audio", start / 16000, np.ones(1, np.float32))]


class Noting:
    """Recogniser that notes what it hears and makes a phrase of each block; holds at a gate."""

    partials = True

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.closed = 0
        self.gate = threading.Event()
        self.gate.set()

    def push(self, block: Array, start: int, /) -> list[Phrase]:
        assert self.gate.wait(10.0)
        self.heard.append(start)
        return [self._phrase(start, final=False)]

    def finish(self) -> list[Phrase]:
        return [self._phrase(-1, final=True)]

    def reopen(self) -> None:
        """Nothing of it fails."""

    def close(self) -> None:
        self.closed += 1

    def _phrase(self, start: int, *, final: bool) -> Phrase:
        return Phrase(start / 16000, 0, (), np.zeros((0, 2), np.float32), (), final=final)


class Broken(Noting):
    def push(self, block: Array, start: int, /) -> list[Phrase]:
        raise ZeroDivisionError("recogniser bug")


BLOCK = np.zeros(320, np.float32)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_output_length_follows_the_input(rate: int) -> None:
    """Sixty seconds at any rate become sixty seconds at 16 kHz, and never lag by over 2 ms."""
    resampler, given, got = Resampler(rate), 0, 0
    block = np.zeros(rate // 50, np.float32)
    for _ in range(3000):
        got += len(resampler.push(block))
        given += len(block)
        assert -33 <= got - given * 16000 / rate <= 0
    assert abs(got + len(resampler.finish()) - 960_000) <= 1


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_a_sine_keeps_its_pitch_height_and_phase(rate: int) -> None:
    """Sample k of the output is the sound at k / 16000 seconds."""
    got, want = resampled(rate, sine(rate, 1.0), rate // 50), sine(16000, 1.0)
    assert np.abs(got[200:-200] - want[200:-200]).max() < 5e-3


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("size", [1, 37, 5000])
def test_block_size_changes_nothing(rate: int, size: int) -> None:
    """Any cut into blocks gives bit for bit the same sound."""
    sound = np.random.default_rng(1).uniform(-0.9, 0.9, rate // 5).astype(np.float32)
    np.testing.assert_array_equal(resampled(rate, sound, size), resampled(rate, sound, 882))


def test_int16_stereo_becomes_the_mean_in_unit_range() -> None:
    """Whole numbers are scaled to [-1, 1] and channels are averaged, not added."""
    block = np.tile(np.array([[16384, 0]], np.int16), (400, 1))
    np.testing.assert_allclose(Resampler(16000).push(block), 0.25)


@pytest.mark.parametrize("rate", [16000, 48000])
def test_channels_that_cancel_are_the_first_alone(rate: int) -> None:
    """From the first loud block on, and the mean again once they agree; a pause changes nothing."""
    left = sine(rate, 0.2)
    first, resampler = Resampler(rate).push(left), Resampler(rate)
    opposite = np.stack([left, -left], 1)
    np.testing.assert_allclose(resampler.push(opposite), first, atol=1e-6)
    assert not resampler.push(np.zeros((rate // 5, 2), np.float32))[100:].any()
    assert np.abs(resampler.push(opposite)).max() > 0.5 * np.abs(left).max()
    agreed = resampler.push(np.stack([left, 0.5 * left], 1))
    assert np.abs(agreed[100:-100]).max() == pytest.approx(0.75 * np.abs(left).max(), rel=0.02)


def test_decoded_stereo_frames_are_averaged_too() -> None:
    """A file's equal channels come out as loud as one of them, even when the format changes."""
    import av

    resampler, sound = Resampler(44100), sine(44100, 0.5)
    out = []
    for layout, channels in (("stereo", 2), ("mono", 1)):
        packed = np.repeat(sound, channels)[np.newaxis]
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate = 44100
        out.append(resampler.push_frame(frame))
    got = np.concatenate([*out, resampler.finish()])
    assert len(got) == 16000
    assert 0.49 < np.abs(got).max() < 0.51


def test_inline_phrases_come_before_the_samples_of_their_block() -> None:
    """A file's inputs have one fixed order."""
    items: list[Input] = []
    path = AudioPipeline(Counting(), Noting(), threaded=False)
    for start in (0, 320):
        path.push(BLOCK, start, items.append)
    path.finish(items.append, limit=1.0)
    assert [type(item).__name__ for item in items] == ["Phrase", "Sample"] * 2 + ["Phrase"]


def test_a_slow_recogniser_does_not_delay_the_features() -> None:
    """Samples are put while the recogniser still works on the first block."""
    listener, items = Noting(), list[Input]()
    listener.gate.clear()
    path = AudioPipeline(Counting(), listener, threaded=True)
    for n in range(50):
        path.push(BLOCK, n * 320, items.append)
    assert len(items) == 50
    listener.gate.set()
    path.finish(items.append, limit=5.0)
    assert listener.heard == [n * 320 for n in range(50)]
    assert path.dropped == 0.0


def test_backlog_is_bounded_and_the_oldest_sound_goes() -> None:
    """A recogniser that stands still loses the oldest sound beyond 5 s, counted in seconds."""
    listener, items = Noting(), list[Input]()
    listener.gate.clear()
    path = AudioPipeline(Counting(), listener, threaded=True)
    for n in range(BACKLOG // 320 + 50):
        path.push(BLOCK, n * 320, items.append)
    listener.gate.set()
    path.finish(items.append, limit=5.0)
    assert 0.95 < path.dropped < 1.05
    assert listener.heard[-1] == (BACKLOG // 320 + 49) * 320


@pytest.mark.parametrize("threaded", [True, False])
def test_a_bug_in_the_recogniser_reaches_the_source(threaded: bool) -> None:
    """What the recogniser raises is raised by the path, in the source's own thread."""
    path = AudioPipeline(Counting(), Broken(), threaded=threaded)

    def speak_for_five_seconds() -> None:
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            path.push(BLOCK, 0, lambda item: None)

    with pytest.raises(ZeroDivisionError, match="recogniser bug"):
        speak_for_five_seconds()


def test_a_bug_in_the_last_block_reaches_the_source() -> None:
    """`finish` raises too, so an error cannot hide at the end."""
    path = AudioPipeline(Counting(), Broken(), threaded=True)
    path.push(BLOCK, 0, lambda item: None)
    with pytest.raises(ZeroDivisionError):
        path.finish(lambda item: None, limit=5.0)


def test_the_path_can_go_on_after_finish() -> None:
    """A microphone that comes back uses the same path again; no thread is left in between."""
    listener, items = Noting(), list[Input]()
    path = AudioPipeline(Counting(), listener, threaded=True)
    for start in (0, 16000):
        path.push(BLOCK, start, items.append)
        path.finish(items.append, limit=5.0)
        assert not [t for t in threading.enumerate() if t.name == "tamulag.asr"]
    assert listener.heard == [0, 16000]


def test_without_a_recogniser_there_is_only_audio() -> None:
    """`--asr none` leaves the audio modality alone."""
    items: list[Input] = []
    path = AudioPipeline(Counting(), None, threaded=True)
    path.push(BLOCK, 0, items.append)
    path.finish(items.append, limit=1.0)
    assert path.modalities == ("audio",)
    assert len(items) == 1


def test_what_waits_for_the_recogniser_can_be_measured() -> None:
    """Seconds of sound in its queue; none without a thread."""
    listener = Noting()
    path = AudioPipeline(Counting(), listener, threaded=True)
    assert path.waiting == 0.0
    listener.gate.clear()
    for n in range(51):
        path.push(BLOCK, 320 * n, lambda item: None)
    assert path.waiting == pytest.approx(1.0, abs=0.03)
    listener.gate.set()
    path.finish(lambda item: None, 2.0)


def test_relief_asks_the_recogniser_for_finals_only() -> None:
    """And for partials again when there is room."""
    listener = Noting()
    path = AudioPipeline(Counting(), listener, threaded=True)
    path.shed(["vision_rate", "asr_partials"])
    assert not listener.partials
    path.shed(["vision_rate"])
    assert listener.partials


@pytest.mark.parametrize("threaded", [True, False])
def test_the_recogniser_is_closed_with_its_path(threaded: bool) -> None:
    """Closing the pipeline releases its recogniser."""
    listener = Noting()
    path = AudioPipeline(Counting(), listener, threaded=threaded)
    path.push(BLOCK, 0, lambda item: None)
    path.finish(lambda item: None, 5.0)
    path.close()
    assert listener.closed == 1
