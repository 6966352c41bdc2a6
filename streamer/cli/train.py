"""The verbs of training: train, crossval, ablate, plot.

Knows their options and what they print. Parts are imported only by the verb that needs them.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from .data import Json, quiet_threads, show

Config = Annotated[Path, typer.Option(help="TOML file, e.g. configs/train/paper-mosi.toml.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the command line."""
    for verb in (train, crossval, ablate, plot):
        app.command()(verb)


def train(
    config: Annotated[Path, typer.Option(help="TOML file, e.g. configs/train/default.toml.")],
    out: Annotated[Path, typer.Option(help="Checkpoint to write, .safetensors.")],
    runs: Annotated[
        Path | None,
        typer.Option(
            help="Folder in which finished epochs are stored for --resume; default: runs."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was stopped.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(help="Heads to train, e.g. text,sentiment; not of a joint training."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Checkpoint of the other heads; not of a joint training."),
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
    from tamulag.models.training.recipe_file import is_joint

    if not is_joint(config):
        figures = _apart(config, out, runs, resume, only, base)
    else:
        _refuse({"--only": only, "--base": base}, f"{config} trains all four tasks together")
        from tamulag.models.training.train_seeds import train as train_joint

        with show_progress() as (log, progress):
            where = runs or Path("runs")
            figures = train_joint(
                config, out, runs=where, resume=resume, log=log, progress=progress
            )
    show(figures, as_json)


def _apart(
    config: Path, out: Path, runs: Path | None, resume: bool, only: str | None, base: str | None
) -> dict[str, float]:
    """Train heads apart; return their figures."""
    from tamulag.models.training.heads_recipe import HeadsRecipe
    from tamulag.models.training.recipe_file import load_recipe
    from tamulag.models.training.train_heads import STAGES, tunes
    from tamulag.models.training.train_heads import train as train_heads

    chosen = STAGES if only is None else tuple(only.split(","))
    if not set(chosen) <= set(STAGES):
        raise typer.BadParameter(f"--only {only}: must be some of {','.join(STAGES)}")
    if not tunes(load_recipe(config, HeadsRecipe), chosen):
        why = "only the training of a table [tune] is stored for --resume, and none is asked for"
        _refuse({"--runs": runs, "--resume": resume or None}, why)
    with show_progress() as (log, progress):
        return train_heads(
            config,
            out,
            log,
            only=chosen,
            base=base,
            progress=progress,
            runs=runs or Path("runs"),
            resume=resume,
        )


def _refuse(options: dict[str, object], why: str) -> None:
    """Refuse options that were given though they do not apply."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise typer.BadParameter(f"{', '.join(given)}: leave it out: {why}")


def crossval(
    config: Annotated[Path, typer.Option(help="TOML file, e.g. configs/train/default.toml.")],
    head: Annotated[str, typer.Option(help="Head to train: audio, vision or text.")],
    folds: Annotated[int, typer.Option(min=2, help="Parts into which they are split.")] = 5,
    by: Annotated[
        Literal["groups", "corpora"],
        typer.Option(help="What is split: people and videos, or whole data sets."),
    ] = "groups",
    as_json: Json = False,
) -> None:
    """Cross-validate one head by groups: actors, speakers or videos; no checkpoint is written.

    With `--by corpora` and as many folds as there are data sets each is left out once; the
    `valid_groups` of the others are held out as well, and measured beside it.

    Example: tamulag crossval --config configs/train/default.toml --head audio
    """
    quiet_threads()
    from tamulag.models.training.cross_validation import crossval as run_folds

    with show_progress() as (log, _):
        report = run_folds(config, head, folds, log, by)
    if as_json:
        print(json.dumps(report))
        return
    for key, value in report.items():
        if not isinstance(value, (dict, list)):
            print(key, f"{value:.4f}" if isinstance(value, float) else value)
    _show_corpora("each data set", report["of_corpora"])
    for row in report["rows"]:
        if "held_out" in row:
            _show_corpora(f"held out, without {', '.join(row['groups'])}", row["held_out"])


def _show_corpora(title: str, corpora: dict[str, dict[str, float]]) -> None:
    print(title)
    for name, figures in corpora.items():
        shown = "  ".join(f"{k} {v:.3f}" if k != "n" else f"n {v}" for k, v in figures.items())
        print(f"  {name:12} {shown}")


def ablate(
    config: Config,
    out: Annotated[Path, typer.Option(help="Folder for results.csv, table.md and the cells.")],
) -> None:
    """Train the grid of options in the table [ablate] and write the table.

    Cells that are done are not done again, so that a second run goes on.

    Example: tamulag ablate --config configs/train/paper-mosi.toml --out runs/ablation
    """
    quiet_threads()
    from tamulag.models.training.ablation import ablate as run_grid

    with show_progress() as (log, progress):
        run_grid(config, out, log=log, progress=progress)
    print((out / "table.md").read_text(encoding="utf-8"), end="")


def plot(
    run: Annotated[Path, typer.Argument(help="Folder of a run, e.g. runs/NAME.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")],
) -> None:
    """Draw training curves, generated labels over the epochs and attention over time.

    Example: tamulag plot runs/paper-mosi --out figures
    """
    from tamulag.models.training.plots import plot as draw

    for path in draw(run, out):
        print(path)


@contextmanager
def show_progress() -> Iterator[tuple[Callable[[str], None], Callable[[str, int, int], None]]]:
    """Show lines of progress and one bar with the time left, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("read", total=None)
        shown = ""

        def report(what: str, done: int, total: int) -> None:
            nonlocal shown
            if what != shown:
                shown = what
                bar.reset(task, description=what, total=total)
            bar.update(task, completed=done)

        def log(text: str) -> None:
            bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

        yield log, report
