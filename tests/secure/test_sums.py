"""A secure sum is the plain sum of those who remained, whoever is lost when, and shows nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.errors import SecureSumError
from sflam.secure.bodies import bytes_down, bytes_up, decode_message
from sflam.secure.graph import degree, fewest, neighbours
from sflam.secure.in_process import sum_in_process
from sflam.secure.keys import stretched
from sflam.secure.messages import PHASES, MaskedVector, RevealedShares
from sflam.secure.ring import top, weighted, width_of
from sflam.secure.shamir import join

CONTEXT = b"run 1 round 2 attempt 3"


def vectors_of(count, length, bits, seed, weights=None):
    """Return device -> weighted codes and its weight, the width of their sum, and the plain sum of a set of devices."""
    draw = np.random.default_rng(seed)
    weights = draw.integers(0, 400, count).tolist() if weights is None else weights
    width = width_of((1 << bits) - 1, max(1, sum(weights)))
    devices = sorted(draw.choice(3 * count, count, replace=False).tolist())
    codes = {device: draw.integers(0, 1 << bits, length).astype(np.uint64) for device in devices}
    own = {
        device: weighted(codes[device], weight, width)
        for device, weight in zip(devices, weights, strict=True)
    }

    def plain(those):
        numbers = [[int(weight) * int(one) for one in codes[d]] + [int(weight)] for d, weight in
                   zip(devices, weights, strict=True) if d in those]  # fmt: skip
        return [sum(column) for column in zip(*numbers, strict=True)]

    return own, width, plain


@settings(max_examples=25)
@given(
    count=st.integers(3, 9),
    length=st.integers(1, 40),
    bits=st.integers(1, 16),
    share=st.floats(0.51, 0.9),
    seed=st.integers(0, 10**6),
    data=st.data(),
)
def test_it_is_the_plain_sum_of_those_who_remained(count, length, bits, share, seed, data):
    """Any weights, any devices lost at any phases, as long as the threshold of them stays to the end."""
    own, width, plain = vectors_of(count, length, bits, seed)
    devices = sorted(own)
    spare = count - fewest(share, count)
    away = data.draw(st.lists(st.sampled_from(devices), max_size=spare, unique=True))
    when = {device: data.draw(st.sampled_from(PHASES[1:])) for device in away}
    lost = {phase: [d for d in away if when[d] == phase] for phase in PHASES}
    found = sum_in_process(own, width, CONTEXT, share, lost=lost)
    there = [d for d in devices if when.get(d, "unmasking") == "unmasking"]
    assert found.devices == tuple(there)
    assert found.total.tolist() == plain(there)


@pytest.mark.parametrize("phase", PHASES)
def test_a_device_lost_at_any_phase(phase):
    own, width, plain = vectors_of(5, 30, 8, 1)
    away = sorted(own)[2]
    found = sum_in_process(own, width, CONTEXT, 0.66, lost={phase: [away]})
    there = [d for d in own if d != away or phase == "unmasking"]
    assert found.total.tolist() == plain(there) and found.devices == tuple(there)


@pytest.mark.parametrize("phase", PHASES[1:])
def test_fewer_than_the_threshold_end_it_with_one_sentence(phase):
    own, width, _ = vectors_of(5, 30, 8, 1)
    with pytest.raises(
        SecureSumError, match=r"^3 of 5 devices are left of a secure sum, and it takes 4; begin"
    ):
        sum_in_process(own, width, CONTEXT, 0.66, lost={phase: sorted(own)[:2]})


def test_two_devices_have_no_secure_sum():
    own, width, _ = vectors_of(3, 4, 8, 1)
    with pytest.raises(SecureSumError, match=r"^2 devices came to a secure sum; it takes 3"):
        sum_in_process(own, width, CONTEXT, 0.66, lost={"keys": sorted(own)[:1]})


@pytest.mark.parametrize("phase", PHASES[1:3])
def test_nor_do_three_of_whom_one_is_lost(phase):
    """Two of three give secrets back at 0.66, but either would then know the other's part."""
    own, width, _ = vectors_of(3, 4, 8, 1)
    with pytest.raises(
        SecureSumError, match=r"^2 of 3 devices are left of a secure sum, and it takes 3; begin"
    ):
        sum_in_process(own, width, CONTEXT, 0.66, lost={phase: sorted(own)[:1]})


