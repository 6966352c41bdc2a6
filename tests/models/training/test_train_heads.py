"""Training: repeatable, better than guessing where there is something to learn, and honest."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from support.small_mpnet import SIZE, small_mpnet
from tamulag.models import MODALITIES, ModelConfig, TamUlag
from tamulag.models.data.clips import Clip, DataError, write_clips
from tamulag.models.data.corpus import Corpus
from tamulag.models.evaluation.evaluate import whole
from tamulag.models.runtime.checkpoint import MPNET, load, load_tuned, save
from tamulag.models.text.adapters import is_adapter
from tamulag.models.text.text_encoder import TextEncoder, encoder_for
from tamulag.models.training.branch_batches import read_corpora
from tamulag.models.training.heads_recipe import BranchRecipe, HeadsRecipe
from tamulag.models.training.recipe_file import load_recipe
from tamulag.models.training.train_branch import predict, train_branch
from tamulag.models.training.train_fusion import SUBSETS
from tamulag.models.training.train_heads import train

RECIPE = """
seed = 3
[text]
train = ["{0}/text.safetensors"]
valid = ["{0}/text.safetensors"]
valid_groups = ["valid"]
data = "made texts"
epochs = 3
rate = 5e-3
batch = 8
[audio]
train = ["{0}/audio.safetensors"]
valid = ["{0}/audio.safetensors"]
valid_groups = ["valid"]
data = "made voices"
epochs = 3
rate = 5e-3
batch = 8
crop = 4
[vision]
train = ["{0}/vision.safetensors"]
valid = ["{0}/vision.safetensors"]
valid_groups = ["valid"]
data = "made faces"
epochs = 3
rate = 5e-3
batch = 8
still = 3
jitter = 0.1
[fusion]
steps = 150
batch = 64
rate = 5e-3
"""
LENGTHS = {"text": 3, "audio": 8, "vision": 1}


def clips(name: str) -> list[Clip]:
    """Return clips in which every fourth feature shows the label."""
    rng = np.random.default_rng(MODALITIES.index(name))
    out = []
    for row in range(160):
        label = float(rng.uniform(-3, 3))
        length, dim = LENGTHS[name], getattr(ModelConfig(), name).dim
        values = 0.1 * rng.standard_normal((length, dim)).astype(np.float32)
        values[:, ::4] += label
        group = "valid" if row % 4 == 0 else "seen"
        out.append(Clip(label, group, {name: values}, {name: np.arange(length)}))
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    for name in MODALITIES:
        write_clips(folder / f"{name}.safetensors", clips(name), about="a test")
    return recipe(folder, RECIPE).parent


def text_recipe(folder: Path) -> BranchRecipe:
    text = load_recipe(folder / "recipe.toml", HeadsRecipe).text
    assert text is not None
    return text


def recipe(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "recipe.toml"
    path.write_text(text.format(folder.as_posix()))
    return path


@pytest.fixture(scope="module")
def figures(folder: Path) -> dict[str, float]:
    """Train once for all tests, into `one.safetensors`."""
    return train(folder / "recipe.toml", folder / "one.safetensors", lambda _: None)


@pytest.fixture
def trained(folder: Path, figures: dict[str, float]) -> str:
    return str(folder / "one.safetensors")


@pytest.mark.parametrize("name", MODALITIES)
def test_each_branch_learns_a_rule(figures: dict[str, float], name: str) -> None:
    """On validation clips each head is far better than the mean of the training labels."""
    seen = [clip.label for clip in clips(name) if clip.group == "seen"]
    wanted = np.array([clip.label for clip in clips(name) if clip.group == "valid"])
    assert figures[f"{name}.n"] == len(wanted)
    assert figures[f"{name}.MAE"] < 0.7 * np.abs(wanted - np.mean(seen)).mean()


def test_intervals_are_narrower_than_guessing(figures: dict[str, float]) -> None:
    """The fused head has learned too: 90 % of its errors are below those of a constant."""
    assert figures["sentiment.interval.text+audio+vision"] < 2.0


def test_same_seed_gives_the_same_tensors(folder: Path, trained: str) -> None:
    """A run can be repeated to the bit, whatever drew random numbers before it."""
    torch.rand(7)
    train(folder / "recipe.toml", folder / "two.safetensors", lambda _: None)
    one, two = load(trained)[0].state_dict(), load(str(folder / "two.safetensors"))[0].state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_card_tells_what_was_trained_on_what(figures: dict[str, float], trained: str) -> None:
    """All four heads are trained, each names its data, and the figures are those returned."""
    _, card = load(trained)
    assert card.trained == dict.fromkeys(("sentiment", *MODALITIES), True)
    assert {n: card.data[n] for n in MODALITIES} == {
        "text": "made texts",
        "audio": "made voices",
        "vision": "made faces",
    }
    assert card.figures == figures


def test_every_set_of_modalities_has_its_interval(trained: str) -> None:
    """All seven sets are calibrated, in the words that the estimate looks them up by."""
    _, card = load(trained)
    sets = {"+".join(n for n, here in zip(MODALITIES, s, strict=True) if here) for s in SUBSETS}
    assert len(sets) == 7
    assert card.interval.keys() == sets
    assert all(0 < half < 6 for half in card.interval.values())
    assert card.begun.keys() == card.clips.keys() == sets
    assert all(row == sorted(row, reverse=True) for row in card.begun.values())
    assert all(card.begun[name][-1] >= half for name, half in card.interval.items())


def test_features_are_standardised_with_the_training_rows(folder: Path, trained: str) -> None:
    """The checkpoint holds mean and deviation of the training rows alone."""
    table = load_recipe(folder / "recipe.toml", HeadsRecipe).audio
    assert table is not None
    rows, _ = read_corpora(table, "audio")
    encoder = load(trained)[0].audio.encoder
    seen, free = torch.cat(rows.values["audio"]), slice(encoder.centred, None)
    torch.testing.assert_close(encoder.level, seen.mean(dim=0)[: encoder.centred])
    torch.testing.assert_close(encoder.mean[free], seen.mean(dim=0)[free])
    torch.testing.assert_close(encoder.deviation[free], seen.std(dim=0)[free])


def test_figures_are_those_of_the_saved_head(
    folder: Path, figures: dict[str, float], trained: str
) -> None:
    """Training the fusion leaves the branches alone."""
    text = text_recipe(folder)
    rows: Corpus = read_corpora(text, "text")[1]
    estimates = predict(load(trained)[0].text, rows, "text")
    mae = float((estimates - rows.labels).abs().mean())
    assert mae == pytest.approx(figures["text.MAE"], abs=1e-6)


def test_best_epoch_is_used(folder: Path) -> None:
    """Where every epoch makes the validation worse, the first one is what stays."""
    text = text_recipe(folder).model_copy(update={"rate": 3e-4})
    rows, valid = read_corpora(text, "text")
    opposite = replace(valid, labels=-valid.labels)
    torch.manual_seed(0)
    branch, lines = TamUlag(ModelConfig()).text, list[str]()
    scores = train_branch(
        branch, "text", rows, opposite, text, np.random.default_rng(0), lines.append
    )
    first, *_, last = [float(line.split("MAE ")[1].split(",")[0]) for line in lines]
    assert first < last
    assert scores["MAE"] == pytest.approx(first, abs=1e-4)


def test_validated_groups_are_never_trained_on(folder: Path) -> None:
    """A speaker is on one side only; without groups a file cannot be on both."""
    text = text_recipe(folder)
    rows, valid = read_corpora(text, "text")
    assert (len(rows.labels), len(valid.labels)) == (120, 40)
    with pytest.raises(DataError, match="give two files, or valid_groups"):
        read_corpora(text.model_copy(update={"valid_groups": []}), "text")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda t: t.replace("rate", "raet", 1), "text.raet = 0.005", id="unknown key"),
        pytest.param(lambda t: "colour = 1" + t, "colour = 1", id="unknown top key"),
        pytest.param(
            lambda t: t.replace("still = 3", "still = -3"), "vision.still = -3", id="range"
        ),
        pytest.param(lambda t: t.replace("epochs = 3", "", 1), "text.epochs", id="missing key"),
        pytest.param(lambda t: t + "[[[", "cannot be read as a training file", id="no TOML"),
    ],
)
def test_bad_recipe_is_refused(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    """The message names the file, the key and the value."""
    path = recipe(tmp_path, change(RECIPE))
    with pytest.raises(DataError) as caught:
        load_recipe(path, HeadsRecipe)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_missing_recipe_is_refused(tmp_path: Path) -> None:
    """The message names the path."""
    with pytest.raises(DataError, match=r"none\.toml cannot be read"):
        load_recipe(tmp_path / "none.toml", HeadsRecipe)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "valid_groups",
            "none",
            "text: valid_groups none names no clip of .*text.*; it has: seen, valid",
        ),
        ("train", "audio.safetensors", "text: 0 clips to train and 40 to validate"),
        ("train", "none.safetensors", r"none\.safetensors cannot be read"),
    ],
)
def test_feature_files_that_do_not_fit_are_refused(
    folder: Path, key: str, value: str, message: str
) -> None:
    """Nothing to train on or to validate with is refused before anything is trained."""
    chosen = [value] if key == "valid_groups" else [folder / value]
    text = text_recipe(folder).model_copy(update={key: chosen})
    with pytest.raises(DataError, match=message):
        read_corpora(text, "text")


def test_vectors_of_another_length_are_refused(folder: Path) -> None:
    """Features of an older front end are known by their length."""
    old = Clip(1.0, "seen", {"text": np.ones((2, 7), np.float32)}, {"text": np.arange(2)})
    write_clips(folder / "old.safetensors", [old], about="a test")
    update = {"train": [folder / "old.safetensors"]}
    text = text_recipe(folder).model_copy(update=update)
    with pytest.raises(DataError, match=r"text: vectors of \[7, 384\] values .*takes 384"):
        read_corpora(text, "text")


SENTENCES = """text,label,mode
a wonderful film,2.0,train
simply wonderful and moving,2.5,train
a terrible film,-2.0,train
simply terrible and dull,-2.5,train
wonderful,2.0,valid
terrible,-2.0,valid
"""


@pytest.fixture(scope="module")
def tuned(folder: Path, figures: dict[str, float]) -> Path:
    """Fine-tune the text encoder and train the fusion again; others are the first run's."""
    (folder / "sentences.csv").write_text(SENTENCES)
    tune = f"""[tune]
train = ["{(folder / "sentences.csv").as_posix()}"]
valid = ["{(folder / "sentences.csv").as_posix()}"]
data = "four sentences"
layers = 2
epochs = 2
batch = 2
"""
    start, end = RECIPE.index("[text]"), RECIPE.index("[audio]")
    path = folder / "tune.toml"
    path.write_text((RECIPE[:start] + tune + RECIPE[end:]).format(folder.as_posix()))
    out, base = folder / "tuned.safetensors", str(folder / "one.safetensors")
    train(path, out, lambda _: None, only=["text", "sentiment"], base=base)
    return out


