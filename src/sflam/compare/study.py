"""What a comparison is asked for, as one value: a job, its lines, their seeds, what they are held against.

From it every run and its folder follows, which is why a share of them can be trained elsewhere, and joined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sflam.compare.lines import LineName
from sflam.compare.rates import expect_rates, validated
from sflam.compare.variants import DEFAULT, Variant, variants_of
from sflam.compare.waiting import Waiting
from sflam.config import Job
from sflam.errors import ConfigError
from sflam.run.compatibility import problems_of


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is compared.

    Attributes:
        job: whose method is not used; its seed is the first.
        methods: names of ``sflam.learn.methods``, each alone or as ``METHOD+ALLOCATOR``, perhaps with settings of its
            own; see :mod:`sflam.compare.lines`.
        seeds: how many, from the job's on.
        sweeps: axis of ``sflam.compare.variants`` -> values.
        rates: learning rates that every method is tried at on the first seed; its best by validation score is used
            throughout. None takes the job's own.
        targets: accuracies in (0, 1] whose cost is reported; without any a share of the best method's.
        baseline: the method that the others are held against, seed by seed; "" for none.
        contents: path -> digest of what is there, where the job's files are elsewhere; None looks at them.

    Raises:
        ConfigError: targets, rates or a baseline that cannot be.
    """

    job: Job
    methods: tuple[str, ...] = DEFAULT
    seeds: int = 1
    sweeps: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    rates: tuple[float, ...] | None = None
    targets: tuple[float, ...] = ()
    baseline: str = ""
    contents: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if wrong := [target for target in self.targets if not 0 < target <= 1]:
            raise ConfigError(f"--target is {wrong[0]:g}; give an accuracy above 0 and up to 1")
        if len(set(self.targets)) != len(self.targets):
            raise ConfigError(
                f"--target is {', '.join(f'{each:g}' for each in self.targets)}; give each once"
            )
        if self.baseline and self.baseline not in self.methods:
            raise ConfigError(
                f"--baseline is {self.baseline!r}, which is not compared; give one of {', '.join(self.methods)}"
            )
        if self.rates is not None:
            expect_rates(self.rates)
            object.__setattr__(self, "job", validated(self.job))

    def tries(self) -> list[Variant]:
        """Return every method at every rate of the grid, ascending, on the first seed; nothing without a grid."""
        if self.rates is None:
            return []
        if own := [name for name in self.methods if _own_rate(name)]:
            raise ConfigError(f"{own[0]} has a learning rate of its own; leave it out, or leave --rates out")
        every = [
            variants_of(
                self.job, self.methods, 1, rates=dict.fromkeys(self.methods, rate), contents=self.contents
            )
            for rate in sorted(map(float, self.rates))
        ]
        return [line for lines in every for line in lines]

    def lines(self, rates: Mapping[str, float] | None = None) -> list[Variant]:
        """Return every line of the comparison; ``rates`` is each method's best, where one was chosen."""
        if not rates:
            return list(self._lines)
        return variants_of(self.job, self.methods, self.seeds, self.sweeps, rates, self.contents)

    @cached_property
    def _lines(self) -> list[Variant]:
        """Every line at its own learning rate, which a comparison asks for more than once."""
        return variants_of(self.job, self.methods, self.seeds, self.sweeps, None, self.contents)

    def expect_possible(self) -> None:
        """Raise ConfigError where a line does not exist, or its settings do not go together."""
        self.tries()
        lines = self.lines()
        problems = [f"{line.name}: {problem}" for line in lines for problem in problems_of(line.jobs[0])]
        if problems:
            raise ConfigError(dict.fromkeys(problems))

    def count(self) -> int:
        """Return how many runs it has; which rate wins makes no difference."""
        tries = self.tries()
        any_rate = {line.name: line.jobs[0].learn.practice.lr for line in tries}
        return len({run for line in (*tries, *self.lines(any_rate)) for run in line.runs})


def tasks_of(lines: Sequence[Variant], folder: Path) -> list[Waiting]:
    """Return the runs of some lines, each once; seed by seed, so that all lines advance."""
    tasks: dict[str, Waiting] = {}
    for place in range(max((len(line.jobs) for line in lines), default=0)):
        for line in lines:
            name = line.runs[place]
            tasks.setdefault(name, Waiting(name, line.jobs[place], folder / name))
    return list(tasks.values())


def _own_rate(name: str) -> bool:
    return any(item.startswith("learn.lr=") for item in LineName.of(name).settings)
