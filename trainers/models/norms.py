"""Batch normalisation that takes any number of values, and can be frozen."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm


class _Lenient(_BatchNorm):
    """Batch normalisation whose running statistics stand in where a batch has one value per channel.

    torch refuses to train on such a batch, as one value has no variance: a micro-batch of one row, in a head.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The normalised values, [rows, channels, ...]."""
        if self.training and input.numel() == input.shape[1]:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(input)


class Norm1d(_Lenient, nn.BatchNorm1d):
    """Of rows: [rows, channels]."""


class Norm2d(_Lenient, nn.BatchNorm2d):
    """Of images: [rows, channels, height, width]."""


def freeze_norms(model: nn.Module) -> None:
    """Let all batch normalisation in the model use its running statistics and leave them as they are."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
