"""Latency, energy and memory of a cell small enough for a pocket calculator, and their limits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.cost import memory
from sflam.cost.energy import energy
from sflam.cost.latency import Stages, barrier, chain, pipelined, server_turn, stages
from sflam.cost.reference import ref_a_workload
from sflam.network.network import Network
from sflam.network.reference import ref_a
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
POWERS = {"power": [1.0, 1.0], "clock": [100.0, 25.0], "server": [0, 1]}
CHOICES = {"cut": [1, 0], **POWERS}
STAGES = ("forward", "up", "server", "down", "backward", "aggregation")
TIMES = stages(NETWORK, WORK, bits=8, bandwidth=[100.0, 408.0], down_rate=1632.0, **CHOICES)


def test_stages_are_hand_arithmetic():
    assert TIMES.forward == pytest.approx([3.0, 2.0])
    assert TIMES.up == pytest.approx([816 / 200, 816 / 408])
    assert TIMES.server == pytest.approx([8.0, 1.4])
    assert TIMES.down == pytest.approx([0.5, 0.0])
    assert TIMES.backward == pytest.approx([2.0, 0.0])
    assert TIMES.aggregation == pytest.approx([1632 / 200 + 1.0, 0.0])
    assert TIMES.compute == pytest.approx([5.0, 2.0]) and TIMES.step == pytest.approx([17.58, 5.4])


def test_rounds_are_hand_arithmetic():
    assert chain(TIMES, steps=2) == pytest.approx(2 * 17.58 + 9.16)
    assert barrier(TIMES, 8.0, steps=2) == pytest.approx(2 * (7.08 + 8.0 + 2.5) + 9.16)
    assert pipelined(TIMES, micro_batches=4) == pytest.approx(17.58 / 4 + 0.75 * 8.0 + 9.16)
    assert server_turn(NETWORK, WORK, cut=1) == pytest.approx([16.0, 0.0])
    assert server_turn(NETWORK, WORK, cut=[1, 0], server=[0, 1]) == pytest.approx([8.0, 1.4])


def test_energy_is_hand_arithmetic():
    found = energy(NETWORK, TIMES, **POWERS)
    assert found.transmit == pytest.approx([4.08, 2.0])
    assert found.compute == pytest.approx([1e-6 * 100**2 * 500, 2e-6 * 25**2 * 50])
    assert found.static == pytest.approx([2.5, 0.0])
    assert found.server == pytest.approx([1e-6 * 100**2 * 800, 0.0])
    assert found.device == pytest.approx([4.08 + 5 + 2.5, 2.0 + 0.0625])


def test_memory_says_what_fits():
    assert memory.needed(NETWORK, WORK, [1, 2]).tolist() == [2e6, 3e6]
    assert memory.fits(NETWORK, WORK).tolist() == [[True, True, False], [False] * 3]


def test_no_band_takes_for_ever_and_no_downlink_takes_no_time():
    times = stages(NETWORK, WORK, bits=8, bandwidth=0.0, **CHOICES)
    assert np.isinf(times.up).all() and not times.down.any() and times.aggregation[1] == 0


@given(
    st.lists(st.lists(st.floats(0, 10), min_size=6, max_size=6), min_size=1, max_size=4), st.integers(1, 5)
)
def test_one_micro_batch_is_the_chain_and_many_leave_the_slowest_stage(values, steps):
    times = Stages(**dict(zip(STAGES, np.array(values).T, strict=True)))
    assert pipelined(times, micro_batches=1, steps=steps) == pytest.approx(chain(times, steps=steps))
    rounds = [pipelined(times, micro_batches=count, steps=steps) for count in (1, 2, 5, 10**9)]
    assert all(later <= sooner + 1e-9 for sooner, later in itertools.pairwise(rounds))
    slowest = np.array(values)[:, :5].max()
    assert rounds[-1] == pytest.approx(steps * slowest + np.array(values)[:, 5].max(), abs=1e-6)
    # A barrier whose server serves everybody at once is never faster than the longest chain.
    assert barrier(times, times.server.max(), steps=steps) >= chain(times, steps=steps) - 1e-9


def test_the_reference_cell_s_payload_and_cycles():
    network, work = ref_a(), ref_a_workload()
    times = stages(
        network, work, cut=1, bits=8, bandwidth=1e6, power=network.max_power, clock=network.max_clock
    )
    cycles = 16 * (0.231 + 2.918 + 2.285) * 1e9 / 512
    assert times.compute * network.max_clock == pytest.approx(np.full(20, cycles), rel=1e-3)
    assert work.up_bits(8) == pytest.approx(19.467e6, abs=500)
