"""Simulated runs among several servers, and with cuts that plans choose: the same training, charged by the referee."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from sflam import config, sizes
from sflam.allocate.edge.shares import EdgeShares
from sflam.allocate.referee import score
from sflam.allocate.registry import EDGE_METHODS, allocate, stay
from sflam.codec.settings import QuantSettings
from sflam.model.adapters import state_of
from sflam.network.channel import rate
from sflam.network.scenario import build
from sflam.plan import ALL_LOCAL, Status
from sflam.planner import edge as planning_edge
from sflam.planner.cell import best_cut, measured, problem_of
from sflam.run import start as jobs
from sflam.simulate.work import batches_of, work_of
from tests.conftest import assert_refused, sets
from tests.learn.builders import adapted, local_fleet, parts_of
from tests.simulate.builders import SIMULATED, SQUARE, assert_resumes, ran, timeless

MIXED = (*SQUARE, "learn.rounds=3", "learn.evaluate_every=0", 'plan.counts="activations"')
"""As published: activations count in plans and charges, and adapters move after."""
PLACED = ("fleet.cuts=[1,1,2,1,1]", "fleet.servers=[0,1,-1,1,0]")


def stated(run, record, network=None):
    """Return problem B as the users of a round faced it, stated without the planner's own code."""
    job, users = run.fleet.job, list(record.participants)
    work = work_of(job, run.assembly.splits.train, 1)
    network = network or build(job.network, job.seed, record.round)
    steps = batches_of(job, run.assembly.parts)[users]
    return planning_edge.problem_of(job, work, network=network.only(users), steps=steps)


@pytest.mark.parametrize("placed", [PLACED, ("fleet.plan=computed",)], ids=["given", "computed"])
def test_it_is_the_same_training(small, tmp_path, placed):
    """Who is where stays, so whatever bands and clocks are shared out, nothing may differ by a bit."""
    plain = jobs.start(config.load(None, [*small, *MIXED, *placed, *SIMULATED[1:]]), tmp_path / "plain")
    list(plain.rounds())
    run = ran(small, tmp_path / "simulated", *MIXED, *placed)
    assert timeless([replace(one, charge=None) for one in run.records]) == timeless(plain.records)
    assert all(torch.equal(run.state[name], plain.state[name]) for name in plain.state)


@pytest.mark.parametrize("method", ["dual", "equal", "card", "nearest", "all-local"])
@pytest.mark.parametrize("placed", [PLACED, ()], ids=["stays", "moves"])
def test_what_is_charged_is_what_the_referee_says(small, tmp_path, method, placed):
    run = ran(small, tmp_path / "run", *MIXED, *placed, f"plan.method={method}")
    for record in run.records:
        charge, problem = record.charge, stated(run, record)
        server, cut = np.array(charge.servers), np.array(charge.cuts)
        plan = stay(problem, method, server, cut) if placed else allocate(problem, method)
        planned = plan.devices
        assert charge.method == method and (planned.server == server).all() and (planned.cut == cut).all()
        scored = score(problem, EdgeShares.from_plan(planned))
        assert not scored.violations
        ends = scored.compute + scored.transmit + scored.serve
        assert charge.finish == pytest.approx(ends, rel=1e-9)
        assert charge.charged_s == pytest.approx(ends.max(), rel=1e-9)
        assert charge.predicted_s == pytest.approx(charge.charged_s, rel=1e-9)
        assert charge.predicted_j == pytest.approx(charge.charged_j, rel=1e-9)
        assert charge.compute_j == pytest.approx(scored.compute_energy.sum(), rel=1e-9)
        assert charge.transmit_j == pytest.approx(scored.transmit_energy.sum(), rel=1e-9, abs=1e-30)
        assert charge.server_j == pytest.approx(scored.server_energy.sum(), rel=1e-9, abs=1e-30)
        assert charge.objective == pytest.approx(scored.objective, rel=1e-9)
        for device, where in zip(record.participants, charge.servers, strict=True):
            place = record.participants.index(device)
            alone = where == ALL_LOCAL
            assert (charge.bits_up[place] == charge.payload_up[place] == charge.server_s[place] == 0) == alone


