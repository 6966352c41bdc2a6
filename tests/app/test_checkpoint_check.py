"""A checkpoint that cannot stream is refused in one line, before anything starts."""

from dataclasses import replace
from pathlib import Path

import pytest

from tamulag.models import MODALITIES, ModelConfig, TamUlag
from tamulag.models.nn.config import preset
from tamulag.models.runtime.checkpoint import Card, CheckpointError, save
from tamulag.streamer.app.build_agent import build
from tamulag.streamer.app.checkpoint_check import check_streamable
from tamulag.streamer.config.loader import load

FILE: dict[str, object] = {"source.path": "talk.mp4", "asr.engine": "none"}
BIDIRECTIONAL = replace(ModelConfig().vision, bidirectional=True)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (preset("paper-mosi"), FILE, "audio takes vectors of 5 values, the front end gives 332"),
        (preset("paper-mosi"), {"camera.device": 0}, "vision takes vectors of 20 values"),
        (replace(ModelConfig(), vision=BIDIRECTIONAL), FILE, "vision.bidirectional = true"),
    ],
)
def test_what_cannot_stream_is_refused(
    model: ModelConfig, settings: dict[str, object], message: str
) -> None:
    """With the value and the remedy."""
    with pytest.raises(CheckpointError, match=rf"{message}.*tamulag extract"):
        check_streamable(model, load(None, settings))


def test_what_is_not_captured_need_not_fit() -> None:
    """A camera alone asks nothing of the width of sound."""
    model = replace(ModelConfig(), audio=replace(ModelConfig().audio, dim=5, centred=0))
    check_streamable(model, load(None, {"camera.device": 0}))


def test_a_run_refuses_it_before_its_parts_are_made(tmp_path: Path) -> None:
    """The file that is to be played need not be there."""
    path = tmp_path / "paper.safetensors"
    trained = dict.fromkeys(("sentiment", *MODALITIES), True)
    save(TamUlag(preset("paper-mosi")), Card(trained=trained, text_encoder="packed"), path)
    with pytest.raises(CheckpointError, match="cannot stream"):
        build(load(None, FILE | {"asr.engine": "moonshine", "model.checkpoint": str(path)}))
