"""Who may import whom: one ordered list of folders for each package, and three pure folders."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FOLDERS = {
    "models": ("nn", "runtime", "text", "data", "evaluation", "training", "bench"),
    "streamer": (
        *("core", "aio", "config", "protocol", "features", "sources", "publishers", "webserver"),
        *("storage", "service", "cluster", "app", "offline", "bench", "cli"),
    ),
}
"""The folders of each package; a folder imports itself and those before it."""

PURE = ("streamer/core", "streamer/protocol", "streamer/config")
IMPURE = {
    *("asyncio", "threading", "multiprocessing", "subprocess", "time", "socket", "sqlite3"),
    *("cv2", "sounddevice", "websockets", "aiomqtt", "av", "mediapipe", "vosk", "ray"),
}
"""What a pure folder never imports: event loops, threads, clocks, sockets and devices."""

SOURCES = sorted(chain((ROOT / "streamer").rglob("*.py"), (ROOT / "models").rglob("*.py")))
CODE = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]
LONGEST_FILE = 400


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Return the absolute name of all that a file imports, at its top or inside a function.

    Imports for annotations alone (`if TYPE_CHECKING`) do not count.
    """
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    package = ["tamulag", *path.relative_to(ROOT).parts[:-1]]
    tree = ast.parse(path.read_text())
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_folder_imports_only_those_before_it(path: Path) -> None:
    """The order of `FOLDERS` is the whole rule; the two `__init__` files may export from all."""
    package, *inner = path.relative_to(ROOT).parts
    if len(inner) == 1:
        return
    allowed = FOLDERS[package][: FOLDERS[package].index(inner[0]) + 1]
    found = [name for name in imports(path) if is_within(name, f"tamulag.{package}")]
    assert [n for n in found if [*n.split("."), ""][2] not in allowed] == []


def test_every_folder_is_in_the_order() -> None:
    """No folder escapes the rule."""
    for package, order in FOLDERS.items():
        there = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert there == set(order)


@pytest.mark.parametrize("folder", PURE)
def test_pure_folder_knows_no_device_socket_thread_or_clock(folder: str) -> None:
    """The core gets times and arrays as arguments, so that a replay gives the same numbers."""
    impure = {
        name_of(path): found
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (found := {name.split(".")[0] for name in imports(path)} & IMPURE)
    }
    assert impure == {}


def test_models_never_import_streamer() -> None:
    """The model can be used, trained and exported without the agent."""
    files = [path for path in SOURCES if path.is_relative_to(ROOT / "models")]
    users = [p for p in files if any(is_within(n, "tamulag.streamer") for n in imports(p))]
    assert users == []


def test_sources_publishers_and_pages_do_not_import_models() -> None:
    """Who captures and who sends does not know that there is a network."""
    without = ("aio", "config", "protocol", "sources", "publishers", "webserver", "storage")
    files = chain.from_iterable((ROOT / "streamer" / name).rglob("*.py") for name in without)
    assert [p for p in files if any(is_within(n, "tamulag.models") for n in imports(p))] == []


@pytest.mark.parametrize("package", ["streamer", "models"])
def test_package_has_one_identity(package: str) -> None:
    """Neither folder is a top-level module, so that no class exists twice."""
    assert package not in sys.modules
    assert [p for p in CODE if any(is_within(name, package) for name in imports(p))] == []


@pytest.mark.parametrize("package", ["streamer", "models"])
def test_import_inside_a_package_is_relative(package: str) -> None:
    """A package can be renamed by one line of pyproject.toml."""
    absolute = re.compile(rf"^\s*(from|import) tamulag\.{package}\b", re.MULTILINE)
    assert [p for p in (ROOT / package).rglob("*.py") if absolute.search(p.read_text())] == []


def test_packages_of_pyproject_are_the_tree() -> None:
    """A folder that is not listed would be missing from an installed copy."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    files = [path for path in SOURCES if path.name == "__init__.py"]
    there = {".".join(["tamulag", *path.relative_to(ROOT).parts[:-1]]) for path in files}
    assert set(settings["packages"]) == there


def test_tests_mirror_the_folders() -> None:
    """tests/core/test_aligner.py tests streamer/core/aligner.py; models/ has tests/models/."""
    code = {path.relative_to(ROOT).with_suffix("").as_posix() for path in SOURCES}
    strays = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        inner = path.relative_to(ROOT / "tests")
        if len(inner.parts) == 1 or inner.parts[0] in ("pages", "security", "support"):
            continue
        where = inner.parent if inner.parts[0] == "models" else "streamer" / inner.parent
        if (where / inner.stem.removeprefix("test_")).as_posix() not in code:
            strays.append(name_of(path))
    assert strays == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_file_can_be_read_in_one_sitting(path: Path) -> None:
    """No file has more than 400 lines."""
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


def test_every_dependency_is_explained() -> None:
    """docs/reference/dependencies.md has a row for each package of pyproject.toml, and no other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = chain(project["dependencies"], *project["optional-dependencies"].values())
    names = [re.split(r"[<>=\[ ]", requirement)[0] for requirement in wanted]
    table = (ROOT / "docs" / "reference" / "dependencies.md").read_text()
    rows = re.findall(r"^\| ([a-z0-9-]+) \|", table, re.MULTILINE)
    assert sorted(row for row in rows if row != "package") == sorted(names)
