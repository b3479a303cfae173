"""The methods by name. A method builds its fleet, and answers what differs between methods everywhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from sflam.codec.guard import Guard, guard_of
from sflam.codec.settings import QuantSettings
from sflam.config import Job
from sflam.cost.timing import BARRIER, CHAIN, RELAY
from sflam.learn.settings.learn import SYNCS
from sflam.learn.settings.practice import BUNDLES, Practice
from sflam.learn.world.world import ALONE, World
from sflam.network.presence import uncertain
from sflam.registry import add
from sflam.sizes import FLOAT_BITS, IDENTITY

if TYPE_CHECKING:  # torch is loaded when a fleet is built, not when a method is looked up
    from numpy.typing import NDArray
    from peft import PeftModel

    from sflam.learn.adapter_exchange import AdapterCodec
    from sflam.learn.examples import Examples
    from sflam.learn.fleet import Fleet
    from sflam.learn.split_fleet import LocalFleet
    from sflam.model.backbone import Backbone


@dataclass(frozen=True, eq=False)
class Material:
    """What a fleet is built from.

    Attributes:
        job: its settings.
        backbone: the model, adapted in place by ``model``.
        model: its peft wrapper.
        examples: the training samples of all devices.
        parts: the samples of each device, int64 [n_k].
        world: the ranks that train together.
    """

    job: Job
    backbone: Backbone
    model: PeftModel
    examples: Examples
    parts: Sequence[NDArray[Any]]
    world: World = ALONE


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method; a subclass builds its fleet.

    Attributes:
        name: what ``learn.method`` calls it.
        summary: one line for people.
        source: where it comes from.
        split: whether the model is cut between devices and server.
        quantized: whether what crosses the cut is quantized; otherwise it crosses as floats.
        relay: whether devices train one after another and hand one device half on.
        whole: whether every device trains the whole model, which then travels once a round.
        charged: whether its rounds use a network that a simulation can charge for.
        keys: the keys of :class:`sflam.learn.settings.practice.Practice` that a method of a program's own sets; those
            of the bundled methods are in ``BUNDLES``.
    """

    name: str
    summary: str
    source: str
    split: bool = False
    quantized: bool = False
    relay: bool = False
    whole: bool = False
    charged: bool = True
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def averages(self) -> bool:
        """Whether devices train apart, and what they trained is averaged."""
        return self.split and not self.relay

    def timing(self, practice: Practice) -> str:
        """Return how its rounds' seconds add up; see :mod:`sflam.cost.timing`."""
        if self.relay:
            return RELAY
        return BARRIER if self.split and practice.shared else CHAIN

    def scheme(self, quant: QuantSettings) -> str:
        """Return the name of the quantizer that is really used."""
        return quant.scheme if self.quantized else IDENTITY

    def bits_adapters(self, quant: QuantSettings) -> int:
        """Return the bits of an adapter value on the way up; what is handed from device to device stays floats."""
        return quant.adapters if self.quantized and self.averages and self.split else FLOAT_BITS

    def adapters(self, quant: QuantSettings, seed: int, guard: Guard | None = None) -> AdapterCodec:
        """Return how adapters go up in a run of ``seed``, whose devices ``guard`` them."""
        from sflam.learn.adapter_exchange import AdapterCodec

        common = quant.adapters_scale == "common"
        return AdapterCodec(self.bits_adapters(quant), seed, common=common, guard=guard)

    def halves(self, material: Material) -> LocalFleet | None:
        """Return the fleet of a model that is cut; None where none is."""
        return None

    def fleet(self, material: Material) -> Fleet:
        """Return the fleet that trains, of a method whose model is not cut."""
        raise NotImplementedError(f"method {self.name!r} builds no fleet")


@dataclass(frozen=True, kw_only=True)
class SplitMethod(Method):
    """A method that cuts the model."""

    split: bool = True

    def halves(self, material: Material) -> LocalFleet:
        """Return the devices and the server in this process."""
        from sflam.learn.attendance import AttendedFleet
        from sflam.learn.relay import Relay
        from sflam.learn.split_fleet import LocalFleet

        job = material.job
        kind: Callable[..., LocalFleet] = (
            Relay if self.relay else AttendedFleet if uncertain(job) else LocalFleet
        )
        if job.privacy.secure_aggregation:
            from sflam.learn.secure_fleet import SecureFleet

            kind = partial(SecureFleet, privacy=job.privacy)
        guard = guard_of(job.privacy, job.seed)
        return kind(
            material.backbone,
            material.model,
            material.examples,
            material.parts,
            placements=job.placements,
            settings=job.fleet,
            learn=job.learn,
            scheme=self.scheme(job.quant),
            seed=job.seed,
            labels=job.model.labels,
            sampling=job.sampling,
            delta=job.quant.delta,
            adapters=self.adapters(job.quant, job.seed, guard),
            guard=guard,
            world=material.world,
        )


