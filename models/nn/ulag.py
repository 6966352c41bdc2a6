"""Unimodal label generation in the release's form of ULAG, with layers of its own.

`ulag_labels` has the form that is used: labels from what other groups' clips say.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

Labels = Literal["none", "ulgm", "ulag", "ulag_release", "both"]
"""Whence unimodal labels come: `none` copies the multimodal one; `ulgm` has class centres; `ulag`
has what other groups' clips say, out of fold; `ulag_release` has the layers of `Ulag`; `both`, the
paper's release, averages `ulgm` and `ulag_release`."""
LAYERED = ("ulag_release", "both")
"""Those for which the model has expert and confidence layers."""
Similarity = Literal["dot", "cosine", "softmax"]
"""Forms of similarity; `Ulag` has their equations."""
Gradient = Literal["full", "experts", "none"]
"""How far the loss of a generated label reaches: into the representations; only into the expert and
confidence layers; nowhere, so that those stay as they were made."""


class Ulag(nn.Module):
    """Unimodal labels from the similarity of the modalities' representations, as released.

    With the representations F*_k of k in {fused, text, audio, vision} and s in {text, audio,
    vision} (Sun and Wang 2024, the method's section 1.4):

    e_k = ReLU(W_k F*_k + b_k);  r_sk = similarity(e_k, e_s);  g_s = sum_k r_sk e_k
    c_s = w_s^T (V_s g_s + a_s) + d_s;  y_s = y (2 sigmoid(c_s) - 1) = y tanh(c_s / 2)

    where the similarity is `dot`, e_k^T e_s, as in the release; `cosine`, the same of unit vectors;
    or `softmax`, softmax over the k that are present of e_k^T e_s. A label can so be shrunk or
    turned, never enlarged, and neutral stays neutral. The confidence nets (V, w) are part of the
    model, of its optimiser and of its checkpoint, which in the release they were not.

    Args:
        sizes: Units of the four representations.
        expert: Units of the expert projections, E.
        similarity: The form.
    """

    def __init__(
        self, *, sizes: Sequence[int], expert: int = 16, similarity: Similarity = "dot"
    ) -> None:
        super().__init__()
        self.similarity = similarity
        self.experts = nn.ModuleList(nn.Linear(size, expert) for size in sizes)
        self.confidence = nn.ModuleList(
            nn.Sequential(nn.Linear(expert, expert), nn.Linear(expert, 1)) for _ in sizes[1:]
        )

    def forward(
        self,
        features: Sequence[Tensor],
        label_B: Tensor,
        present_BM: Tensor,
        gradient: Gradient = "full",
    ) -> Tensor:
        """Return generated labels (B, M), |y_s| <= |y|; an absent modality's is its clip's label.

        Args:
            features: The four representations, each (B, D_k).
            label_B: Multimodal labels, float32.
            present_BM: bool; an absent modality takes no part in the mixtures of the others.
            gradient: How far it reaches; the release's is `full`.
        """
        if gradient != "full":
            features = [f.detach() for f in features]
        there = torch.cat([torch.ones_like(present_BM[:, :1]), present_BM], dim=1)
        experts = [torch.relu(layer(f)) for layer, f in zip(self.experts, features, strict=True)]
        # Replaced, not multiplied: what stands in for an absent modality may be anything.
        e_BKE = torch.stack(experts, dim=1).masked_fill(~there.unsqueeze(-1), 0.0)
        g_BME = self._similarity(e_BKE, there) @ e_BKE
        scores = [net(g) for net, g in zip(self.confidence, g_BME.unbind(dim=1), strict=True)]
        label = label_B.unsqueeze(-1)
        generated = label * torch.tanh(torch.cat(scores, dim=-1) / 2)
        generated = torch.where(present_BM, generated, label)
        return generated.detach() if gradient == "none" else generated

    def _similarity(self, e_BKE: Tensor, there_BK: Tensor) -> Tensor:
        """Return (B, M, K): how much of each representation goes into each modality's mixture."""
        if self.similarity == "cosine":
            e_BKE = normalize(e_BKE, dim=-1)
        r_BMK: Tensor = e_BKE[:, 1:] @ e_BKE.transpose(1, 2)
        if self.similarity == "softmax":
            r_BMK = r_BMK.masked_fill(~there_BK.unsqueeze(1), float("-inf")).softmax(dim=-1)
        return r_BMK
