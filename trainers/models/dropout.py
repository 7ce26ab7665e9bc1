"""The ways AWD-LSTM drops things (Merity, Keskar and Socher 2017). Every call in training draws a new mask.

All scale what they keep by 1 / (1 - share), so that expectations are preserved and evaluation needs nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class VariationalDropout(nn.Module):
    """Drops the same units at every time step of a sequence (Gal and Ghahramani 2016).

    Takes and returns [time, rows, width]; the mask is [1, rows, width]. The identity in evaluation.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        """The values with whole unit sequences zeroed and the others scaled up."""
        if not self.training or self.share == 0:
            return values
        return values * keep_mask(values.new_empty(1, *values.shape[1:]), self.share)

    def extra_repr(self) -> str:
        """The share, for printing a model."""
        return f"share={self.share}"


def keep_mask(like: Tensor, share: float) -> Tensor:
    """A fresh mask of the shape of `like`: 0 with probability `share`, else 1 / (1 - share). Overwrites `like`."""
    return like.bernoulli_(1 - share).div_(1 - share)


def embed(tokens: Tensor, weight: Tensor, share: float, training: bool) -> Tensor:
    """Embedded tokens; in training a share of the vocabulary's words is zero wherever it occurs.

    Drops rows of the embedding matrix, but applies the mask to the rows that were looked up: the same
    result without a pass over the whole matrix. `tokens` of any shape, `weight` [vocabulary, width].
    """
    embedded = functional.embedding(tokens, weight)
    if not training or share == 0:
        return embedded
    words = keep_mask(weight.new_empty(weight.shape[0]), share)
    return embedded * words[tokens].unsqueeze(-1)


def drop_weights(weight: Tensor, share: float, training: bool) -> Tensor:
    """DropConnect (Wan et al. 2013): a copy of the weights with a share zeroed; the raw weights stay as they are."""
    if not training or share == 0:
        return weight
    return torch.dropout(weight, share, True)
