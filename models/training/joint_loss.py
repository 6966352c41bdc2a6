"""Targets and weights of the unimodal tasks, and the joint loss that uses them.

Training only: no estimate needs anything of this file. Knows representations and labels of clips;
`ulgm_labels`, `ulag_labels` and `Ulag` make them. Knows no encoder, no stream and no file.

Shapes: B clips of a batch, M = 3 modalities (text, audio, vision), K = 4 representations (fused,
text, audio, vision, in the order of `Output.features`), D units of one, E expert units.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor


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
        ulag_BM: From `ulag_labels` or, in the release's form, `Ulag`; None: not used.
        alpha: Share of ULGM where both are used.
        weigh: Take the weight from the ULGM label, as the release, or from the target. Without
            ULGM it is always the target.
        floor: Least weight; 0 as in the release. With 1, the default of `ulag`, the heads learn
            from every clip alike.
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
