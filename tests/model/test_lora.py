"""Stacked layers against each device's own layer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.model.lora import Layout, Rows, StackedLinear, StackedLoRA
from sflam.model.stack import AdapterStack


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    tokens=st.sampled_from([None, 1, 3]),
    data=st.data(),
)
def test_stacked_layers_are_each_devices_own(counts, tokens, data):
    """Any groups of any sizes over any copies, with and without a token axis."""
    copies = data.draw(st.permutations(range(6)))[: len(counts)]
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, *shape, generator=draw, dtype=torch.float64) for shape in ((2, 4), (3, 2)))
    weight, bias = (torch.randn(6, *shape, generator=draw, dtype=torch.float64) for shape in ((3, 4), (3,)))
    base = torch.nn.Linear(4, 3, dtype=torch.float64)
    layout = Layout()
    layout.rows = Rows.of(copies, counts)
    rows = sum(counts)
    x = torch.randn(*((rows,) if tokens is None else (rows, tokens)), 4, generator=draw, dtype=torch.float64)
    lora = StackedLoRA(base, a.requires_grad_(), b, 0.5, 0.0, layout)(x)
    linear = StackedLinear(weight, bias, layout)(x)
    start = 0
    for copy, count in zip(copies, counts, strict=True):
        own = x[start : start + count]
        assert torch.allclose(lora[start : start + count], base(own) + 0.5 * own @ a[copy].T @ b[copy].T)
        assert torch.allclose(linear[start : start + count], own @ weight[copy].T + bias[copy])
        start += count


def test_neighbours_that_share_a_copy_are_one_group():
    assert Rows.of([0, 0, 2], [3, 1, 2]) == Rows((0, 2), (4, 2))


def test_picking_copies_is_a_view_where_it_can_be():
    stacked = torch.arange(12.0).view(4, 3)
    layout = Layout()

    def picked(*copies):
        layout.rows = Rows(copies, (1,) * len(copies))
        return layout.pick(stacked)

    assert picked(0, 1, 2, 3) is stacked
    assert picked(1, 2).data_ptr() == stacked[1].data_ptr()
    assert torch.equal(picked(3, 0), stacked[[3, 0]])


def test_an_adapter_stack_is_one_matrix_seen_three_ways():
    initial = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}
    stack = AdapterStack(initial, copies=3)
    assert stack.values.shape == (3, 8) and stack.size() == 8 and stack.size(["b"]) == 2
    assert all(torch.equal(stack.read(k)["a"], initial["a"]) for k in range(3))
    stack.write(1, {"b": torch.tensor([5.0, 6.0])})
    assert stack.tensors["b"].tolist() == [[1, 1], [5, 6], [1, 1]]
    assert stack.rows[1].tolist() == [0, 1, 2, 3, 4, 5, 5, 6]
    with torch.no_grad():
        stack.rows[2].zero_()
    assert not stack.tensors["a"][2].any(), "the optimiser's row is what the forward uses"


def test_absent_copies_get_no_gradient_and_inputs_get_theirs():
    stack = AdapterStack({"w": torch.ones(2)}, copies=3)
    stack.grads.fill_(7)  # of an earlier step
    stack.begin([1])
    x = torch.tensor([1.0, 3.0], requires_grad=True)
    (gradient,) = stack.backward((stack.tensors["w"][1] * x).sum(), inputs=[x])
    assert stack.grads[1].tolist() == [1, 3]
    assert gradient.tolist() == [1, 1]
    stack.hand_out()
    assert stack.rows[0].grad is None and stack.rows[1].grad.tolist() == [1, 3]


@pytest.mark.parametrize("frozen", [True, False])
def test_a_common_frozen_a_serves_every_copy(frozen):
    base, layout = torch.nn.Linear(4, 3), Layout()
    a, b = torch.randn(1, 2, 4), torch.randn(3, 3, 2)
    layout.rows = Rows.of([2, 0], [1, 1])
    stacked_a = (
        torch.nn.Parameter(a, requires_grad=False) if frozen else a.expand(3, 2, 4).clone().requires_grad_()
    )
    x = torch.randn(2, 4)
    out = StackedLoRA(base, stacked_a, b, 1.0, 0.0, layout)(x)
    expected = torch.stack([base(x[i]) + b[copy] @ (a[0] @ x[i]) for i, copy in enumerate([2, 0])])
    assert torch.allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize("frozen", ["x", "a", ""])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("counts", [[3, 3], [4, 2]])
def test_base_and_update_in_one_operation_are_the_two(monkeypatch, frozen, bias, counts):
    draw = torch.Generator().manual_seed(0)

    def numbers(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    base, layout = torch.nn.Linear(5, 4, bias, dtype=torch.float64).requires_grad_(False), Layout()
    given = {"x": numbers(6, 3, 5), "a": numbers(1 if frozen == "a" else 4, 2, 5), "b": numbers(4, 4, 2)}
    wanted = [tensor.requires_grad_() for name, tensor in given.items() if name != frozen]
    layout.rows = Rows.of([3, 1], counts)
    layer = StackedLoRA(base, given["a"], given["b"], 0.7, 0.0, layout)
    back, found = numbers(6, 3, 4), []
    for layout.fused in (True, False):
        if not layout.fused:
            monkeypatch.setattr("sflam.model.lora.FusedLoRA", None)
        out = layer(given["x"])
        found.append([out, *torch.autograd.grad(out, wanted, back)])
    for fused, apart in zip(*found, strict=True):
        assert torch.allclose(fused, apart, rtol=1e-12, atol=1e-12)
    layout.fused = True
    with pytest.raises(AttributeError):  # the other way was not taken twice
        layer(given["x"])
