"""A tiny model whose step function is exported for real."""

from pathlib import Path
from typing import NamedTuple

from tamulag.models import ModelConfig, TamUlag, save
from tamulag.models.runtime.checkpoint import Card
from tamulag.models.runtime.onnx_export import export

from .model_contract import tiny


class Exported(NamedTuple):
    """A model with its two files."""

    model: TamUlag
    checkpoint: str
    file: Path


def exported_to(folder: Path, config: ModelConfig) -> Exported:
    """Save and export a model of these forms at tiny sizes; takes seconds."""
    made = Exported(tiny(config), str(folder / "tiny.safetensors"), folder / "tiny.onnx")
    save(made.model, Card(trained={}), Path(made.checkpoint))
    export(made.model, made.checkpoint, made.file)
    return made
