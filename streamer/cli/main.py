"""The command line: `tamulag VERB`, and `tamulag-stream` for `tamulag stream`.

Knows verbs, options and exit codes: 0 done, 1 failed, 2 wrong use. Parts are imported only by the
verb that needs them, so that `--help` is quick.
"""

import gc
import json
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import TamulagError
from . import (
    bench,
    bench_clock,
    bench_fusion,
    bench_labels,
    bench_live,
    bench_scales,
    bench_stream,
    bench_validity,
    data,
    export,
    extract,
    replay_verify,
    serve,
    sessions,
    train,
)
from .data import Json, quiet_threads
from .replay_verify import address
from .standard_streams import make_usable

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="tamulag",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
stream_app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
models_app = typer.Typer(help="Pretrained parts: list what is here, fetch what is not.")
app.add_typer(models_app, name="models")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(metadata.version("tamulag-stream"))
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_show_version, is_eager=True, help="Print it, and end."),
]


@app.callback()
def tamulag(version: Version = False) -> None:
    """Live sentiment from face, voice and words."""


@stream_app.command()
@app.command()
def stream(
    camera: Annotated[str | None, typer.Option(help="Index or URL of a camera, or `none`.")] = None,
    microphone: Annotated[
        str | None,
        typer.Option(help="Name or index, `default` or `none`; with --camera: default."),
    ] = None,
    source: Annotated[str | None, typer.Option(help="Media file or URL, instead.")] = None,
    ingest: Annotated[
        bool | None, typer.Option("--ingest", help="A page sends: /capture on the WebSocket port.")
    ] = None,
    asr: Annotated[str | None, typer.Option(help="auto, vosk, moonshine or none.")] = None,
    asr_model: Annotated[str | None, typer.Option(help="Folder of a Vosk model.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Name or .safetensors file.")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, torch or onnxruntime.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="File of `tamulag export`.")] = None,
    websocket: Annotated[
        str | None, typer.Option(help="HOST:PORT, or `none`. Default: 127.0.0.1:8765.")
    ] = None,
    mqtt: Annotated[str | None, typer.Option(help="Broker, mqtt://HOST[:PORT].")] = None,
    jsonl: Annotated[str | None, typer.Option(help="File for JSON lines, or `-`.")] = None,
    record: Annotated[str | None, typer.Option(help="Folder for a recording.")] = None,
    history: Annotated[
        bool | None, typer.Option("--history", help="Keep the session: `tamulag sessions`.")
    ] = None,
    privacy: Annotated[
        str | None, typer.Option(help="none, or strict: no word leaves the program.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file; options win over it.")] = None,
    speed: Annotated[str | None, typer.Option(help="Of a file: 1 or max.")] = None,
    loop: Annotated[bool | None, typer.Option("--loop", help="Play the file for ever.")] = None,
    duration: Annotated[float | None, typer.Option(help="Seconds of stream time.")] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="A portrait and a voice, nothing else.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
    log: Annotated[str | None, typer.Option(help="Form of the log: text or json.")] = None,
    wait: Annotated[
        bool | None, typer.Option("--wait", help="Join devices and broker when they come.")
    ] = None,
    version: Version = False,
) -> None:
    """Score live input and send the results out.

    Example: tamulag-stream --camera 0 --mqtt mqtt://localhost
    """
    quiet_threads()
    from .run_stream import run_stream

    if camera not in (None, "none") and microphone is None and config is None:
        microphone = "default"
    chosen: dict[str, object] = {
        "camera.device": camera,
        "microphone.device": microphone,
        "source.path": source,
        "source.speed": speed,
        "source.loop": loop,
        "ingest.enabled": ingest,
        "asr.engine": asr,
        "asr.model": asr_model,
        "model.checkpoint": checkpoint,
        "model.engine": engine,
        "model.onnx": None if onnx is None else str(onnx),
        "mqtt.url": mqtt,
        "jsonl.path": jsonl,
        "record.path": record,
        "history.enabled": history,
        "session.privacy": privacy,
        "session.duration": duration,
        "log.format": log,
        "session.wait": wait,
    }
    overrides = {key: value for key, value in chosen.items() if value is not None}
    # The kind of input that is named here replaces the other kind in a file.
    devices: dict[str, object] = {"camera.device": None, "microphone.device": None}
    if ingest:
        overrides = devices | {"source.path": None} | overrides
    elif source is not None or demo:
        overrides = devices | {"ingest.enabled": False} | overrides
    elif {camera, microphone} - {None, "none"}:
        overrides |= {"source.path": None, "ingest.enabled": False}
    if camera == "none":
        overrides["camera.device"] = None
    raise typer.Exit(run_stream(config, overrides | address(websocket), demo=demo, verbose=verbose))


