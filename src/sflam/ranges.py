"""Ranges of the settings of a section: problems are collected and reported together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from sflam.errors import ConfigError, unknown


class Ranges:
    """Checks one section; settings that are None are not checked.

    Args:
        settings: the section's values.
        section: its name, as messages show it.
    """

    def __init__(self, settings: Any, section: str) -> None:
        self.settings, self.section = settings, section
        self.problems: list[str] = []

    def require(self, good: bool, key: str, rule: str) -> None:
        """Note ``SECTION.KEY is VALUE; RULE`` unless ``good``."""
        if not good:
            self.problems.append(f"{self.section}.{key} is {getattr(self.settings, key)!r}; {rule}")

    def one_of(self, allowed: Iterable[Any], *keys: str) -> None:
        """Values that are listed."""
        allowed = tuple(dict.fromkeys(allowed))
        for key in keys:
            listed = ", ".join(str(value) for value in allowed if value != "")
            self.require(getattr(self.settings, key) in allowed, key, f"choose one of {listed}")

    def named(self, kind: str, known: Iterable[str], key: str) -> None:
        """A name that is known; the nearest one is suggested."""
        known = tuple(known)
        if getattr(self.settings, key) not in known:
            self.problems.append(f"{self.section}.{key}: {unknown(kind, getattr(self.settings, key), known)}")

    def at_least(self, least: float, *keys: str, hint: str = "") -> None:
        """Numbers of ``least`` or more, and finite."""
        rule = f"it must be {'0 or more' if least == 0 else f'at least {least:g}'}{hint}"
        for key, value in self._numbers(keys):
            self.require(least <= value < math.inf, key, rule)

    def positive(self, *keys: str, hint: str = "") -> None:
        """Numbers above 0, and finite."""
        for key, value in self._numbers(keys):
            self.require(0 < value < math.inf, key, f"it must be positive{hint}")

    def between(self, least: float, most: float, *keys: str, hint: str = "") -> None:
        """Numbers from ``least`` to ``most``."""
        for key, value in self._numbers(keys):
            self.require(least <= value <= most, key, f"it must be between {least:g} and {most:g}{hint}")

    def each(self, count: int, least: float, most: float, *keys: str, of: str, hint: str = "") -> None:
        """Lists of ``count`` numbers from ``least`` to ``most``, one per ``of``, or empty ones."""
        for key in keys:
            values = getattr(self.settings, key)
            if values and len(values) != count:
                self.problems.append(
                    f"{self.section}.{key} lists {len(values)} numbers for {count} {of}s; give one per {of}, or none"
                )
            wrong = [value for value in values if not least <= value <= most]
            if wrong:
                rule = f"between {least:g} and {most:g}" if most < math.inf else f"{least:g} or more"
                self.problems.append(f"{self.section}.{key} holds {wrong[0]}; each must be {rule}{hint}")

    def check(self) -> None:
        """Raise ConfigError with all problems, if there are any."""
        if self.problems:
            raise ConfigError(self.problems)

    def _numbers(self, keys: Iterable[str]) -> list[tuple[str, Any]]:
        values = [(key, getattr(self.settings, key)) for key in keys]
        return [(key, value) for key, value in values if value is not None]
