"""The table of aten operators that have a counterpart among the kinds; any other refuses a graph by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sympy
from torch import Tensor, fx

from sflam.graph.graph import Graph
from sflam.model import aten_operators as to
from sflam.model import aten_views as views
from sflam.model.lowering import Constant, Lowering

LOWERED: Mapping[str, views.Lower] = {
    "<built-in function getitem>": to.item,
    **{f"aten.{name}": to.cells(kind, count) for name, kind, count in (
        ("add.Tensor", "add", 2), ("add.Scalar", "add", 2), ("sub.Tensor", "sub", 2), ("sub.Scalar", "sub", 2),
        ("mul.Tensor", "mul", 2), ("mul.Scalar", "mul", 2), ("div.Tensor", "div", 2), ("div.Scalar", "div", 2),
        ("div_.Scalar", "div", 2), ("add_.Tensor", "add", 2), ("mul_.Tensor", "mul", 2),
        ("pow.Tensor_Tensor", "pow", 2), ("maximum.default", "maximum", 2),
        ("minimum.default", "minimum", 2), ("clamp_min.default", "maximum", 2),
        ("floor_divide.default", "floor_divide", 2),
        ("remainder.Scalar", "remainder", 2), ("neg.default", "neg", 1), ("abs.default", "abs", 1),
        ("exp.default", "exp", 1), ("expm1.default", "expm1", 1), ("log.default", "log", 1),
        ("log1p.default", "log1p", 1), ("sqrt.default", "sqrt", 1), ("rsqrt.default", "rsqrt", 1),
        ("reciprocal.default", "reciprocal", 1), ("tanh.default", "tanh", 1), ("sigmoid.default", "sigmoid", 1),
        ("erf.default", "erf", 1), ("sin.default", "sin", 1), ("cos.default", "cos", 1), ("relu.default", "relu", 1),
        ("silu.default", "silu", 1), ("silu_backward.default", "silu_grad", 2), ("floor.default", "floor", 1),
    )},
    **{f"aten.{kind}.{form}": to.compares(kind) for kind in ("eq", "ne", "lt", "le", "gt", "ge")
       for form in ("Tensor", "Scalar")},
    **{f"aten.bitwise_{kind}.{form}": to.bitwise(kind) for kind in ("and", "or", "not")
       for form in ("Tensor", "Scalar", "default")},
    **{f"aten.logical_{kind}.default": to.logic(kind) for kind in ("and", "or", "not")},
    **{f"aten.{name}": views.same for name in (
        "_to_copy.default", "clone.default", "detach.default", "alias.default", "lift_fresh_copy.default",
        "contiguous.default", "to.dtype", "lift_fresh.default",
    )},
    **{f"aten.{name}": views.shaped for name in (
        "view.default", "_unsafe_view.default", "reshape.default", "unsqueeze.default", "squeeze.dim",
        "squeeze.dims", "squeeze.default",
    )},
    "aten.copy_.default": views.copied,
    "aten.fill_.Tensor": views.copied,
    "aten.fill_.Scalar": to.filled(None),
    "aten.expand.default": views.expand,
    "aten.permute.default": views.permute,
    "aten.transpose.int": views.transpose,
    "aten.t.default": views.t,
    "aten.slice.Tensor": views.slice,
    "aten.slice_backward.default": views.slice_grad,
    "aten.select.int": views.select,
    "aten.select_backward.default": views.select_grad,
    "aten.split.Tensor": views.split,
    "aten.split_with_sizes.default": views.split,
    "aten.unbind.int": views.unbind,
    "aten.cat.default": views.cat,
    "aten.stack.default": views.stack,
    "aten.mm.default": lambda low, value, a, b: low.build("matmul", a, b),
    "aten.bmm.default": to.bmm,
    "aten.addmm.default": to.addmm,
    **{f"aten.{name}": to.reduce(kind) for name, kind in (
        ("sum.dim_IntList", "sum"), ("sum.default", "sum"), ("mean.dim", "mean"), ("mean.default", "mean"),
        ("amax.default", "max"), ("any.dim", "any"), ("all.dim", "all"), ("any.default", "any"), ("all.default", "all"),
    )},
    "aten.argmax.default": to.argmax,
    "aten.cumsum.default": to.cumsum,
    "aten._softmax.default": to.along("softmax"),
    "aten._softmax_backward_data.default": to.along("softmax_grad", 2),
    "aten._log_softmax.default": to.along("log_softmax"),
    "aten._log_softmax_backward_data.default": to.along("log_softmax_grad", 2),
    "aten.native_layer_norm.default": to.layer_norm,
    "aten.native_layer_norm_backward.default": to.layer_norm_grad,
    "aten.gelu.default": to.gelu,
    "aten.gelu_backward.default": to.gelu_grad,
    "aten.threshold_backward.default": to.threshold_grad,
    "aten.tanh_backward.default": to.tanh_grad,
    "aten.sigmoid_backward.default": to.sigmoid_grad,
    "aten.pow.Tensor_Scalar": to.pow,
    "aten.where.self": to.where,
    "aten.masked_fill.Scalar": to.masked_fill,
    "aten.masked_fill.Tensor": to.masked_fill,
    "aten.masked_fill_.Scalar": to.masked_fill,
    **{f"aten.{name}": to.filled(number) for name, number in (
        ("zeros.default", 0), ("ones.default", 1), ("zeros_like.default", 0), ("ones_like.default", 1),
        ("new_zeros.default", 0), ("new_ones.default", 1), ("full.default", None), ("full_like.default", None),
        ("new_full.default", None), ("scalar_tensor.default", None),
    )},
    "aten.arange.default": to.arange,
    "aten.arange.start": to.arange,
    "aten.arange.start_step": to.arange,
    "aten.embedding.default": to.embedding,
    "aten.index_select.default": to.index_select,
    "aten.index.Tensor": to.index,
    "aten.index_put.default": to.index_add,
    "aten.gather.default": to.gather,
    "aten.scatter_add.default": to.scatter_add,
    "aten.convolution.default": to.patches,
    "aten.nll_loss_forward.default": to.nll,
    "aten.nll_loss_backward.default": to.nll_grad,
    "aten.bernoulli.p": to.dropout,
    "aten.rand.default": to.uniform,
    "aten.upsample_bilinear2d.default": to.resized,
}  # fmt: skip
"""Name of the operator -> its lowering."""


def lower(
    module: fx.GraphModule,
    inputs: list[str],
    symbol: sympy.Symbol,
    constant: Callable[[Tensor], Constant | None],
) -> tuple[Graph, list[str | None]]:
    """Return the graph of a traced function, and the names of what the function returns (None for nothing).

    Args:
        module: traced, with one symbolic size.
        inputs: names for the placeholders, in order.
        symbol: torch's name of that size.
        constant: the input a held tensor is; None for none.

    Raises:
        GraphError: an operator is not in the table, or a size is no polynomial of n.
    """
    return Lowering(symbol, constant).run(module, inputs, LOWERED)
