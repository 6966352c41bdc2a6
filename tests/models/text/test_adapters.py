"""Low-rank adapters: beside the weights in training, inside them in inference."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from support.small_mpnet import LAYERS, RANK, small_mpnet
from tamulag.models.runtime.checkpoint import MPNET
from tamulag.models.text.adapters import DOWN, UP, adapt, adapt_as, is_adapter, merged, rank_of
from tamulag.models.text.text_encoder import TextEncoder

WORDS = ["i", "did", "not", "like", "it", "so", "good"]


@pytest.fixture
def encoder(tmp_path: Path) -> TextEncoder:
    return TextEncoder(small_mpnet(tmp_path), name=MPNET)


def trained(encoder: TextEncoder) -> dict[str, torch.Tensor]:
    """Give the last two layers adapters that change something; return them as they are saved."""
    encoder.adapt(2, RANK)
    with torch.no_grad():
        for name, parameter in encoder.network.named_parameters():
            if name.endswith(UP):
                parameter.normal_(std=0.3)
    return encoder.layers()


def test_new_adapters_change_nothing(encoder: TextEncoder) -> None:
    """A training begins with the packaged network, to the bit."""
    assert encoder.network is not None
    before = encoder.encode(WORDS)[0]
    encoder.adapt(LAYERS, RANK)
    assert np.array_equal(before, encoder.encode(WORDS)[0])


def test_only_adapters_of_the_last_layers_are_saved(encoder: TextEncoder) -> None:
    """Both maps of each of six linear layers, and no weight that the package has."""
    tensors = trained(encoder)
    assert len(tensors) == 2 * 6 * 2
    assert all(is_adapter(name) for name in tensors)
    assert {name.split(".")[2] for name in tensors} == {"1", "2"}
    assert tensors[f"encoder.layer.2.attention.attn.q{DOWN}"].shape == (RANK, 32)
    assert tensors[f"encoder.layer.2.intermediate.dense{UP}"].shape == (48, RANK)


def test_merged_adapters_give_what_was_trained(tmp_path: Path, encoder: TextEncoder) -> None:
    """Inference has them in its weights, training beside them: one rounding apart."""
    plain = encoder.encode(WORDS)[0]
    tensors = trained(encoder)
    apart = encoder.encode(WORDS)[0]
    again = TextEncoder(tmp_path, name=MPNET, tuned=tensors)
    inside = again.encode(WORDS)[0]
    np.testing.assert_allclose(inside, apart, atol=1e-5)
    assert abs(inside - plain).max() > 0.05
    assert again.rank == RANK
    assert again.network is not None
    np.testing.assert_allclose(again.encode(WORDS)[0], apart, atol=1e-6)
    assert {name: t.tolist() for name, t in again.layers().items()} == {
        name: t.tolist() for name, t in tensors.items()
    }


def test_weights_tuned_before_stay_tuned(tmp_path: Path) -> None:
    """Adapters come on top of whole layers, and both are saved."""
    name = "encoder.layer.0.output.dense.bias"
    tuned = {name: torch.arange(32) / 32}
    encoder = TextEncoder(small_mpnet(tmp_path), name=MPNET, tuned=tuned)
    tensors = trained(encoder)
    assert {n for n in tensors if not is_adapter(n)} == {name}
    assert torch.equal(tensors[name], tuned[name])
    apart = encoder.encode(WORDS)[0]
    inside = TextEncoder(tmp_path, name=MPNET, tuned=tensors).encode(WORDS)[0]
    np.testing.assert_allclose(inside, apart, atol=1e-5)


def test_the_equation() -> None:
    """It is y = W x + b + U D x, beside the weights and inside them."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4))
    down, up, x = torch.randn(2, 5), torch.randn(4, 2), torch.randn(3, 5)
    tuned = {f"0{DOWN}": down, f"0{UP}": up}
    wanted = net(x) + x @ down.T @ up.T
    weights = merged(net.state_dict(), tuned)
    torch.testing.assert_close(x @ weights["0.weight"].T + weights["0.bias"], wanted)
    adapt_as(net, tuned)
    torch.testing.assert_close(net(x), wanted)
    assert set(net.state_dict()) == {"0.weight", "0.bias", *tuned}


def test_a_layer_keeps_the_adapter_it_has() -> None:
    """Going on with a training, nothing is drawn again."""
    net = nn.Sequential(nn.Linear(5, 4))
    adapt(net, 2)
    before = net.state_dict()[f"0{DOWN}"].clone()
    adapt(net, 2)
    assert torch.equal(net.state_dict()[f"0{DOWN}"], before)


@pytest.mark.parametrize(
    ("tuned", "message"),
    [
        ({f"0{DOWN}": torch.ones(2, 5)}, "of 0 is not whole"),
        ({f"0{DOWN}": torch.ones(2, 6), f"0{UP}": torch.ones(4, 2)}, "does not fit 0.weight"),
        ({f"0{DOWN}": torch.ones(2, 5), f"0{UP}": torch.ones(4, 3)}, "does not fit 0.weight"),
    ],
)
def test_damaged_adapters_are_refused(tuned: dict[str, torch.Tensor], message: str) -> None:
    """A file may hold anything."""
    with pytest.raises(ValueError, match=message):
        merged(nn.Sequential(nn.Linear(5, 4)).state_dict(), tuned)


def test_adapters_have_one_rank() -> None:
    """It is one key of the training file."""
    assert rank_of({}) == 0
    with pytest.raises(ValueError, match=r"ranks \[2, 3\]"):
        rank_of({f"a{DOWN}": torch.ones(2, 5), f"b{DOWN}": torch.ones(3, 5)})


def test_an_adapter_without_a_place_is_refused(tmp_path: Path) -> None:
    """Of a layer that the network does not have."""
    name = f"encoder.layer.9.output.dense{UP}"
    with pytest.raises(ValueError, match="have no place in the encoder"):
        TextEncoder(small_mpnet(tmp_path), name=MPNET, tuned={name: torch.ones(2, 2)})
