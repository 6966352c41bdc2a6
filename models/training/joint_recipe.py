"""The training file of the joint training: its keys, their ranges and what they mean.

Knows names and numbers, and builds the model's configuration of them. Knows no clip and no tensor.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..data.clips import DataError
from ..data.label_scale import Form
from ..nn.attention import Tam
from ..nn.config import ModelConfig, preset, with_tam
from ..nn.constants import MODALITIES
from ..nn.fusion import Fusion
from ..nn.ulag import Gradient, Labels, Similarity
from .recipe_file import Table, load_recipe, unknown

Rate = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Value = bool | int | float | str


class DataTable(Table):
    """Where the clips come from: one packed file, or feature files."""

    packed: Path | None = Field(None, description="File of the field, e.g. unaligned_50.pkl")
    train: list[Path] = Field([], description="Feature files of tamulag extract")
    valid: list[Path] = Field([], description="Feature files; may be those of train, with groups")
    valid_groups: list[str] = Field([], description="Groups of these files that are only validated")
    valid_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="Share of groups only validated where train and valid are the same files"
    )
    valid_seed: Annotated[int, Field(ge=0)] = Field(1, description="Draws these groups")
    form: Form = Field("mosi", description="Range of the labels and form of the figures")
    test: bool = Field(
        False, description="Also measure the test rows of the packed file; they choose nothing"
    )


class ModelTable(Table):
    """The method's options; what is not given is the preset's."""

    preset: str = "paper-mosi"
    tam: Tam | None = None
    residual: bool = False
    fusion: Fusion | None = None
    labels: Labels | None = None
    similarity: Similarity | None = None
    window: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Ticks; default: the preset's, with a packed file at least its length"
    )
    text: dict[str, Value] = Field({}, description="Keys of BranchConfig, e.g. layers = 2")
    audio: dict[str, Value] = Field({})
    vision: dict[str, Value] = Field({})


class LabelTable(Table):
    """How unimodal labels are made and used; the defaults are the release's, but for `ulag`."""

    alpha: Share = Field(0.5, description="Share of ULGM with labels of both")
    weigh: Literal["ulgm", "target"] = "ulgm"
    floor: Share | None = Field(
        None, description="Least weight of a unimodal task; default: 1 with ulag, else 0"
    )
    gradient: Gradient = Field("full", description="Of ulag_release and both")
    zero: bool = Field(True, description="A label of 0 counts as positive")


class Group(Table):
    """One group of parameters."""

    rate: Rate
    decay: Share = 1e-3


class TextTable(Group):
    """The text encoder, and how it is trained; rate and decay are those of its own group."""

    rate: Rate = 5e-5
    finetune: bool = Field(False, description="Train MiniLM on text_bert of the packed file")
    special: bool = Field(True, description="[CLS] and [SEP] are states too; live they are not")
    bf16: bool = Field(False, description="Train the text encoder in bfloat16 autocast")


class AblateTable(Table):
    """Lists of options whose product is trained; an empty list leaves the model's own."""

    tam: list[Tam] = Field([])
    fusion: list[Fusion] = Field([])
    labels: list[Labels] = Field([])
    residual: list[bool] = Field([])
    similarity: list[Similarity] = Field([], description="Tried with ulag_release and both alone")
    layers: list[Annotated[int, Field(ge=1, le=8)]] = Field(
        [], description="Of the recurrent network of each modality that has one"
    )
    hidden: list[Annotated[int, Field(ge=1, le=4096)]] = Field(
        [], description="Units of the same networks"
    )