def test_only_the_named_heads_change(tuned: Path, trained: str) -> None:
    """What is not trained is the base's, to the bit."""
    one, other = load(trained)[0].state_dict(), load(str(tuned))[0].state_dict()
    changed = {name.partition(".")[0] for name in one if not torch.equal(one[name], other[name])}
    assert changed == {"text", "fusion", "head"}


def test_tuned_layers_lie_in_the_checkpoint(tuned: Path) -> None:
    """The last two of six layers, and the encoder of that checkpoint uses them."""
    _, card = load(str(tuned))
    assert {name.split(".")[2] for name in card.tuned} == {"4", "5"}
    words = ["wonderful"]
    plain, own = encoder_for().encode(words)[0], encoder_for(str(tuned)).encode(words)[0]
    assert np.abs(plain - own).max() > 1e-4


def test_a_training_goes_on_from_a_checkpoint(folder: Path, tuned: Path) -> None:
    """Its encoder and branch change; layers that are not trained stay tuned as they are."""
    change = f'layers = 1\nstart = "{tuned.as_posix()}"'
    recipe = folder / "further.toml"
    recipe.write_text((folder / "tune.toml").read_text().replace("layers = 2", change))
    out = folder / "further.safetensors"
    train(recipe, out, lambda _: None, only=["text"], base=str(tuned))
    (one, _), (other, card) = load(str(tuned)), load(str(out))
    assert torch.equal(one.text.encoder.mean, other.text.encoder.mean)
    heads = [model.text.head.state_dict()["0.weight"] for model in (one, other)]
    assert not torch.equal(*heads)
    assert {name.split(".")[2] for name in card.tuned} == set("012345")
    before, after = load_tuned(str(tuned)), load_tuned(str(out))
    same = {name.split(".")[2] for name in before if torch.equal(before[name], after[name])}
    assert "4" in same
    assert any(not torch.equal(before[n], after[n]) for n in before if n.split(".")[2] == "5")


