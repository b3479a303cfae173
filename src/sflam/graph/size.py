"""Sizes of a graph: whole-number polynomials of the one symbol n."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sflam.errors import GraphError

MOST_DEGREE = 3
MOST_COEFFICIENT = 1 << 40


@dataclass(frozen=True)
class Size:
    """c0 + c1 n + c2 n^2 + ...; ``coefficients`` without zeros at the end, () for zero."""

    coefficients: tuple[int, ...]

    @classmethod
    def of(cls, value: Size | int | Iterable[int]) -> Size:
        """Return the size of a number, or of a list of coefficients."""
        if isinstance(value, Size):
            return value
        found = [value] if isinstance(value, int) else list(value)
        while found and not found[-1]:
            found.pop()
        return cls(tuple(found))

    @property
    def constant(self) -> int | None:
        """The number it is for every n, or None."""
        if len(self.coefficients) > 1:
            return None
        return self.coefficients[0] if self.coefficients else 0

    @cached_property
    def is_one(self) -> bool:
        """Whether it is 1 for every n."""
        return self.coefficients == (1,)

    def at(self, n: int) -> int:
        """Return its value; raises GraphError where that is negative."""
        total = 0
        for coefficient in reversed(self.coefficients):
            total = total * n + coefficient
        if total < 0:
            raise GraphError(f"the size {self} is {total} for n = {n}; a size is 0 or more")
        return total

    def __add__(self, other: Size | int) -> Size:
        """Return the sum."""
        a, b = self.coefficients, Size.of(other).coefficients
        width = max(len(a), len(b))
        a, b = a + (0,) * (width - len(a)), b + (0,) * (width - len(b))
        return Size.of(x + y for x, y in zip(a, b, strict=True))

    def __sub__(self, other: Size | int) -> Size:
        """Return the difference."""
        return self + Size.of(other) * -1

    def __mul__(self, other: Size | int) -> Size:
        """Return the product."""
        a, b = self.coefficients, Size.of(other).coefficients
        out = [0] * max(0, len(a) + len(b) - 1)
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                out[i + j] += x * y
        return Size.of(out)

    def __str__(self) -> str:
        """Return it as one writes it."""
        powers = ["", "n", *(f"n^{k}" for k in range(2, len(self.coefficients)))]
        terms = [
            power if power and c == 1 else f"{c} {power}".strip()
            for c, power in zip(self.coefficients, powers, strict=False)
            if c
        ]
        return " + ".join(terms) or "0"

    def to_json(self) -> int | list[int]:
        """Return a number, or the list of coefficients."""
        constant = self.constant
        return list(self.coefficients) if constant is None else constant

    @classmethod
    def from_json(cls, found: Any) -> Size:
        """Return the size that :meth:`to_json` wrote; raises GraphError."""
        listed = found if isinstance(found, list) else [found]
        if not 1 <= len(listed) <= MOST_DEGREE + 1 or not all(
            type(c) is int and abs(c) <= MOST_COEFFICIENT for c in listed
        ):
            raise GraphError(
                f"a size is {repr(found)[:60]}; it must be a whole number, or up to {MOST_DEGREE + 1} coefficients, "
                f"each at most {MOST_COEFFICIENT}"
            )
        return cls.of(listed)


N = Size((0, 1))
"""The symbol itself."""

Shape = tuple[Size, ...]


def shape_of(*sizes: Size | int) -> Shape:
    """Return a shape from sizes and numbers."""
    return tuple(map(Size.of, sizes))


def count_of(shape: Iterable[Size]) -> Size:
    """Return how many numbers a shape holds."""
    total = Size((1,))
    for size in shape:
        total = total * size
    return total
