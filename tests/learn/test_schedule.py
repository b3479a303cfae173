"""The rate of every step: by hand, against torch's own schedulers, and the same for every optimiser of a run."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sflam
from sflam import config
from sflam.errors import ConfigError, RunError
from sflam.learn.central import Central
from sflam.learn.optimizers import Side
from sflam.learn.settings import FleetSettings, LearnSettings
from sflam.learn.settings.learn import SCHEDULES
from sflam.learn.settings.schedule import Moment, rate
from sflam.learn.whole_model import WholeModel
from sflam.model.adapters import state_of
from tests.conftest import replaced
from tests.learn.builders import IDENTITY, LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.learn.plain_loop import PlainLoop

COSINE = replace(LEARN, rounds=3, schedule="cosine", decay=0.7)


def rates(settings: LearnSettings, steps: int) -> list[float]:
    return [rate(settings, Moment(r, s, steps)) for r in range(settings.rounds) for s in range(steps)]


def test_by_hand() -> None:
    four = {"lr": 8.0, "rounds": 2}
    assert rates(LearnSettings(**four), 2) == [8.0] * 4
    assert rates(LearnSettings(**four, schedule="linear"), 2) == [8.0, 6.0, 4.0, 2.0]
    assert rates(LearnSettings(**four, warmup=0.5), 2) == [4.0, 8.0, 8.0, 8.0]
    assert rates(LearnSettings(**four, schedule="linear", warmup=0.5), 2) == [4.0, 8.0, 8.0, 4.0]
    assert rates(LearnSettings(**four, decay=0.5), 2) == [8.0, 8.0, 4.0, 4.0]
    wanted = [8.0, 4 * (1 + math.sqrt(0.5)), 4.0, 4 * (1 - math.sqrt(0.5))]
    assert rates(LearnSettings(**four, schedule="cosine"), 2) == pytest.approx(wanted, rel=1e-12)
    # The first of three devices that take turns is at the place where the round begins, the last near its end.
    turns = [
        rate(LearnSettings(lr=6.0, rounds=1, schedule="linear"), Moment(0, 0, 1, turn, 3))
        for turn in range(3)
    ]
    assert turns == pytest.approx([6.0, 4.0, 2.0])


@pytest.mark.parametrize("rounds", [1, 5])
def test_without_a_warm_up_it_is_torch_s_own(rounds: int) -> None:
    steps, lr = 4, 0.3
    total = rounds * steps
    for schedule, kind, options in (
        ("cosine", torch.optim.lr_scheduler.CosineAnnealingLR, {"T_max": total}),
        ("linear", torch.optim.lr_scheduler.LinearLR,
         {"start_factor": 1.0, "end_factor": 1 / total, "total_iters": total - 1}),
    ):  # fmt: skip
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
        scheduler = kind(optimizer, **options)
        wanted = []
        for _ in range(total):
            wanted.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        found = rates(LearnSettings(lr=lr, rounds=rounds, schedule=schedule), steps)
        assert found == pytest.approx(wanted, rel=1e-9), schedule


@given(
    st.sampled_from(SCHEDULES),
    st.floats(0, 0.99),
    st.integers(1, 20),
    st.integers(1, 20),
    st.floats(0.5, 1),
)
def test_it_rises_then_falls_and_no_step_is_wasted(
    schedule: str, warmup: float, rounds: int, steps: int, decay: float
) -> None:
    settings = LearnSettings(lr=0.1, rounds=rounds, schedule=schedule, warmup=warmup, decay=decay)
    found = rates(settings, steps)
    assert all(0 < value <= 0.1 for value in found)
    flat = [value / decay ** (number // steps) for number, value in enumerate(found)]
    top = flat.index(max(flat))
    rising = itertools.pairwise(flat[: top + 1])
    assert all(before <= after * (1 + 1e-12) for before, after in rising)
    assert all(
        after <= before * (1 + 1e-12) for before, after in zip(flat[top:], flat[top + 1 :], strict=False)
    )
    if not warmup:
        assert found[0] == 0.1


@given(st.sampled_from(SCHEDULES), st.integers(1, 6), st.integers(1, 6), st.integers(2, 5), st.data())
def test_steps_at_the_same_place_in_the_run_have_the_same_rate(
    schedule: str, rounds: int, steps: int, times: int, data: st.DataObject
) -> None:
    """Central takes ``times`` as many steps in a round as each device: one curve over the run."""
    settings = LearnSettings(lr=0.1, rounds=rounds, schedule=schedule)
    number, step = data.draw(st.integers(0, rounds - 1)), data.draw(st.integers(0, steps - 1))
    few, many = Moment(number, step, steps), Moment(number, step * times, steps * times)
    assert Fraction(step, steps) == Fraction(step * times, steps * times)
    assert rate(settings, few) == pytest.approx(rate(settings, many), rel=1e-12)


@pytest.mark.parametrize("key", ["learn.warmup=1", "learn.warmup=-0.1", "learn.decay=0", "learn.decay=1.1"])
def test_what_is_no_schedule_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=key.partition("=")[0]):
        config.load(None, [key])


class ScheduledLoop(PlainLoop):
    """The plain loop with the cosine and the decay of ``COSINE`` written out for every device's own steps."""

    def step(self, k, number, step, one):
        steps = -(-len(self.parts[k]) // self.learn.batch)
        over = (number + step / steps) / 3
        for optimizer in self.optimizers[k]:
            if optimizer is not None:
                for group in optimizer.param_groups:
                    group["lr"] = 1e-2 * (1 + math.cos(math.pi * over)) / 2 * 0.7**number
        super().step(k, number, step, one)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("state", ["reset", "keep"])
def test_every_device_and_its_server_copy_follow_it_whatever_steps_they_take(
    optimizer: str, state: str
) -> None:
    """Devices of 3, 1 and 2 steps a round, each at its own place in the run, against three plain loops."""
    backbone, model, examples = adapted("vit")
    learn = replace(COSINE, optimizer=optimizer, momentum=0.9, state=state)
    parts, cuts = parts_of([11, 3, 8]), [1, 0, 3]
    settings = FleetSettings(devices=3)
    options = {"cuts": cuts, "settings": settings, "learn": learn, "quant": IDENTITY, "seed": 3}
    oracle = ScheduledLoop(backbone, model, examples, parts, **options)
    fleet = local_fleet(backbone, model, examples, parts, cuts=cuts, learn=learn)
    _, state_now = run(fleet, state_of(model), 3)
    for number in range(3):
        oracle.round(number)
    assert_equal_states(state_now, oracle.state)
    constant = local_fleet(
        backbone, model, examples, parts, cuts=cuts, learn=replace(learn, schedule="constant")
    )
    assert largest(state_now, run(constant, state_of(model), 3)[1]) > 1e-4, "the schedule changes something"


def largest(a, b) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_a_common_number_of_steps_needs_one_rate_for_all_and_is_the_same() -> None:
    backbone, model, examples = adapted("vit")
    learn = replace(COSINE, local_steps=2, state="keep")
    fleet = local_fleet(backbone, model, examples, parts_of([8, 9]), learn=learn)
    assert len(fleet.devices.optimizer.param_groups) == 1
    own = local_fleet(backbone, model, examples, parts_of([8, 8]), learn=replace(learn, local_steps=0))
    assert len(own.devices.optimizer.param_groups) == 2
    both = local_fleet(backbone, model, examples, parts_of([8, 8]), learn=learn)
    assert largest(run(own, state_of(model), 3)[1], run(both, state_of(model), 3)[1]) == 0


def test_one_device_is_central_under_a_schedule() -> None:
    """The same curve on both sides of a cut and on the uncut model."""
    backbone, model, examples = adapted("vit")
    learn = replace(COSINE, clip=0.0, warmup=0.2, state="keep")
    (part,) = parts_of([22])
    central = Central(
        model,
        examples,
        [part],
        settings=FleetSettings(devices=1),
        learn=replace(learn, method="central"),
        seed=3,
    )
    split = local_fleet(backbone, model, examples, [part], learn=learn)
    start = state_of(model)
    paced = []
    central_batches = [rate(learn, Moment(r, s, 6)) for r in range(3) for s in range(6)]
    step = WholeModel.step

    def seen(self, batch, seed):
        paced.append(self.optimizer.param_groups[0]["lr"])
        return step(self, batch, seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WholeModel, "step", seen)
        run(central, start, 3)
    assert paced == central_batches
    found = []
    update = Side.update

    def updated(self):
        found.append((type(self).__name__, self.optimizer.param_groups[0]["lr"]))
        update(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Side, "update", updated)
        run(split, start, 3)
    for side in ("Devices", "Trunk"):
        assert [value for name, value in found if name == side] == central_batches, side


def test_turns_of_a_relay_follow_one_another_in_the_run() -> None:
    backbone, model, examples = adapted("vit")
    learn = replace(LEARN, method="sl", rounds=2, schedule="linear")
    fleet = local_fleet(backbone, model, examples, parts_of([8, 8, 8]), learn=learn)
    found, update = [], Side.update

    def updated(self):
        if self is fleet.servers.trunks[0]:
            found.append(self.optimizer.param_groups[0]["lr"])
        update(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Side, "update", updated)
        run(fleet, state_of(model), 2)
    assert found == pytest.approx([LEARN.lr * (1 - n / 12) for n in range(12)])


@pytest.mark.parametrize("method", ["sflam", "sl", "fedlora", "central"])
def test_resuming_needs_no_state_of_the_schedule(small: tuple[str, ...], tmp_path, method: str) -> None:
    keys = (
        "learn.rounds=3",
        "learn.schedule=cosine",
        "learn.warmup=0.2",
        "learn.decay=0.9",
        "learn.local_steps=0",
    )
    job = config.load(
        None, [*small, *keys, f"learn.method={method}", "learn.canonical=true", "learn.state=keep"]
    )
    straight = sflam.start(job, tmp_path / "straight")
    for _ in straight.rounds():
        pass
    begun = sflam.start(job, tmp_path / "run")
    rounds = begun.rounds()
    next(rounds)
    rounds.close()
    resumed = sflam.resume(tmp_path / "run")
    for _ in resumed.rounds():
        pass
    assert all(torch.equal(straight.state[name], tensor) for name, tensor in resumed.state.items())


def test_a_schedule_is_followed_for_the_rounds_it_was_made_for(small: tuple[str, ...], tmp_path) -> None:
    for number, keys in enumerate((("learn.schedule=linear",), ("learn.warmup=0.1",), ("learn.decay=0.9",))):
        folder = tmp_path / str(number)
        next(sflam.start(config.load(None, [*small, *keys]), folder).rounds())
        replaced("config.toml", "rounds = 2", "rounds = 3")(folder)
        if keys[0].startswith("learn.decay"):
            assert len(list(sflam.resume(folder).rounds())) == 2
            continue
        with pytest.raises(RunError, match=r"was changed since the run began with learn\.rounds = 2"):
            sflam.resume(folder)


def test_it_loads_no_torch() -> None:
    code = "import sys, sflam.learn.settings.schedule; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_shared_copy_goes_by_the_device_with_most_steps() -> None:
    backbone, model, examples = adapted("vit")
    learn = replace(LEARN, method="sfl-v2", rounds=1, schedule="linear")
    fleet = local_fleet(backbone, model, examples, parts_of([4, 16]), learn=learn)
    moments = {0: Moment(0, 0, 1), 1: Moment(0, 1, 4)}
    fleet.servers.pace(moments)
    assert fleet.servers.trunks[0].optimizer.param_groups[0]["lr"] == pytest.approx(LEARN.lr * 0.75)
    fleet.devices.pace(moments)
    assert np.allclose([g["lr"] for g in fleet.devices.optimizer.param_groups], [LEARN.lr, LEARN.lr * 0.75])


def test_halves_that_are_averaged_in_every_step_stay_one() -> None:
    """Devices of 1, 4 and 2 steps a round have one rate, or their halves would drift apart."""
    backbone, model, examples = adapted("vit")
    learn = replace(LEARN, method="sfl-v2", device_half="averaged", schedule="cosine", state="keep")
    fleet = local_fleet(backbone, model, examples, parts_of([4, 16, 8]), learn=learn)
    assert len(fleet.devices.optimizer.param_groups) == 1
    run(fleet, state_of(model), 1)
    rows = fleet.devices.segment.stack.values
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[1], rows[2])
