"""Byte-level byte-pair encoding, learned from a corpus by Hugging Face's `tokenizers`. No text is unknown to it.

A learned encoding is the library's own JSON, a plain string here. The library is imported when an encoding is used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from jobs.errors import MissingExtraError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def learn(texts: Sequence[str], *, min_count: int, max_size: int) -> str:
    """The encoding that joins the most frequent neighbours of these texts until there are `max_size` pieces.

    Neighbours seen fewer times than `min_count` are not joined, and none across a border of words as GPT-2 has them.
    The same texts give the same encoding. MissingExtraError without the library.
    """
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=max_size,
        min_frequency=min_count,
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    learned: str = tokenizer.to_str()
    return learned


def encode(encoding: str, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
    """Each text as ids, from which `decode` gives it back to the last byte."""
    encoded = _tokenizer(encoding).encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array(one.ids, dtype=np.int32) for one in encoded]


def decode(encoding: str, ids: Sequence[int]) -> str:
    """The text of the ids; bytes that are no whole character become U+FFFD."""
    return _tokenizer(encoding).decode(list(ids), skip_special_tokens=False)


def pieces(encoding: str) -> tuple[str, ...]:
    """The text of every id, in order."""
    tokenizer = _tokenizer(encoding)
    every = [[number] for number in range(tokenizer.get_vocab_size())]
    return tuple(tokenizer.decode_batch(every, skip_special_tokens=False))


@lru_cache(maxsize=4)
def _tokenizer(encoding: str) -> Tokenizer:
    tokenizer: Tokenizer = _library().Tokenizer.from_str(encoding)
    return tokenizer


def _library() -> ModuleType:
    # Its threads would not survive a fork, of which it warns at length, and a worker has the threads its spec says.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtraError(
            "data.vocabulary bpe needs the package tokenizers: pip install 'highwater[train]'"
        ) from error
    return tokenizers
