"""The verbs that measure: `tamulag bench ...`.

Knows their options and their output. Each verb imports the parts that it needs.
"""

import json
import math
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..aio.shutdown import end_with_parent
from .data import Json, bar, quiet_threads

if TYPE_CHECKING:
    from ..bench.drift import Drift

bench_app = typer.Typer(help="Measure speed, memory and what the method promises.")


@bench_app.callback()
def _end_in_order() -> None:
    """End by SIGTERM as by Ctrl-C: what was started for the measurement ends too."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the command line."""
    bench_app.command("train")(bench_train)
    bench_app.command("text")(bench_text)
    bench_app.command("long")(bench_long)
    bench_app.command("fanout")(bench_fanout)
    bench_app.command("faults")(bench_faults)
    bench_app.command("soak")(bench_soak)
    bench_app.command("cluster")(bench_cluster)
    app.add_typer(bench_app, name="bench")


def bench_train(
    equal: Annotated[bool, typer.Option("--equal", help="Same maths, trimmed and sorted.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="And bfloat16 autocast.")] = False,
    like_framework: Annotated[
        bool, typer.Option("--like-framework", help="Padded to the full lengths, not sorted.")
    ] = False,
    samples: Annotated[int, typer.Option(min=1, help="Training clips.")] = 1284,
    epochs: Annotated[int, typer.Option(min=1, help="Of which the fastest counts.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="0 = one per core.")] = 0,
    as_json: Json = False,
) -> None:
    """Measure the paper preset on a synthetic file of MOSI's exact shapes; default: all variants.

    The figures on top are those of the fastest variant that was asked for.

    Example: tamulag bench train --json
    """
    quiet_threads()
    from tamulag.models.bench.step_cost import machine
    from tamulag.models.bench.training_speed import Variant, bench

    asked: dict[Variant, bool] = {"padded": like_framework, "equal": equal, "fast": fast}
    variants = [name for name, chosen in asked.items() if chosen] or list(asked)

    def log(text: str) -> None:
        print(text, file=sys.stderr if as_json else sys.stdout)

    size = {"samples": samples, "epochs": epochs, "threads": threads}
    rows = bench(variants, log, **size, begin=end_with_parent)
    best = min(rows, key=lambda row: row.seconds_per_epoch)
    ratios = {
        f"ratio_{row.variant}": rows[0].seconds_per_epoch / row.seconds_per_epoch
        for row in rows
        if rows[0].variant == "padded"
    }
    where = machine()._asdict() | {"threads": threads or os.cpu_count()}
    report = {
        "preset": "paper-mosi",
        "samples": samples,
        "seconds_per_epoch": best.seconds_per_epoch,
        "peak_rss_mb": best.peak_rss_mb,
        **ratios,
        "rows": [row._asdict() for row in rows],
        "machine": where,
    }
    if as_json:
        print(json.dumps(report))
    else:
        table([where])
        for name, ratio in ratios.items():
            print(f"{name} {ratio:.2f}")


def bench_text(
    checkpoint: Annotated[str, typer.Option(help="Name or .safetensors file.")] = "default",
    updates: Annotated[int, typer.Option(min=1, help="Timed per length.")] = 100,
    as_json: Json = False,
) -> None:
    """Time how long new words take on one thread: encoder and text branch, milliseconds.

    Example: tamulag bench text --checkpoint zh
    """
    quiet_threads()
    from tamulag.models.bench.text_latency import text_updates

    rows = [row._asdict() for row in text_updates(checkpoint, updates=updates)]
    if as_json:
        print(json.dumps({"checkpoint": checkpoint, "updates": updates, "rows": rows}))
    else:
        table(rows)


def bench_long(
    data: Annotated[list[Path], typer.Option(help="Media file; may be given several times.")],
    checkpoint: Annotated[str, typer.Option(help="Name or .safetensors file.")] = "default",
    duration: Annotated[float, typer.Option(min=180, help="Seconds of stream time.")] = 3600.0,
    as_json: Json = False,
) -> None:
    """Loop clips for an hour of stream time: is the score still that of the first minute?

    A clip goes through the live front end once, and what it gives through one session again and
    again. Exit code 1 if a score of voice or face differs by more than 0.1 on average.

    Example: tamulag bench long --data clip.mp4
    """
    quiet_threads()
    from ..bench.drift import MAX_DRIFT

    rows, broken = list[dict[str, object]](), False
    for path in data:
        found = _hour(path, checkpoint, duration)
        rows += [{"file": path.name, **drift._asdict()} for drift in found]
        means = ", ".join(f"{drift.modality} {drift.mean:.4f}" for drift in found)
        print(f"{path.name}: mean distance {means}", file=sys.stderr)
        broken |= any(d.mean > MAX_DRIFT for d in found if d.modality != "sentiment")
    if as_json:
        print(json.dumps({"law": MAX_DRIFT, "broken": broken, "rows": rows}))
    else:
        table(rows)
    raise typer.Exit(1 if broken else 0)


def _hour(path: Path, checkpoint: str, duration: float) -> "list[Drift]":
    from tamulag.models.runtime.checkpoint import load
    from tamulag.models.runtime.torch_engine import TorchEngine

    from ..bench.drift import drifts, loop_of, stream
    from ..core.estimate import Timing
    from ..core.session import Session
    from ..offline.extract import play

    timing = Timing()
    model, card = load(checkpoint)
    loop = loop_of(play(path), timing.hop)
    session = Session(
        TorchEngine(model), card, {sample.modality for sample in loop.samples}, timing
    )
    with bar(path.name, round(duration)) as progress:
        estimates = stream(session, loop, duration, progress)
    return drifts(estimates, loop.period, timing)


def plain(value: object) -> object:
    """Return a value for JSON, which has no nan."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def within(value: float, low: float, high: float) -> str:
    """Return a figure with its interval for people; nan is what is unknown."""
    if math.isnan(value):
        return "-"
    return f"{value:.3f}" if math.isnan(low) else f"{value:.3f} [{low:.2f}, {high:.2f}]"


def table(rows: Iterable[Mapping[str, object]]) -> None:
    """Print rows of the same keys as a table in Markdown."""
    for number, row in enumerate(rows):
        if not number:
            print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
        cells = (f"{x:.3f}" if isinstance(x, float) else str(x) for x in row.values())
        print(f"| {' | '.join(cells)} |")


def bench_fanout(
    subscribers: Annotated[int, typer.Option(min=1, max=5000)] = 1000,
    stalled: Annotated[int, typer.Option(min=0, max=100, help="Who never read.")] = 10,
    seconds: Annotated[float, typer.Option(min=1, max=600)] = 10.0,
    as_json: Json = False,
) -> None:
    """Measure the WebSocket server with subscribers in processes of their own, on the loopback.

    Example: tamulag bench fanout --subscribers 200 --stalled 1
    """
    import asyncio

    from tamulag.models.bench.step_cost import machine

    from ..bench.websocket_fanout import fanout

    found, where = asyncio.run(fanout(subscribers, stalled, seconds=seconds)), machine()._asdict()
    if as_json:
        print(json.dumps(found._asdict() | {"machine": where}))
        return
    table([where])
    gone = found.stalled_gone_s
    print(f"received {found.received} of {found.expected}, {found.cpu:.3f} of a core")
    print(f"p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms")
    if stalled:
        print("stalled: not all gone" if gone is None else f"stalled: gone after {gone:.1f} s")


def bench_faults(
    only: Annotated[list[str] | None, typer.Option(help="Name of a row; may be repeated.")] = None,
    step_clock: Annotated[
        bool, typer.Option("--step-clock", help="Set this machine's clock for 2 s; needs root.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Inject faults into a running agent: how soon does it report them, how soon does it recover?

    For real, on the loopback: broker, camera, microphone, subscribers, disk, signals. Takes about
    three minutes. What needs a command that is missing is skipped, with the reason.

    Example: tamulag bench faults --only "kill -9"
    """
    from ..app.build_agent import demo_files
    from ..bench.faults import ALL, Row, faults

    unknown = set(only or ()) - set(ALL)
    if unknown:
        raise typer.BadParameter(
            f"{', '.join(sorted(unknown))}: choose of {', '.join(map(repr, ALL))}"
        )

    def tell(row: Row) -> None:
        print(f"{row.fault}: {row.status}", file=sys.stderr)

    files = demo_files()
    rows = [row._asdict() for row in faults(*files, tell, only=only or (), steps_clock=step_clock)]
    if as_json:
        print(json.dumps({"rows": rows}))
    else:
        table({k: "-" if v is None else v for k, v in row.items()} for row in rows)


def bench_soak(
    minutes: Annotated[float, typer.Option(min=0.2, max=1440)] = 10.0,
    source: Annotated[
        Path | None, typer.Option(help="Clip with face and voice. Default: those of --demo.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Stream a clip for minutes, words on, to 50 subscribers: memory, delays, drops. Linux only.

    Example: tamulag bench soak --minutes 10
    """
    from ..bench.soak import soak

    options = ["--loop"] + (["--demo"] if source is None else ["--source", str(source)])
    found = soak(options, minutes, partial(print, file=sys.stderr))
    if as_json:
        print(json.dumps(plain(found._asdict())))
        return
    for name, value in found._asdict().items():
        print(f"{name:15} {value}")


def bench_cluster(
    sessions: Annotated[int, typer.Option(min=2, max=2000, help="That send features.")] = 200,
    seconds: Annotated[float, typer.Option(min=6, max=600, help="That each sends.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Kill one of two Ray nodes under many sessions: which recover, how soon, what is lost.

    The nodes are processes of this machine that listen on 127.0.0.1 alone; a third one is started
    after the kill. Needs the extra `ray`; Linux only.

    Example: tamulag bench cluster --sessions 200 --json
    """
    quiet_threads()
    from ..cluster.ray_runtime import REMEDY, is_installed

    if not is_installed():
        print(f"tamulag: bench cluster needs Ray: {REMEDY}", file=sys.stderr)
        raise typer.Exit(1)
    from ..bench.node_failure import node_failure

    found = node_failure(sessions, seconds, partial(print, file=sys.stderr))
    if as_json:
        print(json.dumps(found._asdict()))
        return
    for name, value in found._asdict().items():
        print(f"{name:13} {value:.4g}" if isinstance(value, float) else f"{name:13} {value}")