@app.command()
def devices(as_json: Json = False) -> None:
    """List cameras and microphones.

    Example: tamulag devices
    """
    from . import doctor as look

    found = look.devices()
    if as_json:
        rows = [look.to_dict(device) for device in (*found.cameras, *found.microphones)]
        print(json.dumps({"devices": rows, "notes": list(found.notes)}))
    else:
        look.print_devices(_console(), found)


@app.command()
def doctor(
    capture: Annotated[
        bool, typer.Option("--capture", help="Also try each device for three seconds.")
    ] = False,
    camera: Annotated[str | None, typer.Option(help="Try this one: index or URL.")] = None,
    microphone: Annotated[
        str | None, typer.Option(help="Try this one: name, index or `default`.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file: check its port and its broker.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check everything that a run needs; exit code 1 if something required is not there.

    Example: tamulag doctor --capture
    """
    quiet_threads()
    from ..config.loader import load
    from . import doctor as look

    checks = look.doctor(load(config, {}))
    if camera is not None or microphone is not None:
        from .device_check import try_camera, try_microphone

        checks += [] if camera is None else [try_camera(camera)]
        chosen = None if microphone == "default" else microphone
        checks += [] if microphone is None else [try_microphone(chosen)]
    elif capture:
        from .device_check import trials

        found = look.devices()
        checks += trials([*found.cameras, *found.microphones])
    if as_json:
        print(json.dumps({"checks": [look.to_dict(check) for check in checks]}))
    else:
        look.print_doctor(_console(), checks)
    raise typer.Exit(0 if all(check.ok or not check.required for check in checks) else 1)


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, as_json: Json = False) -> None:
    """List pretrained parts: installed, missing or damaged.

    Example: tamulag models
    """
    if context.invoked_subcommand is not None:
        return
    from ..features import pretrained
    from . import doctor as look

    states = pretrained.inventory()
    if as_json:
        print(json.dumps({"models": [look.to_dict(state) for state in states]}))
    else:
        look.print_models(_console(), states)


@models_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="E.g. vosk-model-small-en-us-0.15.")],
    sha256: Annotated[str | None, typer.Option(help="Checksum that the zip must have.")] = None,
    url: Annotated[str | None, typer.Option(help="Where NAME.zip lies.")] = None,
) -> None:
    """Fetch a Vosk model from its publisher, or the text encoder of `large`, with its checksum.

    Example: tamulag models fetch vosk-model-small-en-us-0.15
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from ..features.download import VOSK_URL
    from ..features.download import fetch as download
    from ..features.pretrained import asset, recorded

    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)

        def show(received: int, total: int) -> None:
            bar.update(task, completed=received, total=total or None)

        folder = download(name, base_url=url or VOSK_URL, sha256=sha256, progress=show)
    print(folder)
    if not asset(name).is_joined:
        print(f"sha256 of the zip: {recorded(name).get(f'{name}.zip', 'not recorded')}")


@app.command()
def schema(
    asyncapi: Annotated[
        bool, typer.Option("--asyncapi", help="As AsyncAPI 3, with what may be sent to us.")
    ] = False,
) -> None:
    """Print the JSON Schema of every message.

    Example: tamulag schema > schema.json
    """
    if asyncapi:
        from ..protocol.asyncapi import document as build
    else:
        from ..protocol.messages import schema as build

    print(json.dumps(build(), indent=2))


data.register(app)
extract.register(app)
replay_verify.register(app)
sessions.register(app)
train.register(app)
export.register(app)
serve.register(app, bench.bench_app)
bench.register(app)
bench_clock.register(bench.bench_app)
bench_fusion.register(bench.bench_app)
bench_labels.register(bench.bench_app)
bench_live.register(bench.bench_app)
bench_scales.register(bench.bench_app)
bench_validity.register(bench.bench_app)
bench_stream.register(bench.bench_app)


def _console() -> "Console":
    """Return the terminal; in a pipe lines are wide enough not to be folded."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 240)


def _run(program: str, command: Callable[[], object]) -> int:
    try:
        command()
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    except TamulagError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    finally:
        # Else the interpreter looks through every object of torch once more before it ends:
        # seconds on a busy machine, for nothing.
        gc.freeze()
    return 0


def main() -> int:
    """Run `tamulag`."""
    make_usable()
    return _run("tamulag", app)


def stream_main() -> int:
    """Run `tamulag-stream`, which is `tamulag stream`."""
    make_usable()
    return _run("tamulag-stream", stream_app)
