"""A simulated run is the same training, charged as the referee scores its plans."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest

from sflam import config, sizes
from sflam.allocate.cell.shares import Shares
from sflam.allocate.referee import score
from sflam.allocate.registry import allocate
from sflam.learn.server import Trunk
from sflam.model.lower_rank import A_ENDS
from sflam.network.scenario import build
from sflam.planner.cell import measured
from sflam.records import history
from sflam.run import start as jobs
from tests.simulate.builders import SIMULATED, assert_resumes, ran, timeless

FADED = ("learn.rounds=3", "learn.evaluate_every=0")


def problem_of_round(run, record):
    """Return the problem the devices of a round faced, stated anew."""
    network = build(run.fleet.job.network, run.job.seed, record.round)
    return run.fleet.planner.problem(network, record.participants)


def test_it_is_the_same_training(small, tmp_path):
    """Floats cross the cut and everyone takes part: whatever is planned, nothing may differ by a bit."""
    exact = ("quant.scheme=identity", "learn.local_steps=0")
    plain = jobs.start(config.load(None, [*small, *exact]), tmp_path / "plain")
    list(plain.rounds())
    run = ran(small, tmp_path / "simulated", *exact)
    without = [replace(record, charge=None) for record in run.records]
    assert timeless(without) == timeless(plain.records)
    assert run.state.keys() == plain.state.keys()
    assert all((run.state[name] == plain.state[name]).all() for name in run.state)


@pytest.mark.parametrize("optimize", ['["clock"]', "[]", '["clock", "bits"]'])
@pytest.mark.parametrize("method", ["sflam", "sfl-v1", "sfl-v2"])
def test_what_is_charged_is_what_the_referee_says(small, tmp_path, optimize, method):
    more = ("plan.sensitivity=0.5", "network.downlink_mbps=40", "network.server_kappa=1e-27")
    run = ran(small, tmp_path / "run", *FADED, *more, f"plan.optimize={optimize}", f"learn.method={method}")
    for record in run.records:
        charge, problem = record.charge, problem_of_round(run, record)
        plan = allocate(problem, charge.method)
        planned = plan.devices
        at_bits = problem.change(bits=planned.bits)
        scored = score(at_bits, Shares(bandwidth=planned.bandwidth, power=planned.power, clock=planned.clock))
        assert charge.charged_s == pytest.approx(scored.latency, rel=1e-9)
        assert charge.predicted_s == pytest.approx(scored.latency, rel=1e-9)
        assert charge.charged_j == pytest.approx(scored.energy, rel=1e-9)
        radio = charge.transmit_j + charge.adapter_j
        assert radio == pytest.approx(scored.transmit_energy.sum(), rel=1e-9)
        assert charge.compute_j == pytest.approx(scored.compute_energy.sum(), rel=1e-9)
        ends = np.add(charge.finish, charge.adapter_s)
        assert charge.server_j > 0 and charge.seconds == charge.charged_s
        if method == "sfl-v2":  # adapters come down before the first step, within its wait for all
            assert max(charge.finish) < charge.seconds <= max(ends)
        else:
            assert charge.seconds == max(ends)
        of_chains = method == "sfl-v2" and "bits" in optimize  # a bound on bits that knows of no waiting
        assert charge.gap is not None and charge.gap < (0.5 if of_chains else 2e-2)
    clocks = itertools.accumulate(record.charge.seconds for record in run.records)
    assert [record.charge.clock for record in run.records] == pytest.approx(list(clocks), rel=1e-12)


@pytest.mark.parametrize("method", ["sflam", "sfl-v2", "sl"])
def test_labels_at_home_are_two_exchanges_of_everything(small, tmp_path, method):
    """The same referee: activations and a gradient up, two bodies down, and the head's numbers with the adapters."""
    more = ("network.downlink_mbps=40", "model.labels=device", f"learn.method={method}", "fleet.selected=2")
    run = ran(small, tmp_path / "run", *FADED, *more)
    plain = jobs.start(config.load(None, [*small, *FADED, *more[1:], *SIMULATED[1:]]), tmp_path / "plain")
    list(plain.rounds())
    assert all((run.state[name] == plain.state[name]).all() for name in run.state)
    server = ran(small, tmp_path / "server", *FADED, *more[:1], *more[2:])
    for record, beside in zip(run.records, server.records, strict=True):
        charge = record.charge
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        assert charge.payload_up == tuple(2 * bits for bits in beside.charge.payload_up)
        assert charge.payload_down == tuple(2 * bits for bits in beside.charge.payload_down)
        bodies = 8 * (record.adapter_bytes_up - 2 * sizes.HEADER_BYTES)
        assert 2 * run.fleet.planner.workload.adapter_bits(1) == bodies
        assert charge.seconds > beside.charge.seconds


