"""Fine-tune the last layers of the text encoder together with the text branch.

Knows labelled sentences. Knows no audio, vision, stream or feature file.
"""

import math
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import category

import numpy as np
import torch
from torch import Tensor, nn

from .branch import Branch
from .data import read_labelled
from .encoder import EncoderState, Ticks
from .evaluate import LIMITS, Form
from .metrics import mosi_metrics, sims_metrics
from .tam_ulag import LIMIT, bounded
from .text import TextEncoder

Log = Callable[[str], None]
Rows = list[tuple[list[str], float]]
Weights = dict[str, Tensor]

MARKS = string.punctuation + "".join(
    character for character in map(chr, range(0x10000)) if category(character)[0] == "P"
)
"""Punctuation of all scripts."""

SHOWN = ("MAE", "Corr", "Acc2_non0", "Acc2")
SAMPLE = 1000
"""Sentences from which mean and deviation of the token states are taken."""


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
class _Run:
    """What a training goes on from."""

    net: TextNet
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    average: Weights

    def kept(self) -> tuple[object, ...]:
        """Return a copy of everything, for `go_back`."""
        parts = (self.net, self.optimiser, self.schedule)
        return deepcopy((*(part.state_dict() for part in parts), self.average))

    def go_back(self, kept: tuple[object, ...]) -> None:
        """Take up what `kept` returned; it stays as it is."""
        net, optimiser, schedule, average = deepcopy(kept)
        self.net.load_state_dict(net)  # type: ignore[arg-type]
        self.optimiser.load_state_dict(optimiser)  # type: ignore[arg-type]
        self.schedule.load_state_dict(schedule)  # type: ignore[arg-type]
        self.average = average  # type: ignore[assignment]


@dataclass
class _Best:
    """The weights with the lowest validation MAE, the mean over the files, each counted once."""

    net: TextNet
    encoder: TextEncoder
    checks: Mapping[str, Rows]
    form: Form
    log: Log
    mae: float = float("inf")
    weights: Weights = field(default_factory=dict)

    def consider(self, name: str, weights: Weights) -> None:
        """Measure weights and keep them if they are better; the network's own stay."""
        current = deepcopy(self.net.state_dict())
        self.net.load_state_dict(weights)
        scores = self.scores()
        self.net.load_state_dict(current)
        mae = sum(score["MAE"] for score in scores.values()) / len(scores)
        self.log(f"  {name}: {_summary(scores)}")
        if mae < self.mae:
            self.mae, self.weights = mae, deepcopy(weights)

    def scores(self) -> dict[str, dict[str, float]]:
        """Return the figures of the network as it is, per validation file."""
        return {
            name: evaluate(self.net, self.encoder, rows, self.form)
            for name, rows in self.checks.items()
        }


def finetune(
    encoder: TextEncoder, branch: Branch, recipe: TuneRecipe, rng: np.random.Generator, log: Log
) -> dict[str, float]:
    """Train in place with the L1 loss; keep the averaged weights of the best epoch, or their mean.

    The validation MAE is the mean over the files of `valid`, each counted once.

    Returns:
        Metrics per validation file, e.g. `mosi.Corr`.
    """
    net = TextNet(encoder, branch)
    rows = _read(recipe.train, encoder, recipe.form)
    extra = _read(recipe.extra, encoder, "mosi")
    checks = {path.parent.name: _read([path], encoder, recipe.form) for path in recipe.valid}
    _standardise(encoder, branch, rows, rng)
    seen = len(rows) * recipe.epochs + len(extra) * recipe.extra_epochs
    optimiser, schedule = _optimiser(net, recipe, math.ceil(seen / recipe.batch))
    run = _Run(net, optimiser, schedule, deepcopy(net.state_dict()))
    best = _Best(net, encoder, checks, recipe.form, log)
    common = min(recipe.extra_epochs, recipe.epochs)
    for epoch in range(common):
        _epoch(run, encoder, rows + extra, recipe, rng)
        best.consider(f"epoch {epoch + 1}/{recipe.epochs}", run.average)
    parting, ends = run.kept(), []
    for fork in range(recipe.forks):
        run.go_back(parting)
        of = f", fork {fork + 1}/{recipe.forks}" if recipe.forks > 1 else ""
        for epoch in range(common, recipe.epochs):
            _epoch(run, encoder, rows, recipe, rng)
            best.consider(f"epoch {epoch + 1}/{recipe.epochs}{of}", run.average)
        ends.append(run.average)
    if len(ends) > 1:
        best.consider(f"mean of {len(ends)} forks", mean_weights(ends))
    net.load_state_dict(best.weights)
    net.eval()
    return {
        f"{name}.{key}": value
        for name, score in best.scores().items()
        for key, value in score.items()
    }


def mean_weights(of: Sequence[Weights]) -> Weights:
    """Return the mean of each tensor over networks of one shape."""
    return {name: torch.stack([weights[name] for weights in of]).mean(dim=0) for name in of[0]}


def _read(files: Sequence[Path], encoder: TextEncoder, form: Form) -> Rows:
    """Return words and sentiment in [-3, 3] of the rows of CSVs."""
    limit = LIMITS[form]
    rows = [row for path in files for row in read_labelled(path, limit=limit)]
    return [(encoder.split(row.text), row.label * (LIMIT / limit)) for row in rows]


