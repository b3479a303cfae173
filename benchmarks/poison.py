"""What one device of ten can spoil from within the limits of a served run, and what those limits cost honest devices.

    python benchmarks/poison.py [--methods NAME ...] [--attacks NAME ...] [--seeds N ...] [--set KEY=VALUE]

Every run is the bundled job in one process, on unlike devices (Dirichlet 0.1 unless ``--set`` names another share-out).
What devices trained is judged every round as ``sflam serve`` judges it, by the same code; the attacker uploads

    none       what it trained: so all are honest, and whoever is named is named wrongly
    absent     nothing: what is lost with its data
    reversed   its difference the other way, as far as its own steps and the other devices allow
    sign       the other way in every number alike, as far as they allow
    noise      a random direction, as far as they allow
    far        its difference times 100, as one who has not read the rule

The table has the last accuracy, how often an honest device was refused or shortened, of how many judgements, and the
largest excess of an honest device over what the others allow.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from common import introduce, machine, show

import sflam
from sflam import config
from sflam.learn.fleet import Average
from sflam.learn.screening import RULES, Screen, Trained, reach_of
from sflam.learn.settings.schedule import Moment
from sflam.learn.split_fleet import LocalFleet
from sflam.learn.steps import Steps

ATTACKS = ("none", "absent", "reversed", "sign", "noise", "far")
METHODS = ("sflam", "sflam-mixed", "sfl-v1", "sfl-v2")
UNLIKE = ("data.partition=dirichlet", "data.alpha=0.1")
ATTACKER, NEAR, FAR = 0, 0.999, 100.0


def size_of(trained: Trained) -> float:
    """Return the root mean square of what was moved."""
    return math.sqrt(sum(trained.squares().values()) / sum(d.numel() for d in trained.end.values()))


class Judged:
    """The average of a fleet, of what is left after the judgement.

    Args:
        attack: what the attacker uploads.
        screen: the rule of the server.
    """

    def __init__(self, attack: str, screen: Screen, seed: int) -> None:
        self.attack, self.screen = attack, screen
        self.draw = torch.Generator().manual_seed(seed)
        self.refused = self.shortened = self.judged = self.caught = 0
        self.worst = 0.0
        self.average = LocalFleet.average

    def __call__(self, fleet: LocalFleet, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Average a round; see :meth:`LocalFleet.average`."""
        start, stack = fleet._start, fleet.devices.segment.stack
        (trunk,) = fleet.servers.trunks.values()
        sides: dict[int, list[Trained]] = {}
        for device in devices:
            names = fleet.devices.segment.names(fleet.devices.cuts[device])
            own = stack.read(device)
            both = [{name: own[name] for name in names}]
            if not trunk.shared:
                both.append(trunk.segment.stack.read(trunk.copy_of(device)))
            sides[device] = [Trained({name: start[name].to(end[name]) for name in end}, end) for end in both]
        drawn = fleet.drawn(round, devices)
        reach = {}
        for device in devices:
            count = len(drawn[device])
            reach[device] = reach_of(fleet.learn, [Moment(round, step, count) for step in range(count)])
        if self.attack == "absent":
            sides.pop(ATTACKER, None)
        elif self.attack != "none" and ATTACKER in sides:
            honest = [size_of(sides[device][0]) for device in devices if device != ATTACKER]
            most = self.screen.factor * statistics.median([*honest, max(honest)])
            sides[ATTACKER][0] = self._poisoned(sides[ATTACKER][0], NEAR * most, NEAR * reach[ATTACKER].each)
        found = self.screen(sides, reach)
        self._note(found.refused, found.clipped, devices)
        for device, kept in found.sides.items():
            stack.write(device, kept[0])
            for behind in kept[1:]:
                trunk.segment.stack.write(trunk.copy_of(device), behind)
        return self.average(fleet, round, [device for device in devices if device in found.sides], steps)

    def _poisoned(self, honest: Trained, rms: float, each: float) -> Trained:
        """Return the attacker's upload, whose numbers move by ``rms`` in the mean and by ``each`` at most."""
        move = {name: honest.end[name] - honest.start[name] for name in honest.end}
        if self.attack == "far":
            move = {name: FAR * d for name, d in move.items()}
        else:
            if self.attack == "noise":
                move = {n: torch.randn(d.shape, generator=self.draw, dtype=d.dtype) for n, d in move.items()}
            elif self.attack == "sign":
                move = {name: -d.sign() for name, d in move.items()}
            else:
                move = {name: -d for name, d in move.items()}
            length = size_of(Trained({name: torch.zeros_like(d) for name, d in move.items()}, move))
            move = {name: (d * (rms / length)).clamp(-each, each) for name, d in move.items()}
        return Trained(honest.start, {name: honest.start[name] + d for name, d in move.items()})

    def _note(self, refused: Mapping[int, str], clipped: Mapping[int, float], devices: Sequence[int]) -> None:
        attacked = {ATTACKER} if self.attack != "none" else set()
        self.judged += len(set(devices) - attacked)
        self.refused += len(refused.keys() - attacked)
        self.shortened += len(clipped.keys() - attacked)
        self.caught += len((refused.keys() | clipped.keys()) & attacked)
        self.worst = max(
            [self.worst, *(times for device, times in clipped.items() if device not in attacked)]
        )


def run(job: sflam.Job, attack: str, rule: str) -> dict[str, Any]:
    """Return what came of one run."""
    judged = Judged(attack, Screen(rule), job.seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(LocalFleet, "average", lambda fleet, *args: judged(fleet, *args)),
    ):
        result = sflam.train(job, Path(folder) / "run")
    return {
        "method": job.learn.method,
        "attack": attack,
        "seed": job.seed,
        "accuracy": round(result.accuracy, 4),
        "refused": judged.refused,
        "shortened": judged.shortened,
        "judged": judged.judged,
        "worst": round(judged.worst, 2),
        "attacker caught": judged.caught,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    options.add_argument("--attacks", nargs="+", default=ATTACKS, choices=ATTACKS)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--rule", default="clip", choices=RULES)
    options.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    options.add_argument("--json", action="store_true", help="one JSON object per line instead of tables")
    args = options.parse_args()
    introduce(machine() | {"rule": args.rule}, as_json=args.json)
    found = []
    for method in args.methods:
        for seed in args.seeds:
            for attack in args.attacks:
                job = config.load(
                    None,
                    [*UNLIKE, *args.overrides, f"learn.method={method}", f"seed={seed}"],
                )
                found.append(run(job, attack, args.rule))
                if args.json:
                    show(found[-1:], as_json=True)
    if not args.json:
        show(found, as_json=False, title="runs")


if __name__ == "__main__":
    main()
