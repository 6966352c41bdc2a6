"""One branch trained alone: which weights are used, and the level that it starts with."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tamulag.models.data.clips import Clip
from tamulag.models.data.corpus import Corpus, from_clips
from tamulag.models.nn.branch import Branch
from tamulag.models.nn.config import BranchConfig, ModelConfig
from tamulag.models.training.heads_recipe import BranchRecipe
from tamulag.models.training.train_branch import balanced, predict, train_branch


def rows(seed: int) -> Corpus:
    """Return clips whose features show the label."""
    rng = np.random.default_rng(seed)
    clips = []
    for label in rng.uniform(-3, 3, 48):
        values = (0.1 * rng.standard_normal((6, 4)) + label).astype(np.float32)
        clips.append(Clip(float(label), "one", {"audio": values}, {"audio": np.arange(6)}))
    return from_clips(clips)


def branch(centred: int = 0) -> Branch:
    torch.manual_seed(0)
    return Branch(BranchConfig(dim=4, hidden=8, layers=1, centred=centred), ModelConfig())


def recipe(**keys: object) -> BranchRecipe:
    fixed = {"train": [], "valid": [], "data": "", "epochs": 4, "batch": 8, "rate": 3e-3}
    return BranchRecipe.model_validate(fixed | keys)


def test_best_or_last_epoch_is_used() -> None:
    """Where every epoch makes the validation worse: the first one, or the last if not chosen."""
    train, valid, lines = rows(0), rows(1), list[str]()
    opposite = replace(valid, labels=-valid.labels)
    best, last = (
        train_branch(
            branch(), "audio", train, opposite, how, np.random.default_rng(0), lines.append
        )["MAE"]
        for how in (recipe(), recipe(choose=False))
    )
    maes = [float(line.split("MAE ")[1].split(",")[0]) for line in lines if "MAE" in line]
    assert maes[0] < maes[-1]
    assert (best, last) == pytest.approx((maes[0], maes[-1]), abs=1e-4)


def test_ridge_is_averaged_with_the_trained_head() -> None:
    """A trained head that learned nothing leaves half of the line, which finds the labels."""
    train, valid = rows(0), rows(1)
    config = recipe(recurrent=False, tam="mean").shape(BranchConfig(dim=4))
    assert (config.encoder, config.tam) == ("identity", "mean")
    scores = []
    for ridge in (0.0, 1e-3):
        torch.manual_seed(0)
        trained = Branch(config, ModelConfig())
        how = recipe(rate=1e-9, epochs=1, choose=False, ridge=ridge)
        train_branch(trained, "audio", train, valid, how, np.random.default_rng(0), lambda _: None)
        scores.append(torch.atanh(predict(trained, valid, "audio") / 3) * 3)
    torch.testing.assert_close(scores[1] - scores[0] / 2, valid.labels / 2, atol=0.25, rtol=0)


def test_level_of_the_speaker_moves_the_estimate() -> None:
    """A branch that takes features relative to their level is scored from the level given."""
    train, how = rows(0), recipe()
    trained = branch(centred=4)
    train_branch(trained, "audio", train, rows(1), how, np.random.default_rng(0), lambda _: None)
    start = trained.encoder.initial_state(len(train)).level
    whole = predict(trained, train, "audio")
    torch.testing.assert_close(predict(trained, train, "audio", start), whole)
    higher = start + 1.0 * start[:, -1:] * torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])
    assert (predict(trained, train, "audio", higher) < whole).float().mean() > 0.9


@pytest.mark.parametrize(
    "labels", [[-2.0, -2.0, -1.0, 3.0], [1.0, 2.0, -1.0, 0.0], [1.0, 1.0, 1.0, 0.0]]
)
def test_balanced_weights_make_both_sides_count_the_same(labels: list[float]) -> None:
    """However many negative and positive clips there are; the mean weight is 1."""
    label = torch.tensor(labels)
    weight = balanced(label)
    negative, positive = (float(weight[side].sum()) for side in (label < 0, label > 0))
    if negative:
        assert negative == pytest.approx(positive)
    assert float(weight.mean()) == pytest.approx(1.0)
