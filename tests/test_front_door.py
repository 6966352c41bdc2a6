"""What `import tamulag.streamer` and `import tamulag.models` offer, and what they cost."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
import torch

import tamulag.models
import tamulag.streamer
from tamulag.models import (
    MODALITIES,
    CheckpointError,
    ModelConfig,
    TamUlag,
    encoder_for,
    load,
    save,
)
from tamulag.models.nn.config import BranchConfig
from tamulag.models.nn.tam_ulag import bounded
from tamulag.models.runtime.checkpoint import Card, resolve
from tamulag.streamer import Block, Estimate, Phrase, Session, Word

PAGE = (Path(__file__).parent.parent / "docs" / "guide" / "python.md").read_text()
HEAVY = "{'torch', 'cv2', 'numpy', 'pydantic', 'onnxruntime', 'mediapipe', 'sounddevice'}"
packages = pytest.mark.parametrize("package", [tamulag.streamer, tamulag.models])


def loaded_by(code: str) -> str:
    """Return which heavy modules are there after some lines, in a process of its own."""
    code = f"import sys; {code}; print(sorted({HEAVY} & {{*sys.modules}}))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


@packages
def test_every_name_is_there(package: ModuleType) -> None:
    """Each name of `__all__` can be imported, and `dir` lists them alone."""
    assert [name for name in package.__all__ if not hasattr(package, name)] == []
    assert dir(package) == sorted(package.__all__)


@packages
def test_a_name_that_is_not_there_is_an_error(package: ModuleType) -> None:
    """As for every module."""
    with pytest.raises(AttributeError, match="no attribute 'Sesion'"):
        getattr(package, "Sesion")  # noqa: B009


@packages
def test_the_page_explains_every_name(package: ModuleType) -> None:
    """docs/guide/python.md has each of them as code in the first cell of a row."""
    cells = "".join(re.findall(r"^\|(.*?)\|", PAGE, re.MULTILINE))
    named = set(re.findall(r"`(\w+)", cells))
    assert [name for name in package.__all__ if name not in named] == []


def test_the_page_imports_nothing_that_is_not_exported() -> None:
    """Its code can be copied."""
    imported = re.findall(r"^from (tamulag\.\w+) import (.+)$", PAGE, re.MULTILINE)
    assert imported
    for package, names in imported:
        exported = sys.modules[package].__all__
        assert [name for name in names.split(", ") if name not in exported] == []


@pytest.mark.parametrize("package", ["tamulag.streamer", "tamulag.models"])
def test_the_package_alone_loads_nothing_heavy(package: str) -> None:
    """A program may import it and never use it."""
    assert loaded_by(f"import {package}") == "[]"


def test_an_agent_loads_the_network_only_when_it_is_entered() -> None:
    """Settings are checked without it."""
    code = "from tamulag.streamer import Agent, Camera, TamulagError; Agent([Camera(0)])"
    assert loaded_by(code) == "['numpy', 'pydantic']"


def voice(seconds: float, size: int) -> npt.NDArray[np.float32]:
    """Return made-up features of a voice."""
    shape = (round(50 * seconds), size)
    return np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)


def test_a_session_of_ready_features() -> None:
    """What is not pushed is off or missing; the size of the blocks changes nothing."""
    found: list[list[Estimate]] = []
    for size in (5, 25):
        session = Session.open("default", modalities=("audio", "vision"), window=2.0, hop=0.5)
        assert sorted(session.dims) == ["audio", "vision"]
        values, estimates = voice(3.0, session.dims["audio"]), []
        for first in range(0, len(values), size):
            estimates += session.push(Block("audio", first / 50, values[first : first + size]))
        found.append(estimates + session.advance(3.5) + session.close())
    one, other = found
    assert [estimate.end for estimate in one] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert [e.sentiment for e in one] == pytest.approx([e.sentiment for e in other], abs=1e-5)
    statuses = {name: part.status for name, part in one[-1].modalities.items()}
    assert statuses == {"text": "off", "audio": "ok", "vision": "missing"}


def test_a_session_of_words() -> None:
    """Token states come from the encoder that the checkpoint was trained with."""
    session = Session.open("default", modalities=["text"])
    values, word_of_token = encoder_for("default").encode(["wonderful", "day"])
    words = (Word("wonderful", 0.1, 0.6), Word("day", 0.6, 0.9))
    estimates = session.push(Phrase(1.0, 0, words, values, word_of_token, final=True))
    estimates += session.close()
    assert values.shape[1] == session.dims["text"]
    assert estimates[-1].modalities["text"].status == "ok"
    assert (estimates[-1].sentiment or 0) > 1


def test_a_session_of_words_of_another_size(tmp_path: Path) -> None:
    """Tokens of 768 values, as the checkpoint `large` takes them, and their mean as it pools."""
    text = BranchConfig(dim=768, encoder="identity", tam="mean", dropout=0.0)
    torch.manual_seed(0)
    model = TamUlag(ModelConfig(text=text, shares=(0.4, 0.2, 0.4))).eval()
    path = tmp_path / "large.safetensors"
    save(model, Card(trained=dict.fromkeys(("sentiment", *MODALITIES), True)), path)
    session = Session.open(path, modalities=["text"])
    values = np.random.default_rng(0).standard_normal((3, 768)).astype(np.float32)
    words = (Word("so", 0.1, 0.3), Word("good", 0.3, 0.6))
    estimates = session.push(Phrase(1.0, 0, words, values, (0, 1, 1), final=True))
    estimates += session.close()
    assert session.dims == {"text": 768}
    with torch.inference_mode():
        wanted = bounded(model.text.head(torch.from_numpy(values).mean(0)))
    assert estimates[-1].sentiment == pytest.approx(float(wanted), abs=1e-5)


def test_a_session_that_cannot_be_opened_says_why() -> None:
    """An unknown modality, an unknown checkpoint."""
    with pytest.raises(ValueError, match=r"\['face'\] are unknown: use text, audio, vision"):
        Session.open(modalities=["face"])
    with pytest.raises(CheckpointError, match="'nope' not found"):
        Session.open("nope")


@pytest.mark.parametrize("name", ["default", resolve("default")])
def test_a_model_is_loaded_by_name_or_path(name: str | Path) -> None:
    """With its card, in evaluation mode."""
    model, card = load(name)
    assert not model.training
    assert card.trained == dict.fromkeys(("sentiment", "text", "audio", "vision"), True)
