"""Save and load a model with its configuration, and the state of running sessions.

Knows safetensors files. Refuses what is missing or left over; nothing in a file can run code.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from safetensors.torch import save_file
from torch import Tensor

from ..nn.attention import Memory
from ..nn.encoder import EncoderState
from ..nn.errors import TamulagError
from ..nn.tam_ulag import MODALITIES, BranchState, ModelConfig, State, TamUlag, config_dict
from .card import MINILM, MPNET, MULTILINGUAL, Card
from .checksums import sha256_of

__all__ = [
    "ENCODER",
    "FORMAT",
    "MINILM",
    "MPNET",
    "MULTILINGUAL",
    "SHIPPED",
    "Card",
    "CheckpointError",
    "dump_state",
    "encoder_name",
    "load",
    "load_state",
    "load_tuned",
    "resolve",
    "save",
]

FORMAT = "tamulag-1"
ENCODER = "text_encoder."
"""Prefix of the tensors of the text encoder."""
SHIPPED = Path(__file__).parents[1] / "checkpoints"
SUMS = "SHA256SUMS"
"""File beside the shipped checkpoints: `cd models/checkpoints; sha256sum *.safetensors >SHA256SUMS`
makes it, `sha256sum -c SHA256SUMS` compares."""


class CheckpointError(TamulagError):
    """A checkpoint cannot be used; the text names the file and the remedy."""


def resolve(name: str) -> Path:
    """Return the file of a shipped checkpoint's name, or of a path.

    Raises:
        CheckpointError: If there is none.
    """
    path = Path(name) if name.endswith(".safetensors") else SHIPPED / f"{name}.safetensors"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.safetensors"))) or "none"
        raise CheckpointError(
            f"checkpoint {name!r} not found: shipped are {shipped}; or give a .safetensors file"
        )
    return path


def save(model: TamUlag, card: Card, path: Path, tuned: Mapping[str, Tensor] | None = None) -> None:
    """Write every tensor of the model, its configuration and its card to `path`, atomically.

    Args:
        model: To be saved.
        card: To be saved; its `tuned` is set from the argument of that name.
        path: File to write.
        tuned: Fine-tuned tensors of the text encoder by their names there; stored as float16.
    """
    tuned = tuned or {}
    card = replace(card, tuned=sorted(tuned))
    meta: dict[str, Any]
    meta = {"format": FORMAT, "config": config_dict(model.config), "card": card.__dict__}
    temporary = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    tensors |= {f"{ENCODER}{name}": t.to(torch.float16).contiguous() for name, t in tuned.items()}
    meta |= {"sha256": _sha256(meta, tensors_to_bytes(tensors))}
    save_file(tensors, temporary, metadata={"tamulag": json.dumps(meta)})
    temporary.chmod(0o644)  # the library makes it readable for its owner alone
    temporary.replace(path)


def load(name: str | Path, *, window: int | None = None) -> tuple[TamUlag, Card]:
    """Load a checkpoint for inference.

    Args:
        name: Name of a shipped checkpoint, or path of a `.safetensors` file.
        window: Ticks over which attention pools, if not those of the training.

    Raises:
        CheckpointError: If the file is missing, damaged, of another format, or if a tensor is
            missing or left over.
    """
    path = resolve(str(name))
    tensors, meta = _read(path)
    try:
        values = _renamed(meta["config"], tensors) | ({"window": window} if window else {})
        config = ModelConfig.from_dict(values)
        model, card = TamUlag(config), Card(**meta["card"])
        tuned = {key for key in tensors if key.startswith(ENCODER)}
        if tuned != {f"{ENCODER}{name}" for name in card.tuned}:
            raise KeyError(f"text encoder: card and file differ in {len(tuned)} tensors")
        model.load_state_dict({key: t for key, t in tensors.items() if key not in tuned})
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"checkpoint {path} does not fit this version: {reason}") from error
    return model.eval(), card


def _renamed(config: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the configuration in today's words.

    `ulag` was the name of what is `ulag_release` now, which alone has layers of its own.
    """
    if config.get("labels") == "ulag" and any(name.startswith("ulag.") for name in tensors):
        return config | {"labels": "ulag_release"}
    return config


def encoder_name(name: str) -> str:
    """Return which text encoder made the token states that a checkpoint's text branch takes.

    Raises:
        CheckpointError: If the file is missing or damaged.
    """
    return str(dict(_read(resolve(name))[1].get("card", {})).get("text_encoder", MINILM))


