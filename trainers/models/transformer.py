"""A decoder-only Transformer language model: pre-norm blocks, rotary positions, and a context that no cut takes away.

Every token sees itself and the `context` time steps before it. Those that lie before the sequence come from the
state, which holds the last inputs of every block's attention, detached (the segment memory of Transformer-XL, Dai et
al. 2019, below a sliding window). What a token is predicted from is then the same wherever the text is cut:
training, evaluation and generation agree, one pass predicts each validation token once with all its context, and
perplexity does not depend on bptt. Without the state every sequence would begin blind, and its first tokens would
make the perplexity worse than the model is.

Positions are rotary (Su et al. 2021): attention depends on distances alone, and no distance exceeds `context`, so
sequences of jittered lengths bring nothing that was not trained, and cached time steps need no position of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.spec_language import Transformer
from trainers.models.lm import LanguageModel, State

INITIAL = 0.02
"""Standard deviation of initial weights, as in GPT-2."""
SLOWEST = 10_000.0
"""Time steps in which the slowest pair of a head turns by one radian."""


@dataclass(frozen=True)
class Sight:
    """What all blocks have in common: who sees whom, and how far every time step is turned."""

    mask: Tensor
    """0 where a token (row) sees a time step (column), else -inf: [time, context + time]."""
    cosines: Tensor
    sines: Tensor
    """Of context + time steps, [context + time, 1, 1, half of a head's width]."""


class TransformerModel(LanguageModel):
    """GPT-2 (Radford et al. 2019) with rotary positions and without biases, its embedding tied to the softmax.

    A state is the number of time steps that are kept, int64 [rows, 1] and the same for all rows, then for each block
    the last inputs of its attention, [rows, context, embedding].
    """

    def __init__(self, spec: Transformer, vocabulary: int) -> None:
        super().__init__(vocabulary, spec.embedding)
        self.context = spec.context
        self.drop = nn.Dropout(spec.dropout)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.layers))
        self.norm = nn.LayerNorm(spec.embedding, bias=False)
        nn.init.normal_(self.embedding, std=INITIAL)

    def state(self, rows: int) -> State:
        """The state before the first token: nothing kept, zeros in its place."""
        kept = (self.bias.new_zeros(rows, self.context, self.embedding.shape[1]) for _ in self.blocks)
        return self.bias.new_zeros(rows, 1, dtype=torch.int64), *kept

    def recur(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Normalised output of the last block [time, rows, embedding], and the next state."""
        kept, *memories = state
        values = self.drop(functional.embedding(tokens, self.embedding))
        sight = self._sight(len(tokens), kept[0], values.dtype)
        seen: list[Tensor] = []
        for block, memory in zip(self.blocks, memories, strict=True):
            values, inputs = block(values, memory, sight)
            seen.append(inputs)
        return self.norm(values), ((kept + len(tokens)).clamp(max=self.context), *seen)

    def groups(self) -> list[list[nn.Parameter]]:
        """The parameters of each block, then those of the last norm and of the embedding."""
        return [*(list(b.parameters()) for b in self.blocks), [*self.norm.parameters(), self.embedding, self.bias]]

    def _sight(self, time: int, kept: Tensor, dtype: torch.dtype) -> Sight:
        """`kept` is how many of the cached time steps are real: the last ones. It stays on the device."""
        steps = torch.arange(self.context + time, device=kept.device)
        ago = steps[self.context :, None] - steps
        hidden = (ago < 0) | (ago > self.context) | (steps < self.context - kept)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=kept.device).masked_fill_(hidden, -torch.inf)
        pairs = cast(Block, self.blocks[0]).attention.width // 2
        speeds = SLOWEST ** (-torch.arange(pairs, device=kept.device) / pairs)
        angles = (steps[:, None] * speeds).view(-1, 1, 1, pairs)
        return Sight(mask, angles.cos().to(dtype), angles.sin().to(dtype))


class Block(nn.Module):
    """Attention, then a feed-forward network; each reads normalised values and adds to the unnormalised ones."""

    def __init__(self, spec: Transformer) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(spec.embedding, bias=False)
        self.attention = Attention(spec)
        self.norm_feed = nn.LayerNorm(spec.embedding, bias=False)
        self.widen = nn.Linear(spec.embedding, spec.feed_forward, bias=False)
        self.narrow = nn.Linear(spec.feed_forward, spec.embedding, bias=False)
        self.drop = nn.Dropout(spec.dropout)
        nn.init.normal_(self.widen.weight, std=INITIAL)
        nn.init.normal_(self.narrow.weight, std=_residual(spec))

    def forward(self, values: Tensor, memory: Tensor, sight: Sight) -> tuple[Tensor, Tensor]:
        """`values` [time, rows, embedding] and `memory` [rows, context, embedding] to both of the next step."""
        new = self.norm_attention(values)
        seen = torch.cat([memory.transpose(0, 1).to(new.dtype), new])
        values = values + self.drop(self.attention(new, seen, sight))
        values = values + self.drop(self.narrow(functional.gelu(self.widen(self.norm_feed(values)))))
        # Cloned, because a view of the last time steps would keep (and a checkpoint would save) all of them.
        last = seen[len(new) :].detach().transpose(0, 1)
        return values, last.to(memory.dtype).clone(memory_format=torch.contiguous_format)


class Attention(nn.Module):
    """Causal attention of several heads, by torch's fused kernels: their memory grows with bptt, not with its square.

    Attention weights are not dropped, because on a CPU no fused kernel can.
    """

    def __init__(self, spec: Transformer) -> None:
        super().__init__()
        self.width = 8 * max(1, round(spec.embedding / spec.heads / 8))
        """Of a head: a multiple of 8, as the fused kernels of GPUs want it."""
        together = spec.heads * self.width
        self.queries = nn.Linear(spec.embedding, together, bias=False)
        self.keys = nn.Linear(spec.embedding, together, bias=False)
        self.values = nn.Linear(spec.embedding, together, bias=False)
        self.out = nn.Linear(together, spec.embedding, bias=False)
        for layer in (self.queries, self.keys, self.values):
            nn.init.normal_(layer.weight, std=INITIAL)
        nn.init.normal_(self.out.weight, std=_residual(spec))

    def forward(self, new: Tensor, seen: Tensor, sight: Sight) -> Tensor:
        """What each of the `new` time steps [time, rows, embedding] takes from those `seen`, its own the last."""
        queries = _turned(self._heads(self.queries(new)), sight.cosines[-len(new) :], sight.sines[-len(new) :])
        keys = _turned(self._heads(self.keys(seen)), sight.cosines, sight.sines)
        query, key, value = (part.permute(1, 2, 0, 3) for part in (queries, keys, self._heads(self.values(seen))))
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=sight.mask)
        out: Tensor = self.out(found.permute(2, 0, 1, 3).flatten(2))
        return out

    def _heads(self, values: Tensor) -> Tensor:
        """[time, rows, heads, width], still time-major."""
        return values.view(*values.shape[:-1], -1, self.width)


def _turned(values: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Each pair of units (one of the first half, one of the second) turned by its time step's angle."""
    first, second = values.chunk(2, dim=-1)
    low, high = cosines.to(values.dtype), sines.to(values.dtype)
    return torch.cat([first * low - second * high, second * low + first * high], dim=-1)


def _residual(spec: Transformer) -> float:
    """Standard deviation for weights whose products all blocks add up: their sum then stays as large as one."""
    return float(INITIAL * (2 * spec.layers) ** -0.5)