def test_large_rounds_have_near_neighbours_alone():
    """A ring of 40: each has eight neighbours, and three of them may be lost."""
    own, width, plain = vectors_of(40, 12, 8, 3)
    devices = sorted(own)
    graph = neighbours(devices, 8, 5)
    assert all(len(set(near)) == 8 and device not in near for device, near in graph.items())
    assert all(device in graph[other] for device, near in graph.items() for other in near)
    lost = {"shares": devices[3:4], "masked": [devices[20], devices[31]], "unmasking": devices[11:12]}
    found = sum_in_process(own, width, CONTEXT, 0.51, most=8, seed=5, lost=lost)
    there = [d for d in devices if d not in {devices[3], devices[20], devices[31]}]
    assert found.total.tolist() == plain(there)
    near = graph[devices[20]]
    with pytest.raises(SecureSumError, match=r"of 9 devices are left|shares of a secret came"):
        sum_in_process(own, width, CONTEXT, 0.51, most=8, seed=5, lost={"masked": near[:6]})


def test_neighbours_grow_with_the_logarithm_of_the_devices():
    assert degree(10, 0.66) == 9 and degree(3, 0.66) == 2
    found = [degree(count, 0.66) for count in (200, 1000, 10_000)]
    assert found == sorted(found) and 40 < found[0] and found[-1] < 200


def test_what_goes_up_looks_uniform():
    """Of a device whose numbers are all zero, and again in the next sum: 256 counts of bytes, chi-squared."""
    width, length = 3, 20_000
    own = {device: np.zeros(length, np.uint64) for device in range(4)}
    rows = []
    for _ in range(2):
        found = sum_in_process(own, width, CONTEXT, 0.66, keep=True)
        assert not found.total.any()
        message = decode_message(found.bodies["masked", 2], MaskedVector, length)
        rows.append(message.values)
        counts = np.bincount(np.frombuffer(found.bodies["masked", 2][12:], np.uint8), minlength=256)
        expected = length * width / 256
        assert 150 < float(((counts - expected) ** 2 / expected).sum()) < 400  # 255 degrees of freedom
    assert (rows[0] == rows[1]).mean() < 0.001  # masks are agreed anew


def test_the_server_sees_no_numbers_but_their_sum():
    """With all that the server is given, a device's own mask comes off; those with its neighbours stay, and hide it."""
    length, width = 2000, 2
    own = {device: np.full(length, 7 * device, np.uint64) for device in range(5)}
    found = sum_in_process(own, width, CONTEXT, 0.66, keep=True)
    assert found.total.tolist() == [70] * length
    shares = {d: decode_message(found.bodies["unmasking", d], RevealedShares, 10) for d in own}
    bared = {}
    for device in own:
        seed = join({d + 1: shares[d].masks[device] for d in own}, 4)
        values = decode_message(found.bodies["masked", device], MaskedVector, length).values
        bared[device] = (values - stretched(seed, length, width)) & top(width)
        assert len(np.unique(bared[device])) > 0.95 * length and bared[device].max() > 0.99 * float(
            top(width)
        )
    assert ((sum(bared.values()) & top(width)) == found.total).all()
    some = sum(bared[device] for device in range(4)) & top(width)  # four of five are masked by the fifth
    assert len(np.unique(some)) > 0.95 * length


def test_of_each_neighbour_one_secret_is_revealed():
    own, width, _ = vectors_of(6, 5, 8, 2)
    devices = sorted(own)
    found = sum_in_process(own, width, CONTEXT, 0.51, lost={"masked": devices[:2]}, keep=True)
    for device in devices[2:]:
        shares = decode_message(found.bodies["unmasking", device], RevealedShares, 12)
        assert set(shares.masks) == set(devices[2:]) and set(shares.keys) == set(devices[:2])


@pytest.mark.parametrize("count", [3, 7, 60])
def test_bytes_are_known_beforehand(count):
    own, width, _ = vectors_of(count, 50, 8, 4)
    found = sum_in_process(own, width, CONTEXT, 0.66)
    others = degree(count, 0.66)
    assert set(found.sent.values()) == {bytes_up(51, width, others)}
    assert set(found.received.values()) == {bytes_down(others)}
