"""Fresh processes are started for real, a few of each."""

import pytest

from tamulag.streamer.bench.process_footprint import first_score, session, start
from tamulag.streamer.bench.rig.processes import StageError

pytestmark = pytest.mark.timeout(300)


def test_a_start_has_all_its_figures() -> None:
    """The interpreter is in both others, and the score comes last."""
    found = start(1)
    assert 0 < found.python_s < found.help_s < found.first_score_s <= found.slowest_s


def test_a_start_without_a_score_has_a_reason() -> None:
    """What the process said stands in the error."""
    with pytest.raises(StageError, match=r"no score .*checkpoint 'nope' not found"):
        first_score("--checkpoint", "nope")


def test_a_live_session_is_watched() -> None:
    """Its processor time and memory, of which some is no file's."""
    found = session(["--demo", "--loop"], 1.0)
    assert found.cores > 0
    assert found.rss_mb > found.own_mb > 50
