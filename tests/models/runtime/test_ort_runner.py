"""Tensors in, tensors out, through a real session."""

import onnxruntime
import pytest
import torch
from torch import Tensor

from support.model_contract import same_state, tensors
from support.onnx_exports import Exported
from tamulag.models.nn.tam_ulag import MODALITIES
from tamulag.models.runtime.onnx_engine import OnnxStep
from tamulag.models.runtime.ort_runner import Runner


@pytest.fixture
def session(exported: Exported) -> onnxruntime.InferenceSession:
    """Return the exported step, opened."""
    return onnxruntime.InferenceSession(
        exported.file.read_bytes(), providers=["CPUExecutionProvider"]
    )


def given_to(runner: Runner, exported: Exported, batch: int = 2) -> list[Tensor]:
    """Return inputs of sessions to which three ticks came."""
    model = exported.model
    found: dict[str, Tensor] = {}
    for name, branch in zip(MODALITIES, model.initial_state(batch), strict=True):
        time = torch.arange(3).repeat(batch, 1)
        values = torch.randn(batch, 3, getattr(model.config, name).dim)
        parts = {"values": values, "mask": time >= 0, "time": time, "ready": time + 1}
        found |= {f"ticks.{name}.{key}": part for key, part in parts.items()}
        for state in branch:
            found |= {f"state.{name}.{key}": part for key, part in state._asdict().items()}
    found |= {"now": torch.full((batch, 1), 9), "allowed": torch.ones(batch, 1, 3).bool()}
    found |= {"since": torch.ones(batch, 1, 2).long(), "share": torch.full((batch, 1, 2), 0.5)}
    return [found[name] for name in runner.inputs]


def test_the_same_as_through_numpy(
    exported: Exported, session: onnxruntime.InferenceSession
) -> None:
    """To the bit, with the same types, truth values among them."""
    given = given_to(Runner(session), exported)
    wanted = Runner(session, in_place=False)(given)
    for ours, theirs in zip(Runner(session, in_place=True)(given), wanted, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def test_what_does_not_lie_in_a_row_is_copied(
    exported: Exported, session: onnxruntime.InferenceSession
) -> None:
    """A transposed tensor is its numbers, not its memory."""
    runner = Runner(session)
    given = given_to(runner, exported)
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in given]
    assert not all(x.is_contiguous() for x in turned)
    for one, other in zip(runner(given), runner(turned), strict=True):
        assert torch.equal(one, other)


def test_results_outlive_the_next_run(
    exported: Exported, session: onnxruntime.InferenceSession
) -> None:
    """Their memory is their own."""
    runner = Runner(session)
    first = runner(given_to(runner, exported))
    kept = [x.clone() for x in first]
    runner(given_to(runner, exported))
    assert all(torch.equal(one, other) for one, other in zip(first, kept, strict=True))


def test_another_type_is_refused(exported: Exported, session: onnxruntime.InferenceSession) -> None:
    """Its memory would be read as something else; the error names it."""
    runner = Runner(session)
    given = given_to(runner, exported)
    given[0] = given[0].double()
    with pytest.raises(ValueError, match=r"ticks\.text\.values is torch\.float64 on cpu"):
        runner(given)


def test_state_with_gradients_is_taken(exported: Exported) -> None:
    """One that torch has made while it recorded gradients."""
    onnx = OnnxStep(exported.file, exported.model, exported.checkpoint)
    start, now = exported.model.initial_state(1), torch.tensor([[9]])
    wanted = onnx.step({}, now, start)[1]
    text = start.text._replace(
        memory=start.text.memory._replace(hidden=start.text.memory.hidden.requires_grad_())
    )
    found = onnx.step({}, now, start._replace(text=text))[1]
    same_state(found, wanted, "gradients")
    assert not any(x.requires_grad for x in tensors(found))
