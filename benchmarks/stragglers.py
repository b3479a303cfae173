"""A slow third on the virtual clock: waited for, a deadline, a quorum, buffered: ``python benchmarks/stragglers.py``.

Nine devices near a server, three of which compute at a small part of the others' clock; digits, label-skewed, the
bundled model. Every row has the same virtual time, and all are charged by the same functions.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from common import introduce, machine, show

from sflam import config
from sflam.run import start as jobs

PLAIN = (
    "network.simulate=true",
    "fleet.devices=9",
    "network.fading=none",
    "network.device=[{count=6, distance_m=100.0, clock_ghz=1.0}, {count=3, distance_m=100.0, clock_ghz=CLOCK}]",
    "network.static_power_w=1.0",
    "network.downlink_mbps=40",
    "plan.method=equal",
    "plan.optimize=[]",
    "plan.every=0",
    "data.alpha=0.3",
    "learn.local_steps=2",
    "learn.batch=8",
    "learn.lr=1e-3",
    "learn.evaluate_samples=200",
    "learn.rounds=100000",
)


def ways(fast_s: float) -> dict[str, tuple[str, ...]]:
    """Return what each row sets, given the s of a round of the fast ones."""
    return {
        "all are waited for": (),
        "all, optimal shares": ("plan.method=optimal",),
        "deadline": ("plan.every=1", f"plan.deadline={1.05 * fast_s}", "plan.late=drop"),
        "quorum of 6": ("fleet.quorum=6",),
        "buffered, M = 9": ("learn.sync=buffered",),
        "buffered, M = 6": ("learn.sync=buffered", "learn.buffer=6"),
        "buffered, M = 3": ("learn.sync=buffered", "learn.buffer=3"),
    }


def run(settings: tuple[str, ...], seed: int, seconds: float, target: float) -> dict[str, Any]:
    """Return when a run reached the target, where it was when its time was over, and what it spent."""
    reached = joules = clock = best = 0.0
    slow = every = versions = 0
    with tempfile.TemporaryDirectory() as folder:
        going = jobs.start(config.load(None, [*settings, f"seed={seed}"]), Path(folder) / "run")
        for record in going.rounds():
            charge = record.charge
            assert charge is not None
            if charge.clock > seconds:
                break
            clock, versions, joules = charge.clock, versions + 1, joules + charge.energy
            accuracy = record.accuracy or 0.0
            best, reached = max(best, accuracy), reached or (clock if accuracy >= target else 0.0)
            who = charge.buffer.devices if charge.buffer else record.participants
            slow, every = slow + sum(device >= 6 for device in who), every + len(who)
    return {"reached": reached, "best": best, "versions": versions, "slow": slow / max(1, every), "J": joules}


def main() -> None:
    """Print a row per way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print a JSON object per row")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=float, default=5, help="virtual time, in rounds of all devices")
    parser.add_argument("--target", type=float, default=0.8)
    parser.add_argument("--clock", type=float, default=0.0015, help="GHz of the slow third")
    chosen = parser.parse_args()
    introduce(machine(), as_json=chosen.json)
    plain = tuple(item.replace("CLOCK", str(chosen.clock)) for item in PLAIN)
    with tempfile.TemporaryDirectory() as folder:
        once = jobs.start(config.load(None, [*plain, "learn.rounds=1"]), Path(folder) / "run")
        charge = next(once.rounds()).charge
    assert charge is not None
    ends = sorted(one + two for one, two in zip(charge.finish, charge.adapter_s, strict=True))
    rows = []
    for name, more in ways(ends[5]).items():
        found = [
            run((*plain, *more), seed, chosen.rounds * ends[-1], chosen.target)
            for seed in range(chosen.seeds)
        ]
        mean = {key: sum(one[key] for one in found) / len(found) for key in ("best", "versions", "slow", "J")}
        hits = [one["reached"] / ends[-1] for one in found if one["reached"]]
        met = f"{sum(hits) / len(hits):.2f}" if hits else "-"
        row = {
            "way": name,
            f"to {chosen.target:.0%}, rounds of all": f"{met} ({len(hits)} of {len(found)})",
            "best accuracy": f"{mean['best']:.3f}",
            "versions": f"{mean['versions']:.0f}",
            "updates of the slow": f"{mean['slow']:.0%}",
            "J": f"{mean['J']:.3g}",
        }
        rows.append(row)
        show([row], as_json=chosen.json)  # a row as it is there, and all together at the end
    show(
        rows,
        as_json=chosen.json,
        title=f"virtual time of {chosen.rounds:g} rounds of all devices, {ends[-1]:.3g} s each",
    )


if __name__ == "__main__":
    main()