def load_tuned(name: str) -> dict[str, Tensor]:
    """Return the fine-tuned tensors of the text encoder in a checkpoint, float32.

    Raises:
        CheckpointError: If the file is missing or damaged.
    """
    return {
        key.removeprefix(ENCODER): tensor.float()
        for key, tensor in _read(resolve(name))[0].items()
        if key.startswith(ENCODER)
    }


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if path.resolve().parent == SHIPPED.resolve():
        _check_shipped(path)
    try:
        with safe_open(path, framework="pt") as file:
            meta = dict(json.loads((file.metadata() or {}).get("tamulag", "{}")))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be read ({error}): fetch it again"
        ) from error
    if meta.get("format") != FORMAT:
        found = meta.get("format")
        raise CheckpointError(
            f"checkpoint {path} has format {found!r}, expected {FORMAT!r}: train it again"
        )
    # Older checkpoints have no checksum of their own.
    if (wanted := meta.pop("sha256", None)) and _sha256(meta, path.read_bytes()) != wanted:
        raise CheckpointError(
            f"checkpoint {path} is damaged, its sha256 is not {str(wanted)[:12]}...: fetch it again"
        )
    return tensors, meta


def _check_shipped(path: Path) -> None:
    """Check a shipped file before it is opened."""
    try:
        lines = (SHIPPED / SUMS).read_text(encoding="utf-8").splitlines()
        known = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        found = sha256_of(path)
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be checked ({error})") from error
    if path.name not in known:
        raise CheckpointError(
            f"checkpoint {path} is not in {SUMS} beside it: write its sha256 there if it is yours"
        )
    if known[path.name] != found:
        raise CheckpointError(
            f"checkpoint {path} is damaged or another version: its sha256 is {found[:12]}..., "
            f"{SUMS} beside it has {known[path.name][:12]}...: install the program again"
        )


def _sha256(meta: Mapping[str, Any], content: bytes) -> str:
    """Return the sha256 of what a file says of itself, and of its tensors as they lie in it.

    Args:
        meta: Without the checksum.
        content: The tensors in a file, whatever its own metadata are.
    """
    header = int.from_bytes(content[:8], "little")
    digest = hashlib.sha256(json.dumps(meta).encode())
    digest.update(memoryview(content)[8 + header :])
    return digest.hexdigest()


def dump_state(state: State) -> bytes:
    """Return the state of running sessions as bytes, for hand-over or a restart."""
    tensors = {}
    for name, branch in zip(MODALITIES, state, strict=True):
        for part in branch:
            for key, tensor in part._asdict().items():
                tensors[f"{name}.{key}"] = tensor.detach().contiguous()
    return tensors_to_bytes(tensors)


def load_state(data: bytes, like: State) -> State:
    """Return the state that `dump_state` wrote.

    Args:
        data: From `dump_state`.
        like: A state of the model that goes on, e.g. `initial_state(B)`.

    Raises:
        CheckpointError: If a tensor is missing or left over, or has another shape.
    """
    try:
        tensors = tensors_from_bytes(data)
    except SafetensorError as error:
        raise CheckpointError(f"state of {len(data)} bytes cannot be read ({error})") from error
    branches = []
    for name, branch in zip(MODALITIES, like, strict=True):
        encoder = {key: tensors.pop(f"{name}.{key}", None) for key in EncoderState._fields}
        memory = {key: tensors.pop(f"{name}.{key}", None) for key in Memory._fields}
        for part, wanted in ((encoder, branch.encoder), (memory, branch.memory)):
            for key, tensor in wanted._asdict().items():
                _check_tensor(f"{name}.{key}", part[key], tensor)
        branches.append(BranchState(EncoderState(**encoder), Memory(**memory)))  # type: ignore[arg-type]
    if tensors:
        raise CheckpointError(
            f"state holds left-over tensors {sorted(tensors)}: it is of another model"
        )
    return State(*branches)


def _check_tensor(name: str, tensor: Tensor | None, wanted: Tensor) -> None:
    if tensor is None or tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
        found = "nothing" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
        raise CheckpointError(
            f"state tensor {name}: expected {wanted.dtype} {tuple(wanted.shape)}, found {found}"
        )
