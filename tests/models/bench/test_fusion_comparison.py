"""Ways to fuse, compared on the same pairings."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tamulag.models import MODALITIES, TamUlag
from tamulag.models.bench.fusion_comparison import Validation, compare, open_validation
from tamulag.models.data.clips import DataError
from tamulag.models.runtime.checkpoint import Card, save
from tamulag.models.training.heads_recipe import FusionRecipe
from tamulag.models.training.train_fusion import Vectors

ROOT = Path(__file__).parents[3]
WAYS = ["head", "mean", "agreement", "precision", "product"]


@pytest.fixture
def validation(model: TamUlag) -> Validation:
    """Return random clips; text's scores are made right, so that it is to be trusted."""
    torch.manual_seed(1)
    label = torch.rand(600) * 5 - 2.5
    part = torch.arange(600) // 60 % 2 * 2
    clips = {name: Vectors(torch.randn(600, 6), label, part) for name in MODALITIES}
    head = model.text.head
    inputs = torch.cat([clips["text"].context, torch.ones(600, 1)], dim=1)
    inputs[:, 0] = label
    clips["text"] = Vectors(inputs[:, :6], label, part)
    with torch.no_grad():
        hidden = head.features(clips["text"].context)
        last = [layer for layer in head if isinstance(layer, torch.nn.Linear)][-1]
        wanted = 3 * torch.atanh(label / 3)
        solved = torch.linalg.lstsq(
            torch.cat([hidden, torch.ones(600, 1)], dim=1), wanted.unsqueeze(-1)
        ).solution
        last.weight.copy_(solved[:-1].T)
        last.bias.copy_(solved[-1])
    return Validation(model, clips, FusionRecipe(near=0.2))


def test_every_way_has_every_row(validation: Validation) -> None:
    """Seven sets of modalities and three conflicts."""
    rows, conflicts = compare(validation, np.random.default_rng(1))
    assert [row.way for row in rows] == WAYS * 7
    assert {row.present for row in rows} >= {"text", "audio+vision", "text+audio+vision"}
    assert [(row.present, row.way) for row in conflicts[:2]] == [
        ("text+audio", "head"),
        ("text+audio", "mean"),
    ]
    assert len(conflicts) == 15


def test_the_product_finds_the_head_to_trust(validation: Validation) -> None:
    """Where one head is right and the others are noise it beats the mean, and follows it."""
    rows, conflicts = compare(validation, np.random.default_rng(1))
    error = {row.way: row.MAE for row in rows if row.present == "text+audio+vision"}
    assert error["product"] < 0.8 * error["mean"]
    nearer = {row.way: row.nearer_first for row in conflicts if row.present == "text+audio"}
    assert nearer["product"] > 0.9


def test_better_is_against_the_head(validation: Validation) -> None:
    """The head is no better than itself; the others' figure is the difference of MAE."""
    rows, _ = compare(validation, np.random.default_rng(1))
    head = {row.present: row for row in rows if row.way == "head"}
    assert all(row.better == row.better_interval == 0 for row in head.values())
    assert all(row.better == pytest.approx(head[row.present].MAE - row.MAE) for row in rows)


def test_a_checkpoint_without_a_fused_head_is_refused(model: TamUlag, tmp_path: Path) -> None:
    """The error names what is untrained."""
    trained = {"sentiment": False, "text": True, "audio": True, "vision": True}
    save(model, Card(trained=trained), tmp_path / "some.safetensors")
    with pytest.raises(DataError, match="sentiment untrained"):
        open_validation(
            str(tmp_path / "some.safetensors"), ROOT / "configs" / "train" / "default.toml"
        )
