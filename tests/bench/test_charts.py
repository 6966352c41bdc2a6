"""Pictures of figures that were measured elsewhere."""

from pathlib import Path

from tamulag.models.bench.step_cost import HopCost
from tamulag.streamer.bench.charts import draw
from tamulag.streamer.bench.cpu_profile import Share

ROWS = [HopCost(w, 0.5, 1, 1.0, 2.0, w / 2, w, w / 2, 10.0, 2.0, 0.1) for w in (5.0, 60.0)]


def test_both_pictures_are_drawn(tmp_path: Path) -> None:
    """As PNG, in a folder that is made."""
    paths = draw(ROWS, [Share("face", 10.0, 6.0, 0.06)], tmp_path / "new")
    assert [path.name for path in paths] == ["performance-stream.png", "performance-session.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    """Without parts there is one picture, named by how many sessions were stepped together."""
    many = [row._replace(sessions=64) for row in ROWS]
    assert draw(many, [], tmp_path) == [tmp_path / "performance-stream-64.png"]
