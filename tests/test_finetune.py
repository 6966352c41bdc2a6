"""Fine-tuning the text encoder: batches, variants, carried states, what changes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tamulag.models import ModelConfig, TamUlag
from tamulag.models.encoder import EncoderState
from tamulag.models.finetune import (
    TextNet,
    TuneRecipe,
    _varied,
    batches,
    evaluate,
    finetune,
    mean_weights,
    mixed,
)
from tamulag.models.text import TextEncoder


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder()


def test_batches_hold_each_row_once() -> None:
    """Nothing is dropped, nothing is repeated, and lengths inside a batch are similar."""
    lengths = np.random.default_rng(1).integers(1, 60, 500)
    found = list(batches(lengths.tolist(), 16, np.random.default_rng(0)))
    assert sorted(np.concatenate(found)) == list(range(500))
    spread = np.mean([np.ptp(lengths[rows]) for rows in found])
    assert spread < 0.25 * np.ptp(lengths)


def test_batches_come_in_another_order_each_time() -> None:
    """The draw is random, and the same for the same stream of random numbers."""
    lengths = list(range(100))
    streams = (np.random.default_rng(seed) for seed in (0, 0, 1))
    draw = [next(batches(lengths, 10, rng)).tolist() for rng in streams]
    assert draw[0] == draw[1] != draw[2]


def test_carried_states_are_those_of_other_rows() -> None:
    """With share 1 every row begins with some row of the batch before, but its own level."""
    fresh = EncoderState(torch.zeros(4, 1, 2), torch.zeros(4, 1, 2), torch.zeros(4, 1))
    before = EncoderState(torch.ones(3, 1, 2), 2 * torch.ones(3, 1, 2), torch.ones(3, 1))
    state = mixed(fresh, before, 1.0, np.random.default_rng(0))
    assert (state.h == 1).all()
    assert (state.c == 2).all()
    assert (state.level == 0).all()
    assert (mixed(fresh, before, 0.0, np.random.default_rng(0)).h == 0).all()


@pytest.mark.parametrize(
    ("bare", "prefix", "said"), [(1.0, 0.0, "well done all"), (0.0, 0.0, "well, done all!")]
)
def test_a_bare_sentence_has_no_punctuation(bare: float, prefix: float, said: str) -> None:
    """Some recognisers give none."""
    recipe = TuneRecipe(train=[], valid=[], bare=bare, prefix=prefix)
    assert _varied(["well,", "done", "all!"], recipe, np.random.default_rng(0)) == said.split()


def test_a_prefix_keeps_the_beginning() -> None:
    """Live words come one after the other."""
    recipe = TuneRecipe(train=[], valid=[], bare=0.0, prefix=1.0)
    words = list("abcdefgh")
    lengths = {len(_varied(words, recipe, np.random.default_rng(seed))) for seed in range(50)}
    assert lengths == {3, 4, 5, 6, 7}
    assert _varied(words, recipe, np.random.default_rng(0))[:3] == words[:3]


def test_a_sentence_alone_equals_the_same_in_a_batch(encoder: TextEncoder) -> None:
    """Padding does not count."""
    torch.manual_seed(0)
    net = TextNet(encoder, TamUlag(ModelConfig()).text)
    rows = [(["a", "very", "good", "and", "rather", "long", "film"], 1.0), (["bad"], -1.0)]
    together = evaluate(net, encoder, rows)["MAE"]
    alone = np.mean([evaluate(net, encoder, [row])["MAE"] for row in rows])
    assert together == pytest.approx(alone, abs=1e-5)


def test_only_the_last_layers_change(tmp_path: Path) -> None:
    """What is not trained stays as packaged, embeddings included."""
    encoder = TextEncoder()
    before = {name: value.clone() for name, value in encoder.network.state_dict().items()}
    path = tmp_path / "made" / "texts.csv"
    path.parent.mkdir()
    path.write_text("text,label\ngood film,2\nbad film,-2\n")
    recipe = TuneRecipe(train=[path], valid=[path], layers=1, epochs=1, batch=1, average=0.0)
    torch.manual_seed(0)
    branch = TamUlag(ModelConfig()).text
    figures = finetune(encoder, branch, recipe, np.random.default_rng(0), lambda _: None)
    after = encoder.network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("encoder.layer.5.") for name in changed)
    assert figures["made.n"] == 2


def test_forks_part_after_a_common_beginning(tmp_path: Path) -> None:
    """Each goes on from the same weights in an order of its own; their mean is measured too."""
    path = tmp_path / "made" / "texts.csv"
    path.parent.mkdir()
    lines = (f"{word} film,{label}\n" for word, label in (("good", 2), ("bad", -2), ("dull", -1)))
    path.write_text("text,label\n" + "".join(lines))
    said: list[str] = []
    recipe = TuneRecipe(
        train=[path],
        valid=[path],
        extra=[path],
        extra_epochs=1,
        layers=1,
        epochs=2,
        forks=2,
        batch=1,
        average=0.5,
    )
    torch.manual_seed(0)
    branch = TamUlag(ModelConfig()).text
    figures = finetune(TextEncoder(), branch, recipe, np.random.default_rng(0), said.append)
    names, measured = zip(*(line.strip().split(": ") for line in said), strict=True)
    assert names == ("epoch 1/2", "epoch 2/2, fork 1/2", "epoch 2/2, fork 2/2", "mean of 2 forks")
    assert len(set(measured)) == 4
    assert figures["made.MAE"] == pytest.approx(
        min(float(line.split("MAE ")[1].split()[0]) for line in measured), abs=1e-4
    )


def test_the_mean_of_weights_is_taken_tensor_by_tensor() -> None:
    """Each network counts alike."""
    mean = mean_weights([{"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, 6.0])}])
    assert mean["a"].tolist() == [2.0, 4.0]
