"""Read a training file of either kind, and report in one line what is wrong with it.

Knows TOML and the tables that a file may have. Knows no key by its name but `kind`.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from ..data.clips import DataError

JOINT = "joint"
"""The `kind` of a joint training; a file without one trains the heads apart."""


class Table(BaseModel):
    """A table of a training file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Kind = TypeVar("Kind", bound=BaseModel)


def load_recipe(path: Path, table: type[Kind]) -> Kind:
    """Read a training file as the table of its kind.

    Args:
        path: TOML file.
        table: All that the file may hold; with a field `kind` for a joint training.

    Raises:
        DataError: If the file cannot be read, is of another kind, or has an unknown key or a value
            that is not allowed.
    """
    values = parsed(path)
    joint = "kind" in table.model_fields
    if joint and "kind" not in values:
        raise DataError(
            f'{path} is no file for a joint training, kind = "{JOINT}" is missing: '
            "take one such as configs/train/paper-mosi.toml"
        )
    if not joint and values.get("kind") == JOINT:
        raise DataError(
            f'{path} is for a joint training (kind = "{JOINT}"), and this needs a file that trains '
            "the heads apart, with tables such as [audio]: e.g. configs/train/default.toml"
        )
    return checked(path, values, table)


def is_joint(path: Path) -> bool:
    """Return whether a training file is for a joint training.

    Raises:
        DataError: If the file cannot be read.
    """
    return parsed(path).get("kind") == JOINT


def parsed(path: Path) -> dict[str, object]:
    """Return the content of a TOML file.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as a training file: {error}") from error


def checked(path: Path, values: Mapping[str, object], table: type[Kind]) -> Kind:
    """Return the values of a training file as its table.

    Raises:
        DataError: For the first key that is unknown, missing or has a value that is not allowed.
    """
    try:
        return table.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        keys = [str(part) for part in first["loc"]]
        key, about = ".".join(keys), first["msg"].removeprefix("Value error, ")
        if not keys:
            raise DataError(f"{path}: {about}") from error
        if first["type"] == "missing":
            raise DataError(f"{path}: {key} is missing") from error
        if first["type"] == "extra_forbidden":
            about = unknown(keys, _allowed(table, keys[:-1]))
        raise DataError(f"{path}: {key} = {_short(first['input'])}: {about}") from error


def unknown(keys: Sequence[str], allowed: Sequence[str]) -> str:
    """Return that the last of the keys is unknown, with the nearest name and all allowed ones."""
    close = difflib.get_close_matches(keys[-1], allowed, n=1)
    guess = f"did you mean {close[0]}? " if close else ""
    place = f"[{'.'.join(keys[:-1])}]" if keys[:-1] else "the file"
    return f"unknown key: {guess}{place} may have {', '.join(allowed)}"


def _allowed(table: type[BaseModel], keys: Sequence[str]) -> list[str]:
    """Return the keys of the table in a table to which keys lead."""
    for key in keys:
        annotation = table.model_fields[key].annotation
        kinds = (annotation, *get_args(annotation))
        table = next(k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel))
    return list(table.model_fields)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
