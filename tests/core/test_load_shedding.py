"""Steps are given up in order under strain, and taken up in reverse order when there is room."""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamulag.streamer.core.load_shedding import CALM, PATIENCE, STEPS, LoadShedder, steps_for

HIGH, MIDDLE, LOW = 1.5, 0.7, 0.1


def levels(pressure: LoadShedder, strains: Iterable[float], start: float = 0.0) -> list[int]:
    """Give one strain per second, in ten measurements, and return the level after each second."""
    found = []
    for second, strain in enumerate(strains):
        for tenth in range(11):
            pressure.observe(start + second + tenth / 10, strain)
        found.append(pressure.level)
    return found


def test_three_seconds_of_strain_give_up_the_next_step() -> None:
    """One step per three seconds, in the stated order, and not one more than there are."""
    pressure = LoadShedder()
    assert levels(pressure, [HIGH] * 12) == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3]
    assert pressure.given_up == ("vision_rate", "asr_partials", "hop")


def test_a_short_stall_gives_up_nothing() -> None:
    """A single long wait, or two seconds of strain, is no slow machine."""
    pressure = LoadShedder()
    assert set(levels(pressure, [9.0, LOW, HIGH, HIGH, LOW] * 10)) == {0}
    assert not pressure.observe(60.0, 20.0)


def test_steps_are_taken_up_in_reverse_order() -> None:
    """Ten seconds with room for each; the hop comes back first."""
    pressure = LoadShedder()
    levels(pressure, [HIGH] * 9)
    found = levels(pressure, [LOW] * 3 * CALM, start=9.0)
    assert [found.index(level) + 1 for level in (2, 1, 0)] == [CALM, 2 * CALM, 3 * CALM]


def test_between_strain_and_room_nothing_changes() -> None:
    """Hysteresis: what is neither too slow nor roomy stays as it is."""
    pressure = LoadShedder()
    levels(pressure, [HIGH] * PATIENCE)
    assert set(levels(pressure, [MIDDLE] * 600, start=3.0)) == {1}


def test_after_a_relapse_the_next_attempt_comes_later() -> None:
    """A machine that is just too slow does not swing: its pauses double, up to five minutes."""
    pressure = LoadShedder()
    # Room while the step is given up, strain while it is not.
    changes: list[int] = []
    before = 0
    for second in range(2400):
        level = levels(pressure, [LOW if pressure.level else HIGH], start=float(second))[0]
        if before == 1 and level == 0:
            changes.append(second)
        before = level
    pauses = [after - before for before, after in pairwise(changes)]
    assert pauses[:4] == [20 + PATIENCE, 40 + PATIENCE, 80 + PATIENCE, 160 + PATIENCE]
    assert set(pauses[4:]) == {300 + PATIENCE}


@given(st.lists(st.sampled_from([LOW, MIDDLE, HIGH]), max_size=100))
def test_the_level_moves_by_one_and_stays_in_range(strains: list[float]) -> None:
    """Whatever happens, one step at a time."""
    found = [0, *levels(LoadShedder(), strains)]
    assert all(abs(b - a) <= 1 for a, b in pairwise(found))
    assert set(found) <= set(range(len(STEPS) + 1))


@pytest.mark.parametrize(
    ("asked", "hop", "steps"),
    [
        (("text", "audio", "vision"), 0.5, STEPS),
        (("audio",), 0.5, ("hop",)),
        (("vision",), 5.0, ("vision_rate",)),
    ],
)
def test_only_what_is_there_can_be_given_up(
    asked: tuple[str, ...], hop: float, steps: tuple[str, ...]
) -> None:
    """Without a camera there are no pictures to save, and a hop must fit into the window."""
    assert steps_for(asked, hop, window=5.0) == steps
