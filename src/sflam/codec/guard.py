"""Clipping and Gaussian noise of what leaves a device, before it is encoded.

A token x [d] becomes x min(1, C / |x|) + z C g, with C the clip, z the noise and g standard normal: the Gaussian
mechanism with sensitivity 2 C, of a token for any other (Dwork and Roth, The algorithmic foundations of differential
privacy, 2014, appendix A). A device's change of its adapters [P] is one such vector.

Draws come from SHAKE-128 of a key and the token's number, a cryptographic function, by Box and Muller's method: they
depend on the place in the run and on nothing that is drawn or encoded with them. The key is of the run's seed, or of a
secret of the device, without which the noise cannot be taken off. Norms are sums of squares in float64, added in pairs,
so that they do not depend on how many tokens are looked at together.

n tokens, d hidden size, P trained values.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.codec.legs import ADAPTERS, HEAD_UP, LOSS, SAMPLES, UP
from sflam.codec.token_drop import TokenDrop, drop_of
from sflam.privacy.settings import NONE, PrivacySettings

FARTHEST = math.sqrt(2 * 54 * math.log(2))
"""No draw is farther from 0, in standard deviations: the smallest uniform number is 2^-54."""


@dataclass(frozen=True)
class Guard:
    """What one device, or all of a simulation, does to what it sends.

    Attributes:
        clips: leg -> largest norm; what crosses by another leg is left as it is.
        noise: leg -> standard deviation of the noise on a value; none by default.
        seed: of the run.
        secret: of the device; empty where the run's seed alone decides the noise.
        attempt: at the round, in a served run: with a secret, a round that is opened anew has other noise, since what
            is sent may differ, and of two messages with one noise the difference would be bare.
        decorrelation: weight of the distance correlation of what is held with what is sent, in the device's loss.
        drop: which tokens go up; None where all do.
    """

    clips: dict[int, float]
    noise: dict[int, float]
    seed: int
    secret: bytes = field(default=b"", repr=False)
    attempt: int = 0
    decorrelation: float = 0.0
    drop: TokenDrop | None = None

    def tokens(self, x: NDArray[Any], leg: int, *place: int, first: int = 0) -> NDArray[Any]:
        """Return tokens as they may leave the device, of the same type; ``x`` itself where nothing is done to it.

        Args:
            x: float [n, d].
            leg: by which they go.
            place: in the run; the same place has the same noise.
            first: number of the first of them in their message.
        """
        if leg not in self.clips or not len(x):
            return x
        wide = np.asarray(x, np.float64)
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # what is not finite is refused where it is encoded
            norms = np.maximum(np.sqrt(_row_sums(wide * wide)), np.finfo(np.float64).tiny)
            found = wide * np.minimum(1.0, self.clips[leg] / norms)[:, None]
        if deviation := self.noise.get(leg, 0.0):
            found += deviation * normal(self._key(leg, *place), len(x), x.shape[1], first)
        return found.astype(x.dtype)

    @property
    def moves_adapters(self) -> bool:
        """Whether the change of adapters is clipped."""
        return ADAPTERS in self.clips

    def adapters(
        self, values: NDArray[Any], start: NDArray[Any], round: int, device: int
    ) -> NDArray[np.floating[Any]]:
        """Return trained values [P] as they may leave the device, in the type of ``values``.

        Args:
            values: [P], trained.
            start: [P], what the round began with.
            round, device: its number, and who trained.
        """
        if not self.moves_adapters or not len(values):
            return values
        change = (values.astype(np.float64) - start)[None]
        found: NDArray[np.floating[Any]] = start + self.tokens(change, ADAPTERS, round, device)[0]
        return found.astype(values.dtype)

    @property
    def moves_samples(self) -> bool:
        """Whether what each sample adds to a step's gradient is clipped."""
        return SAMPLES in self.clips

    def noise_of_sum(self, count: int, *place: int) -> NDArray[np.float64]:
        """Return the noise [count] on the sum of a step's gradients, each clipped; zeros where none is asked for.

        Args:
            count: values of the sum.
            place: of the step in the run.
        """
        if not (deviation := self.noise.get(SAMPLES, 0.0)):
            return np.zeros(count)
        found: NDArray[np.float64] = deviation * normal(self._key(SAMPLES, *place), 1, count)[0]
        return found

    @property
    def moves_losses(self) -> bool:
        """Whether what each sample adds to the loss that a device reports is clipped."""
        return LOSS in self.clips

    def mean_loss(self, losses: NDArray[Any], *place: int) -> float:
        """Return the mean of samples' ``losses`` [B], each clipped, with noise on their sum.

        Args:
            losses: of a step; those below 0, which a loss of one's own may have, count 0.
            place: of the step in the run.
        """
        total = float(np.clip(np.asarray(losses, np.float64), 0.0, self.clips[LOSS]).sum())
        if deviation := self.noise.get(LOSS, 0.0):
            total += deviation * float(normal(self._key(LOSS, *place), 1, 1)[0, 0])
        return total / len(losses)

    @property
    def mean_losses(self) -> tuple[float, float]:
        """Least and largest mean that a device can report."""
        noise = self.farthest(LOSS)
        return -noise, self.clips[LOSS] + noise

    def farthest(self, leg: int) -> float:
        """Return how far noise can move a value that goes by ``leg``."""
        return FARTHEST * self.noise.get(leg, 0.0)

    def _key(self, leg: int, *place: int) -> bytes:
        anew = (self.attempt,) if self.secret else ()
        text = ":".join(map(str, (self.seed, "privacy", leg, *place, *anew)))
        return hashlib.sha256(self.secret + text.encode()).digest()


