"""Many devices in one server step against one device after the other: ``python benchmarks/trunk.py [--json]``.

A device-step is one mini-batch of one device through the server: forward, backward, optimiser. Per model, batch
and number of devices K:

    batched   one ``Trunk.step`` with the K frames: per-device adapters, stacked (SFL-V1)
    apart     K trunks of one copy each, one after the other: what a server without stacking would do
    looped    the trunk of ``batched``, called once per device
    shared    SFL-V2, one copy for all, one step on the summed gradients (``batched``) or K steps (``sequential``)

``--passes`` shows a step whose rows go through in one pass, in passes by the rule of shapes, and in the fastest found.

A fourth table leaves most devices idle: 10 frames a step in fleets of 10, 100 and 1000. Models keep one block on
the device and have rank-8 adapters on every linear layer. ``--models vit-b16 --device cuda --dtype bfloat16`` runs
the large one on a GPU.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from common import CLASSES, SHAPES, in_turns, key_of, parser, ratio, set_up, show

from sflam.cost.memory import rows_of_pass
from sflam.learn.chunks import PassBudget
from sflam.learn.fit import built_step
from sflam.learn.frames import Frame
from sflam.learn.pass_search import fastest_pass
from sflam.learn.server import Trunk
from sflam.learn.settings import LearnSettings
from sflam.model.adapters import attach
from sflam.model.backbone import Backbone
from sflam.model.settings import ModelSettings
from sflam.model.split import ServerSegment

CUT = 1
PASS_TABLE = {"nano-vit": (32, 16), "minilm": (32, 4), "vit-b16": (3, 8), "vit-b16/3": (8, 8)}
"""Model -> devices and rows of a device, of the table of passes."""
BATCHES = {"nano-vit": (1, 4, 16), "minilm": (1, 4), "vit-b16": (1, 4), "vit-b16/3": (1, 4)}
ACTIVE = 10  # devices that take part, in the table of idle ones


def frames_of(
    devices: Sequence[int], rows: int, tokens: int, width: int, device: torch.device
) -> list[Frame]:
    """Return one random frame per device."""
    draw = torch.Generator().manual_seed(rows)
    found = []
    for each in devices:
        hidden = torch.randn(rows, tokens, width, generator=draw).to(device)
        labels = torch.randint(0, CLASSES, (rows,), generator=draw).to(device)
        found.append(Frame(each, CUT, hidden, None, labels))
    return found


def trunk(backbone: Backbone, copies: int, *, shared: bool = False, update: str = "batched") -> Trunk:
    """Return a server with ``copies`` copies; a low rate, so that no loss reaches zero while it is timed."""
    settings = LearnSettings(lr=1e-5, server_update=update)
    return Trunk(
        ServerSegment(backbone, CUT, 1 if shared else copies), backbone.task, settings, shared=shared
    )


def one_by_one(trunks: Sequence[Trunk], frames: Sequence[Frame]) -> Callable[[], None]:
    """Return a run that gives each frame to its trunk, as its only one."""
    alone = [Frame(0, f.cut, f.hidden, f.lengths, f.labels) for f in frames]

    def run() -> None:
        for one, frame in zip(trunks, alone, strict=True):
            one.step([frame], 0)

    return run


def looped(one: Trunk, frames: Sequence[Frame]) -> Callable[[], None]:
    """Return a run that gives the frames to one trunk, one a call."""

    def run() -> None:
        for frame in frames:
            one.step([frame], 0)

    return run


def stepping(one: Trunk, frames: Sequence[Frame]) -> Callable[[], Any]:
    """Return a run that gives all frames to one trunk at once."""
    return lambda: one.step(frames, 0)


def measure(
    args: Namespace, name: str, rows: int, count: int, runs: dict[str, Callable[[], Any]]
) -> list[dict[str, Any]]:
    """Return one record per run of ``count`` device-steps; ``ratio`` is its time over that of the first run."""
    times = in_turns(runs, repeats=args.repeats, seconds=args.seconds, device=args.device)
    first = next(iter(times.values()))
    found = []
    for variant, timing in times.items():
        one = timing.record(args.device, count)
        labels = {"model": name, "batch": rows, "devices": count, "run": variant}
        rates = {"steps_per_s": round(1e3 / one["wall_ms"], 2), "ratio": ratio(timing, first, args.device)}
        found.append(labels | one | rates)
    return found


def table(args: Namespace, records: list[dict[str, Any]], title: str) -> None:
    """Print the records: all of each as JSON, or a line per setting."""
    if args.json:
        return show(records, as_json=True)
    key, lines = key_of(args.device), []
    for setting, group in groupby(
        records, key=lambda one: {k: one[k] for k in ("model", "batch", "devices")}
    ):
        first, *others = group
        line = setting | {f"{one['run']} ms": one[key] for one in (first, *others)}
        line |= {f"{one['run']} / {first['run']}": one["ratio"] for one in others}
        lines.append(line | {"steps/s": first["steps_per_s"]})
    show(lines, as_json=False, title=f"{title}: {key.partition('_')[0]} ms per device-step")


def compare(args: Namespace, name: str, backbone: Backbone) -> None:
    """Print the tables of one model."""
    shape, own, shared, idle = SHAPES[name], [], [], []
    for rows in args.batches or BATCHES[name]:

        def frames(devices: Sequence[int], rows: int = rows) -> list[Frame]:
            return frames_of(devices, rows, shape.tokens, shape.width, args.device)

        for count in args.devices:
            all_of_them, stacked = frames(range(count)), trunk(backbone, count)
            runs = {
                "batched": stepping(stacked, all_of_them),
                "apart": one_by_one([trunk(backbone, 1) for _ in range(count)], all_of_them),
                "looped": looped(stacked, all_of_them),
            }
            own += measure(args, name, rows, count, runs)
        runs = {
            update: stepping(trunk(backbone, 1, shared=True, update=update), frames(range(args.shared)))
            for update in ("batched", "sequential")
        }
        shared += measure(args, name, rows, args.shared, runs)
        runs = {
            f"{n} devices": stepping(trunk(backbone, n), frames(range(0, n, n // ACTIVE)))
            for n in args.fleets
        }
        idle += measure(args, name, rows, ACTIVE, runs) if runs else []
    if own:
        table(args, own, f"{name}, one server copy per device")
    table(args, shared, f"{name}, one server copy for all")
    if idle:
        table(args, idle, f"{name}, {ACTIVE} devices of a larger fleet take part")


def compare_passes(args: Namespace, name: str, backbone: Backbone) -> None:
    """Print a step whose rows go through in one pass, in passes by rule, in the fastest found, and device by device."""
    shape, (devices, rows) = SHAPES[name], PASS_TABLE[name]
    frames = frames_of(range(devices), rows, shape.tokens, shape.width, args.device)
    rule = built_step(backbone, shape.tokens, LearnSettings(batch=rows))
    found = fastest_pass(trunk(backbone, devices), rule, frames)
    looping = trunk(backbone, devices)
    runs: dict[str, Callable[[], Any]] = {"looped": looped(looping, frames)}
    budgets = {
        "one pass": None,
        f"by rule, {min(rows_of_pass(rule, CUT), devices * rows)} rows": PassBudget(rule),
        f"measured, {found.rows} rows": PassBudget(
            replace(rule, training=replace(rule.training, memory_gb=found.memory_gb))
        ),
    }
    for label, budget in budgets.items():
        one = trunk(backbone, devices)
        one.budget = budget
        runs[label] = stepping(one, frames)
    if not args.json:
        print(found.note())
    table(args, measure(args, name, rows, devices, runs), f"{name}, passes of a step")


def main() -> None:
    options = parser(__doc__, repeats=5)
    options.add_argument("--models", nargs="+", choices=PASS_TABLE, default=["nano-vit", "minilm"])
    options.add_argument("--devices", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32, 64])
    options.add_argument(
        "--batches", type=int, nargs="+", help="rows of a device's mini-batch; per model by default"
    )
    options.add_argument("--shared", type=int, default=16, help="devices of the SFL-V2 rows")
    options.add_argument(
        "--fleets", type=int, nargs="*", default=[10, 100, 1000], help="fleets with idle devices"
    )
    options.add_argument(
        "--passes", action="store_true", help="only the table of passes, learn.passes = rule and measured"
    )
    options.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    options.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    args = options.parse_args()
    set_up(args)
    for name in args.models:
        backbone = SHAPES[name].backbone(dtype=args.dtype, device=args.device, seed=args.seed)
        attach(backbone, ModelSettings(), seed=args.seed)
        (compare_passes if args.passes else compare)(args, name, backbone)


if __name__ == "__main__":
    main()