def test_card_of_a_tuned_checkpoint_names_both_sources(tuned: Path) -> None:
    """The text head names its new corpus, the other heads keep theirs."""
    _, card = load(str(tuned))
    assert card.data["text"] == "four sentences"
    assert card.data["audio"] == "made voices"
    assert all(card.trained.values())


def test_text_comes_from_one_place(tmp_path: Path) -> None:
    """Both of the tables for text are refused, and so is a file without any table."""
    both = RECIPE + '[tune]\ntrain = []\nvalid = []\ndata = ""\n'
    with pytest.raises(DataError, match=r"one of the tables \[tune\] and \[text\]"):
        load_recipe(recipe(tmp_path, both), HeadsRecipe)
    with pytest.raises(DataError, match="at least one of the tables"):
        load_recipe(recipe(tmp_path, "seed = 1\n"), HeadsRecipe)


def test_an_unknown_text_encoder_is_refused(tmp_path: Path) -> None:
    """The error lists those that there are."""
    tune = '[tune]\ntrain = []\nvalid = []\ndata = ""\nencoder = "bert"\n'
    with pytest.raises(DataError, match=r"tune.encoder = 'bert'.*multilingual-e5-small"):
        load_recipe(recipe(tmp_path, tune), HeadsRecipe)


def test_scales_are_fitted_and_calibrated(folder: Path, trained: str) -> None:
    """The stage `sentiment` alone gives them, and the heads stay those of the base."""
    scales = "[fusion]\nshares = [0.4, 0.2, 0.4]\nscales = true\n"
    text = RECIPE[: RECIPE.index("[fusion]")] + scales
    path = folder / "scales.toml"
    path.write_text(text.format(folder.as_posix()))
    out = folder / "scales.safetensors"
    figures = train(path, out, lambda _: None, only=["sentiment"], base=trained)
    model, card = load(str(out))
    assert model.config.scales
    assert model.scales is not None
    assert torch.isfinite(model.scales.limit).all()
    assert card.quantile == {name: figures[f"sentiment.quantile.{name}"] for name in MODALITIES}
    assert all(1 < quantile < 5 for quantile in card.quantile.values())
    assert (card.interval, card.begun) == ({}, {})
    base = load(trained)[0].state_dict()
    same = {
        n for n, tensor in model.state_dict().items() if n in base and torch.equal(tensor, base[n])
    }
    assert {n for n in base if n.partition(".")[0] in MODALITIES} <= same


