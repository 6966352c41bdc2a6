"""A load of subscribers notes every message, in processes that end with it."""

import asyncio
import json
import multiprocessing

import pytest

from support.waiting import until
from support.websocket_peers import missed, serve
from tamulag.streamer.bench.rig.subscribers import SubscriberLoad, percentile
from tamulag.streamer.webserver.server import WebSocketPublisher


def score(seq: int) -> str:
    """Return a score of one second ago by its `time`, and of two by its window."""
    stamp = "1970-01-01T00:00:00Z"
    return json.dumps({"type": "sentiment", "seq": seq, "time": stamp, "window": {"end": -1.0}})


def test_scores_are_timed_and_gaps_are_counted() -> None:
    """Number 3 never comes: one message is lost for each of two readers."""

    async def scenario(server: WebSocketPublisher) -> None:
        with SubscriberLoad(server.port, 2) as load:
            await until(lambda: server.subscribers == 2)
            for seq in (2, 4):
                server.publish("sentiment", score(seq))
            await asyncio.sleep(0.5)
            load.finish()
            await until(load.is_ready)
            received = load.reports()
        assert len(received.sent) == len(received.hop) == 4
        assert received.hop[0] - received.sent[0] == pytest.approx(1000, abs=50)
        assert received.lost == 2

    greeting = {"type": "hello", "seq": 1, "epoch": "1970-01-01T00:00:00Z"}
    server = WebSocketPublisher(port=0, hello=lambda: json.dumps(greeting), missed=missed)
    serve(scenario, server)
    assert multiprocessing.active_children() == []


def test_percentiles_of_few_values() -> None:
    """The last one is the highest; of nothing there is none."""
    assert [percentile([1.0, 2.0, 3.0], percent) for percent in (0, 50, 99, 100)] == [1, 2, 3, 3]
    assert str(percentile([], 50)) == "nan"
