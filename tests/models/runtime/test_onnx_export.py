"""What the exporter writes, against torch."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from support.model_contract import tiny
from support.onnx_exports import MIXED, Exported, exported_once
from tamulag.models import ModelConfig, Output, State, TamUlag, Ticks
from tamulag.models.nn.config import preset
from tamulag.models.nn.tam_ulag import Turns
from tamulag.models.runtime.checkpoint import CheckpointError
from tamulag.models.runtime.onnx_engine import OnnxStep
from tamulag.models.runtime.onnx_export import TOLERANCE, check, export

pytestmark = pytest.mark.timeout(300)  # an export takes a minute on a busy machine

CLOSE = 1e-5
FORMS = {"paper": preset("paper"), "mixed": MIXED}
"""With what ships, every form of attention, encoder, fusion and head."""


def test_the_shipped_forms_are_exported(exported: Exported) -> None:
    """Chained steps of one and of seven sessions, with absent modalities and ragged masks."""
    onnx = OnnxStep(exported.file, exported.model, exported.checkpoint)
    assert max(check(exported.model, onnx, batches=(1, 7)).values()) < CLOSE


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_exported(form: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The other forms compute the same as well."""
    made = exported_once(tmp_path_factory, form, FORMS[form])
    onnx = OnnxStep(made.file, made.model, made.checkpoint)
    assert max(check(made.model, onnx).values()) < CLOSE


def test_what_reads_both_ways_is_refused(tmp_path: Path) -> None:
    """Such a model has no step; the error names the option."""
    config = replace(ModelConfig(), vision=replace(ModelConfig().vision, bidirectional=True))
    with pytest.raises(CheckpointError, match=r"vision\.bidirectional = true"):
        export(tiny(config), "mine", tmp_path / "m.onnx")


def test_check_finds_other_weights(exported: Exported) -> None:
    """A file that was made from weights a little apart does not pass."""
    other = deepcopy(exported.model)
    with torch.no_grad():
        other.get_parameter("audio.encoder.lstm.weight_hh_l0").mul_(1.01)
    onnx = OnnxStep(exported.file, exported.model, exported.checkpoint)
    assert check(other, onnx)["states"] > TOLERANCE


class Silent(OnnxStep):
    """Gives no number."""

    def step(
        self,
        ticks: Mapping[str, Ticks],
        now_BN: Tensor,
        state: State,
        allowed_BNM: Tensor | None = None,
        turns: Turns | None = None,
    ) -> tuple[Output, State]:
        """Return NaN for the sentiment."""
        output, state = super().step(ticks, now_BN, state, allowed_BNM, turns)
        return output._replace(sentiment=output.sentiment * torch.nan), state


def test_check_takes_nan_for_infinitely_far(exported: Exported) -> None:
    """It is no score that happens to be equal."""
    onnx = Silent(exported.file, exported.model, exported.checkpoint)
    assert check(exported.model, onnx)["estimates"] == torch.inf


def test_what_lies_behind_the_count_does_not_matter(exported: Exported) -> None:
    """Another program may leave NaN there."""
    session = onnxruntime.InferenceSession(
        exported.file.read_bytes(), providers=["CPUExecutionProvider"]
    )
    clean = arguments(exported.model, session)
    spoilt = dict(clean)
    for name in ("text", "audio", "vision"):
        values = clean[f"ticks.{name}.values"].copy()
        values[0, 2:] = values[1] = np.nan
        spoilt[f"ticks.{name}.values"] = values
    for one, other in zip(session.run(None, clean), session.run(None, spoilt), strict=True):
        assert np.array_equal(one, other)


def arguments(
    model: TamUlag, session: onnxruntime.InferenceSession
) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    """Return two sessions' inputs by their names: of three ticks two are valid, or none."""
    random = np.random.default_rng(0)
    states = {
        f"state.{name}.{key}": tensor.numpy()
        for name, branch in model.initial_state(2)._asdict().items()
        for part in branch
        for key, tensor in part._asdict().items()
    }
    given = {"now": np.full((2, 1), 9), "allowed": np.ones((2, 1, 3), np.bool_), **states}
    given |= {"since": np.ones((2, 1, 2), np.int64), "share": np.full((2, 1, 2), 0.5, np.float32)}
    for name in ("text", "audio", "vision"):
        dim = getattr(model.config, name).dim
        time = np.tile(np.arange(3), (2, 1))
        given |= {
            f"ticks.{name}.values": random.normal(size=(2, 3, dim)).astype(np.float32),
            f"ticks.{name}.mask": np.array([[True, True, False], [False] * 3]),
            f"ticks.{name}.time": time,
            f"ticks.{name}.ready": time + 1,
        }
    return {value.name: given[value.name] for value in session.get_inputs()}


def test_the_file_does_not_say_where_it_was_made(exported: Exported) -> None:
    """No path of the source or of the machine is in it."""
    data = exported.file.read_bytes()
    assert b".py" not in data
    assert str(Path.cwd()).encode() not in data
