"""The joint training learns, reaches every parameter, and weighs as the paper does."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from support.learnable_data import quiet, recipe, write
from tamulag.models.data.clips import Clip, DataError, write_clips
from tamulag.models.data.corpus import Corpus
from tamulag.models.data.mmsa_pickle import read_packed
from tamulag.models.training.joint_recipe import DataTable, JointRecipe
from tamulag.models.training.train_joint import Task, build, load_splits, train_epoch
from tamulag.models.training.validation import estimate

PLAIN = {"drop_modality": 0.0, "prefix": 0.0, "joined": 1}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("joint"))


def started(chosen: JointRecipe, seed: int = 1) -> Task:
    return build(chosen, load_splits(chosen)["train"], seed)


def mae(task: Task, corpus: Corpus) -> float:
    return float((estimate(task, corpus).sentiment - corpus.labels).abs().mean())


def test_it_learns_and_beats_the_mean(packed: Path) -> None:
    """The fused loss falls by half, and valid rows are estimated better than by their mean."""
    chosen = recipe(packed)
    splits = load_splits(chosen)
    task = build(chosen, splits["train"], 1)
    losses = [train_epoch(task, epoch, quiet)[0]["loss.fused"] for epoch in range(1, 9)]
    assert losses[-1] < losses[0] / 2
    valid = splits["valid"]
    assert mae(task, valid) < 0.5 * float((valid.labels - valid.labels.mean()).abs().mean())


def test_unimodal_heads_train_from_epoch_two(packed: Path) -> None:
    """With ULGM every weight is 0 in epoch 1, as labels are those of the clips."""
    task = started(recipe(packed))
    first, labels, reached = train_epoch(task, 1, quiet)
    second, _, later = train_epoch(task, 2, quiet)
    assert reached.tolist() == [0, 0, 0]
    assert first["loss.total"] == pytest.approx(first["loss.fused"])
    assert (later > 0).all()
    assert second["loss.text"] > 0
    assert labels.shape == (70, 3)


@pytest.mark.parametrize("labels", ["none", "ulgm", "ulag", "ulag_release", "both"])
def test_gradient_reaches_every_parameter(packed: Path, labels: str) -> None:
    """LSTM, attention, experts and confidence nets too, once labels differ from the clip's."""
    task = started(recipe(packed, f'model.labels = "{labels}"'))
    train_epoch(task, 1, quiet)
    before = {name: p.detach().clone() for name, p in task.net.named_parameters()}
    train_epoch(task, 2, quiet)
    still = {name for name, p in task.net.named_parameters() if torch.equal(p, before[name])}
    heads = {f"model.{m}.head" for m in ("text", "audio", "vision")}
    if labels == "none":
        assert {name.rpartition(".")[0].rpartition(".")[0] for name in still} == heads
    else:
        assert not still


def test_labels_of_ulag_are_there_from_epoch_one(packed: Path) -> None:
    """They stay the same, are without gradient, and all clips count; `floor` changes that."""
    task = started(recipe(packed, 'model.labels = "ulag"'))
    assert task.made is not None
    assert not task.made.requires_grad
    spread = float(task.corpus.labels.std())
    for epoch in (1, 2, 3):
        _, targets, reached = train_epoch(task, epoch, quiet)
        assert torch.equal(targets, task.made)
        assert (targets.std(dim=0) > 0.8 * spread).all()
        assert reached.tolist() == [70, 70, 70]
    weighed = started(recipe(packed, 'model.labels = "ulag"', "labels.floor = 0.0"))
    _, _, reached = train_epoch(weighed, 1, quiet)
    assert (reached < 70).all()
    assert (reached > 0).all()


def test_labels_of_words_that_are_trained_along(tmp_path: Path) -> None:
    """They are made of the encoder's states at the start, also if a clip has no words."""
    packed = write(tmp_path, rows={"train": 12, "valid": 4})
    chosen = recipe(packed, 'model.labels = "ulag"', "text = { finetune = true }")
    corpus = load_splits(chosen)["train"]
    assert corpus.tokens is not None
    corpus.tokens[3] = corpus.tokens[3][[0, -1]]
    task = build(chosen, corpus, 1)
    assert task.made is not None
    assert torch.isfinite(task.made).all()
    assert task.made[3, 0] == corpus.labels[3]


