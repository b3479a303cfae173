"""The radio channel: path loss, shadowing, block fading, and the rate of a link.

M servers, K devices. Gains are linear power ratios; distances m, bandwidths Hz, powers W, noise W/Hz.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sflam.network.network import Floats
from sflam.network.settings import FADINGS

LEAST_FADING = 1e-3
"""A deeper fade than 30 dB is cut off, so that no rate is zero."""
FORGOTTEN = 1e-3
"""Share of a round's scattered amplitude that is left of an innovation too old to count."""


def path_gain(distance: Floats, *, loss_db: float, slope_db: float, nearest: float) -> Floats:
    """Return the gain at distances in m: a loss of ``loss_db`` at 1 km, ``slope_db`` more per tenfold distance.

    Args:
        distance: any shape, m; anything below ``nearest`` counts as that.
        loss_db: dB at 1 km; 128.1 in the urban macro cell of 3GPP.
        slope_db: dB per decade; 37.6 there.
        nearest: m, positive.
    """
    loss = loss_db + slope_db * np.log10(np.maximum(distance, nearest) / 1e3)
    return 10.0 ** (-loss / 10.0)


def shadowing(draw: np.random.Generator, shape: tuple[int, ...], *, spread_db: float) -> Floats:
    """Return log-normal shadowing: a factor whose dB are normal around 0 with deviation ``spread_db``."""
    return 10.0 ** (spread_db * draw.standard_normal(shape) / 10.0)


def fading(draw: np.random.Generator, shape: tuple[int, ...], kind: str, *, rician_db: float = 0.0) -> Floats:
    """Return block fading |h|^2 with mean 1, at least ``LEAST_FADING``.

    Args:
        draw: the generator; nothing is drawn for ``none``.
        shape: [M, K].
        kind: ``rayleigh`` (an exponential), ``rician`` (a steady path beside the scattered ones), or ``none``.
        rician_db: power of the steady path over all scattered ones, dB.
    """
    assert kind in FADINGS, kind
    if kind == "none":
        return np.ones(shape)
    if kind == "rayleigh":
        return np.maximum(draw.exponential(1.0, shape), LEAST_FADING)
    ratio = 10.0 ** (rician_db / 10.0)
    scattered = draw.standard_normal((2, *shape)) / np.sqrt(2.0 * (ratio + 1.0))
    power: Floats = (np.sqrt(ratio / (ratio + 1.0)) + scattered[0]) ** 2 + scattered[1] ** 2
    return np.maximum(power, LEAST_FADING)


def coherent_fading(
    innovation: Callable[[int], np.random.Generator],
    number: int,
    shape: tuple[int, ...],
    kind: str,
    *,
    coherence: float,
    rician_db: float = 0.0,
) -> Floats:
    """Return block fading |h|^2 of a round as :func:`fading`, whose scattered paths change gradually (Gauss-Markov).

    The complex amplitude of a round is rho times that of the round before plus an innovation, so that rounds d apart
    have amplitudes correlated by rho^d and powers by rho^2d where there is no steady path. Every round is drawn alone:
    innovations older than ``FORGOTTEN`` are left out, and the rest are scaled to the same variance.

    Args:
        innovation: round, from below 0 on -> the generator of what is new in it.
        number: of the round.
        shape: [M, K].
        kind: ``rayleigh`` or ``rician``.
        coherence: rho of consecutive rounds, above 0 and below 1; J0(2 pi f_D T) in Clarke's model, with the Doppler
            frequency f_D and the time T from round to round.
        rician_db: see :func:`fading`.
    """
    assert kind in ("rayleigh", "rician") and 0 < coherence < 1, (kind, coherence)
    past = math.ceil(math.log(FORGOTTEN) / math.log(coherence))
    weights = coherence ** np.arange(past)
    scattered = np.zeros((2, *shape))
    for age, weight in enumerate(weights.tolist()):
        scattered += weight * innovation(number - age).standard_normal(scattered.shape)
    scattered /= np.sqrt((weights**2).sum())
    ratio = 10.0 ** (rician_db / 10.0) if kind == "rician" else 0.0
    scattered /= np.sqrt(2.0 * (ratio + 1.0))
    power: Floats = (np.sqrt(ratio / (ratio + 1.0)) + scattered[0]) ** 2 + scattered[1] ** 2
    return np.maximum(power, LEAST_FADING)


def rate(bandwidth: Floats, power: Floats, gain: Floats, noise: float) -> Floats:
    """Return the rate in bit/s: b log2(1 + p g / (N0 b)) (1.11); 0 without bandwidth.

    Args:
        bandwidth: Hz, 0 or more.
        power: W.
        gain: linear.
        noise: N0 W/Hz, the SNR gap included.
    """
    bits: Floats = rate_in_nats(bandwidth, power, gain, noise) / np.log(2.0)
    return bits


def rate_in_nats(bandwidth: Floats, power: Floats, gain: Floats, noise: float) -> Floats:
    """Return the same rate in nat/s: b ln(1 + p g / (N0 b))."""
    band = np.asarray(bandwidth, dtype=np.float64)
    safe = np.where(band > 0, band, 1.0)
    return np.where(band > 0, safe * np.log1p(power * gain / (noise * safe)), 0.0)


def gain_of_rate(bits: Floats, bandwidth: float, power: Floats, noise: float) -> Floats:
    """Return the gain at which a link over ``bandwidth`` at ``power`` carries ``bits`` bit/s: (1.11) inverted.

    It is infinite for a rate that no channel carries over this band.
    """
    with np.errstate(over="ignore"):
        gain: Floats = np.expm1(np.asarray(bits) * np.log(2.0) / bandwidth) * noise * bandwidth / power
    return gain
