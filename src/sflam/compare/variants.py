"""What a comparison trains: a job per method, allocator and value of a swept setting, everything else being equal.

A line of a comparison is a *variant*: ``METHOD`` or ``METHOD+ALLOCATOR``, perhaps with settings of its own
(:mod:`sflam.compare.lines`), at the job's settings or at one value of an axis. Axes are swept one at a time. Equal jobs
are one run, whatever asked for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from sflam.allocate.registry import CELL_METHODS as ALLOCATORS
from sflam.allocate.registry import EDGE_METHODS
from sflam.compare.lines import FIXED, LineName, with_settings
from sflam.compare.rates import at_rate
from sflam.config import Job
from sflam.data.settings import PASSES
from sflam.errors import ConfigError, unknown
from sflam.learn.methods import METHODS
from sflam.learn.settings import FleetSettings, LearnSettings
from sflam.learn.settings.practice import BUNDLES
from sflam.planner import edge as planning_edge
from sflam.run.contents import content_digest
from sflam.run.unused import without_unused

DEFAULT = ("sflam", "sfl-v1", "sfl-v2", "sl", "fedlora", "central")
AIRLESS = ("central", "local")
"""Methods that use no network: they have no virtual time and no radio energy."""
UNWEIGHED = ("equal", "random")
"""Allocators of one cell that do not look at the objective."""


@dataclass(frozen=True)
class Axis:
    """A setting that a sweep varies.

    Attributes:
        name: in the results.
        option: of the command line.
        label: beneath a picture.
        put: the job at a value; raises ConfigError for one it cannot have.
        matters: whether a job's outcome depends on it.
    """

    name: str
    option: str
    label: str
    put: Callable[[Job, float], Job]
    matters: Callable[[Job], bool]


def _at_bits(job: Job, value: float) -> Job:
    if value != int(value):
        raise ConfigError(f"--bits holds {value:g}; bits are whole numbers")
    return replace(job, quant=replace(job.quant, bits_up=int(value), bits_down=int(value)))


AXES: dict[str, Axis] = {
    each.name: each
    for each in (
        Axis(
            "bits",
            "--bits",
            "bits of a value at the cut, both ways",
            _at_bits,
            lambda job: (
                METHODS[job.learn.method].quantized
                and job.quant.scheme != "identity"
                and not (job.network.simulate and "bits" in job.plan.optimize)
            ),
        ),
        Axis(
            "alpha",
            "--alphas",
            "Dirichlet alpha: small is skewed",
            lambda job, value: replace(job, data=replace(job.data, partition="dirichlet", alpha=value)),
            lambda job: True,
        ),
        Axis(
            "weight",
            "--weights",
            "weight of time against energy",
            lambda job, value: replace(job, plan=replace(job.plan, latency_weight=value)),
            lambda job: (
                job.network.simulate and (planning_edge.wanted(job) or job.plan.method not in UNWEIGHED)
            ),
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One line of a comparison.

    Attributes:
        name: ``METHOD`` or ``METHOD+ALLOCATOR``, then settings of the line.
        axis: the swept setting, or "" for the job's own settings.
        value: where on the axis; 0 without one.
        jobs: one per seed.
        contents: path -> digest of what is there, where the files themselves are elsewhere; None looks at them.
    """

    name: str
    axis: str = ""
    value: float = 0.0
    jobs: tuple[Job, ...] = ()
    contents: Mapping[str, str] | None = field(default=None, compare=False)

    @cached_property
    def runs(self) -> tuple[str, ...]:
        """The name of each job's run: the method, the seed and the digest of the whole configuration.

        Files that the configuration names count by their content, so that data may lie elsewhere.
        """
        return tuple(
            f"{job.learn.method}-{job.seed}-{content_digest(job, self.contents)}" for job in self.jobs
        )


def variant(wanted: Job, name: str, seed: int) -> Job:
    """Return the job of a line at a seed.

    What the method cannot do is left out, and nothing else is changed.
    """
    line = LineName.of(name)
    method, allocator, wanted = line.method, line.allocator, with_settings(wanted, name)
    network = replace(wanted.network, simulate=wanted.network.simulate and method not in AIRLESS)
    drawn = wanted.fleet.policy == "samples" and METHODS[method].averages
    fleet = wanted.fleet if network.simulate or drawn else replace(wanted.fleet, policy="uniform")
    learn = _fitting(replace(wanted.learn, method=method))
    model = wanted.model
    if method == "fedavg":
        model, learn = replace(model, trainable="full"), replace(learn, aggregation="fedavg")
    if not METHODS[method].split:
        learn = replace(learn, cache="off")
        fleet = replace(fleet, plan="")
    learn, fleet = _personal(learn, fleet, model.labels)
    data = wanted.data
    quant = wanted.quant if METHODS[method].quantized else replace(wanted.quant, delta=False)
    if not METHODS[method].split or METHODS[method].relay:
        data = replace(data, sampling="", draw=PASSES)
    elif not data.sampling and (data.buckets or fleet.policy == "samples" or _servers(wanted)):
        data = replace(data, sampling="local")  # no method's own can be global then
    plan = replace(wanted.plan, method=allocator) if allocator else wanted.plan
    return without_unused(
        replace(
            wanted,
            seed=seed,
            data=data,
            quant=quant,
            model=model,
            learn=learn,
            fleet=fleet,
            network=network,
            plan=plan,
        )
    )


