"""Which rank has which device, what one process alone does, and what travels between ranks."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sflam.learn.nested import packed, unpacked
from sflam.learn.world.world import ALONE, dealt

LOADS = st.dictionaries(st.integers(0, 500), st.integers(0, 1000), min_size=1, max_size=60)


@given(LOADS, st.integers(1, 9))
def test_every_device_has_one_rank_and_no_rank_a_device_more_than_it_must(loads, size):
    found = dealt(loads, size)
    assert len(found) == size and sorted(device for own in found for device in own) == sorted(loads)
    assert all(own == sorted(own) for own in found)
    sums = [sum(loads[device] for device in own) for own in found]
    # Graham's bound of the greedy rule: no more than the mean and one device.
    assert max(sums) <= sum(loads.values()) / size + max(loads.values())


def test_equal_devices_are_dealt_out_evenly():
    assert [len(own) for own in dealt(dict.fromkeys(range(10), 7), 4)] == [3, 3, 2, 2]
    assert [len(own) for own in dealt(dict.fromkeys(range(6), 0), 3)] == [2, 2, 2]


def test_one_process_has_all_and_exchanges_nothing():
    tensor = torch.ones(3)
    ALONE.sum(tensor)
    assert tensor.tolist() == [1.0] * 3 and (ALONE.size, ALONE.rank) == (1, 0)
    assert ALONE.mine((4, 2), lambda: pytest.fail("it was asked")) == [4, 2]
    assert ALONE.first("x") == "x" and ALONE.gather({"a": 1}) == ALONE.collect({"a": 1}) == [{"a": 1}]


def test_the_contract_needs_no_torch():
    code = "import sys, sflam.learn.world.world, sflam.run.ranks; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_nested_values_come_back_as_they_went():
    value = {
        "state": {"a.b": torch.arange(6.0).view(2, 3), "c": torch.tensor(7)},
        3: [torch.zeros(0, 2, dtype=torch.float64), (1, None, "x", -math.inf), True],
        "empty": {},
    }
    found = unpacked(packed(value))
    assert found.keys() == value.keys() and found["empty"] == {}
    assert all(torch.equal(found["state"][name], own) for name, own in value["state"].items())
    assert found[3][0].shape == (0, 2) and found[3][1:] == [(1, None, "x", -math.inf), True]
    with pytest.raises(TypeError, match="is a set; a checkpoint holds"):
        packed({"x": {1}})
