"""Whether what a device trained can be: against what its own steps can move, and against the other devices.

Steps. Adam moves a number w by at most lr_t R_t in its step t, whatever the gradients are: with m_t and v_t the
moments, b1 and b2 their decays and q = b1^2 / b2, Cauchy and Schwarz give

    |m_t| / sqrt(v_t) <= (1 - b1) / sqrt(1 - b2) sqrt((1 - q^t) / (1 - q)),

and the corrections of both moments multiply it by sqrt(1 - b2^t) / (1 - b1^t) (D. P. Kingma and J. Ba, arXiv
1412.6980, section 2.1, states the first factor alone). So R_1 = 1, and no R_t exceeds 7.3. SGD with momentum mu moves
all numbers of one side together by at most lr_t (clip + decay |w|) / (1 - mu) in the norm; without a clip there is no
such bound. An honest device is never beyond either, so what is beyond is refused.

Rounding. What travels as a change in b bits (``quant.bits_adapters``) arrives up to a step of its grid from where it
was. A group's own grid is as wide as its values, at most 2 R, so a step is at most 2 R / (2^b - 1), and the noise of
all in the norm at most 2 sqrt(128) / (2^b - 1) times that of the change; of one grid for all devices the steps are
known. That much is allowed on top: of what the steps allow, so that no grid of a device's own choice allows it more.

Others. With m_n the median, over the devices that train the tensor n, of the root mean square of its differences, those
of a device on one side of the cut may together be ``factor`` times as large as if each tensor's were m_n, and as much
more as b_k, the sum of its lr_t, is above the median of b; twice that for SGD without a clip. What is beyond is clipped
to it, or refused, by rule. So devices with different cuts are compared in what they share, and a head with heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from sflam.learn.settings import LearnSettings
from sflam.learn.settings.schedule import Moment, rate
from sflam.model.adapters import State
from sflam.sizes import ADAPTER_GROUP

RULES = ("clip", "reject", "off")
FACTOR = 2.0
"""Honest devices were seen up to 1.9, at Dirichlet 0.1; with 4, one of ten devices costs 14 points of accuracy."""
UNBOUNDED = 2.0
"""As many times more, where steps are as large as gradients are: SGD without a clip, on devices as unlike as these."""
COHORT = 3
"""Fewest devices whose median means something."""
BETA_1, BETA_2 = 0.9, 0.999
MANY = 100_000
"""A step of Adam whose corrections are 1: none moves further, so it stands for any where moments are kept."""
WIDER = 1 + 2**-6
"""How much wider a grid is than its values: its offset and step are bfloat16."""
SLACK, ROUNDING = 1e-3, 1e-5
"""Relative to the reach, and to the size of what is moved: for the rounding of float32 over the steps of a round."""


@dataclass(frozen=True)
class Reach:
    """How far the steps of one device can move what it trains on one side of the cut.

    Attributes:
        each: any one number, weight decay apart; inf where only all together are bounded.
        norm: all numbers together, in the Euclidean norm, weight decay apart; inf where each is bounded.
        decay: the sum of rate times weight decay over its steps, times what momentum makes of it.
        rates: the sum of its rates, b_k.
    """

    each: float
    norm: float
    decay: float
    rates: float

    @property
    def bounded(self) -> bool:
        """Whether steps have any bound of their own, whatever the gradients are."""
        return not (math.isinf(self.each) and math.isinf(self.norm))


def reach_of(learn: LearnSettings, moments: Sequence[Moment]) -> Reach:
    """Return how far a device can move that makes its steps of a round at ``moments``."""
    rates = [rate(learn, moment) for moment in moments]
    total = math.fsum(rates)
    if learn.optimizer == "sgd":
        moved = total / (1.0 - learn.momentum)
        norm = moved * learn.clip if learn.clip else math.inf
        return Reach(math.inf, norm, moved * learn.weight_decay, total)
    kept = learn.practice.state == "keep"
    each = math.fsum(own * adam_step(MANY if kept else t) for t, own in enumerate(rates, start=1))
    # Of Adam weight decay is a part of the gradient; of AdamW it is not.
    return Reach(each, math.inf, total * learn.weight_decay if learn.optimizer == "adamw" else 0.0, total)


def adam_step(t: int) -> float:
    """Return R_t, the most that Adam's step ``t``, from 1, moves a number, in learning rates."""
    q = BETA_1**2 / BETA_2
    moments = (1 - BETA_1) / math.sqrt(1 - BETA_2) * math.sqrt((1 - q**t) / (1 - q))
    return moments * math.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)


@dataclass(frozen=True)
class Rounding:
    """How far rounding can move what a device sent.

    Attributes:
        levels: 2^b - 1.
        step: the largest of the grids that all devices share; 0 where each has its own.
        norm: all of these steps together, in the Euclidean norm over values.
        noise: the farthest that noise of the device's own moves a value (``privacy.adapters``).
        shake: the farthest that it moves all together, in the norm.
    """

    levels: int
    step: float = 0.0
    norm: float = 0.0
    noise: float = 0.0
    shake: float = 0.0

    def each(self, most: float) -> float:
        """Return how far any value can be moved, where steps move none by more than ``most``."""
        return self.noise + max(self.step, WIDER * 2 * (most + self.noise) / self.levels)

    def together(self, most: float) -> float:
        """Return how far all can be moved in the norm, where steps move them by at most ``most`` in it."""
        wide = WIDER * 2 * math.sqrt(ADAPTER_GROUP) * (most + self.shake) / self.levels
        return self.shake + max(self.norm, wide)


