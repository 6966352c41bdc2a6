"""A file is kept only if it scores like torch."""

from copy import deepcopy
from pathlib import Path
from shutil import copyfile

import pytest
import torch

from support.onnx_exports import Exported, report_of
from support.recordings import CARD, HEADER, inputs
from tamulag.models import TamUlag
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.streamer.core.session import Session
from tamulag.streamer.offline import verify_onnx as module
from tamulag.streamer.offline.verify_onnx import Twin, export_checked


def session(model: TamUlag) -> Session:
    return Session(TorchEngine(model), CARD, HEADER.asked, HEADER.timing)


def apart(one: TamUlag, other: TamUlag) -> Twin:
    """Return the twin of a small session that had another model."""
    twin = Twin(session(other))
    first = session(one)
    first.observer = twin
    for item in inputs():
        first.push(item)
    first.advance(7.0)
    first.set_hop(1.0)
    first.close()
    return twin


def test_twins_with_one_model_are_equal(model: TamUlag) -> None:
    """Words, a lost camera, a longer hop and the end reach both."""
    twin = apart(model, model)
    assert twin.hops > 10
    assert len(twin.differences) == 7
    assert max(twin.differences.values()) == 0.0


def test_twins_with_two_models_are_not(model: TamUlag) -> None:
    """The difference is that of the scores."""
    other = deepcopy(model)
    with torch.no_grad():
        other.get_parameter("audio.head.3.bias").add_(0.5)
    differences = apart(model, other).differences
    assert 0.3 < differences["clip audio"] <= 0.5
    assert differences["clip text"] == 0.0


def test_a_checkpoint_of_other_features_is_checked_without_a_clip(exported: Exported) -> None:
    """It is said so; the file is written with its directory, and both engines are timed."""
    report, told = report_of(exported)
    assert report.is_kept
    assert report.hops == 0
    assert len(report.speeds) == 10
    assert any("random input alone" in line for line in told)
    assert [*exported.file.parent.iterdir()] == [exported.file]


def test_a_file_that_differs_is_discarded(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing new is left, and the file of yesterday stays."""
    monkeypatch.setattr(module, "TOLERANCE", -1.0)
    # What the exporter has made of this checkpoint before.
    monkeypatch.setattr(module, "export", lambda model, name, out: copyfile(exported.file, out))
    out = tmp_path / "tiny.onnx"
    out.write_bytes(b"yesterday")
    report = export_checked(
        exported.checkpoint, out, window=2.0, clip=None, report_stage=lambda text: None
    )
    assert not report.is_kept
    assert list(tmp_path.iterdir()) == [out]
    assert out.read_bytes() == b"yesterday"
