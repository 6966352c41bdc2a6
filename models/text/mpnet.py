"""MPNet's network for inference: BERT with a bias of attention that depends on the distance.

Knows the weights by the names that transformers gives them. Knows no words and no training: that is
done by transformers' own `MPNetModel`.

Shapes: B texts, L tokens, H values per token, A heads.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

_LAYER = {
    "out": "attention.attn.o",
    "norm1": "attention.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}
"""Names in our layer and in transformers'; `inputs` is q, k and v."""
_INPUTS = tuple(f"attention.attn.{part}" for part in "qkv")
_PLACES = "embeddings.position_embeddings.weight"
_WORDS = "embeddings.word_embeddings.weight"
_NORM = "embeddings.LayerNorm"
_BIAS = "encoder.relative_attention_bias.weight"
_FIRST = "encoder.layer.0.intermediate.dense.weight"
_ENDS = ("weight", "bias")
FIRST_PLACE = 2
"""Row of the table of positions that the first token has: those before stand for padding."""
FARTHEST = 128
"""Tokens from which on all distances count as one."""


class Mpnet(nn.Module):
    """MPNet without dropout and pooling (Song et al. 2020), nothing padded.

    Args:
        weights: As `names` lists them.
        heads: Of each attention.
        epsilon: Of each normalisation.
    """

    def __init__(self, weights: Mapping[str, Tensor], *, heads: int, epsilon: float) -> None:
        super().__init__()
        middle, hidden = weights[_FIRST].shape
        self.words = nn.Embedding.from_pretrained(weights[_WORDS])
        self.register_buffer("places", weights[_PLACES][FIRST_PLACE:])
        self.longest = len(self.get_buffer("places"))
        """Tokens that a text may have, the special ones included."""
        distances = torch.arange(-self.longest, self.longest + 1)
        table = weights[_BIAS][buckets(distances, len(weights[_BIAS]))]
        self.register_buffer("bias", table.T.contiguous())
        # On `meta` nothing is drawn: the weights take the place of the parameters.
        with torch.device("meta"):
            self.norm = nn.LayerNorm(hidden, epsilon)
            self.layers = nn.ModuleList(
                _Layer(hidden, middle, heads, epsilon) for _ in range(_layers_of(weights))
            )
        self.norm.load_state_dict({end: weights[f"{_NORM}.{end}"] for end in _ENDS}, assign=True)
        for number, layer in enumerate(self.layers):
            layer.load_state_dict(_layer(weights, f"encoder.layer.{number}."), assign=True)
        self.requires_grad_(False).eval()

    def forward(self, ids: Tensor) -> Tensor:
        """Return the states of the last layer (B, L, H), float32, of token ids (B, L)."""
        length = ids.shape[1]
        place = torch.arange(length)
        # (A, L, L): of the distance from the token that attends to the one that is attended to.
        bias = self.get_buffer("bias")[:, place - place.unsqueeze(-1) + self.longest]
        states: Tensor = self.norm(self.words(ids) + self.get_buffer("places")[:length])
        for layer in self.layers:
            states = layer(states, bias)
        return states


class _Layer(nn.Module):
    def __init__(self, hidden: int, middle: int, heads: int, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        self.inputs = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.norm1 = nn.LayerNorm(hidden, epsilon)
        self.linear1 = nn.Linear(hidden, middle)
        self.linear2 = nn.Linear(middle, hidden)
        self.norm2 = nn.LayerNorm(hidden, epsilon)

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        batch, length, hidden = states.shape
        shape = (batch, length, 3, self.heads, hidden // self.heads)
        query, key, value = self.inputs(states).view(shape).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        seen = seen.transpose(1, 2).reshape(batch, length, hidden)
        states = self.norm1(states + self.out(seen))
        middle = functional.gelu(self.linear1(states))
        after: Tensor = self.norm2(states + self.linear2(middle))
        return after


def buckets(distance: Tensor, count: int) -> Tensor:
    """Return which of `count` biases each distance has (Raffel et al. 2020, T5).

    Half of them are for tokens that come later. Of a half's `n` the first `n / 2` are for one
    distance each, the others for ranges that grow up to `FARTHEST`.

    Args:
        distance: int64, place of the token that is attended to less that of the one that attends.
        count: Number of biases.
    """
    half = count // 2
    exact = half // 2
    size = distance.abs()
    growth = torch.log(size.float().clamp(min=1) / exact) / math.log(FARTHEST / exact)
    ranged = exact + (growth * (half - exact)).to(torch.int64)
    near = torch.where(size < exact, size, ranged.clamp(max=half - 1))
    return near + half * (distance > 0)


def names(layers: int) -> set[str]:
    """Return the names of all weights of a network with some layers."""
    parts = (*_INPUTS, *_LAYER.values())
    inner = [f"encoder.layer.{number}.{part}" for number in range(layers) for part in parts]
    return {f"{name}.{end}" for name in (_NORM, *inner) for end in _ENDS} | {_WORDS, _PLACES, _BIAS}


def _layers_of(weights: Mapping[str, Tensor]) -> int:
    return 1 + max(int(name.split(".")[2]) for name in weights if "encoder.layer." in name)


def _layer(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    found = {}
    for end in _ENDS:
        found[f"inputs.{end}"] = torch.cat([weights[f"{prefix}{part}.{end}"] for part in _INPUTS])
        for ours, theirs in _LAYER.items():
            found[f"{ours}.{end}"] = weights[f"{prefix}{theirs}.{end}"]
    return found