def _standardise(
    encoder: TextEncoder, branch: Branch, rows: Rows, rng: np.random.Generator
) -> None:
    """Set the branch's mean and deviation from the token states before training."""
    some = rng.choice(len(rows), min(SAMPLE, len(rows)), replace=False)
    states = np.concatenate(encoder.encode_batch([" ".join(rows[i][0]) for i in some]))
    branch.encoder.mean.copy_(torch.from_numpy(states.mean(axis=0)))
    branch.encoder.deviation.copy_(torch.from_numpy(states.std(axis=0)).clamp(min=1e-3))


def _summary(scores: dict[str, dict[str, float]]) -> str:
    return "; ".join(
        f"{name} " + " ".join(f"{key} {s[key]:.4f}" for key in SHOWN if key in s)
        for name, s in scores.items()
    )


def _optimiser(
    net: TextNet, recipe: TuneRecipe, total: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return AdamW with one group per layer, and a rise and a cosine over `total` steps."""
    for parameter in net.network.parameters():
        parameter.requires_grad_(False)
    layers = list(net.network.encoder.layer)[-recipe.layers :]  # type: ignore[union-attr,arg-type]
    groups = [{"params": list(net.branch.parameters()), "lr": recipe.head_rate}]
    for depth, layer in enumerate(reversed(layers)):
        for parameter in layer.parameters():
            parameter.requires_grad_(True)
        rate = recipe.encoder_rate * recipe.layer_decay**depth
        groups.append({"params": list(layer.parameters()), "lr": rate})
    optimiser = torch.optim.AdamW(groups, weight_decay=recipe.decay, fused=True)
    rise = max(1, round(recipe.warmup * total))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def _epoch(
    run: _Run, encoder: TextEncoder, rows: Rows, recipe: TuneRecipe, rng: np.random.Generator
) -> None:
    net = run.net
    net.train()
    varied = [(_varied(words, recipe, rng), label) for words, label in rows]
    tokens = [encoder.tokens(words)[0] for words, _ in varied]
    labels = torch.tensor([label for _, label in varied])
    carried: EncoderState | None = None
    for chosen in batches([len(t) for t in tokens], recipe.batch, rng):
        start = None
        if carried is not None:
            fresh = net.branch.encoder.initial_state(len(chosen))
            start = mixed(fresh, carried, recipe.carried, rng)
        estimate, after = net(*_padded(encoder, [tokens[i] for i in chosen]), start)
        carried = EncoderState(*(part.detach() for part in after))
        label = labels[torch.from_numpy(chosen)]
        loss = (estimate - label).abs().mean()
        if recipe.side:
            loss += recipe.side * _side_loss(estimate, label, recipe.form)
        run.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        run.optimiser.step()
        run.schedule.step()
        with torch.no_grad():
            for name, value in net.state_dict().items():
                run.average[name].lerp_(value, 1 - recipe.average)


def _side_loss(estimate: Tensor, label: Tensor, form: Form) -> Tensor:
    told = torch.ones_like(label) if form == "sims" else (label != 0).to(label.dtype)
    above = (label > 0).to(label.dtype)
    return nn.functional.binary_cross_entropy_with_logits(estimate, above, weight=told)


def _varied(words: list[str], recipe: TuneRecipe, rng: np.random.Generator) -> list[str]:
    if rng.random() < recipe.bare:
        words = [word.strip(MARKS) for word in words]
    if len(words) > 3 and rng.random() < recipe.prefix:
        words = words[: int(rng.integers(3, len(words)))]
    return words


def batches(lengths: Sequence[int], size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield batches of rows of similar length, in random order, so that little is padded.

    Sorting inside windows of sixteen batches keeps the draw random and the padding small.
    """
    order = rng.permutation(len(lengths))
    for window in np.array_split(order, max(1, len(order) // (size * 16))):
        by_length = window[np.argsort(np.asarray(lengths)[window], kind="stable")]
        parts = np.array_split(by_length, max(1, len(window) // size))
        for part in rng.permutation(len(parts)):
            yield parts[part]


def mixed(
    fresh: EncoderState, carried: EncoderState, share: float, rng: np.random.Generator
) -> EncoderState:
    """Give a share of the rows the state of a row from the batch before.

    The running level stays fresh: it belongs to a voice, and the rows are of different people.
    """
    count = len(fresh.h)
    source = torch.from_numpy(rng.integers(0, len(carried.h), count))
    keep = torch.from_numpy(rng.random(count) < share).view(-1, 1, 1)
    return EncoderState(
        torch.where(keep, carried.h[source], fresh.h),
        torch.where(keep, carried.c[source], fresh.c),
        fresh.level,
    )


def _padded(encoder: TextEncoder, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
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
        scores[chosen] = net(*_padded(encoder, [tokens[i] for i in chosen]), None)[0].numpy()
    scale = LIMITS[form] / LIMIT
    measure = mosi_metrics if form == "mosi" else sims_metrics
    return measure(scores * scale, np.array([label for _, label in rows]) * scale)
