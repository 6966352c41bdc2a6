"""Writes the step function of a checkpoint as an ONNX file, and compares the file with torch.

Knows the model's parts and torch's exporter. Does not know how the file is run (`engine`).

Shapes: B sessions, one hop, T ticks, D features, H hidden units, R remembered ticks.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim

from ..nn.constants import HOP
from ..nn.encoder import Ticks
from ..nn.tam_ulag import MODALITIES, SPOKEN, Output, State, TamUlag, Turns
from .checkpoint import CheckpointError
from .onnx_engine import OnnxStep, made_from
from .onnx_graph import TICKS, StepGraph

TOLERANCE = 1e-4
"""Largest difference from torch with which a file may be used."""


def export(model: TamUlag, checkpoint: str, out: Path) -> None:
    """Write the step function of a checkpoint as an ONNX file; takes some ten seconds.

    Args:
        model: From the checkpoint, with the window that sessions will have.
        checkpoint: Its name or path; its sha256 and the window go into the file.
        out: File to write, atomically.

    Raises:
        CheckpointError: If the model cannot step, or the exporter is not installed.
    """
    for name in MODALITIES:
        if getattr(model.config, name).bidirectional:
            raise CheckpointError(
                f"checkpoint {checkpoint} cannot be exported: {name}.bidirectional = true reads "
                f"whole sequences only; set it to false and train again"
            )
    if find_spec("onnxscript") is None:
        raise CheckpointError("export needs onnxscript: pip install tamulag-stream[onnx]")
    graph = StepGraph(model.eval())
    given, dynamic = _example(graph)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            tuple(given),
            dynamo=True,
            input_names=graph.inputs,
            output_names=graph.outputs,
            dynamic_shapes=(tuple(dynamic),),
            external_data=False,
            verbose=False,
        )
    assert program is not None  # it is None for the older exporter alone
    program.model.metadata_props.update(made_from(model, checkpoint))
    for node in program.model.graph:
        node.metadata_props.clear()  # where in our source and on this machine it came from
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_suffix(".partial")
    program.save(temporary, external_data=False)
    temporary.replace(out)


def _example(graph: StepGraph) -> tuple[list[Tensor], list[dict[int, Dim]]]:
    """Return arguments of three sessions, and which of their sizes may change."""
    batch = Dim("batch")
    stream = next(_stream(graph.model, batch=3, hops=1, seed=0))
    given = {"now": stream[1], "allowed": stream[2], **stream[3]._asdict()}
    shapes = {name: {0: batch} for name in graph.inputs}
    for length, name in enumerate(MODALITIES, 3):
        ticks = Ticks(*(part[:, :length] for part in stream[0][name]))
        keys = [f"ticks.{name}.{key}" for key in TICKS]
        given |= dict(zip(keys, ticks, strict=True))
        many = Dim(f"{name}_ticks")
        shapes |= {key: {0: batch, 1: many} for key in keys}
    for name, branch in zip(MODALITIES, graph.model.initial_state(3), strict=True):
        for part in branch:
            given |= {f"state.{name}.{key}": tensor for key, tensor in part._asdict().items()}
    return [given[name] for name in graph.inputs], [shapes[name] for name in graph.inputs]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from telling what it does and what of it is deprecated inside of torch."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


Hop = tuple[dict[str, Ticks], Tensor, Tensor, Turns]
"""New ticks, now (B, 1), allowed (B, 1, 3) and turns."""


def _stream(model: TamUlag, *, batch: int, hops: int, seed: int) -> Iterator[Hop]:
    """Yield random hops: masked ticks are NaN, rows are ragged, now and then a modality is absent.

    In the first hop every modality is there.
    """
    generator = torch.Generator().manual_seed(seed)

    def chance(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    for hop in range(hops):
        ticks = {}
        for name in MODALITIES:
            config, encoder = getattr(model.config, name), getattr(model, name).encoder
            time = hop * HOP + torch.arange(0, HOP, config.period).repeat(batch, 1)
            mask = chance(*time.shape) > chance(batch, 1)
            values = torch.randn(*time.shape, config.dim, generator=generator)
            values = values * encoder.deviation + encoder.mean
            values = values.masked_fill(~mask.unsqueeze(-1), torch.nan)
            if hop == 0 or chance(1) > 0.3:
                ticks[name] = Ticks(values, mask, time, time + config.period)
        now = torch.full((batch, 1), (hop + 1) * HOP)
        share = chance(batch, 1, len(SPOKEN))
        since = (now.unsqueeze(-1) - 4 * HOP * share).long()
        yield ticks, now, chance(batch, 1, len(MODALITIES)) > 0.2, Turns(since, share)


@torch.inference_mode()
def check(
    model: TamUlag, onnx: OnnxStep, *, batches: Sequence[int] = (1, 5), hops: int = 30
) -> dict[str, float]:
    """Step both through random streams, each with its own state, from the initial one.

    Args:
        model: In evaluation mode.
        onnx: What `export` wrote of it.
        batches: Sessions of each stream.
        hops: Of each stream.

    Returns:
        The largest differences of estimates, attention and states; above `TOLERANCE` the file must
        not be used.
    """
    worst = {"estimates": 0.0, "attention": 0.0, "states": 0.0}
    for batch in batches:
        ours = theirs = model.initial_state(batch)
        for ticks, now, allowed, turns in _stream(model, batch=batch, hops=hops, seed=batch):
            wanted, ours = model.step(ticks, now, ours, allowed, turns)
            found, theirs = onnx.step(ticks, now, theirs, allowed, turns)
            pairs = {
                "estimates": (_estimates(wanted), _estimates(found)),
                "attention": (_attention(model, wanted), _attention(model, found)),
                "states": (_tensors(ours), _tensors(theirs)),
            }
            for key, (these, those) in pairs.items():
                worst[key] = max(worst[key], *map(_apart, these, those))
    return worst


def _estimates(output: Output) -> list[Tensor]:
    scores = [output.sentiment, output.heads, output.present, output.weight, output.scale]
    return [*scores, *output.features]


def _attention(model: TamUlag, output: Output) -> list[Tensor]:
    """Return what was pooled, but for the shares of gates: of gates next to 0 they are noise."""
    tensors: list[Tensor] = []
    for name, pooled in zip(MODALITIES, output.attention, strict=True):
        is_gate = getattr(model.config, name).tam.startswith("gate")
        tensors += [pooled.context, pooled.present, pooled.time]
        tensors += [] if is_gate else [pooled.weight]
    return tensors


def _tensors(state: State) -> list[Tensor]:
    return [tensor for branch in state for part in branch for tensor in part]


def _apart(one: Tensor, other: Tensor) -> float:
    """Return the largest difference; infinity for other shapes, types, or NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return torch.inf
    if one.numel() == 0:
        return 0.0
    difference = (one.double() - other.double()).abs().max()
    return difference.nan_to_num(torch.inf).item()
