"""A source that goes silent without an error is found by the age of its newest sample."""

from tamulag.streamer.core.source_watchdog import FIRST_LIMIT, LIMIT, REASON, SourceWatchdog


def watching() -> SourceWatchdog:
    """Return a watch that saw both modalities at 10 s."""
    watch = SourceWatchdog(["audio", "vision"])
    watch.saw("audio", 10.0)
    watch.saw("vision", 10.0)
    return watch


def notices(
    watch: SourceWatchdog, now: float, lost: dict[str, str] | None = None
) -> list[tuple[str, object]]:
    return [(notice.modality, notice.reason) for notice in watch.poll(now, lost or {})]


def test_silence_is_reported_after_the_limit() -> None:
    """Only the modality that is silent, and not before."""
    watch = watching()
    watch.saw("audio", 12.0)
    assert notices(watch, 10.0 + LIMIT) == []
    assert notices(watch, 10.1 + LIMIT) == [("vision", REASON)]


def test_silence_is_reported_once() -> None:
    """As long as it is in the status, nothing more is reported."""
    watch = watching()
    watch.poll(20.0, {})
    assert notices(watch, 21.0, {"audio": REASON, "vision": REASON}) == []


def test_the_return_is_reported() -> None:
    """The next sample brings it back."""
    watch = watching()
    watch.saw("audio", 20.0)
    watch.poll(20.0, {})
    watch.saw("vision", 20.5)
    assert notices(watch, 20.5, {"vision": REASON}) == [("vision", None)]
    assert notices(watch, 20.6) == []


def test_a_loss_reported_by_the_source_is_ignored() -> None:
    """A lost camera is not reported twice; its source reports the return."""
    watch = watching()
    watch.saw("audio", 20.0)
    assert notices(watch, 20.0, {"vision": "camera_lost"}) == []
    assert notices(watch, 20.1) == []


def test_a_source_that_takes_over_ends_the_watch_s_own_notice() -> None:
    """First silent, then lost by its source: only the source reports the return."""
    watch = watching()
    watch.saw("audio", 20.0)
    assert notices(watch, 20.0) == [("vision", REASON)]
    assert notices(watch, 20.1, {"vision": "camera_lost"}) == []
    watch.saw("vision", 20.2)
    assert notices(watch, 20.2) == []


def test_the_first_sample_has_more_time() -> None:
    """A device may need some seconds to begin."""
    watch = SourceWatchdog(["audio"])
    assert notices(watch, FIRST_LIMIT) == []
    assert notices(watch, FIRST_LIMIT + 0.1) == [("audio", REASON)]
