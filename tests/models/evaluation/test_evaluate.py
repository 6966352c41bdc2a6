"""A checkpoint is measured on labelled clips as the field scores: once, over the whole clip."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from support.figure_names import MOSI, SIMS
from support.model_contract import tiny
from tamulag.models import MODALITIES, ModelConfig, TamUlag, load
from tamulag.models.data.clips import Clip, DataError, TextRow
from tamulag.models.data.label_scale import Form
from tamulag.models.evaluation.evaluate import (
    SHARES,
    Evaluation,
    Head,
    covered,
    estimates,
    evaluate_texts,
    open_evaluation,
    read_rows,
    whole,
)
from tamulag.models.runtime.checkpoint import SHIPPED, Card, CheckpointError, save
from tamulag.models.text.text_encoder import TextEncoder

TEXTS = ["great", "i did not like it at all", "", "well it was a movie", "so " * 100]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder()


@pytest.fixture(scope="module")
def states(encoder: TextEncoder) -> list[np.ndarray]:
    return encoder.encode_batch(TEXTS)


def random_model() -> TamUlag:
    torch.manual_seed(0)
    return TamUlag(ModelConfig()).eval()


def checkpoint(folder: Path, *, trained: Sequence[str] = ("sentiment", *MODALITIES)) -> str:
    path = folder / "random.safetensors"
    heads = {name: name in trained for name in ("sentiment", *MODALITIES)}
    save(random_model(), Card(trained=heads), path)
    return str(path)


def table(folder: Path, *rows: str) -> Path:
    path = folder / "texts.csv"
    path.write_text("text,label\n" + "".join(f"{row}\n" for row in rows))
    return path


def clip(model: TamUlag, *names: str, length: int = 12, seed: int = 0, label: float = 1.0) -> Clip:
    """Return a clip of random features, one every five ticks."""
    rng = np.random.default_rng(seed)
    dims = {name: getattr(model.config, name).dim for name in names}
    values = {n: rng.normal(size=(length, dim)).astype(np.float32) for n, dim in dims.items()}
    return Clip(label, "ann", values, dict.fromkeys(names, np.arange(length) * 5))


def text_scores(states: Sequence[np.ndarray]) -> np.ndarray:
    zeros = [np.zeros(len(s), np.int64) for s in states]
    pairs = zip(states, zeros, strict=True)
    clips = [
        Clip(0.0, "", {"text": s}, {"text": z}) if len(s) else Clip(0.0, "", {}, {})
        for s, z in pairs
    ]
    return estimates(random_model(), clips, "text")[0]


def test_figures_are_those_of_the_scores(tmp_path: Path, states: list[np.ndarray]) -> None:
    """End to end, the CSV's texts are scored by the checkpoint's text head; no text scores 0."""
    labels = np.array([2.0, -1.5, 0.5, 0.5, 1.0])
    path = table(tmp_path, *(f"{t},{v}" for t, v in zip(TEXTS, labels, strict=True)))
    seen: list[int] = []
    figures = evaluate_texts(path, checkpoint(tmp_path), seen.append)
    assert tuple(figures) == MOSI
    assert (figures["n"], figures["missing"], seen) == (5, 1, [5])
    scores = text_scores(states)
    scores[2] = 0.0
    assert figures["MAE"] == pytest.approx(np.abs(scores - labels).mean(), abs=1e-5)


def test_clip_alone_scores_as_in_a_batch(model: TamUlag) -> None:
    """Neighbours and padding do not change a score, whatever modalities they have."""
    clips = [
        clip(model, "text", "audio", length=3),
        clip(model, "vision", length=40),
        Clip(0.0, "empty", {}, {}),
        clip(model, *MODALITIES),
    ]
    heads: tuple[Head, ...] = ("text", "audio", "vision", "all")
    for head in heads:
        together, present = estimates(model, clips, head)
        for row, alone in enumerate(clips):
            score, there = estimates(model, [alone], head)
            assert there[0] == present[row]
            np.testing.assert_allclose(together[row], score[0], atol=1e-6)


def test_modality_that_is_missing_is_told(model: TamUlag) -> None:
    """The fused head needs one modality, each other head its own."""
    clips = [clip(model, "text"), clip(model, "audio", "vision"), Clip(0.0, "empty", {}, {})]
    assert estimates(model, clips, "text")[1].tolist() == [True, False, False]
    assert estimates(model, clips, "audio")[1].tolist() == [False, True, False]
    assert estimates(model, clips, "all")[1].tolist() == [True, True, False]


def test_every_word_counts(states: list[np.ndarray]) -> None:
    """Also the longest text lies in one window: its first token changes the score."""
    longest = states[-1]
    assert len(longest) == 64
    assert text_scores([longest])[0] != text_scores([longest[1:]])[0]


@pytest.mark.parametrize(("window", "pooled"), [(1001, 201), (50, 10)])
def test_whole_clip_is_pooled(tmp_path: Path, window: int, pooled: int) -> None:
    """With a window as long as the clip, attention reaches what was 20 s ago."""
    ready = open_evaluation(checkpoint(tmp_path), head="audio", window=window)
    with torch.inference_mode():
        batch = whole([clip(ready.model, "audio", length=201)])
        output = ready.model(batch.ticks, batch.now)
    assert int((output.attention[1].weight > 0).sum()) == pooled


def test_sims_form_scales_the_estimates(model: TamUlag, encoder: TextEncoder) -> None:
    """The model goes up to 3 where CH-SIMS goes up to 1."""
    clips = [clip(model, "audio", seed=seed, label=0.4) for seed in range(3)]
    figures = Evaluation(model, encoder, "audio", "sims").figures(clips)
    assert list(figures) == [*SIMS]
    scores, _ = estimates(model, clips, "audio")
    assert figures["MAE"] == pytest.approx(np.abs(scores / 3 - 0.4).mean(), abs=1e-6)


def test_prefix_of_a_text_has_its_first_words(encoder: TextEncoder, model: TamUlag) -> None:
    """A share of the words is rounded up, and no later word is in their states."""
    ready = Evaluation(model, encoder, "text", "mosi")
    (found,) = ready.texts([TextRow("it was not so good", 1.0, "v")], 0.4)
    np.testing.assert_allclose(found.values["text"], encoder.encode(["it", "was"])[0], atol=1e-5)
    assert not ready.texts([TextRow("", 1.0, "v")], 0.2)[0].values


def test_anytime_rows_end_with_the_whole(model: TamUlag, encoder: TextEncoder) -> None:
    """One row per share; the last is the figures of the whole clip."""
    clips = [clip(model, "audio", seed=seed, label=seed - 1.0) for seed in range(4)]

    def prefixes(share: float) -> list[Clip]:
        count = round(12 * share)
        return [
            Clip(
                c.label,
                c.group,
                {"audio": c.values["audio"][:count]},
                {"audio": c.ticks["audio"][:count]},
            )
            for c in clips
        ]

    ready = Evaluation(model, encoder, "audio", "mosi")
    rows = ready.anytime(prefixes)
    assert [row["heard"] for row in rows] == list(SHARES)
    whole = ready.figures(clips)
    assert math.isnan(rows[-1].pop("covered"))
    assert math.isnan(whole.pop("covered"))
    assert rows[-1] == {"heard": 1.0} | whole
    assert rows[0]["MAE"] != rows[-1]["MAE"]


def test_covered_is_the_share_inside_the_interval(model: TamUlag) -> None:
    """Of the fused estimate, with the half width for its steps; without one nothing counts."""
    clips = [clip(model, "audio", length=n, label=3.0) for n in (4, 8, 12)]
    scores, _ = estimates(model, clips, "all")
    far = np.abs(scores - 3.0)
    exact = Card(trained={}, interval={"audio": float(far[2]) + 1e-4})
    graded = replace(exact, begun={"audio": [float(far[0]) - 1e-4]}, heard={"audio": [8]})
    assert covered(model, graded, clips[:1], "all") == 0.0
    assert covered(model, graded, clips[2:], "all") == 1.0
    assert covered(model, graded, [clips[0], clips[2]], "all") == 0.5
    assert math.isnan(covered(model, Card(trained={}), clips, "all"))
    thirds = [replace(c, label=1.0) for c in clips]
    assert covered(model, graded, thirds, "all", "sims") == covered(model, graded, clips, "all")


def test_covered_takes_the_scale_of_each_clip() -> None:
    """A half width is the quantile times the scale of that very clip."""
    model = tiny(ModelConfig(scales=True, shares=(0.4, 0.2, 0.4)))
    clips = [clip(model, "audio", length=n, label=3.0) for n in (4, 8, 12)]
    batch = whole(clips)
    with torch.inference_mode():
        output = model(batch.ticks, batch.now)
    ratio = ((output.sentiment - 3.0).abs() / output.scale[..., 1])[:, 0]
    card = Card(trained={}, quantile={"audio": ratio.median().item() + 1e-4})
    assert covered(model, card, clips, "all") == pytest.approx(2 / 3)


def test_covered_takes_the_head_alone(model: TamUlag) -> None:
    """Of a clip with words and voice the interval of the voice is that without words."""
    both = [clip(model, "text", "audio", seed=seed) for seed in range(3)]
    card = Card(trained={}, interval={"audio": 6.0})
    assert covered(model, card, both, "audio") == 1.0
    assert math.isnan(covered(model, card, both, "all"))


@pytest.mark.parametrize(
    ("head", "name"), [("text", "text"), ("vision", "vision"), ("all", "fused")]
)
def test_untrained_head_is_refused(tmp_path: Path, head: Head, name: str) -> None:
    """No figure is given for random numbers."""
    path = checkpoint(tmp_path, trained=("audio",))
    with pytest.raises(
        CheckpointError, match=rf"random\.safetensors: its {name} head is untrained"
    ):
        open_evaluation(path, head=head)
    open_evaluation(path, head="audio")


def test_vectors_of_another_front_end_are_refused(model: TamUlag, encoder: TextEncoder) -> None:
    """A checkpoint of another version is refused, with both sizes."""
    other = Clip(0.0, "", {"audio": np.zeros((2, 9), np.float32)}, {"audio": np.arange(2)})
    with pytest.raises(CheckpointError, match="audio vectors of 4 values, the front end gives 9"):
        Evaluation(model, encoder, "audio", "mosi").figures([other])


def test_table_without_rows_is_refused(tmp_path: Path) -> None:
    """The message names the file and what it needs."""
    with pytest.raises(DataError, match=r"texts\.csv has no rows: expected"):
        evaluate_texts(table(tmp_path), checkpoint(tmp_path), print)


@pytest.mark.parametrize(("form", "limit"), [("mosi", 3), ("sims", 1)])
def test_labels_have_the_range_of_the_form(tmp_path: Path, form: Form, limit: int) -> None:
    """A label of another scale is refused, not clipped."""
    assert len(read_rows(table(tmp_path, f"fine,{limit}"), form)) == 1
    with pytest.raises(DataError, match=rf"in \[-{limit}, {limit}\]"):
        read_rows(table(tmp_path, f"fine,{limit}.1"), form)


def test_unknown_checkpoint_is_refused(tmp_path: Path) -> None:
    """A wrong name is refused before the text encoder is loaded."""
    with pytest.raises(CheckpointError, match="'nonesuch' not found"):
        evaluate_texts(table(tmp_path, "fine,1"), "nonesuch", print)


@pytest.mark.data
def test_shipped_checkpoint_reads_sentiment(data: Path) -> None:
    """On the validation rows of CMU-MOSI it is far better than guessing (MAE 1.3, Corr 0)."""
    if not (SHIPPED / "default.safetensors").is_file():
        pytest.skip("no shipped checkpoint: run tamulag train --config configs/train/default.toml")
    assert load("default")[1].trained["text"]
    figures = evaluate_texts(data / "mosi" / "valid.csv", "default", lambda _: None)
    assert figures["n"] == 229
    assert figures["MAE"] < 1.0
    assert figures["Corr"] > 0.65
