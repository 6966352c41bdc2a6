"""The bench measures each variant, on a file of the field's shapes."""

from pathlib import Path

import pytest

from tamulag.models.bench.training_speed import (
    MEANS,
    SHAPES,
    measure,
    peak_memory,
    recipe_of,
    write_file,
)
from tamulag.models.data.mmsa_pickle import read_packed


def test_file_has_the_shapes_of_mosi(tmp_path: Path) -> None:
    """Shapes, and real lengths near those of MOSI's training rows."""
    write_file(tmp_path / "packed.pkl", 150)
    split = read_packed(tmp_path / "packed.pkl")["train"]
    assert {n: v.shape for n, v in split.values.items()} == {
        name: (150, *shape) for name, shape in SHAPES.items()
    }
    for name, lengths in split.lengths.items():
        assert lengths.mean() == pytest.approx(MEANS[name], rel=0.2)
    assert split.tokens is not None
    assert split.tokens.shape == (150, 3, 50)


def test_variants_differ_in_what_they_say() -> None:
    """The model is the same; fused Adam and bfloat16 are all that differs in the recipe."""
    padded, equal, fast = (recipe_of(v, Path("f")) for v in ("padded", "equal", "fast"))
    assert padded.model_copy(update={"fused": True}) == equal
    assert fast.model_copy(update={"text": equal.text}) == equal
    assert (equal.text.bf16, fast.text.bf16) == (False, True)
    assert equal.text.finetune


def test_a_variant_is_measured(tmp_path: Path) -> None:
    """Time of an epoch and the peak of this process, on a few clips."""
    write_file(tmp_path / "packed.pkl", 8)
    row = measure("padded", tmp_path / "packed.pkl", 1, 1)
    assert row.variant == "padded"
    assert 0 < row.seconds_per_epoch < 60
    assert row.peak_rss_mb is None or 100 < row.peak_rss_mb < 5000


def test_peak_memory_is_known_on_linux() -> None:
    """In megabytes."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("needs Linux: the peak is read from /proc")
    peak = peak_memory()
    assert peak is not None
    assert 10 < peak < 100_000