def _servers(wanted: Job) -> bool:
    """Whether no one server sees the rows of all devices."""
    return bool(wanted.fleet.servers) or (wanted.network.simulate and planning_edge.wanted(wanted))


def _personal(learn: LearnSettings, fleet: FleetSettings, labels: str) -> tuple[LearnSettings, FleetSettings]:
    """Return the settings without parts of devices' own, and without ranks, where the method can have none."""
    method = METHODS[learn.method]
    if learn.method in ("central", "local", "fedavg") or method.relay:
        return replace(learn, personal="none"), replace(fleet, ranks=())
    one_head = method.split and learn.practice.shared and labels == "server"
    impossible = ("head",) * one_head + ("device-half",) * (not method.split)
    return replace(learn, personal="none") if learn.personal in impossible else learn, fleet


def _fitting(learn: LearnSettings) -> LearnSettings:
    """Return the settings without what the method's name sets, and what is about a server half that it has not."""
    method = METHODS[learn.method]
    named: dict[str, Any] = dict.fromkeys(BUNDLES[learn.method].keys() - {"lr", "state", "sampling"}, "")
    learn = replace(learn, **named)
    if not method.split or method.relay:
        learn = replace(learn, trunk="", server_update="", device_half="")
    if method.relay:
        learn = replace(learn, weights="")
    if not method.averages:
        learn = replace(learn, local="", server_optimizer="")
        learn = replace(learn, aggregation="") if learn.aggregation == "svd" else learn
    return learn if learn.practice.shared else replace(learn, server_update="")


def variants_of(
    wanted: Job,
    names: Sequence[str],
    seeds: int,
    sweeps: Mapping[str, Sequence[float]] | None = None,
    rates: Mapping[str, float] | None = None,
    contents: Mapping[str, str] | None = None,
) -> list[Variant]:
    """Return every line of a comparison: the names at the job's own settings, then along each axis where it matters.

    Args:
        wanted: the job, whose method is not used; its seed is the first.
        names: methods, each alone or with an allocator.
        seeds: how many, from the job's on.
        sweeps: axis -> values.
        rates: name -> learning rate; the job's own for names that are not among them.
        contents: of the files that the job names, where they are elsewhere; see :class:`Variant`.

    Raises:
        ConfigError: a name or axis that does not exist or comes twice, values no job can have, no seeds, or a sweep
            that changes none of the methods.
    """
    _expect_names(wanted, names, seeds)
    every = range(wanted.seed, wanted.seed + max(seeds, 0))
    own = dict.fromkeys(names, wanted.learn.lr) | dict(rates or {})
    plain = [
        Variant(
            name=name,
            jobs=tuple(variant(at_rate(wanted, own[name]), name, seed) for seed in every),
            contents=contents,
        )
        for name in names
    ]
    return [
        *plain,
        *(item for axis, values in (sweeps or {}).items() for item in _swept(axis, values, plain)),
    ]


def _swept(axis: str, values: Sequence[float], plain: Sequence[Variant]) -> Iterator[Variant]:
    if axis not in AXES:
        raise ConfigError(unknown("axis", axis, AXES))
    along = AXES[axis]
    if len(set(values)) != len(values) or not values:
        raise ConfigError(
            f"{along.option} is {','.join(f'{value:g}' for value in values)!r}; give each value once"
        )
    moved = [item for item in plain if along.matters(item.jobs[0])]
    if not moved:
        raise ConfigError(
            f"{along.option} changes none of {', '.join(item.name for item in plain)}; leave it out, or add a method "
            "that it changes"
        )
    for value in sorted(values):
        for item in moved:
            jobs = tuple(along.put(job, value) for job in item.jobs)
            yield replace(item, axis=axis, value=value, jobs=jobs)


def _expect_names(wanted: Job, names: Sequence[str], seeds: int) -> None:
    problems = []
    several = wanted.network.simulate and planning_edge.wanted(wanted)
    allocators = ["optimal", *EDGE_METHODS] if several else list(ALLOCATORS)
    for name in names:
        line = LineName.of(name)
        method, allocator, plus = line.method, line.allocator, "+" in name.partition(" ")[0]
        if wrong := [key for key in FIXED if any(item.startswith(f"{key}=") for item in line.settings)]:
            problems.append(f"{name}: {wrong[0]} has an option of its own, {FIXED[wrong[0]]}")
        elif method not in METHODS:
            problems.append(unknown("method", method, METHODS))
        elif plus and allocator not in allocators:
            problems.append(f"{name}: {unknown('allocator', allocator, allocators)}")
        elif plus and (method in AIRLESS or not wanted.network.simulate):
            why = f"{method} uses no network" if method in AIRLESS else "network.simulate is false"
            problems.append(f"{name} names an allocator, but {why}; write {method}")
    if not names or len(set(names)) != len(names):
        problems.append(f"--methods is {','.join(names)!r}; name each method once")
    if seeds < 1:
        problems.append(f"--seeds is {seeds}; at least one is needed")
    if problems:
        raise ConfigError(problems)
