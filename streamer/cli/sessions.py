"""The verbs of the history: sessions list, show, export, delete.

Knows their options and their output. Each verb imports the parts that it needs.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..config.secret_file import owner_only
from .data import Json

if TYPE_CHECKING:
    from ..storage.history_db import HistoryDb, PastSession

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
    from ..storage.history import summary

    with _opened(history) as store:
        found = store.sessions()
    if as_json:
        print(json.dumps({"sessions": [summary(past) for past in found]}))
        return
    for past in found:
        name, started, length, mean, who, reason = row(past)
        print(f"{name}  {started}  {length:>7}  {mean:>5}  {reason:8}  {who}".rstrip())
    if not found:
        print("no session yet")


@app.command()
def show(session: Session, history: History = None) -> None:
    """Show a session as the terminal showed it.

    Example: tamulag sessions show 3b01ac80
    """
    with _opened(history) as store:
        for text in transcript(store.session(session), store.messages(session)):
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
                with open(out, "xb", opener=owner_only) as file:
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
    """Delete sessions permanently; their words are overwritten.

    Exit code 1: another program reads the history, so that the words stay on the disk for now.

    Example: tamulag sessions delete 3b01ac80
    """
    from ..storage.history_db import HistoryError

    with _opened(history) as store:
        is_gone = store.delete(*sessions)
        for session in sessions:
            print(f"{session} is deleted")
    if not is_gone:
        raise HistoryError(
            "their words are on the disk still, because another program reads the history: end "
            "it, then run `tamulag sessions list`, which overwrites them"
        )


def _opened(history: Path | None) -> "HistoryDb":
    from ..storage.history_db import HistoryDb, default_path

    return HistoryDb(history or default_path())


def row(past: "PastSession") -> tuple[str, ...]:
    """Return the cells of a list: name, local start, length, mean, subject, reason of the end."""
    mean = "" if past.mean_sentiment is None else f"{past.mean_sentiment:+.2f}"
    subject = past.hello["subject"]
    who = " ".join(part for part in (subject["role"], subject["id"]) if part)
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(past.started))
    minutes, seconds = divmod(round(past.seconds), 60)
    return past.id, started, f"{minutes}:{seconds:02}", mean, who, past.reason or "no end"


def transcript(past: "PastSession", lines: Iterable[str]) -> Iterator[str]:
    """Yield a session's header and messages as the lines of the terminal."""
    from ..protocol import messages
    from ..publishers.terminal import line

    about = past.hello
    yield f"session {past.id}, {messages.utc(past.started)}: {', '.join(about['sources'])}"
    yield f"version {about['version']}, checkpoint {about['checkpoint']}"
    for payload in lines:
        if text := line(messages.decode(payload)):
            yield text