def test_another_head_leaves_the_fusion_as_it_is(folder: Path, trained: str) -> None:
    """Shares and scales are of the base until the stage `sentiment` is trained again."""
    base, card = load(trained)
    made = TamUlag(replace(base.config, shares=(0.4, 0.2, 0.4), scales=True))
    made.load_state_dict(made.state_dict() | base.state_dict())
    assert made.scales is not None
    with torch.no_grad():
        made.scales.bias.fill_(0.25)
    start, out = folder / "shared.safetensors", folder / "other.safetensors"
    save(made, replace(card, quantile={"text": 2.0}), start)
    train(folder / "recipe.toml", out, lambda _: None, only=["audio"], base=str(start))
    model, kept = load(str(out))
    assert (model.config.shares, model.config.scales) == ((0.4, 0.2, 0.4), True)
    assert kept.quantile == {"text": 2.0}
    assert model.scales is not None
    assert (model.scales.bias == 0.25).all()


def test_scales_want_shares(tmp_path: Path) -> None:
    """They are what the shares are divided by."""
    with pytest.raises(DataError, match="scales = true changes the shares"):
        load_recipe(recipe(tmp_path, RECIPE + "scales = true\n"), HeadsRecipe)


def test_one_modality_alone_stands_for_all(folder: Path) -> None:
    """Without other tables the fused head gives the one head's estimate; the others are absent."""
    start, end = RECIPE.index("[audio]"), RECIPE.index("[vision]")
    path = recipe(folder / "alone", RECIPE[start:end] + "[fusion]\nsteps = 400\nrate = 5e-3\n")
    path.write_text(path.read_text().replace("/alone", ""))
    figures = train(path, folder / "alone.safetensors", lambda _: None)
    model, card = load(str(folder / "alone.safetensors"))
    assert card.trained == {"sentiment": True, "text": False, "audio": True, "vision": False}
    assert card.interval == {"audio": figures["sentiment.interval.audio"]}
    both = whole(clips("audio") + clips("vision"))
    output = model(both.ticks, both.now)
    assert not output.present[160:].any()
    assert output.present[:160, 0, 1].all()
    apart = (output.sentiment - output.heads[..., 1])[:160].abs().mean()
    assert apart < 0.1


