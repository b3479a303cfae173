"""A device that sends values so large that nothing finite can be learnt of them is left out; the others are not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from sflam.codec.bodies import decode, encode
from sflam.codec.messages import StepFrame, TokenFrame
from sflam.codec.quantizers import quantizer
from sflam.link.https_client import Link
from tests.learn.builders import adapted
from tests.serve import test_shared_trunk, threads
from tests.serve.test_shared_trunk import JOB, MIXED, equal, replayed
from tests.serve.threads import KINDS, Rig

LARGEST = 3e38
SPOILER = 1

pytestmark = pytest.mark.usefixtures("one_thread", "single_precision")


@pytest.fixture
def single_precision(monkeypatch):
    """Models as users have them: in float64 nothing that can be sent is too large."""
    for module in (threads, test_shared_trunk):
        monkeypatch.setattr(module, "adapted", partial(adapted, dtype=torch.float32))


def enlarged(body):
    """Return the body of a step with every value as large as float32 nearly can."""
    message = decode(body)
    name = "activations" if isinstance(message, StepFrame) else "tokens"
    packed = getattr(message, name)
    values = np.full((packed.tokens, packed.dim), LARGEST, np.float32)
    return encode(replace(message, **{name: quantizer(packed.scheme).encode(values, packed.bits, 0)}))


def spoiling(end, kind):
    """Return a link that spoils every body that goes to a path ending with ``end``."""

    class Spoiling(Link):
        def _once(self, method, path, body, headers):
            if method == "POST" and path.rstrip("0123456789").endswith(end):
                assert isinstance(decode(body), kind)
                body = enlarged(body)
            return super()._once(method, path, body, headers)

    return Spoiling


@pytest.mark.parametrize("update", ["mixed", "batched", "sequential"])
def test_one_trunk_for_all_learns_nothing_from_it(tmp_path, monkeypatch, update):
    job = JOB | {"learn": replace(MIXED, server_update=update)}
    rig = Rig(tmp_path, "vit", links={SPOILER: spoiling("/steps/", StepFrame)}, quorum=2, **job)
    records, found = rig.run()
    assert [one.participants for one in records] == [(0, 2)] * 2
    assert all(tensor.isfinite().all() for tensor in found.values())
    _, without = replayed("vit", records, monkeypatch, **job)
    assert equal(found, without), "as if it had not come"


def test_copies_of_the_others_and_their_momenta_stay_finite(tmp_path):
    job = JOB | {"learn": replace(MIXED, method="sflam")}
    rig = Rig(tmp_path, "vit", links={SPOILER: spoiling("/steps/", StepFrame)}, quorum=2, **job)
    records, found = rig.run()
    assert [one.participants for one in records] == [(0, 2)] * 2
    assert all(tensor.isfinite().all() for tensor in found.values())
    (trunk,) = rig.fleet.local.servers.trunks.values()
    kept = [value for row in trunk.optimizer.state.values() for value in row.values()]
    assert kept and all(value.isfinite().all() for value in kept)


@KINDS
@pytest.mark.parametrize(("end", "kind"), [("/forward", StepFrame), ("/backward", TokenFrame)])
def test_labels_on_devices(tmp_path, end, kind, lean):
    job = JOB | {"labels": "device", "learn": replace(MIXED, server_update="batched")}
    rig = Rig(tmp_path, "vit", links={SPOILER: spoiling(end, kind)}, quorum=2, lean=lean, **job)
    records, found = rig.run()
    assert [one.participants for one in records] == [(0, 2)] * 2
    assert all(tensor.isfinite().all() for tensor in found.values())
