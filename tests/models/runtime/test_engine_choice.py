"""Which engine steps how many sessions: measured."""

from collections.abc import Mapping
from time import sleep

import pytest
from torch import Tensor

from tamulag.models import Output, State, TamUlag, Ticks
from tamulag.models.runtime import engine_choice as module
from tamulag.models.runtime.engine_choice import (
    AGAIN,
    REPEATS,
    EngineTiming,
    engine_timings,
    sizes_of,
)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(1, 2.0, 1.0), (4, 2.0, 1.0), (8, 1.0, 2.0)], {1, 2, 3, 4}),
        ([(1, 1.0, 2.0), (4, 2.0, 1.0)], {2, 3, 4}),
        ([(1, 2.0, 1.0), (4, 1.0, 2.0), (6, 2.0, 1.0)], {1, 5, 6}),
        ([], set()),
    ],
)
def test_each_size_has_its_faster_step(
    pairs: list[tuple[int, float, float]], expected: set[int]
) -> None:
    """Whatever is faster for smaller ones; between two sizes it is as for the larger."""
    assert sizes_of([EngineTiming(*pair) for pair in pairs]) == expected


@pytest.mark.parametrize(("close", "steps"), [(1.0, 1), (1e9, 1 + AGAIN)])
def test_a_close_call_is_timed_again(
    model: TamUlag, monkeypatch: pytest.MonkeyPatch, close: float, steps: int
) -> None:
    """Noise of a few steps does not decide; what is clear is not timed twice."""
    monkeypatch.setattr(module, "CLOSE", close)
    counted: list[int] = []

    def step(
        ticks: Mapping[str, Ticks], now_BN: Tensor, state: State, allowed: Tensor | None = None
    ) -> tuple[Output, State]:
        counted.append(len(now_BN))
        return model.step(ticks, now_BN, state, allowed)

    engine_timings(model, step, hop=25, batches=(1,))
    assert len([*filter(None, counted)]) // REPEATS == steps


def test_a_slow_step_is_not_chosen(model: TamUlag) -> None:
    """What is timed is the step that is given."""

    def slow(
        ticks: Mapping[str, Ticks], now_BN: Tensor, state: State, allowed: Tensor | None = None
    ) -> tuple[Output, State]:
        sleep(0.02)
        return model.step(ticks, now_BN, state, allowed)

    found = engine_timings(model, slow, hop=25, batches=(1, 2))
    assert not sizes_of(found)
    assert all(choice.by_value > 0.02 > choice.in_place for choice in found)
