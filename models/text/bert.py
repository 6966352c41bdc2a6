"""The text encoders' network for inference, of the layers that torch itself has.

Knows the weights by the names that transformers gives them. Knows no words and no training: that is
done by transformers' own `BertModel`, whose import takes longer than all else at a start.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_LAYER = {
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}
"""Names in torch's layer and in transformers'; `self_attn.in_proj` is query, key and value."""
_PLACES = ("embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight")
_WORDS = "embeddings.word_embeddings.weight"
_NORM = "embeddings.LayerNorm"
_FIRST = "encoder.layer.0.intermediate.dense.weight"


class Bert(nn.Module):
    """BERT without dropout and pooling (Devlin et al. 2019), one text type, nothing padded.

    Args:
        weights: As `names` lists them; the word table is not needed if `words` is given.
        heads: Of each attention.
        epsilon: Of each normalisation.
        words: Token ids -> embeddings; None: the table in `weights`.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        *,
        heads: int,
        epsilon: float,
        words: nn.Module | None = None,
    ) -> None:
        super().__init__()
        middle, hidden = weights[_FIRST].shape
        self.words = nn.Embedding.from_pretrained(weights[_WORDS]) if words is None else words
        places, kinds = (weights[name] for name in _PLACES)
        self.register_buffer("places", places + kinds[0])
        # On `meta` nothing is drawn: the weights take the place of the parameters.
        with torch.device("meta"):
            self.norm = nn.LayerNorm(hidden, epsilon)
            self.layers = nn.ModuleList(
                nn.TransformerEncoderLayer(
                    hidden,
                    heads,
                    middle,
                    dropout=0.0,
                    activation="gelu",
                    layer_norm_eps=epsilon,
                    batch_first=True,
                )
                for _ in range(layers_of(weights))
            )
        ends = ("weight", "bias")
        self.norm.load_state_dict({end: weights[f"{_NORM}.{end}"] for end in ends}, assign=True)
        for number, layer in enumerate(self.layers):
            layer.load_state_dict(_layer(weights, f"encoder.layer.{number}."), assign=True)
        self.requires_grad_(False).eval()

    def forward(self, ids: Tensor) -> Tensor:
        """Return the states of the last layer (B, L, H), float32, of token ids (B, L)."""
        states: Tensor = self.norm(self.words(ids) + self.get_buffer("places")[: ids.shape[1]])
        for layer in self.layers:
            states = layer(states)
        return states


def layers_of(weights: Mapping[str, Tensor]) -> int:
    """Return how many layers weights have."""
    return 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder."))


def names(layers: int) -> set[str]:
    """Return the names of all weights of a network with some layers."""
    parts = [f"attention.self.{part}" for part in ("query", "key", "value")]
    inner = [f"encoder.layer.{n}.{p}" for n in range(layers) for p in (*parts, *_LAYER.values())]
    ended = {f"{name}.{end}" for name in (_NORM, *inner) for end in ("weight", "bias")}
    return ended | {_WORDS, *_PLACES}


def _layer(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    found = {}
    for end in ("weight", "bias"):
        parts = [weights[f"{prefix}attention.self.{p}.{end}"] for p in ("query", "key", "value")]
        found[f"self_attn.in_proj_{end}"] = torch.cat(parts)
        for ours, theirs in _LAYER.items():
            found[f"{ours}.{end}"] = weights[f"{prefix}{theirs}.{end}"]
    return found
