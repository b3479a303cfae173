"""A frozen layer and its adapters in one operation: the plain products, their gradients, and no second derivative."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from sflam.model.fused_lora import FusedLoRA
from sflam.model.lora import Rows

SCALING = 0.7
SPANS = ((0, 2, 0, 10),)


def inputs(groups=2, rows=5, inner=4, outer=6, rank=3):
    torch.manual_seed(0)
    x, a, b = (
        torch.randn(groups, *shape, dtype=torch.float64, requires_grad=True)
        for shape in ((rows, inner), (rank, inner), (outer, rank))
    )
    return x, torch.randn(outer, inner).double(), torch.randn(outer).double(), a, b


@pytest.mark.parametrize("biased", [True, False])
def test_it_is_the_plain_products(biased):
    x, weight, bias, a, b = inputs()
    bias = bias if biased else None
    found = FusedLoRA.apply(x, weight, bias, a, b, SCALING, SPANS)
    assert torch.allclose(found, F.linear(x, weight, bias) + SCALING * (x @ a.mT) @ b.mT)


def test_its_gradients_are_those_of_differences():
    x, weight, bias, a, b = inputs()
    assert torch.autograd.gradcheck(
        lambda *own: FusedLoRA.apply(own[0], weight, bias, *own[1:], SCALING, SPANS), (x, a, b)
    )


@given(st.lists(st.integers(1, 3), min_size=1, max_size=6), st.integers(1, 2))
def test_groups_of_unlike_sizes_are_each_alone(counts, tokens):
    rows = Rows(tuple(range(len(counts))), tuple(counts))
    _, weight, bias, a, b = inputs(groups=len(counts))
    x = torch.randn(sum(counts), tokens, 4, dtype=torch.float64, requires_grad=True)
    back = torch.randn(sum(counts), tokens, 6).double()
    found = FusedLoRA.apply(x, weight, bias, a, b, SCALING, rows.spans)
    alone = torch.cat(
        [
            F.linear(own, weight, bias) + SCALING * (own @ a[group].mT) @ b[group].mT
            for group, own in enumerate(x.split(counts))
        ]
    )
    assert torch.allclose(found, alone)
    for one, other in zip(*(torch.autograd.grad(y, (x, a, b), back) for y in (found, alone)), strict=True):
        assert torch.allclose(one, other)


def test_what_wants_no_gradient_gets_none():
    x, weight, bias, a, b = inputs()
    (only,) = torch.autograd.grad(
        FusedLoRA.apply(x.detach(), weight, bias, a.detach(), b, SCALING, SPANS).sum(), [b]
    )
    assert only.shape == b.shape


def test_a_second_derivative_is_refused():
    x, weight, bias, a, b = inputs()
    (first,) = torch.autograd.grad(
        FusedLoRA.apply(x, weight, bias, a, b, SCALING, SPANS).sum(), [a], create_graph=True
    )
    with pytest.raises(RuntimeError, match=r"does not require grad|once_differentiable"):
        first.sum().backward()
