"""Train the grid of the method's options and write the table.

Knows training files and figures. Knows no tensor.
"""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import torch

from ..data.clips import DataError
from ..nn.config import ModelConfig
from ..nn.constants import MODALITIES
from ..nn.ulag import LAYERED
from .joint_recipe import JointRecipe, ModelTable, model_config, read_joint
from .progress import Log, Progress, Record
from .run_folder import settings
from .train_joint import load_splits
from .train_seeds import forget, summary, train_seeds

OPTIONS = ("tam", "fusion", "labels", "residual")
"""Columns of every table."""
MORE = ("similarity", "layers", "hidden")
"""Columns of a table whose grid lists them."""
UNUSED = "unused"
RESULT = "result.json"

Option = bool | int | str
Cell = dict[str, str]
"""The options of a cell, as text."""


def ablate(path: Path, out: Path, *, log: Log, progress: Progress) -> list[tuple[Cell, Record]]:
    """Train every cell of the grid with every seed; write `results.csv` and `table.md` to `out`.

    Finished cells are in `out/cells` and are not trained again; a cell that was stopped is resumed.
    The tables are written after each cell, so that they can be read while the rest is trained.

    Returns:
        Options and summary of each cell.

    Raises:
        DataError: If a file cannot be used or names no grid, or a cell was done with other
            settings.
    """
    recipe = read_joint(path)
    if not any(getattr(recipe.ablate, name) for name in OPTIONS + MORE):
        raise DataError(
            f"{path} has no table [ablate] with a list of {', '.join(OPTIONS + MORE)}: name what "
            'to compare, e.g. tam = ["softmax", "none"], or use tamulag train'
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
            records = train_seeds(chosen, splits, folder, log=log, progress=progress)
            record = summary(list(records.values()))
            text = json.dumps({"settings": _key(chosen), "figures": record})
            (folder / RESULT).write_text(text, encoding="utf-8")
            forget(folder)
        rows.append((cell, record))
        write_results(out, rows)
    return rows


def cells(recipe: JointRecipe) -> list[tuple[Cell, JointRecipe]]:
    """Return the cells of the grid, each once.

    A residual gate has a meaning with a gate alone, a similarity with labels of the release alone:
    where it has none the former's cells are left out, and the latter is `unused`. `layers` and
    `hidden` are set in each branch that has a recurrent network.

    Raises:
        DataError: If a cell's options do not go together.
    """
    config = model_config(recipe, {})
    table, model = recipe.ablate, recipe.model
    lists: dict[str, Sequence[Option]] = {
        "tam": table.tam or [model.tam or config.audio.tam],
        "fusion": table.fusion or [config.fusion],
        "labels": table.labels or [config.labels],
        "residual": table.residual or [model.residual],
    }
    lists |= {name: values for name in MORE if (values := getattr(table, name))}
    out = {}
    for values in product(*lists.values()):
        cell = dict(zip(lists, values, strict=True))
        if cell["residual"] and not str(cell["tam"]).startswith("gate"):
            continue
        if "similarity" in cell and cell["labels"] not in LAYERED:
            cell["similarity"] = UNUSED
        words = {name: _word(name, value) for name, value in cell.items()}
        chosen = recipe.model_copy(update={"model": _model(model, config, cell)})
        out["-".join(words.values())] = (words, chosen)
    return list(out.values())


def _word(name: str, value: Option) -> str:
    if name == "residual":
        return "residual" if value else "plain"
    return str(value)


def _model(model: ModelTable, config: ModelConfig, cell: Mapping[str, Option]) -> ModelTable:
    """Return the table [model] with the options of a cell."""
    sizes = {name: cell[name] for name in ("layers", "hidden") if name in cell}
    recurrent = [name for name in MODALITIES if getattr(config, name).encoder != "identity"]
    flat = {name: value for name, value in cell.items() if name not in sizes and value != UNUSED}
    return model.model_copy(
        update=flat | {name: getattr(model, name) | sizes for name in recurrent if sizes}
    )


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
    options = list(rows[0][0])
    names = list(dict.fromkeys(key for _, record in rows for key in record))
    with (out / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*options, *names])
        for cell, record in rows:
            writer.writerow([*cell.values(), *(record.get(name, "") for name in names)])
    shown = [name for name in names if name.split(".")[1:] in (["MAE"], ["Corr"], *ACCURACIES)]
    lines = [_line([*options, *shown]), _line(["---"] * (len(options) + len(shown)))]
    lines += [_line([*cell.values(), *(_value(record, n) for n in shown)]) for cell, record in rows]
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


ACCURACIES = (["Acc2_has0"], ["Acc2_non0"], ["Acc2"])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _value(record: Record, name: str) -> str:
    half = record.get(f"{name}.interval")
    return f"{record[name]:.3f}" + ("" if half is None else f" ± {half:.3f}")
