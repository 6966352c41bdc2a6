"""The model behind its text encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch

from support.learnable_data import recipe, write
from tamulag.models.data.batches import collate
from tamulag.models.data.corpus import from_packed
from tamulag.models.data.mmsa_pickle import read_packed
from tamulag.models.training.train_joint import Task, build, load_splits


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    chosen = recipe(write(tmp_path_factory.mktemp("net")))
    return build(chosen, load_splits(chosen)["train"], 1)


def test_clip_scores_as_the_model_alone(task: Task) -> None:
    """No room for memory changes nothing: forward of the whole clip gives the same."""
    rows = np.arange(5)
    batch = collate(task.corpus, rows)
    with torch.no_grad():
        ours, _ = task.net.eval()(batch)
        whole = task.net.model(batch.ticks, batch.now)
    torch.testing.assert_close(ours.sentiment, whole.sentiment, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.heads, whole.heads, atol=1e-6, rtol=0)


def test_tokens_without_an_encoder_are_refused(task: Task, tmp_path: Path) -> None:
    """Rather than scoring nothing."""
    split = read_packed(write(tmp_path))["train"]
    corpus = from_packed(split, tokens=True, vocabulary=30522)
    batch = collate(corpus, np.arange(2))
    with pytest.raises(RuntimeError, match="finetune"):
        task.net(batch)
