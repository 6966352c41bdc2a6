"""Fine-tuning the text encoder: what changes, forks, and resuming to the same numbers."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from support.learnable_data import quiet
from support.small_mpnet import RANK, small_mpnet
from tamulag.models import ModelConfig, TamUlag
from tamulag.models.data.clips import DataError
from tamulag.models.nn.config import BranchConfig
from tamulag.models.runtime.checkpoint import MPNET
from tamulag.models.text.adapters import is_adapter
from tamulag.models.text.text_encoder import TextEncoder
from tamulag.models.training.heads_recipe import TuneRecipe
from tamulag.models.training.run_folder import LAST
from tamulag.models.training.text_finetune import epoch_order, finetune
from tamulag.models.training.weights import Weights

TRAIN = "good film,2,train\nbad film,-2,train\ndull film,-1,train\n"
VALID = "fine film,1,valid\npoor film,-1,valid\nso so,0,valid\n"
STAGES = [
    "epoch 1/2",
    "epoch 2/2, fork 1/2",
    "epoch 2/2, fork 2/2",
    "mean of 2 forks",
]


class Stopped(Exception):
    """Somebody pressed Ctrl-C."""


def table(folder: Path, rows: str = TRAIN + VALID) -> Path:
    path = folder / "made" / "texts.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"text,label,mode\n{rows}")
    return path


def forked(folder: Path) -> TuneRecipe:
    """Return a training of one common epoch and two forks of one."""
    path = table(folder)
    return TuneRecipe(
        train=[path],
        valid=[path],
        data="made",
        extra=[path],
        extra_epochs=1,
        layers=1,
        epochs=2,
        forks=2,
        batch=1,
        average=0.5,
    )


def tuned(
    recipe: TuneRecipe, log: Callable[[str], None] = quiet, folder: Path | None = None
) -> tuple[dict[str, float], Weights]:
    """Return figures and all tensors."""
    torch.manual_seed(0)
    encoder, branch = TextEncoder(), TamUlag(ModelConfig()).text
    figures = finetune(encoder, branch, recipe, np.random.default_rng(0), log, folder=folder)
    return figures, {**encoder.network.state_dict(), **branch.state_dict()}


def test_only_the_last_layers_change(tmp_path: Path) -> None:
    """What is not trained stays as packaged, embeddings included."""
    encoder = TextEncoder()
    before = {name: value.clone() for name, value in encoder.network.state_dict().items()}
    path = tmp_path / "made" / "texts.csv"
    path.parent.mkdir()
    path.write_text(
        "text,label,mode\ngood film,2,train\nbad film,-2,train\nbad,-1,valid\nfine,1,valid\n"
    )
    recipe = TuneRecipe(
        train=[path], valid=[path], data="made", layers=1, epochs=1, batch=1, average=0.0
    )
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
    lines: list[str] = []
    figures, _ = tuned(forked(tmp_path), lines.append)
    names, measured = zip(*(line.strip().split(": ") for line in lines), strict=True)
    assert list(names) == STAGES
    assert len(set(measured)) == 4
    assert figures["made.MAE"] == pytest.approx(
        min(float(line.split("MAE ")[1].split()[0]) for line in measured), abs=1e-4
    )


def test_a_stopped_training_resumes_to_the_bit(tmp_path: Path) -> None:
    """Stopped in each epoch in turn, what was done is not done again, and nothing differs."""
    recipe = forked(tmp_path)
    figures, tensors = tuned(recipe)
    for place, stage in enumerate(STAGES):
        folder, lines = tmp_path / f"run-{place}", list[str]()

        def stop(line: str, stage: str = stage) -> None:
            if stage in line:
                raise Stopped

        with pytest.raises(Stopped):
            tuned(recipe, stop, folder)
        again, same = tuned(recipe, lines.append, folder)
        assert again == figures
        assert all(torch.equal(tensors[name], same[name]) for name in tensors)
        measured = [line for line in lines if "MAE" in line]
        assert [line.strip().split(": ")[0] for line in measured] == STAGES[place:]
    with (folder / "metrics.csv").open(newline="") as file:
        assert [row["fork"] for row in csv.DictReader(file)] == ["1.0", "1.0", "2.0"]


def test_other_settings_are_not_resumed(tmp_path: Path) -> None:
    """The message names what differs, and a damaged file is refused."""
    recipe = forked(tmp_path)
    tuned(recipe, folder=tmp_path / "run")
    other = recipe.model_copy(update={"batch": 2})
    with pytest.raises(DataError, match="other settings of batch: set them back"):
        tuned(other, folder=tmp_path / "run")
    (tmp_path / "run" / LAST).write_bytes(b"no tensors")
    with pytest.raises(DataError, match="cannot be gone on from"):
        tuned(recipe, folder=tmp_path / "run")


def test_test_rows_change_nothing(tmp_path: Path) -> None:
    """The field's file may hold them; they are neither trained on nor choose the epoch."""
    recipe = forked(tmp_path)
    without = tuned(recipe)
    table(tmp_path, TRAIN + VALID + "a wonderful secret,3,test\n")
    with_test = tuned(recipe)
    assert with_test[0] == without[0]
    assert all(torch.equal(without[1][name], with_test[1][name]) for name in without[1])


