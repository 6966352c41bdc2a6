"""The exported step in the place of the model's."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch

from support.model_contract import ends, same_state, stream, tensors
from support.onnx_exports import Exported
from tamulag.models import TamUlag, Ticks, save
from tamulag.models.nn.tam_ulag import State
from tamulag.models.runtime.checkpoint import Card, CheckpointError
from tamulag.models.runtime.onnx_engine import OnnxStep, faster

CLOSE = 1e-5


@pytest.fixture
def onnx(exported: Exported) -> OnnxStep:
    """Return the exported step, opened."""
    return OnnxStep(exported.file, exported.model, exported.checkpoint)


@pytest.fixture
def model(exported: Exported) -> TamUlag:
    """Return the model that was exported."""
    return exported.model


def first(model: TamUlag, *names: str) -> dict[str, Ticks]:
    """Return what some modalities brought to the first hop of three sessions."""
    whole = stream(model, hops=1)
    return {name: whole[name] for name in names}


def far(one: State, other: State) -> float:
    """Return the largest difference of two states."""
    pairs = zip(tensors(one), tensors(other), strict=True)
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs if a.numel())


def test_a_modality_that_brought_nothing_has_no_weights(onnx: OnnxStep, model: TamUlag) -> None:
    """The tick that fills its place in the graph is not to be seen."""
    x = first(model, "audio")
    wanted, _ = model.step(x, ends(stream(model), 0, 1), model.initial_state(3))
    found, _ = onnx.step(x, ends(stream(model), 0, 1), model.initial_state(3))
    for ours, theirs in zip(wanted.attention, found.attention, strict=True):
        assert theirs.weight.shape == ours.weight.shape
        assert torch.equal(theirs.time, ours.time)
    assert found.present.tolist() == wanted.present.tolist()


def test_a_session_may_change_its_engine(onnx: OnnxStep, model: TamUlag) -> None:
    """The state of either is one for the other."""
    x, now = first(model, "text", "audio", "vision"), ends(stream(model), 0, 1)
    with torch.inference_mode():
        state = onnx.step(x, now, model.step(x, now, model.initial_state(3))[1])[1]
        mixed = model.step(x, now, state)[1]
        state = model.initial_state(3)
        for _ in range(3):
            state = model.step(x, now, state)[1]
    assert far(mixed, state) < CLOSE


def test_who_brought_nothing_keeps_the_state(onnx: OnnxStep, model: TamUlag) -> None:
    """To the bit, for one session of three."""
    now = ends(stream(model), 0, 1)
    _, state = onnx.step(first(model, "text", "audio", "vision"), now, model.initial_state(3))
    one = torch.tensor([[True], [False], [True]])
    some = {n: t._replace(mask=t.mask & one) for n, t in first(model, "text", "audio").items()}
    _, after = onnx.step(some, now, state)
    for ours, theirs in zip(tensors(state), tensors(after), strict=True):
        assert torch.equal(ours[1], theirs[1])
    _, after = onnx.step({}, now, state)
    same_state(after, state, "nothing came")


def test_step_changes_no_argument(onnx: OnnxStep, model: TamUlag) -> None:
    """Although arrays and tensors share their memory."""
    x, now = first(model, "text", "audio", "vision"), ends(stream(model), 0, 1)
    _, state = onnx.step(x, now, model.initial_state(3))
    kept = deepcopy(state)
    _, after = onnx.step(x, now, state)
    onnx.step(x, now, after)
    same_state(state, kept, "argument")


def test_more_than_one_hop_is_refused(onnx: OnnxStep, model: TamUlag) -> None:
    """The graph has one."""
    with pytest.raises(ValueError, match="2 hops"):
        onnx.step({}, ends(stream(model), 0, 2), model.initial_state(3))


def test_file_of_another_checkpoint_is_refused(exported: Exported, tmp_path: Path) -> None:
    """Trained again means exported again; the command is in the error."""
    other = tmp_path / "other.safetensors"
    save(exported.model, Card(trained={"text": True}), other)
    with pytest.raises(CheckpointError, match=r"checkpoint_sha256 .* tamulag export"):
        OnnxStep(exported.file, exported.model, str(other))


def test_file_of_another_window_is_refused(exported: Exported) -> None:
    """The memory has another size."""
    model = deepcopy(exported.model)
    model.config = deepcopy(model.config)
    object.__setattr__(model.config, "window", 500)
    with pytest.raises(CheckpointError, match=r"window '100', the session '500'.*--window 10"):
        OnnxStep(exported.file, model, exported.checkpoint)


def test_what_is_no_export_is_refused(exported: Exported, tmp_path: Path) -> None:
    """A missing file, and one of other bytes."""
    with pytest.raises(CheckpointError, match="not found"):
        OnnxStep(tmp_path / "none.onnx", exported.model, exported.checkpoint)
    (tmp_path / "bad.onnx").write_bytes(exported.file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be run"):
        OnnxStep(tmp_path / "bad.onnx", exported.model, exported.checkpoint)


def test_both_engines_are_timed(onnx: OnnxStep, model: TamUlag) -> None:
    """Each batch size with and without words."""
    rows = faster(model, onnx, (1, 3), repeats=2)
    assert [(row.batch, row.words) for row in rows] == [(1, 0), (1, 20), (3, 0), (3, 20)]
    assert all(row.torch > 0 and row.onnxruntime > 0 for row in rows)
