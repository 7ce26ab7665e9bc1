"""The recurrent language models: embedding, dropout, recurrent layers, activation penalties."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from jobs.spec_language import AwdLstm, Qrnn
from trainers.models.awd_lstm import WeightDropLstm
from trainers.models.dropout import VariationalDropout, embed
from trainers.models.lm import LanguageModel, State
from trainers.models.qrnn import QrnnLayer


class RecurrentModel(LanguageModel):
    """AWD-LSTM (Merity et al. 2017) or QRNN (Bradbury et al. 2016) language model with tied weights.

    A state is the flat tuple of all layers' states, each [rows, width], detached.
    """

    def __init__(self, spec: AwdLstm | Qrnn, vocabulary: int) -> None:
        super().__init__(vocabulary, spec.embedding)
        self.dropout_embedding = spec.dropout_embedding
        self.activation_penalty = spec.activation_penalty
        self.slowness_penalty = spec.slowness_penalty
        nn.init.uniform_(self.embedding, -0.1, 0.1)
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

    def groups(self) -> list[list[nn.Parameter]]:
        """The parameters of each recurrent layer, then those of the embedding."""
        return [*(list(layer.parameters()) for layer in self.layers), [self.embedding, self.bias]]

    def read(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The dropped output, with AR on it and TAR on the raw one; a single time step has no change to penalise."""
        dropped = self.drop_output(raw)
        penalty = self.bias.new_zeros(())
        if self.activation_penalty > 0:
            penalty = penalty + self.activation_penalty * dropped.float().pow(2).mean()
        if self.slowness_penalty > 0 and len(raw) > 1:
            penalty = penalty + self.slowness_penalty * (raw[1:] - raw[:-1]).float().pow(2).mean()
        return dropped, penalty


def _layer(spec: AwdLstm | Qrnn, inputs: int, hidden: int, *, first: bool) -> WeightDropLstm | QrnnLayer:
    if isinstance(spec, AwdLstm):
        return WeightDropLstm(inputs, hidden, spec.dropout_weight)
    return QrnnLayer(inputs, hidden, spec.window if first else 1, spec.zoneout)
