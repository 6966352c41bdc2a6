"""The verb that serves many sessions: `tamulag serve`.

Knows its options. Parts are imported only when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from .cli_data import quiet_threads
from .cli_time import address


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the command line."""
    app.command("serve")(serve)


def serve(
    websocket: Annotated[
        str | None, typer.Option(help="HOST:PORT. Default: 127.0.0.1:8765.")
    ] = None,
    seats: Annotated[int | None, typer.Option(help="Sessions at most.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes for sound and pictures; 0: features only.")
    ] = None,
    handover: Annotated[
        str | None, typer.Option(help="Folder in which sessions wait for the next server.")
    ] = None,
    mqtt: Annotated[str | None, typer.Option(help="Broker, mqtt://HOST[:PORT].")] = None,
    jsonl: Annotated[str | None, typer.Option(help="File for JSON lines, or `-`.")] = None,
    asr: Annotated[str | None, typer.Option(help="auto, vosk, moonshine or none.")] = None,
    asr_model: Annotated[str | None, typer.Option(help="Folder of a Vosk model.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Name or .safetensors file.")] = None,
    privacy: Annotated[
        str | None, typer.Option(help="none, or strict: no word leaves the program.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file; options win over it.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
    log: Annotated[str | None, typer.Option(help="Form of the log: text or json.")] = None,
) -> None:
    """Serve many senders, each with a session of its own.

    Example: tamulag serve --seats 500 --handover sessions
    """
    quiet_threads()
    from .serve import serve as run

    chosen: dict[str, object] = {
        "serve.seats": seats,
        "serve.workers": workers,
        "serve.handover": handover,
        "mqtt.url": mqtt,
        "jsonl.path": jsonl,
        "asr.engine": asr,
        "asr.model": asr_model,
        "model.checkpoint": checkpoint,
        "session.privacy": privacy,
        "log.format": log,
    }
    overrides = {key: value for key, value in chosen.items() if value is not None}
    raise typer.Exit(run(config, overrides | address(websocket), verbose=verbose))
