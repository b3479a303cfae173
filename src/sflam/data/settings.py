"""``[data]``: what is loaded, what is held out, and how the rest is divided. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sflam.errors import ConfigError

PARTITIONS = ("iid", "dirichlet", "shards")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which samples there are, and which device holds which.

    Attributes:
        name: a named dataset (``digits``), the path of a ``.npz``, ``.parquet``, ``.csv`` or ``.jsonl`` file or of a
            folder of such files or of images, or a hub name.
        config: which configuration of a hub dataset, where it has several.
        partition: ``dirichlet`` gives every device its own class mix; ``shards`` a few classes; ``iid`` the same mix.
        alpha: concentration of the Dirichlet draw: 0.1 is very skewed, 100 is nearly IID.
        shards: pieces of the samples sorted by class that each device holds, with ``shards``.
        minimum: fewest samples a device may hold.
        test: share of the samples held out for testing, equal in every class.
        input: array or column that holds the inputs; empty guesses, and a note names the guess.
        label: array or column that holds the labels; empty trains a language model on texts alone.
        max_tokens: texts are cut after so many tokens; 0 is the model's own limit.
        buckets: make mini-batches of texts of similar length, so that less is padded.
    """

    name: str = "digits"
    config: str = ""
    partition: str = "dirichlet"
    alpha: float = 0.5
    shards: int = 2
    minimum: int = 2
    test: float = 0.2
    input: str = ""
    label: str = "label"
    max_tokens: int = 128
    buckets: bool = False

    def __post_init__(self) -> None:
        problems = []
        if not self.name:
            problems.append("data.name is empty; give a named dataset (digits), a path, or a hub name")
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
        if self.shards < 1:
            problems.append(f"data.shards is {self.shards}; every device needs at least 1 (2 is customary)")
        if self.max_tokens < 0 or self.max_tokens == 1:
            problems.append(
                f"data.max_tokens is {self.max_tokens}; it must be 2 or more, or 0: the model's limit"
            )
        if problems:
            raise ConfigError(problems)
