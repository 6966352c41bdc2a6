"""Train one modality's branch alone, with its own head.

Knows a branch and its clips. Knows no feature file, no checkpoint and no other modality.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ..evaluation.metrics import mosi_metrics
from ..nn.branch import Branch, BranchState
from ..nn.encoder import EncoderState
from ..nn.tam_ulag import bounded
from .branch_batches import BranchRecipe, Rows, contexts, cut, standardise
from .run_folder import Log, Tell, quiet
from .sampling import batches, carry_states
from .speaker_level import HEARD, SpeakerLevels

CARRIED = 0.5
"""Share of clips that begin with the hidden state of another clip."""


def train_branch(
    branch: Branch,
    rows: Rows,
    valid: Rows,
    recipe: BranchRecipe,
    rng: np.random.Generator,
    log: Log,
    tell: Tell = quiet,
) -> dict[str, float]:
    """Train one modality with the L1 loss of the paper; return figures on the validation rows.

    The averaged weights are kept: of the epoch with the best valid MAE, or of the last one, as the
    recipe says.
    """
    standardise(branch, rows)
    heard = SpeakerLevels(branch.encoder, rows) if branch.encoder.centred else None
    classes = nn.Linear(branch.size, 7)
    parameters = [*branch.parameters(), *classes.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.epochs)
    average = {name: value.clone() for name, value in branch.state_dict().items()}
    best, kept = float("inf"), average
    for epoch in range(recipe.epochs):
        branch.train()
        carried: EncoderState | None = None
        for chosen in batches([len(v) for v in rows.values], recipe.batch, rng):
            state = _begun(branch, len(chosen), carried, rng)
            if heard is not None:
                levels = heard.levels(chosen, rng.choice(HEARD, len(chosen)), rng)
                state = state._replace(encoder=state.encoder._replace(level=levels))
            loss, after = _loss(branch, classes, rows, chosen, state, recipe, rng)
            carried = EncoderState(*(part.detach() for part in after.encoder))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            for name, value in branch.state_dict().items():
                average[name].lerp_(value, 1 - recipe.average)
        schedule.step()
        tell("epochs", epoch + 1, recipe.epochs)
        if not recipe.choose:
            log(f"  epoch {epoch + 1}/{recipe.epochs}: last training loss {loss.item():.4f}")
            continue
        mae = _with(branch, average, valid, recipe)
        if mae < best:
            best, kept = mae, {name: value.clone() for name, value in average.items()}
        log(f"  epoch {epoch + 1}/{recipe.epochs}: valid MAE {mae:.4f}, best {best:.4f}")
    branch.load_state_dict(kept if recipe.choose else average)
    branch.eval()
    return mosi_metrics(predict(branch, valid, recipe).numpy(), valid.labels.numpy())


def _begun(
    branch: Branch, count: int, carried: EncoderState | None, rng: np.random.Generator
) -> BranchState:
    """Return states to begin clips with: half of them those in which other clips ended.

    So a stream of many minutes is not outside of what the encoder has seen.
    """
    state = branch.initial_state(count)
    if carried is None:
        return state
    return state._replace(encoder=carry_states(state.encoder, carried, CARRIED, rng))


def _loss(
    branch: Branch,
    classes: nn.Linear,
    rows: Rows,
    chosen: np.ndarray,
    state: BranchState,
    recipe: BranchRecipe,
    rng: np.random.Generator,
) -> tuple[Tensor, BranchState]:
    """Return the loss of a batch of clips, varied as the recipe says, and the state after it."""
    ticks, now = cut(rows, chosen, recipe, rng)
    pooled, after = branch.step(ticks, now, state)
    label = rows.labels[chosen]
    weight = rows.weight[chosen] if recipe.balance else torch.ones_like(label)
    loss = (weight * (bounded(branch.head(pooled.context)[:, 0, 0]) - label).abs()).mean()
    if recipe.classes:
        target = label.round().long() + 3
        logits = classes(pooled.context[:, 0])
        loss = loss + recipe.classes * nn.functional.cross_entropy(logits, target)
    return loss, after


def _with(
    branch: Branch, weights: Mapping[str, Tensor], valid: Rows, recipe: BranchRecipe
) -> float:
    """Return the valid MAE of other weights; the branch keeps its own."""
    own = {name: value.clone() for name, value in branch.state_dict().items()}
    branch.load_state_dict(weights)
    mae = float((predict(branch, valid, recipe) - valid.labels).abs().mean())
    branch.load_state_dict(own)
    return mae


@torch.inference_mode()
def predict(
    branch: Branch, rows: Rows, recipe: BranchRecipe, levels: Tensor | None = None
) -> Tensor:
    """Return the unimodal estimates (N,) of whole clips, each from the initial state.

    `levels` (N, C + 1) replaces that of the initial state, see `Heard.levels`.
    """
    return bounded(branch.head(contexts(branch, rows, recipe, levels))[:, 0])
