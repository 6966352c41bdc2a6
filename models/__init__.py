"""The TAM-ULAG model, its text encoder, its training and its evaluation.

Names are loaded when they are asked for, so that importing the package alone loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nn.encoder import Ticks
    from .nn.errors import TamulagError, TextEncoderError
    from .nn.tam_ulag import MODALITIES, ModelConfig, Output, State, TamUlag
    from .runtime.card import Card
    from .runtime.checkpoint import CheckpointError, load, save
    from .text.text_encoder import TextEncoder, encoder_for

__all__ = [
    "MODALITIES",
    "Card",
    "CheckpointError",
    "ModelConfig",
    "Output",
    "State",
    "TamUlag",
    "TamulagError",
    "TextEncoder",
    "TextEncoderError",
    "Ticks",
    "encoder_for",
    "load",
    "save",
]

_MODULES = {
    ".nn.encoder": ("Ticks",),
    ".nn.errors": ("TamulagError", "TextEncoderError"),
    ".nn.tam_ulag": ("MODALITIES", "ModelConfig", "Output", "State", "TamUlag"),
    ".runtime.card": ("Card",),
    ".runtime.checkpoint": ("CheckpointError", "load", "save"),
    ".text.text_encoder": ("TextEncoder", "encoder_for"),
}


def __getattr__(name: str) -> object:
    """Import a name of `__all__` where it is first used."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names that are exported."""
    return sorted(__all__)
