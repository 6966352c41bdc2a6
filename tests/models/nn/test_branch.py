"""One modality's branch: what its head sees, and what its state is."""

from dataclasses import replace

import pytest
import torch

from support.model_contract import stream
from tamulag.models import ModelConfig, TamUlag
from tamulag.models.nn.branch import Branch, regressor
from tamulag.models.nn.config import BranchConfig

CONFIG = BranchConfig(dim=4, hidden=6, layers=1, dropout=0.0)


def branch(config: BranchConfig = CONFIG) -> Branch:
    torch.manual_seed(0)
    return Branch(config, ModelConfig(window=100)).eval()


NOW = torch.tensor([[50, 200]]).expand(3, 2)


@pytest.mark.parametrize("layers", [2, 3])
def test_head_is_its_features_and_then_its_score(layers: int) -> None:
    """The representation can be had without a second run through the first layers."""
    head = regressor(5, 7, 0.5, layers=layers).eval()
    inputs = torch.randn(2, 3, 5)
    features = head.features(inputs)
    assert features.shape == (2, 3, head.size)
    assert (features >= 0).all()
    assert torch.equal(head.score(features), head(inputs))


def test_two_layer_head_keeps_the_names_of_its_weights() -> None:
    """A checkpoint finds them by these."""
    names = {"0.weight", "0.bias", "3.weight", "3.bias"}
    assert regressor(5, 7, 0.5).state_dict().keys() == names


def test_whole_sequence_equals_one_step(model: TamUlag) -> None:
    """`forward` is `step` from the initial state."""
    layer, ticks = branch(), stream(model)["audio"]
    pooled, _ = layer.step(ticks, NOW, layer.initial_state(3))
    assert torch.equal(layer(ticks, NOW).context, pooled.context)


def test_vector_has_the_projections_length_and_is_zero_where_absent(model: TamUlag) -> None:
    """F_s = W c + b, but an absent modality is zeros and not b."""
    layer, ticks = branch(replace(CONFIG, out=3)), stream(model)["audio"]
    silent = ticks._replace(mask=ticks.mask & torch.tensor([[True], [False], [True]]))
    pooled = layer(silent, NOW)
    assert pooled.context.shape == (3, 2, layer.size) == (3, 2, 3)
    assert not pooled.context[1].any()
    assert pooled.context[0].all()


def test_units_of_the_head_follow_the_config() -> None:
    """Half of the fused head's by default."""
    assert branch().head.size == ModelConfig().head // 2
    assert branch(replace(CONFIG, post=9)).head.size == 9


def test_bidirectional_branch_reads_whole_sequences_only(model: TamUlag) -> None:
    """The message names the key and the remedy."""
    layer, ticks = branch(replace(CONFIG, bidirectional=True)), stream(model)["audio"]
    assert layer(ticks, NOW).context.shape == (3, 2, 12)
    with pytest.raises(ValueError, match=r"bidirectional = true .*call forward, or set"):
        layer.step(ticks, NOW, layer.initial_state(3))


def test_batch_does_not_show_in_a_row(model: TamUlag) -> None:
    """A sample alone gives the numbers that it gives beside longer ones."""
    layer, ticks = branch(replace(CONFIG, tam="gate_last", residual=True)), stream(model)["audio"]
    short = ticks._replace(mask=ticks.mask & (ticks.time < torch.tensor([[30], [200], [90]])))
    together = layer(short, NOW).context
    alone = layer(type(short)(*(part[:1] for part in short)), NOW[:1]).context
    torch.testing.assert_close(alone, together[:1])
