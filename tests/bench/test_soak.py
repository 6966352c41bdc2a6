"""A short soak of a real agent has all figures but the slope."""

from tamulag.streamer.bench.soak import SUBSCRIBERS, soak


def test_a_short_run_is_measured() -> None:
    """All subscribers get scores; a run below two minutes claims no slope."""
    found = soak(["--demo", "--loop", "--asr", "none"], 0.1, lambda _: None)
    assert found.rss_mb_per_min is None
    assert found.received >= SUBSCRIBERS
    assert 0 < found.p50_ms <= found.p95_ms <= found.p99_ms
    assert found.rss_mb[1] > 100
    assert found.cores > 0
