"""The model with the text encoder that is trained along, and states carried from clip to clip.

Training only. Knows batches. Knows no loss, no optimiser and no file.
"""

import numpy as np
import torch
from torch import Tensor, nn

from ..nn.branch import BranchState
from ..nn.encoder import EncoderState
from ..nn.tam_ulag import MODALITIES, Output, State, TamUlag
from .joint_batches import Batch, Tokens

CARRIED = 0.5
"""Share of clips that go on from another clip's state, where clips are joined."""
DROPPED = 0.1
"""Share of these, per modality, whose state of that modality alone is dropped."""


class JointNetwork(nn.Module):
    """TamUlag behind the transformer that makes its token states.

    Args:
        model: The model.
        network: The text encoder, to be trained; None: token states are given.
        bf16: Run the text encoder in bfloat16 autocast while training; all else stays float32.
    """

    def __init__(self, model: TamUlag, network: nn.Module | None = None, *, bf16: bool = False):
        super().__init__()
        self.model = model
        self.network = network
        self.bf16 = bf16
        self.whole = any(getattr(model.config, name).bidirectional for name in MODALITIES)

    def start(self, batch: int) -> State:
        """Return the state of clips that have seen nothing, with no room for memory.

        A clip is scored once, so nothing has to be remembered for a later hop.
        """
        branches = (getattr(self.model, name) for name in MODALITIES)
        return State(
            *(
                BranchState(b.encoder.initial_state(batch), b.attention.initial_memory(batch, 0))
                for b in branches
            )
        )

    def forward(self, batch: Batch, state: State | None = None) -> tuple[Output, State]:
        """Score each clip at its end.

        Args:
            batch: Clips.
            state: Where they go on; None: from the initial state. A bidirectional model always
                begins there.

        Returns:
            Estimates with N = 1 hop, and the state after it.
        """
        ticks = dict(batch.ticks)
        if batch.tokens is not None:
            ticks["text"] = ticks["text"]._replace(values=self.states(batch.tokens))
        state = self.start(len(batch.rows)) if state is None else state
        if self.whole:
            return self.model(ticks, batch.now), state
        return self.model.step(ticks, batch.now, state)

    def states(self, tokens: Tokens) -> Tensor:
        """Return the token states (B, L, D) float32.

        Raises:
            RuntimeError: If there is no text encoder.
        """
        if self.network is None:
            raise RuntimeError("tokens without a text encoder: set text.finetune = true")
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16 and self.training):
            out = self.network(input_ids=tokens.ids, attention_mask=tokens.mask)
        states: Tensor = out.last_hidden_state
        return states.float()


class StateCarry:
    """States of the batch before, from which clips of the next one may go on.

    A live stream goes on for hours, so the recurrent state at a clip's start is that of what came
    before it, of a stream that was reset, or of one whose other modality was lost. About half of
    the clips go on from a random clip of the batch before, until `joined` clips are chained; of
    these each modality's state is dropped now and then.

    Only the recurrent state is carried, detached. The memory that attention pools over begins
    empty: live, the window bounds it, so that after `window` seconds it holds this clip alone,
    while the recurrent state is never bounded; and its label says nothing of the clip before.

    Args:
        joined: Most clips of a chain; 1: every clip begins afresh.
    """

    def __init__(self, joined: int) -> None:
        self.joined = joined
        self.carried: list[EncoderState] = []
        self.ages = np.zeros(0, np.int64)
        """Clips chained up to each carried state."""
        self._started = self.ages

    def start(self, fresh: State, rng: np.random.Generator) -> State:
        """Return the state from which each clip of a batch starts.

        Args:
            fresh: Of clips that begin afresh.
            rng: Draws.
        """
        count = len(fresh.text.encoder.h)
        self._started = np.zeros(count, np.int64)
        if self.joined == 1 or not self.carried:
            return fresh
        source = rng.integers(0, len(self.ages), count)
        goes_on = (rng.random(count) < CARRIED) & (self.ages[source] < self.joined)
        self._started[goes_on] = self.ages[source][goes_on]
        branches = []
        index = torch.from_numpy(source)
        for branch, carried in zip(fresh, self.carried, strict=True):
            kept = torch.from_numpy(goes_on & (rng.random(count) >= DROPPED))
            parts = (
                _chosen(kept, c[index], f) for c, f in zip(carried, branch.encoder, strict=True)
            )
            branches.append(branch._replace(encoder=EncoderState(*parts)))
        return State(*branches)

    def keep(self, after: State) -> None:
        """Remember the states in which the clips that were started last have ended."""
        if self.joined > 1:
            self.carried = [EncoderState(*(x.detach() for x in b.encoder)) for b in after]
            self.ages = self._started + 1


def _chosen(rows: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *[1] * (no.dim() - 1)), yes, no)
