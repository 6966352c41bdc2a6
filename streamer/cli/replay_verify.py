"""The verbs of recordings and comparison: replay, verify.

Knows their options and their output. Each verb imports the parts that it needs.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .data import Json, quiet_threads

if TYPE_CHECKING:
    from ..config.loader import Config
    from ..offline.verify import Comparison

Checkpoint = Annotated[
    str | None,
    typer.Option(help="Name or .safetensors file. Of a recording: instead of the recorded one."),
]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the command line."""
    for verb in (replay, verify):
        app.command()(verb)


def replay(
    recording: Annotated[Path, typer.Argument(help="Folder that --record wrote.")],
    speed: Annotated[Literal["1", "max"] | None, typer.Option(help="1 or max. Default: 1.")] = None,
    checkpoint: Checkpoint = None,
    websocket: Annotated[str | None, typer.Option(help="HOST:PORT, or `none`.")] = None,
    mqtt: Annotated[str | None, typer.Option(help="Broker, mqtt://HOST[:PORT].")] = None,
    jsonl: Annotated[str | None, typer.Option(help="File for JSON lines, or `-`.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file: source.speed, websocket, mqtt, jsonl.")
    ] = None,
) -> None:
    """Replay a recording: the scores are computed again, equal to the bit.

    Example: tamulag replay recordings/20261124-101500-3b01ac80 --speed max --jsonl -
    """
    quiet_threads()
    from .run_replay import run_replay

    chosen = {"source.speed": speed, "mqtt.url": mqtt, "jsonl.path": jsonl}
    overrides: dict[str, object] = {key: v for key, v in chosen.items() if v is not None}
    # A live agent on the same machine has the usual port.
    if websocket is None and config is None:
        overrides["websocket.enabled"] = False
    raise typer.Exit(run_replay(recording, checkpoint, config, overrides | address(websocket)))


def verify(
    target: Annotated[Path, typer.Argument(help="Media file, or folder that --record wrote.")],
    checkpoint: Checkpoint = None,
    asr: Annotated[
        Literal["auto", "vosk", "moonshine", "none"],
        typer.Option(help="Of a file: recogniser; it runs once, for both ways."),
    ] = "auto",
    asr_model: Annotated[str | None, typer.Option(help="Folder of a Vosk model.")] = None,
    as_json: Json = False,
) -> None:
    """Compare live with offline (a file) or recorded with replayed; exit code 1 above 1e-5.

    Example: tamulag verify talk.mp4 --json
    """
    quiet_threads()
    from ..offline import verify as compare

    if target.is_dir():
        from .run_replay import newest

        found = compare.verify_recording(newest(target).folder, checkpoint)
    else:
        found = compare.verify_file(target, _live_config(target, checkpoint, asr, asr_model))
    _show(found, as_json)
    raise typer.Exit(0 if found.max_abs_diff <= compare.TOLERANCE else 1)


def address(websocket: str | None) -> dict[str, object]:
    """Return the settings of `--websocket`.

    Raises:
        typer.BadParameter: If it is not HOST:PORT or `none`.
    """
    if websocket is None:
        return {}
    if websocket == "none":
        return {"websocket.enabled": False}
    host, colon, port = websocket.rpartition(":")
    if not (colon and host and port.isdecimal()):
        raise typer.BadParameter(f"--websocket {websocket!r}: must be HOST:PORT or none")
    return {
        "websocket.enabled": True,
        "websocket.host": host.strip("[]"),
        "websocket.port": int(port),
    }


def _live_config(file: Path, checkpoint: str | None, asr: str, asr_model: str | None) -> "Config":
    """Return the settings that play a file through the live path without outputs."""
    from ..config.loader import load

    return load(
        None,
        {
            "source.path": str(file),
            "source.speed": "max",
            "asr.engine": asr,
            "asr.model": asr_model,
            "model.checkpoint": checkpoint or "default",
            "websocket.enabled": False,
        },
    )


def _show(found: "Comparison", as_json: bool) -> None:
    if as_json:
        print(json.dumps({"max_abs_diff": found.max_abs_diff, "hops": found.hops}))
        return
    for name, difference in found.differences.items():
        print(f"{name:12} {difference:.3g}")
    print(f"{'max_abs_diff':12} {found.max_abs_diff:.3g} over {found.hops} hops")
