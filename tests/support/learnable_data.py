"""A tiny packed file with a rule that can be learned, and a training file for it."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tamulag.models.training.joint_recipe import JointRecipe

SHAPES = {"text": (6, 8), "audio": (9, 4), "vision": (7, 3)}
ROWS = {"train": 70, "valid": 30, "test": 30}


def split(rng: np.random.Generator, rows: int) -> dict[str, object]:
    """Return clips whose label is in the first value of each of their modalities."""
    label = rng.uniform(-2.5, 2.5, rows).astype(np.float32)
    content: dict[str, object] = {"regression_labels": label}
    for name, (steps, dim) in SHAPES.items():
        lengths = rng.integers(2, steps + 1, rows)
        mask = np.arange(steps) < lengths[:, None]
        values = 0.3 * rng.standard_normal((rows, steps, dim)).astype(np.float32)
        values[..., 0] += label[:, None]
        content[name] = values * mask[..., None]
        content[f"{name}_lengths"] = lengths.tolist()
    steps = SHAPES["text"][0]
    counts = np.array(content["text_lengths"])
    ids = rng.integers(1000, 30000, (rows, steps)) * (np.arange(steps) < counts[:, None])
    ids[:, 0], ids[np.arange(rows), counts - 1] = 101, 102
    mask = ids != 0
    content["text_bert"] = np.stack([ids, mask, 0 * ids], axis=1).astype(np.float32)
    return content


def write(folder: Path, *, rows: Mapping[str, int] = ROWS, spoiled: str = "") -> Path:
    """Write the packed file; the labels of a spoiled split are noise."""
    rng = np.random.default_rng(3)
    content = {name: split(rng, count) for name, count in rows.items()}
    if spoiled:
        content[spoiled]["regression_labels"] = rng.uniform(-3, 3, rows[spoiled])
    path = folder / f"packed{spoiled}.pkl"
    path.write_bytes(pickle.dumps(content, protocol=4))
    return path


def toml(packed: Path, *lines: str, name: str = "tiny", seeds: str = "[1]", epochs: int = 3) -> str:
    """Return a training file of a small model; lines come behind the main table."""
    return "\n".join(
        [
            'kind = "joint"',
            f'name = "{name}"',
            f"seeds = {seeds}",
            f"epochs = {epochs}",
            "batch = 8",
            "accumulate = 2",
            "threads = 1",
            "drop_modality = 0.3",
            "prefix = 0.3",
            "joined = 3",
            f'data.packed = "{packed}"',
            'model.preset = "paper-mosi"',
            'model.tam = "softmax"',
            "model.audio = { hidden = 6, out = 4, post = 5, dropout = 0.1 }",
            "model.vision = { hidden = 6, out = 4, post = 5 }",
            "audio = { rate = 1e-2, decay = 0 }",
            "vision = { rate = 1e-2, decay = 0 }",
            "other = { rate = 5e-3, decay = 0 }",
            *lines,
        ]
    )


def recipe(packed: Path, *lines: str, epochs: int = 3) -> JointRecipe:
    """Return the same as a recipe."""
    import tomllib

    return JointRecipe.model_validate(tomllib.loads(toml(packed, *lines, epochs=epochs)))


def quiet(*_: object) -> None:
    """Report nothing."""
