"""How many seats a server carries: the bench, small."""

import json

from typer.testing import CliRunner

from tamulag.streamer.capacity import batched, capacity
from tamulag.streamer.cli import app


def test_a_few_seats_are_served_in_real_time() -> None:
    """Each gets every score; the server's share and memory are measured."""
    found = capacity(6, 6.0, senders=2)
    assert (found.asked, found.sessions, found.refused) == (6, 6, {})
    assert found.scores == found.wanted == 6 * 12
    assert 0 < found.cores < 1
    assert 0 < found.p50_ms <= found.p99_ms


def test_who_is_told_to_try_again_gets_in_when_others_have_left() -> None:
    """Two at a time are served; the other two come when the first have gone."""
    found = capacity(4, 6.0, options=("--seats", "2"))
    assert (found.sessions, found.refused) == (4, {})
    assert found.scores == found.wanted == 4 * 12


def test_many_together_cost_less_than_one_by_one() -> None:
    """By much more than measuring errors."""
    assert batched(16, hops=4).speedup > 2


def test_the_verb_tells_what_others_rely_on() -> None:
    """One object, with the keys of the project's design."""
    options = ["bench", "serve", "--sessions", "3", "--seconds", "6", "--json"]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["sessions"] == 3
    assert {"realtime", "p99_ms", "batched_speedup"} <= report.keys()
