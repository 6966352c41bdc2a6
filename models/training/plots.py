"""Draw a run: training curves, generated labels over the epochs, attention over time.

Knows the files of a run folder and matplotlib. Knows no model; the data are not read again.
"""

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.clips import DataError
from ..nn.tam_ulag import MODALITIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOSSES = ("loss.total", "loss.fused", "loss.text", "loss.audio", "loss.vision")
SIZE = (10.0, 3.2)
"""Inches of one row of panels."""


def plot(run: Path, out: Path) -> list[Path]:
    """Draw `curves.png`, `labels.png` and `attention.png`.

    Args:
        run: Folder of a run, `runs/NAME`, or of one of its seeds; of several seeds, labels and
            attention are those of the first.
        out: Folder for the pictures.

    Raises:
        DataError: If the folder holds no run, or a file of it is damaged.
    """
    seeds = sorted(path.parent for path in (*run.glob("metrics.csv"), *run.glob("*/metrics.csv")))
    if not seeds:
        raise DataError(f"{run} holds no metrics.csv: give the folder of a run, e.g. runs/NAME")
    out.mkdir(parents=True, exist_ok=True)
    try:
        figures = {
            "curves": _curves(seeds),
            "labels": _labels(seeds[0]),
            "attention": _attention(seeds[0]),
        }
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{run} cannot be drawn ({error!r}): train it again") from error
    paths = []
    for name, figure in figures.items():
        paths.append(out / f"{name}.png")
        figure.savefig(paths[-1], dpi=120)
    return paths


def _panels(rows: int, columns: int) -> "tuple[Figure, list[list[Axes]]]":
    # A figure without pyplot needs no display and is not referenced by a global list.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIZE[0], SIZE[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False).tolist()


def _table(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # A figure that an epoch lacks, as its head was untrained then, is an empty cell.
    return [{key: float(value) for key, value in row.items() if value} for row in rows]


def _curves(seeds: list[Path]) -> "Figure":
    figure, [[left, middle, right]] = _panels(1, 3)
    for place, seed in enumerate(seeds):
        rows = _table(seed / "metrics.csv")
        epochs = [row["epoch"] for row in rows]
        for colour, name in enumerate(LOSSES):
            label = name.removeprefix("loss.") if place == 0 else None
            left.plot(epochs, [row[name] for row in rows], color=f"C{colour}", label=label)
        for axes, key in ((middle, "valid.MAE"), (right, "valid.Corr")):
            axes.plot(epochs, [row[key] for row in rows], marker=".", label=seed.name)
    for axes, title in ((left, "training loss"), (middle, "valid MAE"), (right, "valid Corr")):
        axes.set(title=title, xlabel="epoch")
        axes.legend(fontsize="small")
    return figure


def _labels(seed: Path) -> "Figure":
    """Draw each clip's generated labels as a line, coloured by its multimodal label."""
    rows = _table(seed / "labels.csv")
    figure, [panels] = _panels(1, len(MODALITIES))
    clips = sorted({row["clip"] for row in rows})
    limit = max(abs(row["label"]) for row in rows) or 1.0
    from matplotlib import colormaps

    colours = colormaps["coolwarm"]
    for axes, name in zip(panels, MODALITIES, strict=True):
        for clip in clips:
            own = [row for row in rows if row["clip"] == clip]
            shade = colours((own[0]["label"] / limit + 1) / 2)
            axes.plot([r["epoch"] for r in own], [r[name] for r in own], color=shade, lw=0.8)
        axes.set(title=f"labels of {name}", xlabel="epoch")
    panels[0].set_ylabel("generated; colour: label of the clip")
    return figure


def _attention(seed: Path) -> "Figure":
    clips = json.loads((seed / "attention.json").read_text(encoding="utf-8"))
    figure, panels = _panels(len(clips), len(MODALITIES))
    for row, clip in zip(panels, clips, strict=True):
        for axes, name in zip(row, MODALITIES, strict=True):
            if name in clip:
                axes.vlines(clip[name]["time"], 0, clip[name]["weight"])
                axes.set(ylim=(0, None))
            else:
                axes.text(0.5, 0.5, "absent", ha="center", transform=axes.transAxes)
            axes.set(xlabel=f"{name}, tick")
        row[0].set_ylabel(f"weight\nlabel {clip['label']:.1f}, estimate {clip['estimate']:.1f}")
    return figure
