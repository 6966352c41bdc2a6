"""Train the grid of the method's options and write the table.

Knows training files and figures. Knows no tensor.
"""

import csv
import json
import os
from itertools import product
from pathlib import Path

import torch

from .data import DataError
from .joint import Tell, load_splits
from .recipe import JointRecipe, model_config, read_joint
from .runs import Log, Record, settings
from .seeds import forget, summary, train_seeds

OPTIONS = ("tam", "fusion", "labels", "residual")
RESULT = "result.json"

Cell = dict[str, str]
"""The options of a cell, as text."""


def ablate(path: Path, out: Path, *, log: Log, tell: Tell) -> list[tuple[Cell, Record]]:
    """Train every cell of the grid with every seed; write `results.csv` and `table.md` to `out`.

    What is done lies in `out/cells` and is not done again; a cell that was stopped goes on. The
    tables are written after each cell, so that they can be read while the rest is trained.

    Returns:
        Options and summary of each cell.

    Raises:
        DataError: If a file cannot be used or names no grid, or a cell was done with other
            settings.
    """
    recipe = read_joint(path)
    if not any(getattr(recipe.ablate, name) for name in OPTIONS):
        raise DataError(
            f"{path} has no table [ablate] with a list of {', '.join(OPTIONS)}: name what to "
            'compare, e.g. tam = ["softmax", "none"], or use tamulag train'
        )
    torch.set_num_threads(recipe.threads or os.cpu_count() or 1)
    grid = cells(recipe)
    splits = load_splits(recipe, log)
    rows: list[tuple[Cell, Record]] = []
    for place, (cell, chosen) in enumerate(grid):
        name = "-".join(cell.values())
        folder = out / "cells" / name
        record = _done(folder, chosen)
        if record is None:
            log(f"cell {place + 1} of {len(grid)}: {name}")
            record = summary(list(train_seeds(chosen, splits, folder, log=log, tell=tell).values()))
            text = json.dumps({"settings": _key(chosen), "figures": record})
            (folder / RESULT).write_text(text, encoding="utf-8")
            forget(folder)
        rows.append((cell, record))
        write_results(out, rows)
    return rows


def cells(recipe: JointRecipe) -> list[tuple[Cell, JointRecipe]]:
    """Return the cells of the grid, each once.

    A residual gate has a meaning with a gate alone: with other forms of attention it is left out.

    Raises:
        DataError: If a cell's options do not go together.
    """
    config = model_config(recipe, {})
    table, model = recipe.ablate, recipe.model
    grid = product(
        table.tam or [model.tam or config.audio.tam],
        table.fusion or [config.fusion],
        table.labels or [config.labels],
        table.residual or [model.residual],
    )
    out = {}
    for tam, fusion, labels, residual in grid:
        if residual and not tam.startswith("gate"):
            continue
        values = (tam, fusion, labels, residual)
        chosen = model.model_copy(update=dict(zip(OPTIONS, values, strict=True)))
        cell = dict(
            zip(OPTIONS, (tam, fusion, labels, "residual" if residual else "plain"), strict=True)
        )
        out["-".join(cell.values())] = (cell, recipe.model_copy(update={"model": chosen}))
    return list(out.values())


def _key(recipe: JointRecipe) -> dict[str, object]:
    return settings(recipe) | {
        "seeds": recipe.seeds,
        "epochs": recipe.epochs,
        "patience": recipe.patience,
    }


def _done(folder: Path, recipe: JointRecipe) -> Record | None:
    """Return the summary of a finished cell, None if it is not finished."""
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        same, record = found["settings"] == _key(recipe), found["figures"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}): remove it") from error
    if not same:
        raise DataError(f"{path} is of other settings: choose another --out, or remove {folder}")
    return dict(record)


def write_results(out: Path, rows: list[tuple[Cell, Record]]) -> None:
    """Write all figures as `results.csv` and those that are compared most as `table.md`."""
    out.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(key for _, record in rows for key in record))
    with (out / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*OPTIONS, *names])
        for cell, record in rows:
            writer.writerow([*cell.values(), *(record.get(name, "") for name in names)])
    shown = [name for name in names if name.split(".")[1:] in (["MAE"], ["Corr"], *ACCURACIES)]
    lines = [_line([*OPTIONS, *shown]), _line(["---"] * (len(OPTIONS) + len(shown)))]
    lines += [_line([*cell.values(), *(_value(record, n) for n in shown)]) for cell, record in rows]
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


ACCURACIES = (["Acc2_has0"], ["Acc2_non0"], ["Acc2"])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _value(record: Record, name: str) -> str:
    half = record.get(f"{name}.interval")
    return f"{record[name]:.3f}" + ("" if half is None else f" ± {half:.3f}")
