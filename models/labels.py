"""Unimodal labels from multimodal ones (ULAG), and the joint loss that uses them.

Training only: no estimate needs anything of this file. Knows representations and labels of clips;
`centres` has the other source of labels. Knows no encoder, no stream and no file.

Shapes: B clips of a batch, M = 3 modalities (text, audio, vision), K = 4 representations (fused,
text, audio, vision, in the order of `Output.features`), D units of one, E expert units.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

Labels = Literal["none", "ulgm", "ulag", "both"]
"""Whence unimodal labels come: `none` copies the multimodal one, `both` averages."""
Similarity = Literal["dot", "cosine", "softmax"]
"""Forms of similarity; `Ulag` has their equations."""
Gradient = Literal["full", "experts", "none"]
"""How far the loss of a generated label reaches: into the representations; only into the expert and
confidence layers; nowhere, so that those stay as they were made."""


class Ulag(nn.Module):
    """Unimodal label generation from the similarity of the modalities' representations.

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


class Targets(NamedTuple):
    """What the unimodal heads are to learn."""

    target: Tensor
    """(B, M)."""
    weight: Tensor
    """(B, M) in [0, 1], without gradient."""


def unimodal_targets(
    label_B: Tensor,
    *,
    ulgm_BM: Tensor | None = None,
    ulag_BM: Tensor | None = None,
    alpha: float = 0.5,
    weigh: Literal["ulgm", "target"] = "ulgm",
    floor: float = 0.0,
) -> Targets:
    """Join generated labels to targets and weights (the method's sections 1.4 and 1.5).

    y*_s = alpha y_s^ULGM + (1 - alpha) y_s^ULAG;  w_s = tanh(|y_s^ULGM - y|)

    Without one of the two labels the other is the target, without both it is y. So every weight is
    0 in epoch 1, and always with `none`: a head learns only from clips that it sees differently.

    Args:
        label_B: Multimodal labels, y.
        ulgm_BM: From `Ulgm.update`; None: not used.
        ulag_BM: From `Ulag`; None: not used.
        alpha: Share of ULGM where both are used.
        weigh: Take the weight from the ULGM label, as the release, or from the target. Without
            ULGM it is always the target.
        floor: Least weight; 0 as in the release. With 1 the heads learn from every clip alike.
    """
    label_BM = label_B.unsqueeze(-1).expand(-1, 3)
    given = [labels for labels in (ulgm_BM, ulag_BM) if labels is not None]
    target = given[0] if given else label_BM
    if ulgm_BM is not None and ulag_BM is not None:
        target = alpha * ulgm_BM + (1 - alpha) * ulag_BM
    judged = ulgm_BM if weigh == "ulgm" and ulgm_BM is not None else target
    weight = torch.tanh((judged.detach() - label_BM).abs())
    return Targets(target, weight.clamp(min=floor))


class Loss(NamedTuple):
    """The joint loss and its parts."""

    total: Tensor
    """Scalar: the sum of the parts."""
    fused: Tensor
    """Scalar: mean |y^_m - y|."""
    unimodal: Tensor
    """(M,): mean of w_s |y^_s - y*_s| over the batch, absent modalities counting as 0."""


def joint_loss(
    sentiment_B: Tensor, heads_BM: Tensor, label_B: Tensor, targets: Targets, present_BM: Tensor
) -> Loss:
    """Return the loss of the four tasks (the method's section 1.5).

    L = (1/B) sum_i |y^_m - y| + sum_s (1/B) sum_i w_s |y^_s - y*_s|

    Args:
        sentiment_B: Fused estimates, y^_m.
        heads_BM: Unimodal estimates, y^_s; ignored where absent.
        label_B: Multimodal labels, y.
        targets: From `unimodal_targets`.
        present_BM: bool.
    """
    fused = (sentiment_B - label_B).abs().mean()
    error = (heads_BM - targets.target).abs().masked_fill(~present_BM, 0.0)
    unimodal = (targets.weight * error).mean(dim=0)
    return Loss(fused + unimodal.sum(), fused, unimodal)
