"""Ways to fuse, compared by people's law on heads whose errors are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tamulag.models import MODALITIES, ModelConfig, TamUlag
from tamulag.models.bench.crema_votes import Votes
from tamulag.models.bench.fusion_comparison import FusionScore, compare
from tamulag.models.bench.judgement import Judgements, Law
from tamulag.models.bench.triples import Held, HeldClips
from tamulag.models.data.clips import DataError
from tamulag.models.nn.scale import Scales
from tamulag.models.runtime.card import Card

WAYS = [
    "shipped",
    "text",
    "audio",
    "vision",
    "mean",
    "shares",
    "divided",
    "precision",
    "scales",
    "product",
]
WAYS += ["law", "regression", "fitted"]
CLIPS = 800


@pytest.fixture(scope="module")
def held() -> Held:
    """Return heads that give the first unit of a context; that of the voice is noise."""
    torch.manual_seed(1)
    model = _model()
    label = torch.rand(CLIPS) * 5 - 2.5
    person = torch.arange(CLIPS) // 4
    part, one = person % 4, torch.zeros(CLIPS, dtype=torch.int64)
    clips = {}
    for name in MODALITIES:
        context = torch.zeros(CLIPS, 6)
        context[:, 0] = torch.randn(CLIPS) if name == "audio" else label + 0.4 * torch.randn(CLIPS)
        clips[name] = HeldClips(context, one + 4, label, person, one, part)
    quantile = {"text": 2.3, "audio": 2.3, "vision": 2.3}
    return Held(model, Card(trained={}, quantile=quantile), clips)


def _model() -> TamUlag:
    config = ModelConfig(scales=True, shares=(0.4, 0.3, 0.4))
    branches = {name: replace(getattr(config, name), hidden=6, layers=1) for name in MODALITIES}
    model = TamUlag(replace(config, **branches)).eval()
    with torch.no_grad():
        for name in MODALITIES:
            first, last = (x for x in getattr(model, name).head if isinstance(x, torch.nn.Linear))
            for part in (*first.parameters(), *last.parameters()):
                part.zero_()
            # relu(x) - relu(-x) = x.
            first.weight[:2, 0] = last.weight[0, :2] = torch.tensor([1.0, -1.0])
        assert isinstance(model.scales, Scales)
        model.scales.bias.copy_(torch.tensor([0.4, 2.0, 0.4]).log())
    return model


@pytest.fixture(scope="module")
def people() -> Judgements:
    """Return labels that come together by chance."""
    labels = (
        torch.randint(-5, 6, (500, 3), generator=torch.Generator().manual_seed(1)) / 2
    ).float()
    return Judgements(Law((0.4, 0.2, 0.5), 0.9, 500), labels)


def of(rows: list[FusionScore], present: str, clips: str = "all") -> dict[str, FusionScore]:
    """Return the rows of one table by their way."""
    return {row.way: row for row in rows if (row.present, row.clips) == (present, clips)}


def test_every_way_has_every_row(held: Held, people: Judgements) -> None:
    """Four sets of modalities, on all triples and on conflicts."""
    found = compare(held, people, None, np.random.default_rng(1), triples=600, splits=2)
    rows = of(found.scores, "text+audio+vision")
    assert [*rows] == WAYS
    assert len(found.scores) == 2 * (len(WAYS) + 3 * (len(WAYS) - 1))
    assert not found.sidings
    assert all(sum(split.shares) == pytest.approx(1.0) for split in found.splits)
    assert [*found.splits[0].less] == [
        "text+audio+vision",
        "text+audio",
        "text+vision",
        "audio+vision",
    ]
    conflicts = of(found.scores, "text+audio+vision", "conflicts")
    assert 0 < conflicts["mean"].n < rows["mean"].n == 600


def test_heads_that_know_better_count_more(held: Held, people: Judgements) -> None:
    """The voice is noise and has a scale of its own: what ships beats shares and the mean."""
    found = compare(held, people, None, np.random.default_rng(1), triples=2000)
    rows = of(found.scores, "text+audio")
    assert rows["shipped"].figures["less"].value == 0.0
    for worse in ("mean", "shares", "law", "audio"):
        assert rows[worse].figures["less"].high < 0 > rows[worse].figures["more"].high
    assert rows["regression"].figures["MAE"].value <= rows["shipped"].figures["MAE"].value
    # A voice that is noise cannot have more of the fitted shares than it had.
    assert found.shares[1] < 0.3 / 1.1


def test_learned_intervals_hold_for_other_people(held: Held, people: Judgements) -> None:
    """Half widths come from one half of the people and are counted on the other."""
    found = compare(held, people, None, np.random.default_rng(1), triples=2000)
    for way, row in of(found.scores, "text+vision").items():
        if way != "shipped":
            assert row.figures["covered"].value == pytest.approx(0.9, abs=0.04)


def test_people_of_one_half_are_refused(held: Held, people: Judgements) -> None:
    """There is nobody to compare on."""
    voice = held.clips["audio"]
    alone = held.clips | {"audio": voice.of_rows(voice.part < 2)}
    with pytest.raises(DataError, match="audio: all validation clips are in one half"):
        compare(held._replace(clips=alone), people, None, np.random.default_rng(1), triples=100)


def test_votes_have_a_table_of_their_own(held: Held, people: Judgements) -> None:
    """The face is what counts in it; a face that is never wrong is always sided with."""
    noise = torch.Generator().manual_seed(1)
    voice = torch.rand(400, generator=noise).double() * 2 - 1
    face = -2.0 * voice.sign()
    votes = Votes(voice, face, 0.2 * voice + 0.8 * face)
    found = compare(held, people, votes, np.random.default_rng(1), triples=600)
    sides = {row.way: row for row in found.sidings}
    expected = int(((voice.abs() >= 0.5) & ((voice - face).abs() > 1.5)).sum())
    assert sides["vision"].n == expected
    assert sides["vision"].figures["nearer"].value > 0.95
    assert sides["audio"].figures["nearer"].value < 0.7
    assert sides["shipped"].figures["sign"].value > sides["mean"].figures["sign"].value
    by_votes = [row for row in found.scores if row.people == "votes"]
    assert {row.present for row in by_votes} == {"audio+vision"}
