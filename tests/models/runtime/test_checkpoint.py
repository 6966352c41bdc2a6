"""A checkpoint comes back to the bit, or is refused with the file and the remedy."""

import hashlib
import json
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import load_file, save_file
from safetensors.torch import save as tensors_to_bytes

from support.model_contract import ends, same_state, stream, tiny
from tamulag.models import MODALITIES, ModelConfig, TamUlag
from tamulag.models.nn.tam_ulag import config_dict
from tamulag.models.runtime import checkpoint
from tamulag.models.runtime.checkpoint import (
    FORMAT,
    SHIPPED,
    SUMS,
    Card,
    CheckpointError,
    dump_state,
    load,
    load_state,
    load_tuned,
    resolve,
    save,
)
from tamulag.models.text.text_encoder import encoder_for

CARD = Card(
    trained={"sentiment": True, "text": True, "audio": False, "vision": True},
    interval={"text+audio": 0.75},
    data={"text": "three sentences"},
    figures={"text.MAE": 0.5},
)
Tensors = dict[str, torch.Tensor]


@pytest.mark.parametrize(
    ("heard", "half"),
    [
        ({"text": 3, "audio": 500}, 2.5),
        ({"text": 4, "audio": 24}, 2.5),
        ({"text": 4, "audio": 25}, 1.5),
        ({"text": 8, "audio": 50}, 0.75),
        ({"audio": 50}, 1.0),
        ({"text": 8}, None),
    ],
)
def test_of_what_was_heard_least_decides_the_half_width(
    heard: dict[str, int], half: float | None
) -> None:
    """Where beginnings were not calibrated it is that of whole clips, else there is none."""
    card = Card(
        trained={},
        interval={"text+audio": 0.75, "audio": 1.0},
        begun={"text+audio": [2.5, 1.5]},
        heard={"text": [4, 8], "audio": [25, 50]},
    )
    assert card.half_width(heard) == half


def test_card_of_an_older_program_is_read(model: TamUlag, tmp_path: Path) -> None:
    """One that knows no half widths of beginnings: the whole clip's holds for them too."""
    path = tmp_path / "old.safetensors"
    old = {"trained": CARD.trained, "interval": {"text": 1.5}, "data": {}, "figures": {}}
    meta = {"format": FORMAT, "config": config_dict(model.config), "card": old}
    save_file(model.state_dict(), path, metadata={"tamulag": json.dumps(meta)})
    _, card = load(str(path))
    assert card.half_width({"text": 1}) == card.half_width({"text": 100}) == 1.5


@pytest.fixture
def saved(model: TamUlag, tmp_path: Path) -> Path:
    path = tmp_path / "made" / "here.safetensors"
    save(model, CARD, path)
    return path


def rewrite(
    path: Path,
    change: Callable[[Tensors], object] | None = None,
    meta: dict[str, object] | None = None,
) -> None:
    """Change the tensors in place, or keys of the metadata, as in a file without a checksum."""
    with safe_open(path, framework="pt") as file:
        known = json.loads(file.metadata()["tamulag"])
    del known["sha256"]
    held = load_file(path)
    if change:
        change(held)
    save_file(held, path, metadata={"tamulag": json.dumps(known | (meta or {}))})


def refused(path: Path | str, *words: str) -> None:
    """Assert that loading fails in one line with the name and these words."""
    with pytest.raises(CheckpointError) as caught:
        load(str(path))
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    for word in words:
        assert word in text


def test_round_trip_is_equal_to_the_bit(model: TamUlag, saved: Path) -> None:
    """Tensors, configuration and card come back as they were, ready for inference."""
    again, card = load(str(saved))
    assert card == CARD
    assert again.config == model.config
    assert not again.training
    assert again.state_dict().keys() == model.state_dict().keys()
    expected: Tensors = model.state_dict()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_saving_leaves_one_file(saved: Path) -> None:
    """The folder is made, and nothing half written stays in it."""
    assert list(saved.parent.iterdir()) == [saved]


def test_window_can_be_chosen_at_loading(model: TamUlag, saved: Path) -> None:
    """Weights do not depend on the window: 2 s become 4 s, and the memory grows with it."""
    longer, _ = load(str(saved), window=200)
    assert longer.config.window == longer.audio.window == longer.audio.memory == 200
    assert longer.vision.memory == 40
    assert torch.equal(longer.state_dict()["head.0.weight"], model.state_dict()["head.0.weight"])


