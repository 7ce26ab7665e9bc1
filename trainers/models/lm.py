"""What a language model is: a network between one embedding and a softmax that is tied to it.

Sequences are time-major, [time, rows]: the scan of a recurrence then reads whole contiguous slices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from trainers.models.softmax import mean_surprisal, surprisals

State = tuple[Tensor, ...]
"""What a network knows of the text before, detached; rows are on the first dimension of every tensor."""


class LanguageModel(nn.Module, ABC):
    """A language model with tied weights; what lies between embedding and softmax is its subclass's."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocabulary, width))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    @abstractmethod
    def state(self, rows: int) -> State:
        """The state before the first token: zeros."""

    @abstractmethod
    def recur(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Output of the last layer [time, rows, embedding] for `tokens` [time, rows], and the next state."""

    @abstractmethod
    def groups(self) -> list[list[nn.Parameter]]:
        """The parameters in layer groups, input first, with the embedding, which is the output layer, too, last."""

    def read(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """From `recur`'s output in training: what the softmax gets, and a penalty (scalar) to add to the loss."""
        return raw, self.bias.new_zeros(())

    def forward(self, tokens: Tensor, targets: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Loss with penalties (scalar), detached mean surprisal in nats (scalar), and the next state.

        `tokens` and `targets` are [time, rows] integers. Both loss terms are inside, so that a wrapper
        such as DistributedDataParallel sees one call from inputs to what is differentiated.
        """
        raw, state = self.recur(tokens, state)
        values, penalty = self.read(raw)
        loss = mean_surprisal(values.flatten(0, 1), self.embedding, self.bias, targets.flatten().long())
        return loss + penalty, loss.detach(), state

    @torch.no_grad()
    def surprisal(self, tokens: Tensor, targets: Tensor, state: State) -> tuple[Tensor, State]:
        """-log p(target) in nats for each target [time, rows], and the next state. For evaluation mode."""
        raw, state = self.recur(tokens, state)
        nats = surprisals(raw.flatten(0, 1), self.embedding, self.bias, targets.flatten().long())
        return nats.view(targets.shape), state

    @torch.no_grad()
    def logits(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits of what follows the last time step [rows, vocabulary], and the next state."""
        raw, state = self.recur(tokens, state)
        return torch.addmm(self.bias, raw[-1].to(self.embedding.dtype), self.embedding.T), state
