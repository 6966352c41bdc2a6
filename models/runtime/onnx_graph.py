"""`TamUlag.step` for one hop, written for runtimes in which every operator costs about the same.

Knows the model's parts and ONNX's operators. Does not know how a file is written (`graph`) or run
(`engine`).

A step of one session is a few hundred operators of which five do the arithmetic, so this has as few
as it can: no axis for the hop, masks of compact ticks, no sort in what is forgotten, and layers
that stand side by side as one.

Shapes: B sessions, T new ticks, R remembered ones, S = R + T, D features, L layers, H hidden units.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from ..nn.attention import Memory, Pooled, Turn, masked_softmax
from ..nn.branch import Branch, Head
from ..nn.encoder import Encoder
from ..nn.fusion import SemanticFusion
from ..nn.tam_ulag import MODALITIES, Output, TamUlag, Turns, bounded, weighed
from .onnx_engine import SCORES, heads_of

GATES = (0, 3, 1, 2)
"""torch has the gates in the order i, f, g, o; ONNX in i, o, f, c, where c is g."""
PAIRS = tuple(combinations(range(len(MODALITIES)), 2))
TICKS = ("values", "mask", "time", "ready")


class StepGraph(nn.Module):
    """The step as a function of a flat list of tensors; `engine.OnnxStep` lists them."""

    def __init__(self, model: TamUlag) -> None:
        super().__init__()
        self.model = model
        branches: list[Branch] = [getattr(model, name) for name in MODALITIES]
        self.branches = nn.ModuleDict(
            {name: _BranchGraph(branch) for name, branch in zip(MODALITIES, branches, strict=True)}
        )
        self.heads = _Heads(list(heads_of(model).values()))
        self.fusion = _Hadamard(model.fusion) if model.config.fusion == "hadamard" else model.fusion
        self.states = {name: _changing(getattr(model, name).encoder) for name in MODALITIES}

    @property
    def inputs(self) -> list[str]:
        """The names of the arguments, in order."""
        ticks = [f"ticks.{name}.{key}" for name in MODALITIES for key in TICKS]
        return [*ticks, "now", "allowed", "since", "share", *self._of_states("state")]

    @property
    def outputs(self) -> list[str]:
        """The names of the results, in order."""
        pooled = [f"attention.{name}.{key}" for name in MODALITIES for key in Pooled._fields]
        features = [f"features.{name}" for name in heads_of(self.model)]
        first = list(Output._fields[:SCORES])
        return [*first, *pooled, *features, *self._of_states("next")]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the results for the arguments."""
        given = dict(zip(self.inputs, tensors, strict=True))
        now_B1 = given["now"]
        oldest_B1 = now_B1 - self.model.config.window
        turns = Turns(given["since"].squeeze(1), given["share"].squeeze(1))
        pooled, changed = [], []
        for name, branch in self.branches.items():
            ticks, state = _of(given, f"ticks.{name}"), _of(given, f"state.{name}")
            out, after = branch(ticks, state, now_B1, oldest_B1, turns.of(name))
            pooled.append(out)
            changed += [after[key] for key in self.states[name]]
        *scores, features = self._decide(pooled, given["allowed"])
        states = [tensor for part in pooled for tensor in part]
        return (*scores, *states, *features, *changed)

    def _decide(self, pooled: Sequence[Pooled], allowed_B1M: Tensor) -> tuple[Tensor, ...]:
        present = torch.cat([p.present for p in pooled], dim=-1).unsqueeze(1) & allowed_B1M
        if len(self.model.config.fused) < len(MODALITIES):
            present = present & torch.tensor([n in self.model.config.fused for n in MODALITIES])
        contexts = [p.context for p in pooled]
        scales, scale = self.model.scales, None
        if scales is not None:
            scale = scales(contexts, [p.weight for p in pooled])
        shares = self.model.config.shares
        if shares:
            features, found = self.heads(contexts)
            alone = bounded(found)
            sentiment, weight = weighed(alone, present, shares, scale)
        else:
            fused, weight = self.fusion(contexts, present)
            features, found = self.heads([fused, *contexts])
            scores = bounded(found)
            sentiment, alone = scores[..., 0], scores[..., 1:]
        scale = torch.ones_like(alone) if scale is None else scale
        return sentiment, alone, present, weight, scale, features

    def _of_states(self, prefix: str) -> list[str]:
        return [f"{prefix}.{name}.{key}" for name in MODALITIES for key in self.states[name]]


def _of(given: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix + "."): tensor
        for key, tensor in given.items()
        if key.startswith(prefix + ".")
    }


def _changing(encoder: Encoder) -> list[str]:
    """Return the names of the states that a step may change."""
    recurrent = [] if encoder.kind == "identity" else ["h", "c"]
    return [*recurrent, *(["level"] if encoder.centred else []), *Memory._fields]


