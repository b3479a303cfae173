"""Rounds and bias that quantized activations cost (section 2.4). Constants of the model are inputs.

One synchronous step a round on an L-smooth loss; mini-batch gradients of variance sigma_k^2 (of the mini-batch's mean),
to which quantization adds in proportion to v(q), and a bias in proportion to v(q). Weights rho_k sum to 1.
Gradients are in loss per unit of parameter; everything here is in those units squared unless noted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sflam.sizes import MAX_BITS

Floats = NDArray[np.float64]


def quantization_noise(bits: ArrayLike) -> Floats:
    """Return v(q) = (2^q - 1)^-2, the squared step over the squared range. No unit."""
    value: Floats = (2.0 ** np.asarray(bits, float) - 1) ** -2.0
    return value


@dataclass(frozen=True, kw_only=True, eq=False)
class GradientModel:
    """What a fleet's mini-batch gradients are at a width, from what was measured at one. Arrays [K].

    Attributes:
        share: rho_k, weights that sum to 1.
        plain: sigma_k^2, variance of a mini-batch's gradient without quantization.
        added: what quantization adds to it, per unit of v(q).
        bias: squared norm of the bias of a device's gradient, per unit of v(q)^2.
    """

    share: Floats
    plain: Floats
    added: Floats
    bias: Floats

    def variance(self, bits: ArrayLike) -> float:
        """Return V(q), the variance of the aggregated gradient (2.12); ``bits`` of inf do not quantize."""
        return float(self.share**2 @ (self.plain + self.added * quantization_noise(bits)))

    def biases(self, bits: ArrayLike) -> Floats:
        """Return [K] beta_k, each device's gradient bias, not squared."""
        value: Floats = np.sqrt(np.maximum(self.bias, 0.0)) * quantization_noise(bits)
        return value

    def bias_at(self, bits: ArrayLike) -> float:
        """Return beta(q) <= sum rho_k beta_k, the bound on the aggregated gradient's bias (2.13), not squared."""
        return float(self.share @ self.biases(bits))


def measured_slowdown(share: ArrayLike, quantized: ArrayLike, plain: ArrayLike, bits: ArrayLike) -> Floats:
    """Return [K] chi_k from variances of device gradients measured at one width (2.12). No unit.

    The denominator is the variance of the aggregated gradient: per device it would be about K times too large.

    Args:
        share: [K] rho_k.
        quantized: [K] variance of the mini-batch gradient with quantized activations.
        plain: [K] the same without quantization.
        bits: the width it was measured at.
    """
    rho, at_q, at_none = (np.asarray(each, float) for each in (share, quantized, plain))
    value: Floats = rho**2 * (at_q - at_none) / (float(rho**2 @ at_none) * quantization_noise(bits))
    return value


def gradient_bound(
    *, gap: float, step: float, smoothness: float, rounds: float, variance: float, bias: float
) -> float:
    """Return the bound on the mean of E|grad F|^2 over N rounds: 2 Delta / (eta N) + L eta V + beta^2 (2.14).

    Args:
        gap: Delta, loss at the start less the least loss.
        step: eta, at most 1 / L.
        smoothness: L.
        rounds: N.
        variance: V(q).
        bias: beta(q), not squared.
    """
    assert 0 < step * smoothness <= 1, (step, smoothness)
    return 2 * gap / (step * rounds) + smoothness * step * variance + bias**2


def rounds_to(target: float, *, gap: float, smoothness: float, variance: float, bias: float = 0.0) -> float:
    """Return N(q), the rounds after which (2.14) promises E|grad F|^2 <= target (2.15), at a step of
    min(1 / L, (target - beta^2) / (2 L V)).

    inf where the bias alone exceeds the target: no number of rounds suffices. Arguments as in ``gradient_bound``.
    """
    left = target - bias**2
    if left <= 0:
        return math.inf
    return 4 * gap * smoothness / left * max(1.0, 2 * variance / left)


def rounds_factor(
    slowdowns: ArrayLike, bits: ArrayLike, down: ArrayLike = 0.0, bits_down: ArrayLike = 8
) -> float:
    """Return N(q) / N_inf = 1 + sum chi_k v(q_k), in the noise-dominated regime (2.15). No unit.

    Args:
        slowdowns: [K] chi_k.
        bits: q_k on the way up.
        down: [K] chi_k of the gradients on the way down, which add noise but no bias.
        bits_down: their width.
    """
    up = np.asarray(slowdowns, float) * quantization_noise(bits)
    back = np.asarray(down, float) * quantization_noise(bits_down)
    return 1.0 + float(np.sum(up)) + float(np.sum(back))


def least_bits(bias: ArrayLike, target: ArrayLike, share: float = 0.25) -> NDArray[np.int64]:
    """Return q_min [K], the smallest widths with beta_k^2 <= share times the target of (2.14); 16 where none has it.

    Where every device's bias is that small, so is the aggregate's: beta <= sum rho_k beta_k.

    Args:
        bias: [K] beta_k^2 / v(q)^2, as measured (2.13).
        target: [K] or one, eps: E|grad F|^2 that is to be reached.
        share: of eps that the bias alone may take; a quarter in (2.15).
    """
    widths = np.arange(1, MAX_BITS + 1)
    held = np.multiply.outer(np.asarray(bias, float), quantization_noise(widths) ** 2)
    fits = held <= share * np.broadcast_to(np.asarray(target, float), np.shape(bias))[..., None]
    least: NDArray[np.int64] = np.where(fits.any(axis=-1), widths[fits.argmax(axis=-1)], MAX_BITS)
    return least
