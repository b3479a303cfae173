"""``quant.bits_adapters`` over a network: what arrives is what a simulation has, whatever dies; sizes are as agreed."""

from __future__ import annotations

import http.client
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from sflam.codec.adapter_change import decode_change, encode_change
from sflam.codec.bodies import decode, encode
from sflam.codec.common_grid import grids
from sflam.codec.messages import AdapterFrame, ChangeFrame
from sflam.codec.settings import QuantSettings
from sflam.errors import WireError
from sflam.learn.adapter_exchange import AdapterCodec
from sflam.link.contract import expect_same_grid
from sflam.link.exchange import NumpyCoder, TokenExchange
from sflam.link.https_client import Link
from sflam.link.round_work import RoundWork
from sflam.sizes import adapter_body_bytes
from tests.learn.builders import LEARN, assert_equal_states
from tests.serve.test_hostile import TERMS, Site
from tests.serve.test_phases import Fault, faulty
from tests.serve.threads import KINDS, LEAN, Rig, simulated

EIGHT = QuantSettings(bits_up=6, bits_down=6, bits_adapters=8)
LOOP = replace(LEARN, rounds=3, local_epochs=1, local_steps=2, canonical=True, state="keep", optimizer="adam")
JOB = {"cuts": (1, 2, 1), "labels": "server", "quant": EIGHT, "learn": LOOP}

pytestmark = pytest.mark.usefixtures("one_thread")


def equal(found, wanted):
    return all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("bits", [1, 8])
def test_served_is_simulated_bit_for_bit(tmp_path, labels, bits):
    job = JOB | {"labels": labels, "quant": replace(EIGHT, bits_adapters=bits)}
    wanted, state = simulated("bert", **job)
    records, found = Rig(tmp_path, "bert", **job).run()
    assert equal(found, state)
    plain = simulated("bert", **(job | {"quant": replace(EIGHT, bits_adapters=32)}))
    assert not equal(plain[1], state)
    for mine, theirs, floats in zip(records, wanted, plain[0], strict=True):
        assert (mine.adapter_bytes_up, mine.adapter_bytes_down) == (
            theirs.adapter_bytes_up,
            theirs.adapter_bytes_down,
        )
        assert mine.adapter_bytes_down == floats.adapter_bytes_down
        assert mine.adapter_bytes_up < (0.55 if bits == 8 else 0.4) * floats.adapter_bytes_up


COMMON = JOB | {"cuts": (1, 1, 1), "quant": replace(EIGHT, adapters_scale="common")}


@pytest.mark.parametrize("labels", ["server", "device"])
def test_one_grid_for_all_devices_bit_for_bit(tmp_path, labels):
    job = COMMON | {"labels": labels}
    sent = []

    class Listening(Link):
        def _once(self, method, path, body, headers):
            if method == "PUT":
                sent.append((int(path.split("/")[3]), decode(bytes(body)).change))
            return super()._once(method, path, body, headers)

    wanted, state = simulated("bert", **job)
    records, found = Rig(tmp_path, "bert", links=dict.fromkeys(range(3), Listening), lives=1, **job).run()
    assert equal(found, state)
    assert not equal(simulated("bert", **(job | {"quant": EIGHT}))[1], state)
    for mine, theirs in zip(records, wanted, strict=True):
        assert mine.adapter_bytes_up == theirs.adapter_bytes_up
        assert mine.adapter_bytes_down == theirs.adapter_bytes_down
    for round in range(3):
        sides = {change.side.tobytes() for number, change in sent if number == round}
        assert (len(sides) > 1) == (round == 0)  # there is no last round before the first


@KINDS
@pytest.mark.parametrize("fault", [Fault.DIE_BEFORE_SEND, Fault.DIE_AFTER_ANSWER])
def test_the_grid_survives_a_device_s_death(tmp_path, fault, lean):
    rig = Rig(tmp_path / "faulty", "bert", links={1: faulty(fault, "adapters")}, lean=lean, **COMMON)
    _, found = rig.run()
    assert rig.deaths == 1
    wanted = (
        Rig(tmp_path / "calm", "bert", lean=lean, **COMMON).run() if lean else simulated("bert", **COMMON)
    )
    assert equal(found, wanted[1])


