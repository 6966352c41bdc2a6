"""Train a shipped checkpoint: a branch per modality on its own corpus, then the fused head.

Knows feature files, CSVs of texts and the model. Knows no front end and no stream.

Each head has a random stream of its own that comes from the seed, so `only` gives the same numbers
as a run of all heads, on the same machine.
"""

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.clips import DataError
from ..data.corpus import Corpus, from_clips
from ..data.text_csv import Part, read_part, text_clips
from ..data.validation_split import quarters
from ..evaluation.conformal import Widths
from ..nn.config import preset
from ..nn.tam_ulag import MODALITIES, TamUlag
from ..runtime.checkpoint import MINILM, Card, load, load_tuned, save
from ..text.text_encoder import TextEncoder, encoder_for
from .branch_batches import contexts, read_corpora, repeat_pictures
from .heads_recipe import BranchRecipe, HeadsRecipe, TuneRecipe
from .prefix_clips import prefix_vectors, text_prefix_vectors
from .progress import Log, Progress, silent
from .recipe_file import load_recipe
from .run_folder import LAST
from .text_finetune import finetune
from .train_branch import train_branch
from .train_fusion import PrefixVectors, Vectors, copy_head, intervals, train_fusion
from .train_scales import fit_scales, scaled_intervals

STAGES = (*MODALITIES, "sentiment")
TYPICAL = 2000
"""Training clips of each modality, or a few more, that say what is typical."""


class _Start(NamedTuple):
    """The model at the start of a training, its card and its text encoder."""

    model: TamUlag
    card: Card
    encoder: TextEncoder
    tuned: dict[str, Tensor]
    """Tensors in which the text encoder differs from the packaged one."""


def train(
    path: Path,
    out: Path,
    log: Log,
    *,
    only: Collection[str] = STAGES,
    base: str | None = None,
    progress: Progress = silent,
    runs: Path | None = None,
    resume: bool = False,
) -> dict[str, float]:
    """Train the heads of a training file and write the checkpoint.

    Args:
        path: Training file; relative paths in it count from the working directory.
        out: Checkpoint to write.
        log: Called with a line of progress.
        only: Heads to train, of `text, audio, vision, sentiment`; `sentiment` is the fused one.
            It takes the modalities that have a table; others then count as absent in a stream.
        base: Checkpoint that the other heads are taken from; None: they stay untrained.
        progress: Called with the current work, how much of it is done, and of how much.
        runs: Folder in which the epochs of the table [tune] are stored in `NAME-text`, NAME that of
            the training file, until the checkpoint is written; None: they are not stored.
        resume: Continue the text encoder's training that was stopped.

    Returns:
        Figures on the validation rows, also written into the card.

    Raises:
        DataError: If the training file or a feature file cannot be used, or there is a stopped
            training without `resume`, or none with it.
        CheckpointError: If the base cannot be used.
    """
    recipe = load_recipe(path, HeadsRecipe)
    torch.manual_seed(recipe.seed)
    stages = {stage for stage in (*recipe.tables, "sentiment") if stage in only}
    if not stages:
        raise DataError(f"{path} has no table for {', '.join(only)}: add one, or change --only")
    model, card, encoder, tuned = _start(base, stages, recipe)
    folder = None if runs is None or not tunes(recipe, stages) else runs / f"{path.stem}-text"
    if folder is not None:
        _check_last(folder / LAST, resume=resume)
    figures = {k: v for k, v in card.figures.items() if k.partition(".")[0] not in stages}
    data, found = dict(card.data), _widths(card)
    for number, stage in enumerate(STAGES):
        if stage not in stages:
            continue
        rng = np.random.default_rng((recipe.seed, number))
        torch.manual_seed(recipe.seed * 10 + number)
        if stage == "sentiment":
            found = _fuse(model, encoder, recipe, rng, log)
            figures |= {f"sentiment.interval.{key}": half for key, half in found.interval.items()}
            figures |= {f"sentiment.quantile.{name}": q for name, q in found.quantile.items()}
            data[stage] = _sources(recipe)
        else:
            report = partial(_report, progress, stage)
            scores = _train_head(model, encoder, recipe, stage, rng, log, report, folder)
            figures |= {f"{stage}.{key}": value for key, value in scores.items()}
            data[stage] = recipe.tables[stage].data
        log(f"{stage} is trained")
    card = Card(
        trained=card.trained | dict.fromkeys(stages, True),
        **found._asdict(),
        data=data,
        figures=figures,
        text_encoder=encoder.name,
    )
    if recipe.tune is not None and "text" in stages:
        tuned = encoder.layers(recipe.tune.layers if recipe.tune.start is None else None)
    if model.scales is not None and "sentiment" not in stages:
        log("scales and intervals are those of the heads before: train the stage sentiment too")
    save(model, card, out, tuned)
    if folder is not None:
        (folder / LAST).unlink()
    return figures


