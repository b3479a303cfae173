"""A frozen layer and its adapters in one operation: the plain products, their gradients, and no second derivative."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sflam.model.fused_lora import FusedLoRA

SCALING = 0.7


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
    found = FusedLoRA.apply(x, weight, bias, a, b, SCALING)
    assert torch.allclose(found, F.linear(x, weight, bias) + SCALING * (x @ a.mT) @ b.mT)


def test_its_gradients_are_those_of_differences():
    x, weight, bias, a, b = inputs()
    assert torch.autograd.gradcheck(
        lambda *own: FusedLoRA.apply(own[0], weight, bias, *own[1:], SCALING), (x, a, b)
    )


def test_what_wants_no_gradient_gets_none():
    x, weight, bias, a, b = inputs()
    (only,) = torch.autograd.grad(
        FusedLoRA.apply(x.detach(), weight, bias, a.detach(), b, SCALING).sum(), [b]
    )
    assert only.shape == b.shape


def test_a_second_derivative_is_refused():
    x, weight, bias, a, b = inputs()
    (first,) = torch.autograd.grad(
        FusedLoRA.apply(x, weight, bias, a, b, SCALING).sum(), [a], create_graph=True
    )
    with pytest.raises(RuntimeError, match=r"does not require grad|once_differentiable"):
        first.sum().backward()
