import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STREAMER = ROOT / "streamer"
MODELS = ROOT / "models"

PURE = [
    *(STREAMER / f"{name}.py" for name in ("sample", "align", "session", "turns", "estimate")),
    *(STREAMER / f"{name}.py" for name in ("recording", "hall", "handover")),
    *(STREAMER / f"{name}.py" for name in ("message", "transcript", "config", "tables")),
    *(STREAMER / f"{name}.py" for name in ("fit", "stretch", "placement", "pressure", "watch")),
    *(STREAMER / f"{name}.py" for name in ("ring", "trail", "growth", "seat")),
    *(MODELS / f"{name}.py" for name in ("encoder", "attention", "fusion", "tam_ulag")),
    *(MODELS / f"{name}.py" for name in ("turn", "rings", "seats")),
]
IMPURE = {
    *("asyncio", "threading", "time", "socket"),
    *("cv2", "sounddevice", "websockets", "aiomqtt", "av", "mediapipe", "vosk"),
}
USERS_OF_MODELS = {
    *("session", "turns", "estimate"),  # step, and what a step gives
    *("hall", "serve", "cli_serve", "capacity"),  # many sessions
    *("build", "run", "streamable", "cli", "cli_bench", "cli_train"),  # composition
    "exported",  # the exported step beside torch, before it is kept
    "front",  # the text encoder, in a worker process of the server
    *("shares", "charts", "cli_speed"),  # what the model's part of a session costs
    *("archive", "offline", "rerun", "verify"),  # the same checkpoint again, the other way again
    *("cli_data", "extract", "parts", "corpora"),  # training data; not part of the live path
    *("fleet", "wing"),  # the same on a cluster, and its sessions
}
"""The files of streamer/ that may import tamulag.models."""

TESTED_ELSEWHERE = {
    "server": "puts the parts of a server in one task group; test_serve.py runs it",
    "cli_serve": "declares options; test_serve.py and test_capacity.py run both verbs",
    "port": "puts the WebSocket server together; test_build.py and test_serve.py open it",
    "followers": "who hears a session and when no more; test_serve.py follows some",
    "place": "three lines around a hall; test_calls.py and test_lobby.py sit in it",
    "rings": "the rows of one modality; test_seats.py steps, keeps and moves all three",
    "seat": "what the gateway knows of one session; test_cluster.py moves it about",
    "crew": "a few lines of Ray; test_gateway.py and test_outage.py run on it",
    "nodes": "two Ray nodes; test_fleet.py and test_outage.py kill one",
    "cli_cluster": "declares options; test_outage.py runs the verb",
    "tables": "declares keys and ranges; test_config.py tries each of them",
    "source": "says the shape of a source and does nothing; each source's test keeps its promise",
}

SOURCES = sorted(chain(STREAMER.glob("*.py"), MODELS.glob("*.py")))
"""Every file of the two packages."""

CODE = [*SOURCES, *sorted((ROOT / "tests").glob("*.py"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[str]:
    """Yield what a file imports, at its top or inside a function; `.x` for a relative import."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # `from tamulag import models` imports tamulag.models as well.
            start = "." * node.level + (f"{node.module}." if node.module else "")
            yield from (start + alias.name for alias in node.names)


def reaches(path: Path, package: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for name in imports(path))


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_pure_file_knows_no_device_socket_thread_or_clock(path: Path) -> None:
    """The core gets times and arrays as arguments, so that a replay gives the same numbers."""
    assert {name.split(".")[0] for name in imports(path)}.isdisjoint(IMPURE)


def test_models_never_import_streamer() -> None:
    """The model can be used, trained and exported without the agent."""
    assert not [path for path in MODELS.glob("*.py") if reaches(path, "tamulag.streamer")]


def test_only_the_joints_of_streamer_import_models() -> None:
    """Sources and publishers do not know that there is a network."""
    users = {path.stem for path in STREAMER.glob("*.py") if reaches(path, "tamulag.models")}
    assert users
    assert users <= USERS_OF_MODELS


@pytest.mark.parametrize("package", ["streamer", "models"])
def test_package_has_one_identity(package: str) -> None:
    """Neither folder is a top-level module, so that no class exists twice."""
    assert package not in sys.modules
    assert not [name_of(path) for path in CODE if reaches(path, package)]


@pytest.mark.parametrize("folder", [STREAMER, MODELS], ids=name_of)
def test_import_inside_a_package_is_relative(folder: Path) -> None:
    """A package can be renamed by one line of pyproject.toml."""
    own = f"tamulag.{folder.name}"
    assert not [name_of(path) for path in folder.glob("*.py") if reaches(path, own)]


def test_every_file_has_its_test() -> None:
    """The test of a file is found by its name; exceptions are few and stay true."""
    names = {path.stem for path in SOURCES if not path.stem.startswith("__")}
    tested = {path.stem.removeprefix("test_") for path in ROOT.glob("tests/test_*.py")}
    assert names - tested == set(TESTED_ELSEWHERE)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_file_can_be_read_in_one_sitting(path: Path) -> None:
    """No file has more than 400 lines."""
    assert len(path.read_text().splitlines()) <= 400


def test_every_dependency_is_explained() -> None:
    """docs/dependencies.md has a row for each package of pyproject.toml, and no other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = chain(project["dependencies"], *project["optional-dependencies"].values())
    names = [re.split(r"[<>=\[ ]", requirement)[0] for requirement in wanted]
    table = (ROOT / "docs" / "dependencies.md").read_text()
    rows = re.findall(r"^\| ([a-z0-9-]+) \|", table, re.MULTILINE)
    assert sorted(row for row in rows if row != "package") == sorted(names)
