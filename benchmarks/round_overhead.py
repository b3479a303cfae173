"""What a round of the default job spends its CPU time on: ``python benchmarks/round_overhead.py [--json]``.

Learning proper is forward, backward and optimiser of both halves. All else is overhead of cutting the model and
sending what crosses the cut; it is listed part by part. Evaluation and the run folder, which training on one
machine pays as well, are listed apart. The package runs as it is: timers are put around its functions, and each
counts only the time that no timer inside it counts.

``--set`` changes the job as it does for ``sflam train``, for example ``--set fleet.selected=5``.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from common import parser, set_up, show

from sflam import config
from sflam.codec.torch_quantizers import TorchQuantizer
from sflam.learn import adapter_exchange, device, exchange, server, split_fleet, u_shape
from sflam.learn import round as rounds_of
from sflam.learn.examples import Examples
from sflam.learn.exchange import Exchange
from sflam.model.split import DeviceSegment, ServerSegment
from sflam.model.stack import AdapterStack
from sflam.records.history import History
from sflam.report.tensorboard import Events
from sflam.run import start as job
from sflam.run.assemble import Assembly
from sflam.run.run import Run

LEARNING = ("forward", "backward", "optimizer")
APART = ("evaluation", "run folder")
# part -> the functions whose own time it is, by where they are looked up
PARTS: dict[str, list[tuple[Any, str]]] = {
    "forward": [(DeviceSegment, "forward"), (ServerSegment, "forward"), (server, "group_losses")],
    "backward": [(AdapterStack, "backward")],
    "optimizer": [(AdapterStack, "begin"), (AdapterStack, "hand_out")],
    "batching": [
        *((split_fleet, name) for name in ("drawn",)),
        (Examples, "take"),
        (device.Devices, "forward"),
        (device.Devices, "backward"),
        (server.Trunk, "step"),
    ],
    "encode": [(TorchQuantizer, name) for name in ("encode", "encode_each")],
    "decode": [(TorchQuantizer, name) for name in ("decode", "decode_each")],
    "bodies": [
        *(
            (Exchange, f"{name}s")
            for name in ("step_message", "receive_step", "answer_message", "receive_answer")
        ),
        *((module, "encode") for module in (adapter_exchange, rounds_of, u_shape)),
        *((module, "decode") for module in (exchange, adapter_exchange)),
    ],
    "step loop": [(split_fleet, "local_steps")],
    "averaging": [(split_fleet.LocalFleet, name) for name in ("download", "average")],
    "evaluation": [(Assembly, "evaluate")],
    "run folder": [(Run, "save"), (History, "append"), (Events, "add")],
}


class Clock:
    """CPU seconds by part; a part that calls another is not charged for it."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.running: list[str] = ["other"]
        self.since = time.process_time()

    def switch(self) -> None:
        """Charge the time since the last switch to the part that is running."""
        now = time.process_time()
        self.spent[self.running[-1]] += now - self.since
        self.since = now

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function``, its own time charged to ``part``."""

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            self.switch()
            self.running.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.switch()
                self.running.pop()

        return run


def rounds(overrides: list[str], count: int) -> tuple[list[dict[str, float]], int]:
    """Return the CPU seconds by part of each round but the first, which warms up, and a round's device-steps."""
    clock = Clock()
    for part, functions in PARTS.items():
        for owner, name in functions:
            setattr(owner, name, clock.timed(part, getattr(owner, name)))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        wanted = [*overrides, f"learn.rounds={count + 1}"]
        run = job.start(config.load(None, wanted), Path(folder) / "run")
        for each in (run.assembly.fleet.devices, run.assembly.fleet.servers.trunks[0]):  # type: ignore[attr-defined]
            each.optimizer.step = clock.timed("optimizer", each.optimizer.step)
        clock.switch()
        for _ in run.rounds():
            clock.switch()
            found.append(dict(clock.spent))
            clock.spent.clear()
    return found[1:], run.records[-1].device_steps


def main() -> None:
    options = parser(__doc__, repeats=10)
    options.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    args = options.parse_args()
    set_up(args)
    found, steps = rounds([*args.overrides, f"seed={args.seed}"], args.repeats)
    medians = {part: statistics.median(one.get(part, 0.0) for one in found) for part in (*PARTS, "other")}
    total = sum(medians[part] for part in medians if part not in APART)
    rows = [
        {
            "part": part,
            "cpu_ms": round(1e3 * medians[part], 2),
            "least": round(1e3 * min(one.get(part, 0.0) for one in found), 2),
            "most": round(1e3 * max(one.get(part, 0.0) for one in found), 2),
            "ms_per_device_step": round(1e3 * medians[part] / steps, 4),
            "share": None if part in APART else round(medians[part] / total, 4),
        }
        for part in medians
    ]
    show(
        rows,
        as_json=args.json,
        title="CPU time of a round; shares are of a round without what is listed apart",
    )
    overhead = 1 - sum(medians[part] for part in LEARNING) / total
    print(
        f'{{"overhead": {overhead:.4f}}}' if args.json else f"outside {', '.join(LEARNING)}: {overhead:.1%}"
    )


if __name__ == "__main__":
    main()
