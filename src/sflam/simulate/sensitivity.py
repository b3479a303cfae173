"""chi_k, how much the noise of each device's quantizer slows learning, measured on the model as it is (2.12).

    chi_k = rho_k^2 (Var_k,q - Var_k,inf) / (V0 v(q)),   V0 = sum_j rho_j^2 Var_j,inf,   v(q) = (2^q - 1)^-2

Var is the variance of the gradient of a mini-batch's mean loss, summed over all trained numbers: without quantization,
and with activations rounded to q bits. Both are taken over the same mini-batches, as means over pairs of them:
Var = E |g - g'|^2 / 2, which has no bias. Rounding noise moves a gradient by much more, along the way it points, than
it changes the variance; what it adds there is of mean zero, but at 4 bits larger than chi. So each rounding x + e is
taken together with its mirror image x - e, in which that part cancels. Errors are the jackknife's over mini-batches.

The same gradients have the bias (2.13), what mini-batches have in common of the quantized minus the plain gradient,
and |grad F|^2, what they have in common themselves, of the devices measured together and weighted by their samples:
products of different mini-batches, which have no noise. A device's floor q_min is the least width at which its squared
bias is at most a share, a quarter in (2.15), of eps = |grad F|^2: with it the quantized gradient still points down.
Where mini-batches cannot tell |grad F|^2 from 0, eps is its standard error, the least that they can tell; the bias
counts with its standard error on top.

Of the way down chi' is measured likewise where plans choose its bits: the backward is linear in the gradient that comes
back, so that rounding it adds noise of mean zero to the gradient of the same mini-batch, and E |that noise|^2 is all
that it adds to the variance.

M mini-batches, K devices, P trained numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sflam.cost.convergence import least_bits, measured_slowdown, quantization_noise
from sflam.learn.split_fleet import LocalFleet
from sflam.model.adapters import State
from sflam.simulate.gradients import Probe

Floats = NDArray[np.float64]
WIDTH = 4
"""Bits at which noise is measured; it is the same, times v(q), at other widths."""
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class GradientNoise:
    """What one device's gradients do, in (loss per unit of parameter) squared; errors are standard errors.

    Attributes:
        round: before which it was measured.
        plain: sigma_k^2, variance of a mini-batch's gradient without quantization.
        plain_error: of that.
        added: (Var_k,q - Var_k,inf) / v(q), the variance that quantization adds, per unit of v(q).
        added_error: of that.
        bias: |mean of the quantized gradient - gradient|^2 / v(q)^2; what mini-batches have in common of it.
        batches: M.
        bias_error: of that.
        gradient: |grad F|^2 of the devices that were measured together; inf where it was not measured.
        gradient_error: of that.
        added_down: what rounding gradients on the way down adds to the variance, per unit of v(d).
        added_down_error: of that.
    """

    round: int
    plain: float
    plain_error: float
    added: float
    added_error: float
    bias: float
    batches: int
    bias_error: float = 0.0
    gradient: float = np.inf
    gradient_error: float = 0.0
    added_down: float = 0.0
    added_down_error: float = 0.0

    @property
    def target(self) -> float:
        """eps, |grad F|^2 as far as mini-batches can tell it."""
        return max(self.gradient, self.gradient_error)


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurement:
    """What several devices' gradients do together.

    Attributes:
        noise: device -> what its gradients do.
        mean: [P] their gradient over all mini-batches, weighted by samples.
        adapters: [P] where they were measured, in the same order.
        loss: their mean loss over them, without quantization, weighted likewise.
    """

    noise: dict[int, GradientNoise]
    mean: Tensor
    adapters: Tensor
    loss: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Slowdown:
    """chi of a group of devices. Arrays [K], no unit.

    Attributes:
        chi: as measured; below 0 where quantization makes gradients agree more.
        half: half the width of its confidence interval, of ``CONFIDENCE``.
        floor: q_min, fewest bits at which the bias of the gradient is small.
        down: chi of the way down; 0 where it was not measured.
    """

    chi: Floats
    half: Floats
    floor: NDArray[np.int64]
    down: Floats


def gradient_noise(
    fleet: LocalFleet,
    state: State,
    devices: Sequence[int],
    *,
    round: int,
    batches: int,
    bits: int = WIDTH,
    down: bool = False,
) -> dict[int, GradientNoise]:
    """Return the noise alone of what :func:`measured` finds."""
    return measured(fleet, state, devices, round=round, batches=batches, bits=bits, down=down).noise


def measured(
    fleet: LocalFleet,
    state: State,
    devices: Sequence[int],
    *,
    round: int,
    batches: int,
    bits: int = WIDTH,
    down: bool = False,
) -> Measurement:
    """Measure devices at the global adapters ``state``; the fleet trains on as if it had not been measured.

    Args:
        fleet: see :class:`sflam.simulate.gradients.Probe`.
        state: the global adapters.
        devices: those to measure, all in the same passes.
        round: names the random streams, mini-batches among them.
        batches: M, at least 2; each costs three forwards and backwards.
        bits: the width.
        down: also measure what the way down adds, in a fourth pass.
    """
    assert batches >= 2, batches
    probe = Probe(fleet, state, devices, round)
    held = np.array([len(fleet.parts[device]) for device in devices], float)
    share, loss = held / held.sum(), 0.0
    found: list[dict[int, tuple[Tensor, Tensor, Tensor]]] = []
    heard: dict[int, list[float]] = {device: [] for device in devices}
    for number in range(batches):
        drawn = probe.draw(number)
        plain = probe.gradients(drawn, number)
        loss += float(share @ [probe.losses[device] for device in devices]) / batches
        up = probe.gradients(drawn, number, bits)
        turned = probe.gradients(drawn, number, bits, mirrored=True)
        found.append({device: (plain[device], up[device], turned[device]) for device in devices})
        if down:
            back = probe.gradients(drawn, number, down=bits)
            for device in devices:
                added = (back[device].double() - plain[device].double()).square().sum()
                heard[device].append(float(added) / float(quantization_noise(bits)))
    weights = dict(zip(devices, share.tolist(), strict=True))
    common = torch.stack([probe.together(weights, {d: item[d][0] for d in devices}) for item in found])
    gradient = _jackknife(_products(common))
    noise = {
        device: _with_way_down(_noise([item[device] for item in found], round, bits, gradient), heard[device])
        for device in devices
    }
    return Measurement(noise=noise, mean=common.mean(0), adapters=probe.flat(state), loss=loss)


def slowdown(found: Sequence[GradientNoise], samples: ArrayLike, bias_share: float = 0.25) -> Slowdown:
    """Return chi of devices that are averaged together, weighted by their samples [K] as FedAvg does, and their floors.

    The error is that of each device's own noise and of V0, to first order, as if they were independent.

    Args:
        found: of each device.
        samples: of each device.
        bias_share: of |grad F|^2 that a device's squared bias may be; 0 asks for no floor.
    """
    floor = floors(found, bias_share) if bias_share > 0 else np.ones(len(found), np.int64)
    rho = np.asarray(samples, float) / np.sum(samples)
    plain, added, plain_error, added_error = (
        np.array([getattr(item, name) for item in found])
        for name in ("plain", "added", "plain_error", "added_error")
    )
    whole = float(rho**2 @ plain)
    if not whole > 0:  # nothing varies: every mini-batch is the whole of its device's data
        nothing = np.zeros(len(rho))
        return Slowdown(chi=nothing, half=np.full(len(rho), np.inf), floor=floor, down=nothing)
    noise = quantization_noise(WIDTH)
    chi = measured_slowdown(rho, plain + added * noise, plain, WIDTH)
    whole_error = float(np.sqrt(rho**4 @ plain_error**2)) / whole
    error = np.hypot(rho**2 * added_error / whole, chi * whole_error)
    heard = np.array([item.added_down for item in found])
    return Slowdown(
        chi=chi,
        half=error * np.array([_student(item.batches - 1) for item in found]),
        floor=floor,
        down=measured_slowdown(rho, plain + heard * noise, plain, WIDTH),
    )


def floors(found: Sequence[GradientNoise], bias_share: float = 0.25) -> NDArray[np.int64]:
    """Return q_min [K], the fewest bits at which each device's squared bias, with its standard error on top, is at
    most ``bias_share`` of |grad F|^2."""
    bias = [max(item.bias, 0.0) + item.bias_error for item in found]
    return least_bits(bias, [item.target for item in found], bias_share)


def _noise(
    found: Sequence[tuple[Tensor, Tensor, Tensor]], round: int, bits: int, gradient: tuple[float, float]
) -> GradientNoise:
    """Return what (plain, rounded, mirrored) gradients [P] of M mini-batches show, beside |grad F|^2 and its error."""
    plain, up, down = (torch.stack(list(each)) for each in zip(*found, strict=True))
    noise = float(quantization_noise(bits))
    base = _halved_distances(plain)
    added = ((_halved_distances(up) + _halved_distances(down)) / 2 - base) / noise
    # Different mini-batches round independently: their products have the common bias alone, and no noise.
    bias, bias_error = _jackknife(_products(((up.double() + down.double()) / 2 - plain.double()) / noise))
    sigma, sigma_error = _jackknife(base)
    more, more_error = _jackknife(added)
    return GradientNoise(
        round=round,
        plain=sigma,
        plain_error=sigma_error,
        added=more,
        added_error=more_error,
        bias=bias,
        batches=len(found),
        bias_error=bias_error if np.isfinite(bias_error) else 0.0,
        gradient=gradient[0],
        gradient_error=gradient[1] if np.isfinite(gradient[1]) else 0.0,
    )


def _with_way_down(noise: GradientNoise, added: Sequence[float]) -> GradientNoise:
    """Return a measurement with what each mini-batch's way down added, where that was measured."""
    if not added:
        return noise
    error = float(np.std(added, ddof=1)) / len(added) ** 0.5
    return replace(noise, added_down=float(np.mean(added)), added_down_error=error)


def _products(vectors: Tensor) -> Floats:
    """Return [M, M] products of [M, P] vectors: of different ones, estimates of the squared norm of their mean."""
    rows = vectors.double()
    found: Floats = (rows @ rows.T).numpy()
    return found


def _halved_distances(gradients: Tensor) -> Floats:
    """Return [M, M] |g_i - g_j|^2 / 2 of [M, P] gradients."""
    centred = (gradients - gradients.mean(0)).double()
    products = (centred @ centred.T).numpy()
    squares = products.diagonal()
    halves: Floats = (squares[:, None] + squares[None, :]) / 2 - products
    return halves


def _jackknife(pairs: Floats) -> tuple[float, float]:
    """Return the mean over all pairs of different ones of [M, M], and its standard error; inf where M is 2."""
    count = len(pairs)
    off = pairs - np.diag(pairs.diagonal())
    whole = off.sum() / (count * (count - 1))
    if count < 3:
        return float(whole), float("inf")
    without = (off.sum() - 2 * off.sum(axis=1)) / ((count - 1) * (count - 2))
    return float(whole), float(np.sqrt((count - 1) * without.var()))


def _student(freedom: int) -> float:
    """Return the two-sided quantile of Student's t at ``CONFIDENCE``."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
