"""Live sentiment from face, voice and words: the names that a program of yours needs.

`docs/guide/python.md` explains each of them. A name is loaded when it is asked for, so that
importing the package alone loads neither torch nor OpenCV.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tamulag.models.runtime.checkpoint import CheckpointError

    from .app.agent_api import Agent
    from .app.agent_parts import (
        Camera,
        JsonLines,
        MediaFile,
        Microphone,
        Mqtt,
        RemoteSender,
        WebSocket,
    )
    from .config.loader import ConfigError
    from .core.errors import TamulagError
    from .core.estimate import Estimate, ModalityEstimate, Timing
    from .core.sample import Block, Notice, Phrase, Sample, Word
    from .core.session import Session
    from .core.source import SourceError
    from .features.pretrained import AssetError
    from .publishers.publisher import PublisherError

__all__ = [
    "Agent",
    "AssetError",
    "Block",
    "Camera",
    "CheckpointError",
    "ConfigError",
    "Estimate",
    "JsonLines",
    "MediaFile",
    "Microphone",
    "ModalityEstimate",
    "Mqtt",
    "Notice",
    "Phrase",
    "PublisherError",
    "RemoteSender",
    "Sample",
    "Session",
    "SourceError",
    "TamulagError",
    "Timing",
    "WebSocket",
    "Word",
]

_MODULES = {
    "tamulag.models.runtime.checkpoint": ("CheckpointError",),
    ".app.agent_api": ("Agent",),
    ".app.agent_parts": (
        *("Camera", "JsonLines", "MediaFile", "Microphone", "Mqtt", "RemoteSender", "WebSocket"),
    ),
    ".config.loader": ("ConfigError",),
    ".core.errors": ("TamulagError",),
    ".core.estimate": ("Estimate", "ModalityEstimate", "Timing"),
    ".core.sample": ("Block", "Notice", "Phrase", "Sample", "Word"),
    ".core.session": ("Session",),
    ".core.source": ("SourceError",),
    ".features.pretrained": ("AssetError",),
    ".publishers.publisher": ("PublisherError",),
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
