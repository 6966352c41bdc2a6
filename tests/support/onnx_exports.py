"""Tiny models whose step function is exported for real, each once in a test session."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from tamulag.models import ModelConfig, TamUlag, save
from tamulag.models.runtime.checkpoint import Card
from tamulag.models.runtime.onnx_export import export
from tamulag.streamer.offline.verify_onnx import ExportReport, export_checked

from .model_contract import tiny
from .shared import made_once

MIXED = ModelConfig(
    fusion="both",
    fused=("text", "audio"),
    head_layers=3,
    text=replace(ModelConfig().text, encoder="identity", tam="none"),
    audio=replace(ModelConfig().audio, tam="softmax_gate"),
    vision=replace(ModelConfig().vision, tam="gate_sum", residual=True),
)
"""Every form that neither the paper's model nor the shipped one has; vision is not fused."""


class Exported(NamedTuple):
    """A model with its two files."""

    model: TamUlag
    checkpoint: str
    file: Path
    """The only one of a folder that the export has made."""


def exported_once(factory: pytest.TempPathFactory, name: str, config: ModelConfig) -> Exported:
    """Return a model of these forms at tiny sizes, exported in a folder of this name."""

    def make(folder: Path) -> None:
        made = _saved(config, folder)
        export(made.model, made.checkpoint, made.file)

    return _at(config, made_once(factory, name, make))


def checked_once(factory: pytest.TempPathFactory, name: str, config: ModelConfig) -> Exported:
    """Return the same, exported as the verb does it: checked and timed."""

    def make(folder: Path) -> None:
        made, told = _saved(config, folder), list[str]()
        report = export_checked(
            made.checkpoint, made.file, window=2.0, clip=None, report_stage=told.append
        )
        _report(made).write_bytes(pickle.dumps((report, told)))

    return _at(config, made_once(factory, name, make))


def report_of(exported: Exported) -> tuple[ExportReport, list[str]]:
    """Return what `checked_once` was reported, and what it was told meanwhile."""
    found: tuple[ExportReport, list[str]] = pickle.loads(_report(exported).read_bytes())
    return found


def _at(config: ModelConfig, folder: Path) -> Exported:
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    return Exported(tiny(config), str(folder / "tiny.safetensors"), folder / "new" / "tiny.onnx")


def _saved(config: ModelConfig, folder: Path) -> Exported:
    made = _at(config, folder)
    save(made.model, Card(trained={}), Path(made.checkpoint))
    return made


def _report(exported: Exported) -> Path:
    return Path(exported.checkpoint).with_name("report.pickle")
