"""What the pages of figures say, read back by Prometheus' own parser."""

import json
from collections import Counter
from dataclasses import dataclass, field

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tamulag.streamer.protocol import messages
from tamulag.streamer.webserver.metrics import Metrics

HEAD = {"session": "s", "seq": 1, "time": "2026-11-24T00:00:00.000Z"}


@dataclass
class Row:
    """A server with seven seats taken."""

    subscribers: int = 7
    refused: Counter[str] = field(default_factory=lambda: Counter({"too many subscribers": 2}))


def score(total: float | None, **status: str) -> str:
    """Return the line of a score with what is counted of it."""
    return json.dumps(
        {
            "latency": {"total": total},
            "dropped": {"vision": 3, "audio": 0},
            "modalities": {name: {"status": word} for name, word in status.items()},
        }
    )


def state(word: messages.StateWord, **lost: str) -> str:
    return messages.encode(messages.State(state=word, lost=lost, **HEAD))


def figures(metrics: Metrics) -> dict[str, float]:
    """Return every sample of the page by its name and the values of its labels, sorted by label."""
    families = text_string_to_metric_families(metrics.page().body)
    samples = [sample for family in families for sample in family.samples]
    return {" ".join([one.name, *labels(one)]): one.value for one in samples}


def labels(sample: Sample) -> list[str]:
    return [value for _, value in sorted(sample.labels.items())]


def test_what_is_published_is_counted() -> None:
    """By type; the latency of scores as a histogram of seconds."""
    metrics = Metrics(dict)
    for total in (0.04, 0.34, 7.0):
        metrics.publish("sentiment", score(total, audio="ok"))
    metrics.publish("text", "{}")
    found = figures(metrics)
    assert found["tamulag_messages_total sentiment"] == 3
    assert found["tamulag_messages_total text"] == 1
    assert found["tamulag_latency_seconds_bucket 0.05"] == 1
    assert found["tamulag_latency_seconds_bucket 0.4"] == 2
    assert found["tamulag_latency_seconds_count"] == 3
    assert found["tamulag_latency_seconds_sum"] == pytest.approx(7.38)


def test_a_file_at_full_speed_has_no_latency() -> None:
    """Its scores are counted all the same."""
    metrics = Metrics(dict)
    metrics.publish("sentiment", score(None))
    found = figures(metrics)
    assert found["tamulag_messages_total sentiment"] == 1
    assert found["tamulag_latency_seconds_count"] == 0


def test_the_newest_status_and_score_are_shown() -> None:
    """What is lost and why, each modality's status, and lost input; the old ones are gone."""
    metrics = Metrics(dict)
    metrics.publish("sentiment", score(0.1, audio="ok", vision="ok"))
    metrics.publish("sentiment", score(0.1, audio="ok", vision="missing"))
    metrics.publish("status", state("degraded", vision="camera_lost"))
    found = figures(metrics)
    assert found["tamulag_online"] == 0
    assert found["tamulag_loss camera_lost vision"] == 1
    assert found["tamulag_modality vision missing"] == 1
    assert "tamulag_modality vision ok" not in found
    assert found["tamulag_input_dropped_total vision"] == 3


def test_the_agents_figures_and_connections_are_read_at_each_scrape() -> None:
    """Under their plain names; a name that Prometheus would refuse is made plain."""
    gauges = {"inbox_waited": 0.25, "publisher_dropped_websocket": 4, "Odd name-1": 1}
    metrics = Metrics(lambda: gauges)
    metrics.server = Row()
    gauges["inbox_waited"] = 0.5
    found = figures(metrics)
    assert found["tamulag_inbox_waited"] == 0.5
    assert found["tamulag_publisher_dropped_websocket"] == 4
    assert found["tamulag_odd_name_1"] == 1
    assert found["tamulag_subscribers"] == 7
    assert found["tamulag_refused_total too many subscribers"] == 2


def test_two_agents_in_a_process_do_not_add_up() -> None:
    """Nothing is kept outside of the object."""
    one, other = Metrics(dict), Metrics(dict)
    one.publish("text", "{}")
    assert "tamulag_messages_total text" not in figures(other)


def test_health_is_503_until_the_first_status() -> None:
    """A supervisor waits for a run that is still starting."""
    metrics = Metrics(dict)
    assert metrics.health().status == 503
    assert json.loads(metrics.health().body)["state"] == "starting"


def test_health_is_503_while_something_is_lost() -> None:
    """It names what, and why; 200 again when it is back."""
    metrics = Metrics(dict)
    metrics.publish("status", state("online"))
    assert metrics.health().status == 200
    metrics.publish("status", state("degraded", audio="microphone_lost"))
    page = metrics.health()
    assert page.status == 503
    assert json.loads(page.body)["lost"] == {"audio": "microphone_lost"}
    metrics.publish("status", state("online"))
    assert metrics.health().status == 200


def test_health_shows_no_more_than_that() -> None:
    """It is shown without a token: no words, no name of a session or a device."""
    metrics = Metrics(dict)
    metrics.publish("status", state("online"))
    assert set(json.loads(metrics.health().body)) == {"state", "lost", "pressure"}
