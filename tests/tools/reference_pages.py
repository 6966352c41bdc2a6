"""Write the generated parts of docs/reference: `python -m tests.tools.reference_pages`.

Below the mark of cli.md stand the verbs with their options, as
the command line has them; below that of configuration.md the keys of the settings. `test_docs.py`
compares both.
"""

import inspect
import json
import typing
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.core import TyperArgument, TyperGroup, TyperOption
from typer.main import get_command

from tamulag.streamer.cli.main import app
from tamulag.streamer.config.loader import Config

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
MARK = "<!-- Below: written by `python -m tests.tools.reference_pages`. -->\n"
TYPES = {int: "N", float: "X", Path: "PATH", str: "TEXT"}


def verbs() -> Iterator[tuple[str, str, list[TyperArgument | TyperOption]]]:
    """Yield each verb that does something: `bench train`, its help, its parameters."""
    yield from _verbs("", get_command(app))


def _verbs(
    name: str, command: object
) -> Iterator[tuple[str, str, list[TyperArgument | TyperOption]]]:
    inner = command.commands if isinstance(command, TyperGroup) else {}
    if name and (not inner or command.invoke_without_command):  # type: ignore[attr-defined]
        yield name, inspect.cleandoc(command.help or ""), command.params  # type: ignore[attr-defined]
    for word, below in inner.items():
        yield from _verbs(f"{name} {word}".strip(), below)


def option(parameter: TyperArgument | TyperOption) -> tuple[str, str]:
    """Return how a parameter is typed, and what it means."""
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", str)
    value = parameter.metavar or TYPES.get(kind, "TEXT")
    names = "`, `".join([*parameter.opts, *parameter.secondary_opts])
    if isinstance(parameter, TyperArgument):
        names = parameter.metavar or (parameter.name or "").upper()
    elif not parameter.is_flag:
        names += f" {value}"
    about = (parameter.help or "").replace("|", "\\|")
    if parameter.required:
        about += " Required."
    elif parameter.default not in (None, False, (), []) and "Default" not in about:
        about += f" Default: {parameter.default}."
    return f"`{names}`", about.strip()


def cli() -> str:
    """Return the verbs: a table of all, then each with its options."""
    every = list(verbs())
    lines = ["| verb | what it does |", "|---|---|"]
    for name, about, _ in every:
        (first, *_) = about.split("\n\n")
        lines.append(f"| [`tamulag {name}`](#tamulag-{name.replace(' ', '-')}) | {_line(first)} |")
    for name, about, parameters in every:
        lines += ["", f"## tamulag {name}", ""]
        for part in about.split("\n\n"):
            head, _, example = part.partition("Example:")
            lines += [_line(head), ""] if head.strip() else []
            lines += [f"    {_line(example)}", ""] if example else []
        rows = [option(parameter) for parameter in parameters if parameter.name != "help"]
        if rows:
            lines += ["| option | meaning |", "|---|---|"]
            lines += [f"| {typed} | {meaning} |" for typed, meaning in rows]
        else:
            lines.pop()
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split())


def tables(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield each table of the settings: its name in TOML, and its class."""
    for name, field in model.model_fields.items():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            yield above + name, field.annotation
            yield from tables(field.annotation, f"{above}{name}.")


def key(name: str, field: FieldInfo) -> str:
    """Return the row of a key: name, meaning, what is allowed, default."""
    meaning, _, allowed = (field.description or "").partition(": ")
    default = field.get_default()
    shown = "unset" if default is None else f"`{json.dumps(default)}`"
    return f"| `{name}` | {meaning} | {allowed} | {shown} |".replace("||", "\\|\\|")


def configuration() -> str:
    """Return each table with its keys."""
    lines: list[str] = []
    for name, model in tables(Config):
        lines += [f"## [{name}]", "", inspect.cleandoc(model.__doc__ or ""), ""]
        lines += ["| key | meaning | allowed | default |", "|---|---|---|---|"]
        lines += [
            key(inner, field)
            for inner, field in model.model_fields.items()
            if not (inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel))
        ]
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"


PAGES: dict[str, typing.Callable[[], str]] = {"cli.md": cli, "configuration.md": configuration}
"""The written part of each page, by the page's name."""


def main() -> None:
    """Write both pages anew below their marks."""
    for name, write in PAGES.items():
        page = REFERENCE / name
        head, mark, _ = page.read_text(encoding="utf-8").partition(MARK)
        page.write_text("".join(chain((head, mark, "\n", write()))), encoding="utf-8")


if __name__ == "__main__":
    main()
