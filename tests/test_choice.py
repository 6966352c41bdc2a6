"""Which engine steps how many sessions: measured."""

from collections.abc import Mapping
from time import sleep

import pytest
from torch import Tensor

from tamulag.models import Output, State, TamUlag, Ticks
from tamulag.models.choice import Choice, choices, few


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(1, 2.0, 1.0), (4, 2.0, 1.0), (16, 1.0, 2.0)], 4),
        ([(1, 1.0, 2.0), (4, 2.0, 1.0)], 0),
        ([(1, 2.0, 1.0)], 1),
        ([], 0),
    ],
)
def test_the_other_step_is_for_few(pairs: list[tuple[int, float, float]], expected: int) -> None:
    """As far as it is the faster one, from one session on without a gap."""
    assert few([Choice(*pair) for pair in pairs]) == expected


def test_a_slow_step_is_not_chosen(model: TamUlag) -> None:
    """What is timed is the step that is given."""

    def slow(
        ticks: Mapping[str, Ticks], now_BN: Tensor, state: State, allowed: Tensor | None = None
    ) -> tuple[Output, State]:
        sleep(0.02)
        return model.step(ticks, now_BN, state, allowed)

    found = choices(model, slow, hop=25, batches=(1, 2))
    assert few(found) == 0
    assert all(choice.by_value > 0.02 > choice.in_place for choice in found)
