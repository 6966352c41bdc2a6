"""The verb that compares ways to fuse by what people say: `tamulag bench fusion`.

Knows its options and its output. Parts are imported only when it runs.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Annotated

import typer

from tamulag.models.nn.constants import MODALITIES

from .bench import plain, table, within
from .data import Json, quiet_threads

if TYPE_CHECKING:
    from tamulag.models.bench.fusion_comparison import FusionScore, Siding, Split


def register(bench_app: typer.Typer) -> None:
    """Add the verb of this file to `tamulag bench`."""
    bench_app.command("fusion")(bench_fusion)


def bench_fusion(
    judgements: Annotated[
        Path, typer.Option(help="CSV with text,label,label_T,label_A,label_V in [-1, 1]: CH-SIMS.")
    ],
    checkpoint: Annotated[str, typer.Option(help="Name or .safetensors file.")] = "default",
    config: Annotated[Path, typer.Option(help="The training file that made it.")] = Path(
        "configs/train/default.toml"
    ),
    texts: Annotated[
        list[Path] | None,
        typer.Option(help="CSV of texts, instead of those the file validates on; several times."),
    ] = None,
    votes: Annotated[
        Path | None, typer.Option(help="CREMA-D's tabulatedVotes.csv: what people do.")
    ] = None,
    triples: Annotated[int, typer.Option(min=100, help="In each half of the people.")] = 4000,
    splits: Annotated[
        int, typer.Option(min=0, help="Random halves in each of which shares are fitted.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn.")] = 1,
    as_json: Json = False,
) -> None:
    """Compare what ships with other ways to fuse, by how people judge words, voice and face.

    Clips that no head was trained on are put together so that their labels come together as
    people's labels of one clip do; the target is people's law on them. Beside each figure stands
    the central 95 % over resampled people. `less`: how much lower MAE is than that of what ships;
    `more`: how much higher Corr.

    Example: tamulag bench fusion --judgements data/sims/train.csv
    """
    quiet_threads()
    import numpy as np

    from tamulag.models.bench.crema_votes import read_votes
    from tamulag.models.bench.fusion_comparison import compare
    from tamulag.models.bench.judgement import judgements as read_judgements
    from tamulag.models.bench.triples import open_held

    people = read_judgements(judgements)
    known = read_votes(votes) if votes else None
    held = open_held(checkpoint, config, texts or [])
    found = compare(
        held, people, known, np.random.default_rng(seed), triples=triples, splits=splits
    )
    weighing = known.weighing() if known else None
    if as_json:
        report = {
            "law": people.law._asdict(),
            "people": weighing and weighing._asdict(),
            "fitted": dict(zip(MODALITIES, found.shares, strict=True)),
            "rows": [_row(row) for row in found.scores],
            "sidings": [_row(row) for row in found.sidings],
            "splits": [row._asdict() for row in found.splits],
        }
        print(json.dumps(plain(report)))
        return
    law = people.law
    _print([{**dict(zip(MODALITIES, law.weights, strict=True)), "Corr": law.fit, "n": law.clips}])
    _print(_cells(row) for row in found.scores)
    if weighing:
        _print([weighing._asdict()])
        _print(_cells(row) for row in found.sidings)
    _print([dict(zip(MODALITIES, found.shares, strict=True))])
    _print(_over(found.splits))


def _row(row: "FusionScore | Siding") -> dict[str, object]:
    """Return a row for JSON: figures as value, low and high."""
    named = {key: figure._asdict() for key, figure in row.figures.items()}
    return {**row._asdict(), "figures": named}


def _cells(row: "FusionScore | Siding") -> dict[str, object]:
    cells: dict[str, object] = {**row._asdict()}
    del cells["figures"]
    return cells | {key: within(*figure) for key, figure in row.figures.items()}


def _over(splits: "Sequence[Split]") -> list[dict[str, object]]:
    """Return the rows of shares, and of gains per set: mean and deviation over the splits."""
    columns: dict[str, list[float]] = {}
    for split in splits:
        for name, share in zip(MODALITIES, split.shares, strict=True):
            columns.setdefault(f"share of {name}", []).append(share)
        for present in split.less:
            columns.setdefault(f"less MAE, {present}", []).append(split.less[present])
            columns.setdefault(f"more Corr, {present}", []).append(split.more[present])
    return [
        {"of splits": name, "mean": fmean(values), "deviation": pstdev(values)}
        for name, values in columns.items()
    ]


def _print(rows: Iterable[dict[str, object]]) -> None:
    table(rows)
    print()