def test_voice_of_another_size_wants_its_fused_head(folder: Path, trained: str) -> None:
    """Means of 332 values are not what a fused head can take that was trained on 96."""
    text = (folder / "recipe.toml").read_text()
    form = '[audio]\nrecurrent = false\ntam = "mean"\nridge = 0.1'
    path = folder / "pooled.toml"
    path.write_text(text.replace("[audio]", form))
    out = folder / "pooled.safetensors"
    with pytest.raises(DataError, match=r"gives 332 values .* 96: .* --only audio,sentiment"):
        train(path, out, lambda _: None, only=("audio",), base=trained)
    train(path, out, lambda _: None, only=("audio", "sentiment"), base=trained)
    model, _ = load(str(out))
    assert (model.config.audio.encoder, model.config.audio.tam) == ("identity", "mean")
    assert model.config.vision == load(trained)[0].config.vision


def test_words_alone_without_recurrence(tmp_path: Path) -> None:
    """Labels in [-1, 1] are stretched, the figures are those of CH-SIMS, the branch has no LSTM."""
    (tmp_path / "made").mkdir()
    table = tmp_path / "made" / "texts.csv"
    table.write_text(
        "text,label,mode\ngood,1,train\nbad,-1,train\nfine,1,valid\nso so,0,valid\npoor,-1,valid\n"
    )
    values = f'train = ["{table.as_posix()}"]\nvalid = ["{table.as_posix()}"]\ndata = "made"\n'
    more = 'form = "sims"\nrecurrent = false\nside = 1.0\nlayers = 1\nepochs = 1\nbatch = 3\n'
    path = recipe(tmp_path, f"[tune]\n{values}{more}[fusion]\nsteps = 1\n")
    figures = train(path, tmp_path / "words.safetensors", lambda _: None)
    model, card = load(str(tmp_path / "words.safetensors"))
    assert figures["text.made.n"] == 3
    assert 0 <= figures["text.made.Acc2"] <= 1
    assert model.config.text.encoder == "identity"
    assert model.config.fused == ("text",)
    assert {name for name, done in card.trained.items() if done} == {"text", "sentiment"}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a small network in the place of the 438 MB of all-mpnet-base-v2."""
    network = small_mpnet(tmp_path / "mpnet")
    monkeypatch.setattr("tamulag.models.text.text_encoder.joined_folder", lambda: network)
    return network


ADAPTERS = f"""encoder = "{MPNET}"
adapters = 2
recurrent = false
tam = "mean"
encoder_rate = 1e-2
average = 0.0
layers = 2"""


def test_text_of_another_encoder_takes_the_place_of_the_bases(
    folder: Path, tuned: Path, trained: str, small: Path
) -> None:
    """Voice and face are the base's, to the bit; words have their own size and adapters."""
    recipe, out = folder / "large.toml", folder / "large.safetensors"
    recipe.write_text((folder / "tune.toml").read_text().replace("layers = 2", ADAPTERS))
    with pytest.raises(DataError, match=rf"gives {SIZE} values .* 64: .* --only text,sentiment"):
        train(recipe, out, lambda _: None, only=["text"], base=trained)
    train(recipe, out, lambda _: None, only=["text", "sentiment"], base=trained)
    (base, _), (model, card) = load(trained), load(str(out))
    assert (model.config.text.dim, model.config.text.encoder) == (SIZE, "identity")
    assert model.config.text.tam == "mean"
    for name in ("audio", "vision"):
        before = getattr(base, name).state_dict()
        after = getattr(model, name).state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before)
    assert card.text_encoder == MPNET
    assert card.data["audio"] == "made voices"
    assert len(card.tuned) == 2 * 6 * 2
    assert all(map(is_adapter, card.tuned))
    words = ["good", "film"]
    apart = encoder_for(str(out)).encode(words)[0] - TextEncoder(small, name=MPNET).encode(words)[0]
    assert np.abs(apart).max() > 1e-4


def test_the_fused_head_alone_leaves_the_adapters(folder: Path, small: Path) -> None:
    """They are in the new file as they were in the base; then text itself goes on from it."""
    recipe, base = folder / "large.toml", folder / "large.safetensors"
    out = folder / "large-2.safetensors"
    recipe.write_text((folder / "tune.toml").read_text().replace("layers = 2", ADAPTERS))
    train(recipe, base, lambda _: None, only=["text"])
    train(recipe, out, lambda _: None, only=["sentiment"], base=str(base))
    before, after = load_tuned(str(base)), load_tuned(str(out))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    start = f'{ADAPTERS}\nstart = "{out.as_posix()}"'
    recipe.write_text((folder / "tune.toml").read_text().replace("layers = 2", start))
    train(recipe, folder / "large-3.safetensors", lambda _: None, only=["text"], base=str(out))
    later = load_tuned(str(folder / "large-3.safetensors"))
    assert later.keys() == before.keys()
    assert any(not torch.equal(before[name], later[name]) for name in before)
