"""The text encoder and the text branch as one network, and one epoch of its training.

Knows sentences as words. Knows no file, no stream and no other modality.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data.label_scale import LIMITS, Form
from ..data.text_csv import varied
from ..evaluation.metrics import mosi_metrics, sims_metrics
from ..nn.branch import Branch
from ..nn.encoder import EncoderState, Ticks
from ..nn.tam_ulag import LIMIT, bounded
from ..text.text_encoder import TextEncoder
from .run_folder import Job, Tell, quiet
from .sampling import batches, carry_states

Rows = list[tuple[list[str], float]]
"""Words and sentiment in [-3, 3]."""
Weights = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class TuneRecipe:
    """How the text encoder and the text branch are trained together."""

    train: Sequence[Path]
    """CSVs of texts."""
    valid: Sequence[Path]
    form: Form = "mosi"
    """Range of the labels of `train` and `valid`, [-3, 3] or [-1, 1] (`sims`), and the figures."""
    extra: Sequence[Path] = ()
    """CSVs of texts of another kind, labels in [-3, 3], seen in the first `extra_epochs` only."""
    extra_epochs: int = 0
    layers: int = 6
    """Layers that are trained, counted from the last one."""
    epochs: int = 5
    forks: int = 1
    """Runs that part after the first `extra_epochs`, each with rows in an order of its own.

    The mean of their weights is kept where it is better (Wortsman et al. 2022, Model soups): runs
    that part late end near enough to each other for a mean.
    """
    batch: int = 32
    encoder_rate: float = 1e-4
    """Learning rate of the last layer; it is multiplied by `layer_decay` per layer below."""
    layer_decay: float = 0.85
    head_rate: float = 1e-3
    decay: float = 0.01
    warmup: float = 0.1
    """Share of the steps over which the rates rise from 0."""
    average: float = 0.998
    """Decay per step of the moving average of the weights; the average is what is kept."""
    bare: float = 0.3
    """Share of training sentences that lose their punctuation, as some recognisers give none."""
    prefix: float = 0.1
    """Share of training sentences that are cut to a random beginning, as live words are."""
    side: float = 0.0
    """Weight of a logistic loss on whether the label is above 0, beside the L1 loss.

    A label of 0 counts as below in the form of CH-SIMS, as its Acc2 has it, else not at all.
    """
    carried: float = 0.5
    """Share of sentences that begin with the recurrent state of another sentence."""


class TextNet(nn.Module):
    """The transformer and the text branch as one module."""

    def __init__(self, encoder: TextEncoder, branch: Branch) -> None:
        super().__init__()
        self.network = encoder.network
        self.branch = branch

    def forward(
        self, ids: Tensor, mask: Tensor, words: Tensor, state: EncoderState | None
    ) -> tuple[Tensor, EncoderState]:
        """Return the text head's estimates (B,) and the state after each sentence.

        Args:
            ids: (B, L) token ids with the special tokens.
            mask: (B, L) True = a token.
            words: (B, L) True = a token of a word, neither special nor padding.
            state: Recurrent state at the start; None = the initial one.
        """
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.training):
            states = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        time = torch.zeros(ids.shape, dtype=torch.int64)
        before = self.branch.initial_state(len(ids))
        if state is not None:
            before = before._replace(encoder=state)
        now = torch.ones(len(ids), 1, dtype=torch.int64)
        pooled, after = self.branch.step(Ticks(states.float(), words, time, time), now, before)
        return bounded(self.branch.head(pooled.context)[:, 0, 0]), after.encoder


@dataclass
class Run:
    """What a training goes on from."""

    net: TextNet
    optimiser: torch.optim.Optimizer
    average: Weights
    """Moving average of what is trained."""
    total: int
    """Steps over which the rates rise and fall."""
    step: int = 0

    def tensors(self) -> Weights:
        """Return a copy of everything that training changes, under flat names."""
        names = {f"net.{name}" for name in self.average}
        job = Job(self.net, self.optimiser, None).tensors()
        out = {n: t for n, t in job.items() if n in names or n.startswith("optimiser.")}
        out |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        return {name: tensor.clone() for name, tensor in out.items()}

    def restore(self, tensors: Weights, step: int) -> None:
        """Go on from what `tensors` returned; it stays as it is.

        Raises:
            ValueError: If a tensor is missing.
            RuntimeError: If one is left over or has another shape.
        """
        wanted = {f"{part}.{name}" for part in ("net", "average") for name in self.average}
        if wanted - tensors.keys():
            raise ValueError(f"{min(wanted - tensors.keys())} is missing")
        own = {name: tensor.clone() for name, tensor in tensors.items()}
        for name in self.average:
            self.average[name] = own.pop(f"average.{name}")
        job = Job(self.net, self.optimiser, None)
        frozen = {name: t for name, t in job.tensors().items() if name.startswith("net.")}
        job.restore(frozen | own)
        self.step = step


def begin(net: TextNet, recipe: TuneRecipe, total: int) -> Run:
    """Return a run at its start: AdamW with one group per layer.

    Args:
        net: Changed in place: its last layers and its branch are to be trained, nothing else.
        recipe: Says what, and how fast.
        total: Steps there will be.
    """
    for parameter in net.network.parameters():
        parameter.requires_grad_(False)
    layers = list(net.network.encoder.layer)[-recipe.layers :]  # type: ignore[union-attr,arg-type]
    groups = [{"params": list(net.branch.parameters()), "base": recipe.head_rate}]
    for depth, layer in enumerate(reversed(layers)):
        for parameter in layer.parameters():
            parameter.requires_grad_(True)
        rate = recipe.encoder_rate * recipe.layer_decay**depth
        groups.append({"params": list(layer.parameters()), "base": rate})
    optimiser = torch.optim.AdamW(groups, weight_decay=recipe.decay, fused=True)
    trained = {n: p.detach().clone() for n, p in net.named_parameters() if p.requires_grad}
    return Run(net, optimiser, trained, total)


def factor(step: int, total: int, warmup: float) -> float:
    """Return by what the rates are multiplied: a rise, then a cosine to 0."""
    rise = max(1, round(warmup * total))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


def train_epoch(
    run: Run,
    encoder: TextEncoder,
    rows: Rows,
    recipe: TuneRecipe,
    rng: np.random.Generator,
    tell: Tell = quiet,
    what: str = "epoch",
) -> float:
    """Train one epoch, `what` in the words of `tell`; return the mean loss."""
    net = run.net
    net.train()
    drawn = [(varied(words, recipe.bare, recipe.prefix, rng), label) for words, label in rows]
    tokens = [encoder.tokens(words)[0] for words, _ in drawn]
    labels = torch.tensor([label for _, label in drawn])
    carried: EncoderState | None = None
    done, losses = 0, 0.0
    for chosen in batches([len(t) for t in tokens], recipe.batch, rng):
        start = None
        if carried is not None:
            fresh = net.branch.encoder.initial_state(len(chosen))
            start = carry_states(fresh, carried, recipe.carried, rng)
        estimate, after = net(*padded(encoder, [tokens[i] for i in chosen]), start)
        carried = EncoderState(*(part.detach() for part in after))
        loss = _loss(estimate, labels[torch.from_numpy(chosen)], recipe)
        _step(run, loss, recipe)
        done, losses = done + len(chosen), losses + loss.item() * len(chosen)
        tell(what, done, len(rows))
    return losses / done


def _loss(estimate: Tensor, label: Tensor, recipe: TuneRecipe) -> Tensor:
    loss = (estimate - label).abs().mean()
    if recipe.side:
        loss = loss + recipe.side * _side_loss(estimate, label, recipe.form)
    return loss


def _step(run: Run, loss: Tensor, recipe: TuneRecipe) -> None:
    for group in run.optimiser.param_groups:
        group["lr"] = group["base"] * factor(run.step, run.total, recipe.warmup)
    run.optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(run.net.parameters(), 1.0)
    run.optimiser.step()
    run.step += 1
    with torch.no_grad():
        for name, value in run.net.named_parameters():
            if name in run.average:
                run.average[name].lerp_(value, 1 - recipe.average)


def _side_loss(estimate: Tensor, label: Tensor, form: Form) -> Tensor:
    told = torch.ones_like(label) if form == "sims" else (label != 0).to(label.dtype)
    above = (label > 0).to(label.dtype)
    return nn.functional.binary_cross_entropy_with_logits(estimate, above, weight=told)


def padded(encoder: TextEncoder, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids with the special tokens, which are tokens and which are of words, each (B, L)."""
    framed = [torch.tensor(encoder.framed(row)) for row in tokens]
    ids = nn.utils.rnn.pad_sequence(framed, batch_first=True)
    place = torch.arange(ids.shape[1])
    lengths = torch.tensor([len(row) for row in framed]).unsqueeze(-1)
    return ids, place < lengths, (place > 0) & (place < lengths - 1)


@torch.inference_mode()
def evaluate(
    net: TextNet, encoder: TextEncoder, rows: Rows, form: Form = "mosi"
) -> dict[str, float]:
    """Return the metrics of sentences that are each scored alone from the initial state."""
    net.eval()
    tokens = [encoder.tokens(words)[0] for words, _ in rows]
    order = np.argsort([len(t) for t in tokens], kind="stable")
    scores = np.zeros(len(rows))
    for chosen in np.array_split(order, max(1, len(order) // 128)):
        scores[chosen] = net(*padded(encoder, [tokens[i] for i in chosen]), None)[0].numpy()
    scale = LIMITS[form] / LIMIT
    measure = mosi_metrics if form == "mosi" else sims_metrics
    return measure(scores * scale, np.array([label for _, label in rows]) * scale)