def test_missing_tensor_is_refused(saved: Path) -> None:
    """Nothing is left at random values."""
    rewrite(saved, lambda held: held.pop("head.0.bias"))
    refused(saved, "does not fit", "head.0.bias")


def test_left_over_tensor_is_refused(saved: Path) -> None:
    """Nothing in the file is ignored."""
    rewrite(saved, lambda held: held.update(stray=torch.ones(1)))
    refused(saved, "does not fit", "stray")


def test_tensor_of_another_shape_is_refused(saved: Path) -> None:
    """Nothing is broadcast."""
    rewrite(saved, lambda held: held.update({"head.3.bias": torch.ones(2)}))
    refused(saved, "does not fit", "head.3.bias")


def test_other_format_is_refused(saved: Path) -> None:
    """A file of a later version is not guessed at."""
    rewrite(saved, meta={"format": "tamulag-9"})
    refused(saved, "'tamulag-9'", "'tamulag-1'", "train it again")


def test_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    """Weights of another program are told by their format."""
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.ones(1)}, path)
    refused(path, "format None")


@pytest.mark.parametrize("key", ["card", "config"])
def test_unknown_key_in_the_file_is_refused(saved: Path, key: str) -> None:
    """What this version does not understand is not ignored."""
    rewrite(saved, meta={key: {"colour": "red"}})
    refused(saved, "does not fit")


def test_damaged_file_is_refused(saved: Path) -> None:
    """Half a file says that it must be fetched again."""
    saved.write_bytes(saved.read_bytes()[:-100])
    refused(saved, "cannot be read", "fetch it again")


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    """The message says which names there are, and that a path may be given."""
    refused("nonesuch", "not found", "shipped are", ".safetensors file")


def test_shipped_name_and_path_are_found(saved: Path) -> None:
    """A path is taken as it is; a name lies beside the code."""
    assert resolve(str(saved)) == saved
    for path in SHIPPED.glob("*.safetensors"):
        assert resolve(path.stem) == path


def test_a_damaged_file_is_refused(saved: Path) -> None:
    """Another bit in a weight, which is a valid weight as well, or in what the file says."""
    whole = saved.read_bytes()
    for place, bit in ((len(whole) - 7, 1), (whole.index(b"three sentences"), 1)):
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        refused(saved, "is damaged", "fetch it again")
    saved.write_bytes(whole)
    load(str(saved))


def test_a_file_without_a_checksum_is_read(saved: Path) -> None:
    """Those of earlier versions have none."""
    rewrite(saved)
    load(str(saved))


def test_shipped_checkpoints_have_their_checksums() -> None:
    """`sha256sum -c SHA256SUMS` beside them agrees, and names no other."""
    lines = (SHIPPED / SUMS).read_text().splitlines()
    files = sorted(SHIPPED.glob("*.safetensors"))
    assert lines == [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}" for f in files], (
        "cd models/checkpoints; sha256sum *.safetensors >SHA256SUMS"
    )


