"""The verb that measures how sure the heads are: `tamulag bench scales`.

Knows its options and its output. Parts are imported only when it runs.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from .bench import plain, table
from .data import Json, quiet_threads


def register(bench_app: typer.Typer) -> None:
    """Add the verb of this file to `tamulag bench`."""
    bench_app.command("scales")(bench_scales)


def bench_scales(
    checkpoint: Annotated[str, typer.Option(help="Name or .safetensors file.")] = "default",
    config: Annotated[Path, typer.Option(help="The training file that made it.")] = Path(
        "configs/train/default.toml"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the beginnings and the pairings.")] = 1,
    as_json: Json = False,
) -> None:
    """Compare the scale of each head with one half width per level, on held-out people.

    Negative log-likelihood of the errors by Laplace's, Student's and the normal density, median
    half width of the 90 % interval and the share of labels inside; then clips of strangers with
    nearly equal labels, weighed by fixed shares and by shares / (1 + scale^2).

    Example: tamulag bench scales --config configs/train/default.toml
    """
    quiet_threads()
    import numpy as np

    from tamulag.models.bench.scale_comparison import compare, open_held_out

    rng = np.random.default_rng(seed)
    rows, pairs = compare(open_held_out(checkpoint, config, rng), rng)
    if as_json:
        found = {"rows": [r._asdict() for r in rows], "pairs": [p._asdict() for p in pairs]}
        print(json.dumps(plain(found)))
        return
    table(row._asdict() for row in rows)
    print()
    table(pair._asdict() for pair in pairs)
