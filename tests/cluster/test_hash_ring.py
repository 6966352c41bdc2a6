"""Keys are spread evenly, and few move when a seat comes or goes."""

import subprocess
import sys
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamulag.streamer.cluster.hash_ring import HashRing

KEYS = [f"session {number}" for number in range(10_000)]

names = st.text(min_size=1, max_size=12)
rings = st.sets(names, min_size=2, max_size=10)


def placed(ring: HashRing) -> dict[str, str]:
    return {key: ring.place(key) for key in KEYS}


@settings(max_examples=25)
@given(rings)
def test_no_seat_has_much_more_than_its_share(members: set[str]) -> None:
    """Each has its fair share of ten thousand keys to 40 %, whatever the names."""
    counts = Counter(placed(HashRing(members)).values())
    fair = len(KEYS) / len(members)
    assert all(0.6 * fair < counts[name] < 1.4 * fair for name in members)


@settings(max_examples=25)
@given(rings, st.data())
def test_only_the_keys_of_a_seat_that_goes_move(members: set[str], draw: st.DataObject) -> None:
    """All others stay where their state is."""
    ring = HashRing(members)
    before = placed(ring)
    gone = draw.draw(st.sampled_from(sorted(members)))
    ring.remove(gone)
    after = placed(ring)
    assert all(after[key] == name for key, name in before.items() if name != gone)
    assert gone not in after.values()


@settings(max_examples=25)
@given(rings, names)
def test_a_new_seat_takes_its_share_and_nothing_else_moves(members: set[str], new: str) -> None:
    """Of n seats then, about one key in n moves, and to the new one only."""
    ring = HashRing(members - {new})
    before = placed(ring)
    ring.add(new)
    moved = {key: name for key, name in placed(ring).items() if name != before[key]}
    assert set(moved.values()) == {new}
    assert len(moved) == pytest.approx(len(KEYS) / len(ring.names), rel=0.4)


@settings(max_examples=25)
@given(rings, st.randoms(use_true_random=False))
def test_order_and_history_do_not_matter(members: set[str], random: Random) -> None:
    """Two servers that learned of the seats in another order agree."""
    shuffled = sorted(members)
    random.shuffle(shuffled)
    late = HashRing([*shuffled, "no member"])
    late.remove("no member")
    assert placed(HashRing(members)) == placed(late)


def test_another_process_gives_the_same_answer() -> None:
    """Whatever the seed of Python's own hash; the names were noted once, and stay."""
    program = (
        "from tamulag.streamer.cluster.hash_ring import Ring\n"
        "ring = Ring(['a', 'b', 'c'])\n"
        "print(*(ring.place(f'session {n}') for n in range(16)), sep='')"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.strip() == "abcaacbbababbbab"


def test_wrong_use_is_told() -> None:
    """An empty ring, a name twice, a name that is not there, no points."""
    with pytest.raises(LookupError, match=r"no seat for 'k7'.*add a name"):
        HashRing().place("k7")
    with pytest.raises(ValueError, match="'a' is in the ring already"):
        HashRing(["a", "a"])
    with pytest.raises(KeyError, match=r"'b' is not in the ring, which has \['a'\]"):
        HashRing(["a"]).remove("b")
    with pytest.raises(ValueError, match=r"points is 0.*at least 1"):
        HashRing(points=0)