@pytest.mark.parametrize("bits", [1, 8, 16])
@pytest.mark.parametrize("far", [1e-45, 9e37, 3e38])
def test_however_far_a_device_went_the_next_round_has_grids(bits, far):
    """One that sends what is only just finite ends no server."""
    codec = AdapterCodec(bits, 1, common=True)
    start = {"a": torch.zeros(300)}
    codec.follow({0: {"a": torch.full((300,), far)}}, start, lambda device: ["a"])
    side = codec.side(start, ["a"])
    moved = np.full(300, far, np.float32)
    packed = encode_change(moved, 0 * moved, bits, seed=1, round=1, device=0, side=side)
    assert np.array_equal(packed.side, side) and np.isfinite(decode_change(packed, 0 * moved)).all()


def test_a_change_on_another_grid_is_refused():
    start = np.zeros(300, np.float32)
    side = grids(np.full(3, 0.5, np.float32), 8)
    sent = encode(AdapterFrame(0, 0, 0, start, side))
    at = {"seed": 1, "round": 0, "device": 0}
    expect_same_grid(ChangeFrame(0, 0, 4, encode_change(start, start, 8, side=side, **at)), sent)
    own = ChangeFrame(0, 0, 4, encode_change(start + 0.1, start, 8, **at))
    with pytest.raises(WireError, match="other grids"):
        expect_same_grid(own, sent)
    expect_same_grid(own, encode(AdapterFrame(0, 0, 0, start)))
    expect_same_grid(own, encode(AdapterFrame(0, 0, 0, start, 0 * side)))


@pytest.mark.parametrize("ranks", [(), (1, 2, 2)])
def test_devices_without_torch_send_the_same_but_for_the_last_bits_of_their_arithmetic(tmp_path, ranks):
    learn = replace(LOOP, rounds=1, local_steps=1, optimizer="sgd", lr=0.005)
    job = JOB | {"learn": learn, "ranks": ranks, "quant": replace(EIGHT, bits_up=16, bits_down=16)}
    _, state = simulated("bert", **job)
    rig = Rig(tmp_path, "bert", lean=LEAN, **job)
    records, found = rig.run()
    assert_equal_states(found, state, 1e-3)
    assert records[0].adapter_bytes_up == sum(
        adapter_body_bytes(each.adapters, 8) for each in rig.contracts.values()
    )


@KINDS
@pytest.mark.parametrize(
    ("fault", "at"),
    [
        (Fault.DIE_AFTER_ANSWER, "steps/0"),
        (Fault.DIE_BEFORE_SEND, "adapters"),
        (Fault.DIE_BEFORE_ANSWER, "adapters"),
        (Fault.DIE_AFTER_ANSWER, "adapters"),
        (Fault.LOST_ANSWER, "adapters"),
    ],
)
def test_a_device_that_died_sends_the_change_since_the_round_began(tmp_path, fault, at, lean):
    """Its start survives it: what it sends again is the same to the byte, or the server would refuse it."""
    rig = Rig(tmp_path / "faulty", "bert", links={1: faulty(fault, at)}, lean=lean, **JOB)
    _, found = rig.run()
    if fault is not Fault.LOST_ANSWER:
        assert rig.deaths == 1
    wanted = Rig(tmp_path / "calm", "bert", lean=lean, **JOB).run() if lean else simulated("bert", **JOB)
    assert equal(found, wanted[1])


