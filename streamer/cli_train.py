"""The verbs of training: train, crossval, ablate, plot.

Knows their options and what they print. Parts are imported only by the verb that needs them.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .cli_data import Json, quiet_threads, show

Config = Annotated[Path, typer.Option(help="TOML file, e.g. configs/train/paper-mosi.toml.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the command line."""
    for verb in (train, crossval, ablate, plot):
        app.command()(verb)


def train(
    config: Annotated[Path, typer.Option(help="TOML file, e.g. configs/train/default.toml.")],
    out: Annotated[Path, typer.Option(help="Checkpoint to write, .safetensors.")],
    runs: Annotated[Path, typer.Option(help="Folder for runs of a joint training.")] = Path("runs"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a joint training that was stopped.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(help="Heads to train, e.g. text,sentiment; not of a joint training."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Checkpoint that the other heads are taken from.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train on feature files and write a checkpoint; the same numbers on each run.

    A file with kind = "joint" trains the four tasks of the paper together, with every seed it
    names; any other trains each branch on its own corpus, then the fusion.

    Example: tamulag train --config configs/train/default.toml --out runs/mine.safetensors
    """
    if out.suffix != ".safetensors":
        raise typer.BadParameter(f"--out {out}: give a .safetensors file")
    quiet_threads()
    from tamulag.models.recipe import kind_of

    if kind_of(config) != "joint":
        from tamulag.models.train import STAGES
        from tamulag.models.train import train as train_branches

        chosen = STAGES if only is None else tuple(only.split(","))
        if not set(chosen) <= set(STAGES):
            raise typer.BadParameter(f"--only {only}: must be some of {','.join(STAGES)}")

        def log(text: str) -> None:
            print(text, file=sys.stderr)

        show(train_branches(config, out, log, only=chosen, base=base), as_json)
        return
    from tamulag.models.seeds import train as train_joint

    with told() as (line, tell):
        figures = train_joint(config, out, runs=runs, resume=resume, log=line, tell=tell)
    show(figures, as_json)


def crossval(
    config: Annotated[Path, typer.Option(help="TOML file, e.g. configs/train/default.toml.")],
    head: Annotated[str, typer.Option(help="Head to train: audio, vision or text.")],
    folds: Annotated[int, typer.Option(min=2, help="Parts into which the groups are split.")] = 5,
    as_json: Json = False,
) -> None:
    """Cross-validate one head by groups: actors, speakers or videos; no checkpoint is written.

    Example: tamulag crossval --config configs/train/default.toml --head audio
    """
    quiet_threads()
    from tamulag.models.folds import crossval as run_folds

    report = run_folds(config, head, folds, lambda text: print(text, file=sys.stderr))
    if as_json:
        print(json.dumps(report))
        return
    for key, value in report.items():
        if key != "rows":
            print(key, f"{value:.4f}" if isinstance(value, float) else value)


def ablate(
    config: Config,
    out: Annotated[Path, typer.Option(help="Folder for results.csv, table.md and the cells.")],
) -> None:
    """Train the grid of options in the table [ablate] and write the table.

    Cells that are done are not done again, so that a second run goes on.

    Example: tamulag ablate --config configs/train/paper-mosi.toml --out runs/ablation
    """
    quiet_threads()
    from tamulag.models.ablate import ablate as run_grid

    with told() as (log, tell):
        run_grid(config, out, log=log, tell=tell)
    print((out / "table.md").read_text(encoding="utf-8"), end="")


def plot(
    run: Annotated[Path, typer.Argument(help="Folder of a run, e.g. runs/NAME.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")],
) -> None:
    """Draw training curves, generated labels over the epochs and attention over time.

    Example: tamulag plot runs/paper-mosi --out figures
    """
    from tamulag.models.plot import plot as draw

    for path in draw(run, out):
        print(path)


@contextmanager
def told() -> Iterator[tuple[Callable[[str], None], Callable[[str, int, int], None]]]:
    """Show lines of progress and one bar with the time left, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("read", total=None)
        shown = ""

        def tell(what: str, done: int, total: int) -> None:
            nonlocal shown
            if what != shown:
                shown = what
                progress.reset(task, description=what, total=total)
            progress.update(task, completed=done)

        def log(text: str) -> None:
            progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

        yield log, tell
