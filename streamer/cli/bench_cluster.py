"""The verb `tamulag bench cluster`.

Knows its options. Parts are imported only when it runs.
"""

import json
import sys
from functools import partial
from typing import Annotated

import typer

from .data import Json, quiet_threads


def register(bench_app: typer.Typer) -> None:
    """Add the verb to `tamulag bench`."""
    bench_app.command("cluster")(bench_cluster)


def bench_cluster(
    sessions: Annotated[int, typer.Option(min=2, max=2000, help="That send features.")] = 200,
    seconds: Annotated[float, typer.Option(min=6, max=600, help="That each sends.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Kill one of two Ray nodes under many sessions: who goes on, after how long, what is lost.

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