@pytest.mark.parametrize("cache", ["off", "device"])
@pytest.mark.parametrize("labels", ["server", "device"])
def test_a_frozen_half_is_planned_as_it_is_charged(small, tmp_path, labels, cache):
    """No gradient at the cut, no backward below it, and of the adapters the head alone where it is at home."""
    more = ("network.downlink_mbps=40", f"model.labels={labels}", "fleet.selected=2", "model.cut=2")
    run = ran(small, tmp_path / "run", *FADED, *more, "learn.device_half=frozen", f"learn.cache={cache}")
    plain = ran(small, tmp_path / "plain", *FADED, *more)
    for record, beside in zip(run.records, plain.records, strict=True):
        charge, trained = record.charge, beside.charge
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        assert charge.payload_up == trained.payload_up
        assert [2 * bits for bits in charge.payload_down] == [
            0 if labels == "server" else bits for bits in trained.payload_down
        ]
        assert charge.seconds < trained.seconds and charge.compute_j < trained.compute_j
        workload = run.fleet.planner.workload
        bodies = 8 * (record.adapter_bytes_up - 2 * sizes.HEADER_BYTES * (labels == "device"))
        assert 2 * workload.adapter_bits(2) == bodies and (labels == "device") == (bodies > 0)


def test_the_activations_of_a_frozen_half_are_charged_once(small, tmp_path):
    """What a server keeps is not sent again, so over three epochs the bits up are those of one."""
    more = ("model.cut=2", "learn.device_half=frozen", "learn.rounds=3", "learn.evaluate_every=0")
    kept = ran(small, tmp_path / "kept", *more, "learn.cache=server")
    plain = ran(small, tmp_path / "plain", *more)
    ups = [sum(record.charge.payload_up) for record in kept.records]
    assert ups == [sum(plain.records[0].charge.payload_up), 0, 0]
    first, *later = (record.charge for record in kept.records)
    assert all(
        charge.transmit_j < 0.5 * first.transmit_j for charge in later
    )  # headers, labels, sample numbers
    assert kept.records[0].charge.charged_s == pytest.approx(kept.records[0].charge.predicted_s, rel=1e-9)


def test_charged_bits_are_codes_and_side_bits_and_the_plans_own(small, tmp_path):
    """Headers and labels are the rest of the bytes, and every device crosses with the bits of its plan."""
    more = ('plan.optimize=["bits"]', "plan.sensitivity=30", "network.radius_m=600", "fleet.devices=5")
    run = ran(small, tmp_path / "run", *FADED, *more)
    widths = set()
    for record in run.records:
        charge = record.charge
        widths |= set(charge.bits_up)
        bodies = record.device_steps * sizes.HEADER_BYTES
        assert sum(charge.payload_up) == 8 * (record.bytes_up - bodies - 4 * record.samples)
        assert sum(charge.payload_down) == 8 * (record.bytes_down - bodies)
        tokens = [
            bits // (32 * width + 32) for bits, width in zip(charge.payload_up, charge.bits_up, strict=True)
        ]
        assert sum(tokens) == 17 * record.samples  # every image's tokens, at its own device's width
    assert len(widths) > 1


