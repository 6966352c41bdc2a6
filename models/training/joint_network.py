"""The model with the text encoder that is trained along.

Training only. Knows batches. Knows no loss, no optimiser and no file.
"""

import torch
from torch import Tensor, nn

from ..data.batches import Batch, Tokens
from ..nn.branch import BranchState
from ..nn.tam_ulag import MODALITIES, Output, State, TamUlag


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
