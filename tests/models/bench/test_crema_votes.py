"""The votes of CREMA-D."""

from pathlib import Path

import numpy as np
import pytest

from tamulag.models.bench.crema_votes import VALENCE, read_votes
from tamulag.models.data.clips import DataError


def write(path: Path, rows: list[tuple[str, str, dict[str, int]]]) -> Path:
    """Write a table of (number, clip, votes)."""
    lines = [",".join(["", *VALENCE, "fileName"])]
    lines += [",".join([n, *(str(v.get(e, 0)) for e in VALENCE), clip]) for n, clip, v in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_weights_are_those_by_which_the_table_was_made(tmp_path: Path) -> None:
    """Votes on both follow the face by 3/4 and the voice by 1/4."""
    rng, rows = np.random.default_rng(1), []
    for clip in range(200):
        happy = {"1": int(rng.integers(0, 9)) * 4, "2": int(rng.integers(0, 9)) * 4}
        happy["3"] = (happy["1"] + 3 * happy["2"]) // 4
        rows += [
            (f"{kind}{clip:05}", f"clip{clip}", {"H": count, "S": 32 - count})
            for kind, count in happy.items()
        ]
    found = read_votes(write(tmp_path / "votes.csv", rows)).weighing()
    assert (found.clips, found.nearer_face) == (200, 1.0)
    assert (found.voice, found.face) == pytest.approx((0.25, 0.75), abs=1e-6)
    assert found.fit == pytest.approx(1.0)


def test_conflicts_that_the_face_decides(tmp_path: Path) -> None:
    """Not those where the voice does, nor where neither is clearly on its side of 0."""
    rows = [("1", "a", 8, 0), ("2", "a", 0, 8), ("3", "a", 1, 7)]
    rows += [("1", "b", 8, 0), ("2", "b", 0, 8), ("3", "b", 7, 1)]
    rows += [("1", "c", 4, 4), ("2", "c", 0, 8), ("3", "c", 0, 8)]
    table = [(f"{k}{clip}", clip, {"H": h, "S": s}) for k, clip, h, s in rows]
    votes = read_votes(write(tmp_path / "votes.csv", table))
    assert votes.labels()[0].tolist() == pytest.approx([2.4, -1.95])
    assert votes.face_decides(0.5).tolist() == [True, False, False]
    assert votes.face_decides(0.2).tolist() == [True, False, True]


def test_another_file_is_refused(tmp_path: Path) -> None:
    """Neither a table without votes nor one whose clips were not voted on three times."""
    with pytest.raises(DataError, match="tabulatedVotes"):
        read_votes(Path(__file__))
    with pytest.raises(DataError, match="no clip with votes"):
        read_votes(write(tmp_path / "votes.csv", [("100001", "a", {"H": 1})]))


@pytest.mark.data
def test_people_follow_the_face(data: Path) -> None:
    """The figures of docs/explanation/results.md."""
    votes = read_votes(data / "crema_d" / "tabulatedVotes.csv")
    found = votes.weighing()
    assert (found.clips, found.conflicts) == (7442, 1087)
    assert (found.voice, found.face) == pytest.approx((0.234, 0.853), abs=5e-4)
    assert (found.nearer_face, found.fit) == pytest.approx((0.930, 0.915), abs=5e-4)
