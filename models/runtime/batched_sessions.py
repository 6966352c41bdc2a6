"""Many sessions stepped together, each with its own state in fixed tensors, a row for each.

Knows turns and the model's parts. Does not know whose rows they are, nor when their turn comes.

What `turn.take` does to one session by values, this does to many in place: only the rows of the
sessions whose turn it is are touched, so the others keep their bits.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..nn.encoder import Ticks
from ..nn.tam_ulag import MODALITIES, Output, State, TamUlag
from .ring_state import RingState
from .session_step import Step, StepInput, TickArrays, Utterance

TEXT_ROOM = 64
"""Most tokens of an utterance."""


class BatchedState:
    """The state of many sessions, and their steps together.

    Args:
        model: In evaluation mode.
        seats: Sessions that have room, S.
        hop: Most ticks of a turn.
        step: Computes what `model.step` does; None: nothing else does.
        sizes: Numbers of sessions whose step is left to `step`.
    """

    def __init__(
        self,
        model: TamUlag,
        seats: int,
        *,
        hop: int,
        step: Step | None = None,
        sizes: Collection[int] = (),
    ) -> None:
        self.free = list(range(seats))[::-1]
        """Seats that nobody has."""
        self._model = model
        self._step, self._sizes = step, sizes
        branches = {name: getattr(model, name) for name in MODALITIES}
        self._rings = {
            name: RingState(
                branch, seats, TEXT_ROOM if name == "text" else hop // branch.config.period
            )
            for name, branch in branches.items()
        }
        text = self._rings["text"]
        self._anchor = {
            "h": text.h.clone(),
            "c": text.c.clone(),
            "level": text.level.clone(),
            "written": text.written.clone(),
        }
        """Of the text before the utterance; the ring has room for one utterance behind it."""

    def open(self) -> int:
        """Give out a seat that has seen nothing.

        Raises:
            IndexError: If none is free.
        """
        slot = self.free.pop()
        for name in MODALITIES:
            self._reset(name, torch.tensor([slot]))
        return slot

    def close(self, slot: int) -> None:
        """Take a seat back."""
        self.free.append(slot)

    @torch.inference_mode()
    def step(self, slots: Sequence[int], turns: Sequence[StepInput]) -> Output:
        """Give different sessions one turn each.

        Returns:
            Estimates with B in the order of `slots` and N = 1.

        Raises:
            ValueError: If somebody brings more than there is room for.
        """
        pairs = list(zip(slots, turns, strict=True))
        for name in MODALITIES:
            self._reset(name, torch.tensor([s for s, turn in pairs if name in turn.fresh]))
        for number in range(max(len(turn.utterances) for turn in turns) - 1):
            said = [(s, t.utterances[number]) for s, t in pairs if number < len(t.utterances) - 1]
            self._rewind(said)
            self._encode("text", [(slot, utterance.rows) for slot, utterance in said])
            self._anchored(said)
        last = [(s, turn.utterances[-1]) for s, turn in pairs if turn.utterances]
        self._rewind(last)
        brought = {
            name: [(s, t.rows[name]) for s, t in pairs if name in t.rows] for name in MODALITIES
        }
        brought["text"] = [(slot, utterance.rows) for slot, utterance in last]
        now = torch.tensor([[turn.end] for turn in turns])
        allowed = torch.tensor([[turn.allowed] for turn in turns])
        if self._step is not None and len(slots) in self._sizes:
            output = self._by_value(self._step, slots, brought, now, allowed)
        else:
            output = self._in_place(slots, brought, now, allowed)
        self._anchored(last)
        return output

    def _in_place(
        self,
        slots: Sequence[int],
        brought: Mapping[str, Sequence[tuple[int, TickArrays]]],
        now_B1: Tensor,
        allowed: Tensor,
    ) -> Output:
        new = {name: dict(self._encode(name, rows)) for name, rows in brought.items()}
        everybody = torch.tensor(slots)
        pooled = [
            self._rings[name].pool(
                everybody, now_B1, torch.tensor([new[name].get(slot, 0) for slot in slots])
            )
            for name in MODALITIES
        ]
        return self._model.decide(pooled, allowed)

    def _by_value(
        self,
        step: Step,
        slots: Sequence[int],
        brought: Mapping[str, Sequence[tuple[int, TickArrays]]],
        now_B1: Tensor,
        allowed: Tensor,
    ) -> Output:
        everybody, ticks = torch.tensor(slots), {}
        for name, rows in brought.items():
            if any(len(one.mask) for _, one in rows):
                values, mask, time, ready = rows[0][1]
                nothing = TickArrays(values[:0], mask[:0], time[:0], ready[:0])
                of = dict(rows)
                ticks[name] = padded([of.get(slot, nothing) for slot in slots])
        state = State(*(self._rings[name].state(everybody) for name in MODALITIES))
        output, after = step(ticks, now_B1, state, allowed)
        for name, part in ticks.items():
            self._rings[name].follow(everybody, part, getattr(after, name))
        return output

    def read(self, slot: int) -> dict[str, Tensor]:
        """Return a copy of all that is remembered of a session, by name."""
        return {name: rows[slot].clone() for name, rows in self._rows().items()}

    def write(self, slot: int, remembered: Mapping[str, Tensor]) -> None:
        """Let a session go on from what `read` returned, here or elsewhere.

        Raises:
            ValueError: If it is of another model, window or hop.
        """
        rows = self._rows()
        mine = {name: (part[0].shape, part.dtype) for name, part in rows.items()}
        given = {name: (part.shape, part.dtype) for name, part in remembered.items()}
        if mine != given:
            wrong = sorted(k for k in mine | given if mine.get(k) != given.get(k))
            raise ValueError(
                f"state of another model, window or hop: {', '.join(wrong[:3])} do not fit; "
                "let the session begin anew"
            )
        for name, part in remembered.items():
            rows[name][slot] = part

    def _rows(self) -> dict[str, Tensor]:
        rows = {f"anchor.{name}": part for name, part in self._anchor.items()}
        for modality, rings in self._rings.items():
            rows |= {f"{modality}.{name}": part for name, part in rings.rows().items()}
        return rows

    def _reset(self, name: str, slots: Tensor) -> None:
        if len(slots):
            self._rings[name].reset(slots)
            if name == "text":
                self._keep_anchor(slots)

    def _rewind(self, said: Sequence[tuple[int, Utterance]]) -> None:
        """Go back to the anchors, which are here and now for those who begin."""
        if not said:
            return
        begun = [slot for slot, utterance in said if utterance.begins]
        self._keep_anchor(torch.tensor(begun, dtype=torch.int64))
        slots, text = torch.tensor([slot for slot, _ in said]), self._rings["text"]
        for name, part in self._anchor.items():
            getattr(text, name)[slots] = part[slots]

    def _anchored(self, said: Sequence[tuple[int, Utterance]]) -> None:
        ended = [slot for slot, utterance in said if utterance.ends]
        self._keep_anchor(torch.tensor(ended, dtype=torch.int64))

    def _keep_anchor(self, slots: Tensor) -> None:
        for name, part in self._anchor.items():
            part[slots] = getattr(self._rings["text"], name)[slots]

    def _encode(
        self, name: str, brought: Sequence[tuple[int, TickArrays]]
    ) -> list[tuple[int, int]]:
        brought = [(slot, rows) for slot, rows in brought if rows.mask.any()]
        if not brought:
            return []
        slots = [slot for slot, _ in brought]
        ticks = padded([rows for _, rows in brought])
        counts = self._rings[name].encode(torch.tensor(slots), ticks)
        return list(zip(slots, counts.tolist(), strict=True))


def padded(rows: Sequence[TickArrays]) -> Ticks:
    """Return the rows of B sessions as one batch, the shorter ones filled up with masked ticks."""
    longest = max(len(one.mask) for one in rows)
    if any(len(one.mask) < longest for one in rows):
        rows = [TickArrays(*(_filled(part, longest) for part in one)) for one in rows]
    return Ticks(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))


def _filled(part: np.ndarray, length: int) -> np.ndarray:
    return np.pad(part, [(0, length - len(part)), *[(0, 0)] * (part.ndim - 1)])
