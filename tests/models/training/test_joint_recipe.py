"""The training file: what it refuses, and the model that it names."""

import tomllib
from pathlib import Path

import pytest

from support.learnable_data import recipe, toml
from tamulag.models.data.clips import DataError
from tamulag.models.nn.tam_ulag import TamUlag
from tamulag.models.training.joint_recipe import (
    LabelTable,
    ModelTable,
    labels_of,
    least_weight,
    model_config,
    read_joint,
)

HERE = Path("packed.pkl")
CONFIGS = Path(__file__).parents[3] / "configs" / "train"
SHIPPED = sorted(CONFIGS.glob("paper-*.toml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "train.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_training_file_is_valid(path: Path) -> None:
    """Each names the preset of its own name and ten seeds or fewer."""
    found = read_joint(path)
    assert found.model.preset == path.stem
    assert found.patience == 8


@pytest.mark.parametrize("line", ["speed = 3", "labels.kind = 'x'", "model.audio.units = 3"])
def test_unknown_key_is_refused(tmp_path: Path, line: str) -> None:
    """The message names the key and the file."""
    text = toml(HERE).replace("epochs = 3", f"epochs = 3\n{line}")
    if line.startswith("model.audio"):
        text = toml(HERE).replace("post = 5, dropout = 0.1", "units = 3")
    with pytest.raises(DataError, match=r"speed|labels\.kind|units"):
        read_joint(written(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('data.packed = "packed.pkl"', 'data.train = ["a"]', "either packed, or both"),
        ("joined = 3", "joined = 3\ntext.finetune = 5", r"text\.finetune = 5"),
        ('model.tam = "softmax"', 'model.tam = "median"', r"model\.tam = 'median'"),
        ("hidden = 6, out = 4, post = 5 }", "bidirectional = true }", "carries no state"),
    ],
)
def test_wrong_value_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    """The message names the value."""
    text = toml(HERE)
    assert old in text
    with pytest.raises(DataError, match=message):
        read_joint(written(tmp_path, text.replace(old, new, 1)))


def test_encoder_needs_tokens(tmp_path: Path) -> None:
    """Feature files hold states, not ids: nothing could be trained."""
    text = toml(HERE, "text.finetune = true").replace(
        'data.packed = "packed.pkl"', 'data = { train = ["a"], valid = ["b"] }'
    )
    with pytest.raises(DataError, match="text_bert"):
        read_joint(written(tmp_path, text))


def test_options_change_the_preset() -> None:
    """Attention is set in all branches, sizes in one, the window holds the data."""
    config = model_config(recipe(HERE, 'model.fusion = "concat"'), {"audio": 9}, longest=700)
    assert {config.text.tam, config.audio.tam, config.vision.tam} == {"softmax"}
    assert (config.audio.dim, config.audio.hidden, config.fusion) == (9, 6, "concat")
    assert config.window == 700


def test_gate_of_text_stays_at_cls() -> None:
    """`gate_last` with the residual is the paper's model with that residual in all branches."""
    chosen = recipe(HERE)
    table = chosen.model.model_copy(update={"tam": "gate_last", "residual": True})
    config = model_config(chosen.model_copy(update={"model": table}), {})
    assert (config.text.tam, config.audio.tam) == ("gate_first", "gate_last")
    assert config.text.residual
    assert config.audio.residual


def test_the_file_for_own_videos_gives_a_model_that_streams() -> None:
    """It trains the shipped form, with modalities left out and clips joined."""
    found = read_joint(SHIPPED[0].parent / "own-videos.toml")
    assert found.model.preset == "stream"
    assert found.drop_modality > 0
    assert found.joined > 1


def test_the_file_for_own_videos_fits_a_stranger() -> None:
    """It names no groups, and its unimodal heads are trained though no labels are generated."""
    found = read_joint(SHIPPED[0].parent / "own-videos.toml")
    assert found.data.train == found.data.valid
    assert not found.data.valid_groups
    assert found.labels.floor == 1


def test_file_of_another_kind_is_refused_in_one_line() -> None:
    """The message has what is missing, and not the whole file."""
    with pytest.raises(DataError, match='kind = "joint" is missing') as caught:
        read_joint(CONFIGS / "default.toml")
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model.tam", "model.tamm", "model.tamm = 'softmax': unknown key: did you mean tam?"),
        ("hidden = 6, out = 4, post = 5 }", "hiden = 6 }", "unknown key: did you mean hidden?"),
    ],
)
def test_unknown_key_gets_the_nearest_name(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    """In tables of the file and in a branch's sizes."""
    with pytest.raises(DataError) as caught:
        read_joint(written(tmp_path, toml(HERE).replace(old, new, 1)))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("line", "least"),
    [
        ('labels = "ulag"', 1.0),
        ('labels = "ulag_release"', 0.0),
        ('labels = "none"', 0.0),
        ('preset = "paper-sims"', 0.0),
    ],
)
def test_least_weight_goes_with_the_labels(line: str, least: float) -> None:
    """Those out of fold all count; the release's only as far as they differ; a number wins."""
    chosen = recipe(HERE)
    table = ModelTable.model_validate(tomllib.loads(line))
    chosen = chosen.model_copy(update={"model": table})
    assert least_weight(chosen) == least
    given = chosen.model_copy(update={"labels": LabelTable(floor=0.3)})
    assert least_weight(given) == 0.3


def test_paper_presets_have_the_releases_labels() -> None:
    """Its word means what it meant: ULGM and ULAG in the form that was released."""
    for name in ("mosi", "mosei", "sims"):
        chosen = recipe(HERE).model_copy(update={"model": ModelTable(preset=f"paper-{name}")})
        assert labels_of(chosen) == "both"
        assert TamUlag(model_config(chosen, {})).ulag is not None
