"""Many sessions stepped together: fixed tensors, one row for each.

Knows turns and the model's parts. Does not know whose rows they are, nor when their turn comes.

What `turn.take` does to one session by values, this does to many in place: only the rows of the
sessions whose turn it is are touched, so the others keep their bits. Hidden states lie in a ring
of which attention reads the places that count, so nothing is copied or moved at a hop.

Shapes: S seats, B of them in a step, T ticks, P places in a ring, V of them visible, H units.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from .attention import Memory, Pooled
from .branch import Branch
from .encoder import EncoderState, Ticks, compact
from .tam_ulag import MODALITIES, Output, TamUlag
from .turn import Rows, Turn, Utterance

TEXT_ROOM = 64
"""Most tokens of an utterance."""


class Desk:
    """One modality of every session.

    Args:
        branch: Of the model.
        seats: Sessions, S.
        room: Most valid ticks of one step.
    """

    def __init__(self, branch: Branch, seats: int, room: int) -> None:
        self.branch = branch
        self.room = room
        self.places = branch.memory + room
        self._fresh = branch.encoder.initial_state(1)
        state = branch.encoder.initial_state(seats)
        self.h, self.c, self.level = (part.clone() for part in state)
        self.hidden = torch.zeros(seats, self.places, branch.encoder.size)
        self.energy = torch.zeros(seats, self.places)
        self.time = torch.zeros(seats, self.places, dtype=torch.int64)
        self.ready = torch.zeros_like(self.time)
        self.written = torch.zeros(seats, dtype=torch.int64)
        """Valid ticks so far; number k of them lies at place k modulo P."""

    def reset(self, slots: Tensor) -> None:
        """Let sessions begin afresh."""
        for mine, fresh in zip((self.h, self.c, self.level), self._fresh, strict=True):
            mine[slots] = fresh
        self.written[slots] = 0

    def encode(self, slots: Tensor, ticks: Ticks) -> Tensor:
        """Advance sessions by new ticks; return how many were valid, (B,).

        Raises:
            ValueError: If there are more than `room`.
        """
        ticks = ticks if bool(ticks.mask.all()) else compact(ticks)
        if ticks.mask.shape[1] > self.room:
            raise ValueError(
                f"{ticks.mask.shape[1]} valid ticks in one step: there is room for {self.room}"
            )
        before = EncoderState(self.h[slots], self.c[slots], self.level[slots])
        h_BTH, after = self.branch.encoder.step(ticks, before)
        for mine, new in zip((self.h, self.c, self.level), after, strict=True):
            mine[slots] = new
        self._write(slots, h_BTH, ticks)
        return ticks.mask.sum(dim=1)

    def _write(self, slots: Tensor, h_BTH: Tensor, ticks: Ticks) -> None:
        places = (self.written[slots].unsqueeze(1) + torch.arange(ticks.mask.shape[1])).remainder_(
            self.places
        )
        places = (places + slots.unsqueeze(1) * self.places)[ticks.mask]
        hidden = h_BTH[ticks.mask]
        self.hidden.view(-1, hidden.shape[1]).index_copy_(0, places, hidden)
        energy = self.branch.attention.energy(hidden.unsqueeze(0)).squeeze(0)
        self.energy.view(-1).index_copy_(0, places, energy)
        self.time.view(-1).index_copy_(0, places, ticks.time[ticks.mask])
        self.ready.view(-1).index_copy_(0, places, ticks.ready[ticks.mask])
        self.written[slots] += ticks.mask.sum(dim=1)

    def pool(self, slots: Tensor, now_B1: Tensor, new_B: Tensor) -> Pooled:
        """Pool each session's window; visible are `Branch.memory` states before the new ones."""
        written = self.written[slots].unsqueeze(1)
        visible = self.branch.memory + int(new_B.max())
        number = written - visible + torch.arange(visible)
        known = (number >= 0) & (number >= written - self.branch.memory - new_B.unsqueeze(1))
        places = number.remainder(self.places).add_(slots.unsqueeze(1) * self.places)
        energy, time, ready = (
            part.view(-1).index_select(0, places.view(-1)).view_as(places)
            for part in (self.energy, self.time, self.ready)
        )
        ring = Memory(self.hidden, energy, known, time, ready)
        weight, inside = self.branch.attention.weigh(ring, now_B1, self.branch.window)
        counts, there = inside[:, 0].sum(dim=1), inside[:, 0]
        context = embedding_bag(
            places[there],
            self.hidden.view(-1, self.hidden.shape[2]),
            counts.cumsum(0) - counts,
            mode="sum",
            per_sample_weights=weight[:, 0][there],
        )
        shares = self.branch.attention.shares(weight)
        pooled = Pooled(context.unsqueeze(1), (counts > 0).unsqueeze(1), shares, time)
        return self.branch.projected(pooled)

    def rows(self) -> dict[str, Tensor]:
        """Return all that is remembered, by name, each with the seats first."""
        names = ("h", "c", "level", "hidden", "energy", "time", "ready", "written")
        return {name: getattr(self, name) for name in names}