@dataclass(frozen=True, kw_only=True)
class FederatedMethod(Method):
    """A method whose devices train whole models.

    Attributes:
        averaged: whether devices ever learn from each other.
    """

    whole: bool = True
    averaged: bool = True

    @property
    def averages(self) -> bool:
        """Whether what devices trained is averaged."""
        return self.averaged

    def fleet(self, material: Material) -> Fleet:
        """Return the devices, each with the whole model, in this process."""
        from sflam.learn.federated import Federated, Local

        return _unsplit(Federated if self.averaged else Local, material)


@dataclass(frozen=True, kw_only=True)
class CentralMethod(Method):
    """The whole model on all the data."""

    charged: bool = False

    def fleet(self, material: Material) -> Fleet:
        """Return the one trainer."""
        from sflam.learn.central import Central

        return _unsplit(Central, material)


def _unsplit(kind: Callable[..., Fleet], material: Material) -> Fleet:
    """Return a fleet of the unmodified model."""
    from sflam.model.families import blocks_of

    job, backbone = material.job, material.backbone
    return kind(
        material.model,
        material.examples,
        material.parts,
        settings=job.fleet,
        learn=job.learn,
        seed=job.seed,
        blocks=blocks_of(backbone.model, backbone.family),
    )


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        SplitMethod(
            name="sflam",
            quantized=True,
            summary="split federated fine-tuning with a quantized cut, one server copy per device",
            source="arXiv 2504.09114",
        ),
        SplitMethod(
            name="sflam-mixed",
            quantized=True,
            summary="sflam with one server copy for all devices, which learns from their rows in mixed groups",
            source="merged features: arXiv 2311.13348; weights by samples: learn/weighting.py",
        ),
        SplitMethod(
            name="sfl-v1",
            summary="SplitFed V1: one server copy per device, averaged every round",
            source="arXiv 2004.12088",
        ),
        SplitMethod(
            name="sfl-v2",
            summary="SplitFed V2: one server copy for all devices",
            source="arXiv 2004.12088",
        ),
        SplitMethod(
            name="sl",
            relay=True,
            summary="split learning: devices one after another, one device half passed on, one server half",
            source="arXiv 1812.00564",
        ),
        FederatedMethod(
            name="fedlora",
            summary="every device trains the whole adapted model, adapters alone travel and are averaged",
            source="arXiv 2305.05644",
        ),
        FederatedMethod(
            name="fedavg",
            summary="every device trains every weight of the whole model, which travels and is averaged",
            source="arXiv 1602.05629",
        ),
        FederatedMethod(
            name="local",
            averaged=False,
            charged=False,
            summary="every device trains the whole adapted model for itself; nothing travels, nothing is averaged",
            source="what a device reaches without the others",
        ),
        CentralMethod(
            name="central",
            summary="the whole model on all the data, as many samples a round as the fleet uses",
            source="the reference every method is compared with",
        ),
        FederatedMethod(
            name="fedprox",
            summary="fedlora whose devices are pulled to where the round began",
            source="arXiv 1812.06127",
        ),
        FederatedMethod(
            name="scaffold",
            summary="fedlora whose devices correct their gradients by control variates, which travel too",
            source="arXiv 1910.06378",
        ),
        FederatedMethod(
            name="fedlc",
            summary="fedlora whose devices calibrate their logits by their counts of labels",
            source="arXiv 2209.00189",
        ),
        FederatedMethod(
            name="fedavgm",
            summary="fedlora with momentum on the server",
            source="arXiv 1909.06335",
        ),
        FederatedMethod(
            name="fedadam",
            summary="fedlora with Adam on the server",
            source="arXiv 2003.00295",
        ),
        FederatedMethod(
            name="fedyogi",
            summary="fedlora with Yogi on the server",
            source="arXiv 2003.00295",
        ),
        FederatedMethod(
            name="flexlora",
            summary="fedlora whose adapters are factors of the averaged products",
            source="arXiv 2402.11505",
        ),
        FederatedMethod(
            name="ffa-lora",
            summary="fedlora that trains B alone, so that averaging is exact",
            source="arXiv 2403.12313",
        ),
    )
}

assert set(METHODS) == set(BUNDLES), "practice.py names exactly the methods that exist"


def method_of(job: Job) -> Method:
    """Return the method of a job."""
    return METHODS[job.learn.method]


def timing_of(job: Job) -> str:
    """Return how the seconds of a job's rounds add up: as its method's do, or as ``plan.timing`` says.

    In buffered rounds no device waits for another.
    """
    if job.learn.sync == SYNCS[1]:
        return CHAIN
    return job.plan.timing or method_of(job).timing(job.learn.practice)


def register(method: Method) -> None:
    """Add a method of one's own, for ``learn.method``; raises ConfigError for a name that is taken or unfit."""
    add("method", method.name, method, METHODS, (BUNDLES, method.keys))
