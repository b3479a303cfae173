"""Latency, energy and memory of a cell small enough for a pocket calculator, and their limits."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import sflam
from sflam.allocate.cell import optimal
from sflam.allocate.cell.problem import Problem
from sflam.cost import memory
from sflam.cost.energy import computing_j, serving_j
from sflam.cost.latency import server_turn
from sflam.cost.reference import ref_a_workload
from sflam.network.network import Network
from sflam.network.reference import ref_a
from sflam.simulate.clock import round_cost
from sflam.workload import Workload

# Two blocks; one sample of one token of width 98: 98 x 8 + 32 = 816 bit.
WORK = Workload(
    name="tiny",
    blocks=2,
    batch=1,
    tokens=1,
    hidden=98,
    device_forward=(100.0, 300.0, 500.0),
    device_backward=(0.0, 200.0, 500.0),
    server_forward=(500.0, 300.0, 100.0),
    server_backward=(900.0, 500.0, 200.0),
    adapter_values=(0, 51, 102),
    device_memory=(1e6, 2e6, 3e6),
    whole_memory=4e6,
)
# Device 0 hears server 0 at an SNR of 3 over 100 Hz: 200 bit/s. Device 1 hears server 1 at 1 over 408 Hz: 408 bit/s.
NETWORK = Network(
    gain=np.array([[3.0, 0.5], [1.0, 4.08]]),
    max_power=np.array([1.0, 1.0]),
    max_clock=np.array([100.0, 50.0]),
    flops_per_cycle=np.array([1.0, 2.0]),
    kappa=np.array([1e-6, 2e-6]),
    static_power=np.array([0.5, 0.0]),
    memory=np.array([2e6, 0.5e6]),
    energy_weight=np.ones(2),
    noise=0.01,
    bandwidth=np.array([100.0, 408.0]),
    server_clock=np.array([100.0, 1000.0]),
    server_flops_per_cycle=np.array([1.0, 1.0]),
    server_kappa=np.array([1e-6, 0.0]),
)


def test_a_server_s_turn_is_hand_arithmetic():
    assert server_turn(NETWORK, WORK, cut=1) == pytest.approx([16.0, 0.0])
    assert server_turn(NETWORK, WORK, cut=[1, 0], server=[0, 1]) == pytest.approx([8.0, 1.4])


def test_joules_are_hand_arithmetic():
    found = computing_j(np.array([500.0, 50.0]), np.array([100.0, 25.0]), NETWORK.kappa, NETWORK.static_power)
    assert found == pytest.approx([1e-6 * 100**2 * 500 + 2.5, 2e-6 * 25**2 * 50])
    assert serving_j(np.array(800.0), np.array(100.0), np.array(1e-6)) == pytest.approx(8.0)


def test_memory_says_what_fits():
    assert memory.fits(NETWORK, WORK).tolist() == [[True, True, False], [False] * 3]


def test_the_reference_cell_s_payload_and_cycles():
    network, work = ref_a(), ref_a_workload()
    flop = np.add(work.device_forward, work.device_backward)[1]
    assert flop / network.flops_per_cycle == pytest.approx(np.full(20, 16 * 5.434e9 / 512), rel=1e-3)
    assert work.up_bits(8) == pytest.approx(19.467e6, abs=500)


def test_the_referee_and_the_simulator_charge_the_same_to_the_last_bit():
    problem = Problem(network=ref_a(6), workload=ref_a_workload(), local_steps=3)
    plan = optimal.solve(problem)
    nothing = np.zeros(6)
    charged = round_cost(
        problem, plan, up=problem.payload / np.log(2), down=nothing, handed=nothing, fetched=nothing
    )
    assert np.array_equal(charged.compute_j, plan.devices.compute_j)
    assert np.array_equal(charged.compute_s, plan.devices.compute_s)
    assert charged.transmit_j == pytest.approx(plan.devices.transmit_j, rel=1e-15)


def test_energy_and_memory_of_a_device_are_written_in_one_place():
    """A formula that is written a second time is found by its terms."""
    source = Path(sflam.__file__).parent
    terms = {
        r"\+ [\w.]*static_power(\[\w+\])? / ": "cost/energy.py",
        r"asarray\([\w.]*device_memory\)": "cost/memory.py",
    }
    for term, home in terms.items():
        found = {
            path.relative_to(source).as_posix()
            for path in source.rglob("*.py")
            if re.search(term, path.read_text(encoding="utf-8"))
        }
        assert found == {home}, term
