"""The field's packed feature files: `aligned_50.pkl`, `unaligned_50.pkl`, `unaligned_39.pkl`.

Knows their keys and shapes (method, section 3). Knows neither the model nor a front end; nothing
in a file can run.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..nn.tam_ulag import MODALITIES
from .clips import Array, Clip, DataError
from .safe_pickle import UnsafePickle, unboxed, unpickle

SPLITS = ("train", "valid", "test")
HUMAN = {
    name: f"regression_labels_{letter}" for name, letter in zip(MODALITIES, "TAV", strict=True)
}

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PackedSplit:
    """One split, as the file has it: every clip padded with zeros to the same length."""

    values: dict[str, Array]
    """Per modality (N, T, D) float32; what was not finite is 0."""
    lengths: dict[str, Integers]
    """Per modality (N,), valid steps from the first; 0 = nothing there."""
    labels: Array
    """(N,) float32, in the range of the data set."""
    unimodal: dict[str, Array] = field(default_factory=dict)
    """Human labels (N,) of each modality alone, where the file has them (CH-SIMS)."""
    tokens: Integers | None = None
    """`text_bert`: (N, 3, L) token ids, attention mask and segments, where the file has it."""
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def clips(self) -> list[Clip]:
        """Return the rows as clips: a step of a modality is a tick of its own index.

        Values and ticks are views of this split's arrays; nothing is copied. The group is the
        video, so that no video is split between training and validation.
        """
        longest = max((values.shape[1] for values in self.values.values()), default=0)
        index = np.arange(longest, dtype=np.int64)
        return [self._clip(row, index) for row in range(len(self.labels))]

    def _clip(self, row: int, index: Integers) -> Clip:
        spans = {name: int(lengths[row]) for name, lengths in self.lengths.items()}
        return Clip(
            float(self.labels[row]),
            self.ids[row].split("$_$")[0] if self.ids else str(row),
            {name: self.values[name][row, :span] for name, span in spans.items() if span},
            {name: index[:span] for name, span in spans.items() if span},
            {name: float(labels[row]) for name, labels in self.unimodal.items()},
        )


def read_packed(path: Path) -> dict[str, PackedSplit]:
    """Read a packed feature file.

    A length that the file does not give is that of the attention mask for text, else it ends with
    the last step that is not all zero.

    Returns:
        The splits that are there, of `train`, `valid` and `test`.

    Raises:
        DataError: If the file cannot be read, holds anything but data, or a key is missing or has
            another shape.
    """
    try:
        content = unpickle(path)
    except UnsafePickle as error:
        raise DataError(f"packed file {path} is refused: {error}; fetch it again") from error
    except OSError as error:
        raise DataError(f"packed file {path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not any(split in content for split in SPLITS):
        raise DataError(f"packed file {path} has none of the splits {', '.join(SPLITS)}")
    splits = {}
    for name in SPLITS:
        if name in content:
            try:
                splits[name] = _split(content.pop(name))
            except (ValueError, TypeError, OverflowError) as error:
                raise DataError(f"packed file {path}, split {name}: {error}") from error
    return splits


def _split(content: object) -> PackedSplit:
    if not isinstance(content, dict):
        raise TypeError(f"a dict is expected, not a {type(content).__name__}")
    content = dict(content)  # What is taken is removed, and splits may be one object.
    labels = _labels(content, "regression_labels", None)
    values = {name: _steps(content, name, len(labels)) for name in MODALITIES if name in content}
    if not values:
        raise ValueError(f"none of the keys {', '.join(MODALITIES)} is there")
    tokens = _tokens(content, len(labels))
    return PackedSplit(
        values,
        {name: _lengths(content, name, array, tokens) for name, array in values.items()},
        labels,
        {n: _labels(content, key, len(labels)) for n, key in HUMAN.items() if key in content},
        tokens,
        _strings(content, "id", len(labels)),
        _strings(content, "raw_text", len(labels)),
    )


def _taken(content: dict[str, object], key: str, axes: int, count: int | None) -> Array:
    """Take an array, or a list of numbers or arrays, out of the split, as writable float32.

    Args:
        content: The split; the key is removed, so that the file's own copy can be freed.
        key: What to take.
        axes: Axes that it must have.
        count: Rows that it must have; None: any.
    """
    if key not in content:
        raise ValueError(f"key {key} is missing")
    raw = unboxed(content.pop(key))
    if isinstance(raw, list):
        raw = [unboxed(item) for item in raw]
    try:
        with np.errstate(all="ignore"):
            array = np.array(raw, dtype=np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{key} is not an array of numbers: {error}") from error
    if array.ndim == axes + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != axes or (count is not None and len(array) != count):
        rows = "" if count is None else f" and {count} rows"
        raise ValueError(f"{key} has shape {array.shape}: expected {axes} axes{rows}")
    return array


def _labels(content: dict[str, object], key: str, count: int | None) -> Array:
    labels = _taken(content, key, 1, count)
    if not np.isfinite(labels).all():
        raise ValueError(f"{key} has values that are not finite")
    return labels


def _steps(content: dict[str, object], name: str, count: int) -> Array:
    steps = _taken(content, name, 3, count)
    # The field sets -inf of COVAREP to 0; nothing else that is not finite is of use either.
    np.copyto(steps, 0.0, where=~np.isfinite(steps))
    return steps


def _tokens(content: dict[str, object], count: int) -> Integers | None:
    if "text_bert" not in content:
        return None
    tokens = _taken(content, "text_bert", 3, count)
    if tokens.shape[1] != 3 or not ((tokens >= 0) & (tokens < 2**24)).all():
        raise ValueError(f"text_bert has shape {tokens.shape}: expected (N, 3, L) whole numbers")
    return tokens.astype(np.int64)


def _lengths(
    content: dict[str, object], name: str, steps: Array, tokens: Integers | None
) -> Integers:
    key, longest = f"{name}_lengths", steps.shape[1]
    if key in content:
        given = _taken(content, key, 1, len(steps))
        if not ((given >= 0) & (given <= longest)).all():
            raise ValueError(f"{key} lie in [{given.min()}, {given.max()}]: expected 0..{longest}")
        return given.astype(np.int64)
    if name == "text" and tokens is not None:
        # The states of padding are not zero in what BERT gives.
        words: Integers = np.minimum((tokens[:, 1] != 0).sum(axis=1), longest)
        return words
    last: Integers = ((steps != 0).any(axis=2) * np.arange(1, longest + 1)).max(axis=1, initial=0)
    return last


def _strings(content: dict[str, object], key: str, count: int) -> list[str]:
    """Return a list of texts, or [] if the file has none."""
    raw = unboxed(content.get(key, []))
    items = raw.tolist() if isinstance(raw, np.ndarray) else raw
    if not isinstance(items, list) or len(items) not in (0, count):
        raise ValueError(f"{key}: expected {count} texts")
    if not all(isinstance(item, str) for item in items):
        raise TypeError(f"{key}: expected texts alone")
    return items
