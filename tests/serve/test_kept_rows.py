"""``learn.cache = "server"`` served: activations cross once a sample, and what was lost crosses again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sflam.codec.bodies import decode, encode, unfilled
from sflam.codec.pieces import split
from sflam.codec.settings import QuantSettings
from sflam.link.https_client import Link
from tests.learn.builders import IDENTITY, LEARN, assert_equal_states
from tests.serve.test_shared_trunk import dies
from tests.serve.threads import KINDS, SIZES, Rig, simulated

LOOP = replace(LEARN, rounds=3, batch=2, local_steps=4, canonical=True, cache="server", device_half="frozen")
FOUR = QuantSettings(bits_up=4, bits_down=4)
JOB = {"cuts": (1, 0, 2), "learn": LOOP}

pytestmark = pytest.mark.usefixtures("one_thread")


def expect(found, wanted, lean):
    if lean:
        return assert_equal_states(found, wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@KINDS
@pytest.mark.parametrize("quant", [FOUR, pytest.param(IDENTITY, marks=pytest.mark.slow)], ids=["four", "raw"])
@pytest.mark.parametrize(
    ("kind", "labels"),
    [("vit", "server"), ("bert", "device"), pytest.param("gpt2", "server", marks=pytest.mark.slow)],
)
def test_served_is_simulated_and_rows_cross_once(tmp_path, kind, labels, quant, lean):
    job = JOB | {"labels": labels, "quant": IDENTITY if lean else quant}
    wanted, state = simulated(kind, **job)
    records, found = Rig(tmp_path, kind, lean=lean, **job).run()
    expect(found, state, lean)
    assert [one.bytes_up for one in records] == [one.bytes_up for one in wanted]
    if labels == "server":
        assert records[-1].bytes_up < 0.6 * records[0].bytes_up, "numbers of samples go up, and little else"


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("labels", ["server", pytest.param("device", marks=pytest.mark.slow)])
def test_a_device_that_dies_and_comes_back_sends_the_same_bodies(tmp_path, labels, answered):
    """The new process goes on with the step that the server may have taken, and does not lack the rows of it."""
    job = JOB | {"labels": labels, "quant": FOUR}
    _, state = simulated("vit", **job)
    path = "/v1/rounds/0/1/steps/1" + ("" if labels == "server" else "/forward")
    rig = Rig(tmp_path, "vit", links={1: dies(path, answered)}, **job)
    _, found = rig.run()
    assert rig.deaths == 1
    expect(found, state, ())


def test_what_a_server_lost_crosses_again_and_changes_nothing(tmp_path):
    job = JOB | {"labels": "server", "quant": FOUR}
    wanted, state = simulated("vit", **job)
    rig = Rig(tmp_path, "vit", **job)
    before = rig.fleet.before

    def forgetful(round, begun):
        if round == 2:
            rig.fleet.local.exchange.kept.clear()
        before(round, begun)

    rig.fleet.before = forgetful
    records, found = rig.run()
    expect(found, state, ())
    sent = [one.bytes_up for one in records]
    assert sent[:2] == [one.bytes_up for one in wanted][:2] and sent[2] > wanted[2].bytes_up


def other_numbers(frame):
    """Name samples that never went up, and send nothing of them."""
    empty = unfilled(frame.activations.scheme, frame.activations.bits, 0, frame.activations.dim)
    return replace(frame, samples=frame.samples + 100, activations=empty)


def half_of_each(frame):
    """Send half as many tokens as the samples have."""
    packed = frame.activations
    return replace(
        frame, activations=split(packed, [packed.tokens // 2, packed.tokens - packed.tokens // 2])[0]
    )


def more_samples(frame):
    """Name another sample in every step, so that the server would keep ever more of them."""
    count = np.arange(frame.rows, dtype=np.int32)
    return replace(frame, samples=count + 1000 * (1 + frame.step + 10 * frame.round))


@pytest.mark.parametrize("lie", [other_numbers, half_of_each, more_samples])
def test_a_device_whose_numbers_do_not_fit_is_left_out_and_the_others_go_on(tmp_path, lie):
    class Lying(Link):
        def _once(self, method, path, body, headers):
            if method == "POST" and "/steps/" in path:
                body = encode(lie(decode(bytes(body))))
            return super()._once(method, path, body, headers)

    job = JOB | {"labels": "server", "quant": FOUR, "learn": replace(LOOP, batch=5, local_steps=2)}
    rig = Rig(tmp_path, "vit", links={2: Lying}, quorum=2, **job)
    records, _ = rig.run()
    assert [2 in one.participants for one in records][-1] is False
    assert all({0, 1} <= set(one.participants) for one in records)
    assert all(len(rig.fleet.local.exchange.held(device)) <= size for device, size in enumerate(SIZES))
