"""A service of one session with scripted sources and publishers of the test."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tamulag.streamer.core.session import Session
from tamulag.streamer.core.source import Source
from tamulag.streamer.protocol.session_messages import RunInfo, SessionMessages
from tamulag.streamer.publishers.publisher import Publisher
from tamulag.streamer.service.clock import SessionClock
from tamulag.streamer.service.local_feed import LocalFeed
from tamulag.streamer.service.outputs import Outputs
from tamulag.streamer.service.service import Service


class Live(NamedTuple):
    """A service, and its feed."""

    service: Service
    feed: LocalFeed


def live(
    session: Session,
    sources: Sequence[Source],
    publishers: Iterable[Publisher],
    about: RunInfo,
    **settings: Any,
) -> Live:
    """Return a service that has not run; `settings` are those of its feed."""
    outputs, clock = Outputs(publishers), SessionClock()
    sent = SessionMessages("session1", about, wall_now=clock.wall_now, send=outputs.publish)
    feed = LocalFeed(
        session=session, sources=sources, outputs=outputs, messages=sent, clock=clock, **settings
    )
    return Live(Service(feed=feed, outputs=outputs, messages=sent), feed)
