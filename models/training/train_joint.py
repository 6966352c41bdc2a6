"""Joint training of the four tasks: fused, text, audio and vision (Sun and Wang 2024).

Knows corpora, the model and the loss. Knows no command line. Everything random of an epoch comes
from the seed and the epoch's number, so that a run that was stopped resumes to the same numbers.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ..data.batches import collate, cost, shortened, windows
from ..data.clips import DataError
from ..data.corpus import Corpus, Integers, from_clips, from_packed
from ..data.label_scale import LIMITS, label_scale
from ..data.mmsa_pickle import read_packed
from ..data.validation_split import split_clips
from ..nn.tam_ulag import MODALITIES, Output, TamUlag
from .branch_batches import standardise
from .joint_loss import Loss, Targets, joint_loss, unimodal_targets
from .joint_network import JointNetwork
from .joint_recipe import JointRecipe, least_weight, model_config
from .progress import Log, Progress, Record, silent
from .run_folder import Job
from .state_carry import StateCarry
from .ulag_labels import pooled, pooled_vectors, ulag_labels
from .ulgm_labels import Ulgm

FEW = 20
"""Validation clips below which the log warns."""
STATES = 256
"""Clips of whose token states mean and deviation are taken."""
NORMS = ("bias", "LayerNorm.weight")
"""Ends of the names of the text encoder's parameters that do not decay."""


@dataclass(frozen=True)
class Task(Job):
    """A job with its data."""

    net: JointNetwork
    corpus: Corpus
    recipe: JointRecipe
    seed: int

    @property
    def scale(self) -> float:
        """Return the factor from an estimate in [-3, 3] to the range of the labels."""
        return label_scale(self.recipe.data.form)


def load_splits(recipe: JointRecipe, log: Log = silent) -> dict[str, Corpus]:
    """Read `train`, `valid` and, where it is asked for, `test`.

    Args:
        recipe: The training file.
        log: Called with the clips that were drawn to be only validated, and if they are few.

    Raises:
        DataError: If a file cannot be used or a split is missing or empty.
    """
    data = recipe.data
    if data.packed is not None:
        wanted = ["train", "valid", *(["test"] if data.test else [])]
        splits = read_packed(data.packed)
        missing = [name for name in wanted if name not in splits or not len(splits[name].labels)]
        if missing:
            raise DataError(f"packed file {data.packed} has no rows of {', '.join(missing)}")
        tokens, vocabulary = recipe.text.finetune, _vocabulary(recipe)
        return {n: from_packed(splits[n], tokens=tokens, vocabulary=vocabulary) for n in wanted}
    clips = split_clips(
        data.train,
        data.valid,
        data.valid_groups,
        share=data.valid_share,
        seed=data.valid_seed,
        log=log,
    )
    if (count := len(clips["valid"])) < FEW:
        log(
            f"warning: {count} validation clips: their figures mean next to nothing, and of fewer "
            "than 9 there is no 90 % interval; label more clips, or raise data.valid_share"
        )
    corpora = {name: from_clips(rows) for name, rows in clips.items()}
    for corpus in corpora.values():
        if not corpus.values:
            raise DataError(f"{len(corpus)} clips hold nothing of {', '.join(MODALITIES)}")
    return corpora


def _vocabulary(recipe: JointRecipe) -> int:
    if not recipe.text.finetune:
        return 0
    from ..text.text_encoder import packaged_folder

    settings = json.loads((packaged_folder() / "config.json").read_text(encoding="utf-8"))
    return int(settings["vocab_size"])


def _network(recipe: JointRecipe) -> nn.Module | None:
    if not recipe.text.finetune:
        return None
    from ..text.text_encoder import TextEncoder

    return TextEncoder().network