def test_adapters_share_each_server_s_band_equally_and_a_lone_device_reports_to_the_best(small, tmp_path):
    run = ran(small, tmp_path / "run", *MIXED, *PLACED, "learn.rounds=1")
    (record,) = run.records
    charge, network = record.charge, build(run.fleet.job.network, run.job.seed, 0)
    work, trained = run.fleet.planner.workload, sum(tensor.numel() for tensor in run.state.values())
    homes = [0, 1, int(network.gain[:, 2].argmax()), 1, 0]
    for user, home in enumerate(homes):
        bits = 32 * trained if user == 2 else work.adapter_bits(1)
        band, power = network.bandwidth[home] / homes.count(home), network.max_power[user]
        seconds = bits / rate(band, power, network.gain[home, user], network.noise)
        assert charge.adapter_s[user] == pytest.approx(seconds, rel=1e-12)
    assert charge.seconds == pytest.approx(charge.charged_s + max(charge.adapter_s), rel=1e-12)
    spent = network.max_power * charge.adapter_s
    assert charge.adapter_j == pytest.approx(spent.sum(), rel=1e-12)


@pytest.mark.slow
def test_no_method_beats_dual_in_any_round_for_any_placement(small, tmp_path):
    moving = ran(small, tmp_path / "moves", *MIXED)
    staying = ran(small, tmp_path / "stays", *MIXED, *PLACED)
    for one, other in list(zip(moving.records, staying.records, strict=True))[::2]:
        problem = stated(moving, one)
        for name in set(EDGE_METHODS) - {"slsqp"}:
            assert one.charge.objective <= allocate(problem, name).objective * (1 + 1e-9), name
        assert one.charge.objective <= other.charge.objective * (1 + 1e-9)
        server, cut = np.array(other.charge.servers), np.array(other.charge.cuts)
        for name in ("equal", "card"):
            assert other.charge.objective <= stay(problem, name, server, cut).objective * (1 + 1e-9)
        assert one.charge.gap is not None and other.charge.gap is None  # no bound of all where some is given


def test_every_device_goes_where_the_channel_is_good(small, tmp_path):
    """Fading alone differs between the rounds, and what is trained where follows it."""
    run = ran(small, tmp_path / "run", *MIXED, "learn.rounds=4")
    assert len({(record.charge.servers, record.charge.cuts) for record in run.records}) > 1
    fleet = run.fleet.inner
    last = run.records[-1].charge
    assert fleet.servers.server_of == last.servers
    assert fleet.devices.cuts == tuple(
        0 if server == ALL_LOCAL else cut for server, cut in zip(last.servers, last.cuts, strict=True)
    )


@pytest.mark.parametrize("quant", [QuantSettings(scheme="identity"), QuantSettings(bits_up=4, bits_down=4)])
def test_a_fleet_that_is_placed_is_one_built_there(quant):
    """Bit for bit, from whatever placement it comes."""
    torch.set_num_threads(1)
    sizes, first, then = [9, 4, 6], ((1, 1, 1), (0, 0, 0)), ((2, 3, 1), (1, ALL_LOCAL, 0))

    def built(cuts, servers):
        backbone, model, examples = adapted("vit")
        fleet = local_fleet(
            backbone, model, examples, parts_of(sizes), cuts=cuts, servers=servers, quant=quant
        )
        return fleet, state_of(model)

    def one_round(fleet, state, number):
        sent = fleet.download(number, (0, 1, 2), state)
        steps = fleet.local_steps(number, (0, 1, 2))
        return fleet.average(number, (0, 1, 2), steps).state, (sent, steps.bytes_up, steps.losses)

    moved, state = built(*first)
    after, _ = one_round(moved, state, 0)
    moved.place(built(*then)[0].placements)
    found, moved_result = one_round(moved, after, 1)
    fresh, _ = built(*then)
    wanted, fresh_result = one_round(fresh, after, 1)
    assert moved_result == fresh_result
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("every", [1, 2, 0])
def test_a_run_that_is_resumed_is_the_run_that_was_never_stopped(small, tmp_path, every):
    common = (*MIXED, "learn.rounds=4", f"plan.every={every}", "fleet.selected=4")
    assert_resumes(small, tmp_path, common, stops=(1, 3))


def test_a_plan_that_is_older_is_charged_at_what_it_comes_to(small, tmp_path):
    run = ran(small, tmp_path / "run", *MIXED, "plan.every=2")
    assert [record.charge.planned for record in run.records] == [0, 0, 2]
    fresh = [
        record.charge.charged_s == pytest.approx(record.charge.predicted_s, rel=1e-9)
        for record in run.records
    ]
    assert fresh == [True, False, True]
    assert run.records[0].charge.cuts == run.records[1].charge.cuts


