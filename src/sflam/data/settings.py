"""``[data]``: what is loaded, what is held out, and how the rest is divided. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sflam.errors import ConfigError

PARTITIONS = ("iid", "dirichlet")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which samples there are, and which device holds which.

    Attributes:
        name: a named dataset (``digits``), or the path of a local ``.npz`` file.
        partition: ``dirichlet`` gives every device its own class mix; ``iid`` the same one.
        alpha: concentration of the Dirichlet draw: 0.1 is very skewed, 100 is nearly IID.
        minimum: fewest samples a device may hold.
        test: share of the samples held out for testing, equal in every class.
        input: array of a local file that holds the inputs; empty guesses, and says what was guessed.
        label: array of a local file that holds the labels.
    """

    name: str = "digits"
    partition: str = "dirichlet"
    alpha: float = 0.5
    minimum: int = 2
    test: float = 0.2
    input: str = ""
    label: str = "label"

    def __post_init__(self) -> None:
        problems = []
        if not self.name:
            problems.append("data.name is empty; give a named dataset (digits) or the path of a .npz file")
        if self.partition not in PARTITIONS:
            problems.append(f"data.partition is {self.partition!r}; choose one of {', '.join(PARTITIONS)}")
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            problems.append(
                f"data.alpha is {self.alpha}; it must be a positive number (0.5 is a common skew)"
            )
        if self.minimum < 1:
            problems.append(f"data.minimum is {self.minimum}; every device needs at least 1 sample")
        if not 0 < self.test < 1:
            problems.append(f"data.test is {self.test}; it must be in (0, 1), for example 0.2")
        if not self.label:
            problems.append("data.label is empty; name the array that holds the labels")
        if problems:
            raise ConfigError(problems)