@pytest.mark.parametrize("choose", ['["clock"]', "[]"])
def test_no_allocator_beats_the_optimal_one_in_any_round(small, tmp_path, choose):
    run = ran(small, tmp_path / "run", "learn.rounds=4", "learn.evaluate_every=0", f"plan.optimize={choose}")
    for record in run.records:
        problem = problem_of_round(run, record)
        for rival in ("bcd", "equal", "equal-bandwidth", "random"):
            assert record.charge.objective <= allocate(problem, rival).objective * (1 + 1e-9), rival


def test_virtual_time_does_not_depend_on_the_host(small, tmp_path, monkeypatch):
    fast = ran(small, tmp_path / "fast", *FADED)
    step, clock = Trunk.step, time.perf_counter

    def slow(self, *arguments):
        time.sleep(0.02)
        return step(self, *arguments)

    monkeypatch.setattr(Trunk, "step", slow)
    monkeypatch.setattr(time, "perf_counter", lambda: 7 * clock())
    late = ran(small, tmp_path / "slow", *FADED)
    assert [one.charge for one in fast.records] == [one.charge for one in late.records]
    assert late.records[0].seconds > fast.records[0].seconds


def test_every_round_has_its_own_channel(small, tmp_path):
    faded = ran(small, tmp_path / "faded", *FADED).records
    assert len({record.charge.seconds for record in faded}) == 3
    still = ran(small, tmp_path / "still", *FADED, "network.fading=none").records
    assert len({record.charge.seconds for record in still}) == 1


@pytest.mark.parametrize(("every", "planned"), [(1, [0, 1, 2]), (2, [0, 0, 2]), (0, [0, 0, 0])])
def test_a_plan_is_kept_and_charged_at_what_it_comes_to(small, tmp_path, every, planned):
    run = ran(small, tmp_path / "run", *FADED, f"plan.every={every}")
    assert [record.charge.planned for record in run.records] == planned
    for record in run.records:
        charge = record.charge
        fresh = charge.planned == record.round
        assert (charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)) == fresh


def test_a_relay_takes_turns_with_the_whole_band(small, tmp_path):
    run = ran(small, tmp_path / "run", *FADED, "learn.method=sl")
    together = ran(small, tmp_path / "together", *FADED, "learn.method=sfl-v2")
    for record, beside in zip(run.records, together.records, strict=True):
        charge = record.charge
        order = run.fleet.inner.order(record.round, (0, 1, 2))
        ends = [charge.finish[device] for device in order]
        assert ends == sorted(ends) and charge.seconds > ends[-1]
        network = build(run.fleet.job.network, 0, record.round)
        alone = [allocate(run.fleet.planner.problem(network, [device])).latency for device in order]
        assert charge.charged_s == pytest.approx(sum(alone), rel=1e-9)
        assert charge.payload_up == beside.charge.payload_up


@pytest.mark.parametrize("method", ["sflam", "sl", "fedlora"])
def test_the_phases_of_a_device_fill_its_round(small, tmp_path, method):
    more = ("network.downlink_mbps=40", f"learn.method={method}")
    for record in ran(small, tmp_path / "run", *FADED, *more).records:
        charge = record.charge
        phases = (charge.begin, charge.compute_s, charge.up_s, charge.server_s, charge.down_s)
        ends = [sum(each) for each in zip(*phases, strict=True)]
        assert ends == pytest.approx(charge.finish, rel=1e-12)
        assert max(np.add(ends, charge.adapter_s)) <= charge.seconds * (1 + 1e-12)
        assert (max(charge.begin) > 0) == (method == "sl") and min(charge.compute_s) > 0
        shares = np.array(charge.bandwidth)
        assert (max(shares) if method == "sl" else sum(shares)) == pytest.approx(20e6, rel=1e-6)
        assert min(charge.power) > 0 and min(charge.speed) > 0


def test_a_history_from_before_the_phases_is_read(small, tmp_path):
    (record, *_) = ran(small, tmp_path / "run", "learn.rounds=1").records
    values = history.record_to_dict(record)
    for name in ("begin", "compute_s", "up_s", "server_s", "down_s", "adapter_s"):
        values["charge"].pop(name)
    again = history.record_from_dict(values)
    assert again.charge.compute_s == () and again.charge.speed == record.charge.speed


