"""Clips that no head was trained on, put together to triples of words, voice and face.

Knows pooled vectors, their labels and their people. Knows no law and no way to fuse.

Shapes: N clips of a modality, B triples, M = 3 modalities, H_m units of modality m.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.clips import DataError
from ..data.validation_split import quarters
from ..nn.attention import Pooled
from ..nn.tam_ulag import MODALITIES, Output, TamUlag
from ..runtime.card import Card
from ..runtime.checkpoint import load
from ..text.text_encoder import encoder_for
from ..training.branch_batches import pooled
from ..training.heads_recipe import HeadsRecipe
from ..training.recipe_file import load_recipe
from ..training.train_heads import head_corpus

NEAR = 0.15
"""A clip is drawn among those whose label is so much further from the wanted one than the nearest;
half of what people's mean label is uncertain by anyhow."""


@dataclass(frozen=True)
class HeldClips:
    """Clips of one modality, pooled from their beginning to their end."""

    context: Tensor
    """(N, H_m) float32."""
    steps: Tensor
    """(N,) int64, states that the context is of."""
    label: Tensor
    """(N,) sentiment."""
    person: Tensor
    """(N,) int64, which speaker, video or picture."""
    corpus: Tensor
    """(N,) int64."""
    part: Tensor
    """(N,) int64, see `quarters`: the scales of a checkpoint are fitted on 0 and 1."""

    def of_rows(self, rows: Tensor) -> "HeldClips":
        """Return some clips: their places (R,), or a bool for each (N,)."""
        parts = (self.context, self.steps, self.label, self.person, self.corpus, self.part)
        return HeldClips(*(part[rows] for part in parts))


class Held(NamedTuple):
    """A checkpoint, and per modality the clips that its head was not trained on."""

    model: TamUlag
    card: Card
    clips: dict[str, HeldClips]


class Triples(NamedTuple):
    """Clips of three modalities side by side; what is in a row is of different people."""

    rows: Tensor
    """(B, M) int64, place of the clip of each modality."""
    label: Tensor
    """(B, M) of each clip alone."""
    person: Tensor
    """(B, M) int64."""
    score: Tensor
    """(B, M) of each head."""
    scale: Tensor
    """(B, M), how sure it is; 1 without scales."""


def open_held(checkpoint: str, path: Path, texts: Sequence[Path] = ()) -> Held:
    """Load a checkpoint and run its branches over the validation clips of its training file.

    Args:
        checkpoint: Name or path; all four heads must be trained.
        path: Training file; relative paths in it count from the working directory.
        texts: CSVs of texts in place of those that the file validates on.

    Raises:
        CheckpointError: If the checkpoint cannot be used.
        DataError: If a file cannot be used, a head is untrained or has no table there, or the
            checkpoint has no shares.
    """
    model, card = load(checkpoint)
    recipe = load_recipe(path, HeadsRecipe)
    trained = {name for name, is_trained in card.trained.items() if is_trained}
    missing = {*MODALITIES, "sentiment"} - (trained & {*recipe.tables, "sentiment"})
    if missing:
        raise DataError(
            f"checkpoint {checkpoint} with {path}: {', '.join(sorted(missing))} untrained or not "
            "in the file: give a checkpoint with all four heads and the file it was trained by"
        )
    if not model.config.shares:
        raise DataError(
            f"checkpoint {checkpoint} fuses with a trained head, not with shares: give one that "
            "was trained with [fusion] shares"
        )
    if texts and recipe.tune is not None:
        tune = recipe.tune.model_copy(update={"valid": list(texts)})
        recipe = recipe.model_copy(update={"tune": tune})
    encoder = encoder_for(checkpoint)
    clips = {}
    for name in MODALITIES:
        corpus = head_corpus(encoder, recipe, name, "valid")
        context, steps = pooled(getattr(model, name), corpus, name)
        keys = list(zip(corpus.corpora, corpus.groups, strict=True))
        part = torch.from_numpy(quarters(corpus.groups, corpus.corpora))
        person, source = _codes(keys), _codes(corpus.corpora)
        clips[name] = HeldClips(context, steps, corpus.labels, person, source, part)
    return Held(model, card, clips)


def _codes(names: Sequence[object]) -> Tensor:
    known = {name: code for code, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([known[name] for name in names])


def drawn(
    model: TamUlag, clips: Mapping[str, HeldClips], wanted_BM: Tensor, rng: np.random.Generator
) -> Triples:
    """Draw for each wanted label a clip of that modality, and score it.

    Among those that are near every corpus counts the same, and in it every person.
    """
    chosen = [
        _near(clips[name], wanted, rng)
        for name, wanted in zip(MODALITIES, wanted_BM.unbind(dim=1), strict=True)
    ]
    rows = torch.stack(chosen, dim=1)
    label, person = (
        torch.stack([getattr(clips[name], key)[rows[:, m]] for m, name in enumerate(MODALITIES)], 1)
        for key in ("label", "person")
    )
    output = decided(model, clips, rows, torch.ones(len(MODALITIES), dtype=torch.bool))
    return Triples(rows, label, person, output.heads[:, 0], output.scale[:, 0])


def _near(clips: HeldClips, wanted: Tensor, rng: np.random.Generator) -> Tensor:
    out = torch.zeros(len(wanted), dtype=torch.int64)
    for value in wanted.unique():
        distance = (clips.label - value).abs()
        near = (distance <= distance.min() + NEAR).nonzero().flatten()
        same = wanted == value
        share = _shares(clips.corpus[near], clips.person[near]).numpy()
        out[same] = torch.from_numpy(rng.choice(near.numpy(), int(same.sum()), p=share))
    return out


def _shares(corpus: Tensor, person: Tensor) -> Tensor:
    """Return how likely each clip is, float64."""
    _, who, clips = person.unique(return_inverse=True, return_counts=True)
    share = 1 / clips[who].double()
    _, where = corpus.unique(return_inverse=True)
    people = torch.zeros(int(where.max()) + 1, dtype=torch.float64).index_add(0, where, share)
    found: Tensor = share / (people[where] * len(people))
    return found


@torch.no_grad()
def decided(
    model: TamUlag, clips: Mapping[str, HeldClips], rows: Tensor, present_M: Tensor
) -> Output:
    """Return what the model makes of clips (B, M), of which these modalities are present."""
    found = []
    for place, name in enumerate(MODALITIES):
        part = clips[name].of_rows(rows[:, place])
        # How the states share the context is not kept; the scales ask only for their number.
        steps = torch.arange(int(part.steps.max())).expand(len(rows), -1)
        there = (steps < part.steps.unsqueeze(1)).float() / part.steps.unsqueeze(1)
        known = torch.ones(len(rows), 1, dtype=torch.bool)
        found.append(Pooled(part.context.unsqueeze(1), known, there.unsqueeze(1), steps))
    return model.decide(found, present_M.expand(len(rows), 1, -1))
