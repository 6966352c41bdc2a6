"""A real Ray node is killed under 100 sessions: the bench, short."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.ray_cluster import marked, need_ray

pytestmark = pytest.mark.timeout(300)

PROGRAM = Path(sys.executable).parent / "tamulag"


def test_a_killed_node_loses_no_score_and_repeats_none() -> None:
    """All its sessions go on, to the scores of a run in which nothing was lost."""
    need_ray()
    done = subprocess.run(
        [PROGRAM, "bench", "cluster", "--sessions", "100", "--seconds", "9", "--json"],
        env=os.environ | {"TAMULAG_TEST_OUTAGE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 25 < found["on_node"] < 75
    assert found["recovered"] == found["on_node"]
    assert (found["lost"], found["twice"]) == (0, 0)
    assert found["max_abs_diff"] <= 1e-5
    assert found["next_max_s"] < 15
    assert not marked("TAMULAG_TEST_OUTAGE")
