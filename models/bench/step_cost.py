"""Measure one hop of the model: a step from its state, against its whole window again.

Knows a checkpoint, random input at the rates of a real stream, and what one thread of the machine
can do at most. Knows no stream and no features: words, voice and face come as vectors.
"""

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..nn.branch import Branch
from ..nn.encoder import Ticks
from ..nn.tam_ulag import MODALITIES, TICK_RATE, State, TamUlag
from ..runtime.checkpoint import load
from ..runtime.onnx_engine import OnnxStep, window_of
from ..runtime.torch_engine import Step

WINDOWS = (5.0, 10.0, 30.0, 60.0)
"""Seconds."""
TOKENS = 4
"""Tokens per second of fast speech."""
ROUNDS = 10
"""Turns of the two that are compared, so that what else the machine does meets both."""
_SIDE = 1024
_LENGTH = 1 << 25
_TRIES = 7


class Machine(NamedTuple):
    """Where the figures were measured; the last two with one thread, the best of some tries."""

    processor: str
    cores: int
    torch: str
    threads: int
    gflops: float
    """Multiplications and additions of float32 per nanosecond: two matrices of 1024 x 1024."""
    gigabytes: float
    """Bytes read and written per nanosecond: an array of 128 MB is copied."""


class HopCost(NamedTuple):
    """One length of the window; medians, and the slowest of a hundred; all of it per session."""

    window: float
    hop: float
    sessions: int
    """That were stepped together."""
    incremental_ms: float
    incremental_p99_ms: float
    recompute_ms: float
    recompute_p99_ms: float
    ratio: float
    mflop: float
    """Multiplications and additions of an incremental hop, millions."""
    megabytes: float
    """Weights and remembered states: what it must read at least once."""
    limit_ms: float
    """What the larger of these two takes at the machine's best."""


class Exported(NamedTuple):
    """An exported file beside torch; medians, per session."""

    window: float
    hop: float
    sessions: int
    torch_ms: float
    """A hop from the state, with torch."""
    onnxruntime_ms: float
    """The same with the file."""
    anew_torch_ms: float
    """The whole window from the initial state."""
    anew_onnxruntime_ms: float
    """The same with the file, which also makes a state that is not used then."""
    ratio: float
    """The window with torch against a hop with the file."""
    ratio_onnxruntime: float
    """Both with the file."""


def machine() -> Machine:
    """Measure what one thread can do; torch is left with one."""
    torch.set_num_threads(1)
    a, b, out = (torch.rand(_SIDE, _SIDE) for _ in range(3))
    flops = 2 * _SIDE**3 / _best(lambda: torch.mm(a, b, out=out))
    here, there = torch.rand(_LENGTH), torch.rand(_LENGTH)
    copied = 8 * _LENGTH / _best(lambda: there.copy_(here))
    cores = os.cpu_count() or 1
    return Machine(_processor(), cores, torch.__version__, 1, flops / 1e9, copied / 1e9)


def costs(
    best: Machine,
    checkpoint: str = "default",
    *,
    windows: Sequence[float] = WINDOWS,
    hop: float = 0.5,
    sessions: int = 1,
    repeats: int = 200,
) -> list[HopCost]:
    """Time hops with each window on one thread, both ways in turn.

    Args:
        best: What the machine can do.
        checkpoint: Name or path.
        windows: Seconds, multiples of the hop.
        hop: Seconds, a multiple of 0.1.
        sessions: Stepped together, and their windows together.
        repeats: Hops that are timed each way, at least 10.

    Raises:
        CheckpointError: If the checkpoint cannot be used.
    """
    torch.set_num_threads(1)
    return [_row(best, checkpoint, window, hop, sessions, repeats) for window in windows]


