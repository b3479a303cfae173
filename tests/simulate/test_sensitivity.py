"""chi measured: the orders of section 2.4 on a real model, the estimator against its definition, and no trace left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sflam import config
from sflam.codec.settings import QuantSettings
from sflam.cost.convergence import quantization_noise
from sflam.learn.evaluate import Score
from sflam.learn.round import train
from sflam.model.adapters import state_of
from sflam.run import start as jobs
from sflam.simulate import sensitivity
from sflam.simulate.gradients import Probe
from sflam.simulate.sensitivity import GradientNoise, Slowdown, gradient_noise, slowdown
from sflam.simulate.step_times import step_costs
from tests.learn.builders import LEARN, adapted, local_fleet, parts_of
from tests.simulate.builders import started


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    """The bundled model and data after a round of the default job."""
    run = jobs.start(
        config.load(None, ["learn.device=cpu", "learn.rounds=1", "learn.evaluate_every=0"]),
        tmp_path_factory.mktemp("bundled") / "run",
    )
    start = run.state
    list(run.rounds())
    return run.assembly.fleet, {"before training": start, "after a round": run.state}


@pytest.mark.parametrize("when", ["before training", "after a round"])
def test_noise_is_of_order_v_and_bias_of_order_v_squared(bundled, when):
    """Acceptance row 19 on the nano ViT: each within x1.5 over 3 to 6 bits; at 2 bits higher orders show, within x2.5.

    Rounding is mirrored, so that what is of first order in the error cancels in the bias instead of hiding it.
    """
    fleet, states = bundled
    devices, numbers, widths = (0, 1, 2), 4, (2, 3, 4, 5, 6)
    probe = Probe(fleet, states[when], devices, 0)
    noise, bias = np.zeros(len(widths)), np.zeros(len(widths))
    for number in range(numbers):
        drawn = probe.draw(number)
        plain = probe.gradients(drawn, number)
        for place, bits in enumerate(widths):
            shifts = []
            for draw in range(2):
                up, down = (
                    probe.gradients(drawn, number, bits, draw, mirrored=mirrored)
                    for mirrored in (False, True)
                )
                for device in devices:
                    noise[place] += float((up[device] - down[device]).double().norm() ** 2) / 4
                shifts.append([(up[d] + down[d]).double() / 2 - plain[d] for d in devices])
            # Rounded twice over, independently: the product has the bias alone.
            bias[place] += sum(float(a @ b) for a, b in zip(*shifts, strict=True))
    v = quantization_noise(np.array(widths))
    for found in (noise / v, bias / v**2):
        assert found.min() > 0
        assert found[1:].max() / found[1:].min() < 1.5, found
        assert found.max() / found.min() < 2.5, found


def test_chi_of_a_real_model_is_found_with_its_error(bundled):
    """Measured at two widths on other mini-batches, chi agrees within the errors; v alone differs 17-fold."""
    fleet, states = bundled
    devices = tuple(range(4))
    samples = [len(fleet.parts[device]) for device in devices]
    found = []
    for turn, bits in enumerate((4, 6)):
        noise = gradient_noise(fleet, states["after a round"], devices, round=turn, batches=8, bits=bits)
        found.append(slowdown([noise[device] for device in devices], samples))
        assert all(item.bias > 0 and item.plain > 0 for item in noise.values())
    first, second = found
    assert (np.abs(first.chi - second.chi) < first.half + second.half).all()
    assert 0.1 < second.chi.sum() < 100 and np.linalg.norm(second.half) < second.chi.sum()


def test_mirrored_rounding_measures_what_the_definition_says(small, tmp_path):
    """Against the variance over mini-batches and many independent roundings, which needs no mirror image."""
    run = jobs.start(config.load(None, [*small, "learn.batch=4"]), tmp_path / "run")
    fleet, device, bits, draws = run.assembly.fleet, 1, 3, 60
    found = gradient_noise(fleet, run.state, (device,), round=0, batches=6, bits=bits)[device]
    probe = Probe(fleet, run.state, (device,), 0)
    plain, rounded = [], []
    for number in range(6):
        drawn = probe.draw(number)
        plain.append(probe.gradients(drawn, number)[device].double())
        rounded.append(
            torch.stack(
                [probe.gradients(drawn, number, bits, draw)[device].double() for draw in range(draws)]
            )
        )
    assert found.plain == pytest.approx(float(torch.stack(plain).var(0).sum()), rel=1e-5)
    means = torch.stack([each.mean(0) for each in rounded])
    inside = float(sum(each.var(0).sum() for each in rounded)) / 6
    # Means over finitely many draws keep a share of the noise.
    direct = float(means.var(0).sum()) - inside / draws + inside - found.plain
    direct /= float(quantization_noise(bits))
    assert found.added == pytest.approx(direct, abs=3 * found.added_error + 0.15 * abs(direct))
    shift = (means.mean(0) - torch.stack(plain).mean(0)) / float(quantization_noise(bits))
    assert found.bias < 2 * float(shift @ shift) + 1e-9


def test_variance_and_its_error_are_the_textbook_ones():
    draw = np.random.default_rng(0)
    gradients = torch.from_numpy(draw.standard_normal((7, 5)))
    pairs = sensitivity._halved_distances(gradients)
    value, error = sensitivity._jackknife(pairs)
    assert value == pytest.approx(float(gradients.var(0).sum()), rel=1e-12)
    without = [float(gradients[[i for i in range(7) if i != j]].var(0).sum()) for j in range(7)]
    assert error == pytest.approx(np.sqrt(6 / 7 * np.sum((np.array(without) - np.mean(without)) ** 2)))


def noise(**values):
    plain = {"plain": 2.0, "plain_error": 0.1, "added": 3.0, "added_error": 0.6, "bias": 0.0, "batches": 8}
    return GradientNoise(round=0, **(plain | values))


def test_chi_is_relative_to_the_averaged_gradient():
    """By hand: rho = (1/4, 3/4), V0 = (1 + 9) 2 / 16 = 1.25, chi = rho^2 3 / 1.25."""
    found = slowdown([noise(), noise()], [10, 30])
    assert found.chi == pytest.approx([0.15, 1.35])
    one_sided = 2.364624  # Student's t, 7 degrees of freedom
    whole = np.sqrt(1 / 256 + 81 / 256) * 0.1 / 1.25
    assert found.half[1] == pytest.approx(one_sided * np.hypot(9 / 16 * 0.6 / 1.25, 1.35 * whole), rel=1e-6)
    alike = slowdown([noise()] * 10, [7] * 10)
    assert alike.chi.sum() == pytest.approx(1.5)  # however many there are
    assert slowdown([noise(plain=0.0)], [1]).half[0] == np.inf


def test_the_floor_is_where_the_bias_is_a_quarter_of_the_squared_gradient():
    """By hand: v(q) = (2^q - 1)^-2, so that a bias of 40.5 v^2 is 40.5, 0.5 and 0.01687 at 1, 2 and 3 bits."""
    biased = [noise(bias=bias, gradient=2.0) for bias in (0.4, 40.5, 41.0, -5.0)]
    assert slowdown(biased, [1] * 4).floor.tolist() == [1, 2, 3, 1]
    assert slowdown(biased, [1] * 4, 0.01).floor.tolist() == [2, 3, 3, 1]
    assert slowdown(biased, [1] * 4, 0.0).floor.tolist() == [1] * 4
    # a gradient that cannot be told from 0 counts as its error; a bias counts with its own
    dull = [
        noise(bias=40.5, gradient=-1.0, gradient_error=2.0),
        noise(bias=40.0, bias_error=1.0, gradient=2.0),
    ]
    assert slowdown(dull, [1, 1]).floor.tolist() == [2, 3]
    assert slowdown([noise(bias=1e9)], [1]).floor.tolist() == [1]  # of a run that did not measure it


def test_bias_and_gradient_are_what_mini_batches_have_in_common(small, tmp_path):
    """Against products of means over halves of the mini-batches, from the probe's own gradients."""
    run = jobs.start(config.load(None, [*small, "learn.batch=4"]), tmp_path / "run")
    fleet, devices, bits, count = run.assembly.fleet, (0, 2), 3, 5
    found = gradient_noise(fleet, run.state, devices, round=0, batches=count, bits=bits)
    probe = Probe(fleet, run.state, devices, 0)
    share = np.array([len(fleet.parts[device]) for device in devices], float)
    whole, shift = [], {device: [] for device in devices}
    for number in range(count):
        drawn = probe.draw(number)
        plain, up, down = (
            probe.gradients(drawn, number, width, mirrored=mirrored)
            for width, mirrored in ((0, False), (bits, False), (bits, True))
        )
        whole.append(
            sum(part * plain[d].double() for part, d in zip(share / share.sum(), devices, strict=True))
        )
        for d in devices:
            shift[d].append((up[d].double() + down[d].double()) / 2 - plain[d].double())
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    gradient = np.mean([float(whole[i] @ whole[j]) for i, j in pairs])
    for d in devices:
        bias = np.mean([float(shift[d][i] @ shift[d][j]) for i, j in pairs])
        assert found[d].bias == pytest.approx(bias / float(quantization_noise(bits)) ** 2, rel=1e-9)
        assert found[d].gradient == pytest.approx(gradient, rel=1e-9) and found[d].gradient_error > 0