class _BranchGraph(nn.Module):
    """What one modality does with its ticks and its state."""

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.branch = branch
        layers = 0 if branch.encoder.kind == "identity" else branch.encoder.lstm.num_layers
        self.layers = nn.ModuleList(
            _Layer(branch.encoder.lstm, i, None if i else branch.encoder.deviation)
            for i in range(layers)
        )

    def forward(
        self,
        ticks: dict[str, Tensor],
        state: dict[str, Tensor],
        now_B1: Tensor,
        oldest_B1: Tensor,
        turn: Turn | None,
    ) -> tuple[Pooled, dict[str, Tensor]]:
        """Return what is pooled and the states after the hop."""
        mask_BT = ticks["mask"]
        count_B1 = mask_BT.sum(dim=1, keepdim=True)
        x_BTD, after = self._standardised(ticks["values"], mask_BT, state)
        h_BTH, recurrent = self._recurred(x_BTD, mask_BT, count_B1, state)
        # Of invalid ticks neither energy nor time is ever looked at: no window has them inside.
        energy = self.branch.attention.energy(h_BTH)
        new = Memory(h_BTH, energy, mask_BT, ticks["time"], ticks["ready"])
        memory = Memory(*(torch.cat([state[k], x], dim=1) for k, x in new._asdict().items()))
        pooled = self._pooled(memory, now_B1, oldest_B1, turn)
        stored = _kept(memory, count_B1, self.branch.memory)
        return self.branch.projected(pooled), after | recurrent | stored._asdict()

    def _standardised(
        self, values: Tensor, mask_BT: Tensor, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Do what `Encoder.standardise` does."""
        encoder, after = self.branch.encoder, {}
        if encoder.centred:
            running, after["level"] = _running(encoder, values, mask_BT, state["level"])
            values = values - nn.functional.pad(running, (0, values.shape[-1] - encoder.centred))
        values = values - encoder.mean
        # The first recurrent layer has the deviations in its weights.
        return values if self.layers else values / encoder.deviation, after

    def _recurred(
        self, x_BTD: Tensor, mask_BT: Tensor, count_B1: Tensor, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Do what the recurrent layers do; a row without a valid tick keeps its state."""
        if not self.layers:
            return torch.where(mask_BT.unsqueeze(-1), x_BTD, 0.0), {}
        # Of a row of length 0 the operator gives zeros, for the states as well.
        x_TBD, lengths = x_BTD.transpose(0, 1), count_B1.squeeze(1).to(torch.int32)
        before_2LBH = torch.cat([state["h"], state["c"]], dim=1).transpose(0, 1)
        starts, ends, L = before_2LBH.split(1), [], len(self.layers)
        for layer, h_1BH, c_1BH in zip(self.layers, starts[:L], starts[L:], strict=True):
            x_TBD, *last = layer(x_TBD, lengths, h_1BH, c_1BH)
            ends.append(last)
        after_2LBH = torch.cat([h for h, _ in ends] + [c for _, c in ends])
        after_2LBH = torch.where(count_B1.bool(), after_2LBH, before_2LBH)
        h_BLH, c_BLH = after_2LBH.transpose(0, 1).split(L, dim=1)
        return x_TBD.transpose(0, 1), {"h": h_BLH, "c": c_BLH}

    def _pooled(
        self, memory: Memory, now_B1: Tensor, oldest_B1: Tensor, turn: Turn | None
    ) -> Pooled:
        """Do what `TemporalAttention.pool` does for one hop."""
        attention = self.branch.attention
        inside = memory.mask & (memory.time < now_B1) & (memory.time >= oldest_B1)
        inside = inside & (memory.ready <= now_B1)
        if turn is None:
            weight = attention.factors(memory.energy, inside)
        else:
            is_new = memory.time >= turn.since.unsqueeze(-1)
            weight = attention.blended(memory.energy, inside, is_new, turn.share.unsqueeze(-1))
        context = weight.unsqueeze(1) @ memory.hidden
        there = _any(inside)
        return Pooled(context, there, attention.shares(weight).unsqueeze(1), memory.time)


def _running(
    encoder: Encoder, values: Tensor, mask_BT: Tensor, level: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the means that `Encoder.centre` takes away, (B, T, C), and the next level."""
    # A number as the base would be one of float32 in an exported graph.
    decay = torch.tensor(1 - 1 / encoder.horizon, dtype=torch.float64)
    valid = mask_BT.unsqueeze(-1)
    one = valid.double()
    # Behind the valid ticks neither the power nor the sum goes on, so the last is the next level.
    power = decay ** one.cumsum(dim=1)
    here = values[..., : encoder.centred].double()
    sums = torch.cat([torch.where(valid, here, 0.0), one], dim=-1) / power
    levels = (sums.cumsum(dim=1) + level.unsqueeze(1)) * power
    mean, count = levels.split([encoder.centred, 1], dim=-1)
    return (mean / count).float(), levels[:, -1]


def _any(inside: Tensor) -> Tensor:
    """Return (B, 1); the exporter's own form goes by way of whole numbers and back."""
    there: Tensor = torch.onnx.ops.symbolic(
        "ReduceMax", (inside, torch.tensor([-1])), dtype=torch.bool, shape=(inside.shape[0], 1)
    )
    return there


def _kept(memory: Memory, count_B1: Tensor, size: int) -> Memory:
    """Do what `forget` does, without its sort.

    The memory is right-justified and the valid new ticks come first, so that the last `size` valid
    states of a row begin as many places further on as it has got new ones.
    """
    place = torch.arange(size) + count_B1
    hidden = torch.onnx.ops.symbolic(
        "GatherND",
        (memory.hidden, place.unsqueeze(-1)),
        {"batch_dims": 1},
        dtype=memory.hidden.dtype,
        shape=(*place.shape, memory.hidden.shape[-1]),
    )
    # Whole rows as above, single numbers by gather: each is the faster one in onnxruntime.
    return Memory(hidden, *(part.gather(1, place) for part in memory[1:]))


class _Layer(nn.Module):
    """One layer of an LSTM as ONNX's operator, which takes the length of each row."""

    inputs: Tensor
    recurrent: Tensor
    bias: Tensor

    def __init__(self, lstm: nn.LSTM, layer: int, deviation: Tensor | None) -> None:
        super().__init__()
        self.hidden = lstm.hidden_size
        found = {
            name: _reordered(getattr(lstm, f"{name}_l{layer}").detach())
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        if deviation is not None:
            found["weight_ih"] = found["weight_ih"] / deviation
        self.register_buffer("inputs", found["weight_ih"].unsqueeze(0))
        self.register_buffer("recurrent", found["weight_hh"].unsqueeze(0))
        self.register_buffer("bias", torch.cat([found["bias_ih"], found["bias_hh"]]).unsqueeze(0))

    def forward(
        self, x_TBD: Tensor, lengths_B: Tensor, h_1BH: Tensor, c_1BH: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the hidden states (T, B, H) and the last h and c, (1, B, H)."""
        T, B, _ = x_TBD.shape
        h_T1BH, h_1BH, c_1BH = torch.onnx.ops.symbolic_multi_out(
            "LSTM",
            (x_TBD, self.inputs, self.recurrent, self.bias, lengths_B, h_1BH, c_1BH),
            {"hidden_size": self.hidden},
            dtypes=[x_TBD.dtype] * 3,
            shapes=[[T, 1, B, self.hidden], [1, B, self.hidden], [1, B, self.hidden]],
        )
        return h_T1BH.squeeze(1), h_1BH, c_1BH


def _reordered(weight: Tensor) -> Tensor:
    parts = weight.chunk(len(GATES))
    return torch.cat([parts[index] for index in GATES])


def _side_by_side(layers: Iterable[nn.Module]) -> nn.Linear:
    """Return one layer that does to concatenated inputs what each of some does to its own."""
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    weight = torch.block_diag(*(linear.weight.detach() for linear in linears))
    return _linear(weight, torch.cat([linear.bias.detach() for linear in linears]))


def _stacked(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """Return one layer that gives what two give, one after the other."""
    return _linear(
        torch.cat([first.weight.detach(), second.weight.detach()]),
        torch.cat([first.bias.detach(), second.bias.detach()]),
    )


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = weight, bias
    return layer


class _Heads(nn.Module):
    """The heads of the fusion, if it has one, and of each modality, side by side."""

    def __init__(self, heads: Sequence[Head]) -> None:
        super().__init__()
        self.cut, self.sizes = heads[0].cut, [head.size for head in heads]
        self.stages = nn.ModuleList(
            _side_by_side(same) if isinstance(same[0], nn.Linear) else same[0]
            for same in zip(*heads, strict=True)
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return F* of each head, and the unbounded scores (B, 1, 3 or 4)."""
        x, features = torch.cat(list(inputs), dim=-1), ()
        for number, stage in enumerate(self.stages):
            if number == self.cut:
                features = x.split(self.sizes, dim=-1)
            x = stage(x)
        return features, x


class _Hadamard(nn.Module):
    """`SemanticFusion` of the form `hadamard`, its layers side by side."""

    def __init__(self, fusion: SemanticFusion) -> None:
        super().__init__()
        self.shape = (2 * len(fusion.gate), -1)
        self.both = _stacked(_side_by_side(fusion.project), _side_by_side(fusion.gate))

    def forward(self, contexts: Sequence[Tensor], present_B1M: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fused vector (B, 1, size) and the modalities' weights (B, 1, M)."""
        both = self.both(torch.cat(list(contexts), dim=-1)).unflatten(-1, self.shape)
        terms, gates = both.chunk(2, dim=2)
        there = present_B1M.unsqueeze(-1)
        terms = torch.where(there, torch.tanh(terms), 0.0)
        weight = masked_softmax(gates, there, dim=2)
        first, second = (terms.index_select(2, of) for of in torch.tensor(PAIRS).unbind(1))
        pairs = first * second
        vectors = torch.cat([weight * terms, pairs], dim=2).flatten(2)
        return torch.cat([vectors, present_B1M.to(terms.dtype)], dim=-1), weight.mean(dim=-1)