@torch.inference_mode()
def _row(
    best: Machine, checkpoint: str, window: float, hop: float, sessions: int, repeats: int
) -> HopCost:
    model, _ = load(checkpoint, window=round(window * TICK_RATE))
    size = round(hop * TICK_RATE)
    stream = _Stream(model, size, sessions)
    hops = round(window / hop)
    for _ in range(hops + 1):
        stream.step()
    whole, now = _ticks(model, 0, hops * size, sessions), torch.full((sessions, 1), hops * size)
    incremental, recompute = [], []
    for _ in range(ROUNDS):
        incremental += [stream.step() for _ in range(repeats // ROUNDS)]
        recompute += [_seconds(lambda: model(whole, now)) for _ in range(repeats // ROUNDS)]
    flops, read = work(model, size)
    return HopCost(
        window,
        hop,
        sessions,
        *_milliseconds(incremental, sessions),
        *_milliseconds(recompute, sessions),
        float(np.median(recompute) / np.median(incremental)),
        flops / 1e6,
        read / 1e6,
        max(flops / best.gflops, read / best.gigabytes) / 1e6,
    )


@torch.inference_mode()
def exported_cost(
    path: Path,
    checkpoint: str = "default",
    *,
    hop: float = 0.5,
    sessions: int = 1,
    repeats: int = 200,
) -> Exported:
    """Time the hops of an exported file beside those of torch, on one thread and in turns.

    Args:
        path: Written by `tamulag export --onnx`, for a window that is a multiple of the hop.
        checkpoint: That it was made from.
        hop: Seconds, a multiple of 0.1.
        sessions: Stepped together, and their windows together.
        repeats: Hops that are timed each way, at least 10.

    Raises:
        CheckpointError: If one of the two files cannot be used, or they do not fit.
    """
    torch.set_num_threads(1)
    model, _ = load(checkpoint, window=window_of(path))
    onnx = OnnxStep(path, model, checkpoint)
    size, window = round(hop * TICK_RATE), model.config.window
    streams = [_Stream(model, size, sessions, step) for step in (model.step, onnx.step)]
    for _ in range(window // size + 1):
        for stream in streams:
            stream.step()
    whole, now = _ticks(model, 0, window, sessions), torch.full((sessions, 1), window)
    start = model.initial_state(sessions)
    ways: list[Callable[[], float]] = [
        *(stream.step for stream in streams),
        lambda: _seconds(lambda: model(whole, now)),
        lambda: _seconds(lambda: onnx.step(whole, now, start)),
    ]
    took: list[list[float]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        for way, times in zip(ways, took, strict=True):
            times += [way() for _ in range(repeats // ROUNDS)]
    milliseconds = [1000 * float(np.median(times)) / sessions for times in took]
    ratios = [window_ms / milliseconds[1] for window_ms in milliseconds[2:]]
    return Exported(window / TICK_RATE, hop, sessions, *milliseconds, *ratios)


class _Stream:
    """Sessions without a source: each step is a hop of everything."""

    def __init__(self, model: TamUlag, size: int, sessions: int, step: Step | None = None) -> None:
        self._model, self._size, self._sessions = model, size, sessions
        self._step = step or model.step
        self._state: State = model.initial_state(sessions)
        self._end = 0

    def step(self) -> float:
        """Return the seconds that the model takes."""
        ticks = _ticks(self._model, self._end, self._size, self._sessions)
        self._end += self._size
        now = torch.full((self._sessions, 1), self._end)
        allowed = torch.ones(self._sessions, 1, len(MODALITIES), dtype=torch.bool)
        begin = time.perf_counter()
        _, self._state = self._step(ticks, now, self._state, allowed, None)
        return time.perf_counter() - begin


def _ticks(model: TamUlag, start: int, size: int, sessions: int = 1) -> dict[str, Ticks]:
    """Return what the modalities bring in `size` ticks from tick `start` on."""
    branches = {name: _branch(model, name) for name in MODALITIES}
    periods = {n: branch.config.period for n, branch in branches.items()}
    periods["text"] = TICK_RATE // TOKENS
    return {n: _some(b, start, size, periods[n], sessions) for n, b in branches.items()}


def _some(branch: Branch, start: int, size: int, period: int, sessions: int) -> Ticks:
    time = torch.arange(start, start + size, period).expand(sessions, -1)
    values = torch.randn(*time.shape, branch.config.dim)
    return Ticks(values, torch.ones_like(time, dtype=torch.bool), time, time + period)


def _branch(model: TamUlag, name: str) -> Branch:
    branch: Branch = getattr(model, name)
    return branch


def work(model: TamUlag, size: int) -> tuple[float, float]:
    """Return what a hop of `size` ticks needs: floating point operations, and bytes to be read.

    Every weight matrix is used once for each tick of its modality, those behind the attention once
    for each hop; pooling reads every remembered state once. Additions of vectors are left out.
    """
    ticks = _ticks(model, 0, size)
    flops, read = 0.0, 4.0 * sum(p.numel() for p in model.parameters())
    inside: set[nn.Parameter] = set()
    for name in MODALITIES:
        branch = _branch(model, name)
        each = [*branch.encoder.parameters(), *branch.attention.parameters()]
        inside.update(each)
        flops += 2.0 * ticks[name].mask.shape[1] * _matrices(each)
        flops += 2.0 * branch.memory * branch.encoder.size
        read += 4.0 * branch.memory * (branch.encoder.size + 1)
    return flops + 2.0 * _matrices([p for p in model.parameters() if p not in inside]), read


def _matrices(parameters: Sequence[Tensor]) -> int:
    return sum(p.numel() for p in parameters if p.dim() == 2)


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _milliseconds(seconds: Sequence[float], sessions: int) -> tuple[float, float]:
    median, slowest = np.percentile(seconds, (50, 99)) * 1000 / sessions
    return float(median), float(slowest)


def _best(call: Callable[[], object]) -> float:
    return min(_seconds(call) for _ in range(_TRIES))


def _processor() -> str:
    """Return the processor's name, from Linux's own table where there is one."""
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
