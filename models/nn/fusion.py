"""Per-semantic-dimension fusion of whatever modalities are there.

Knows one vector per modality and whether it is present. Knows no time.

Shapes: B sessions, N hops, M = 3 modalities (text, audio, vision), H hidden units, K semantic
dimensions.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn

Fusion = Literal["concat", "cross_sum", "hadamard", "both"]
"""Forms of fusion; `SemanticFusion` has their equations."""


class SemanticFusion(nn.Module):
    """Fuse in the semantic space, dimension by dimension.

    With the modalities' own vectors c_s, and 1^T c the sum over c's dimensions:

    - `concat`: F = [c_t; c_a; c_v; present], as in Self-MM.
    - `cross_sum`: F = [c_t; c_a; c_v; TA; AT; TV; VT; AV; VA; present], where
      TA = (1^T c_a) c_t and AT = (1^T c_t) c_a: every dimension of one modality times every
      dimension of the other, summed over one of them (Sun and Wang 2024, the method's section 1.3).
    - `hadamard`: f_s = tanh(W_s c_s);  g_s = U_s c_s + b_s;
      w_s,k = softmax over the present s of g_s,k;
      F = [w_t * f_t; w_a * f_a; w_v * f_v; f_t * f_a; f_t * f_v; f_a * f_v; present], where * is
      taken per dimension k (variant `cross_hadamard` of section 1.7; the gate over the present
      modalities is ours).
    - `both`: F = [cross_sum without its flags; hadamard].

    The flags `present` are ours: c_s of an absent modality is zero, so every term with it is zero.

    Args:
        hidden: Units of each modality's vector, in the order text, audio, vision.
        semantic: Common dimensions, K, of `hadamard` and `both`.
        kind: The form.
    """

    def __init__(self, *, hidden: Sequence[int], semantic: int, kind: Fusion = "hadamard") -> None:
        super().__init__()
        self.kind = kind
        self.size = len(hidden)
        """Length of the fused vector."""
        if kind != "hadamard":
            self.size += sum(hidden) * (1 if kind == "concat" else len(hidden))
        if kind in ("hadamard", "both"):
            self.project = nn.ModuleList(nn.Linear(size, semantic) for size in hidden)
            self.gate = nn.ModuleList(nn.Linear(size, semantic) for size in hidden)
            self.size += 2 * len(hidden) * semantic  # as many pairs as modalities

    def forward(self, contexts: Sequence[Tensor], present_BNM: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fused vector (B, N, size) and the modalities' weights (B, N, M).

        The weights of the present modalities sum to 1, or all are 0. With a gate (`hadamard`,
        `both`) they are its means over the dimensions. `concat` and `cross_sum` do not weigh
        modalities: each present one gets an equal share, which shows only which are there.

        Args:
            contexts: One (B, N, H_s) per modality; ignored, NaN included, where absent.
            present_BNM: bool.
        """
        flags = present_BNM.unbind(dim=-1)
        # Replaced before any layer: a NaN that is masked behind a layer still reaches its gradient.
        clean = [
            c.masked_fill(~there.unsqueeze(-1), 0.0)
            for c, there in zip(contexts, flags, strict=True)
        ]
        there_BNM = present_BNM.to(clean[0].dtype)
        weight = there_BNM / there_BNM.sum(dim=-1, keepdim=True).clamp(min=1.0)
        parts: list[Tensor] = []
        if self.kind != "hadamard":
            parts += clean
        if self.kind in ("cross_sum", "both"):
            parts += _cross_sums(clean)
        if self.kind in ("hadamard", "both"):
            terms, weight = self._hadamard(clean, present_BNM)
            parts += terms
        return torch.cat([*parts, there_BNM], dim=-1), weight

    def _hadamard(
        self, clean: Sequence[Tensor], present_BNM: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        present = present_BNM.unsqueeze(-1)
        features = torch.stack(
            [torch.tanh(layer(c)) for layer, c in zip(self.project, clean, strict=True)], dim=2
        ).masked_fill(~present, 0.0)
        gates = torch.stack([layer(c) for layer, c in zip(self.gate, clean, strict=True)], dim=2)
        gates = gates.masked_fill(~present, float("-inf"))
        gates = gates.masked_fill(~present.any(dim=2, keepdim=True), 0.0)
        weight = torch.softmax(gates, dim=2).masked_fill(~present, 0.0)
        pairs = [
            features[:, :, i] * features[:, :, j] for i, j in combinations(range(len(clean)), 2)
        ]
        return [*(weight * features).unbind(dim=2), *pairs], weight.mean(dim=-1)


def _cross_sums(vectors: Sequence[Tensor]) -> list[Tensor]:
    """Return TA, AT, TV, VT, AV, VA: the outer product of each pair, summed over either index."""
    sums = [vector.sum(dim=-1, keepdim=True) for vector in vectors]
    return [
        term
        for i, j in combinations(range(len(vectors)), 2)
        for term in (sums[j] * vectors[i], sums[i] * vectors[j])
    ]
