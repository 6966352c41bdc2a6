"""Clips put together to triples."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tamulag.models import MODALITIES, TamUlag
from tamulag.models.bench.triples import HeldClips, decided, drawn, open_held
from tamulag.models.data.clips import DataError
from tamulag.models.runtime.checkpoint import Card, save

ROOT = Path(__file__).parents[3]


def clips(label: list[float], person: list[int], corpus: list[int]) -> HeldClips:
    """Return clips with random contexts."""
    count = len(label)
    context = torch.randn(count, 6, generator=torch.Generator().manual_seed(1))
    who, where = torch.tensor(person), torch.tensor(corpus)
    steps, part = torch.full((count,), 4), torch.zeros(count, dtype=torch.int64)
    return HeldClips(context, steps, torch.tensor(label), who, where, part)


def all_three(part: HeldClips) -> dict[str, HeldClips]:
    """Return the same clips as those of every modality."""
    return dict.fromkeys(MODALITIES, part)


def test_the_nearest_labels_are_drawn(model: TamUlag) -> None:
    """A label that no clip has is answered by the one next to it."""
    held = all_three(clips([-2.0, 0.0, 1.0, 1.1], [0, 1, 2, 3], [0, 0, 0, 0]))
    wanted = torch.tensor([[-3.0, 0.2, 1.3]]).repeat(60, 1)
    found = drawn(model, held, wanted, np.random.default_rng(1))
    assert found.label[:, 0].unique().tolist() == [-2.0]
    assert found.label[:, 1].unique().tolist() == [0.0]
    assert found.label[:, 2].unique().tolist() == [1.0, pytest.approx(1.1)]
    assert torch.equal(found.person, found.rows)


def test_people_and_corpora_count_the_same(model: TamUlag) -> None:
    """However many clips they have: half of the draws are of the corpus with one clip."""
    person = [0] * 90 + [1] * 9 + [2]
    held = all_three(clips([0.0] * 100, person, [0] * 99 + [1]))
    found = drawn(model, held, torch.zeros(4000, 3), np.random.default_rng(1))
    share = found.person[:, 0].bincount() / 4000
    torch.testing.assert_close(share, torch.tensor([0.25, 0.25, 0.5]), atol=0.03, rtol=0)


def test_scores_are_those_of_the_heads_and_absent_ones_do_not_count(model: TamUlag) -> None:
    """Each head sees its own clip; of one alone the fused form is asked with one present."""
    held = all_three(clips([0.0, 1.0, 2.0], [0, 1, 2], [0, 0, 0]))
    rows = torch.tensor([[0, 1, 2], [2, 1, 0]])
    some = decided(model, held, rows, torch.tensor([True, False, True]))
    assert some.present[:, 0].tolist() == [[True, False, True]] * 2
    for place, name in enumerate(MODALITIES):
        contexts = held[name].context[rows[:, place]]
        head = 3 * torch.tanh(getattr(model, name).head(contexts)[:, 0] / 3)
        torch.testing.assert_close(some.heads[:, 0, place], head)
    other = decided(model, held, torch.tensor([[0, 0, 2], [2, 2, 0]]), some.present[0, 0])
    torch.testing.assert_close(other.sentiment, some.sentiment)


def test_a_checkpoint_without_a_fused_head_is_refused(model: TamUlag, tmp_path: Path) -> None:
    """The error names what is untrained; neither is one whose fused head is a network."""
    trained = {"sentiment": False, "text": True, "audio": True, "vision": True}
    path, config = tmp_path / "some.safetensors", ROOT / "configs" / "train" / "default.toml"
    save(model, Card(trained=trained), path)
    with pytest.raises(DataError, match="sentiment untrained"):
        open_held(str(path), config)
    save(model, Card(trained=dict.fromkeys(trained, True)), path)
    with pytest.raises(DataError, match="not with shares"):
        open_held(str(path), config)
