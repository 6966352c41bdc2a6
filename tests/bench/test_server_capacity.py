"""How many seats a server carries: the bench, small."""

import json

import pytest

from support.command_line import run
from tamulag.streamer.bench.server_capacity import batched, capacity

pytestmark = pytest.mark.timeout(300)


def test_a_rejected_sender_is_admitted_when_others_have_left() -> None:
    """Two at a time are served; the other two come when the first have gone."""
    found = capacity(4, 3.0, options=("--seats", "2"))
    assert (found.sessions, found.refused) == (4, {})
    assert found.scores == found.wanted == 4 * 6


def test_many_together_cost_less_than_one_by_one() -> None:
    """By much more than measuring errors."""
    assert batched(16, hops=4).speedup > 2


def test_a_few_sessions_are_served_in_real_time() -> None:
    """Each gets every score; the verb tells it as one object, with the keys others rely on."""
    options = ("--sessions", "6", "--seconds", "6", "--senders", "2", "--json")
    # Not in this process: the verb lets memory stay with it for good.
    done = run("tamulag", "bench", "serve", *options)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["asked"], report["sessions"], report["refused"]) == (6, 6, {})
    assert report["scores"] == report["wanted"] == 6 * 12
    assert 0 < report["cores"] < 1
    assert 0 < report["p50_ms"] <= report["p99_ms"]
    assert {"realtime", "batched_speedup", "machine"} <= report.keys()
