"""Whether a checkpoint can stream what is captured.

Knows the model's sizes, those of the front end, and the settings. Opens nothing.
"""

from tamulag.models import MODALITIES, ModelConfig
from tamulag.models.runtime.checkpoint import CheckpointError

from ..config.loader import Config

REMEDY = 'train with model.preset = "stream" on a file of tamulag extract'


def check_streamable(model: ModelConfig, config: Config) -> None:
    """Refuse a checkpoint that reads whole sequences only, or other features than the live ones.

    Raises:
        CheckpointError: With the checkpoint, the value and the remedy.
    """
    name = config.model.checkpoint
    for modality in MODALITIES:
        if getattr(model, modality).bidirectional:
            raise CheckpointError(
                f"checkpoint {name} cannot stream: {modality}.bidirectional = true reads whole "
                f"sequences only; {REMEDY}"
            )
    for modality, width in _widths(config).items():
        taken = getattr(model, modality).dim
        if taken != width:
            raise CheckpointError(
                f"checkpoint {name} cannot stream: its {modality} takes vectors of {taken} values, "
                f"the front end gives {width}; {REMEDY}"
            )


def _widths(config: Config) -> dict[str, int]:
    """Return the values per vector of each modality that may be captured, text excepted."""
    widths = {}
    both = config.source.path is not None or config.ingest.enabled
    if both or config.microphone.device not in (None, "none"):
        from ..features.audio import AUDIO_DIM

        widths["audio"] = AUDIO_DIM
    if both or config.camera.device is not None:
        from ..features.vision import VISION_DIM

        widths["vision"] = VISION_DIM
    return widths