def build(recipe: JointRecipe, corpus: Corpus, seed: int) -> Task:
    """Return a model at its start, its optimiser and its labels.

    Raises:
        DataError: If the options and the data do not go together; with labels of `ulag` also if all
            clips are of one group.
    """
    torch.manual_seed(seed)
    network = _network(recipe)
    text = {} if network is None else {"text": int(network.config.hidden_size)}  # type: ignore[union-attr,arg-type]
    longest = int(corpus.lengths().max()) + 2 if recipe.data.packed is not None else 0
    seen = corpus.lengths().sum(axis=0).tolist()
    fused = tuple(name for name, here in zip(MODALITIES, seen, strict=True) if here)
    config = model_config(recipe, corpus.dims() | text, longest)
    model = TamUlag(replace(config, fused=fused))
    net = JointNetwork(model, network, bf16=recipe.text.bf16)
    if recipe.standardise:
        _standardise(net, corpus, special=recipe.text.special)
    ulgm = None
    if model.config.labels in ("ulgm", "both"):
        heads = [model.head, *(getattr(model, name).head for name in MODALITIES)]
        limit = LIMITS[recipe.data.form]
        sizes = [head.size for head in heads]
        ulgm = Ulgm(corpus.labels, sizes, limit=limit, zero=recipe.labels.zero)
    made = _made(net, corpus, recipe, seed) if model.config.labels == "ulag" else None
    return Task(net, optimiser_of(net, recipe), ulgm, made, corpus, recipe, seed)


@torch.no_grad()
def _made(net: JointNetwork, corpus: Corpus, recipe: JointRecipe, seed: int) -> Tensor:
    """Return ULAG's labels (C, M).

    Of a text encoder that is trained along the states at the start are taken: later ones know the
    labels of the clips that they were trained on.
    """
    vectors = pooled_vectors(corpus)
    if corpus.tokens is not None:
        vectors["text"] = _text_vectors(net, corpus, special=recipe.text.special)
    limit = LIMITS[recipe.data.form]
    return ulag_labels(vectors, corpus.labels, corpus.groups, seed=seed, limit=limit).label


def _text_vectors(net: JointNetwork, corpus: Corpus, *, special: bool) -> tuple[Tensor, Tensor]:
    """Return the mean state of each clip that has words (N, D), and its place (N,)."""
    net.eval()
    words, rows = corpus.lengths()[:, 0], list[Tensor]()
    alone = replace(corpus, values={}, ticks={})
    order = np.argsort(words, kind="stable")[int((words == 0).sum()) :]
    for begin in range(0, len(order), STATES):
        batch = collate(alone, order[begin : begin + STATES], special=special)
        assert batch.tokens is not None
        pairs = zip(net.states(batch.tokens), batch.ticks["text"].mask, strict=True)
        rows += [pooled(states[there], deviation=False) for states, there in pairs]
    return torch.stack(rows), torch.from_numpy(order)


@torch.no_grad()
def _standardise(net: JointNetwork, corpus: Corpus, *, special: bool) -> None:
    """Set the mean and deviation of each modality from the training vectors.

    Those of a text encoder that is trained along are taken as it is at the start.
    """
    vectors = dict(corpus.values)
    if corpus.tokens is not None:
        net.eval()
        rows = np.linspace(0, len(corpus) - 1, min(STATES, len(corpus))).astype(int)
        batch = collate(corpus, rows, special=special)
        assert batch.tokens is not None
        vectors["text"] = [net.states(batch.tokens)[batch.ticks["text"].mask]]
    for name, clips in vectors.items():
        standardise(getattr(net.model, name).encoder, clips, correction=0)


def optimiser_of(net: JointNetwork, recipe: JointRecipe) -> torch.optim.Adam:
    """Return Adam with the groups of the release (the method's section 1.5).

    The groups: the text encoder, without decay for its biases and norms; the branches of audio and
    vision up to their vectors F_s; and all else, heads, fusion and label generation.
    """
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        parts = name.split(".")
        if parts[0] == "network":
            key = "text, no decay" if name.endswith(NORMS) else "text"
        elif parts[1] in ("audio", "vision") and parts[2] != "head":
            key = parts[1]
        else:
            key = "other"
        groups.setdefault(key, []).append(parameter)
    tables = {name: getattr(recipe, name.partition(",")[0]) for name in groups}
    return torch.optim.Adam(
        [
            {
                "params": parameters,
                "lr": tables[name].rate,
                "weight_decay": 0.0 if "no decay" in name else tables[name].decay,
                "name": name,
            }
            for name, parameters in groups.items()
        ],
        fused=recipe.fused,
    )


