"""Operations along one axis of whole rows: softmax, LayerNorm, and their gradients.

``axis`` is brought to the end as a view; the rest is cut into blocks of rows. Every result may lie in the memory
of an operand of its own shape: a block is read before it is written.
"""

from __future__ import annotations

import numpy as np

from sflam.device.kernels.scratch import Array, Scratch, blocks


def softmax(out: Array, x: Array, scratch: Scratch, *, axis: int = -1) -> None:
    """exp(x - max) / sum."""
    out, x = np.moveaxis(out, axis, -1), np.moveaxis(x, axis, -1)
    for block in blocks(out.shape, out.itemsize, whole=1):
        part, of = out[block], x[block]
        row = scratch.array(0, (*of.shape[:-1], 1), of.dtype)
        np.subtract(of, np.max(of, axis=-1, keepdims=True, out=row), out=part)
        np.exp(part, out=part)
        part *= np.reciprocal(np.sum(part, axis=-1, keepdims=True, out=row), out=row)


def softmax_grad(out: Array, grad: Array, result: Array, scratch: Scratch, *, axis: int = -1) -> None:
    """(grad - sum(grad result)) result."""
    out, grad, result = (np.moveaxis(array, axis, -1) for array in (out, grad, result))
    for block in blocks(out.shape, out.itemsize, whole=1):
        g, y = grad[block], result[block]
        product = np.multiply(g, y, out=scratch.array(1, g.shape, g.dtype))
        row = scratch.array(0, (*g.shape[:-1], 1), g.dtype)
        np.sum(product, axis=-1, keepdims=True, out=row)
        part = scratch.array(1, g.shape, g.dtype)
        np.multiply(np.subtract(g, row, out=part), y, out=out[block])


def log_softmax(out: Array, x: Array, scratch: Scratch, *, axis: int = -1) -> None:
    """x - max - log(sum(exp(x - max)))."""
    out, x = np.moveaxis(out, axis, -1), np.moveaxis(x, axis, -1)
    for block in blocks(out.shape, out.itemsize, whole=1):
        part, of = out[block], x[block]
        row = scratch.array(0, (*of.shape[:-1], 1), of.dtype)
        np.subtract(of, np.max(of, axis=-1, keepdims=True, out=row), out=part)
        powers = np.exp(part, out=scratch.array(1, of.shape, of.dtype))
        part -= np.log(np.sum(powers, axis=-1, keepdims=True, out=row), out=row)


def log_softmax_grad(out: Array, grad: Array, result: Array, scratch: Scratch, *, axis: int = -1) -> None:
    """grad - exp(result) sum(grad)."""
    out, grad, result = (np.moveaxis(array, axis, -1) for array in (out, grad, result))
    for block in blocks(out.shape, out.itemsize, whole=1):
        g, y = grad[block], result[block]
        row = scratch.array(0, (*g.shape[:-1], 1), g.dtype)
        np.sum(g, axis=-1, keepdims=True, out=row)
        powers = np.exp(y, out=scratch.array(1, g.shape, g.dtype))
        powers *= row
        np.subtract(g, powers, out=out[block])


def layer_norm(
    out: Array,
    mean: Array,
    rstd: Array,
    x: Array,
    w: Array | None,
    b: Array | None,
    scratch: Scratch,
    *,
    eps: float,
) -> None:
    """(x - mean) rstd w + b over the last axis; ``mean`` and ``rstd`` = 1 / sqrt(variance + eps) are [..., 1]."""
    width = x.shape[-1]
    for block in blocks(out.shape, out.itemsize, whole=1):
        part, of, centre, scale = out[block], x[block], mean[block], rstd[block]
        np.sum(of, axis=-1, keepdims=True, out=centre)
        centre /= width
        np.subtract(of, centre, out=part)
        square = np.square(part, out=scratch.array(0, of.shape, of.dtype))
        np.sum(square, axis=-1, keepdims=True, out=scale)
        scale /= width
        scale += eps
        np.reciprocal(np.sqrt(scale, out=scale), out=scale)
        part *= scale
        if w is not None:
            part *= w
        if b is not None:
            part += b


def layer_norm_grad(
    out: Array, grad: Array, x: Array, mean: Array, rstd: Array, w: Array | None, scratch: Scratch
) -> None:
    """rstd (g - mean(g) - y mean(g y)) over the last axis, with y = (x - mean) rstd and g = grad w."""
    width = x.shape[-1]
    for block in blocks(out.shape, out.itemsize, whole=1):
        of, centre, scale = x[block], mean[block], rstd[block]
        g, y, product = (scratch.array(slot, of.shape, of.dtype) for slot in (0, 1, 2))
        row = scratch.array(3, (*of.shape[:-1], 1), of.dtype)
        np.copyto(g, grad[block]) if w is None else np.multiply(grad[block], w, out=g)
        np.subtract(of, centre, out=y)
        y *= scale
        np.sum(np.multiply(g, y, out=product), axis=-1, keepdims=True, out=row)
        row /= width
        y *= row
        np.sum(g, axis=-1, keepdims=True, out=row)
        row /= width
        g -= row
        g -= y
        np.multiply(g, scale, out=out[block])