def test_common_epochs_come_before_each_fork() -> None:
    """Fork 0 goes on from the common ones."""
    recipe = TuneRecipe(train=[], valid=[], data="", extra_epochs=1, epochs=3, forks=2)
    assert epoch_order(recipe) == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2)]


def test_a_share_of_the_start_is_kept(tmp_path: Path) -> None:
    """A quarter of what training starts from, three of what it ends with."""
    recipe = forked(tmp_path).model_copy(update={"forks": 1, "extra_epochs": 0, "epochs": 1})
    # With a start the branch is not standardised anew, as in both runs here.
    recipe = recipe.model_copy(update={"start": "given"})
    torch.manual_seed(0)
    start = {**TextEncoder().network.state_dict(), **TamUlag(ModelConfig()).text.state_dict()}
    end = tuned(recipe)[1]
    kept = tuned(recipe.model_copy(update={"kept": 0.25}))[1]
    moved = [name for name in start if not torch.equal(start[name], end[name])]
    assert moved
    for name, before in start.items():
        torch.testing.assert_close(kept[name], end[name].lerp(before, 0.25))


def test_kept_wants_a_start() -> None:
    """Of the packaged encoder and a new branch there is nothing worth keeping."""
    with pytest.raises(ValidationError, match=r"kept = 0\.5 is a share of start: name one"):
        TuneRecipe(train=[], valid=[], data="made", kept=0.5)


def adapted(folder: Path, **keys: object) -> TuneRecipe:
    """Return a training of two epochs of the adapters in the last layers."""
    path = table(folder)
    keys = {"layers": 2, "adapters": RANK, "epochs": 2, "batch": 1, "average": 0.0} | keys
    return TuneRecipe.model_validate({"train": [path], "valid": [path], "data": "made", **keys})


def tuned_adapters(
    recipe: TuneRecipe,
    network: Path,
    log: Callable[[str], None] = quiet,
    folder: Path | None = None,
    start: Weights | None = None,
) -> TextEncoder:
    """Train adapters of a small MPNet with a branch that takes the mean of its states."""
    torch.manual_seed(0)
    encoder = TextEncoder(network, name=MPNET, tuned=start)
    shape = recipe.shape(BranchConfig(dim=1), encoder.size)
    branch = TamUlag(ModelConfig(text=shape)).text
    finetune(encoder, branch, recipe, np.random.default_rng(0), log, folder=folder)
    return encoder


def test_only_adapters_change(tmp_path: Path) -> None:
    """The packaged weights stay to the bit; each map of the last two layers has moved."""
    network = small_mpnet(tmp_path / "mpnet")
    before = TextEncoder(network, name=MPNET).network.state_dict()
    encoder = tuned_adapters(adapted(tmp_path, recurrent=False, tam="mean"), network)
    after = encoder.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    ups = [name for name in after.keys() - before.keys() if name.endswith("up")]
    assert len(ups) == 12
    assert all(after[name].abs().max() > 0 for name in ups)
    assert {name.split(".")[2] for name in ups} == {"1", "2"}
    assert set(encoder.layers()) == {name for name in after if is_adapter(name)}


def test_adapters_resume_to_the_bit(tmp_path: Path) -> None:
    """Stopped after the first of two epochs, nothing differs from a training in one go."""
    network, recipe = small_mpnet(tmp_path / "mpnet"), adapted(tmp_path)
    wanted = tuned_adapters(recipe, network).network.state_dict()

    def stop(line: str) -> None:
        if "epoch 2/2" in line:
            raise Stopped

    with pytest.raises(Stopped):
        tuned_adapters(recipe, network, stop, tmp_path / "run")
    lines: list[str] = []
    found = tuned_adapters(recipe, network, lines.append, tmp_path / "run").network.state_dict()
    assert lines[0] == "goes on after 1 of 2 epochs"
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_adapters_go_on_from_a_start(tmp_path: Path) -> None:
    """They are trained further; those of layers that are not trained stay, and are saved."""
    network = small_mpnet(tmp_path / "mpnet")
    start = tuned_adapters(adapted(tmp_path), network).layers()
    recipe = adapted(tmp_path, start="given", layers=1)
    after = tuned_adapters(recipe, network, start=start).layers()
    moved = {name.split(".")[2] for name in start if not torch.equal(start[name], after[name])}
    assert after.keys() == start.keys()
    assert moved == {"2"}


@pytest.mark.parametrize("adapters", [0, 3])
def test_adapters_of_another_rank_are_refused(tmp_path: Path, adapters: int) -> None:
    """The message names the rank of the start."""
    network = small_mpnet(tmp_path / "mpnet")
    encoder = TextEncoder(network, name=MPNET)
    encoder.adapt(1, RANK)
    recipe = adapted(tmp_path, start="given", adapters=adapters)
    with pytest.raises(DataError, match=r"start = given has adapters of rank 2: set adapters = 2"):
        tuned_adapters(recipe, network, start=encoder.layers())


def test_more_layers_than_there_are_are_refused(tmp_path: Path) -> None:
    """Encoders have six or twelve of them."""
    with pytest.raises(DataError, match=r"layers = 4: all-mpnet-base-v2 has 3"):
        tuned_adapters(adapted(tmp_path, layers=4), small_mpnet(tmp_path / "mpnet"))