def test_measuring_leaves_no_trace(small, tmp_path):
    """The same rounds, bit for bit, measured in between or not, with momentum and a cache that could be spoilt."""
    more = ("learn.state=keep", "learn.rounds=3", "model.cut=0", "learn.cache=device", "learn.local_steps=0")
    plain = jobs.start(config.load(None, [*small, *more]), tmp_path / "plain")
    probed = jobs.start(config.load(None, [*small, *more]), tmp_path / "probed")
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    for a, b in zip(plain.rounds(), probed.rounds(), strict=True):
        assert replace(a, seconds=0.0, evaluating_s=0.0) == replace(b, seconds=0.0, evaluating_s=0.0)
        twice = [
            gradient_noise(probed.assembly.fleet, probed.state, (0, 1, 2), round=b.round, batches=3)
            for _ in range(2)
        ]
        assert twice[0] == twice[1]
    assert all((plain.state[name] == probed.state[name]).all() for name in plain.state)
    assert (torch.random.get_rng_state() == before).all()


@pytest.mark.parametrize("canonical", [False, True])
@pytest.mark.parametrize("kind", ["vit", "bert", "gpt2-lm"])
def test_every_kind_of_model_is_measured_and_timed_without_a_trace(kind, canonical):
    """Images, padded texts and predicted tokens; other cuts, dropout, frozen A; quantized both ways."""
    learn = replace(LEARN, local_steps=2, canonical=canonical, aggregation="freeze-a", state="keep")
    ends = []
    for measured in (False, True):
        backbone, model, examples = adapted(kind, dropout=0.1)
        options = {"learn": learn, "quant": QuantSettings(bits_up=3), "cuts": (0, 1, 2)}
        fleet = local_fleet(backbone, model, examples, parts_of([5, 20, 9]), **options)
        state = state_of(model)
        for number in range(2):
            if measured:
                found = gradient_noise(fleet, state, (0, 2), round=number, batches=3)
                assert all(item.plain >= 0 and np.isfinite(item.added) for item in found.values())
                assert [cost.cut for cost in step_costs(fleet, turns=1)] == [0, 1, 2]
            [(_, state)] = train(fleet, state, lambda _: Score(0.0, 0.0), range(number, number + 1))
        ends.append(state)
    assert all((ends[0][name] == ends[1][name]).all() for name in ends[0])


@pytest.mark.slow
def test_any_chi_that_is_measured_is_planned_with(small, tmp_path, monkeypatch):
    """Also next to nothing, of a device with next to no rows, and below 0."""
    settings = (
        'plan.optimize=["clock", "bits", "bits_down"]',
        "plan.measure_every=1",
        "network.downlink_mbps=5",
    )
    run = started(small, tmp_path / "run", *settings)
    run.fleet.before(0, run.state)
    planner = run.fleet.planner
    chi = np.array([5e-21, -3.0, 1e12])
    found = Slowdown(chi=chi, half=np.abs(chi), floor=np.ones(3, np.int64), down=chi[::-1])
    monkeypatch.setattr(type(planner), "slowdown", lambda self, devices: found)
    problem = planner.problem(run.fleet.network, [0, 1, 2])
    np.testing.assert_array_equal(problem.sensitivity, [0.0, 0.0, 1e9])
    np.testing.assert_array_equal(problem.sensitivity_down, [1e9, 0.0, 0.0])