@dataclass(frozen=True, eq=False)
class Trained:
    """What one device trained on one side of the cut.

    Attributes:
        start: what it began from, by name.
        end: what came of it, the same names and shapes.
        rounding: of what travelled; None for floats.
    """

    start: State
    end: State
    rounding: Rounding | None = None

    def squares(self) -> dict[str, float]:
        """Return the sum of squares of the differences of each tensor, in float64."""
        return {
            name: float((end.double() - self.start[name].double()).square().sum())
            for name, end in self.end.items()
        }

    def impossible(self, reach: Reach) -> str:
        """Return why no steps of ``reach`` can have made it; "" where they can."""
        if not all(bool(tensor.isfinite().all()) for tensor in self.end.values()):
            return "it holds NaN or infinity"
        if not math.isinf(reach.norm):
            size = math.sqrt(
                math.fsum(float(tensor.double().square().sum()) for tensor in self.start.values())
            )
            moved, most = (
                math.sqrt(math.fsum(self.squares().values())),
                reach.norm + reach.decay * (size + reach.norm),
            )
            extra = self.rounding.together(most) if self.rounding else 0.0
            if moved > most * (1 + SLACK) + ROUNDING * size + extra:
                return f"its differences have norm {moved:.3g}; its steps can make {most:.3g}"
        if math.isinf(reach.each):
            return ""
        extra = 0.0
        if self.rounding and self.start:
            largest = max(float(tensor.abs().max()) for tensor in self.start.values() if tensor.numel())
            extra = self.rounding.each(reach.each + reach.decay * (largest + reach.each))
        for name, end in self.end.items():
            own = self.start[name].double()
            allowed = reach.each + reach.decay * (own.abs() + reach.each)
            moves = (end.double() - own).abs()
            if bool((moves > allowed * (1 + SLACK) + ROUNDING * own.abs() + extra).any()):
                return f"{name} moved by up to {float(moves.max()):.3g}; its steps can make {reach.each:.3g}"
        return ""

    def towards(self, share: float) -> State:
        """Return the state at a share of the way from start to end."""
        return {
            name: (self.start[name].double() + share * (end.double() - self.start[name].double())).to(end)
            for name, end in self.end.items()
        }


@dataclass(frozen=True)
class Screened:
    """The verdict on a round's devices.

    Attributes:
        refused: device -> why it has no part in the average.
        clipped: device -> how many times beyond the cohort's limit it was, on the worse side.
        sides: of the others, device -> what counts, side by side as it was given.
    """

    refused: dict[int, str] = field(default_factory=dict)
    clipped: dict[int, float] = field(default_factory=dict)
    sides: dict[int, tuple[State, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Screen:
    """The rule by which differences are judged.

    Attributes:
        rule: what becomes of a device far beyond the others: ``clip`` takes its difference shortened, ``reject`` does
            not take it. What no steps can make is refused by both; ``off`` looks at nothing.
        factor: how many times the cohort's median is far.
    """

    rule: str = "clip"
    factor: float = FACTOR

    def __call__(self, trained: Mapping[int, Sequence[Trained]], reach: Mapping[int, Reach]) -> Screened:
        """Judge what devices trained.

        Args:
            trained: device -> what it trained, of all devices the same sides of the cut.
            reach: device -> how far its steps can move.
        """
        found = Screened()
        for device, sides in trained.items():
            reasons = [side.impossible(reach[device]) for side in sides] if self.rule != "off" else []
            if reason := next(filter(None, reasons), ""):
                found.refused[device] = reason
            else:
                found.sides[device] = tuple(side.end for side in sides)
        if self.rule != "off":
            self._compare(found, trained, reach)
        return found

    def _compare(
        self, found: Screened, trained: Mapping[int, Sequence[Trained]], reach: Mapping[int, Reach]
    ) -> None:
        """Compare the devices that are left with each other, side by side."""
        cohort = [device for device in found.sides if reach[device].rates > 0]
        if len(cohort) < COHORT:
            return
        usual = median(reach[device].rates for device in cohort)
        excess = {device: [0.0] * len(trained[device]) for device in cohort}
        for side in range(len(trained[cohort[0]])):
            for device, ratio in _excess({d: trained[d][side] for d in cohort}).items():
                more = max(1.0, reach[device].rates / usual) * (1.0 if reach[device].bounded else UNBOUNDED)
                excess[device][side] = ratio / (self.factor * more)
        for device, times in excess.items():
            worst = max(times, default=0.0)
            if worst <= 1:
                continue
            if self.rule == "reject":
                del found.sides[device]
                found.refused[device] = (
                    f"its differences are {worst * self.factor:.3g} times the cohort's median; {self.factor:g} times "
                    "is the limit"
                )
                continue
            found.clipped[device] = worst
            found.sides[device] = tuple(
                side.towards(1 / far) if far > 1 else side.end
                for side, far in zip(trained[device], times, strict=True)
            )


def _excess(trained: Mapping[int, Trained]) -> dict[int, float]:
    """Return how many times as large as usual each device's differences are, in what enough others train, too."""
    squares = {device: one.squares() for device, one in trained.items()}
    counts = {name: tensor.numel() for one in trained.values() for name, tensor in one.end.items()}
    usual: dict[str, float] = {}
    for name, count in counts.items():
        found = [math.sqrt(own[name] / count) for own in squares.values() if name in own and count]
        if len(found) >= COHORT:
            usual[name] = count * median(found) ** 2
    result = {}
    for device, own in squares.items():
        expected = math.fsum(usual[name] for name in own if name in usual)
        if expected:
            result[device] = math.sqrt(math.fsum(own[name] for name in own if name in usual) / expected)
    return result
