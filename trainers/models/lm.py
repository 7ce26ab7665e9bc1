"""The language model around the recurrent layers: embedding, dropout, tied softmax, loss and penalties.

Sequences are time-major, [time, rows]: the scan of a recurrence then reads whole contiguous slices.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from jobs.spec_language import AwdLstm, Qrnn
from trainers.models.awd_lstm import WeightDropLstm
from trainers.models.dropout import VariationalDropout, embed
from trainers.models.qrnn import QrnnLayer
from trainers.models.softmax import mean_surprisal, surprisals

State = tuple[Tensor, ...]


class LanguageModel(nn.Module):
    """AWD-LSTM (Merity et al. 2017) or QRNN (Bradbury et al. 2016) language model with tied weights.

    A state is the flat tuple of all layers' states, each [rows, width], detached.
    """

    def __init__(self, spec: AwdLstm | Qrnn, vocabulary: int) -> None:
        super().__init__()
        self.dropout_embedding = spec.dropout_embedding
        self.activation_penalty = spec.activation_penalty
        self.slowness_penalty = spec.slowness_penalty
        self.embedding = nn.Parameter(torch.empty(vocabulary, spec.embedding).uniform_(-0.1, 0.1))
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        widths = [spec.embedding] + [spec.hidden] * (spec.layers - 1) + [spec.embedding]
        layers = [_layer(spec, i, o, first=n == 0) for n, (i, o) in enumerate(itertools.pairwise(widths))]
        self.layers = nn.ModuleList(layers)
        self.state_widths = [layer.state_widths for layer in layers]
        self.drop_input = VariationalDropout(spec.dropout_input)
        self.drop_hidden = VariationalDropout(spec.dropout_hidden)
        self.drop_output = VariationalDropout(spec.dropout_output)

    def state(self, rows: int) -> State:
        """The state before the first token: zeros."""
        return tuple(self.bias.new_zeros(rows, width) for widths in self.state_widths for width in widths)

    def forward(self, tokens: Tensor, targets: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Loss with penalties (scalar), detached mean surprisal in nats (scalar), and the next state.

        `tokens` and `targets` are [time, rows] integers. Both loss terms are inside, so that a wrapper
        such as DistributedDataParallel sees one call from inputs to what is differentiated.
        """
        raw, state = self.recur(tokens, state)
        dropped = self.drop_output(raw)
        loss = mean_surprisal(dropped.flatten(0, 1), self.embedding, self.bias, targets.flatten().long())
        return loss + self._penalties(raw, dropped), loss.detach(), state

    def recur(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Output of the last layer [time, rows, embedding], before its dropout, and the next state."""
        values = self.drop_input(embed(tokens, self.embedding, self.dropout_embedding, self.training))
        states: list[Tensor] = []
        for layer, widths in zip(self.layers, self.state_widths, strict=True):
            if states:
                values = self.drop_hidden(values)
            values, new = layer(values, state[len(states) : len(states) + len(widths)])
            # Cloned, because a view of the last time step would keep (and a checkpoint would save) all steps.
            states += [tensor.detach().clone() for tensor in new]
        return values, tuple(states)

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

    def _penalties(self, raw: Tensor, dropped: Tensor) -> Tensor:
        """AR on the dropped output, TAR on the raw one; a single time step has no change to penalise."""
        penalty = self.bias.new_zeros(())
        if self.activation_penalty > 0:
            penalty = penalty + self.activation_penalty * dropped.float().pow(2).mean()
        if self.slowness_penalty > 0 and len(raw) > 1:
            penalty = penalty + self.slowness_penalty * (raw[1:] - raw[:-1]).float().pow(2).mean()
        return penalty


def _layer(spec: AwdLstm | Qrnn, inputs: int, hidden: int, *, first: bool) -> WeightDropLstm | QrnnLayer:
    if isinstance(spec, AwdLstm):
        return WeightDropLstm(inputs, hidden, spec.dropout_weight)
    return QrnnLayer(inputs, hidden, spec.window if first else 1, spec.zoneout)


def unwrapped(model: nn.Module) -> LanguageModel:
    """The language model, or the one inside a wrapper."""
    inner = model.module if isinstance(getattr(model, "module", None), nn.Module) else model
    if not isinstance(inner, LanguageModel):
        raise TypeError(f"{type(inner).__name__} is not a LanguageModel")
    return inner


def layer_groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of each recurrent layer, then those of the embedding, which is the output layer, too."""
    inner = unwrapped(model)
    return [*(list(layer.parameters()) for layer in inner.layers), [inner.embedding, inner.bias]]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[LanguageModel]:
    """The language model inside a wrapper, in evaluation mode and without gradients; every mode is restored."""
    inner = unwrapped(model)
    modes = {module: module.training for module in inner.modules()}
    inner.eval()
    try:
        with torch.no_grad():
            yield inner
    finally:
        for module, training in modes.items():
            module.training = training
