"""The parts of a session, run one by one on the demo's clip."""

from tamulag.streamer.app.build_agent import demo_files
from tamulag.streamer.bench.cpu_profile import shares, wave_of
from tamulag.streamer.core.sample import SAMPLE_RATE


def test_every_part_is_called_as_often_as_live() -> None:
    """Ten blocks and pictures a second, two hops, and words; each takes time."""
    found = {share.part: share for share in shares(6.0)}
    assert found["recogniser"].calls == found["face"].calls == 10.0
    assert 1.5 <= found["session, model"].calls == found["message"].calls <= 2.0
    assert found["text encoder"].calls > 0
    assert 0 < found["speech encoder"].calls <= 10.0
    assert all(share.cores > 0 and share.ms > 0 for share in found.values())


def test_a_wave_is_read_whole() -> None:
    """The demo's voice, 44 s at 16 kHz in [-1, 1]."""
    wave = wave_of(demo_files()[1])
    assert 40 < len(wave) / SAMPLE_RATE < 50
    assert 0.1 < abs(wave).max() <= 1.0
