"""Who is there when: read whole or refused with one sentence, and drawn from a stream of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.config import load
from sflam.errors import ConfigError
from sflam.network.presence import Presence, presence_of, read, uncertain

NAMES = ("a", "b", "c")


def settings_of(*overrides):
    return load(None, ["network.simulate=true", *overrides])


def test_stays_of_a_file_and_of_tables(tmp_path):
    path = tmp_path / "there.csv"
    path.write_text("device,since_s,until_s\nb,5,\na,10,20\na,0,5\n")
    tables = "network.device=[{name='a', joins_s=2.0}, {name='b', leaves_s=30.0}, {name='c', failure=0.5}]"
    job = settings_of(f"network.presence={path}", tables, "network.failure=0.25")
    found = presence_of(job.network, NAMES)
    assert found.stays == (((2.0, 5.0), (10.0, 20.0)), ((5.0, 30.0),), ((0.0, math.inf),))
    assert found.failure.tolist() == [0.25, 0.25, 0.5] and uncertain(job) == "network.failure"
    assert found.there(3.0).tolist() == [True, False, True]
    assert found.comes(5.0).tolist() == [10, 5, 5] and found.comes(40.0).tolist() == [math.inf, math.inf, 40]
    assert found.leaves(12.0).tolist() == [20, 30, math.inf]


def test_failures_have_a_stream_of_their_own():
    found = Presence(stays=(((0.0, math.inf),),) * 1000, failure=np.full(1000, 0.3))
    first, again, other = (found.failing(1, 2, opening) for opening in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    fails = np.isfinite(first)
    assert 0.25 < fails.mean() < 0.35 and 0.4 < first[fails].mean() < 0.6 and (first[fails] < 1).all()
    fewer = Presence(stays=found.stays, failure=np.full(1000, 0.1)).failing(1, 2)
    assert (np.isfinite(fewer) <= fails).all()  # whoever fails at 0.1 fails at 0.3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no device and no since_s and no until_s; it needs rows of device, since_s, until_s"),
        ("device,since_s,until_s\nd,0,1\n", "row 1: no device 'd'; the network has a, b, c"),
        ("device,since_s,until_s\na,x,1\n", "row 1: since_s is 'x'; it must be seconds, 0 or more"),
        ("device,since_s,until_s\na,2,1\n", "row 1: since_s is 2 and until_s 1; a stay must have a length"),
        (
            "device,since_s,until_s\na,0,3\na,2,4\n",
            "stays of device 'a' overlap, one until 3 s and one from 2 s",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, text, sentence):
    path = tmp_path / "there.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        read(path, NAMES)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=8, unique=True), st.floats(0, 120))
def test_a_device_is_there_from_when_it_comes_until_it_leaves(ends, at):
    ends = sorted(ends)[: len(ends) // 2 * 2]
    stays = tuple(zip(ends[::2], ends[1::2], strict=True))
    found = Presence(stays=(stays,), failure=np.zeros(1))
    comes, leaves = float(found.comes(at)[0]), float(found.leaves(at)[0])
    assert comes >= at and bool(found.there(at)[0]) == (comes == at) == (leaves > at)
    if math.isfinite(comes):
        assert found.there(comes)[0]
