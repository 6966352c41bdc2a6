"""The step as ONNX's operators: how many they are, and what stands in the place of what."""

import onnxruntime
import pytest
import torch

from support.onnx_exports import MIXED, Exported, exported_once
from tamulag.models import TamUlag
from tamulag.models.runtime.onnx_graph import StepGraph

pytestmark = pytest.mark.timeout(300)  # an export takes a minute on a busy machine


def test_names_are_those_of_the_file(exported: Exported) -> None:
    """In the order in which `OnnxStep` gives and takes them."""
    session = onnxruntime.InferenceSession(
        exported.file.read_bytes(), providers=["CPUExecutionProvider"]
    )
    graph = StepGraph(exported.model)
    assert [value.name for value in session.get_inputs()] == graph.inputs
    assert [value.name for value in session.get_outputs()] == graph.outputs


def test_the_graph_stays_small(exported: Exported) -> None:
    """A step of one session is paid by the operator: the shipped forms have 253."""
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    nodes = onnx.load(exported.file).graph.node
    assert len(nodes) <= 255
    assert sum(node.op_type == "LSTM" for node in nodes) == 5


def test_what_was_not_fused_stays_out(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of a model without vision in the fusion the file lets nobody allow it."""
    made = exported_once(tmp_path_factory, "mixed", MIXED)
    session = onnxruntime.InferenceSession(
        made.file.read_bytes(), providers=["CPUExecutionProvider"]
    )
    present = session.run(["present"], _one(made.model))[0]
    assert present.tolist() == [[[True, True, False]]]


def _one(model: TamUlag) -> dict[str, object]:
    """Return the inputs of one session to which each modality brought one tick."""
    given: dict[str, object] = {
        "now": torch.tensor([[9]]).numpy(),
        "allowed": torch.ones(1, 1, 3, dtype=torch.bool).numpy(),
        "since": torch.zeros(1, 1, 2, dtype=torch.int64).numpy(),
        "share": torch.ones(1, 1, 2).numpy(),
    }
    for name, branch in model.initial_state(1)._asdict().items():
        dim = getattr(model.config, name).dim
        time = torch.ones(1, 1, dtype=torch.int64)
        ticks = {"values": torch.ones(1, 1, dim), "mask": time.bool(), "time": time, "ready": time}
        given |= {f"ticks.{name}.{key}": tensor.numpy() for key, tensor in ticks.items()}
        for part in branch:
            given |= {f"state.{name}.{k}": tensor.numpy() for k, tensor in part._asdict().items()}
    names = StepGraph(model).inputs
    return {name: given[name] for name in names}