@pytest.mark.parametrize("change", ["another", "unlisted", "no list"])
def test_another_file_in_place_of_a_shipped_one_is_refused(
    change: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is opened, by its name."""
    digest = hashlib.sha256(saved.read_bytes()).hexdigest()
    monkeypatch.setattr(checkpoint, "SHIPPED", saved.parent)
    sums = saved.parent / SUMS
    sums.write_text(f"{digest}  {saved.name}\n")
    load(saved.stem)
    if change == "another":
        sums.write_text(f"{'0' * 64}  {saved.name}\n")
    elif change == "unlisted":
        sums.write_text(f"{digest}  other.safetensors\n")
    else:
        sums.unlink()
    monkeypatch.setattr(checkpoint, "safe_open", None)
    with pytest.raises(CheckpointError, match=rf"{saved} (is damaged|is not in|cannot be checked)"):
        load(saved.stem)


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_pickle_is_refused_and_nothing_in_it_runs(tmp_path: Path) -> None:
    """A file that would run code when unpickled is only told to be unreadable."""
    path, trace = tmp_path / "bomb.safetensors", tmp_path / "trace"
    path.write_bytes(pickle.dumps(_Bomb(trace)))
    refused(path, "cannot be read")
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()


def test_state_survives_bytes_to_the_bit(model: TamUlag) -> None:
    """What running sessions remember can be handed over."""
    _, state = model.step(stream(model), ends(stream(model)), model.initial_state(3))
    same_state(load_state(dump_state(state), model.initial_state(3)), state, "round trip")


def state_with(model: TamUlag, change: Callable[[Tensors], object]) -> bytes:
    tensors = tensors_from_bytes(dump_state(model.initial_state(2)))
    change(tensors)
    return tensors_to_bytes(tensors)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(
            lambda t: t.update(stray=torch.ones(1)), r"left-over.*\['stray'\]", id="left-over"
        ),
        pytest.param(
            lambda t: t.pop("audio.h"), r"audio\.h: expected .*found nothing", id="missing"
        ),
        pytest.param(
            lambda t: t.update({"vision.mask": t["vision.mask"].float()}),
            r"vision\.mask: expected torch\.bool .*found torch\.float32",
            id="dtype",
        ),
    ],
)
def test_state_that_does_not_fit_is_refused(
    model: TamUlag, change: Callable[[Tensors], object], told: str
) -> None:
    """A session never goes on from half a state."""
    with pytest.raises(CheckpointError, match=told):
        load_state(state_with(model, change), model.initial_state(2))


def test_state_of_another_number_of_sessions_is_refused(model: TamUlag) -> None:
    """The message names the tensor and both shapes."""
    told = re.escape("text.h: expected torch.float32 (3, 2, 6), found torch.float32 (2, 2, 6)")
    with pytest.raises(CheckpointError, match=told):
        load_state(dump_state(model.initial_state(2)), model.initial_state(3))


def test_damaged_state_is_refused(model: TamUlag) -> None:
    """Bytes that are no state are told with their number."""
    with pytest.raises(CheckpointError, match="state of 4 bytes cannot be read"):
        load_state(b"ouch", model.initial_state(1))


def test_text_states_of_another_encoder_are_refused(model: TamUlag, tmp_path: Path) -> None:
    """A branch that was trained on packed states cannot score words; the message says what can."""
    card = Card(trained=dict.fromkeys(("sentiment", *MODALITIES), True), text_encoder="packed")
    save(model, card, tmp_path / "packed.safetensors")
    with pytest.raises(CheckpointError, match=r"trained on text states of 'packed'.*--asr none"):
        encoder_for(str(tmp_path / "packed.safetensors"))


def test_tuned_tensors_come_back_as_float16_can_hold_them(model: TamUlag, tmp_path: Path) -> None:
    """They lie in the same file, are named by the card, and do not disturb the model."""
    card = Card(trained=dict.fromkeys(("sentiment", *MODALITIES), True))
    tuned = {"encoder.layer.5.x": torch.tensor([0.5, 1e-3])}
    path = tmp_path / "tuned.safetensors"
    save(model, card, path, tuned)
    assert load(str(path))[1].tuned == ["encoder.layer.5.x"]
    torch.testing.assert_close(
        load_tuned(str(path))["encoder.layer.5.x"], tuned["encoder.layer.5.x"].half().float()
    )


def test_with_scales_the_half_width_is_the_sum_of_quantiles() -> None:
    """Each times weight and scale; without a quantile of one of them there is no interval."""
    card = Card(trained={}, quantile={"text": 2.0, "audio": 3.0})
    heard = {"text": 1, "audio": 1}
    assert card.half_width(heard, {"text": 0.25, "audio": 0.5}) == 2.0
    assert card.half_width({"text": 1}, {"text": 0.5}) == 1.0
    assert card.half_width(heard | {"vision": 1}, {"text": 0.25, "vision": 0.5}) is None
    assert card.half_width({}, {}) is None


def test_a_model_with_scales_is_saved_and_loaded(tmp_path: Path) -> None:
    """With what its scales compare with; its card has the quantiles."""
    torch.manual_seed(0)
    model = tiny(ModelConfig(scales=True, shares=(0.4, 0.2, 0.4)))
    assert model.scales is not None
    model.scales.whitening.normal_()
    save(model, replace(CARD, quantile={"text": 2.5}), tmp_path / "m.safetensors")
    again, card = load(str(tmp_path / "m.safetensors"))
    assert card.quantile == {"text": 2.5}
    assert again.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
