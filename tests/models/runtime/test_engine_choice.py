"""Which engine steps how many sessions: measured."""

from collections.abc import Mapping
from time import sleep

import pytest
from torch import Tensor

from support.onnx_exports import Exported
from tamulag.models import Output, State, TamUlag, Ticks
from tamulag.models.nn.tam_ulag import Turns
from tamulag.models.runtime import engine_choice as module
from tamulag.models.runtime.checkpoint import CheckpointError
from tamulag.models.runtime.engine_choice import (
    AGAIN,
    REPEATS,
    EngineName,
    EngineTiming,
    engine_timings,
    open_engine,
    sizes_of,
)
from tamulag.models.runtime.step_engine import StepInput
from tamulag.models.runtime.torch_engine import TorchEngine


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
        ticks: Mapping[str, Ticks],
        now_BN: Tensor,
        state: State,
        allowed: Tensor | None = None,
        turns: Turns | None = None,
    ) -> tuple[Output, State]:
        counted.append(len(now_BN))
        return model.step(ticks, now_BN, state, allowed, turns)

    engine_timings(model, step, hop=25, batches=(1,))
    assert len([*filter(None, counted)]) // REPEATS == steps


def test_a_slow_step_is_not_chosen(model: TamUlag) -> None:
    """What is timed is the step that is given."""

    def slow(
        ticks: Mapping[str, Ticks],
        now_BN: Tensor,
        state: State,
        allowed: Tensor | None = None,
        turns: Turns | None = None,
    ) -> tuple[Output, State]:
        sleep(0.05)
        return model.step(ticks, now_BN, state, allowed, turns)

    found = engine_timings(model, slow, hop=25, batches=(1, 2))
    assert not sizes_of(found)
    assert all(choice.by_value > 0.05 > choice.in_place for choice in found)


def steps_of(engine: TorchEngine) -> float:
    """Return the score of a hop without anything in it."""
    nothing = StepInput(25, frozenset(), {}, (), (True, True, True))
    return float(engine.step([engine.open()], [nothing]).weight.sum())


def test_engine_is_torch_unless_a_file_is_given(exported: Exported) -> None:
    """`onnxruntime` by name wants a file, `torch` does not look at it."""
    model, checkpoint, file = exported
    assert steps_of(open_engine(model, checkpoint, capacity=1, hop=25)) == 0
    missing = file.with_name("missing.onnx")
    assert (
        steps_of(open_engine(model, checkpoint, capacity=1, hop=25, engine="torch", path=missing))
        == 0
    )
    with pytest.raises(CheckpointError, match=r"model\.onnx"):
        open_engine(model, checkpoint, capacity=1, hop=25, engine="onnxruntime")
    with pytest.raises(CheckpointError, match="not found"):
        open_engine(model, checkpoint, capacity=1, hop=25, path=missing)


@pytest.mark.parametrize("engine", ["onnxruntime", "auto"])
def test_engine_by_name_is_the_file(exported: Exported, engine: EngineName) -> None:
    """And `auto` takes one of the two."""
    model, checkpoint, file = exported
    opened = open_engine(model, checkpoint, capacity=2, hop=25, engine=engine, path=file)
    assert opened.free == 2
    assert steps_of(opened) == 0