class Seats:
    """The state of many sessions, and their steps together.

    Args:
        model: In evaluation mode.
        seats: Sessions that have room, S.
        hop: Most ticks of a turn.
    """

    def __init__(self, model: TamUlag, seats: int, *, hop: int) -> None:
        self.free = list(range(seats))[::-1]
        """Seats that nobody has."""
        self._model = model
        branches = {name: getattr(model, name) for name in MODALITIES}
        self._desks = {
            name: Desk(branch, seats, TEXT_ROOM if name == "text" else hop // branch.config.period)
            for name, branch in branches.items()
        }
        text = self._desks["text"]
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
    def step(self, slots: Sequence[int], turns: Sequence[Turn]) -> Output:
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
            self._hear(said)
            self._anchored(said)
        last = [(s, turn.utterances[-1]) for s, turn in pairs if turn.utterances]
        new = {"text": dict(self._hear(last))}
        for name in ("audio", "vision"):
            brought = [
                (s, t.rows[name]) for s, t in pairs if name in t.rows and t.rows[name].mask.any()
            ]
            new[name] = dict(self._encode(name, brought))
        everybody, now = torch.tensor(slots), torch.tensor([[turn.end] for turn in turns])
        pooled = [
            self._desks[name].pool(
                everybody, now, torch.tensor([new[name].get(slot, 0) for slot in slots])
            )
            for name in MODALITIES
        ]
        self._anchored(last)
        return self._model.decide(pooled, torch.tensor([[turn.allowed] for turn in turns]))

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
        for modality, desk in self._desks.items():
            rows |= {f"{modality}.{name}": part for name, part in desk.rows().items()}
        return rows

    def _reset(self, name: str, slots: Tensor) -> None:
        if len(slots):
            self._desks[name].reset(slots)
            if name == "text":
                self._keep_anchor(slots)

    def _hear(self, said: Sequence[tuple[int, Utterance]]) -> list[tuple[int, int]]:
        """Encode utterances from their anchors; return each seat with its number of tokens."""
        if not said:
            return []
        begun = [slot for slot, utterance in said if utterance.begins]
        self._keep_anchor(torch.tensor(begun, dtype=torch.int64))
        slots, text = torch.tensor([slot for slot, _ in said]), self._desks["text"]
        for name, part in self._anchor.items():
            getattr(text, name)[slots] = part[slots]
        return self._encode("text", [(slot, utterance.rows) for slot, utterance in said])

    def _anchored(self, said: Sequence[tuple[int, Utterance]]) -> None:
        ended = [slot for slot, utterance in said if utterance.ends]
        self._keep_anchor(torch.tensor(ended, dtype=torch.int64))

    def _keep_anchor(self, slots: Tensor) -> None:
        for name, part in self._anchor.items():
            part[slots] = getattr(self._desks["text"], name)[slots]

    def _encode(self, name: str, brought: Sequence[tuple[int, Rows]]) -> list[tuple[int, int]]:
        brought = [(slot, rows) for slot, rows in brought if len(rows.mask)]
        if not brought:
            return []
        slots = [slot for slot, _ in brought]
        ticks = padded([rows for _, rows in brought])
        counts = self._desks[name].encode(torch.tensor(slots), ticks)
        return list(zip(slots, counts.tolist(), strict=True))


def padded(rows: Sequence[Rows]) -> Ticks:
    """Return the rows of B sessions as one batch, the shorter ones filled up with masked ticks."""
    longest = max(len(one.mask) for one in rows)
    if any(len(one.mask) < longest for one in rows):
        rows = [Rows(*(_filled(part, longest) for part in one)) for one in rows]
    return Ticks(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))


def _filled(part: np.ndarray, length: int) -> np.ndarray:
    return np.pad(part, [(0, length - len(part)), *[(0, 0)] * (part.ndim - 1)])
