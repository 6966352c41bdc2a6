"""A source that goes silent without an error is found by the age of its newest sample."""

from tamulag.streamer.core.source_watchdog import FIRST_LIMIT, LIMIT, REASON, SourceWatchdog


def watching() -> SourceWatchdog:
    """Return a watch that saw both modalities at 10 s."""
    watch = SourceWatchdog(["audio", "vision"])
    watch.saw("audio", 10.0)
    watch.saw("vision", 10.0)
    return watch


def told(
    watch: SourceWatchdog, now: float, lost: dict[str, str] | None = None
) -> list[tuple[str, object]]:
    return [(notice.modality, notice.reason) for notice in watch.look(now, lost or {})]


def test_silence_is_told_after_the_limit() -> None:
    """Only the modality that is silent, and not before."""
    watch = watching()
    watch.saw("audio", 12.0)
    assert told(watch, 10.0 + LIMIT) == []
    assert told(watch, 10.1 + LIMIT) == [("vision", REASON)]


def test_it_is_told_once() -> None:
    """As long as it is in the status, nothing more is said."""
    watch = watching()
    watch.look(20.0, {})
    assert told(watch, 21.0, {"audio": REASON, "vision": REASON}) == []


def test_the_return_is_told() -> None:
    """The next sample brings it back."""
    watch = watching()
    watch.saw("audio", 20.0)
    watch.look(20.0, {})
    watch.saw("vision", 20.5)
    assert told(watch, 20.5, {"vision": REASON}) == [("vision", None)]
    assert told(watch, 20.6) == []


def test_what_its_source_has_told_is_left_to_it() -> None:
    """A lost camera is not told twice, and its source says when it is back."""
    watch = watching()
    watch.saw("audio", 20.0)
    assert told(watch, 20.0, {"vision": "camera_lost"}) == []
    assert told(watch, 20.1) == []


def test_a_source_that_takes_over_ends_the_watch_s_own_notice() -> None:
    """First silent, then lost by its source: the return is told by the source alone."""
    watch = watching()
    watch.saw("audio", 20.0)
    assert told(watch, 20.0) == [("vision", REASON)]
    assert told(watch, 20.1, {"vision": "camera_lost"}) == []
    watch.saw("vision", 20.2)
    assert told(watch, 20.2) == []


def test_the_first_sample_has_more_time() -> None:
    """A device may need some seconds to begin."""
    watch = SourceWatchdog(["audio"])
    assert told(watch, FIRST_LIMIT) == []
    assert told(watch, FIRST_LIMIT + 0.1) == [("audio", REASON)]
