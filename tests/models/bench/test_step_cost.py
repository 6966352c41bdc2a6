"""What a hop costs: both ways are run for real, and the work is counted by hand."""

from pathlib import Path

import pytest
import torch

from support.onnx_exports import Exported
from tamulag.models import TamUlag
from tamulag.models.bench.step_cost import Machine, costs, exported_cost, machine, work
from tamulag.models.runtime.checkpoint import CheckpointError

SLOW = Machine("none", 1, torch.__version__, 1, gflops=1.0, gigabytes=1.0)


def test_a_window_is_run_both_ways() -> None:
    """Twelve times the window is more work in full; each row has the ratio of its medians."""
    for _ in range(5):
        # A machine that is busy with something else for a moment is measured again.
        short, long = costs(SLOW, windows=(5.0, 60.0), repeats=10)
        if long.recompute_ms > 2 * short.recompute_ms:
            break
    assert (short.window, long.window, long.hop) == (5.0, 60.0, 0.5)
    assert long.recompute_ms > 2 * short.recompute_ms
    for row in (short, long):
        assert row.ratio == pytest.approx(row.recompute_ms / row.incremental_ms)
        assert 0 < row.incremental_ms <= row.incremental_p99_ms


def test_the_limit_is_the_larger_of_arithmetic_and_memory() -> None:
    """On a machine of 1 GFLOP/s a hop's 10 million operations take 10 ms."""
    (row,) = costs(SLOW, windows=(5.0,), repeats=10)
    assert row.mflop > row.megabytes
    assert row.limit_ms == pytest.approx(row.mflop)


def test_work_is_counted_by_hand(model: TamUlag) -> None:
    """A hop of 25 ticks: matrices of each modality by its ticks, pooling, and what is behind."""
    flops, read = work(model, 25)
    text, audio, vision = (4 * 6 * (d + 6) + 4 * 6 * 12 + 6 * 6 + 6 for d in (5, 4, 3))
    pooled = 2 * 6 * (128 + 100 + 20)
    behind = sum(
        p.numel()
        for name, p in model.named_parameters()
        if p.dim() == 2 and not any(part in name for part in ("encoder", "attention"))
    )
    assert flops == 2 * (3 * text + 25 * audio + 5 * vision) + pooled + 2 * behind
    assert read == 4 * sum(p.numel() for p in model.parameters()) + 4 * 7 * (128 + 100 + 20)


def test_the_machine_is_measured() -> None:
    """Name and both rates, none of them guessed."""
    found = machine()
    assert found.processor
    assert found.gflops > 0.1
    assert found.gigabytes > 0.1
    assert torch.get_num_threads() == found.threads == 1


def test_a_file_is_run_beside_torch(exported: Exported) -> None:
    """At the window it was made for, both engines from their states and in full."""
    row = exported_cost(exported.file, exported.checkpoint, repeats=10)
    assert (row.window, row.sessions) == (2.0, 1)
    assert row.ratio == pytest.approx(row.anew_torch_ms / row.onnxruntime_ms)
    assert row.ratio_onnxruntime == pytest.approx(row.anew_onnxruntime_ms / row.onnxruntime_ms)


def test_what_is_no_export_has_no_window(tmp_path: Path) -> None:
    """The error names the command that makes one."""
    with pytest.raises(CheckpointError, match="tamulag export --onnx"):
        exported_cost(tmp_path / "none.onnx")
