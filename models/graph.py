"""Writes the step function of a checkpoint as an ONNX file, and compares the file with torch.

Knows the model's parts and torch's exporter. Does not know how the file is run (`engine`).

Shapes: B sessions, one hop, T ticks, D features, H hidden units, R remembered ticks.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from .attention import Memory, Pooled
from .branch import Branch
from .checkpoint import CheckpointError
from .encoder import Encoder, EncoderState, Ticks
from .engine import FEATURES, OnnxStep, made_from
from .tam_ulag import MODALITIES, Output, State, TamUlag

TOLERANCE = 1e-4
"""Largest difference from torch with which a file may be used."""
GATES = (0, 3, 1, 2)
"""torch has the gates in the order i, f, g, o; ONNX in i, o, f, c, where c is g."""
TICKS = ("values", "count", "time", "ready")
HOP = 25


class _Layer(nn.Module):
    """One layer of an LSTM as ONNX's operator, which takes the length of each row."""

    inputs: Tensor
    recurrent: Tensor
    bias: Tensor

    def __init__(self, lstm: nn.LSTM, layer: int) -> None:
        super().__init__()
        self.hidden = lstm.hidden_size
        found = {
            name: _reordered(getattr(lstm, f"{name}_l{layer}").detach())
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        self.register_buffer("inputs", found["weight_ih"].unsqueeze(0))
        self.register_buffer("recurrent", found["weight_hh"].unsqueeze(0))
        self.register_buffer("bias", torch.cat([found["bias_ih"], found["bias_hh"]]).unsqueeze(0))

    def forward(
        self, x_TBD: Tensor, lengths_B: Tensor, h_BH: Tensor, c_BH: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the hidden states (T, B, H) and the last h and c, (B, H)."""
        T, B, _ = x_TBD.shape
        h_TKBH, h_KBH, c_KBH = torch.onnx.ops.symbolic_multi_out(
            "LSTM",
            (
                *(x_TBD, self.inputs, self.recurrent, self.bias, lengths_B),
                *(h_BH.unsqueeze(0), c_BH.unsqueeze(0)),
            ),
            {"hidden_size": self.hidden},
            dtypes=[x_TBD.dtype] * 3,
            shapes=[[T, 1, B, self.hidden], [1, B, self.hidden], [1, B, self.hidden]],
        )
        return h_TKBH.squeeze(1), h_KBH.squeeze(0), c_KBH.squeeze(0)


def _reordered(weight: Tensor) -> Tensor:
    parts = weight.chunk(len(GATES))
    return torch.cat([parts[index] for index in GATES])


class _StepGraph(nn.Module):
    """`TamUlag.step` for one hop, as a function of a flat list of tensors."""

    def __init__(self, model: TamUlag) -> None:
        super().__init__()
        self.model = model
        self.layers = nn.ModuleDict(
            {name: _layers(getattr(model, name).encoder) for name in MODALITIES}
        )
        self.states = {name: _changing(getattr(model, name).encoder) for name in MODALITIES}

    @property
    def inputs(self) -> list[str]:
        """The names of the arguments, in order."""
        ticks = [f"ticks.{name}.{key}" for name in MODALITIES for key in TICKS]
        return [*ticks, "now", "allowed", *self._of_states("state")]

    @property
    def outputs(self) -> list[str]:
        """The names of the results, in order."""
        pooled = [f"attention.{name}.{key}" for name in MODALITIES for key in Pooled._fields]
        features = [f"features.{name}" for name in FEATURES]
        first = list(Output._fields[:4])
        return [*first, *pooled, *features, *self._of_states("next")]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the results for the arguments."""
        given = dict(zip(self.inputs, tensors, strict=True))
        pooled, changed = [], []
        for name in MODALITIES:
            out, after = self._branch(name, given)
            pooled.append(out)
            changed += [after[key] for key in self.states[name]]
        output = self.model.decide(pooled, given["allowed"])
        states = [tensor for part in pooled for tensor in part]
        return (*output[:4], *states, *output.features, *changed)

    def _of_states(self, prefix: str) -> list[str]:
        return [f"{prefix}.{name}.{key}" for name in MODALITIES for key in self.states[name]]

    def _branch(self, name: str, given: Mapping[str, Tensor]) -> tuple[Pooled, dict[str, Tensor]]:
        branch: Branch = getattr(self.model, name)
        count = given[f"ticks.{name}.count"]
        ticks = _cleared(*(given[f"ticks.{name}.{key}"] for key in TICKS))
        before = {
            key: given[f"state.{name}.{key}"]
            for key in EncoderState._fields
            if key in self.states[name]
        }
        # What no step changes is not given, and not looked at.
        encoder = branch.encoder.initial_state(1)._replace(**before)
        h_BTH, encoder = self._encode(name, ticks, count, encoder)
        memory = Memory(*(given[f"state.{name}.{key}"] for key in Memory._fields))
        memory = branch.attention.extend(memory, h_BTH, ticks)
        pooled = branch.attention.pool(memory, given["now"], branch.window)
        memory = _kept(memory, count, branch.memory)
        return branch.projected(pooled), encoder._asdict() | memory._asdict()

    def _encode(
        self, name: str, ticks: Ticks, count_B: Tensor, state: EncoderState
    ) -> tuple[Tensor, EncoderState]:
        """Do what `Encoder.step` does, with ONNX's operator for the packed LSTM."""
        x_BTD, state = getattr(self.model, name).encoder.standardise(ticks, state)
        x_TBD, hidden, cells = x_BTD.transpose(0, 1), [], []
        lengths = count_B.clamp(min=1).to(torch.int32)
        layers = self.layers[name]
        assert isinstance(layers, nn.ModuleList)
        for index, layer in enumerate(layers):
            x_TBD, h, c = layer(x_TBD, lengths, state.h[:, index], state.c[:, index])
            hidden.append(h)
            cells.append(c)
        if hidden:
            moved = (count_B > 0).view(-1, 1, 1)
            state = state._replace(
                h=torch.where(moved, torch.stack(hidden, dim=1), state.h),
                c=torch.where(moved, torch.stack(cells, dim=1), state.c),
            )
        return x_TBD.transpose(0, 1).masked_fill(~ticks.mask.unsqueeze(-1), 0.0), state


def _layers(encoder: Encoder) -> nn.ModuleList:
    if encoder.kind == "identity":
        return nn.ModuleList()
    return nn.ModuleList(_Layer(encoder.lstm, i) for i in range(encoder.lstm.num_layers))


def _changing(encoder: Encoder) -> list[str]:
    """Return the names of the states that a step may change."""
    recurrent = [] if encoder.kind == "identity" else ["h", "c"]
    return [*recurrent, *(["level"] if encoder.centred else []), *Memory._fields]


def _cleared(values: Tensor, count_B: Tensor, time: Tensor, ready: Tensor) -> Ticks:
    """Return what `compact` returns, of ticks that are compact but for what lies behind them.

    The values there stay: no operator behind reads them, and to clear them costs memory traffic.
    """
    mask = torch.arange(values.shape[1]) < count_B.unsqueeze(1)
    return Ticks(
        values,
        mask,
        time.masked_fill(~mask, 0),
        ready.masked_fill(~mask, 0),
    )


def _kept(memory: Memory, count_B: Tensor, size: int) -> Memory:
    """Do what `forget` does, without its sort.

    The memory is right-justified and the valid new ticks come first, so that the last `size` valid
    states of a row begin as many places further on as it has got new ones.
    """
    place = torch.arange(size) + count_B.unsqueeze(1)
    row = torch.arange(place.shape[0]).unsqueeze(1)
    # Whole rows by index, single numbers by gather: each is the faster one in onnxruntime.
    rest = [part.gather(1, place) for part in memory[1:]]
    return Memory(memory.hidden[row, place], *rest)


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
    graph = _StepGraph(model.eval())
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


def _example(graph: _StepGraph) -> tuple[list[Tensor], list[dict[int, Dim]]]:
    """Return arguments of three sessions, and which of their sizes may change."""
    batch = Dim("batch")
    stream = next(_stream(graph.model, batch=3, hops=1, seed=0))
    given = {"now": stream[1], "allowed": stream[2]}
    shapes = {name: {0: batch} for name in graph.inputs}
    for length, name in enumerate(MODALITIES, 3):
        ticks = Ticks(*(part[:, :length] for part in stream[0][name]))
        new = (ticks.values, ticks.mask.sum(dim=1), ticks.time, ticks.ready)
        keys = [f"ticks.{name}.{key}" for key in TICKS]
        given |= dict(zip(keys, new, strict=True))
        many = Dim(f"{name}_ticks")
        shapes |= {key: {0: batch, 1: many} for key in (keys[0], *keys[2:])}
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


Hop = tuple[dict[str, Ticks], Tensor, Tensor]
"""New ticks, now (B, 1) and allowed (B, 1, 3)."""


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
        yield ticks, now, chance(batch, 1, len(MODALITIES)) > 0.2


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
        for ticks, now, allowed in _stream(model, batch=batch, hops=hops, seed=batch):
            wanted, ours = model.step(ticks, now, ours, allowed)
            found, theirs = onnx.step(ticks, now, theirs, allowed)
            pairs = {
                "estimates": ((*wanted[:4], *wanted.features), (*found[:4], *found.features)),
                "attention": (_attention(model, wanted), _attention(model, found)),
                "states": (_tensors(ours), _tensors(theirs)),
            }
            for key, (these, those) in pairs.items():
                worst[key] = max(worst[key], *map(_apart, these, those))
    return worst


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
