"""Tiny models whose step function is exported for real, each once in a test session."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import pytest

from tamulag.models import ModelConfig, TamUlag, save
from tamulag.models.nn.config import with_tam
from tamulag.models.runtime.checkpoint import Card
from tamulag.models.runtime.onnx_export import export
from tamulag.streamer.offline.verify_onnx import ExportReport, export_checked

from .model_contract import tiny
from .shared import made_once

UNFUSED = with_tam(
    ModelConfig(head_layers=3, fused=("text", "audio"), shares=(0.4, 0.2, 0.4)), "none"
)
"""Vision stays out of the fusion, and no branch has attention."""


@dataclass(frozen=True)
class Exported:
    """A model with its two files."""

    model: TamUlag
    folder: Path

    @property
    def checkpoint(self) -> str:
        """Path of the model's checkpoint."""
        return str(self.folder / "tiny.safetensors")

    @property
    def file(self) -> Path:
        """The only file of a folder that the export has made."""
        return self.folder / "new" / "tiny.onnx"

    @property
    def checked(self) -> tuple[ExportReport, list[str]]:
        """What `export_checked` returned and what it told, of one that it has made."""
        found: tuple[ExportReport, list[str]] = pickle.loads(self._report.read_bytes())
        return found

    def make(self) -> None:
        """Write both files; takes seconds."""
        self._save()
        export(self.model, self.checkpoint, self.file)

    def make_checked(self) -> None:
        """Write both files as the verb does, and what it reports."""
        self._save()
        told: list[str] = []
        report = export_checked(
            self.checkpoint, self.file, window=2.0, clip=None, report_stage=told.append
        )
        self._report.write_bytes(pickle.dumps((report, told)))

    def _save(self) -> None:
        save(self.model, Card(trained={}), Path(self.checkpoint))

    @property
    def _report(self) -> Path:
        return self.folder / "report.pickle"


def exported_once(
    factory: pytest.TempPathFactory, name: str, config: ModelConfig, *, checked: bool = False
) -> Exported:
    """Return a model of these forms at tiny sizes, saved and exported in a folder of this name."""

    def make(folder: Path) -> None:
        made = Exported(model, folder)
        made.make_checked() if checked else made.make()

    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    model = tiny(config)
    return Exported(model, made_once(factory, name, make))
