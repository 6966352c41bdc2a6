"""Metrics and health: /metrics for Prometheus, /healthz for a supervisor.

Knows lines of JSON, as every publisher does, and the agent's gauges. Knows no socket.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from .routes import Page, Route

BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0)
"""Upper bounds in seconds; the largest means that something is wrong."""


class SubscriberCounts(Protocol):
    """A server whose subscribers are counted."""

    @property
    def subscribers(self) -> int:
        """Number of connected subscribers."""

    @property
    def refused(self) -> Mapping[str, int]:
        """Number of refused connections, by reason."""


class Metrics(Collector):
    """A publisher that only counts; the WebSocket server serves its pages.

    Args:
        gauges: Returns the agent's measurements by plain name; called at each scrape.
    """

    name = "metrics"
    dropped = 0

    def __init__(self, gauges: Callable[[], Mapping[str, float]]) -> None:
        self.server: SubscriberCounts | None = None
        self._gauges = gauges
        self._score: dict[str, Any] = {}
        self._status: dict[str, Any] = {}
        # A registry per instance: two agents in a process must not add up.
        self._registry = CollectorRegistry()
        self._messages = Counter(
            "tamulag_messages", "Messages published", ["type"], registry=self._registry
        )
        self._latency = Histogram(
            "tamulag_latency_seconds",
            "From the end of a hop to the sending of its score; absent for a file at full speed",
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._registry.register(self)

    async def open(self) -> None:
        """Do nothing: there is nothing to open."""

    def publish(self, kind: str, payload: str) -> None:
        """Count a message, and store the newest score and status."""
        self._messages.labels(kind).inc()
        if kind == "sentiment":
            self._score = json.loads(payload)
            latency = self._score["latency"]["total"]
            if latency is not None:
                self._latency.observe(latency)
        if kind == "status":
            self._status = json.loads(payload)

    def publish_of(self, session: str, kind: str, payload: str) -> None:
        """Count a message of one of many sessions, without the name of the session."""
        self._messages.labels(kind).inc()

    async def run(self) -> None:
        """Wait until cancelled: nothing is delivered."""
        await asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def routes(self) -> Mapping[str, Route]:
        """Return the two pages by path; only /healthz is served without a token."""
        return {
            "/healthz": Route(make=self.health, is_public=True),
            "/metrics": Route(make=self.page),
        }

    def health(self) -> Page:
        """Return the state and the lost modalities as JSON; status 503 while anything is lost."""
        about = {
            "state": self._status.get("state", "starting"),
            "lost": self._status.get("lost", {}),
            "pressure": self._status.get("pressure", []),
        }
        is_well = about["state"] != "starting" and not about["lost"]
        status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
        return Page(status, json.dumps(about) + "\n", "application/json")

    def page(self) -> Page:
        """Return all metrics in the text format of Prometheus."""
        body = generate_latest(self._registry).decode()
        return Page(HTTPStatus.OK, body, CONTENT_TYPE_PLAIN_0_0_4)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics that are read at each scrape; see prometheus_client."""
        yield from self._states()
        dropped = CounterMetricFamily("tamulag_input_dropped", "Lost input", labels=["input"])
        for name, count in self._score.get("dropped", {}).items():
            dropped.add_metric([name], count)
        yield dropped
        for name, value in sorted(self._gauges().items()):
            plain = re.sub(r"[^a-z0-9_]", "_", name.lower())
            yield GaugeMetricFamily(f"tamulag_{plain}", "See docs/reference/metrics.md", value)
        if self.server is not None:
            yield from _connections(self.server)

    def _states(self) -> Iterator[Metric]:
        is_online = float(self._status.get("state") == "online")
        yield GaugeMetricFamily("tamulag_online", "1: all is well, 0: degraded", is_online)
        lost = GaugeMetricFamily("tamulag_loss", "1: lost", labels=["what", "reason"])
        for what, reason in self._status.get("lost", {}).items():
            lost.add_metric([what, reason], 1)
        yield lost
        modality = GaugeMetricFamily(
            "tamulag_modality", "1: its status now", labels=["modality", "status"]
        )
        for name, part in self._score.get("modalities", {}).items():
            modality.add_metric([name, part["status"]], 1)
        yield modality


def _connections(server: SubscriberCounts) -> Iterator[Metric]:
    yield GaugeMetricFamily("tamulag_subscribers", "Connected subscribers", server.subscribers)
    refused = CounterMetricFamily("tamulag_refused", "Turned away", labels=["reason"])
    for reason, count in server.refused.items():
        refused.add_metric([reason], count)
    yield refused
