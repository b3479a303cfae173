"""What ``plan.stability_weight`` does to the training it plans: ``python benchmarks/stability_weight.py [--json]``.

The bundled model on digits, four users between two servers. ``plan.fit`` is the training loss measured with 1, 2, ... 6
tuned layers. For each weight the plan chooses servers, cuts and tuned layers; then that very training is measured
(``sflam stability --layers job``) and run. Columns:

    tuned       layers each user tunes
    bound       mean AS of the plan (5.2), unweighted
    measured    average-replace-one stability of the planned training, in nats, +- one standard error
    seconds     mean user's round of the plan
    joules      of a round of the plan, servers included
    accuracy    of the run on all data, with its loss
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import introduce, machine, show

import sflam
from sflam import config
from sflam.allocate.edge.shares import EdgeShares
from sflam.allocate.referee import score
from sflam.planner import cell as planning
from sflam.stability.measure import Asked, Stability, measure
from sflam.stability.theory import rank_correlation

JOB = (
    "fleet.devices=4",
    "learn.rounds=4",
    "learn.evaluate_every=0",
    "quant.bits_up=4",
    "data.partition=iid",
    "network.scenario=square",
    "network.servers=2",
    "network.side_m=400",
    "network.bandwidth_mhz=5",
    "network.server_flops_per_cycle=64",
    'network.profiles={"raspberry-pi-4"=2, "jetson-orin-nano"=2}',
    'plan.optimize=["clock", "tuned"]',
    "plan.local_steps=8",
)


def measured(job: config.Job, asked: Asked) -> Stability:
    """Return the stability of a job as it stands."""
    return next(iter(measure(job, replace(asked, as_is=True))))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="0,2,10,100")
    parser.add_argument("--fit-weight", type=float, default=5.0)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--replacements", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    introduce(machine(), as_json=given.json)
    asked = Asked(samples=given.samples, draws=given.draws, replacements=given.replacements)
    plain = config.load(None, JOB)
    fit = [
        measured(
            replace(
                plain, model=replace(plain.model, tuned=tau), plan=replace(plain.plan, optimize=("clock",))
            ),
            replace(asked, replacements=1),
        ).loss
        for tau in range(1, 7)
    ]
    rows, bounds, found = [], [], []
    for weight in given.weights.split(","):
        job = config.load(
            None,
            [
                *JOB,
                f"plan.stability_weight={weight}",
                f"plan.fit={[round(loss, 4) for loss in fit]}",
                f"plan.fit_weight={given.fit_weight}",
                f"plan.samples={given.samples // 4}",
                "fleet.plan=computed",
            ],
        )
        decision = planning.decide(planning.with_devices(job))
        assert decision.edge is not None
        plan, scored = decision.plan, score(decision.edge, EdgeShares.from_plan(decision.plan.devices))
        item = measured(job, asked)
        with tempfile.TemporaryDirectory() as folder:
            result = sflam.train(job, Path(folder) / "run")
        bounds.append(float(np.mean(scored.instability)))
        found.append(item.measured)
        rows.append(
            {
                "weight": float(weight),
                "tuned": " ".join(map(str, plan.devices.tuned.tolist())),
                "cuts": " ".join(map(str, plan.devices.cut.tolist())),
                "bound": bounds[-1],
                "measured": item.measured,
                "error": item.error,
                "seconds": float((scored.compute + scored.transmit + scored.serve).mean()),
                "joules": scored.energy,
                "train loss": item.loss,
                "accuracy": result.accuracy,
                "gap": plan.gap,
            }
        )
    show(rows, as_json=given.json, title="stability_weight")
    if not given.json:
        print(
            f"fit: {', '.join(f'{loss:.3f}' for loss in fit)}; rank correlation of bound and measurement "
            f"{rank_correlation(found, bounds):+.2f}"
        )


if __name__ == "__main__":
    main()
