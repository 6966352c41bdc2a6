"""What a checkpoint says of itself: trained heads, calibrated intervals, corpora and figures.

Knows numbers and names. Knows no tensor and no file.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

MINILM = "all-minilm-l6-v2"
MPNET = "all-mpnet-base-v2"
MULTILINGUAL = "multilingual-e5-small"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a checkpoint says of itself."""

    trained: dict[str, bool]
    """For `sentiment` (the fused head) and each modality: whether its head was trained."""
    interval: dict[str, float] = field(default_factory=dict)
    """Half width of the 90 % interval per set of present modalities, e.g. `text+audio`: the
    conformal quantile of validation residuals. A set that is not here has no interval."""
    begun: dict[str, list[float]] = field(default_factory=dict)
    """Half widths while little was heard, least first; `interval` holds after them. A set that is
    not here was calibrated on whole clips alone."""
    quantile: dict[str, float] = field(default_factory=dict)
    """With scales, in place of `interval` and `begun`: per modality the conformal 90 % quantile of
    |residual| / scale of its own head."""
    heard: dict[str, list[int]] = field(default_factory=dict)
    """Per modality the valid steps in the window at which the next of these half widths begins."""
    clips: dict[str, list[int]] = field(default_factory=dict)
    """Distinct clips of the rarest modality behind each half width, the last of `interval`."""
    data: dict[str, str] = field(default_factory=dict)
    """Per head: the corpus it was trained on."""
    figures: dict[str, float] = field(default_factory=dict)
    """Measured on validation rows."""
    text_encoder: str = MINILM
    """Which text encoder made the token states that the text branch was trained on."""
    tuned: list[str] = field(default_factory=list)
    """Tensors of the text encoder that were fine-tuned and lie in the checkpoint."""

    def half_width(
        self, heard: Mapping[str, int], spread: Mapping[str, float] | None = None
    ) -> float | None:
        """Return the half width of the 90 % interval, or None where it was not calibrated.

        Args:
            heard: Valid steps in the window of each modality that is present, text first. The one
                of which least was heard decides.
            spread: Of a model with scales weight times scale of each of these modalities. The half
                width is what the errors add up to if each is a quantile, all to the same side.
        """
        if spread and spread.keys() <= self.quantile.keys():
            return sum(self.quantile[name] * size for name, size in spread.items())
        key = "+".join(heard)
        if key not in self.begun:
            return self.interval.get(key)
        level = min(bisect_right(self.heard[name], count) for name, count in heard.items())
        return [*self.begun[key], self.interval[key]][level]
