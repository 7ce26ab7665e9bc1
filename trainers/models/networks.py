"""Which class of network a spec's section `model` is built as."""

from __future__ import annotations

from jobs.spec_language import AwdLstm, Qrnn, Transformer
from trainers.models.lm import LanguageModel
from trainers.models.recurrent import RecurrentModel
from trainers.models.transformer import TransformerModel


def language_model(spec: AwdLstm | Qrnn | Transformer, vocabulary: int) -> LanguageModel:
    """A new language model over so many tokens, drawn from torch's current seed, on the current default device."""
    if isinstance(spec, Transformer):
        return TransformerModel(spec, vocabulary)
    return RecurrentModel(spec, vocabulary)
