"""The verbs of many sessions: `tamulag serve` and `tamulag bench serve`.

Knows their options. Parts are imported only when they run.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from .bench import table
from .data import Json, quiet_threads
from .replay_verify import address

SIZES = (4, 16, 64, 256)
"""Sessions in a step, for the comparison with one by one."""


def register(app: typer.Typer, bench_app: typer.Typer) -> None:
    """Add the verbs of this file to the command line and to `tamulag bench`."""
    app.command("serve")(serve)
    bench_app.command("serve")(bench_serve)


def serve(
    websocket: Annotated[
        str | None, typer.Option(help="HOST:PORT. Default: 127.0.0.1:8765.")
    ] = None,
    seats: Annotated[int | None, typer.Option(help="Sessions at most.")] = None,
    busiest: Annotated[
        float | None, typer.Option(help="Load above which no session is admitted.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes for sound and pictures; 0: features only.")
    ] = None,
    handover: Annotated[
        str | None, typer.Option(help="Folder in which sessions wait for the next server.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="Sessions on a Ray: local, or HOST:PORT of a cluster.")
    ] = None,
    actors: Annotated[
        str | None, typer.Option(help="On how many of its processors: N or N..M.")
    ] = None,
    mqtt: Annotated[str | None, typer.Option(help="Broker, mqtt://HOST[:PORT].")] = None,
    jsonl: Annotated[str | None, typer.Option(help="File for JSON lines, or `-`.")] = None,
    record: Annotated[
        str | None, typer.Option(help="Folder for a recording of each session.")
    ] = None,
    history: Annotated[
        bool | None, typer.Option("--history", help="Keep each session: `tamulag sessions`.")
    ] = None,
    asr: Annotated[str | None, typer.Option(help="auto, vosk, moonshine or none.")] = None,
    asr_model: Annotated[str | None, typer.Option(help="Folder of a Vosk model.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Name or .safetensors file.")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, torch or onnxruntime.")] = None,
    onnx: Annotated[str | None, typer.Option(help="What `tamulag export` wrote.")] = None,
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
    from .run_serve import run_serve as run

    chosen: dict[str, object] = {
        "serve.seats": seats,
        "serve.workers": workers,
        "serve.busiest": busiest,
        "serve.handover": handover,
        "serve.ray": ray,
        "mqtt.url": mqtt,
        "jsonl.path": jsonl,
        "record.path": record,
        "history.enabled": history,
        "asr.engine": asr,
        "asr.model": asr_model,
        "model.checkpoint": checkpoint,
        "model.engine": engine,
        "model.onnx": onnx,
        "session.privacy": privacy,
        "log.format": log,
    }
    overrides = {key: value for key, value in chosen.items() if value is not None}
    overrides |= address(websocket) | _actors(actors)
    raise typer.Exit(run(config, overrides, verbose=verbose))


def _actors(chosen: str | None) -> dict[str, object]:
    """Read `N` or `N..M`; what is no number is left for the settings to refuse."""
    if chosen is None:
        return {}
    least, _, most = chosen.partition("..")
    numbers = [int(one) if one.isdecimal() else one for one in (least, most or least)]
    return dict(zip(("serve.min_actors", "serve.max_actors"), numbers, strict=True))


def bench_serve(
    sessions: Annotated[int, typer.Option(min=1, max=5000, help="Senders that come.")] = 1000,
    seconds: Annotated[float, typer.Option(min=6, max=600, help="That each sends.")] = 20.0,
    senders: Annotated[int, typer.Option(min=1, max=16, help="Processes of senders.")] = 1,
    busiest: Annotated[
        float | None, typer.Option(help="Of the server: see `tamulag serve`.")
    ] = None,
    ray: Annotated[str | None, typer.Option(help="Of the server: see `tamulag serve`.")] = None,
    actors: Annotated[str | None, typer.Option(help="Of the server, with --ray.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Folder for the picture.")] = None,
    as_json: Json = False,
) -> None:
    """Measure how many senders of features one server carries in real time. Linux only.

    First a step of many sessions against one by one; then a real server, with senders in other
    processes on the loopback that come within a few seconds. Refused senders do not count.

    Example: tamulag bench serve --sessions 500
    """
    quiet_threads()
    from tamulag.models.bench.step_cost import machine

    from ..bench.server_capacity import batched, capacity
    from ..service import malloc

    malloc.disable_trim()
    best = machine()
    steps = [batched(size) for size in SIZES]
    print(f"{sessions} senders come to a server", file=sys.stderr)
    chosen = {"--busiest": busiest, "--ray": ray, "--actors": actors}
    options = [part for name, value in chosen.items() if value for part in (name, str(value))]
    found = capacity(sessions, seconds, senders=senders, options=tuple(options))
    if plot is not None:
        from ..bench.charts import draw_steps

        print("drawn:", draw_steps(steps, plot), file=sys.stderr)
    report = {
        "machine": best._asdict(),
        **found._asdict(),
        "batched_speedup": steps[-1].speedup,
        "rows": [step._asdict() for step in steps],
    }
    if as_json:
        print(json.dumps(report))
        return
    table([best._asdict()])
    print()
    table(step._asdict() for step in steps)
    print()
    for name, value in found._asdict().items():
        print(f"{name:15} {value}")
