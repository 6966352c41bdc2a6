"""The text encoder and the text branch as one network, and one epoch of its training.

Knows sentences as words. Knows no file, no stream and no other modality.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ..data.batches import shuffled_batches
from ..data.label_scale import Form, label_scale
from ..data.text_csv import vary_words
from ..evaluation.metrics import METRICS
from ..nn.branch import Branch
from ..nn.encoder import EncoderState, Ticks
from ..nn.tam_ulag import bounded
from ..text.adapters import is_adapter
from ..text.text_encoder import TextEncoder
from .heads_recipe import TuneRecipe
from .progress import Progress, silent
from .run_folder import Job
from .state_carry import CARRIED, carry_states, detached
from .weights import Weights, copied, update_average

Sentences = list[tuple[list[str], float]]
"""Words and sentiment in [-3, 3]."""
WEIGHT_DECAY = 0.01
WARMUP = 0.1
"""Share of the steps over which the rates rise from 0."""
FIXED = {"decay": WEIGHT_DECAY, "warmup": WARMUP, "carried": CARRIED}
"""What no training file sets, yet a training that is resumed must have had."""


def _has_bfloat16() -> bool:
    """Return whether the processor has arithmetic for it: without, it takes 14 times as long."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


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
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.training and _has_bfloat16()):
            states = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        time = torch.zeros(ids.shape, dtype=torch.int64)
        before = self.branch.initial_state(len(ids))
        if state is not None:
            before = before._replace(encoder=state)
        now = torch.ones(len(ids), 1, dtype=torch.int64)
        pooled, after = self.branch.step(Ticks(states.float(), words, time, time), now, before)
        return bounded(self.branch.head(pooled.context)[:, 0, 0]), after.encoder


@dataclass
class TuneRun:
    """The state of a training between two steps."""

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
        job = Job(self.net, self.optimiser, None, None).tensors()
        out = {n: t for n, t in job.items() if n in names or n.startswith("optimiser.")}
        out |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        return copied(out)

    def restore(self, tensors: Weights, step: int) -> None:
        """Continue from what `tensors` returned; it stays as it is.

        Raises:
            ValueError: If a tensor is missing.
            RuntimeError: If one is left over or has another shape.
        """
        wanted = {f"{part}.{name}" for part in ("net", "average") for name in self.average}
        if wanted - tensors.keys():
            raise ValueError(f"{min(wanted - tensors.keys())} is missing")
        own = copied(tensors)
        for name in self.average:
            self.average[name] = own.pop(f"average.{name}")
        job = Job(self.net, self.optimiser, None, None)
        frozen = {name: t for name, t in job.tensors().items() if name.startswith("net.")}
        job.restore(frozen | own)
        self.step = step


def start_run(net: TextNet, recipe: TuneRecipe, total: int) -> TuneRun:
    """Return a run at its start: AdamW with one group per layer.

    Args:
        net: Changed in place: its last layers, or their adapters, and its branch are to be trained,
            nothing else.
        recipe: Layers and rates.
        total: Steps there will be.
    """
    for parameter in net.network.parameters():
        parameter.requires_grad_(False)
    layers = list(net.network.encoder.layer)[-recipe.layers :]  # type: ignore[union-attr,arg-type]
    groups = [{"params": list(net.branch.parameters()), "base": recipe.head_rate}]
    for depth, layer in enumerate(reversed(layers)):
        trained = [p for n, p in layer.named_parameters() if is_adapter(n) or not recipe.adapters]
        for parameter in trained:
            parameter.requires_grad_(True)
        rate = recipe.encoder_rate * recipe.layer_decay**depth
        groups.append({"params": trained, "base": rate})
    optimiser = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True)
    average = copied((n, p) for n, p in net.named_parameters() if p.requires_grad)
    return TuneRun(net, optimiser, average, total)


def factor(step: int, total: int, warmup: float = WARMUP) -> float:
    """Return the factor of the rates at a step: a rise, then a cosine to 0."""
    rise = max(1, round(warmup * total))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


def train_epoch(
    run: TuneRun,
    encoder: TextEncoder,
    rows: Sentences,
    recipe: TuneRecipe,
    rng: np.random.Generator,
    progress: Progress = silent,
    work: str = "epoch",
) -> float:
    """Train one epoch, which `progress` reports as `work`; return the mean loss."""
    net = run.net
    net.train()
    vary = partial(
        vary_words, rng=rng, bare=recipe.bare, prefix=recipe.prefix, fillers=recipe.fillers
    )
    drawn = [(vary(words), label) for words, label in rows]
    tokens = [encoder.tokens(words)[0] for words, _ in drawn]
    labels = torch.tensor([label for _, label in drawn])
    carried: EncoderState | None = None
    done, losses = 0, 0.0
    for chosen in shuffled_batches([len(t) for t in tokens], recipe.batch, rng):
        start = None
        if carried is not None:
            fresh = net.branch.encoder.initial_state(len(chosen))
            start = carry_states(fresh, carried, rng)
        estimate, after = net(*padded(encoder, [tokens[i] for i in chosen]), start)
        carried = detached(after)
        loss = _loss(estimate, labels[torch.from_numpy(chosen)], recipe)
        _step(run, loss, recipe)
        done, losses = done + len(chosen), losses + loss.item() * len(chosen)
        progress(work, done, len(rows))
    return losses / done


def _loss(estimate: Tensor, label: Tensor, recipe: TuneRecipe) -> Tensor:
    error = estimate - label
    loss = (error.abs() if recipe.loss == "l1" else error.square()).mean()
    if recipe.side:
        loss = loss + recipe.side * _side_loss(estimate, label, recipe.form)
    return loss


def _step(run: TuneRun, loss: Tensor, recipe: TuneRecipe) -> None:
    for group in run.optimiser.param_groups:
        group["lr"] = group["base"] * factor(run.step, run.total)
    run.optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(run.net.parameters(), 1.0)
    run.optimiser.step()
    run.step += 1
    update_average(run.average, run.net.named_parameters(), recipe.average)


def _side_loss(estimate: Tensor, label: Tensor, form: Form) -> Tensor:
    counted = torch.ones_like(label) if form == "sims" else (label != 0).to(label.dtype)
    above = (label > 0).to(label.dtype)
    return nn.functional.binary_cross_entropy_with_logits(estimate, above, weight=counted)


def padded(encoder: TextEncoder, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids with the special tokens, which are tokens and which are of words, each (B, L)."""
    framed = [torch.tensor(encoder.framed(row)) for row in tokens]
    ids = nn.utils.rnn.pad_sequence(framed, batch_first=True)
    place = torch.arange(ids.shape[1])
    lengths = torch.tensor([len(row) for row in framed]).unsqueeze(-1)
    return ids, place < lengths, (place > 0) & (place < lengths - 1)


@torch.inference_mode()
def evaluate(
    net: TextNet, encoder: TextEncoder, rows: Sentences, form: Form = "mosi"
) -> dict[str, float]:
    """Return the metrics of sentences that are each scored alone from the initial state."""
    net.eval()
    tokens = [encoder.tokens(words)[0] for words, _ in rows]
    order = np.argsort([len(t) for t in tokens], kind="stable")
    scores = np.zeros(len(rows))
    for chosen in np.array_split(order, max(1, len(order) // 128)):
        scores[chosen] = net(*padded(encoder, [tokens[i] for i in chosen]), None)[0].numpy()
    scale = label_scale(form)
    return METRICS[form](scores * scale, np.array([label for _, label in rows]) * scale)
