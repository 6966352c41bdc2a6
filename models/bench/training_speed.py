"""Measure time per epoch and peak memory of the joint training on a file of MOSI's exact shapes.

The file is made on the fly: its numbers are random, its shapes, lengths and types are those of
`unaligned_50.pkl`. The text encoder is trained along, end to end. Each variant runs in a process of
its own, since the peak of a process never falls. Knows no stream.
"""

import os
import pickle
import re
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from ..training.joint_recipe import DataTable, JointRecipe, ModelTable, TextTable
from ..training.progress import Log, silent
from ..training.train_joint import build, load_splits, train_epoch

Variant = Literal["padded", "equal", "fast"]
"""`padded`: as the field's framework does it: the text encoder sees every clip padded to the full
length, batches are drawn without regard to length, plain Adam. `equal`: the same maths with batches
that are trimmed and sorted inside each accumulation window, and fused Adam. `fast`: that with the
text encoder in bfloat16 autocast."""

SHAPES = {"text": (50, 768), "audio": (375, 5), "vision": (500, 20)}
MEANS = {"text": 14.8, "audio": 38.8, "vision": 42.6}
"""Mean real lengths on MOSI's training rows (method, section 1.1)."""
TRAIN, VALID = 1284, 229
FIRST, LAST, PIECES = 101, 102, (1000, 30522)
"""[CLS], [SEP] and the ids of words of bert-base-uncased."""
WARMUP = 32
"""Clips of an epoch before the clock starts."""


class EpochCost(NamedTuple):
    """One variant, measured."""

    variant: Variant
    seconds_per_epoch: float
    """Of the training rows, validation not included; the best epoch of those measured."""
    cpu_seconds: float
    """Processor time of that epoch over all threads: what other programs add to the seconds is not
    in it."""
    peak_rss_mb: float | None
    """Peak resident memory of its process, the file's arrays included; None: not known here."""


def bench(
    variants: list[Variant],
    log: Log,
    *,
    samples: int = TRAIN,
    epochs: int = 1,
    threads: int = 0,
    begin: Callable[[], None] | None = None,
) -> list[EpochCost]:
    """Measure variants one after the other.

    Args:
        variants: What to measure.
        log: Called with a line per variant.
        samples: Training clips.
        epochs: Epochs to measure, after a warm-up.
        threads: Of torch; 0 = one per core.
        begin: Called first in the process of each variant.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "unaligned_50.pkl"
        write_file(path, samples)
        for variant in variants:
            context = get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context, initializer=begin) as pool:
                try:
                    row = pool.submit(measure, variant, path, epochs, threads).result()
                except BaseException:
                    # Else the end of the block would wait for what is left of its epochs.
                    for child in active_children():
                        child.kill()
                    raise
            rows.append(row)
            peak = "unknown" if row.peak_rss_mb is None else f"{row.peak_rss_mb:.0f} MB"
            log(
                f"{variant:8} {row.seconds_per_epoch:8.2f} s per epoch "
                f"({row.cpu_seconds:.2f} s of processor), peak {peak}"
            )
    return rows


def measure(variant: Variant, path: Path, epochs: int, threads: int) -> EpochCost:
    """Measure one variant in this process."""
    torch.set_num_threads(threads or os.cpu_count() or 1)
    recipe = recipe_of(variant, path)
    corpus = load_splits(recipe)["train"]
    task = build(recipe, corpus, 1)
    padded = None
    if variant == "padded":
        padded = {name: steps for name, (steps, _) in SHAPES.items()}
    few = corpus.select(np.arange(min(WARMUP, len(corpus))))
    train_epoch(replace(task, corpus=few), 1, silent, padded=padded)
    times = []
    for epoch in range(2, epochs + 2):
        begin, spent = time.perf_counter(), time.process_time()
        train_epoch(task, epoch, silent, padded=padded)
        times.append((time.perf_counter() - begin, time.process_time() - spent))
    return EpochCost(variant, *min(times), peak_memory())


def recipe_of(variant: Variant, path: Path) -> JointRecipe:
    """Return the paper preset with the release's rates on a packed file."""
    return JointRecipe(
        kind="joint",
        name="bench",
        data=DataTable(packed=path),
        model=ModelTable(preset="paper-mosi"),
        text=TextTable(finetune=True, bf16=variant == "fast"),
        fused=variant != "padded",
        standardise=False,
    )


def write_file(path: Path, samples: int = TRAIN) -> None:
    """Write a packed file of MOSI's shapes with random numbers, the same on each run."""
    rng = np.random.default_rng(1)
    content = {"train": _split(rng, samples), "valid": _split(rng, min(VALID, samples))}
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=4)


def _split(rng: np.random.Generator, rows: int) -> dict[str, object]:
    content: dict[str, object] = {"regression_labels": rng.uniform(-3, 3, rows).astype(np.float32)}
    for name, (steps, dim) in SHAPES.items():
        # Real lengths are skewed: a few clips are several times as long as the mean.
        least = 3 if name == "text" else 1
        lengths = (least + rng.gamma(2.0, (MEANS[name] - least) / 2, rows)).round().astype(int)
        lengths = lengths.clip(least, steps)
        mask = np.arange(steps) < lengths[:, None]
        values = rng.standard_normal((rows, steps, dim), dtype=np.float32)
        content[name] = values * mask[..., None]
        if name == "text":
            ids = rng.integers(*PIECES, (rows, steps)) * mask
            ids[:, 0] = FIRST
            ids[np.arange(rows), lengths - 1] = LAST
            content["text_bert"] = np.stack([ids, mask, np.zeros_like(ids)], axis=1).astype(
                np.float32
            )
        else:
            content[f"{name}_lengths"] = lengths.tolist()
    return content


def peak_memory() -> float | None:
    """Return the peak resident memory of this process in MB, None where it is not known.

    The kernel's own account of this program, not that of `getrusage`, which begins with the memory
    of the process that started it.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    return None if found is None else int(found[1]) / 1024
