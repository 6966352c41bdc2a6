"""The step engine of torch: states of many sessions in fixed tensors, a row for each.

Knows the model's parts and what a hop brings. Knows no session's name, nor when its turn comes.

A step works in place on the rows of its own sessions alone, so the others keep their bits. For one
session alone the rows are slices, so that nothing is gathered or scattered.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..nn.constants import HOP, MODALITIES
from ..nn.encoder import Ticks
from ..nn.tam_ulag import Output, State, TamUlag, Turns
from .ring_state import RingState, Rows
from .step_engine import Attention, StepArrays, StepInput, TickArrays, Utterance

LONGEST_HOP = 3000
"""Ticks of the longest hop that there can be room for, 60 s."""

TOKENS, MOST_TOKENS = 64, 1024
"""Tokens of an utterance that there is room for at first, and that there can be room for."""

Step = Callable[
    [Mapping[str, Ticks], Tensor, State, Tensor | None, Turns | None],
    tuple[Output, State],
]
"""`TamUlag.step`, or what computes the same."""

Brought = Mapping[str, Sequence[tuple[int, TickArrays]]]
"""By modality the slots of the sessions that bring something, each with what it brings."""


class TorchEngine:
    """A `StepEngine`.

    Args:
        model: In evaluation mode.
        capacity: Sessions that have room, S.
        hop: Ticks of a hop; longer ones make room when they come, up to `LONGEST_HOP`.
        step: Computes what `model.step` does, by value; None: nothing else does.
        sizes: Numbers of sessions whose step is left to `step`.
    """

    def __init__(
        self,
        model: TamUlag,
        capacity: int = 1,
        *,
        hop: int = HOP,
        step: Step | None = None,
        sizes: Collection[int] = (1,),
    ) -> None:
        self.dims: Mapping[str, int] = {
            name: getattr(model.config, name).dim for name in MODALITIES
        }
        self._free = list(range(capacity))[::-1]
        self._model = model
        self._step, self._sizes = step, sizes
        self._rings = {}
        for name in MODALITIES:
            branch = getattr(model, name)
            room, most = hop // branch.config.period, LONGEST_HOP // branch.config.period
            if name == "text":
                room, most = TOKENS, MOST_TOKENS
            self._rings[name] = RingState(branch, capacity, room=room, most=most)
        text = self._rings["text"]
        names = ("h", "c", "level", "written")
        self._anchor = {name: getattr(text, name).clone() for name in names}
        """Text state before the utterance; the ring has room for one utterance behind it."""

    @property
    def free(self) -> int:
        """How many more sessions fit in."""
        return len(self._free)

    def open(self) -> int:
        """Return the slot of a new session; see `StepEngine`."""
        slot = self._free.pop()
        for ring in self._rings.values():
            ring.clear(slot)
        self._reset([slot], MODALITIES)
        return slot

    def close(self, slot: int) -> None:
        """Free a slot; see `StepEngine`."""
        self._free.append(slot)

    @torch.inference_mode()
    def step(self, slots: Sequence[int], inputs: Sequence[StepInput]) -> StepArrays:
        """Advance different sessions by one hop each; see `StepEngine`."""
        before = self._undo_point(slots)
        try:
            return self._advanced(slots, inputs)
        except Exception:
            self._undo(slots, before)
            raise

    def _advanced(self, slots: Sequence[int], inputs: Sequence[StepInput]) -> StepArrays:
        pairs = list(zip(slots, inputs, strict=True))
        for name in MODALITIES:
            self._reset([slot for slot, one in pairs if name in one.fresh], (name,))
        for number in range(max(len(one.utterances) for one in inputs) - 1):
            earlier = [
                (slot, one.utterances[number])
                for slot, one in pairs
                if number < len(one.utterances) - 1
            ]
            self._rewind(earlier)
            self._encode("text", [(slot, utterance.rows) for slot, utterance in earlier])
            self._save_ended(earlier)
        last = [(slot, one.utterances[-1]) for slot, one in pairs if one.utterances]
        self._rewind(last)
        brought = {
            name: [(slot, one.rows[name]) for slot, one in pairs if name in one.rows]
            for name in MODALITIES
        }
        brought["text"] = [(slot, utterance.rows) for slot, utterance in last]
        now = torch.tensor([[one.end] for one in inputs])
        allowed = torch.tensor([[one.allowed] for one in inputs])
        turns = Turns(
            torch.tensor([[one.since] for one in inputs]),
            torch.tensor([[one.share] for one in inputs]),
        )
        if self._step is not None and len(slots) in self._sizes:
            output = self._by_value(self._step, slots, brought, now, allowed, turns)
        else:
            output = self._in_place(slots, brought, now, allowed, turns)
        self._save_ended(last)
        return _arrays(output, has_scales=self._model.scales is not None)

    def read(self, slot: int) -> dict[str, npt.NDArray[np.generic]]:
        """Return a copy of a session's state by name; see `StepEngine`."""
        found = {f"anchor.{k}": part[slot].numpy().copy() for k, part in self._anchor.items()}
        unfinished = int(self._rings["text"].written[slot]) - int(found["anchor.written"])
        for modality, ring in self._rings.items():
            state = ring.read(slot, unfinished if modality == "text" else 0)
            found |= {f"{modality}.{name}": part for name, part in state.items()}
        return found

    def write(self, slot: int, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Let a session continue from what `read` returned; see `StepEngine`."""
        parts: dict[str, dict[str, npt.NDArray[np.generic]]] = {
            name: {} for name in ("anchor", *MODALITIES)
        }
        wrong = []
        for key, part in state.items():
            place, _, name = key.partition(".")
            if place in parts:
                parts[place][name] = part
            else:
                wrong.append(key)
        for modality, ring in self._rings.items():
            wrong += [f"{modality}.{name}" for name in ring.check(parts[modality])]
        anchor = {name: (part.shape, part.dtype.str) for name, part in parts["anchor"].items()}
        mine = {k: (tuple(v[0].shape), v[0].numpy().dtype.str) for k, v in self._anchor.items()}
        wrong += [f"anchor.{k}" for k in sorted(mine | anchor) if mine.get(k) != anchor.get(k)]
        if wrong:
            raise ValueError(
                f"state of another model, window or hop: {', '.join(wrong[:3])} do not fit; "
                "start the session from an empty state"
            )
        for modality, ring in self._rings.items():
            ring.write(slot, parts[modality])
        for name, part in parts["anchor"].items():
            self._anchor[name][slot] = torch.from_numpy(np.array(part))

    def _changing(self) -> list[Tensor]:
        """Return what a step changes and cannot compute again; what it adds to rings, it can."""
        rings = [part for ring in self._rings.values() for part in ring.progress]
        return [*rings, *self._anchor.values()]

    def _undo_point(self, slots: Sequence[int]) -> list[Tensor]:
        rows = _rows(slots)
        return [part[rows].clone() for part in self._changing()]

    def _undo(self, slots: Sequence[int], before: Sequence[Tensor]) -> None:
        rows = _rows(slots)
        for part, old in zip(self._changing(), before, strict=True):
            part[rows] = old

    def _in_place(
        self,
        slots: Sequence[int],
        brought: Brought,
        now_B1: Tensor,
        allowed: Tensor,
        turns: Turns,
    ) -> Output:
        rows, pooled = _rows(slots), []
        for name in MODALITIES:
            new = self._encode(name, brought[name])
            counts = [new.get(slot, 0) for slot in slots]
            pooled.append(self._rings[name].pool(rows, now_B1, counts, turns.of(name)))
        return self._model.decide(pooled, allowed)

    def _by_value(
        self,
        step: Step,
        slots: Sequence[int],
        brought: Brought,
        now_B1: Tensor,
        allowed: Tensor,
        turns: Turns,
    ) -> Output:
        everybody, ticks = torch.tensor(slots), {}
        for name, rows in brought.items():
            if any(len(one.mask) for _, one in rows):
                values, mask, time, ready = rows[0][1]
                nothing = TickArrays(values[:0], mask[:0], time[:0], ready[:0])
                of = dict(rows)
                ticks[name] = padded([of.get(slot, nothing) for slot in slots])
        state = State(*(self._rings[name].value(everybody) for name in MODALITIES))
        output, after = step(ticks, now_B1, state, allowed, turns)
        for name, part in ticks.items():
            self._rings[name].assign(everybody, part, getattr(after, name))
        return output

    def _reset(self, slots: Sequence[int], modalities: Collection[str]) -> None:
        if not slots:
            return
        for name in modalities:
            self._rings[name].reset(_rows(slots))
        if "text" in modalities:
            self._save_anchor(slots)

    def _rewind(self, utterances: Sequence[tuple[int, Utterance]]) -> None:
        """Go back to the anchors, which are here and now for utterances that begin."""
        if not utterances:
            return
        self._save_anchor([slot for slot, utterance in utterances if utterance.begins])
        rows, text = _rows([slot for slot, _ in utterances]), self._rings["text"]
        for name, part in self._anchor.items():
            getattr(text, name)[rows] = part[rows]

    def _save_ended(self, utterances: Sequence[tuple[int, Utterance]]) -> None:
        self._save_anchor([slot for slot, utterance in utterances if utterance.ends])

    def _save_anchor(self, slots: Sequence[int]) -> None:
        if slots:
            rows = _rows(slots)
            for name, part in self._anchor.items():
                part[rows] = getattr(self._rings["text"], name)[rows]

    def _encode(self, name: str, brought: Sequence[tuple[int, TickArrays]]) -> dict[int, int]:
        """Advance sessions by what they bring; return how many valid ticks, by slot."""
        brought = [(slot, rows) for slot, rows in brought if rows.mask.any()]
        if not brought:
            return {}
        slots = [slot for slot, _ in brought]
        ticks = padded([rows for _, rows in brought])
        counts = self._rings[name].encode(_rows(slots), ticks)
        return dict(zip(slots, counts, strict=True))


def _rows(slots: Sequence[int]) -> Rows:
    return slice(slots[0], slots[0] + 1) if len(slots) == 1 else torch.tensor(slots)


def _arrays(output: Output, *, has_scales: bool) -> StepArrays:
    """Return an output with N = 1 without the hops' axis."""
    columns = (output.sentiment, output.heads, output.present, output.weight)
    sentiment, heads, present, weight = (column[:, 0].numpy() for column in columns)
    text, audio, vision = (
        Attention(pooled.weight[:, 0].numpy(), pooled.time.numpy()) for pooled in output.attention
    )
    scale = output.scale[:, 0].numpy() if has_scales else None
    return StepArrays(sentiment, heads, present, weight, scale, (text, audio, vision))


def padded(rows: Sequence[TickArrays]) -> Ticks:
    """Return the rows of B sessions as one batch, the shorter ones filled up with masked ticks."""
    if len(rows) == 1:
        return Ticks(*(torch.from_numpy(part)[None] for part in rows[0]))
    longest = max(len(one.mask) for one in rows)
    if any(len(one.mask) < longest for one in rows):
        rows = [TickArrays(*(_filled(part, longest) for part in one)) for one in rows]
    return Ticks(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))


def _filled(part: np.ndarray, length: int) -> np.ndarray:
    return np.pad(part, [(0, length - len(part)), *[(0, 0)] * (part.ndim - 1)])
