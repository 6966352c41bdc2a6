"""The verbs of the history: sessions list, show, export, delete.

Knows their options and what they print. Parts are imported only by the verb that needs them.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .data import Json

if TYPE_CHECKING:
    from ..storage.history_db import Store

Session = Annotated[str, typer.Argument(metavar="ID", help="As `tamulag sessions list` shows it.")]
History = Annotated[
    Path | None, typer.Option("--history", help="File of the history. Default: the usual one.")
]

app = typer.Typer(help="Past sessions, where `history` keeps them.", no_args_is_help=True)


def register(parent: typer.Typer) -> None:
    """Add the verbs of this file to the command line."""
    parent.add_typer(app, name="sessions")


@app.command("list")
def list_sessions(history: History = None, as_json: Json = False) -> None:
    """List past sessions, newest first.

    Example: tamulag sessions list
    """
    from ..storage.history_view import item, row

    with _opened(history) as store:
        found = store.sessions()
    if as_json:
        print(json.dumps({"sessions": [item(past) for past in found]}))
        return
    for past in found:
        name, started, length, mean, who, reason = row(past)
        print(f"{name}  {started}  {length:>7}  {mean:>5}  {reason:8}  {who}".rstrip())
    if not found:
        print("no session yet")


@app.command()
def show(session: Session, history: History = None) -> None:
    """Show a session as it was told on the terminal.

    Example: tamulag sessions show 3b01ac80
    """
    from ..storage.history_view import told

    with _opened(history) as store:
        for text in told(store.session(session), store.messages(session)):
            print(text)


@app.command()
def export(
    session: Session,
    form: Annotated[
        Literal["csv", "parquet", "jsonl", "emotionml"],
        typer.Option("--format", help="jsonl: every message; the others: the scores."),
    ] = "csv",
    out: Annotated[str, typer.Option(help="File, not yet there, or `-`.")] = "-",
    history: History = None,
) -> None:
    """Write a session as CSV, Parquet, JSON lines or EmotionML.

    Example: tamulag sessions export 3b01ac80 --format parquet --out scores.parquet
    """
    from ..storage.history_export import write

    with _opened(history) as store:
        past, lines = store.session(session), store.messages(session)
        if out != "-":
            try:
                with Path(out).open("xb") as file:
                    write(form, past, lines, file)
            except OSError as error:
                raise typer.BadParameter(
                    f"--out {out}: {error.strerror}: name a new file"
                ) from None
        elif form == "parquet" and sys.stdout.isatty():
            raise typer.BadParameter("parquet is not for reading: name a file with --out")
        else:
            write(form, past, lines, sys.stdout.buffer)
            sys.stdout.buffer.flush()


@app.command()
def delete(
    sessions: Annotated[list[str], typer.Argument(metavar="ID...", help="One or several.")],
    history: History = None,
) -> None:
    """Delete sessions for good; their words are overwritten.

    Example: tamulag sessions delete 3b01ac80
    """
    with _opened(history) as store:
        for session in sessions:
            store.delete(session)
            print(f"{session} is deleted")


def _opened(history: Path | None) -> "Store":
    from ..storage.history_db import Store, default_path

    return Store(history or default_path())
