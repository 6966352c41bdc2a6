"""A real Ray node is killed under 40 sessions: the bench, short."""

import json

import pytest

from support.command_line import run
from support.ray_cluster import marked, need_ray

pytestmark = pytest.mark.timeout(300)


def test_a_killed_node_loses_no_score_and_repeats_none() -> None:
    """All its sessions go on, to the scores of a run in which nothing was lost."""
    need_ray()
    options = ("--sessions", "40", "--seconds", "9", "--json")
    done = run("tamulag", "bench", "cluster", *options, TAMULAG_TEST_OUTAGE=1)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 10 < found["on_node"] < 30
    assert found["recovered"] == found["on_node"]
    assert (found["lost"], found["twice"]) == (0, 0)
    assert found["max_abs_diff"] <= 1e-5
    assert found["next_max_s"] < 60
    assert not marked("TAMULAG_TEST_OUTAGE")
