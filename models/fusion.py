"""Per-semantic-dimension fusion of whatever modalities are there.

Knows one vector per modality and whether it is present. Knows no time.

Shapes: B sessions, N hops, M = 3 modalities (text, audio, vision), H hidden units, K semantic
dimensions.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn


class SemanticFusion(nn.Module):
    """Fuse in a common semantic space, dimension by dimension.

    f_s = tanh(W_s c_s);  g_s = U_s c_s + b_s;  w_s,k = softmax over the present s of g_s,k
    F = [w_t * f_t; w_a * f_a; w_v * f_v; f_t * f_a; f_t * f_v; f_a * f_v; present]
    where * is taken per dimension k and a term with an absent modality is zero.
    (Sun and Wang 2024, fusion in the semantic space per dimension; the Hadamard form is variant
    `hadamard` of the method's section 1.7, the gate over present modalities is ours.)

    Args:
        hidden: Units of each modality's vector, in the order text, audio, vision.
        semantic: Common dimensions, K.
    """

    def __init__(self, *, hidden: Sequence[int], semantic: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Linear(size, semantic) for size in hidden)
        self.gate = nn.ModuleList(nn.Linear(size, semantic) for size in hidden)
        self.size = 2 * len(hidden) * semantic + len(hidden)
        """Length of the fused vector: as many pairs as modalities, and the presence flags."""

    def forward(self, contexts: Sequence[Tensor], present_BNM: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fused vector (B, N, size) and the modalities' mean weights (B, N, M).

        Args:
            contexts: One (B, N, H_s) per modality; ignored where absent.
            present_BNM: bool; the weights of the present modalities sum to 1, or all are 0.
        """
        present = present_BNM.unsqueeze(-1)
        features = torch.stack(
            [torch.tanh(layer(c)) for layer, c in zip(self.project, contexts, strict=True)], dim=2
        ).masked_fill(~present, 0.0)
        gates = torch.stack([layer(c) for layer, c in zip(self.gate, contexts, strict=True)], dim=2)
        gates = gates.masked_fill(~present, float("-inf"))
        gates = gates.masked_fill(~present.any(dim=2, keepdim=True), 0.0)
        weight = torch.softmax(gates, dim=2).masked_fill(~present, 0.0)
        parts = [*(weight * features).unbind(dim=2)]
        parts += [
            features[:, :, i] * features[:, :, j] for i, j in combinations(range(len(contexts)), 2)
        ]
        fused = torch.cat([*parts, present_BNM.to(features.dtype)], dim=-1)
        return fused, weight.mean(dim=-1)
