"""The bound on convergence (2.14) along a real training, with every constant measured: what theory promises, beside it.

Before the first round, after the last and between some, the gradients of all devices are measured at the global
adapters, always of the same mini-batches: |grad F|^2, the variance of mini-batches, what quantization adds to it and
its bias. The smoothness L is the largest |change of the gradient| / |change of the adapters| between two measurements
after each other; the gap Delta is the loss at the start, since no loss is below 0. A step of the theory is a local step
of the fleet, all its devices' mini-batches together; its length eta is that of the way the adapters went along the sum
of gradients on it: the learning rate, for gradient descent, and what of another optimiser's steps follows the gradient.
Beyond eta = 1 / L the theory says nothing. K devices, P trained numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sflam.cost.convergence import (
    Floats,
    GradientModel,
    gradient_bound,
    rounds_factor,
    rounds_to,
)
from sflam.learn.split_fleet import LocalFleet
from sflam.model.adapters import State
from sflam.simulate.sensitivity import WIDTH, GradientNoise, floors, measured, slowdown
from sflam.sizes import MAX_BITS

PART = 0.1
"""Of |grad F|^2 at the start, what the promised numbers of steps lead to."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PathPoint:
    """One measurement.

    Attributes:
        steps: local steps before it.
        loss: training loss.
        noise: [K] of each device, |grad F|^2 among it.
        gradient: [P] the mean gradient itself.
        adapters: [P] where it was measured.
    """

    steps: int
    loss: float
    noise: tuple[GradientNoise, ...]
    gradient: Tensor
    adapters: Tensor


def look(fleet: LocalFleet, state: State, *, steps: int, batches: int) -> PathPoint:
    """Measure all devices at the adapters ``state``, of mini-batches that are the same at every call.

    Args:
        fleet: whose devices train; nothing of it changes.
        state: the global adapters.
        steps: local steps that led there.
        batches: mini-batches of each device, at least 3.
    """
    devices = range(len(fleet.parts))
    found = measured(fleet, state, devices, round=0, batches=batches)
    noise = tuple(found.noise[device] for device in devices)
    return PathPoint(steps=steps, loss=found.loss, noise=noise, gradient=found.mean, adapters=found.adapters)


def path(points: Sequence[PathPoint]) -> tuple[float, float, float]:
    """Return L in loss per squared unit of parameter, eta in squared units of parameter per loss, and the cosine
    between the way and the gradients along it; 0 where nothing moved."""
    curved = 0.0
    way, driven = torch.zeros_like(points[0].adapters), torch.zeros_like(points[0].gradient)
    for before, after in pairwise(points):
        moved = after.adapters - before.adapters
        way += moved
        driven -= (after.steps - before.steps) * (before.gradient + after.gradient) / 2
        if float(moved.norm()) > 0:
            curved = max(curved, float((after.gradient - before.gradient).norm() / moved.norm()))
    along = float(way @ driven)
    norms = float(way.norm() * driven.norm())
    return curved, along / float(driven @ driven) if norms else 0.0, along / norms if norms else 0.0


def compared(
    points: Sequence[PathPoint], samples: Sequence[int], bits: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """Return the bound beside the measurement, as one object for JSON; what is infinite or undefined is null.

    Args:
        points: at least two, the first before any step.
        samples: [K] of each device.
        bits: [K] widths up of each round of the training; empty where nothing is quantized, inf of a
            device that sends nothing.
    """
    share = np.asarray(samples, float) / np.sum(samples)
    (curved, step, cosine), start = path(points), points[0]
    models = [_model(point, share) for point in points]
    widths = [np.asarray(each, float) for each in bits] or [np.full(len(share), np.inf)]
    # the bound is one of constants: their largest along the way, at the widths that were used
    worst = {"gap": start.loss, "smoothness": curved}
    plain = max(model.variance(np.inf) for model in models)
    noisy = max(model.variance(each) for model in models for each in widths)
    bias = max(model.bias_at(each) for model in models for each in widths)
    rows: list[dict[str, Any]] = []
    area = 0.0
    for place, point in enumerate(points):
        squared, error = point.noise[0].gradient, point.noise[0].gradient_error
        if place:
            last = points[place - 1]
            area += (point.steps - last.steps) * (squared + last.noise[0].gradient) / 2
        counts = place > 0 and 0 < step * curved <= 1
        at = {"step": step, "rounds": point.steps} | worst
        rows.append(
            {
                "steps": point.steps,
                "loss": point.loss,
                "gradient": squared,
                "gradient_error": error,
                "mean_gradient": area / point.steps if place else None,
                "bound": gradient_bound(variance=noisy, bias=bias, **at) if counts else None,
                "bound_plain": gradient_bound(variance=plain, bias=0.0, **at) if counts else None,
            }
        )
    target = PART * start.noise[0].target
    apart = np.all(np.isinf(widths), axis=0) & bool(bits)
    slow = max(0.0, *(float(slowdown(point.noise, samples).chi[~apart].sum()) for point in points))
    return {
        "points": rows,
        "widths": [
            _width(width, apart, points, models, slow, target, worst) for width in (*range(1, 9), MAX_BITS)
        ],
        "smoothness": curved,
        "step": step,
        "along_gradient": cosine,
        "gap": start.loss,
        "variance": noisy,
        "variance_plain": plain,
        "squared_bias": bias**2,
        "bits_measured": WIDTH,
        "target": target,
        "holds": all(row["bound"] >= row["mean_gradient"] for row in rows if row["bound"] is not None),
        "least_bits": [
            int(max(each)) for each in zip(*(floors(point.noise) for point in points), strict=True)
        ],
    }


def _model(point: PathPoint, share: Floats) -> GradientModel:
    """Return what a point's gradients are at any width."""
    columns = (np.array([getattr(item, name) for item in point.noise]) for name in ("plain", "added", "bias"))
    plain, added, bias = columns
    return GradientModel(share=share, plain=plain, added=added, bias=bias)


def _width(
    width: int,
    apart: NDArray[np.bool_],
    points: Sequence[PathPoint],
    models: Sequence[GradientModel],
    slow: float,
    target: float,
    worst: dict[str, float],
) -> dict[str, Any]:
    """Return what one width for all devices but those ``apart`` [K], which never send, would mean; ``slow`` is the
    largest chi of all together on the way."""
    widths = np.where(apart, np.inf, width)
    biases = [model.bias_at(widths) ** 2 for model in models]
    needed = np.inf
    if worst["smoothness"] > 0:
        variance = max(model.variance(widths) for model in models)
        needed = rounds_to(target, variance=variance, bias=math.sqrt(max(biases)), **worst)
    return {
        "bits": width,
        "rounds_factor": rounds_factor(slow, width),
        "bias_share": max(
            bias / point.noise[0].target if point.noise[0].target > 0 else 0.0
            for bias, point in zip(biases, points, strict=True)
        ),
        "promised_steps": needed if np.isfinite(needed) else None,
    }