def _widths(card: Card) -> Widths:
    return Widths(card.interval, card.begun, card.heard, card.clips, card.quantile)


def tunes(recipe: HeadsRecipe, stages: Collection[str]) -> bool:
    """Return whether the text encoder is trained, whose training can be resumed."""
    return recipe.tune is not None and "text" in stages


def _sources(recipe: HeadsRecipe) -> str:
    if len(recipe.tables) > 1:
        return "clips of the modalities with nearly equal labels, paired at random"
    return f"says what the {next(iter(recipe.tables))} head says"


def _train_head(
    model: TamUlag,
    encoder: TextEncoder,
    recipe: HeadsRecipe,
    name: str,
    rng: np.random.Generator,
    log: Log,
    progress: Progress,
    folder: Path | None,
) -> dict[str, float]:
    """Train one modality in place; return figures on its validation rows."""
    table, branch = recipe.tables[name], getattr(model, name)
    if isinstance(table, BranchRecipe):
        clips, valid = read_corpora(table, name)
        return train_branch(branch, name, clips, valid, table, rng, log, progress)
    return finetune(encoder, branch, table, rng, log, progress=progress, folder=folder)


def _check_last(last: Path, *, resume: bool) -> None:
    if resume and not last.is_file():
        raise DataError(f"--resume: there is no {last} to go on with: leave it out, or see --runs")
    if last.is_file() and not resume:
        raise DataError(
            f"{last} is of a training that was stopped: give --resume to go on, or remove it"
        )


def _report(progress: Progress, stage: str, work: str, done: int, total: int) -> None:
    progress(f"{stage}, {work}", done, total)


def _start(base: str | None, stages: Collection[str], recipe: HeadsRecipe) -> _Start:
    """Return what a training starts from.

    A head that is to be trained starts with fresh weights whatever the base has of it, and so does
    the text encoder, unless its table names where it starts.
    """
    begun = recipe.tune.start if recipe.tune and "text" in stages else None
    encoder, tuned = _encoder(base, begun, stages, recipe)
    config = preset("stream")
    if recipe.tune:
        config = replace(config, text=recipe.tune.shape(config.text, encoder.size))
    shapes: dict[str, Any] = {
        modality: table.shape(getattr(config, modality))
        for modality, table in recipe.tables.items()
        if isinstance(table, BranchRecipe)
    }
    config = replace(config, **shapes)
    if "sentiment" in stages:
        config = replace(config, scales=recipe.fusion.scales)
    if base is None:
        untrained = Card(trained=dict.fromkeys(STAGES, False))
        return _Start(_begun(TamUlag(config), begun), untrained, encoder, tuned)
    known, card = load(base)
    kept = [name for name in MODALITIES if name not in stages]
    if "sentiment" not in stages:
        kept += ["shares", "scales", "fused"]
    model = TamUlag(replace(config, **{name: getattr(known.config, name) for name in kept}))
    if "sentiment" not in stages:
        _check_sizes(model, known, base)
    parts = dict.fromkeys(("fusion", "head", "scales"), "sentiment")
    others = {
        name: value
        for name, value in known.state_dict().items()
        if parts.get(first := name.partition(".")[0], first) not in stages
    }
    model.load_state_dict(model.state_dict() | others)
    return _Start(_begun(model, begun), card, encoder, tuned)


def _encoder(
    base: str | None, begun: str | None, stages: Collection[str], recipe: HeadsRecipe
) -> tuple[TextEncoder, dict[str, Tensor]]:
    """Return the text encoder at the start, and its tuned tensors that stay if nothing is tuned."""
    if base is not None and "text" not in stages:
        return encoder_for(base), load_tuned(base)
    if begun is not None:
        return encoder_for(begun), {}
    return TextEncoder(name=recipe.tune.encoder if recipe.tune else MINILM), {}


def _check_sizes(model: TamUlag, known: TamUlag, base: str) -> None:
    """Refuse a branch of another size than the base's, whose fused head cannot take it.

    Raises:
        DataError: If there is one.
    """
    for name in MODALITIES:
        size, before = getattr(model, name).size, getattr(known, name).size
        if size != before:
            raise DataError(
                f"[{name}] gives {size} values where that of {base} gives {before}: train what "
                f"takes them as well, with --only {name},sentiment"
            )


