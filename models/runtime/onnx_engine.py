"""Runs the step function of an exported file with onnxruntime, and times it beside torch.

Knows the names in the file, as `OnnxStep` lists them, and what it was made from. Does not know how
it is made (`graph`).

Shapes: B sessions, one hop, M = 3 modalities (text, audio, vision).
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..nn.attention import Memory, Pooled
from ..nn.branch import BranchState, Head
from ..nn.encoder import EncoderState, Ticks, compact
from ..nn.tam_ulag import MODALITIES, SPOKEN, TICK_RATE, Output, State, TamUlag, Turns
from .checkpoint import CheckpointError, resolve
from .checksums import sha256_of
from .ort_runner import Runner

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FORMAT = "tamulag-step-4"
SCORES = 5
"""Outputs before what was pooled: sentiment, heads, present, weight, scale."""
_FEATURES = SCORES + len(MODALITIES) * len(Pooled._fields)
"""Place of the first of the features among the outputs; behind them are the states."""
BATCHES = (1, 4, 16, 64, 256)


class OnnxStep:
    """The exported step function, in place of `TamUlag.step`.

    The file's inputs, M being a modality: `ticks.M.values` (B, T, D), `ticks.M.mask` (B, T), of
    which the leading ones are True, `ticks.M.time` and `ticks.M.ready` (B, T), `now` (B, 1),
    `allowed` (B, 1, 3), `since` and `share` (B, 1, 2) of the turns and `state.M.*`; T is at least
    1. Its outputs: `sentiment`, `heads`, `present`, `weight`, `scale`, `attention.M.*`,
    `features.*` and `next.M.*`. What a step never changes is not among the states.

    Args:
        path: Written by `tamulag export --onnx`.
        model: From the checkpoint, with the window of the session.
        checkpoint: Name or path of that checkpoint.
        threads: Of one step.

    Raises:
        CheckpointError: If the file is missing or damaged, or of another checkpoint or window.
    """

    def __init__(self, path: Path, model: TamUlag, checkpoint: str, *, threads: int = 1) -> None:
        self._model = model
        self._session = _opened(path, threads)
        made = self._session.get_modelmeta().custom_metadata_map
        for key, wanted in made_from(model, checkpoint).items():
            if made.get(key) != wanted:
                raise CheckpointError(
                    f"{path} has {key} {made.get(key)!r}, the session {wanted!r}: "
                    f"tamulag export --onnx {path} --checkpoint {checkpoint} "
                    f"--window {model.config.window / TICK_RATE:g}"
                )
        self._run = Runner(self._session)
        self._states = _FEATURES + len(heads_of(model))
        self._changing = [_changing(self._run.inputs, name) for name in MODALITIES]

    def step(
        self,
        ticks: Mapping[str, Ticks],
        now_BN: Tensor,
        state: State,
        allowed_BNM: Tensor | None = None,
        turns: Turns | None = None,
    ) -> tuple[Output, State]:
        """Advance every session by new ticks and score one hop; see `TamUlag.step`.

        Raises:
            ValueError: If there is more than one hop, or a shape does not fit.
        """
        if now_BN.shape[1] != 1:
            raise ValueError(f"{now_BN.shape[1]} hops at once: the exported step takes one")
        new = [compact(self._model._checked(n, ticks.get(n), now_BN)) for n in MODALITIES]
        if allowed_BNM is None:
            allowed_BNM = torch.ones(len(now_BN), 1, len(MODALITIES), dtype=torch.bool)
        if turns is None:
            since = now_BN.new_zeros(len(now_BN), 1, len(SPOKEN))
            turns = Turns(since, torch.ones_like(since, dtype=torch.float32))
        given: list[Tensor] = []
        for one in new:
            given += one if one.mask.shape[1] else _place(one)
        given += now_BN, allowed_BNM, *turns
        for (encoder, memory), changing in zip(state, self._changing, strict=True):
            given += encoder[changing]
            given += memory
        found = self._run(given)
        return _output(found, new, self._states), self._next(found, state)

    def _next(self, found: Sequence[Tensor], state: State) -> State:
        place, branches = self._states, []
        for (encoder, memory), changing in zip(state, self._changing, strict=True):
            middle = place + changing.stop - changing.start
            after = [*encoder]
            after[changing] = found[place:middle]
            place = middle + len(memory)
            branches.append(BranchState(EncoderState(*after), Memory(*found[middle:place])))
        return State(*branches)


def heads_of(model: TamUlag) -> dict[str, Head]:
    """Return the heads whose F* are `Output.features`, by name."""
    alone = {name: getattr(model, name).head for name in MODALITIES}
    return alone if model.config.shares else {"fused": model.head} | alone


def made_from(model: TamUlag, checkpoint: str) -> dict[str, str]:
    """Return what must be equal for an exported file to stand for a model.

    Raises:
        CheckpointError: If the checkpoint is missing.
    """
    return {
        "format": FORMAT,
        "checkpoint_sha256": sha256_of(resolve(checkpoint)),
        "window": str(model.config.window),
    }


def window_of(path: Path) -> int:
    """Return the window of an exported file, in ticks.

    Raises:
        CheckpointError: If the file is missing, damaged, or not of `tamulag export`.
    """
    made = _opened(path, 1).get_modelmeta().custom_metadata_map
    if not made.get("window", "").isdigit():
        raise CheckpointError(f"{path} names no window: tamulag export --onnx {path}")
    return int(made["window"])


def _opened(path: Path, threads: int) -> "InferenceSession":
    import onnxruntime

    if not path.is_file():
        raise CheckpointError(f"{path} not found: tamulag export --onnx {path}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own have no class in common
        raise CheckpointError(
            f"{path} cannot be run ({error}): tamulag export --onnx {path}"
        ) from error


def _place(none: Ticks) -> Ticks:
    """Return one invalid tick instead of none: the graph wants at least one."""
    values = none.values.new_zeros(len(none.values), 1, none.values.shape[2])
    time = none.time.new_zeros(len(none.time), 1)
    return Ticks(values, time.bool(), time, time)


def _changing(inputs: Sequence[str], name: str) -> slice:
    """Return which of a modality's encoder states, which are in a row, are among the inputs."""
    fields = [f"state.{name}.{key}" in inputs for key in EncoderState._fields]
    first = fields.index(True) if True in fields else 0
    return slice(first, first + sum(fields))


