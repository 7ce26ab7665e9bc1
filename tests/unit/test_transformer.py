"""The Transformer against a slow, obvious reference, as a language model, and in real runs and probes."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from jobs.spec import JobSpec
from jobs.spec_language import LanguageSpec, Transformer
from tests.led import in_child, lead, run_of
from trainers.fit.preflight import preflight
from trainers.fit.prober import Prober
from trainers.fit.sizes import Size
from trainers.fit.trace import Target, trace
from trainers.language import LanguageTask, prepare
from trainers.memory import Mapped
from trainers.models.transformer import Block, TransformerModel
from trainers.task import Shard

from .tiny import corpus, curve, tiny_spec
from .tiny_streams import data, one_thread, small_spec, source  # noqa: F401 - fixtures

CPU = torch.device("cpu")
MIB = 2**20
NET: dict[str, Any] = {
    "kind": "transformer",
    "embedding": 32,
    "layers": 3,
    "heads": 4,
    "feed_forward": 48,
    "context": 6,
    "dropout": 0.0,
}
needs_limit = pytest.mark.skipif(not Mapped.now().data, reason="a real limit needs Linux")


def network(**changes: Any) -> TransformerModel:
    """A model over 50 tokens in double precision, with weights large enough to matter."""
    torch.manual_seed(0)
    model = TransformerModel(Transformer.model_validate(NET | changes), 50).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def through(model: TransformerModel, tokens: Tensor, cuts: list[int]) -> Tensor:
    """The outputs of one sequence after the other, the state carried along."""
    state, parts = model.state(tokens.shape[1]), []
    for part in tokens.split(cuts):
        out, state = model.recur(part, state)
        parts.append(out)
    return torch.cat(parts)


# The network


def slow(model: TransformerModel, tokens: list[int]) -> Tensor:
    """One row, one time step, one head at a time; positions are turned as complex numbers."""
    values = [model.embedding[token] for token in tokens]
    for block in model.blocks:
        assert isinstance(block, Block)
        inputs = [block.norm_attention(value) for value in values]
        values = [value + attended(block, inputs, now, model.context) for now, value in enumerate(values)]
        values = [v + block.narrow(torch.nn.functional.gelu(block.widen(block.norm_feed(v)))) for v in values]
    return torch.stack([model.norm(value) for value in values])


def attended(block: Block, inputs: list[Tensor], now: int, context: int) -> Tensor:
    attention = block.attention
    half = attention.width // 2
    seen = range(max(0, now - context), now + 1)
    heads = []
    for units in torch.arange(len(attention.queries.weight)).split(attention.width):
        scores = []
        for then in seen:
            query, key = attention.queries(inputs[now])[units], attention.keys(inputs[then])[units]
            angle = torch.tensor([(now - then) * 10_000.0 ** (-pair / half) for pair in range(half)])
            turned = torch.complex(query[:half], query[half:]) * torch.polar(torch.ones_like(angle), angle)
            scores.append((turned * torch.complex(key[:half], key[half:]).conj()).real.sum() / attention.width**0.5)
        weights = torch.softmax(torch.stack(scores), 0)
        heads.append(sum(w * attention.values(inputs[t])[units] for w, t in zip(weights, seen, strict=True)))
    found: Tensor = attention.out(torch.cat(heads))  # type: ignore[arg-type]
    return found


def test_it_equals_the_slow_reference() -> None:
    model, tokens = network(), torch.randint(50, (15, 2))
    out = through(model, tokens, [4, 11])
    for row in range(2):
        assert torch.allclose(out[:, row], slow(model, tokens[:, row].tolist()), atol=1e-5)


@pytest.mark.parametrize("cuts", [[1] * 40, [40], [7, 13, 1, 19], [35, 5]])
def test_outputs_do_not_depend_on_where_the_text_is_cut(cuts: list[int]) -> None:
    model, tokens = network(), torch.randint(50, (40, 3))
    assert torch.allclose(through(model, tokens, cuts), through(model, tokens, [8] * 5), atol=1e-9)


def test_nothing_is_seen_of_the_future_or_of_what_is_too_long_ago() -> None:
    model, tokens = network(), torch.randint(50, (40, 1))
    before = through(model, tokens, [10] * 4)
    changed = tokens.clone()
    changed[15] = (changed[15] + 1) % 50
    differs = (through(model, changed, [10] * 4) - before).abs().amax((1, 2)) > 1e-12
    reach = 3 * 6
    assert differs.nonzero().flatten().tolist() == list(range(15, 15 + reach + 1))


def test_states_have_rows_first_keep_no_graph_and_no_more_than_the_context() -> None:
    model = network()
    _, state = model.recur(torch.randint(50, (9, 4)), model.state(4))
    assert state[0].tolist() == [[6]] * 4
    assert [tuple(tensor.shape) for tensor in state[1:]] == [(4, 6, 32)] * 3
    assert all(not tensor.requires_grad for tensor in state)
    assert all(tensor.untyped_storage().nbytes() == tensor.numel() * tensor.itemsize for tensor in state)
    assert [tensor.dtype for tensor in state] == [tensor.dtype for tensor in model.state(4)]


def test_it_begins_by_knowing_nothing() -> None:
    torch.manual_seed(0)
    model = TransformerModel(Transformer(embedding=64, layers=8, heads=4, feed_forward=256, context=8), 500)
    _, shown, _ = model(torch.randint(500, (20, 8)), torch.randint(500, (20, 8)), model.state(8))
    assert float(shown) == pytest.approx(math.log(500), rel=0.02)
    block = model.blocks[0]
    assert isinstance(block, Block)
    assert float(block.widen.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(block.narrow.weight.detach().std()) == pytest.approx(0.02 / 4, rel=0.05)


def test_dropout_is_drawn_anew_and_only_in_training() -> None:
    model, tokens = network(dropout=0.3), torch.randint(50, (9, 4))
    first, second = (model.recur(tokens, model.state(4))[0] for _ in range(2))
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(*(model.recur(tokens, model.state(4))[0] for _ in range(2)))


def test_blocks_are_layer_groups_and_the_embedding_is_the_last() -> None:
    model = network()
    groups = model.groups()
    assert len(groups) == 4
    assert [{id(p) for p in group} for group in groups[:3]] == [{id(p) for p in b.parameters()} for b in model.blocks]
    assert any(p is model.embedding for p in groups[-1])
    assert sorted(id(p) for group in groups for p in group) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize(("embedding", "heads"), [(6, 4), (100, 3), (1, 1)])
def test_any_width_goes_with_any_number_of_heads(embedding: int, heads: int) -> None:
    model = network(embedding=embedding, heads=heads)
    assert through(model, torch.randint(50, (9, 2)), [4, 5]).shape == (9, 2, embedding)


def test_bf16_autocast_stays_near_fp32_and_gradients_stay_fp32() -> None:
    model = network().float()
    tokens, targets = torch.randint(50, (9, 4)), torch.randint(50, (9, 4))
    full, _, _ = model(tokens, targets, model.state(4))
    with torch.autocast("cpu", torch.bfloat16):
        low, _, state = model(tokens, targets, model.state(4))
        low, _, state = model(tokens, targets, model.state(4))
    low.backward()
    assert float(low.detach()) == pytest.approx(float(full.detach()), rel=0.02)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    assert all(tensor.dtype == torch.float32 for tensor in state[1:])


# The task


def spec_of(source: Path, **changes: Any) -> LanguageSpec:
    return small_spec(source, **({"model": NET} | changes))


def task(spec: LanguageSpec, data: Path, rank: int = 0, workers: int = 1, batch: int = 4, acc: int = 1) -> LanguageTask:
    return LanguageTask(spec, data, Shard(rank, workers, batch, acc, CPU))


@pytest.mark.parametrize(("workers", "batch", "acc"), [(2, 1, 2), (1, 1, 4), (2, 2, 1)])
def test_evaluation_counts_every_target_once_whatever_the_factors(
    source: Path, data: Path, workers: int, batch: int, acc: int
) -> None:
    spec = spec_of(source)
    model = task(spec, data).model()
    expected = task(spec, data).evaluate(model)
    sums = torch.stack([task(spec, data, rank, workers, batch, acc).evaluate(model) for rank in range(workers)]).sum(0)
    assert int(sums[1]) == len(np.load(data / "valid.npy")) - 1
    assert torch.allclose(sums, expected, rtol=1e-6)


def test_evaluation_does_not_depend_on_bptt(source: Path, data: Path) -> None:
    model = task(spec_of(source), data).model()
    with torch.no_grad():
        model.embedding.normal_()
    one, other = (task(spec_of(source, bptt=bptt), data).evaluate(model) for bptt in (2, 19))
    assert torch.allclose(one, other, rtol=1e-6)


def test_one_batch_can_be_learned_by_heart(source: Path, data: Path) -> None:
    torch.manual_seed(0)
    language = task(spec_of(source), data)
    model = language.model().train()
    batch = next(iter(language.steps(0, 0))).micros[0]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    shown = math.inf
    for _ in range(100):
        loss = language.loss(model, batch, language.carries()[0])
        assert torch.equal(loss.total, loss.shown)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        shown = float(loss.shown)
    assert shown < 0.1


def test_examples_leave_no_trace(source: Path, data: Path) -> None:
    language = task(spec_of(source, model=NET | {"dropout": 0.5}), data)
    model = language.model().train()
    before = torch.get_rng_state()
    shown = language.examples(model)
    assert language.examples(model) == shown
    assert json.loads(json.dumps(shown, allow_nan=False))["generated"][0]["text"]
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


# Real runs


def run_spec(folder: Path, dropout: float, **changes: Any) -> JobSpec:
    text = {"source": str(corpus(folder / "text")), "vocabulary": "bpe", "max_size": 300}
    return tiny_spec(folder, data=text, model=NET | {"dropout": dropout}, **changes)


def test_a_killed_run_equals_one_that_was_not(tmp_path: Path) -> None:
    spec, draw = run_spec(tmp_path, 0.2, workers=2, batch=2), random.Random(1)
    began = time.monotonic()
    assert os.waitpid(in_child(lambda: lead(spec, "straight")), 0)[1] == 0
    length, kills = time.monotonic() - began, 0
    for share in (0.6, 0.9):
        pid = in_child(lambda: lead(spec, "killed"))
        time.sleep(length * share * draw.uniform(0.8, 1.0))
        if os.waitpid(pid, os.WNOHANG)[0] == 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            kills += 1
    assert os.waitpid(in_child(lambda: lead(spec, "killed")), 0)[1] == 0
    assert kills >= 1
    assert curve(run_of(spec, "killed")) == curve(run_of(spec, "straight"))


def test_two_workers_follow_one_over_the_same_global_rows(tmp_path: Path) -> None:
    losses = []
    for workers in (1, 2):
        # A rate at which rounding stays rounding; at ten times as much, Adam makes 4e-5 of it in 60 steps.
        spec = run_spec(tmp_path, 0.0, workers=workers, batch=4 // workers, learning_rate=2e-3)
        assert os.waitpid(in_child(lambda spec=spec, name=f"of-{workers}": lead(spec, name)), 0)[1] == 0  # type: ignore[misc]
        losses.append([r["loss"] for r in run_of(spec, f"of-{workers}").rows("metrics") if r["kind"] == "step"])
    assert len(losses[0]) == 60
    assert max(abs(a - b) / a for a, b in zip(*losses, strict=True)) <= 1e-5


# Memory


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory) -> tuple[LanguageSpec, Path]:
    """A network whose memory is worth measuring, over a corpus that fills large sizes."""
    folder = tmp_path_factory.mktemp("sized")
    text = {"source": str(corpus(folder / "text", documents=40, words=2000)), "vocabulary": "bpe", "max_size": 400}
    net = {"embedding": 64, "layers": 2, "heads": 4, "feed_forward": 256, "context": 32, "dropout": 0.1}
    changes = {"bptt_jitter": None, "memory_limit_mib": 4096}
    spec = tiny_spec(folder, data=text, model={"kind": "transformer"} | net, **changes)
    assert isinstance(spec, LanguageSpec)
    prepare(spec, folder / "data")
    return spec, folder / "data"


@needs_limit
def test_preflight_is_near_what_a_probe_measures(sized: tuple[LanguageSpec, Path]) -> None:
    spec, data = sized
    found = preflight(spec.model_copy(update={"batch": "auto", "bptt": "auto"}), data)
    with Prober(spec, data, 0, 1, CPU) as prober:
        for size in (Size(100, 32), Size(10, 320)):
            reading = prober.probe(size, None)
            assert not reading.failed
            assert 0.85 <= found.highest(size) / reading.highest <= 1.15, size


def test_memory_grows_with_bptt_and_not_with_its_square(sized: tuple[LanguageSpec, Path]) -> None:
    spec, data = sized
    for target in (Target(), Target(gpu=True)):
        short, long = (trace(spec, data, size, target).highest for size in (Size(64, 16), Size(4, 256)))
        assert long < 1.25 * short