def _begun(model: TamUlag, start: str | None) -> TamUlag:
    """Return the model with the text branch of a checkpoint, if one is named.

    Raises:
        DataError: If its text branch has another form.
    """
    if start is not None:
        known, _ = load(start)
        if known.config.text != model.config.text:
            raise DataError(
                f"[tune] start = {start}: its text branch is {known.config.text}, the one to train "
                f"{model.config.text}: name a checkpoint of the same form"
            )
        model.text.load_state_dict(known.text.state_dict())
    return model


def _fuse(
    model: TamUlag, encoder: TextEncoder, recipe: HeadsRecipe, rng: np.random.Generator, log: Log
) -> Widths:
    """Train the fused head on vectors from the branches as they are now; return half widths.

    Several modalities are paired on validation clips. Of one there is nothing to fuse: the fused
    head learns on the training clips to give the estimate of the modality's own head.
    """
    names = tuple(recipe.tables)
    model.config = replace(model.config, fused=names, shares=recipe.fusion.shares or ())
    if len(names) == 1:
        seen = pooled_vectors(model, encoder, recipe, names[0], "train")
        copy_head(model, names[0], seen, recipe.fusion, rng)
        if model.scales is None:
            prefixes = {names[0]: prefixes_of(model, encoder, recipe, names[0], rng)}
            return intervals(model, prefixes, recipe.fusion, rng)
    valid = {name: pooled_vectors(model, encoder, recipe, name, "valid") for name in names}
    if not recipe.fusion.shares:
        train_fusion(model, valid, recipe.fusion, rng, log)
    prefixes = {name: prefixes_of(model, encoder, recipe, name, rng) for name in names}
    part = {name: valid[name].part[prefixes[name].clip] for name in names}
    later = {name: prefixes[name].of_rows(part[name] >= 2) for name in names}
    if model.scales is None:
        return intervals(model, later, recipe.fusion, rng)
    first = {name: prefixes[name].of_rows(part[name] < 2) for name in names}
    folds = {name: part[name][part[name] < 2] for name in names}
    typical = {
        name: pooled_vectors(model, encoder, recipe, name, "train", most=TYPICAL).context
        for name in names
    }
    fit_scales(model, model.scales, first, folds, typical, log)
    return scaled_intervals(model, model.scales, later)


def prefixes_of(
    model: TamUlag, encoder: TextEncoder, recipe: HeadsRecipe, name: str, rng: np.random.Generator
) -> PrefixVectors:
    """Return the pooled vectors of one modality's validation clips and of prefixes of them."""
    branch, table = getattr(model, name), recipe.tables[name]
    if isinstance(table, BranchRecipe):
        return prefix_vectors(branch, name, read_corpora(table, name)[1], table.still, rng)
    corpora = [read_part([path], "valid", table.form) for path in table.valid]
    return text_prefix_vectors(branch, encoder, corpora, rng)


def pooled_vectors(
    model: TamUlag,
    encoder: TextEncoder,
    recipe: HeadsRecipe,
    name: str,
    part: Part,
    *,
    most: int | None = None,
) -> Vectors:
    """Return the pooled vectors of one modality's clips, evenly `most` or a few more of them."""
    corpus = head_corpus(encoder, recipe, name, part, most=most)
    context = contexts(getattr(model, name), corpus, name)
    part_of = torch.from_numpy(quarters(corpus.groups, corpus.corpora))
    return Vectors(context, corpus.labels, part_of)


def head_corpus(
    encoder: TextEncoder, recipe: HeadsRecipe, name: str, part: Part, *, most: int | None = None
) -> Corpus:
    """Return one modality's clips as its head is given them, evenly `most` or a few more of them.

    Raises:
        DataError: If a file cannot be used.
    """
    table = recipe.tables[name]
    if not isinstance(table, BranchRecipe):
        return _texts(encoder, table, part, most)
    corpus = read_corpora(table, name)[part == "valid"]
    corpus = corpus.select(np.arange(0, len(corpus), _every(len(corpus), most)))
    return repeat_pictures(corpus, name, table.still)


def _texts(encoder: TextEncoder, table: TuneRecipe, part: Part, most: int | None) -> Corpus:
    """Return the sentences that have a token, encoded; each file of them is a corpus."""
    files = [(path, read_part([path], part, table.form)) for path in getattr(table, part)]
    every, clips = _every(sum(len(rows) for _, rows in files), most), []
    for path, rows in files:
        chosen = rows[::every]
        states = encoder.encode_batch([row.text for row in chosen])
        found = text_clips(chosen, states)
        clips += [replace(clip, corpus=str(path)) for clip in found if clip.values]
    return from_clips(clips)


def _every(count: int, most: int | None) -> int:
    return 1 if most is None else max(1, count // most)
