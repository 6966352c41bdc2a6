"""What `import tamulag.streamer` and `import tamulag.models` offer, and what they cost."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import tamulag.models
import tamulag.streamer

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
