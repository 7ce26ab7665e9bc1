"""Dropout does what its name says: new masks, the right share, nothing in evaluation, the expectation kept."""

import math

import pytest
import torch

from trainers.models.awd_lstm import WeightDropLstm
from trainers.models.dropout import VariationalDropout, drop_weights, embed

SHARES = [0.1, 0.5, 0.65]


def within_binomial(dropped: int, trials: int, share: float) -> bool:
    """Whether a count is within five standard deviations: one failure in a million seeds."""
    return abs(dropped - trials * share) <= 5 * math.sqrt(trials * share * (1 - share))


@pytest.mark.parametrize("share", SHARES)
def test_variational_dropout_drops_its_share_and_scales_the_rest(share: float) -> None:
    torch.manual_seed(0)
    out = VariationalDropout(share)(torch.ones(3, 100, 200))
    assert within_binomial(int((out[0] == 0).sum()), 100 * 200, share)
    assert torch.allclose(out[out != 0], torch.tensor(1 / (1 - share)))


def test_variational_mask_is_constant_over_time_and_differs_between_rows() -> None:
    torch.manual_seed(0)
    out = VariationalDropout(0.5)(torch.ones(7, 5, 64))
    assert all(torch.equal(out[0], step) for step in out)
    assert not torch.equal(out[0, 0], out[0, 1])


def test_each_batch_has_a_new_mask() -> None:
    torch.manual_seed(0)
    module, ones = VariationalDropout(0.5), torch.ones(2, 4, 64)
    assert not torch.equal(module(ones), module(ones))
    weight, tokens = torch.ones(64, 3), torch.arange(64)
    assert not torch.equal(embed(tokens, weight, 0.5, True), embed(tokens, weight, 0.5, True))
    assert not torch.equal(drop_weights(weight, 0.5, True), drop_weights(weight, 0.5, True))


def test_nothing_is_dropped_in_evaluation() -> None:
    values, weight = torch.randn(3, 4, 5), torch.randn(6, 5)
    assert torch.equal(VariationalDropout(0.9).eval()(values), values)
    assert torch.equal(embed(torch.arange(6), weight, 0.9, False), weight)
    assert torch.equal(drop_weights(weight, 0.9, False), weight)


def test_expectations_are_preserved() -> None:
    torch.manual_seed(0)
    module, values, weight = VariationalDropout(0.4), torch.full((1, 50, 50), 3.0), torch.full((50, 50), 3.0)
    for draw in (
        lambda: module(values),
        lambda: embed(torch.arange(50), weight, 0.4, True),
        lambda: drop_weights(weight, 0.4, True),
    ):
        mean = torch.stack([draw() for _ in range(400)]).mean()
        assert abs(float(mean) - 3.0) < 0.1


def test_embedding_dropout_drops_whole_words_wherever_they_occur() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(500, (40, 50))
    out = embed(tokens, torch.ones(500, 8), 0.3, True)
    assert (out == out[..., :1]).all()
    for word in range(500):
        assert len(out[tokens == word].unique()) <= 1
    dropped = int((embed(torch.arange(500), torch.ones(500, 8), 0.3, True)[:, 0] == 0).sum())
    assert within_binomial(dropped, 500, 0.3)


def test_embedding_dropout_equals_masking_the_matrix() -> None:
    weight, tokens = torch.randn(20, 4, requires_grad=True), torch.randint(20, (6, 3))
    torch.manual_seed(3)
    out = embed(tokens, weight, 0.5, True)
    out.sum().backward()
    torch.manual_seed(3)
    mask = torch.empty(20).bernoulli_(0.5) / 0.5
    assert torch.allclose(out, (weight * mask[:, None])[tokens])
    counts = torch.bincount(tokens.flatten(), minlength=20) * mask
    assert weight.grad is not None
    assert torch.allclose(weight.grad, counts[:, None].expand(20, 4))


def test_weight_drop_leaves_the_raw_weight_alone_and_its_gradient_arrives() -> None:
    torch.manual_seed(0)
    layer = WeightDropLstm(4, 16, 0.5)
    before = layer.weight_hh.detach().clone()
    state = (torch.randn(3, 16), torch.randn(3, 16))
    out, _ = layer(torch.randn(5, 3, 4), state)
    out.sum().backward()
    assert torch.equal(layer.weight_hh, before)
    assert layer.weight_hh.grad is not None
    untouched = int((layer.weight_hh.grad == 0).sum())
    assert within_binomial(untouched, 64 * 16, 0.5)


def test_weight_drop_is_one_mask_per_forward_pass_and_none_in_evaluation() -> None:
    torch.manual_seed(0)
    layer = WeightDropLstm(4, 16, 0.5)
    inputs, state = torch.randn(5, 3, 4), (torch.randn(3, 16), torch.randn(3, 16))
    assert not torch.equal(layer(inputs, state)[0], layer(inputs, state)[0])
    layer.eval()
    assert torch.equal(layer(inputs, state)[0], layer(inputs, state)[0])