class JointRecipe(Table):
    """A whole training file with `kind = "joint"`."""

    kind: Literal["joint"]
    name: Annotated[str, Field(pattern=r"^[\w.-]+$", description="Folder below runs/")]
    seeds: list[Annotated[int, Field(ge=0)]] = Field([1], min_length=1)
    data: DataTable
    model: ModelTable = ModelTable()
    labels: LabelTable = LabelTable()
    text: TextTable = TextTable()
    audio: Group = Group(rate=1e-3, decay=1e-2)
    vision: Group = Group(rate=1e-4)
    other: Group = Group(rate=1e-3)
    epochs: Annotated[int, Field(ge=1, le=1000)] = 100
    patience: Annotated[int, Field(ge=1)] = Field(8, description="Epochs without a better one")
    batch: Annotated[int, Field(ge=1, le=4096)] = 32
    accumulate: Annotated[int, Field(ge=1, le=64)] = Field(
        4, description="Batches whose gradients are summed for one step"
    )
    clip: Annotated[float, Field(ge=0)] = Field(1.0, description="Largest gradient norm; 0 = any")
    fused: bool = Field(True, description="Fused Adam: same maths, one pass over the weights")
    standardise: bool = Field(True, description="By mean and deviation of the training vectors")
    drop_modality: Share = Field(0.0, description="Share of clips that lose one or two modalities")
    prefix: Share = Field(0.0, description="Share of clips that are cut to a random beginning")
    joined: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="Clips that may be chained with the recurrent state carried; 1 = none"
    )
    threads: Annotated[int, Field(ge=0)] = Field(0, description="0 = one per core")
    ablate: AblateTable = AblateTable()


def read_joint(path: Path) -> JointRecipe:
    """Read the training file of a joint training.

    Raises:
        DataError: If it cannot be read, is of another kind, or has an unknown key or a value that
            is not allowed.
    """
    recipe = load_recipe(path, JointRecipe)
    data = recipe.data
    if (data.packed is None) == (not data.train) or bool(data.train) != bool(data.valid):
        raise DataError(f"{path}: [data] needs either packed, or both train and valid")
    if recipe.text.finetune and data.packed is None:
        raise DataError(f"{path}: text.finetune = true needs data.packed, a file with text_bert")
    model_config(recipe, {})
    return recipe


def labels_of(recipe: JointRecipe) -> Labels:
    """Return whence unimodal labels come, which the preset says where the file does not."""
    return recipe.model.labels or preset(recipe.model.preset).labels


def least_weight(recipe: JointRecipe) -> float:
    """Return the least weight of a unimodal task.

    Labels of `ulag` are good ones where they agree with the clip's, too, so they all count; with
    those of the release a head learns only from clips that it sees differently.
    """
    if recipe.labels.floor is not None:
        return recipe.labels.floor
    return 1.0 if labels_of(recipe) == "ulag" else 0.0


def model_config(recipe: JointRecipe, dims: Mapping[str, int], longest: int = 0) -> ModelConfig:
    """Return the configuration of the model.

    Where the preset's text has no recurrent network, `gate_last` keeps the gate of text at [CLS],
    which is its oldest state, as in the release.

    Args:
        recipe: The training file.
        dims: Features per modality, where the data have it.
        longest: Least number of ticks of the window.

    Raises:
        DataError: If options are not known or do not go together.
    """
    table = recipe.model
    try:
        config = preset(table.preset, dims=dims)
        if table.tam is not None or table.residual:
            tam = table.tam or config.audio.tam
            config = with_tam(config, tam, residual=table.residual)
            if tam == "gate_last" and config.text.encoder == "identity":
                text = dataclasses.replace(config.text, tam="gate_first")
                config = dataclasses.replace(config, text=text)
        for name in MODALITIES:
            branch = getattr(config, name)
            known = [field.name for field in dataclasses.fields(branch)]
            for key in getattr(table, name).keys() - set(known):
                raise ValueError(f"{name}.{key}: {unknown(['model', name, key], known)}")
            branch = dataclasses.replace(branch, **getattr(table, name))
            config = dataclasses.replace(config, **{name: branch})
        chosen = {key: getattr(table, key) for key in ("fusion", "labels", "similarity")}
        given = {key: value for key, value in chosen.items() if value is not None}
        window = table.window or max(config.window, longest)
        config = dataclasses.replace(config, **given, window=window)
    except (TypeError, ValueError) as error:
        raise DataError(f"[model] of {recipe.name}: {error}") from error
    if recipe.joined > 1 and any(getattr(config, name).bidirectional for name in MODALITIES):
        raise DataError(f"joined = {recipe.joined}: bidirectional carries no state, set joined = 1")
    return config
