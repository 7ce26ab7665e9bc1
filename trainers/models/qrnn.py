"""The quasi-recurrent layer of Bradbury et al. 2016: gates for all time steps at once, then a cheap scan."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


class ForgetScan(torch.autograd.Function):
    """c[t] = f[t] * c[t-1] + (1 - f[t]) * z[t] over the first dimension, as one node of the graph.

    A loop that autograd records costs ten times the loop itself, because every step leaves a node and
    a buffer. Here each step is one in-place operation forward and one backward; the rest is elementwise
    over all steps at once.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, forget: Tensor, candidate: Tensor, initial: Tensor) -> Tensor:
        """`forget` and `candidate` [time, rows, width], `initial` [rows, width]: cells [time, rows, width]."""
        cells = torch.empty_like(candidate)
        previous = initial
        for cell, gate, value in zip(cells.unbind(), forget.unbind(), candidate.unbind(), strict=True):
            torch.lerp(value, previous, gate, out=cell)
            previous = cell
        ctx.save_for_backward(forget, candidate, initial, cells)
        return cells

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The reversed recurrence d[t] = g[t] + f[t+1] * d[t+1], and from it all three gradients."""
        forget, candidate, initial, cells = ctx.saved_tensors  # type: ignore[attr-defined]
        total = torch.empty_like(upstream, memory_format=torch.contiguous_format)
        total[-1] = upstream[-1]
        gates, sums, grads = forget.unbind(), total.unbind(), upstream.unbind()
        for step in range(len(gates) - 2, -1, -1):
            torch.addcmul(grads[step], gates[step + 1], sums[step + 1], out=sums[step])
        to_forget = torch.empty_like(total)
        torch.sub(cells[:-1], candidate[1:], out=to_forget[1:])
        torch.sub(initial, candidate[0], out=to_forget[0])
        to_forget.mul_(total)
        to_initial = gates[0] * sums[0]
        return to_forget, torch.addcmul(total, total, forget, value=-1), to_initial


def scan(forget: Tensor, candidate: Tensor, initial: Tensor) -> Tensor:
    """Cells c[t] = f[t] * c[t-1] + (1 - f[t]) * z[t], [time, rows, width], from `initial` [rows, width]."""
    cells: Tensor = ForgetScan.apply(forget, candidate, initial)
    return cells


class QrnnLayer(nn.Module):
    """A QRNN layer with fo-pooling: h = o * c. `window` 2 lets the gates see the step before as well.

    In training, zoneout makes a share of the forget gates keep the old cell; in evaluation all gates
    move towards keeping by that share, which is the expectation.
    """

    def __init__(self, inputs: int, hidden: int, window: int, zoneout: float) -> None:
        super().__init__()
        self.window = window
        self.zoneout = zoneout
        self.state_widths = (hidden, inputs) if window == 2 else (hidden,)
        self.gates = nn.Linear(window * inputs, 3 * hidden)

    def forward(self, inputs: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """[time, rows, inputs] and the state (cell [rows, hidden], with window 2 the last input) to the same."""
        cell = state[0]
        seen = inputs
        if self.window == 2:
            before = torch.cat([state[1].to(inputs.dtype).unsqueeze(0), inputs[:-1]])
            seen = torch.cat([inputs, before], dim=-1)
        candidate, forget, output = self.gates(seen).to(cell.dtype).chunk(3, dim=-1)
        cells = scan(self._zone(torch.sigmoid(forget)), torch.tanh(candidate), cell)
        last = (cells[-1],) if self.window == 1 else (cells[-1], inputs[-1].to(state[1].dtype))
        return torch.sigmoid(output) * cells, last

    def _zone(self, forget: Tensor) -> Tensor:
        if self.zoneout == 0:
            return forget
        if not self.training:
            return torch.lerp(forget, torch.ones_like(forget), self.zoneout)
        kept = torch.empty_like(forget).bernoulli_(self.zoneout).bool()
        return forget.masked_fill(kept, 1.0)
