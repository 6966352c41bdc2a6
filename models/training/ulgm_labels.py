"""Unimodal labels from the distances to class centres (ULGM).

Training only. Knows representations and labels of clips. Knows no model, no loss and no file.

Shapes: B clips of a batch, C clips of the training set, M = 3 modalities (text, audio, vision),
D units of a representation. The four representations are fused, text, audio, vision, in the order
of `Output.features`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-8


@dataclass
class Centres:
    """What ULGM remembers of one of the four representations: a bank, and its class centres.

    The centres are the means of the remembered representations over the clips whose current label
    is positive, or negative. They are stored as running sums: a batch changes only its own clips'
    part, and the result equals a computation from the whole bank.
    """

    features: Tensor
    """(C, D) float32, the newest representation of each clip."""
    labels: Tensor
    """(C,) float32, the current label of each clip."""
    seen: Tensor
    """(C,) bool: the clip has a representation. The release counts the others in as zeros."""
    sums: Tensor
    """(2, D) float64, positive and negative; float64, so that an hour of updates does not drift."""
    counts: Tensor
    """(2,) int64."""

    @classmethod
    def empty(cls, label_C: Tensor, size: int) -> "Centres":
        """Return the memory before the first batch."""
        return cls(
            label_C.new_zeros(len(label_C), size),
            label_C.clone(),
            torch.zeros_like(label_C, dtype=torch.bool),
            label_C.new_zeros(2, size, dtype=torch.float64),
            label_C.new_zeros(2, dtype=torch.int64),
        )

    def replace(self, rows: Tensor, features: Tensor, labels: Tensor, *, zero: bool) -> None:
        """Remember new representations (B, D) and labels (B,) of different clips, in place."""
        self._add(rows[self.seen[rows]], -1, zero=zero)
        self.features[rows] = features
        self.labels[rows] = labels
        self.seen[rows] = True
        self._add(rows, 1, zero=zero)

    def _add(self, rows: Tensor, factor: int, *, zero: bool) -> None:
        sides = sides_of(self.labels[rows], zero=zero)
        self.sums += factor * (sides.double() @ self.features[rows].double())
        self.counts += factor * sides.sum(dim=1)

    def advantage(self, features: Tensor) -> Tensor:
        """Return a = (d_n - d_p) / (d_p + 1e-8) (B,): how much nearer the positive centre lies.

        NaN as long as one side has no clip.
        """
        centres = (self.sums / self.counts.unsqueeze(-1)).to(features.dtype)
        distances = [torch.linalg.vector_norm(features - centre, dim=-1) for centre in centres]
        positive, negative = distances
        return torch.div(negative - positive, positive + EPSILON)


def sides_of(labels: Tensor, *, zero: bool) -> Tensor:
    """Return (2, B) bool, positive and negative; `zero`: a label of 0 counts as positive."""
    return torch.stack([labels >= 0 if zero else labels > 0, labels < 0])


class Ulgm:
    """Unimodal label generation from class centres (Self-MM, reused by TAM-ULAG; section 1.4).

    d_s^p = ||F*_s - C_s^p||, d_s^n likewise;  a_s = (d_s^n - d_s^p) / (d_s^p + 1e-8), a_m of the
    fused representation;  y'_s = (a_s / (a_m + 1e-8)) y / 2 + (y + a_s - a_m) / 2, in [-H, H]
    In epoch 1 y_s = y; in epoch n >= 2 y_s^(n) = (n - 1)/(n + 1) y_s^(n-1) + 2/(n + 1) y'_s.

    All it knows is in `four`: see `tensors` and `restore`.

    Args:
        label_C: Multimodal labels of the training clips, (C,) float32.
        sizes: Units of the four representations.
        limit: H: 3 for MOSI and MOSEI, 1 for SIMS.
        zero: A label of 0 counts as positive: as in the release (>= 0), while MMSA has > 0.
    """

    def __init__(
        self, label_C: Tensor, sizes: Sequence[int], *, limit: float = 3.0, zero: bool = True
    ) -> None:
        self.four = [Centres.empty(label_C, size) for size in sizes]
        self.limit = limit
        self.zero = zero

    @torch.no_grad()
    def update(
        self, rows: Tensor, features: Sequence[Tensor], present_BM: Tensor, epoch: int
    ) -> Tensor:
        """Make the labels of a batch for this epoch, then remember the batch.

        Each clip comes at most once per epoch. An absent modality keeps what is known of it.

        Args:
            rows: (B,) int64, places of the clips in the training set, all different.
            features: The four representations, each (B, D_k).
            present_BM: bool.
            epoch: From 1.

        Returns:
            The current unimodal labels (B, M).

        Raises:
            ValueError: If a clip occurs twice.
        """
        if len(rows.unique()) != len(rows):
            raise ValueError(f"rows {rows.tolist()} name a clip twice: give each once per batch")
        fused, *alone = self.four
        if epoch > 1:
            labels = self._next(rows, features, epoch)
            labels = torch.where(present_BM, labels, self.labels(rows))
        else:
            labels = self.labels(rows)
        fused.replace(rows, features[0], fused.labels[rows], zero=self.zero)
        parts = zip(alone, features[1:], labels.unbind(-1), present_BM.unbind(-1), strict=True)
        for memory, feature, label, there in parts:
            memory.replace(rows[there], feature[there], label[there], zero=self.zero)
        return labels

    def labels(self, rows: Tensor) -> Tensor:
        """Return the current unimodal labels (B, M) of some clips; at first the multimodal ones."""
        return torch.stack([memory.labels[rows] for memory in self.four[1:]], dim=-1)

    def _next(self, rows: Tensor, features: Sequence[Tensor], epoch: int) -> Tensor:
        advantages = [m.advantage(f) for m, f in zip(self.four, features, strict=True)]
        raw = ulgm_label(
            self.four[0].labels[rows].unsqueeze(-1),
            torch.stack(advantages[1:], dim=-1),
            advantages[0].unsqueeze(-1),
            limit=self.limit,
        )
        return momentum(self.labels(rows), raw, epoch)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state under flat names, e.g. for a safetensors file."""
        return {
            f"{place}.{key}": tensor
            for place, memory in enumerate(self.four)
            for key, tensor in vars(memory).items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from the state that `tensors` returned.

        Raises:
            ValueError: If a tensor is missing or left over, or has another shape.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        wanted = {name: tuple(tensor.shape) for name, tensor in self.tensors().items()}
        if shapes != wanted:
            differ = sorted(n for n in shapes | wanted if shapes.get(n) != wanted.get(n))
            raise ValueError(
                f"label state does not fit in {', '.join(differ)}: "
                "it is of another training set or model, begin afresh"
            )
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])


def ulgm_label(label: Tensor, advantage: Tensor, fused: Tensor, *, limit: float) -> Tensor:
    """Return y'_s of `Ulgm`: the mean of a ratio and a difference, within [-limit, limit].

    Args:
        label: y.
        advantage: a_s.
        fused: a_m. Where either advantage is NaN, the result is y.
        limit: H.
    """
    raw = advantage / (fused + EPSILON) * label / 2 + (label + advantage - fused) / 2
    return torch.where(raw.isnan(), label, raw).clamp(-limit, limit)


def momentum(previous: Tensor, raw: Tensor, epoch: int) -> Tensor:
    """Return y^(n) = (n - 1)/(n + 1) y^(n-1) + 2/(n + 1) y' of epoch n >= 2."""
    return (epoch - 1) / (epoch + 1) * previous + 2 / (epoch + 1) * raw