def _output(found: Sequence[Tensor], new: Sequence[Ticks], states: int) -> Output:
    """Return the outputs before the states, the first of which stands at that place."""
    size = len(Pooled._fields)
    text, audio, vision = (
        Pooled(*found[place : place + size]) for place in range(SCORES, _FEATURES, size)
    )
    pooled = text, audio, vision
    if not all(one.mask.shape[1] for one in new):
        text, audio, vision = (
            part if one.mask.shape[1] else _without_last(part)
            for part, one in zip(pooled, new, strict=True)
        )
        pooled = text, audio, vision
    sentiment, heads, present, weight, scale = found[:SCORES]
    features = tuple(found[_FEATURES:states])
    return Output(sentiment, heads, present, weight, scale, pooled, features)


def _without_last(pooled: Pooled) -> Pooled:
    """Return what was pooled, without the tick that filled the place of none."""
    return pooled._replace(weight=pooled.weight[..., :-1], time=pooled.time[..., :-1])


class Speed(NamedTuple):
    """How long a step takes, medians in seconds."""

    batch: int
    words: int
    """Tokens of text; beside them are 25 ticks of audio and 5 of vision, as in 0.5 s."""
    torch: float
    onnxruntime: float


@torch.inference_mode()
def faster(
    model: TamUlag,
    onnx: OnnxStep,
    batches: Sequence[int] = BATCHES,
    *,
    words: Sequence[int] = (0, 20),
    repeats: int = 9,
) -> list[Speed]:
    """Time both engines on this machine, in turns; a batch of one takes some 30 ms.

    Args:
        model: With as many threads as torch has now.
        onnx: Of the same checkpoint.
        batches: Sessions per step.
        words: Tokens of text per step.
        repeats: Steps of each engine per row, after one that is not counted.
    """
    return [_timed(model, onnx, batch, count, repeats) for batch in batches for count in words]


def _timed(model: TamUlag, onnx: OnnxStep, batch: int, words: int, repeats: int) -> Speed:
    counts = {"text": words, "audio": 25, "vision": 5}
    ticks = {name: _some(model, name, batch, count) for name, count in counts.items() if count}
    now = torch.full((batch, 1), 25)
    allowed = torch.ones(batch, 1, len(MODALITIES), dtype=torch.bool)
    _, state = model.step(ticks, now, model.initial_state(batch), allowed)
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 1):
        for step, times in zip((model.step, onnx.step), took, strict=True):
            begin = time.perf_counter()
            step(ticks, now, state, allowed)
            times.append(time.perf_counter() - begin)
    return Speed(batch, words, *(statistics.median(times[1:]) for times in took))


def _some(model: TamUlag, name: str, batch: int, count: int) -> Ticks:
    config = getattr(model.config, name)
    when = torch.arange(0, count * config.period, config.period).repeat(batch, 1)
    values = torch.randn(batch, count, config.dim, generator=torch.Generator().manual_seed(count))
    return Ticks(values, torch.ones_like(when, dtype=torch.bool), when, when + config.period)
