"""An exported file is kept only if it scores like torch, on random input and on a clip.

Knows the front end, sessions and two ways to compute a step. Knows nothing of what is in the file.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tamulag.models.nn.tam_ulag import TICK_RATE, TamUlag
from tamulag.models.runtime.checkpoint import CheckpointError, load
from tamulag.models.runtime.onnx_engine import OnnxStep, Speed, faster
from tamulag.models.runtime.onnx_export import TOLERANCE, check, export
from tamulag.models.runtime.session_step import Step

from ..app.build_agent import build, demo_files
from ..app.checkpoint_check import check_streamable
from ..config import loader as settings
from ..config.loader import Config
from ..config.schema import SessionConfig
from ..core.estimate import Estimate
from ..core.sample import MODALITIES, Call, Input
from ..core.session import Session
from .verify import APART, Comparison, apart

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What became of an export."""

    differences: Mapping[str, float]
    """Largest difference from torch by what was compared."""
    hops: int
    """Of the clip; 0 without one."""
    speeds: list[Speed]
    """Empty if the file was not kept."""

    @property
    def is_kept(self) -> bool:
        """Whether the file was written."""
        return max(self.differences.values()) <= TOLERANCE


@dataclass
class Twin:
    """A journal that gives another session what the first one is given, and compares them."""

    session: Session
    hops: int = 0
    differences: dict[str, float] = field(default_factory=dict)
    _waiting: deque[Estimate] = field(default_factory=deque)

    def took(self, item: Input) -> None:
        """Give the other session an input."""
        self._waiting += self.session.push(item)

    def called(self, name: Call, now: float | None) -> None:
        """Call the other session alike."""
        if name == "hop" and now is not None:
            self.session.set_hop(now)
        elif name == "advance" and now is not None:
            self._waiting += self.session.advance(now)
        else:
            self._waiting += self.session.close(now)

    def said(self, estimate: Estimate) -> None:
        """Compare an estimate with the other session's."""
        self.hops += 1
        theirs = _numbers(self._waiting.popleft()) if self._waiting else {}
        for name, number in _numbers(estimate).items():
            difference = apart(number, theirs.get(name, APART))
            self.differences[name] = max(self.differences.get(name, 0.0), difference)


def _numbers(estimate: Estimate) -> dict[str, float | None]:
    modalities = estimate.modalities
    scores = {f"clip {name}": modalities[name].sentiment for name in MODALITIES}
    weights = {f"clip {name} weight": modalities[name].weight for name in MODALITIES}
    return {"clip fused": estimate.sentiment, **scores, **weights}


def export_checked(
    checkpoint: str, out: Path, *, window: float, clip: Path | None, tell: Progress
) -> Report:
    """Export the step function of a checkpoint; leave no file if it differs from torch.

    Args:
        checkpoint: Name or path.
        out: The file; one that is there already stays until the new one has passed.
        window: Of the sessions that it is for, in seconds.
        clip: Media file; None: the demo's portrait and voice, unless the checkpoint takes other
            features than the front end gives.
        tell: Is told what is being done.

    Raises:
        CheckpointError: If the checkpoint cannot be used or exported.
        SourceError: If the clip cannot be played.
    """
    model, _ = load(checkpoint, window=round(window * TICK_RATE))
    played = _played(checkpoint, window, model, clip, tell)
    unchecked = out.with_suffix(".unchecked")
    try:
        tell(f"export: {checkpoint}, window {window:g} s")
        export(model, checkpoint, unchecked)
        onnx = OnnxStep(unchecked, model, checkpoint)
        differences = {f"random {name}": apart for name, apart in check(model, onnx).items()}
        found = Comparison(0, {})
        if played is not None:
            tell(f"check on {played.source.path}")
            found = compare(played, onnx.step)
        report = Report(differences | dict(found.differences), found.hops, [])
        if report.is_kept:
            unchecked.replace(out)
            tell("measure")
            report.speeds.extend(faster(model, onnx))
        return report
    finally:
        unchecked.unlink(missing_ok=True)


def compare(played: Config, step: Step) -> Comparison:
    """Play a clip through a session with torch, and give another one with `step` the same.

    Args:
        played: A media file at speed `max`, and the checkpoint.
        step: Of the same checkpoint and window.
    """
    model, card = load(played.model.checkpoint, window=round(played.session.window * TICK_RATE))
    built = build(played)
    with built.resources:
        first = built.feed.session
        twin = Twin(Session(model, card, first.asked, first.timing, step=step))
        first.journal = twin
        asyncio.run(built.agent.run())
    return Comparison(twin.hops, twin.differences)


def _played(
    checkpoint: str, window: float, model: TamUlag, clip: Path | None, tell: Progress
) -> Config | None:
    """Return the settings that play the clip, or None if the checkpoint cannot hear or see it."""
    portrait, speech = demo_files()
    media: dict[str, object] = {"source.path": str(speech), "source.still": str(portrait)}
    if clip is not None:
        media = {"source.path": str(clip)}
    rest: dict[str, object] = {
        **_patience(window),
        "source.speed": "max",
        "model.checkpoint": checkpoint,
        "session.window": window,
        "websocket.enabled": False,
    }
    config = settings.load(None, media | rest)
    try:
        check_streamable(model.config, config)
    except CheckpointError as error:
        if clip is not None:
            raise
        tell(f"check on random input alone: {error}")
        return None
    return config


def _patience(window: float) -> dict[str, object]:
    """Return the usual patience with each modality, cut to what fits the window."""
    usual = SessionConfig()
    return {
        f"session.{kind}.{name}": min(seconds, window)
        for kind in ("stale_after", "missing_after")
        for name, seconds in getattr(usual, kind).model_dump().items()
    }