def test_the_result_tells_the_memory_and_the_work_of_where_devices_were(small, tmp_path):
    run = ran(small, tmp_path / "run", *MIXED, "plan.method=all-local")
    still = jobs.start(
        config.load(None, [*small, *MIXED, "fleet.servers=[-1,-1,-1,-1,-1]"]), tmp_path / "still"
    )
    assert (
        run.assembly.fit.device.total < still.assembly.fit.device.total
    )  # before the first plan: at model.cut
    found = run.finish()
    assert found.device_memory == still.assembly.fit.device.total
    work, batches = work_of(run.job, run.assembly.splits.train, 1), batches_of(run.job, run.assembly.parts)
    whole = (
        work.device_forward[0] + work.device_backward[0] + work.server_forward[0] + work.server_backward[0]
    )
    assert found.device_flop == pytest.approx(len(run.records) * batches.mean() * whole, rel=1e-12)


@pytest.mark.parametrize("method", ["optimal", "equal"])
def test_one_server_s_plans_may_choose_the_cut(small, tmp_path, method):
    more = ('plan.optimize=["clock", "cut"]', f"plan.method={method}", "network.downlink_mbps=40")
    rounds = (
        "learn.rounds=3",
        "learn.evaluate_every=0",
        "network.server_kappa=1e-27",
        "plan.latency_weight=0.9",
    )
    run = ran(
        small, tmp_path / "run", *rounds, *more, "network.radius_m=900", "network.server_clock_ghz=0.001"
    )
    for record in run.records:
        charge, network = record.charge, build(run.fleet.job.network, run.job.seed, record.round)
        job = run.fleet.job
        batches, work = batches_of(job, run.assembly.parts), work_of(job, run.assembly.splits.train, 1)

        def at(cut, problem=None, network=network, job=job, batches=batches, work=work):
            return problem_of(job, network=network, workload=work, cut=cut, steps=batches)

        plans = {cut: allocate(at(cut), method) for cut in range(work.blocks)}
        best = min(plans, key=lambda cut: plans[cut].objective)
        assert charge.method == "cut"
        if method == "optimal":  # every device has a cut of its own
            assert charge.objective <= plans[best].objective * (1 + 1e-9)
            own = allocate(at(np.array(charge.cuts)), method)
            assert charge.objective == pytest.approx(own.objective, rel=1e-9)
        else:
            assert set(charge.cuts) == {best}
            assert charge.objective == pytest.approx(plans[best].objective, rel=1e-9)
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
    assert run.fleet.inner.devices.cuts == run.records[-1].charge.cuts


def test_memory_is_that_of_plans_and_not_of_who_never_took_part(small, tmp_path):
    """A device that is not drawn starts at a deep cut and at server 0, where no plan ever put it."""
    deep = ('plan.optimize=["cut"]', "model.cut=2", "learn.rounds=2")
    found = {
        selected: ran(small, tmp_path / f"cell-{selected}", *deep, f"fleet.selected={selected}").finish()
        for selected in (0, 1)
    }
    assert found[1].device_memory == found[0].device_memory
    assert found[1].device_parameters == found[0].device_parameters
    alone = ran(small, tmp_path / "alone", *MIXED, "plan.method=all-local", "fleet.selected=1").finish()
    every = ran(small, tmp_path / "every", *MIXED, "plan.method=all-local").finish()
    assert alone.server_memory == every.server_memory == 0
    assert alone.device_memory == every.device_memory
    whole = sum(
        one.numel()
        for one in ran(small, tmp_path / "one", "learn.method=fedlora").assembly.model.parameters()
    )
    assert every.device_parameters == pytest.approx(whole, rel=0.02)  # peft keeps a frozen copy of the head


def test_with_one_server_too_it_is_reported_who_trains_alone(small, tmp_path):
    run = ran(small, tmp_path / "run", *MIXED, "network.servers=1", "plan.method=all-local")
    assert all(record.charge.servers == (ALL_LOCAL,) * 5 for record in run.records)
    other = ran(small, tmp_path / "other", *MIXED, "plan.method=all-local")
    one, two = run.finish(), other.finish()
    assert (one.server_memory, one.device_memory, one.device_flop) == (0, two.device_memory, two.device_flop)


@pytest.mark.parametrize("servers", ["[0,1,-1,1,0]", "[-1,-1,-1,-1,-1]"])
def test_an_a_that_stays_is_not_sent(small, tmp_path, servers):
    settings = (*MIXED, "fleet.cuts=[1,1,3,1,1]", f"fleet.servers={servers}", "learn.aggregation=freeze-a")
    run = ran(small, tmp_path / "run", *settings, "learn.rounds=1")
    (record,) = run.records
    charge, network = record.charge, build(run.fleet.job.network, run.job.seed, 0)
    homes = [int(network.gain[:, k].argmax()) if s == ALL_LOCAL else s for k, s in enumerate(charge.servers)]
    bits = 0.0
    for user, home in enumerate(homes):
        band = network.bandwidth[home] / homes.count(home)
        bits += charge.adapter_s[user] * rate(
            band, network.max_power[user], network.gain[home, user], network.noise
        )
    bodies = record.adapter_bytes_up - 5 * sizes.HEADER_BYTES
    assert bits == pytest.approx(8 * bodies, rel=1e-9)