def test_whole_models_that_train_every_weight_are_charged(small, tmp_path):
    settings = ("learn.method=fedavg", "model.trainable=full")
    run = ran(small, tmp_path / "run", *FADED, *settings)
    light = ran(small, tmp_path / "light", *FADED, "learn.method=fedlora")
    numbers = sum(parameter.numel() for parameter in run.assembly.model.parameters())
    for record, beside in zip(run.records, light.records, strict=True):
        charge = record.charge
        assert run.fleet.planner.workload.up_bits(8) == 32 * numbers
        assert 8 * (record.adapter_bytes_up // 3 - sizes.HEADER_BYTES) == 32 * numbers
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.seconds > beside.charge.seconds and charge.transmit_j > beside.charge.transmit_j


@pytest.mark.parametrize("aggregation", ["fedavg", "freeze-a"])
def test_whole_models_send_adapters_alone(small, tmp_path, aggregation):
    run = ran(small, tmp_path / "run", *FADED, "learn.method=fedlora", f"learn.aggregation={aggregation}")
    frozen = A_ENDS if aggregation == "freeze-a" else ()
    numbers = sum(tensor.numel() for name, tensor in run.state.items() if not name.endswith(frozen))
    work = run.fleet.planner.workload
    for record in run.records:
        charge = record.charge
        assert work.up_bits(8) == 32 * numbers == 8 * (record.adapter_bytes_up // 3 - sizes.HEADER_BYTES)
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.adapter_j == 0 and charge.transmit_j > 0 and charge.bits_up == (0, 0, 0)
    rows = np.array([len(part) for part in run.assembly.parts])
    planned = allocate(problem_of_round(run, record)).devices
    speed = planned.clock * run.fleet.network.flops_per_cycle
    step = work.device_forward[0] + work.device_backward[0]
    assert planned.compute_s == pytest.approx(rows / run.job.learn.batch * step / speed, rel=1e-9)


def test_histories_of_every_kind_are_read(small, tmp_path):
    run = ran(small, tmp_path / "run")
    assert history.read(tmp_path / "run" / "history.jsonl")[1] == run.records
    values = history.record_to_dict(run.records[0])
    values["charge"].pop("clock")
    with pytest.raises(ValueError, match="clock"):
        history.record_from_dict(values)
    assert "charge" not in history.record_to_dict(replace(run.records[0], charge=None))


@pytest.mark.parametrize(
    "settings",
    [
        ("plan.every=3", "fleet.selected=2", "fleet.policy=loss", "learn.state=keep"),
        pytest.param(("plan.budget=1e-6", "network.battery_j=1"), marks=pytest.mark.slow),
        ('plan.optimize=["bits"]', "plan.sensitivity=5", "learn.method=sflam"),
        ("learn.method=sl", "plan.every=2"),
    ],
)
def test_a_run_that_is_resumed_is_the_run_that_was_never_stopped(small, tmp_path, settings):
    common = ("learn.rounds=5", "learn.evaluate_every=0", *settings)
    assert_resumes(small, tmp_path, common, stops=(2, 4))


@pytest.mark.parametrize("method", ["sflam", "fedlora", "local", "central"])
def test_a_device_s_computing_is_that_of_its_batches(small, tmp_path, method):
    settings = (*small, *FADED, f"learn.method={method}", "learn.local_steps=0", "fleet.selected=2")
    run = jobs.start(config.load(None, settings), tmp_path / "run")
    list(run.rounds())
    found = run.finish().device_flop
    if method == "central":
        assert found is None
        return
    work, total = measured(run.job), 0.0
    one = work.device_forward[1] + work.device_backward[1]
    if method != "sflam":
        one = sum(getattr(work, name)[0] for name in ("device_forward", "server_forward"))
        one += sum(getattr(work, name)[0] for name in ("device_backward", "server_backward"))
    for record in run.records:
        total += sum(len(run.assembly.parts[device]) for device in record.participants) / 4 * one
    assert found == pytest.approx(total / 3, rel=1e-12)
