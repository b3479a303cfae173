"""The boundary: what crosses in one process is what would cross a network, in both directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sflam.codec.quantizer import Packed
from sflam.codec.torch_quantizers import TorchQuantizer, torch_quantizer
from sflam.codec.uniform import Uniform
from sflam.errors import QuantizerError
from tests.codec.boundary import boundary

UNIFORM, IDENTITY = torch_quantizer("uniform"), torch_quantizer("identity")
B, T, D = 3, 5, 16


class Recorder(TorchQuantizer):
    """The uniform quantizer, remembering the bytes it would send."""

    def __init__(self) -> None:
        super().__init__(Uniform())
        self.sent: list[Packed] = []

    def round_trip(self, x: torch.Tensor, bits: int, seed: int) -> torch.Tensor:
        self.sent.append(self.encode(x, bits, seed))
        return self.decode(self.sent[-1])


def hidden(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()


def padding() -> torch.Tensor:
    return torch.arange(T) < torch.tensor([[5], [2], [0]])


def backward(out: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Send a known gradient back; return it and the one that arrives."""
    sent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    (arrived,) = torch.autograd.grad(out, x, sent)
    return sent, arrived


@pytest.mark.parametrize("name", ["uniform", "rotated", "identity"])
def test_forward_and_backward_are_encode_then_decode(name: str) -> None:
    x, codec = hidden(), torch_quantizer(name)
    out = boundary(x, codec, 4, 6, 11, 22)
    sent, arrived = backward(out, x)
    assert out.equal(codec.decode(codec.encode(x.view(-1, D), 4, 11)).view(B, T, D))
    assert arrived.equal(codec.decode(codec.encode(sent.view(-1, D), 6, 22)).view(B, T, D))


def test_masked_tokens_cost_nothing_come_out_zero_and_get_no_gradient() -> None:
    x, mask, codec = hidden(), padding(), Recorder()
    valid = int(mask.sum())
    out = boundary(x, codec, 4, 8, 1, 2, mask)
    sent, arrived = backward(out, x)
    up, down = codec.sent
    assert (up.tokens, down.tokens) == (valid, valid)
    assert (up.nbytes, down.nbytes) == (UNIFORM.nbytes(valid, D, 4), UNIFORM.nbytes(valid, D, 8))
    assert not out[~mask].any() and not arrived[~mask].any()
    assert out[mask].equal(UNIFORM.decode(UNIFORM.encode(x[mask], 4, 1)))  # row-major order
    assert arrived[mask].equal(UNIFORM.decode(UNIFORM.encode(sent[mask], 8, 2)))


def test_what_stands_at_masked_positions_changes_nothing() -> None:
    mask = padding()
    x, spoiled = hidden(), hidden()
    with torch.no_grad():
        spoiled[~mask] = torch.nan
    assert boundary(x, UNIFORM, 4, 4, 1, 2, mask).equal(boundary(spoiled, UNIFORM, 4, 4, 1, 2, mask))


def test_a_full_mask_is_no_mask_and_an_empty_one_sends_nothing() -> None:
    x = hidden()
    full, empty = torch.ones(B, T, dtype=torch.bool), torch.zeros(B, T, dtype=torch.bool)
    assert boundary(x, UNIFORM, 4, 4, 1, 2, full).equal(boundary(x, UNIFORM, 4, 4, 1, 2))
    out = boundary(x, UNIFORM, 4, 4, 1, 2, empty)
    assert not out.any() and not backward(out, x)[1].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_result_keeps_the_float_type(dtype: torch.dtype) -> None:
    for mask in (None, padding()):
        x = hidden(dtype)
        out = boundary(x, UNIFORM, 8, 8, 1, 2, mask)
        assert out.dtype == backward(out, x)[1].dtype == dtype
        exact = boundary(x, IDENTITY, 8, 8, 1, 2, mask)
        assert exact.equal(x if mask is None else x.where(mask[..., None], torch.zeros((), dtype=dtype)))


def test_the_gradient_is_unbiased() -> None:
    """Averaged over seeds, activations and gradients are those of the uncut graph."""
    x, weight, seeds = hidden(), torch.linspace(-1, 1, D), 400
    outs, grads = [], []
    for seed in range(seeds):
        out = boundary(x, UNIFORM, 3, 3, seed, seed + seeds)
        outs.append(out.detach())
        grads.append(torch.autograd.grad((out * weight).sum(), x)[0])
    span = (x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True)).detach() / 7 * 1.02
    assert ((torch.stack(outs).mean(0) - x).abs() < 5 * span / 2 / seeds**0.5).all()
    assert ((torch.stack(grads).mean(0) - weight).abs() < 5 * (2 / 7 * 1.02) / 2 / seeds**0.5).all()


def test_a_frozen_device_half_gets_no_gradient_and_costs_none() -> None:
    codec = Recorder()
    weight = torch.ones(D, requires_grad=True)
    out = boundary(hidden().detach(), codec, 4, 4, 1, 2)
    (out * weight).sum().backward()
    assert len(codec.sent) == 1 and weight.grad is not None


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    x = hidden()
    out = boundary(x, UNIFORM, 4, 4, 1, 2)
    with pytest.raises(QuantizerError, match="token 0"):
        out.backward(torch.full_like(out, np.nan))


def test_layouts_other_than_contiguous_are_kept_right() -> None:
    x = hidden()
    swapped = x.transpose(0, 1)
    out = boundary(swapped, UNIFORM, 4, 4, 1, 2)
    sent, arrived = backward(out, x)
    assert out.equal(boundary(swapped.contiguous(), UNIFORM, 4, 4, 1, 2))
    assert arrived.transpose(0, 1).equal(
        UNIFORM.decode(UNIFORM.encode(sent.reshape(-1, D), 4, 2)).view(T, B, D)
    )


def test_any_quantizer_fits() -> None:
    fitted: TorchQuantizer = Recorder()
    assert boundary(hidden(), fitted, 4, 4, 1, 2).shape == (B, T, D)
