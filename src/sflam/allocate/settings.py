"""``[plan]``: what is decided, by which method, and within which limits."""

from __future__ import annotations

from dataclasses import dataclass

from sflam.ranges import Ranges
from sflam.registry import OWN
from sflam.sizes import MAX_BITS, MIN_BITS

METHODS = (
    "optimal",
    "bits",
    "cut",
    "subchannels",
    "bcd",
    "bcd-matching",
    "bcd-bits",
    "fixed-bits",
    "equal",
    "equal-bandwidth",
    "random",
    "oracle",
    "subchannel-bits",
)
EDGE_METHODS = (
    "dual",
    "fractional",
    "hungarian",
    "nearest",
    "random",
    "all-local",
    "all-edge",
    "equal",
    "card",
    "exhaustive",
    "slsqp",
)
"""For several servers."""
CHOOSE_BITS = ("bits", "bcd-bits", "fixed-bits", "subchannel-bits")
BY_SUBCHANNEL = ("subchannels", "bcd-matching", "subchannel-bits")
BY_BAND = (*BY_SUBCHANNEL, "bcd", "bcd-bits", "oracle")
"""Methods that only share out parts of a band."""
LATE = ("stop", "drop")
COUNTS = ("all", "activations")
WAITS = ("chain", "barrier")
OPTIMIZE = ("clock", "bits", "cut", "tuned", "bits_down")


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """How devices are given bandwidth, power, clocks, bits and a cut.

    Where cut or bits are not decided, they are those of ``[model]``, ``[fleet]`` and ``[quant]``.

    Attributes:
        method: ``optimal`` (exact, with a certified bound), ``bcd`` (the paper's), ``subchannels``, ``bcd-matching``,
            ``bcd-bits``, ``bits``, ``subchannel-bits``, ``cut``, ``oracle``, or a baseline: ``equal``,
            ``equal-bandwidth``, ``random``, ``fixed-bits``. Among several servers ``optimal`` is ``dual`` (certified);
            also ``fractional`` (paper), ``hungarian``, ``card``, ``exhaustive``, ``slsqp``, ``nearest``, ``random``,
            ``all-local``, ``all-edge``, ``equal``.
        optimize: what is decided beside bandwidth and power: ``clock``, ``bits``, ``cut``; and with ``bits`` (up) also
            ``bits_down``, where ``network.downlink_mbps`` makes the way down take time. Without ``clock``, devices run
            at full speed and computing energy is not counted. Among several servers also ``tuned``: how many first
            layers every user tunes, wherever it is cut; its instability then counts those.
        latency_weight: lam, from 0 to 1: the objective is lam seconds + (1 - lam) joules. 0 needs a deadline.
        deadline: seconds that a round may take; 0 for no limit.
        bits_least: smallest width to choose, either way.
        bits_most: largest width to choose, either way.
        sensitivity: chi, how much the noise of one device's quantizer slows learning; 0 chooses the fewest bits.
        sensitivity_down: the same of noise in the gradients on the way down.
        measure_every: a simulated run measures chi of every device, again after so many rounds, and plans with
            that instead; 0 does not measure.
        measure_batches: mini-batches of one such measurement; more narrow its error, and each takes three passes.
        bias_share: with ``measure_every``, the largest share of the squared gradient that a device's squared bias by
            quantization may be, as measured: a hard least width of its own. 0 asks for none.
        local_steps: mini-batches of a round; a simulated run counts those that it has.
        counts: what a round's seconds and joules are, in plans, limits and charges alike: ``all`` that crosses, with
            labels, headers and adapters; or ``activations`` and gradients alone, as published: adapters then move after
            the round, outside its limits. The reference cell's plan counts activations.
        timing: how a round's seconds add up, in plans, limits and charges alike: ``chain``, every device its own stages
            one after another; or ``barrier``, all wait for all at every step. Empty takes the method's: a barrier where
            one trunk serves all devices, a chain where each has its own; a relay is the sum of its turns.
        tokens: tokens of a text sample; 0 takes 128, and an image's own.
        subchannels: equal parts of the band, for methods that hand them out; 0 for continuous bandwidth.
        radio_cap: joules a device may transmit with in a round; 0 for no limit.
        compute_cap: joules a device may compute with in a round; 0 for no limit.
        energy_cap: joules a device may use in a round in all; 0 for no limit.
        stability_weight: w_s, weight of every user's instability, among several servers.
        fit: with ``tuned``, the loss that training reaches with 1, 2, ... layers tuned, as ``sflam stability`` measures
            it: what speaks for tuning more of them. Without it the fewest are tuned.
        fit_weight: w_f, weight of every user's loss in ``fit``.
        tuned_least: fewest layers to tune, with ``tuned``.
        eigenvalue: Lambda_min of the users' empirical risk, in the bound on instability.
        samples: of a user's data, in that bound; the reference square has its own.
        least_leakage: the ``audit.json`` of ``sflam audit``: only cuts are allowed at which, and at all deeper audited
            ones, no attack on the samples got more than ``most_leakage`` with the widths and noise of the job. It holds
            for chosen cuts and for given ones.
        most_leakage: score of the best attack that is still allowed, from 0 to 1 in the measure of the audit; 0 takes
            half of the way from a guess to the best.
        split_least: fewest layers on a user, among several servers.
        split_most: most layers on a user; 0 for all, which is training without a server.
        every: simulated runs, and served ones with ``fleet.plan = "measured"``, are planned anew every so many
            rounds; 0 plans once.
        late: in such a run, devices that cannot keep the limits make it ``stop``, or are left out: ``drop``. Served
            rounds then end for those who are late at ``plan.deadline``, once there is a quorum.
        probe: in a served run with ``fleet.plan = "measured"``, the ways to all devices are measured by a short probe
            before every round; else they are those of the last round, and only devices that are not known are probed.
        pace: in a served run with ``fleet.plan = "measured"`` whose devices share one way, each sends no faster than
            the share of it that it was planned to have.
        budget: joules a device may use a round on average, over a simulated run; 0 for no budget.
        patience: with a budget, the joules beyond it that a unit of the objective is worth: less keeps budgets more
            closely; 0 chooses it for each device, from the length of the run.
    """

    method: str = "optimal"
    optimize: tuple[str, ...] = ("clock",)
    latency_weight: float = 0.5
    deadline: float = 0.0
    bits_least: int = 2
    bits_most: int = 16
    sensitivity: float = 0.0
    sensitivity_down: float = 0.0
    measure_every: int = 0
    measure_batches: int = 8
    bias_share: float = 0.25
    local_steps: int = 1
    counts: str = "all"
    timing: str = ""
    tokens: int = 0
    subchannels: int = 0
    radio_cap: float = 0.0
    compute_cap: float = 0.0
    energy_cap: float = 0.0
    stability_weight: float = 200.0
    fit: tuple[float, ...] = ()
    fit_weight: float = 0.0
    tuned_least: int = 1
    eigenvalue: float = 0.1
    samples: int = 1000
    least_leakage: str = ""
    most_leakage: float = 0.0
    split_least: int = 1
    split_most: int = 0
    every: int = 1
    late: str = "stop"
    probe: bool = False
    pace: bool = False
    budget: float = 0.0
    patience: float = 0.0

    def __post_init__(self) -> None:
        ranges = Ranges(self, "plan")
        ranges.one_of((*METHODS, *EDGE_METHODS, *sorted(OWN["allocator"])), "method")
        for each in self.optimize:
            if each not in OPTIMIZE:
                ranges.problems.append(f"plan.optimize holds {each!r}; choose from {', '.join(OPTIMIZE)}")
        ranges.between(0, 1, "latency_weight")
        ranges.at_least(
            0,
            "deadline",
            "sensitivity",
            "sensitivity_down",
            "subchannels",
            "radio_cap",
            "compute_cap",
            "energy_cap",
            "tokens",
        )
        ranges.at_least(
            0,
            "stability_weight",
            "fit_weight",
            "eigenvalue",
            "split_most",
            "every",
            "budget",
            "patience",
        )
        ranges.at_least(0, "measure_every")
        ranges.between(0, 1, "bias_share", "most_leakage")
        ranges.at_least(3, "measure_batches", hint=": a variance and its error need as many")
        ranges.at_least(1, "local_steps", "samples", "split_least", "tuned_least")
        ranges.require(all(loss >= 0 for loss in self.fit), "fit", "losses are 0 or more")
        ranges.between(MIN_BITS, MAX_BITS, "bits_least", "bits_most")
        ranges.require(
            self.bits_least <= self.bits_most, "bits_least", f"it is above plan.bits_most = {self.bits_most}"
        )
        ranges.one_of(LATE, "late")
        ranges.one_of(COUNTS, "counts")
        ranges.one_of(("", *WAITS), "timing")
        ranges.check()