def test_users_that_train_alone_are_sent_corrections_too(small, tmp_path):
    common = (*MIXED, "learn.aggregation=residual", "learn.rounds=1")
    alone, away = (
        ran(small, tmp_path / name, *common, f"plan.method={name}").records[0]
        for name in ("all-local", "all-edge")
    )
    assert alone.residual_bytes > away.residual_bytes > 0  # every block, against the first


def test_who_is_dropped_does_not_depend_on_cuts_that_plans_replace(tmp_path):
    """A deadline at which the server's turn, at the cuts in force, decides who is one too many."""
    settings = (
        'plan.optimize=["clock", "cut"]', "plan.late=drop", "plan.deadline=0.01467", "network.radius_m=75",
        "network.server_clock_ghz=0.00421", "network.bandwidth_mhz=10.2", "network.simulate=true", "seed=92",
        "fleet.devices=4", "data.alpha=100", "learn.local_steps=3", "learn.rounds=1", "learn.device=cpu",
        "plan.counts=activations",  # what the deadline is tuned to
    )  # fmt: skip
    turns = []
    for cut in (0, 5):
        run = jobs.start(config.load(None, [*settings, f"model.cut={cut}"]), tmp_path / f"{cut}")
        network = build(run.fleet.job.network, run.job.seed, 0)
        turn, dropped = run.fleet.planner.ask(0, network, range(4))
        turns.append((dropped, turn.devices, turn.plan.devices.cut.tolist(), turn.plan.objective))
    assert turns[0] == turns[1] and len(turns[0][0]) == 2


def test_a_method_without_deadlines_takes_a_cut_that_holds_them(small, tmp_path):
    """The smallest objective may be that of a plan that is late."""
    common = (
        "learn.rounds=1",
        'plan.optimize=["clock", "cut"]',
        "plan.method=equal",
        "plan.latency_weight=0.001",
    )
    common += ("network.server_clock_ghz=0.0005", "plan.counts=activations")
    job = config.load(None, [*small, *common, "network.simulate=true"])
    network, cuts = build(replace(job.network, devices=3), job.seed, 0), range(3)
    work = measured(job)
    late = [
        allocate(problem_of(job, network=network, workload=work, cut=cut), "equal").latency for cut in cuts
    ]
    worth = [
        allocate(problem_of(job, network=network, workload=work, cut=cut), "equal").objective for cut in cuts
    ]
    assert np.argmin(late) != np.argmin(worth)
    deadline = min(late) * 1.01
    plan = best_cut(
        replace(job, plan=replace(job.plan, deadline=deadline)),
        problem_of(job, network=network, workload=work, server=False).change(deadline=deadline),
        "equal",
    )
    assert plan.status is not Status.INFEASIBLE and plan.latency <= deadline
    assert set(plan.devices.cut.tolist()) == {int(np.argmin(late))}


def test_what_no_plan_can_have_is_refused_before_there_is_a_folder(cli, small, tmp_path):
    for settings, message in (
        ("plan.deadline=3", "plan.deadline = 3.0"),
        ("plan.split_least=9", "splits 9 to 3"),
        ("plan.late=drop", 'plan.late = "drop"'),
        ("fleet.servers=[0,0,0,0,9]", "is at server 9"),
    ):
        refused = cli("simulate", *sets(*small, *MIXED, settings), "--out", tmp_path / "run")
        assert_refused(refused, message)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("pattern", "damaged"),
    [
        (r'"cuts": \[[^]]*\]', '"cuts": [99, 1, 1, 1, 1]'),
        (r'"cuts": \[[^]]*\]', '"cuts": [1, 1]'),
        (r'"servers": \[[^]]*\]', '"servers": [0, 1]'),
        (r'"servers": \[[^]]*\]', '"servers": [-2, 0, 0, 0, 0]'),
    ],
)
def test_a_damaged_charge_is_one_line(cli, small, tmp_path, pattern, damaged):
    ran(small, tmp_path / "run", *MIXED)
    path = tmp_path / "run" / "history.jsonl"
    header, *records = path.read_text().splitlines(keepends=True)
    path.write_text(header + re.sub(pattern, damaged, "".join(records)))
    assert_refused(cli("train", "--resume", tmp_path / "run"), "history.jsonl is damaged: in round 1 charge")
