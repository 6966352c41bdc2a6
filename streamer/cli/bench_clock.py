"""The verb that measures how well the clocks of sound devices are followed: `tamulag bench clock`.

Knows its options and what it prints. Parts are imported only when it runs.
"""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from .bench import table
from .data import Json


def register(bench_app: typer.Typer) -> None:
    """Add the verb of this file to `tamulag bench`."""
    bench_app.command("clock")(bench_clock)


def bench_clock(
    devices: Annotated[int, typer.Option(min=1, help="Simulated sound devices.")] = 100,
    seconds: Annotated[float, typer.Option(min=3, help="Of sound of each device.")] = 300.0,
    seed: Annotated[int, typer.Option(help="Of drift, jitter and block lengths.")] = 0,
    as_json: Json = False,
) -> None:
    """Place the sound of simulated devices with drift and jitter, and print what is lost or moved.

    Drift is drawn from -300 to 300 ppm, jitter up to 5 ms, and one block in a hundred is late by
    0.3 s. Nothing of the sound is missing, so nothing may be dropped or invented.

    Example: tamulag bench clock --devices 1000 --seconds 3600
    """
    from ..bench.device_clocks import measure

    row = asdict(measure(devices, seconds, seed))
    if as_json:
        print(json.dumps(row))
    else:
        table([row])
