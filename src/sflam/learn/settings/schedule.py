"""The learning rate of every step: a pure function of where the step is in the run, so that resuming needs no state.

Devices, server, whole models and ``central`` all count in fractions of the run, whatever steps each takes in a round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sflam.learn.settings import LearnSettings


@dataclass(frozen=True)
class Moment:
    """A local step about to be taken.

    Attributes:
        round: number of the round, from 0.
        step: number of the step in the round, from 0.
        steps: how many there are in this round.
        turn: where devices take turns within a round, the number of this one.
        turns: how many turns there are.
    """

    round: int
    step: int
    steps: int
    turn: int = 0
    turns: int = 1

    def fraction(self, rounds: int, done: int = 0) -> float:
        """Return the share of a run of ``rounds`` that is over when ``done`` of this step is."""
        in_turn = (self.step + done) / self.steps
        return (self.round + (self.turn + in_turn) / self.turns) / rounds


def rate(settings: LearnSettings, moment: Moment) -> float:
    """Return the learning rate of a step.

    With f the share of the run over and w the warm-up: ``learn.lr`` times f/w below w, where f counts the step itself,
    so that no step has rate 0; from there on with p = (f - w)/(1 - w), f not counting it, times 1 (constant), 1 - p
    (linear) or (1 + cos(pi p))/2 (cosine; Loshchilov and Hutter, arXiv 1608.03983, equation 5, without restarts). All
    of it times ``learn.decay`` to the power of the round.
    """
    begin, warm = moment.fraction(settings.rounds), settings.warmup
    if begin < warm:
        share = min(1.0, moment.fraction(settings.rounds, 1) / warm)
    else:
        share = _after_warmup(settings.schedule, (begin - warm) / (1.0 - warm))
    return settings.practice.lr * share * settings.decay**moment.round


def _after_warmup(schedule: str, over: float) -> float:
    if schedule == "cosine":
        return (1.0 + math.cos(math.pi * over)) / 2.0
    return 1.0 - over if schedule == "linear" else 1.0