def guard_of(settings: PrivacySettings, seed: int, secret: bytes = b"") -> Guard | None:
    """Return what ``[privacy]`` asks of a device; None where that is nothing.

    Args:
        settings: the section.
        seed: of the run.
        secret: of the device, see :class:`Guard`.
    """
    clips = {UP: settings.clip, HEAD_UP: settings.clip_gradients}
    noise = {leg: settings.noise * clip for leg, clip in clips.items()}
    if settings.adapters != NONE:
        clips[ADAPTERS] = settings.clip_adapters
        noise[ADAPTERS] = settings.clip_adapters * settings.noise_adapters
    if settings.sample_clip:
        clips[SAMPLES] = settings.sample_clip
        noise[SAMPLES] = settings.sample_clip * settings.sample_noise
    if settings.clip_loss:
        clips[LOSS] = settings.clip_loss
        noise[LOSS] = settings.clip_loss * settings.noise_loss
    clips = {leg: clip for leg, clip in clips.items() if clip}
    weight, drop = settings.distance_correlation, drop_of(settings, seed)
    if not clips and not weight and drop is None:
        return None
    own = b"" if settings.reproducible else secret
    return Guard(clips, noise, seed, own, decorrelation=weight, drop=drop)


def normal(key: bytes, tokens: int, dim: int, first: int = 0) -> NDArray[np.float64]:
    """Return standard normal draws [tokens, dim] of the tokens from number ``first`` on.

    Args:
        key: of the message.
        tokens: how many.
        dim: d.
        first: number of the first.
    """
    half = (dim + 1) // 2
    raw = b"".join(
        hashlib.shake_128(key + number.to_bytes(8, "little")).digest(16 * half)
        for number in range(first, first + tokens)
    )
    words = np.frombuffer(raw, "<u8").reshape(tokens, 2 * half)
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log(uniform[:, :half])), 2 * math.pi * uniform[:, half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :dim]


def _row_sums(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums [n] of the rows of ``x`` [n, d], the second half of the columns added to the first in turn."""
    while x.shape[1] > 1:
        half = (x.shape[1] + 1) // 2
        pairs = x[:, :half].copy()
        pairs[:, : x.shape[1] - half] += x[:, half:]
        x = pairs
    return x[:, 0]
