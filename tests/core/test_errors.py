"""The tree of errors is drawn as it is, and holds every error that is ours."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache

import tamulag.models
import tamulag.streamer
from tamulag.streamer.core import errors
from tamulag.streamer.core.errors import TamulagError


@cache
def own_errors() -> tuple[type[Exception], ...]:
    """Return every exception class that a module of ours defines for others."""
    found: list[object] = []
    for package in (tamulag.models, tamulag.streamer):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not info.name.endswith("__main__"):
                found += vars(importlib.import_module(info.name)).values()
    classes = {one for one in found if isinstance(one, type) and issubclass(one, Exception)}
    ours = [one for one in classes if one.__module__.startswith("tamulag.")]
    return tuple(one for one in ours if not one.__name__.startswith("_"))


def line_of(error: type[Exception]) -> str:
    return f"{error.__name__} ({error.__module__.removeprefix('tamulag.')})"


def drawn() -> Iterator[tuple[str, str | None]]:
    """Yield each class of the drawing with the one that it is drawn under."""
    above: dict[int, str] = {}
    for indent, name in re.findall(r"^( *)\* (\w+ \([\w.]+\))", errors.__doc__ or "", re.M):
        level = len(indent) // 4
        above[level] = name
        yield name, above.get(level - 1)


def test_the_drawing_is_the_tree() -> None:
    """Each error stands once, under its base, with the module that defines it."""
    tree = {
        (line_of(one), None if one is TamulagError else line_of(one.__bases__[0]))
        for one in own_errors()
    }
    assert sorted(drawn(), key=str) == sorted(tree, key=str)


def test_every_error_of_ours_can_be_caught_by_its_root() -> None:
    """One `except TamulagError` is enough for a program."""
    assert [one for one in own_errors() if not issubclass(one, TamulagError)] == []
