"""Protocol of all sources, and how they report a loss.

Knows the shape of a source. Knows no device.
"""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol

from .errors import TamulagError
from .sample import Input, Modality

if TYPE_CHECKING:
    import threading

Put = Callable[[Input], None]
"""Hands one input to the inbox; called from the source's own thread; may block for a file."""

Now = Callable[[], float]
"""Seconds on the session clock."""


FAILED = "source_failed"
"""Reason of a permanent fault: that of a local file, or of a stream's format. It ends its source.
Any other fault is passing, of a device, a network or a recogniser: the source is opened again."""


class SourceError(TamulagError):
    """A source cannot be opened: wrong name, missing file, no permission.

    The text names the value and the remedy, in one or two lines.

    Attributes:
        is_permanent: Whether it is useless to try again: see `FAILED`.
    """

    def __init__(self, detail: str, *, is_permanent: bool = False) -> None:
        super().__init__(detail)
        self.is_permanent = is_permanent


class SourceLost(TamulagError):
    """A source that worked has stopped: cable pulled, stream ended, driver gone, file damaged.

    Attributes:
        reason: `camera_lost`, `microphone_lost`, `source_lost`, `asr_lost` or `FAILED`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason

    @property
    def is_permanent(self) -> bool:
        """Whether it is useless to open it again."""
        return self.reason == FAILED


class Source(Protocol):
    """A device or file that fills one or more modalities.

    Of each vision tick it puts one sample, when the tick is over.
    """

    name: str
    """For logs and thread names, e.g. `camera 0`."""
    modalities: tuple[Modality, ...]

    def losses(self) -> dict[str, int]:
        """Return what was lost inside the source so far: ticks of `audio`, `vision`, `asr`.

        `asr` is sound that became audio samples but never reached the recogniser.
        """

    def gauges(self) -> dict[str, float]:
        """Return what can be measured now, by name: clocks, queues; called from any thread."""

    def shed(self, steps: Collection[str]) -> None:
        """Save work, or stop saving; called from any thread.

        Args:
            steps: All that is given up from now on, of `vision_rate` (every other picture) and
                `asr_partials` (words before their utterance is over); a source heeds what it has.
        """

    def open(self) -> None:
        """Open the device or file.

        Raises:
            SourceError: If it cannot be opened; nothing stays open then.
        """

    def run(self, put: Put, stop: "threading.Event") -> None:
        """Deliver inputs until `stop` is set or the file ends; then close what was opened.

        Runs in a thread of its own. Checks `stop` at least every 0.5 s.

        Raises:
            SourceLost: If the device went away: `open` and `run` may be called again, unless the
                fault is permanent.
        """
