"""Roots of decreasing functions: one number by bracketed secant, arrays by bisection that Newton speeds up."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sflam.network.network import Floats

STRIDE, WIDER, STRIDES = 1e-3, 8.0, 12
"""First step from a guess, growth of each next one, and steps at most: beyond every end in use."""
FLATTEST = 1e-100  # slope; so that a step can be computed where a function is flat for long
FEW = 40
"""Elements up to which plain numbers are faster than arrays, which cost some 40 operations a round however short."""


def decreasing_root(
    function: Callable[[float], float],
    start: float,
    *,
    slope: float = -1.0,
    low: float = -np.inf,
    high: float = np.inf,
    tolerance: float = 1e-13,
    budget: int = 200,
) -> float:
    """Return x in [low, high] where a decreasing function crosses 0, the end nearest to it where it does not.

    Secant steps walk until the sign changes, then Illinois closes in. Of two equally good points the one where the
    function is not positive is returned.

    Args:
        function: decreasing, continuous where it crosses.
        start: first point.
        slope: a guess of the slope, for the first step.
        low: least x.
        high: largest x.
        tolerance: |function| that is good enough.
        budget: evaluations at most.
    """
    x = min(max(start, low), high)
    f = function(x)
    left: tuple[float, float] | None = None  # function > 0
    right: tuple[float, float] | None = None  # function <= 0
    side = 0
    for _ in range(budget):
        if abs(f) <= tolerance or f != f:
            break
        if f > 0:
            if left is not None and right is not None and side > 0:
                right = (right[0], right[1] / 2)  # Illinois: the same end twice
            if left is not None and right is None:
                slope = _steeper((f - left[1]) / (x - left[0]) if x != left[0] else slope, slope)
            left, side = (x, f), 1
        else:
            if left is not None and right is not None and side < 0:
                left = (left[0], left[1] / 2)
            if right is not None and left is None:
                slope = _steeper((f - right[1]) / (x - right[0]) if x != right[0] else slope, slope)
            right, side = (x, f), -1
        if left is None or right is None:
            if (f > 0 and x >= high) or (f < 0 and x <= low):
                break
            step = min(max(-1.1 * f / slope, -20.0), 20.0) + math.copysign(1e-15 + 1e-14 * abs(x), f)
            x = min(max(x + step, low), high)
        else:
            width = right[0] - left[0]
            if width <= 4e-16 * max(abs(left[0]), abs(right[0]), 1e-3):
                x = right[0]
                break
            if math.isfinite(right[1] - left[1]):
                x = (left[0] * right[1] - right[0] * left[1]) / (right[1] - left[1])
            if not left[0] < x < right[0]:
                x = left[0] + width / 2
        f = function(x)
    return x


def _steeper(measured: float, guess: float) -> float:
    """Return the measured slope where it can be trusted, kept away from zero; where all is flat, steps grow."""
    return min(measured, guess / 50, -FLATTEST) if measured <= 0 else guess


def bisect(
    function: Callable[[Floats], Floats],
    low: Floats,
    high: Floats,
    *,
    rounds: int = 100,
    tolerance: float = 1e-13,
    guess: Floats | None = None,
) -> Floats:
    """Return x [n] in [low, high] where a decreasing function [n] -> [n] crosses 0; an end where it does not.

    Illinois' secant, element by element; a bracket that did not halve in three rounds is bisected. Where a ``guess``
    is finite, the first bracket is walked from there.
    """
    if guess is None:
        low, high = low.copy(), high.copy()
        f_low, f_high = function(low), function(high)
    else:
        low, high, f_low, f_high = _bracket(function, low, high, guess)
    x = np.where(f_low <= 0, low, high)
    todo = (f_low > 0) & (f_high < 0)
    if x.ndim == 1 and x.size <= FEW:
        return _narrowed_few(function, x, np.flatnonzero(todo), (low, high, f_low, f_high), rounds, tolerance)
    last = np.zeros(low.shape, np.int8)
    width = high - low
    for turn in range(rounds):
        if not todo.any():
            break
        with np.errstate(divide="ignore", invalid="ignore"):
            secant = (low * f_high - high * f_low) / (f_high - f_low)
        middle = 0.5 * (low + high)
        inside = (secant > low) & (secant < high)
        if turn % 3 == 2:
            inside &= high - low <= 0.5 * width
            width = high - low
        tried = np.where(inside, secant, middle)
        x = np.where(todo, tried, x)
        f = function(x)
        up = f > 0
        f_high = np.where(todo & up & (last > 0), f_high / 2, f_high)
        f_low = np.where(todo & ~up & (last < 0), f_low / 2, f_low)
        low, f_low = np.where(todo & up, x, low), np.where(todo & up, f, f_low)
        high, f_high = np.where(todo & ~up, x, high), np.where(todo & ~up, f, f_high)
        last = np.where(up, 1, -1).astype(np.int8)
        todo &= (np.abs(f) > tolerance) & (high - low > 4e-16 * np.maximum(np.abs(low), np.abs(high)))
    return x


def _narrowed_few(
    function: Callable[[Floats], Floats],
    x: Floats,
    todo: NDArray[np.int64],
    ends: tuple[Floats, Floats, Floats, Floats],
    rounds: int,
    tolerance: float,
) -> Floats:
    """Return what the loop of :func:`bisect` does, bit for bit, with plain numbers.

    Args:
        function: decreasing, [n] -> [n].
        x: [n] where no bracket is.
        todo: which elements have a bracket.
        ends: low, high, and the function there, [n] each.
        rounds: evaluations at most.
        tolerance: |function| that is good enough.
    """
    low, high, f_low, f_high = (each.tolist() for each in ends)
    points, last, left = x.tolist(), [0] * x.size, todo.tolist()
    width = [b - a for a, b in zip(low, high, strict=True)]
    for turn in range(rounds):
        if not left:
            break
        halves = turn % 3 == 2
        for k in left:
            a, b, f_a, f_b = low[k], high[k], f_low[k], f_high[k]
            tried = (a * f_b - b * f_a) / (f_b - f_a) if f_b != f_a else a
            inside = a < tried < b
            if halves:
                inside = inside and b - a <= 0.5 * width[k]
                width[k] = b - a
            points[k] = tried if inside else 0.5 * (a + b)
        values, open_ = function(np.array(points)).tolist(), list[int]()
        for k in left:
            f = values[k]
            if f > 0:
                if last[k] > 0:
                    f_high[k] /= 2
                low[k], f_low[k], last[k] = points[k], f, 1
            else:
                if last[k] < 0:
                    f_low[k] /= 2
                high[k], f_high[k], last[k] = points[k], f, -1
            if abs(f) > tolerance and high[k] - low[k] > 4e-16 * max(abs(low[k]), abs(high[k])):
                open_.append(k)
        left = open_
    return np.array(points)


def _bracket(
    function: Callable[[Floats], Floats], low: Floats, high: Floats, guess: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return ends [n] around the roots of a decreasing function, near a guess where it is one, and its values there."""
    known = np.isfinite(guess)
    x = np.clip(np.where(known, guess, low), low, high)
    left, right, f = x.copy(), x.copy(), function(x)
    f_left, f_right, stride = f.copy(), f.copy(), np.where(known, STRIDE, high - low)
    for _ in range(STRIDES):
        climbs, falls = (f_right > 0) & (right < high), (f_left <= 0) & (left > low)
        if not (climbs | falls).any():
            break
        tried = np.where(climbs, np.minimum(right + stride, high), np.maximum(left - stride, low))
        tried = np.where(climbs | falls, tried, x)
        f = function(tried)
        left, f_left = np.where(climbs, right, left), np.where(climbs, f_right, f_left)
        right, f_right = np.where(falls, left, right), np.where(falls, f_left, f_right)
        right, f_right = np.where(climbs, tried, right), np.where(climbs, f, f_right)
        left, f_left = np.where(falls, tried, left), np.where(falls, f, f_left)
        stride = stride * WIDER
    return left, right, f_left, f_right