def train_epoch(
    task: Task, epoch: int, progress: Progress, *, padded: Mapping[str, int] | None = None
) -> tuple[Record, Tensor, Tensor]:
    """Train one epoch.

    Args:
        task: Changed in place.
        epoch: From 1.
        progress: Called with the clips that are done.
        padded: Steps to pad each modality to, and no sorting by length, as the field's framework
            does it, for comparison. None: batches are trimmed and sorted.

    Returns:
        The mean losses; the targets of the unimodal tasks (C, M); and the sum of their weights
        (M,).
    """
    recipe, corpus = task.recipe, task.corpus
    rng = np.random.default_rng([task.seed, epoch])
    torch.manual_seed(int(rng.integers(2**31)))
    task.net.train()
    lengths, chain = corpus.lengths(), StateCarry(recipe.joined)
    targets = corpus.labels.unsqueeze(-1).repeat(1, len(MODALITIES))
    losses, reached = torch.zeros(2 + len(MODALITIES)), torch.zeros(len(MODALITIES))
    done = 0
    steps = windows(cost(corpus), recipe.batch, recipe.accumulate, rng, sort=padded is None)
    for parts in steps:
        for rows in parts:
            left = shortened(lengths[rows], rng, drop=recipe.drop_modality, prefix=recipe.prefix)
            loss, wanted = _step(task, chain, rows, left, rng, epoch, padded)
            losses += len(rows) * torch.stack([loss.total, loss.fused, *loss.unimodal]).detach()
            targets[rows], reached = wanted.target.detach(), reached + wanted.weight.sum(dim=0)
            done += len(rows)
            progress(f"epoch {epoch}", done, len(lengths))
        if recipe.clip:
            nn.utils.clip_grad_norm_(task.net.parameters(), recipe.clip)
        task.optimiser.step()
        task.optimiser.zero_grad()
    names = ("loss.total", "loss.fused", *(f"loss.{name}" for name in MODALITIES))
    return dict(zip(names, (losses / done).tolist(), strict=True)), targets, reached


def _step(
    task: Task,
    chain: StateCarry,
    rows: Integers,
    steps_BM: Integers,
    rng: np.random.Generator,
    epoch: int,
    padded: Mapping[str, int] | None,
) -> tuple[Loss, Targets]:
    """Add the gradient of one batch."""
    special = task.recipe.text.special
    batch = collate(task.corpus, rows, steps_BM, special=special, full=padded)
    out, after = task.net(batch, chain.start(task.net.start(len(rows)), rng))
    chain.store(after)
    wanted = _targets(task, batch.rows, out, batch.labels, epoch)
    sentiment, heads = out.sentiment[:, -1] * task.scale, out.heads[:, -1] * task.scale
    loss = joint_loss(sentiment, heads, batch.labels, wanted, out.present[:, -1])
    loss.total.backward()
    return loss, wanted


def _targets(task: Task, rows: Tensor, out: Output, labels: Tensor, epoch: int) -> Targets:
    features, present = [f[:, -1] for f in out.features], out.present[:, -1]
    table, ulag, made = task.recipe.labels, task.net.model.ulag, None
    if task.made is not None:
        made = task.made[rows]
    elif ulag is not None:
        made = ulag(features, labels, present, table.gradient)
    return unimodal_targets(
        labels,
        # Detached: the bank would hold the whole graph of the batch.
        ulgm_BM=None
        if task.ulgm is None
        else task.ulgm.update(rows, [f.detach() for f in features], present, epoch),
        ulag_BM=made,
        alpha=table.alpha,
        weigh=table.weigh,
        floor=least_weight(task.recipe),
    )
