"""The WebSocket port of a configuration: its server, its pages, and the figures of /metrics.

Knows the settings of the port and what belongs on it. Runs nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..config.loader import Config
from ..config.schema import WebSocketConfig
from ..protocol import messages
from ..publishers.publisher import Publisher, ServiceStatus
from ..webserver import dashboard, widgets
from ..webserver.access_control import AuthSettings, access, is_loopback
from ..webserver.connection import Limits
from ..webserver.metrics import Metrics
from ..webserver.routes import Route
from ..webserver.server import Receive, SessionGreeting, WebSocketPublisher

if TYPE_CHECKING:
    from ..service.ingest_endpoint import IngestEndpoint, Senders


@dataclass(frozen=True, kw_only=True)
class WebOptions:
    """Connections to the WebSocket port beside subscribers.

    Attributes:
        receive: Receives a sender.
        greet: Makes the hello for subscribers of one of many sessions.
        routes: More pages, by path.
        senders: At once; they count for what one address may open.
    """

    receive: Receive | None = None
    greet: SessionGreeting | None = None
    routes: Mapping[str, Route] = field(default_factory=dict)
    senders: int = 0


def build_web(
    config: Config, status: ServiceStatus, history: Mapping[str, Route], web: WebOptions
) -> list[Publisher]:
    """Return the server, and the counter whose pages it shows.

    Args:
        config: The settings.
        status: Of the service that is published.
        history: Pages of the history, by path.
        web: Connections beside subscribers.

    Raises:
        PublisherError: If the address cannot be used.
    """
    chosen = config.websocket
    lock = AuthSettings(**chosen.model_dump(include=set(AuthSettings.__dataclass_fields__)))
    metrics = Metrics(status.gauges)
    server = WebSocketPublisher(
        access(chosen.host, lock, origins=chosen.origins),
        chosen.port,
        hello=status.hello,
        missed=lambda count: messages.missed(status.hello(), count),
        routes={
            **dashboard.routes(),
            **widgets.routes(captures=web.receive is not None),
            **metrics.routes(),
            **history,
            **web.routes,
        },
        limits=limits_of(chosen, web.senders),
        receive=web.receive,
        greet=web.greet,
    )
    metrics.server = server
    return [server, metrics]


def endpoint_of(config: Config, senders: "Senders") -> "IngestEndpoint":
    """Return the ingest endpoint of a configuration, for `WebOptions.receive`."""
    from ..service.ingest_endpoint import IngestEndpoint, SenderLimits

    limits = config.ingest
    return IngestEndpoint(
        senders,
        subject=config.session.subject,
        limits=SenderLimits(
            message=limits.max_message,
            rate=limits.max_rate,
            bandwidth=limits.max_bandwidth,
            duration=limits.max_duration,
        ),
    )


def limits_of(chosen: WebSocketConfig, senders: int) -> Limits:
    """Return the limits of connections, with so many senders at once."""
    # All of this machine is one address, and so is a proxy for many others.
    # After a restart all senders come at once: they are refused with a time, not disconnected.
    pending = max(chosen.max_pending, senders)
    many = chosen.max_subscribers + pending + senders
    few = many if is_loopback(chosen.host) or chosen.host == "localhost" else 20
    return Limits(
        subscribers=chosen.max_subscribers,
        per_address=chosen.max_per_address or few,
        pending=pending,
        queue=chosen.queue,
        message=chosen.max_message,
        rate=chosen.max_rate,
    )
