"""Train one modality's branch alone, with its own head.

Knows a branch and its clips. Knows no feature file, no checkpoint and no other modality.
"""

import numpy as np
import torch
from torch import Tensor, nn

from ..data.batches import shuffled_batches
from ..data.corpus import Corpus, Integers
from ..evaluation.metrics import mosi_metrics
from ..nn.branch import Branch, BranchState
from ..nn.encoder import EncoderState
from ..nn.tam_ulag import bounded
from .branch_batches import Variation, branch_batch, contexts, repeat_pictures, standardise
from .heads_recipe import BranchRecipe
from .progress import Log, Progress, silent
from .ridge import blend_line, fit_ridge, reserve_units
from .speaker_level import EARLIER, SpeakerLevels
from .state_carry import carry_states, detached
from .weights import copied, replaced, update_average


def train_branch(
    branch: Branch,
    name: str,
    train: Corpus,
    valid: Corpus,
    recipe: BranchRecipe,
    rng: np.random.Generator,
    log: Log,
    progress: Progress = silent,
) -> dict[str, float]:
    """Train one modality with the loss of the recipe; return figures on the validation clips.

    The averaged weights are used: of the epoch with the best valid MAE, or of the last one, as the
    recipe has it. With a ridge the head's estimate is then averaged with it.

    Args:
        branch: Trained in place.
        name: Its modality.
        train: Clips that all have the modality.
        valid: Likewise; pictures are repeated as the recipe has it.
        recipe: How.
        rng: Random stream of all that torch does not draw.
        log: Called with a line per epoch.
        progress: Called with the epochs that are done.
    """
    clips, valid = train.values[name], repeat_pictures(valid, name, recipe.still)
    standardise(branch.encoder, clips)
    vary = Variation(recipe, torch.cat(clips).std(dim=0).clamp(min=1e-3), rng)
    weight_N = balanced(train.labels) if recipe.balance else torch.ones_like(train.labels)
    centred = branch.encoder.centred
    speakers = SpeakerLevels(branch.encoder, clips, train.groups) if centred else None
    classes = nn.Linear(branch.size, 7)
    if recipe.ridge:
        reserve_units(branch.head)
    parameters = [*branch.parameters(), *classes.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.epochs)
    average = copied(branch.state_dict())
    best, chosen = float("inf"), average
    for epoch in range(1, recipe.epochs + 1):
        branch.train()
        carried: EncoderState | None = None
        for rows in shuffled_batches([len(v) for v in clips], recipe.batch, rng):
            state = _start(branch, rows, carried, speakers, rng)
            ticks, now = branch_batch(train, name, rows, vary)
            pooled, after = branch.step(ticks, now, state)
            label_B, weight_B = train.labels[rows], weight_N[rows]
            loss = _loss(branch, classes, pooled.context[:, 0], label_B, weight_B, recipe)
            carried = detached(after.encoder)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            update_average(average, branch.state_dict().items(), recipe.average)
        schedule.step()
        progress("epochs", epoch, recipe.epochs)
        if not recipe.choose:
            log(f"  epoch {epoch}/{recipe.epochs}: last training loss {loss.item():.4f}")
            continue
        with replaced(branch, average):
            mae = float((predict(branch, valid, name) - valid.labels).abs().mean())
        if mae < best:
            best, chosen = mae, copied(average)
        log(f"  epoch {epoch}/{recipe.epochs}: valid MAE {mae:.4f}, best {best:.4f}")
    branch.load_state_dict(chosen if recipe.choose else average)
    branch.eval()
    if recipe.ridge:
        seen = contexts(branch, repeat_pictures(train, name, recipe.still), name)
        blend_line(branch.head, fit_ridge(seen, train.labels, train.corpora, recipe.ridge))
    return mosi_metrics(predict(branch, valid, name).numpy(), valid.labels.numpy())


def balanced(labels: Tensor) -> Tensor:
    """Return weights (N,), mean 1, under which negative and positive labels count the same."""
    weight = torch.ones_like(labels)
    for side in (labels < 0, labels > 0):
        weight[side] = (labels != 0).float().sum() / 2 / side.float().sum().clamp(min=1)
    return weight / weight.mean()


def _start(
    branch: Branch,
    rows: Integers,
    carried: EncoderState | None,
    speakers: SpeakerLevels | None,
    rng: np.random.Generator,
) -> BranchState:
    """Return initial states: about half with other clips' h and c, all with speakers' levels."""
    state = branch.initial_state(len(rows))
    encoder = carry_states(state.encoder, carried, rng)
    if speakers is not None:
        levels = speakers.levels(rows, rng.choice(EARLIER, len(rows)), rng)
        encoder = encoder._replace(level=levels)
    return state._replace(encoder=encoder)


def _loss(
    branch: Branch,
    classes: nn.Linear,
    context_BH: Tensor,
    label_B: Tensor,
    weight_B: Tensor,
    recipe: BranchRecipe,
) -> Tensor:
    """Return the weighted loss, and beside it the loss of the seven classes with a weight."""
    error = bounded(branch.head(context_BH)[:, 0]) - label_B
    loss = (weight_B * (error.abs() if recipe.loss == "l1" else error.square())).mean()
    if recipe.classes:
        target = label_B.round().long() + 3
        loss = loss + recipe.classes * nn.functional.cross_entropy(classes(context_BH), target)
    return loss


@torch.inference_mode()
def predict(branch: Branch, corpus: Corpus, name: str, levels: Tensor | None = None) -> Tensor:
    """Return the unimodal estimates (N,) of whole clips, each from the initial state.

    `levels` (N, C + 1) replaces that of the initial state, see `SpeakerLevels.levels`.
    """
    return bounded(branch.head(contexts(branch, corpus, name, levels))[:, 0])