def test_accumulated_batches_are_one_step(packed: Path) -> None:
    """The gradient is the sum of the batches' mean losses: order and cut do not matter."""
    weights = []
    for sort in (None, {"text": 6, "audio": 9, "vision": 7}):
        chosen = recipe(packed, 'model.labels = "none"').model_copy(
            update={**PLAIN, "fused": False}
        )
        task = started(chosen)
        for module in task.net.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        train_epoch(task, 1, quiet, padded=sort)
        weights.append(torch.cat([p.detach().flatten() for p in task.net.parameters()]))
    torch.testing.assert_close(*weights, atol=2e-5, rtol=1e-4)


def test_rates_and_decays_go_to_their_groups(packed: Path) -> None:
    """Each parameter has one group; heads and fusion are with the rest."""
    task = started(recipe(packed))
    groups = {group["name"]: group for group in task.optimiser.param_groups}
    assert {name: g["lr"] for name, g in groups.items()} == {
        "audio": 1e-2,
        "vision": 1e-2,
        "other": 5e-3,
    }
    counted = sum(p.numel() for g in groups.values() for p in g["params"])
    assert counted == sum(p.numel() for p in task.net.parameters())
    owned = {id(p) for p in groups["audio"]["params"]}
    assert {id(p) for p in task.net.model.audio.encoder.parameters()} < owned
    assert owned.isdisjoint(id(p) for p in task.net.model.audio.head.parameters())


def test_clipping_bounds_what_a_step_sees(packed: Path) -> None:
    """A tiny bound with plain gradient descent moves the weights by no more than it."""
    chosen = recipe(packed).model_copy(update={"clip": 1e-3, "batch": 100, **PLAIN})
    task = started(chosen)
    task = replace(task, optimiser=torch.optim.SGD(task.net.parameters(), lr=1.0))
    before = torch.cat([p.detach().clone().flatten() for p in task.net.parameters()])
    train_epoch(task, 1, quiet)
    after = torch.cat([p.detach().flatten() for p in task.net.parameters()])
    assert float((after - before).norm()) == pytest.approx(1e-3, rel=0.02)


def test_inputs_are_standardised_by_the_training_rows(packed: Path) -> None:
    """Mean and deviation of valid steps alone; `standardise = false` leaves them as they are."""
    task = started(recipe(packed))
    flat = torch.cat(task.corpus.values["audio"])
    torch.testing.assert_close(task.net.model.audio.encoder.mean, flat.mean(dim=0))
    plain = started(recipe(packed).model_copy(update={"standardise": False}))
    assert not plain.net.model.audio.encoder.mean.any()


def test_loudness_does_not_count_where_it_is_centred(packed: Path) -> None:
    """The deviation is that around each clip's own level."""
    chosen = recipe(packed, "model.text = { centred = 2 }")
    encoder = started(chosen).net.model.text.encoder
    flat = torch.cat(load_splits(chosen)["train"].values["text"])
    torch.testing.assert_close(encoder.level, flat[:, :2].mean(dim=0))
    assert encoder.deviation[0] < flat[:, 0].std()
    assert float(encoder.deviation[5]) == pytest.approx(float(flat[:, 5].std()), rel=0.01)


def test_labels_of_sims_are_in_its_range(packed: Path) -> None:
    """An estimate of 3 means 1, and generated labels stay within 1."""
    chosen = recipe(packed, 'data.form = "sims"')
    splits = load_splits(chosen)
    splits["train"].labels.div_(3)
    task = build(chosen, splits["train"], 1)
    for epoch in (1, 2, 3):
        _, targets, _ = train_epoch(task, epoch, quiet)
    assert float(targets.abs().max()) <= 1
    assert float(estimate(task, splits["valid"]).sentiment.abs().max()) <= 1


