"""Check an exported model file against torch, on random input and on a clip, before it is stored.

Knows feature extraction, sessions and two implementations of a step. Knows no content of the file.
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
from tamulag.models.runtime.torch_engine import Step, TorchEngine

from ..app.build_agent import build, demo_files
from ..app.checkpoint_check import check_streamable
from ..config import loader as settings
from ..config.loader import Config
from ..config.schema import SessionConfig
from ..core.commands import SessionCommand, apply
from ..core.estimate import APART, Estimate, difference, scores_of
from ..core.session import Session
from .verify import Comparison

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ExportReport:
    """Result of an export."""

    differences: Mapping[str, float]
    """Largest difference from torch by quantity."""
    hops: int
    """Hops of the clip; 0 without one."""
    speeds: list[Speed]
    """Empty if the file was discarded."""

    @property
    def is_kept(self) -> bool:
        """Whether the file was written."""
        return max(self.differences.values()) <= TOLERANCE


@dataclass
class Twin:
    """An observer that gives another session what the first one is given, and compares them."""

    session: Session
    hops: int = 0
    differences: dict[str, float] = field(default_factory=dict)
    _waiting: deque[Estimate] = field(default_factory=deque)

    def on_command(self, command: SessionCommand) -> None:
        """Give the other session the same command."""
        self._waiting += apply(self.session, command)

    def on_estimate(self, estimate: Estimate) -> None:
        """Compare an estimate with the second session's."""
        self.hops += 1
        other = _numbers(self._waiting.popleft()) if self._waiting else {}
        for name, number in _numbers(estimate).items():
            found = difference(number, other.get(name, APART))
            self.differences[name] = max(self.differences.get(name, 0.0), found)


def _numbers(estimate: Estimate) -> dict[str, float | None]:
    weights = {f"{name} weight": part.weight for name, part in estimate.modalities.items()}
    return {f"clip {name}": number for name, number in (scores_of(estimate) | weights).items()}


def export_checked(
    checkpoint: str, out: Path, *, window: float, clip: Path | None, report_stage: Progress
) -> ExportReport:
    """Export the step function of a checkpoint; discard the file if it differs from torch.

    Args:
        checkpoint: Name or path.
        out: The file; an existing one stays until the new one has passed.
        window: Window of the sessions that will use it, seconds.
        clip: Media file; None: the demo's portrait and voice, unless the checkpoint needs other
            features than ours.
        report_stage: Called with each stage of the work.

    Raises:
        CheckpointError: If the checkpoint cannot be used or exported.
        SourceError: If the clip cannot be played.
    """
    model, _ = load(checkpoint, window=round(window * TICK_RATE))
    played = _played(checkpoint, window, model, clip, report_stage)
    unchecked = out.with_suffix(".unchecked")
    try:
        report_stage(f"export: {checkpoint}, window {window:g} s")
        export(model, checkpoint, unchecked)
        onnx = OnnxStep(unchecked, model, checkpoint)
        differences = {f"random {name}": worst for name, worst in check(model, onnx).items()}
        found = Comparison(0, {})
        if played is not None:
            report_stage(f"check on {played.source.path}")
            found = compare(played, onnx.step)
        report = ExportReport(differences | dict(found.differences), found.hops, [])
        if report.is_kept:
            unchecked.replace(out)
            report_stage("measure")
            report.speeds.extend(faster(model, onnx))
        return report
    finally:
        unchecked.unlink(missing_ok=True)


def compare(played: Config, step: Step) -> Comparison:
    """Play a clip through a session with torch, and forward its commands to one with `step`.

    Args:
        played: A media file at speed `max`, and the checkpoint.
        step: From the same checkpoint and window.
    """
    model, card = load(played.model.checkpoint, window=round(played.session.window * TICK_RATE))
    built = build(played)
    with built.resources:
        first = built.feed.session
        twin = Twin(Session(TorchEngine(model, step=step), card, first.asked, first.timing))
        first.observer = twin
        asyncio.run(built.service.run())
    return Comparison(twin.hops, twin.differences)


def _played(
    checkpoint: str, window: float, model: TamUlag, clip: Path | None, report_stage: Progress
) -> Config | None:
    """Return the settings that play the clip, or None if the checkpoint needs other features."""
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
        report_stage(f"check on random input alone: {error}")
        return None
    return config


def _patience(window: float) -> dict[str, object]:
    """Return the default age limits, reduced to the window where necessary."""
    usual = SessionConfig()
    return {
        f"session.{kind}.{name}": min(seconds, window)
        for kind in ("stale_after", "missing_after")
        for name, seconds in getattr(usual, kind).model_dump().items()
    }
