"""Choose and open a speech recogniser.

Knows the names of the engines. Knows no sound.
"""

from typing import Literal

from ...core.source import SourceError
from .recogniser import Recogniser

FETCH = "`tamulag models` lists what is there, `tamulag models fetch NAME` fetches one"
"""Remedy for a missing Vosk model."""

Engine = Literal["auto", "vosk", "moonshine", "none"]


def open_recogniser(engine: Engine, model: str | None) -> Recogniser | None:
    """Load a recogniser.

    Args:
        engine: `auto` is vosk if a model is given, else moonshine; `none` recognises nothing.
        model: Folder of a Vosk model; used by vosk and auto only.

    Raises:
        SourceError: If vosk is chosen without a model, or a package or model cannot be loaded.
    """
    if engine == "none":
        return None
    if engine == "moonshine" or (engine == "auto" and model is None):
        from .moonshine import MoonshineRecogniser

        return MoonshineRecogniser()
    if model is None:
        raise SourceError(f"asr vosk needs the folder of a model: {FETCH}")
    from .vosk import VoskRecogniser

    return VoskRecogniser(model)