def test_feature_files_are_trained_on_by_groups(packed: Path, tmp_path: Path) -> None:
    """What `tamulag extract` writes, with the named groups in valid alone."""
    clips = read_packed(packed)["train"].clips()
    groups = [str(place % 5) for place in range(len(clips))]
    path = tmp_path / "mine.safetensors"
    write_clips(path, [replace(c, group=g) for c, g in zip(clips, groups, strict=True)], about="")
    chosen = recipe(packed)
    data = {"train": [path], "valid": [path], "valid_groups": ["4"], "packed": None}
    chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update=data)})
    splits = load_splits(chosen)
    assert {name: len(corpus.labels) for name, corpus in splits.items()} == {
        "train": 56,
        "valid": 14,
    }
    losses, _, _ = train_epoch(build(chosen, splits["train"], 1), 1, quiet)
    assert math.isfinite(losses["loss.total"])


def test_missing_split_is_refused(tmp_path: Path) -> None:
    """With the name of the split."""
    with pytest.raises(DataError, match="no rows of valid"):
        load_splits(recipe(write(tmp_path, rows={"train": 5})))


def test_clips_without_anything_are_refused(packed: Path, tmp_path: Path) -> None:
    """Nothing could be trained."""
    path = tmp_path / "empty.safetensors"
    write_clips(path, [Clip(0.0, "a", {}, {}), Clip(1.0, "b", {}, {})], about="")
    data = DataTable(train=[path], valid=[path])
    with pytest.raises(DataError, match="hold nothing of text, audio, vision"):
        load_splits(recipe(packed).model_copy(update={"data": data}))


def test_text_encoder_is_trained_along(tmp_path: Path) -> None:
    """Its tensors move, biases and norms without decay; bfloat16 gives nearly the same loss."""
    packed = write(tmp_path, rows={"train": 12, "valid": 4})
    losses = []
    for bf16 in ("false", "true"):
        chosen = recipe(packed, f"text = {{ finetune = true, bf16 = {bf16}, rate = 1e-3 }}")
        task = started(chosen.model_copy(update=PLAIN))
        assert task.net.network is not None
        before = [p.detach().clone() for p in task.net.network.parameters()]
        losses.append(train_epoch(task, 1, quiet)[0]["loss.total"])
        after = list(task.net.network.parameters())
        assert not any(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    names = {g["name"]: g["weight_decay"] for g in task.optimiser.param_groups}
    assert names["text, no decay"] == 0
    assert names["text"] == 1e-3
    assert np.isfinite(losses).all()


def test_modality_that_no_clip_has_does_not_count(packed: Path) -> None:
    """The fused head has never seen it, so it is absent in every estimate, live too."""
    splits = load_splits(recipe(packed))
    corpus = splits["train"]
    for part in (corpus.values["vision"], corpus.ticks["vision"]):
        part[:] = [steps[:0] for steps in part]
    chosen = recipe(packed).model_copy(update={"standardise": False})
    task = build(chosen, corpus, 1)
    assert task.net.model.config.fused == ("text", "audio")
    assert not estimate(task, splits["valid"]).present[:, 2].any()


def test_preset_stream_trains_on_a_packed_file(packed: Path) -> None:
    """Whose audio has 4 values in place of our 332."""
    chosen = recipe(packed)
    table = chosen.model.model_copy(update={"preset": "stream", "audio": {}, "vision": {}})
    task = started(chosen.model_copy(update={"model": table}))
    assert math.isfinite(train_epoch(task, 1, quiet)[0]["loss.total"])


@pytest.mark.parametrize(("count", "warned"), [(7, True), (120, False)])
def test_few_validation_clips_are_reported(tmp_path: Path, count: int, warned: bool) -> None:
    """Of seven clips one is validated: the log warns that its figures mean nothing."""
    values, ticks = {"audio": np.ones((2, 4), np.float32)}, {"audio": np.arange(2)}
    clips = [Clip(row / 100, str(row), values, ticks) for row in range(count)]
    path = tmp_path / "mine.safetensors"
    write_clips(path, clips, about="")
    chosen = recipe(path)
    data = DataTable(train=[path], valid=[path])
    lines: list[str] = []
    load_splits(chosen.model_copy(update={"data": data}), lines.append)
    assert any(line.startswith("warning: 1 validation clips") for line in lines) is warned