@pytest.mark.parametrize("bits", [8, 32])
def test_every_kind_of_device_makes_the_body_that_a_simulation_counts(bits):
    rng = np.random.default_rng(0)
    start = rng.standard_normal(500).astype(np.float32)
    values = (start + 0.01 * rng.standard_normal(500)).astype(np.float32)
    exchange = TokenExchange(NumpyCoder("rotated"), "rotated", 7, 3, 8, 32, (4, 4), bits)
    body = exchange.trained(RoundWork(2, 1, 40, values, start, np.empty((0, 2), np.uint16)))
    tensors = torch.from_numpy(values), torch.from_numpy(start)
    found, size = AdapterCodec(bits, 7).up(2, 3, 40, *tensors)
    message = decode(body)
    assert size == len(body) and message.samples == 40
    if bits == 32:
        assert np.array_equal(message.values, found.numpy())
    else:
        change = encode_change(values, start, bits, seed=7, round=2, device=3)
        assert bytes(body) == encode(ChangeFrame(2, 3, 40, change))


def test_what_was_not_agreed_is_refused():
    agreed = replace(TERMS, adapters=300, change_bits=8)
    start = np.zeros(300, np.float32)

    def change(values, bits):
        moved = np.ones(values, np.float32)
        return ChangeFrame(
            0, agreed.device, 4, encode_change(moved, 0 * moved, bits, seed=1, round=0, device=0)
        )

    assert agreed.check_adapters(change(300, 8), 0).change.bits == 8
    for wrong in (change(300, 4), change(100, 8), AdapterFrame(0, agreed.device, 4, start)):
        with pytest.raises(WireError, match=r"agreed"):
            agreed.check_adapters(wrong, 0)
    with pytest.raises(WireError, match="AdapterFrame was agreed"):
        replace(agreed, change_bits=32).check_adapters(change(300, 8), 0)
    with pytest.raises(WireError, match="in another's place"):
        agreed.check_adapters(change(300, 8), 1)


@pytest.mark.parametrize("opened", [False, True])
def test_a_change_that_comes_when_its_round_is_over_is_late_and_no_fault(tmp_path, opened):
    """What it was sent is gone by then, or another round's: a device that gets 409 goes on with the next round."""
    side = grids(np.full(1, 0.5, np.float32), 8)
    start = np.zeros(6, np.float32)
    sent, other = (
        encode(AdapterFrame(1, 0, 0, start, grid)) for grid in (side, grids(np.ones(1, np.float32), 8))
    )
    body = encode(ChangeFrame(1, 0, 4, encode_change(start, start, 8, side=side, seed=1, round=1, device=0)))
    with Site(tmp_path, works=False) as site:
        site.ingress.contracts[0] = replace(TERMS, change_bits=8)
        site.dispatch.close()
        site.dispatch.open(1, 2, {0: 0, 1: 0}, 1000.0, {0: sent, 1: sent})
        link = http.client.HTTPConnection("127.0.0.1", site.server.port, timeout=20)
        link.putrequest("PUT", "/v1/rounds/1/2/adapters")
        link.putheader("Authorization", f"Bearer {site.token}")
        link.putheader("Content-Length", str(len(body)))
        link.endheaders(body[:100])
        until = time.monotonic() + 20
        while not site.dispatch.session.seats[0].receiving and time.monotonic() < until:
            time.sleep(0.01)
        site.dispatch.close()
        if opened:
            site.dispatch.open(2, 3, {0: 0, 1: 0}, 1000.0, {0: other, 1: other})
        link.send(body[100:])
        answer = link.getresponse()
        status, text = answer.status, answer.read()
        link.close()
        assert status == 409, text


def test_a_device_that_sends_floats_is_refused_by_its_size_before_they_are_read(tmp_path):
    """As one of an earlier version would, which knows of no changes."""
    statuses = []

    class Earlier(Link):
        def _once(self, method, path, body, headers):
            if method == "PUT" and len(statuses) < 1:
                frame = decode(body)
                size = self.contract.adapters
                floats = AdapterFrame(frame.round, frame.device, frame.samples, np.zeros(size, np.float64))
                found = super()._once(method, path, encode(floats), headers)
                statuses.append((found[0], found[2].decode()))
            return super()._once(method, path, body, headers)

    rig = Rig(tmp_path, "vit", links={0: Earlier}, **JOB)
    Earlier.contract = rig.contracts[0]
    rig.run()
    [(status, text)] = statuses
    assert status == 413 and f"{rig.contracts[0].delivered_bytes()} were agreed" in text
